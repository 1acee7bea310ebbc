"""``score``: how likely a model finds a text, token by token and as a whole, by the chain rule."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokentape.data.tape import Tape, open_tape
from tokentape.errors import UsageError
from tokentape.study.scores import NOTE
from tokentape.tasks.score_documents import Document, digest, documents_of
from tokentape.tasks.score_resume import Earlier, earlier
from tokentape.tasks.score_windows import check_window

if TYPE_CHECKING:
    from tokentape.clock import Clock
    from tokentape.data.setting import Setting
    from tokentape.models.causal import CausalModel
    from tokentape.recorder.tick import LiveRun, Probe
    from tokentape.sources.local import LocalSource
    from tokentape.tasks.score_encoding import Encoded
    from tokentape.tasks.scoring import Scorer

__all__ = ["Asked", "Keeping", "Progress", "carry_out", "score", "scorer_of", "still_to_do"]

UNBOUND_WINDOW = 2048
"""Tokens read at a time by a model that neither its positions nor its tokenizer bound, as lm-evaluation-harness has it."""

UNSET_LENGTH = 10**9
"""A tokenizer's ``model_max_length`` from here on means that nobody set it."""

BATCH_TOKENS = {"cpu": 1024, "cuda": 16384}
"""Tokens that go through the model at once unless told: more gain nothing on a processor, and cost memory."""


@dataclass(frozen=True, slots=True)
class Asked:
    """How to score: see :func:`score`."""

    first: str | None = None
    window: int | None = None
    stride: int | None = None
    distribution: bool = False
    candidates: int = 5
    batch_tokens: int | None = None

    def check(self) -> None:
        """Raise UsageError for what cannot be, whatever the model."""
        check_window(self.window, self.stride)
        if self.candidates < 0:
            raise UsageError(
                f"candidates={self.candidates} is negative",
                why="it counts the most likely tokens to keep",
                fix="give 0 or more",
            )
        if self.batch_tokens is not None and self.batch_tokens < 1:
            raise UsageError(
                f"{self.batch_tokens} tokens at once", why="at least one has to be read", fix="--batch-tokens 1024"
            )

    def plan(self, documents: Sequence[Document], bos: bool | None) -> dict[str, Any]:
        """What must be the same for a tape to be gone on with: everything asked for that the figures depend on."""
        kept = {name: value for name, value in asdict(self).items() if name != "batch_tokens"}
        return {**kept, "bos": bos, "n_documents": len(documents), "digest": digest(documents)}


@dataclass(frozen=True, slots=True)
class Progress:
    """How far scoring has come: documents and tokens done, of how many, and what the rest will take, judged by what was done."""

    n_done: int
    n_all: int
    tokens_done: int
    tokens_all: int
    left_s: float | None


def score(
    source: LocalSource,
    texts: Any,
    *,
    context: Any = None,
    first: str | None = None,
    window: int | None = None,
    stride: int | None = None,
    distribution: bool = False,
    candidates: int = 5,
    batch_tokens: int | None = None,
    path: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    text: bool = True,
    observer: Callable[[Progress], None] | None = None,
) -> Tape:
    """The log-probability of each token of ``texts`` under a model, on a tape: a trace a text, its context as the prompt.

    ``texts`` is a text, token ids, a :class:`~tokentape.tasks.score_documents.Document`, or a list of these; ``context`` goes
    before each that has none of its own, is read and not scored. ``first`` says what the first token of a text without
    context is conditioned on: ``"bos"``, ``"eos"``, or ``"skip"`` to read it without scoring it; None is BOS, else EOS, else
    skip. Longer texts are read in windows of ``window`` tokens (None: the model's positions, else 2,048), each of which
    scores ``stride`` (None: ``window``), so that every token is scored once. ``distribution`` keeps entropy, rank and the
    ``candidates`` likeliest tokens as well. A tape at ``path`` with the same texts and options, broken off, is gone on with.

    The figures of whole texts are :func:`~tokentape.study.scores.scores` of the tape. On Ctrl-C the tape is saved, and the
    exception goes on. Raises PromptError, UsageError, TapeExists, OutOfMemory and what recording raises.
    """
    asked = Asked(first, window, stride, distribution, candidates, batch_tokens)
    return carry_out(
        documents_of(texts, context),
        asked,
        lambda: source,
        bos=source.bos,
        path=path,
        resume=resume,
        overwrite=overwrite,
        text=text,
        observer=observer,
    )


