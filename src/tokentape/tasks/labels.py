"""Labels as continuations of a prompt: how likely each is, and what it is held against.

Each label is scored by teacher forcing. What its log-probability is divided by, or held against, is the normalisation:

===============  =======================================================================================================
``sum``          log P(label | prompt): the conditional log-likelihood.
``token``        the same per token.
``character``    per character of the label, the space before it not counted: ``acc_norm`` of lm-evaluation-harness.
``byte``         per byte of the label in UTF-8.
``pmi``          minus log P(label | domain), the domain a prompt that does not hold the text: PMI_DC of Holtzman et al., "Surface
                 form competition", EMNLP 2021.
``calibrated``   minus the logarithm of the mean probability of the label among all labels after content-free texts: Zhao et al.,
                 "Calibrate before use", ICML 2021. The choice is theirs; as probabilities the ratios are made to sum to 1.
===============  =======================================================================================================
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile
from typing import TYPE_CHECKING

from tokentape.errors import PromptError, UsageError

if TYPE_CHECKING:
    from tokentape.sources.local import LocalSource

__all__ = ["NORMALIZATIONS", "Continuation", "Scored", "baseline_of", "check_labels", "scored", "tokenised"]

NORMALIZATIONS = ("sum", "token", "character", "byte", "pmi", "calibrated")


@dataclass(frozen=True, slots=True)
class Continuation:
    """A label behind a prompt: the ids that follow ``context``, and the log-probability of each, in nats.

    ``merged`` where the tokenizer drew the end of the prompt and the label into one token: the ids then begin before the label, and
    those of the other labels of that prompt at the same place.
    """

    context: tuple[int, ...]
    ids: tuple[int, ...]
    merged: bool = False
    logprobs: tuple[float, ...] = ()

    @property
    def logprob(self) -> float:
        """Log-probability of the whole, in nats."""
        return math.fsum(self.logprobs)


@dataclass(frozen=True)
class Scored:
    """The labels of one text: the log-probability of each in nats, and its score by the normalisation."""

    labels: tuple[str, ...]
    continuations: tuple[Continuation, ...]
    scores: tuple[float, ...]

    @cached_property
    def probabilities(self) -> tuple[float, ...]:
        """Shares of the labels, ``[L]``: the softmax of the scores; with ``sum``, how probable each is given that it is one."""
        best = max(self.scores)
        shares = [math.exp(score - best) for score in self.scores]
        return tuple(share / math.fsum(shares) for share in shares)

    @property
    def best(self) -> int:
        """Place of the likeliest label; of equals the first."""
        return self.scores.index(max(self.scores))

    @property
    def label(self) -> str:
        """The likeliest label."""
        return self.labels[self.best]

    @property
    def margin(self) -> float:
        """By how much the likeliest label is more probable than the second."""
        first, second = sorted(self.probabilities, reverse=True)[:2]
        return first - second


def check_labels(labels: Iterable[str]) -> tuple[str, ...]:
    """The labels, two or more, all different, none empty. Raises UsageError."""
    found = tuple(label.strip() for label in labels)
    if "" in found:
        raise UsageError("an empty label", why="there would be nothing to score", fix="--labels positive,negative")
    if len(found) < 2:
        raise UsageError(
            f"{len(found)} labels", why="a text is put under one of several", fix="--labels positive,negative"
        )
    twice = sorted({label for label in found if found.count(label) > 1})
    if twice:
        raise UsageError(
            f"the label {twice[0]!r} is given twice", why="its probability would be shared out", fix="give it once"
        )
    return found


def tokenised(source: LocalSource, prompts: Sequence[str | None], follows: Sequence[str]) -> list[list[Continuation]]:
    """Each of the texts ``follows`` behind each prompt, as ids; how likely they are is not known yet.

    A prompt and what follows are tokenised as one text, as the model would read them. A prompt that is None is the
    beginning-of-text token alone. Raises UsageError for a text that becomes no token, or the same tokens as another, and
    PromptError for a prompt that does not fit the model.
    """
    found = [_tokenised(source, prompt, follows) for prompt in prompts]
    for row in found:
        for each in row:
            source.causal.check_length(len(each.context), len(each.ids))
    return found


def scored(
    labels: tuple[str, ...], found: Sequence[Continuation], normalization: str, baseline: Sequence[float] | None = None
) -> Scored:
    """The labels of one text, normalised; ``baseline`` ``[L]`` is what ``pmi`` and ``calibrated`` hold them against."""
    sums = [continuation.logprob for continuation in found]
    if baseline is not None:
        scores = [value - held for value, held in zip(sums, baseline, strict=True)]
    else:
        sizes: dict[str, list[int]] = {
            "sum": [1] * len(labels),
            "token": [len(continuation.ids) for continuation in found],
            "character": [len(label) for label in labels],
            "byte": [len(label.encode()) for label in labels],
        }
        scores = [value / size for value, size in zip(sums, sizes[normalization], strict=True)]
    return Scored(labels, tuple(found), tuple(scores))


def baseline_of(labels: tuple[str, ...], found: Sequence[Sequence[Continuation]], normalization: str) -> list[float]:
    """What labels are held against, ``[L]`` in nats, from their continuations of the domain or of each content-free prompt."""
    if normalization == "pmi":
        return [continuation.logprob for continuation in found[0]]
    shares = [scored(labels, row, "sum").probabilities for row in found]
    # the least number, for a label that has no probability at all there
    return [math.log(max(math.fsum(column) / len(shares), 5e-324)) for column in zip(*shares, strict=True)]


def _tokenised(source: LocalSource, prompt: str | None, follows: Sequence[str]) -> list[Continuation]:
    """Where the tokens of the prompt end and those of each text begin: at the same place for all of them."""
    if prompt is None:
        alone = source.encode([], bos=True)
        wholes = [[*alone, *source.encode(text, bos=False)] for text in follows]
    else:
        alone = source.encode(prompt)
        wholes = [source.encode(prompt + text) for text in follows]
    shared = takewhile(lambda column: len(set(column)) == 1, zip(alone, *wholes, strict=False))
    n_shared = sum(1 for _ in shared)
    if not n_shared:
        raise PromptError(
            "the prompt and its continuation have no token in common",
            why="the tokenizer draws them into one token, and nothing precedes it",
            fix="a longer prompt, or a template whose answer begins with a space",
        )
    ends: dict[tuple[int, ...], str] = {}
    for text, whole in zip(follows, wholes, strict=True):
        ids = tuple(whole[n_shared:])
        if not ids or whole == alone:
            raise UsageError(
                f"{text!r} becomes no token",
                why="this model's tokenizer drops all of it, so it has no probability",
                fix="another word for it",
            )
        if ids in ends:
            raise UsageError(
                f"{ends[ids]!r} and {text!r} become the same tokens",
                why="this model's tokenizer cannot tell them apart",
                fix="other words for them",
            )
        ends[ids] = text
    merged = n_shared < len(alone)
    return [Continuation(tuple(alone[:n_shared]), ids, merged) for ids in ends]
