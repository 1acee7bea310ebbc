"""Where the model looked: sparse maps of all layers, of each layer and of single heads, and figures of every head."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tokentape.data.attention import AttentionSummary
from tokentape.views.page.parts import Part, Unit
from tokentape.views.page.relevance import check_part, unread
from tokentape.views.page.rounding import rounded, short, whole
from tokentape.words.catalogue import Message

if TYPE_CHECKING:
    from tokentape.data.attention import TopSources
    from tokentape.data.tape import Tape
    from tokentape.data.trace import Masked, Trace

__all__ = ["ENTRIES", "attention_part", "attention_shape", "summary_of"]

PER = 1000
"""Weights are whole numbers of this part of one; a weight that rounds to none is left out."""

ENTRIES = 150_000
"""Weights that a page holds of all layers' maps together, and as many of single heads'; of longer texts each row keeps fewer."""

LEAST = 4
"""Sources of a row of a single head, at least; sooner are rows left out."""

_FIGURES: tuple[tuple[str, Unit], ...] = (
    ("entropy", "nats"),
    ("sink_share", "share"),
    ("distance", "tokens"),
    ("nowhere", "share"),
)


def attention_part(trace: Trace, tape: Tape) -> Part:
    """The attention that a tape keeps of a trace."""
    found = summary_of(trace, tape)
    if found is None:
        return unread(Message("page_attention.unseen"), trace, tape, "--attention", "--all")
    return attention_shape(found)


def summary_of(trace: Trace, tape: Tape) -> AttentionSummary | None:
    """The attention that a tape keeps of a trace, of several that of the most rows; None where there is none."""
    kept = tape.readings_of(trace.number, "attention")
    return kept[-1].found if kept and isinstance(kept[-1].found, AttentionSummary) else None


def attention_shape(found: AttentionSummary, *, entries: int = ENTRIES) -> Part:
    """A summary as the page draws it. Positions of the replayed sequence are places."""
    k = min(found.top_k, max(1, entries // max(1, found.n_layers * len(found.positions))))
    k_heads, n_heads = _of_heads(found, entries)
    overall = _weights(found.overall, found.top_k)
    attends = [n > 0 for n in found.n_heads]
    layers = [_weights(_one(found.layers, layer), k) if some else None for layer, some in enumerate(attends)]
    heads = [
        [_weights(_one(found.heads, layer, head, slice(n_heads)), k_heads) for head in range(n)]
        for layer, n in enumerate(found.n_heads)
    ]
    maps = [one for one in layers if one is not None]
    said = [_kept("overall", [overall], found.top_k), _kept("layers", maps, k)]
    if n_heads:
        flat = [one for row in heads for one in row]
        said.append(_kept("heads", flat, k_heads, _rows_of_heads(found, n_heads)))
    else:
        said.append(Message("page_attention.no_heads"))
    if found.without:
        which = ", ".join(str(layer + 1) for layer in found.without)
        said.append(Message("page_attention.without", {"layers": which}))
    return {
        "caption": _caption(found).as_dict(),
        "kept": [one.as_dict() for one in said if one is not None],
        "check": check_part(found.check),
        "n_heads": list(found.n_heads),
        "figures": [figure for name, unit in _FIGURES if (figure := _figure(found, name, unit)) is not None],
        "rows": found.positions.tolist(),
        "overall": overall,
        "layers": layers,
        "head_rows": found.head_positions[:n_heads].tolist(),
        "heads": heads if n_heads else [],
    }


def _of_heads(found: AttentionSummary, entries: int) -> tuple[int, int]:
    """How many sources of a row, and how many rows of single heads there is room for."""
    n, m = sum(found.n_heads), len(found.head_positions)
    if not n * m:
        return found.top_k, 0
    k = min(found.top_k, max(LEAST, entries // (n * m)))
    return k, min(m, entries // (n * k))


def _rows_of_heads(found: AttentionSummary, n: int) -> dict[str, Any]:
    rows = found.head_positions
    return {"rows": n, "of": len(found.positions), "first": str(rows[0]), "last": str(rows[n - 1])}


def _one(tops: TopSources, *where: Any) -> TopSources:
    """The sources of one layer, or of some rows of one head."""
    return type(tops)(tops.sources[where], tops.weights[where], tops.kept[where])


def _weights(tops: TopSources, k: int) -> Part:
    """Sparse rows of the ``k`` best sources of each row, by place."""
    sources, weights = tops.sources[:, :k], tops.weights[:, :k]
    mask = np.ma.getmaskarray(sources) | np.ma.getmaskarray(weights)
    exact = np.where(mask, 0.0, weights.data)
    parts = np.rint(exact * PER).astype(np.int64)
    there = parts > 0
    columns = np.where(there, sources.data, np.iinfo(np.int64).max)
    order = np.argsort(columns, axis=1, kind="stable")
    columns, parts = np.take_along_axis(columns, order, 1), np.take_along_axis(parts, order, 1)
    kept: Masked = np.ma.MaskedArray(np.rint(exact.sum(1) * PER).astype(np.int64), np.ma.getmaskarray(tops.kept))
    return {
        "counts": there.sum(1).tolist(),
        "columns": columns[parts > 0].tolist(),
        "values": parts[parts > 0].tolist(),
        "per": PER,
        "kept": whole(kept),
    }


def _kept(which: str, maps: list[Part], k: int, more: dict[str, Any] | None = None) -> Message | None:
    """How much of the weight is here, of maps that keep ``k`` sources of a row."""
    kept = np.array([value for one in maps for value in one["kept"] if value is not None], np.float64) / PER
    if not len(kept):
        return None
    args = {"k": k, "mean": f"{kept.mean():.1%}", "least": f"{kept.min():.1%}", **(more or {})}
    return Message(f"page_attention.kept.{which}", args)


def _figure(found: AttentionSummary, name: str, unit: Unit) -> Part | None:
    """The mean of a figure over all rows, for each head; None where no head has it."""
    means = _means(found, name)
    if np.isnan(means).all():
        return None
    high = float(np.nanmax(means))
    return {
        "name": Message(f"page_attention.figure.{name}").as_dict(),
        "unit": unit,
        "values": [short(row, 4) for row in means],
        "low": 0,
        "high": rounded(high, 4) if high > 0 else 1,
    }


def _means(found: AttentionSummary, name: str) -> npt.NDArray[np.float64]:
    """``[L, H]``, NaN where there is no such head."""
    values: Masked = getattr(found, name)
    filled: npt.NDArray[np.float64] = np.ma.filled(values.astype(np.float64).mean(-1), np.nan)
    return filled


def _caption(found: AttentionSummary) -> Message:
    entropy = _means(found, "entropy")
    layer, head = np.unravel_index(int(np.nanargmin(entropy)), entropy.shape)
    args = {
        "n": sum(found.n_heads),
        "layers": found.n_layers - len(found.without),
        "first": f"{np.nanmean(_means(found, 'sink_share')):.0%}",
        "distance": f"{np.nanmean(_means(found, 'distance')):.1f}",
        "layer": str(layer + 1),
        "head": str(head),
        "entropy": f"{entropy[layer, head]:.2f}",
    }
    return Message("page_attention.looked", args)