def carry_out(
    documents: Sequence[Document],
    asked: Asked,
    load: Callable[[], LocalSource],
    *,
    bos: bool | None = None,
    path: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    text: bool = True,
    observer: Callable[[Progress], None] | None = None,
) -> Tape:
    """:func:`score`, with a source that is loaded once it is known that texts, options and path will do."""
    from tokentape.recorder.probes import tier

    asked.check()
    place = None if path is None else Path(path)
    plan = asked.plan(documents, bos)
    before = earlier(place, plan, NOTE, resume=resume, overwrite=overwrite)
    source = load()
    if before is not None:
        before.check_setting(source.setting(), "score")
        if before.complete:
            return open_tape(before.path)
    scorer, encoded = scorer_of(source, documents, asked, bos)
    todo = still_to_do(encoded, before)

    def runs() -> Iterator[tuple[Sequence[Encoded], LiveRun]]:
        from tokentape.tasks.scoring import batches

        for batch in batches(todo, scorer.measure, pads=scorer.pads):
            yield batch, scorer.start(batch)

    kept = Keeping(place, plan, before, overwrite=overwrite, text=text, observer=observer)
    return kept.of(source.setting(), source.clock, tier("timing"), runs(), todo, len(encoded))


def scorer_of(
    source: LocalSource, documents: Sequence[Document], asked: Asked, bos: bool | None
) -> tuple[Scorer, list[Encoded]]:
    """What scores, and the documents as ids. Raises PromptError and UsageError for what the model cannot read so."""
    from tokentape.tasks.score_encoding import encoded, opening_of
    from tokentape.tasks.scoring import Measure, Scorer

    causal = source.causal
    opening = opening_of(causal, asked.first)
    window = asked.window or _window_of(causal)
    causal.check_length(window, 0)
    check_window(window, asked.stride)
    measure = Measure(
        window=window,
        stride=asked.stride or window,
        candidates=asked.candidates if asked.distribution else None,
        batch_tokens=asked.batch_tokens or BATCH_TOKENS.get(causal.device.type, BATCH_TOKENS["cpu"]),
    )
    facts = {"first": opening.first, "window": window, "stride": measure.stride}
    return Scorer(source, measure, facts), [encoded(causal, one, i, opening, bos) for i, one in enumerate(documents)]


def still_to_do(encoded: Sequence[Encoded], before: Earlier | None) -> list[Encoded]:
    """The documents that an earlier call has not scored."""
    return [one for one in encoded if before is None or one.index not in before.done]


@dataclass(frozen=True, slots=True)
class Keeping:
    """Where scores are kept, and as what: at ``path`` under the note ``plan``, behind those of ``before``."""

    path: Path | None
    plan: dict[str, Any]
    before: Earlier | None
    overwrite: bool = False
    text: bool = True
    observer: Callable[[Progress], None] | None = None

    def of(
        self,
        setting: Setting,
        clock: Clock,
        probes: Sequence[Probe],
        runs: Iterator[tuple[Sequence[Encoded], LiveRun]],
        todo: Sequence[Encoded],
        n_all: int,
    ) -> Tape:
        """The tape of ``runs``, each of which scores some documents of ``todo``; ``n_all`` there are with those done before."""
        from tokentape.recorder.recorder import Recorder
        from tokentape.recorder.run import drive

        before = self.before
        recorder = Recorder(
            self.path,
            setting,
            probes,
            clock,
            origin=clock.mark() if before is None else before.origin(clock),
            notes={NOTE: self.plan},
            overwrite=self.overwrite,
            text=self.text,
            writer=None if before is None else before.writer(),
        )
        sizes = [len(one.ids) - one.n_given for one in todo]
        told = Progress(n_all - len(todo), n_all, 0, sum(sizes), None)
        began = time.monotonic()
        with recorder:
            for batch, live in runs:
                drive(recorder, live)
                n_tokens = told.tokens_done + sum(len(one.ids) - one.n_given for one in batch)
                left_s = (time.monotonic() - began) * (told.tokens_all / n_tokens - 1)
                told = replace(told, n_done=told.n_done + len(batch), tokens_done=n_tokens, left_s=left_s)
                if self.observer is not None:
                    self.observer(told)
        return recorder.tape


def _window_of(causal: CausalModel) -> int:
    """Tokens that the model reads at a time unless told: its positions, else what its tokenizer says."""
    if causal.positions is not None:
        return causal.positions
    found = getattr(causal.tokenizer, "model_max_length", None)
    return int(found) if found is not None and found < UNSET_LENGTH else UNBOUND_WINDOW
