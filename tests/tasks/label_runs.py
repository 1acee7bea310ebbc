"""Labels behind prompts, through a model and a recorder, in one call."""

from __future__ import annotations

from collections.abc import Sequence

from tokentape.recorder.probes import tier
from tokentape.recorder.recorder import Recorder
from tokentape.sources.local import LocalSource
from tokentape.tasks.label_passes import LabelPasses
from tokentape.tasks.labels import Continuation, tokenised


def continuations(
    source: LocalSource, prompts: Sequence[str | None], follows: Sequence[str], *, batch_size: int = 32
) -> list[list[Continuation]]:
    found = tokenised(source, prompts, follows)
    recorder = Recorder(None, source.setting(), tier("timing"), source.clock)
    with recorder:
        return LabelPasses(source, prompts, found, batch_size, {}).record(recorder)
