"""The forward passes in which labels are scored, as runs of a recording: a label behind its prompt is a trace, a pass a step."""

from __future__ import annotations

import itertools
from bisect import bisect_left
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from tokentape.data.request import Run, TraceHead
from tokentape.models.failures import Attempt, memory_told
from tokentape.models.head import head_of
from tokentape.models.pieces import spelling_of
from tokentape.recorder.recorder import Recorder
from tokentape.recorder.run import drive
from tokentape.recorder.tick import LiveRun, Said, Tick
from tokentape.tasks.labels import Continuation
from tokentape.tasks.scoring import GIVEN

if TYPE_CHECKING:
    from tokentape.sources.local import LocalSource

__all__ = ["LabelPasses"]

Progress = Callable[[int, int], None]


class LabelPasses:
    """Continuations of prompts, ``[n][L]``, through a model: one run.

    The last id of a label is predicted and never read. So labels of one token need a single pass over their prompt, and one that
    begins like a longer one needs none of its own. Rows are padded on the right, which nothing that is read can see.
    """

    def __init__(
        self,
        source: LocalSource,
        prompts: Sequence[str | None],
        found: Sequence[Sequence[Continuation]],
        batch_size: int,
        options: Mapping[str, Any],
    ) -> None:
        self._source = source
        self._prompts = prompts
        self._found = found
        self._flat = [each for row in found for each in row]
        self._options = options
        self._logprobs: list[tuple[float, ...]] = [()] * len(self._flat)
        with torch.inference_mode():
            self._head = head_of(source.causal.model)
        self._batches = self._batched(batch_size if self._head.pads else 1)

    def record(self, recorder: Recorder, progress: Progress | None = None) -> list[list[Continuation]]:
        """Run them, and give them back with their log-probabilities."""
        n_read = itertools.count(1)

        def told() -> None:
            if progress is not None:
                progress(next(n_read) * len(self._found) // len(self._batches), len(self._found))

        drive(recorder, self._live(), told)
        known = iter(self._logprobs)
        return [[replace(each, logprobs=next(known)) for each in row] for row in self._found]

    def _batched(self, size: int) -> list[list[tuple[tuple[int, ...], list[int]]]]:
        """What is read together: rows of ids, the shortest first, each with the places of the continuations that it scores."""
        read = sorted({(*each.context, *each.ids[:-1]) for each in self._flat})
        rows = [row for row, after in zip(read, [*read[1:], ()], strict=True) if after[: len(row)] != row]
        wanted: dict[tuple[int, ...], list[int]] = {row: [] for row in rows}
        for number, each in enumerate(self._flat):
            wanted[rows[bisect_left(rows, (*each.context, *each.ids[:-1]))]].append(number)
        ordered = sorted(wanted.items(), key=lambda item: len(item[0]))
        return [ordered[start : start + size] for start in range(0, len(ordered), size)]

    def _live(self) -> LiveRun:
        start = self._source.clock.mark()
        asked = [prompt for prompt, row in zip(self._prompts, self._found, strict=True) for _ in row]
        heads = [
            TraceHead(number, len(each.context), each.context, prompt)
            for number, (prompt, each) in enumerate(zip(asked, self._flat, strict=True))
        ]
        tokenizer = self._source.causal.tokenizer
        return LiveRun(
            run=Run(tuple(heads), self._options),
            start=start,
            ticks=self._ticks(),
            finish_reasons=lambda: [GIVEN] * len(heads),
            spellers=[spelling_of(tokenizer, each.context) for each in self._flat],
            prepared=self._source.clock.mark(),
        )

    def _ticks(self) -> Generator[Tick]:
        clock, causal = self._source.clock, self._source.causal
        for batch in self._batches:
            start = clock.mark()
            with memory_told(Attempt(causal.name, doing="scoring", device=causal.device)):
                width = self._read(batch)
            end = clock.mark()
            said = tuple(
                Said(number, token_id, None, logprob)
                for _, numbers in batch
                for number in numbers
                for token_id, logprob in zip(self._flat[number].ids, self._logprobs[number], strict=True)
            )
            n = len(batch)
            yield Tick(
                "prefill", n, start, end, context=width, n_in=n * width, said=said, last=batch is self._batches[-1]
            )

    @torch.inference_mode()
    def _read(self, batch: Sequence[tuple[tuple[int, ...], list[int]]]) -> int:
        """One pass; gives how many positions it was wide."""
        width = max(len(row) for row, _ in batch)
        device = self._source.causal.device
        ids = torch.tensor([[*row, *[0] * (width - len(row))] for row, _ in batch], device=device)
        numbers = [(i, number) for i, (_, some) in enumerate(batch) for number in some]
        # the token at a place is predicted by the one before it
        first = [i * width + len(self._flat[number].context) - 1 for i, number in numbers]
        places = [
            at + i for at, (_, number) in zip(first, numbers, strict=True) for i in range(len(self._flat[number].ids))
        ]
        targets = [token_id for _, number in numbers for token_id in self._flat[number].ids]
        found = self._head.logprobs(ids, *(torch.tensor(of, device=device) for of in (places, targets)))
        known = iter(found.tolist())
        for _, number in numbers:
            self._logprobs[number] = tuple(next(known) for _ in self._flat[number].ids)
        return width
