"""How likely a model found texts that were given to it: figures of each document of a tape of scores, and of all together.

The log-probability of a text is the sum over its tokens (chain rule), in nats. **Perplexity** is ``exp`` of its negative mean over
tokens; **bits per byte** and **per character** are its negative in bits over the UTF-8 bytes and the characters of the text, which
compare models whose tokenizers differ (L. Gao et al., "The Pile", 2020, section 3.1).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tokentape.errors import StudyError
from tokentape.study.surprise import perplexity, surprises_nats

if TYPE_CHECKING:
    from tokentape.data.tape import Tape
    from tokentape.data.trace import Trace

__all__ = ["NOTE", "DocumentScore", "Total", "scores", "spelled_bytes", "total"]

NOTE = "score"
"""Where a run's options say which documents it scored and how, and the tape's notes what was asked for."""


@dataclass(frozen=True, slots=True)
class Total:
    """Sums over the tokens of one text or several: ``logprob`` in nats, None where that of a token is not known."""

    logprob: float | None
    n_tokens: int
    n_bytes: int | None
    n_chars: int | None

    @property
    def perplexity(self) -> float | None:
        """``exp`` of the mean surprise of a token; None also where that is beyond a float."""
        return None if self.logprob is None or not self.n_tokens else perplexity(-self.logprob / self.n_tokens)

    @property
    def bits_per_byte(self) -> float | None:
        return self._bits_per(self.n_bytes)

    @property
    def bits_per_char(self) -> float | None:
        return self._bits_per(self.n_chars)

    def _bits_per(self, n: int | None) -> float | None:
        return -self.logprob / math.log(2) / n if self.logprob is not None and n else None

    def as_dict(self) -> dict[str, Any]:
        """Plain values, derived ones included."""
        return {
            "logprob": self.logprob,
            "n_tokens": self.n_tokens,
            "n_bytes": self.n_bytes,
            "n_chars": self.n_chars,
            "perplexity": self.perplexity,
            "bits_per_byte": self.bits_per_byte,
            "bits_per_char": self.bits_per_char,
        }


@dataclass(frozen=True, slots=True)
class DocumentScore:
    """The document ``index`` (from 0, in the order in which they were given), which is trace ``trace`` of the tape.

    ``first`` says what stood before a text without context (``bos``, ``eos``, ``skip``); ``n_given`` tokens were read and not
    scored, of which the first ``n_cut`` did not fit into the window. ``n_skipped`` bytes of the text are not scored. ``merged``
    says that the tokenizer merged across the boundary of context and continuation, so that the tokens are not quite the text.
    ``spelled`` says whether the tokens make the bytes of the text: an unknown character, or a tokenizer that changes the
    text, makes the figures those of something else; None where bytes are not on the tape. ``greedy`` says whether every token
    was the likeliest, None where ranks were not kept.
    """

    index: int
    name: str
    trace: int
    total: Total
    first: str
    n_given: int
    n_cut: int
    n_skipped: int
    n_windows: int
    merged: bool
    spelled: bool | None
    greedy: bool | None

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        own = "index name trace first n_given n_cut n_skipped n_windows merged spelled greedy".split()
        return {**{name: getattr(self, name) for name in own}, **self.total.as_dict()}


def scores(tape: Tape) -> list[DocumentScore]:
    """The documents of a tape of scores, in the order in which they were given; without those that came to no end.

    Raises StudyError where the tape holds none.
    """
    found = []
    for trace in tape.traces:
        options = trace.run.options.get(NOTE)
        if isinstance(options, Mapping) and trace.finish_reason == "given":
            found.append(_score(trace, tape, options))
    if not found:
        raise StudyError(
            "the tape holds no scores",
            why="none of its sequences is a text that was given to be scored",
            fix="tokentape score MODEL TEXT makes one",
        )
    return sorted(found, key=lambda one: one.index)


def _score(trace: Trace, tape: Tape, options: Mapping[str, Any]) -> DocumentScore:
    facts = options["documents"][trace.row]
    nats = surprises_nats(trace)
    known = [one for one in nats if one is not None]
    ranks = trace.tokens["rank"]
    return DocumentScore(
        index=int(facts["index"]),
        name=str(facts["name"]),
        trace=trace.number,
        total=Total(
            -math.fsum(known) if len(known) == len(nats) else None, len(nats), facts["n_bytes"], facts["n_chars"]
        ),
        first=str(options["first"]),
        n_given=int(trace.n_prompt or 0),
        n_cut=int(facts["n_cut"]),
        n_skipped=int(facts["n_skipped"]),
        n_windows=int(facts["n_windows"]),
        merged=bool(facts["merged"]),
        spelled=_spelled(spelled_bytes(trace, tape), facts["n_bytes"]),
        greedy=None if ranks.mask.any() else bool((ranks.data == 1).all()),
    )


def spelled_bytes(trace: Trace, tape: Tape) -> list[bytes | None]:
    """The bytes of each token in a text that was given: a special token stands for its own name, which the text held."""
    found = []
    for token_id, data in zip(trace.token_ids.tolist(), trace.token_bytes, strict=True):
        piece = tape.pieces.get(token_id)
        found.append(
            piece.token.encode() if data == b"" and piece is not None and piece.special and piece.token else data
        )
    return found


def _spelled(data: list[bytes | None], n_bytes: int | None) -> bool | None:
    known = [len(one) for one in data if one is not None]
    return None if n_bytes is None or len(known) < len(data) else sum(known) == n_bytes


def total(found: Iterable[DocumentScore]) -> Total:
    """All documents as one text; a sum is None where that of a document is."""
    parts = [one.total for one in found]
    logprobs = [part.logprob for part in parts if part.logprob is not None]
    n_bytes = [part.n_bytes for part in parts if part.n_bytes is not None]
    n_chars = [part.n_chars for part in parts if part.n_chars is not None]
    return Total(
        math.fsum(logprobs) if len(logprobs) == len(parts) else None,
        sum(part.n_tokens for part in parts),
        sum(n_bytes) if len(n_bytes) == len(parts) else None,
        sum(n_chars) if len(n_chars) == len(parts) else None,
    )
