"""Documents through a model, batch by batch: runs whose ticks say what was read and how likely it was."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch

from tokentape.data.request import Run, TraceHead
from tokentape.models.distribution import Reducer, rows
from tokentape.models.failures import Attempt, memory_told
from tokentape.models.head import head_of
from tokentape.models.pieces import spelling_of
from tokentape.recorder.tick import LiveRun, Said, Tick
from tokentape.study.scores import NOTE
from tokentape.tasks.score_encoding import Encoded
from tokentape.tasks.score_windows import Window, windows

if TYPE_CHECKING:
    from tokentape.sources.local import LocalSource

__all__ = ["GIVEN", "Measure", "Scorer", "batches"]

GIVEN = "given"
"""Why a scored sequence ends: it was given, and is over."""


@dataclass(frozen=True, slots=True)
class Measure:
    """What is measured of each token, and in which windows.

    At most ``window`` tokens are read at a time, of which ``stride`` are scored (see
    :func:`~tokentape.tasks.score_windows.windows`). ``candidates`` is how many of the likeliest tokens are kept with entropy
    and rank, None where the log-probability is enough. ``batch_tokens`` go through the model at once, padding included.
    """

    window: int
    stride: int
    candidates: int | None
    batch_tokens: int


def batches(documents: Sequence[Encoded], measure: Measure, *, pads: bool) -> list[list[Encoded]]:
    """Documents that share a pass, the longest first; without ``pads`` only those that are read equally long do.

    A batch holds its documents in their own order. One of several windows is a batch by itself.
    """
    found: list[list[Encoded]] = []
    width = 0
    for one in sorted(documents, key=lambda one: (-len(one.ids), one.index)):
        n_read = len(one.ids) - 1
        fits = found and n_read <= width <= measure.window and (len(found[-1]) + 1) * width <= measure.batch_tokens
        if fits and (pads or n_read == width):
            found[-1].append(one)
        else:
            found.append([one])
            width = n_read
    return [sorted(batch, key=lambda one: one.index) for batch in found]


class Scorer:
    """Scores documents on a model in this process. A batch is a run, a document a trace, a forward pass a tick."""

    def __init__(self, source: LocalSource, measure: Measure, facts: Mapping[str, Any]) -> None:
        self._causal = source.causal
        self._clock = source.clock
        self.measure = measure
        self.facts = dict(facts)
        self._head = head_of(source.causal.model)
        self._reduce = None if measure.candidates is None else Reducer(measure.candidates)

    @property
    def pads(self) -> bool:
        """Whether sequences of unequal length can share a pass."""
        return self._head.pads

    def start(self, batch: Sequence[Encoded]) -> LiveRun:
        """A run over some documents, to be driven by a recorder."""
        start = self._clock.mark()
        plan = [windows(len(one.ids), one.n_given, self.measure.window, self.measure.stride) for one in batch]
        heads = [TraceHead(row, one.n_given, one.ids[: one.n_given], one.given_text) for row, one in enumerate(batch)]
        documents = [
            {**_facts(one), "n_windows": len(found), "n_cut": found[0].start}
            for one, found in zip(batch, plan, strict=True)
        ]
        return LiveRun(
            run=Run(tuple(heads), {NOTE: {**self.facts, "documents": documents}}),
            start=start,
            ticks=self._ticks(batch, plan),
            finish_reasons=lambda: [GIVEN] * len(batch),
            spellers=[spelling_of(self._causal.tokenizer, one.ids[: one.n_given]) for one in batch],
            prepared=self._clock.mark(),
        )

    def _ticks(self, batch: Sequence[Encoded], plan: Sequence[Sequence[Window]]) -> Generator[Tick]:
        passes = list(self._passes([(row, window) for row, found in enumerate(plan) for window in found]))
        for number, some in enumerate(passes):
            start = self._clock.mark()
            with memory_told(Attempt(self._causal.name, doing="scoring", device=self._causal.device)):
                said, shape = self._read(batch, some)
            end = self._clock.mark()
            n, width = shape
            last = number == len(passes) - 1
            yield Tick("prefill", n, start, end, context=width, n_in=n * width, said=said, last=last)

    def _passes(self, listed: Sequence[tuple[int, Window]]) -> Iterator[list[tuple[int, Window]]]:
        """Windows in their order, as many as go through the model at once."""
        some: list[tuple[int, Window]] = []
        for row, window in listed:
            width = max([window.n_read, *(other.n_read for _, other in some)])
            alike = self._head.pads or all(other.n_read == window.n_read for _, other in some)
            if some and not (alike and (len(some) + 1) * width <= self.measure.batch_tokens):
                yield some
                some = []
            some.append((row, window))
        yield some

    @torch.inference_mode()
    def _read(
        self, batch: Sequence[Encoded], some: Sequence[tuple[int, Window]]
    ) -> tuple[tuple[Said, ...], tuple[int, int]]:
        """What one pass says of some windows, and its shape."""
        width = max(window.n_read for _, window in some)
        ids = torch.zeros((len(some), width), dtype=torch.long)
        places: list[int] = []
        targets: list[int] = []
        for i, (row, window) in enumerate(some):
            whole = batch[row].ids
            ids[i, : window.n_read] = torch.tensor(whole[window.start : window.stop - 1])
            # the token at p is predicted by the one before it
            places += range(i * width + window.first - 1 - window.start, i * width + window.stop - 1 - window.start)
            targets += whole[window.first : window.stop]
        device = self._causal.device
        found = self._figures(ids.to(device), torch.tensor(places, device=device), torch.tensor(targets, device=device))
        owners = [row for row, window in some for _ in range(window.n_scored)]
        said = tuple(
            Said(row, token_id, None, logprob, entropy, rank, None, candidates)
            for row, token_id, (logprob, entropy, rank, candidates) in zip(owners, targets, found, strict=True)
        )
        return said, (len(some), width)

    def _figures(self, ids: torch.Tensor, places: torch.Tensor, targets: torch.Tensor) -> list[tuple[Any, ...]]:
        """Log-probability, entropy, rank and candidates of each target; what is not finite or not asked for is None."""
        if self._reduce is None:
            values = self._head.logprobs(ids, places, targets).tolist()
            return [(value if value - value == 0 else None, None, None, None) for value in values]
        found = rows(self._head.reduced(ids, places, targets, self._reduce))
        return [(row[0], row[1], row[2], row[4]) for some in found for row in some or ()]


def _facts(one: Encoded) -> dict[str, Any]:
    """What the tape keeps of a document beside its trace."""
    kept = asdict(one)
    return {name: kept[name] for name in ("index", "name", "n_bytes", "n_chars", "n_skipped", "merged")}
