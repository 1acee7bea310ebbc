"""What a checked replay reads off a model, as a :class:`Reading` that a tape can keep."""

from __future__ import annotations

from tokentape.data.attention import AttentionSummary
from tokentape.data.layers import DirectAttribution, Lens
from tokentape.data.reading import Reading, ReadingKind
from tokentape.data.trace import Trace
from tokentape.explain.attention.summary import attend
from tokentape.explain.attention.watching import survey_of
from tokentape.explain.explaining import Asked, made_with, question_of
from tokentape.explain.layers.direct import direct
from tokentape.explain.layers.lens import lens
from tokentape.explain.replay import Progress, Replay

__all__ = ["MOST_HEAD_SOURCES", "read"]

MOST_HEAD_SOURCES = 2**22
"""Sources of single heads in one reading: above that, those of layers alone are kept."""


def read(
    kind: ReadingKind,
    trace: Trace,
    replay: Replay,
    asked: Asked,
    *,
    top_k: int = 10,
    progress: Progress | None = None,
) -> Reading:
    """Where the model looked before the targets, what its layers said there, or what they added to the targets' values.

    ``top_k`` sources are kept of each row of attention: of its layers, and of its single heads as long as all of these are
    no more than :data:`MOST_HEAD_SOURCES`. ``progress`` counts layers (attention, direct) or tokens (lens). Raises what
    :func:`attend`, :func:`lens` and :func:`direct` raise.
    """
    found: AttentionSummary | Lens | DirectAttribution
    if kind == "attention":
        n_heads = sum(survey_of(replay.model, replay.causal.name).heads)
        few = n_heads * len(asked.targets) * top_k <= MOST_HEAD_SOURCES
        summary = attend(replay, steps=asked.targets if few else None, top_k=top_k, progress=progress)
        found = summary.rows(asked.targets)
    elif kind == "lens":
        found = lens(replay, asked.targets, progress=progress)
    else:
        found = direct(replay, question_of(replay, asked)[0], progress=progress)
    return Reading(trace.number, found, made_with(replay.causal))
