"""Scoring over a cluster: the batches of one process, read by many, on one tape that is written here."""

from __future__ import annotations

import pickle
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokentape.clock import HostClock
from tokentape.data.setting import Setting
from tokentape.data.tape import Tape, open_tape
from tokentape.errors import UsageError
from tokentape.recorder.probes import TimingProbe
from tokentape.recorder.tick import LiveRun
from tokentape.study.scores import NOTE
from tokentape.tasks.score import Asked, Keeping, Progress, scorer_of
from tokentape.tasks.score_documents import Document
from tokentape.tasks.score_resume import earlier
from tokentape.tasks.spread.cluster import Cluster, Spread, cluster
from tokentape.tasks.spread.models import ModelHere
from tokentape.tasks.spread.relayed import Relayed

if TYPE_CHECKING:
    from tokentape.sources.local import LocalSource
    from tokentape.tasks.score_encoding import Encoded
    from tokentape.tasks.scoring import Measure

__all__ = ["score_spread"]

SAME = ("weights", "tokenizer", "dtype", "attn_implementation", "torch", "transformers", "tokentape", "device", "gpu")
"""Facts that each worker must share with the plan, since figures depend on them."""


def score_spread(
    documents: Sequence[Document],
    asked: Asked,
    model: ModelHere,
    spread: Spread,
    *,
    path: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    text: bool = True,
    observer: Callable[[Progress], None] | None = None,
) -> Tape:
    """:func:`~tokentape.tasks.score.score` on the workers of a Ray cluster, each with the model; this process has the tape.

    What shares a pass is decided before the work is handed out, so the figures are those of one process with as many
    threads. A worker that dies costs the batch that it had in hand, which another one reads again. Ctrl-C keeps what has come
    back. Readings of the machine and its memory are null: those of this process would say nothing of the workers.

    Raises what :func:`~tokentape.tasks.score.score` raises, and MissingExtra, Unreachable, RecordingError of
    :mod:`tokentape.tasks.spread.cluster`.
    """
    asked.check()
    place = None if path is None else Path(path)
    plan = asked.plan(documents, model.bos)
    before = earlier(place, plan, NOTE, resume=resume, overwrite=overwrite)
    with cluster(spread, model.device) as found:
        done = frozenset[int]() if before is None else before.done
        prepared: Prepared = found.once(Preparing(model, found.threads, asked), (documents, done))
        if before is not None:
            before.check_setting(prepared.setting, "score")
            if before.complete:
                return open_tape(before.path)
        todo = [one for batch in prepared.batches for one in batch]
        keeping = Keeping(place, plan, before, overwrite=overwrite, text=text, observer=observer)
        clock = HostClock()
        runs = _runs(found, prepared, model, clock)
        return keeping.of(prepared.setting, clock, [TimingProbe()], runs, todo, len(documents))


def _runs(
    found: Cluster, prepared: Prepared, model: ModelHere, clock: HostClock
) -> Iterator[tuple[Sequence[Encoded], LiveRun]]:
    """The runs of the workers, in the order of the batches, as runs of this process."""
    sent = clock.mark()
    make = Scoring(model, found.threads, prepared.measure, prepared.facts, prepared.setting)
    for batch, relayed in zip(prepared.batches, found.each(make, prepared.batches), strict=True):
        yield batch, relayed.here(sent)


@dataclass(frozen=True, slots=True)
class Prepared:
    """What one worker found out for all: the Setting, how to measure, and which documents share a pass."""

    setting: Setting
    measure: bytes
    facts: Mapping[str, Any]
    batches: Sequence[Sequence[Encoded]]


@dataclass(frozen=True, slots=True)
class Preparing:
    """Encodes documents and cuts them into the batches of one process."""

    model: ModelHere
    threads: int
    asked: Asked

    def __call__(self) -> Callable[[tuple[Sequence[Document], frozenset[int]]], Prepared]:
        source = self.model.source(self.threads)
        return lambda work: self._prepared(source, *work)

    def _prepared(self, source: LocalSource, documents: Sequence[Document], done: frozenset[int]) -> Prepared:
        from tokentape.tasks.scoring import batches

        scorer, encoded = scorer_of(source, documents, self.asked, self.model.bos)
        todo = [one for one in encoded if one.index not in done]
        # the measure stays closed here: it belongs to a module that imports torch
        measure = pickle.dumps(scorer.measure)
        return Prepared(source.setting(), measure, scorer.facts, batches(todo, scorer.measure, pads=scorer.pads))


@dataclass(frozen=True, slots=True)
class Scoring:
    """Makes a scorer in a worker."""

    model: ModelHere
    threads: int
    measure: bytes
    facts: Mapping[str, Any]
    setting: Setting

    def __call__(self) -> Callable[[Sequence[Encoded]], Relayed]:
        from tokentape.tasks.scoring import Scorer

        source = self.model.source(self.threads)
        _refuse_other(self.setting, source.setting())
        measure: Measure = pickle.loads(self.measure)
        scorer = Scorer(source, measure, self.facts)
        return lambda batch: Relayed.of(scorer.start(batch))


def _refuse_other(planned: Setting, here: Setting) -> None:
    """Raise UsageError where the worker has another model, or other libraries, than the figures are to be of."""
    differing = [name for name in SAME if planned.facts.get(name) != here.facts.get(name)]
    if differing:
        told = (f"{name} is {here.facts.get(name)!r}, not {planned.facts.get(name)!r}" for name in differing)
        raise UsageError(
            f"the worker on {platform.node()} has another Setting",
            why="; ".join(told),
            fix="give all nodes of the cluster the same model and the same versions",
        )
