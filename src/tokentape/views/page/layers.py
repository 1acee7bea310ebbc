"""Layers by tokens: what each layer would have said, how its attention spread, and what it added to the token's value."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tokentape.data.attention import AttentionSummary
from tokentape.data.layers import DirectAttribution, Lens
from tokentape.views.page.attention import summary_of
from tokentape.views.page.parts import Part, Unit
from tokentape.views.page.relevance import check_part, unread
from tokentape.views.page.rounding import short, whole
from tokentape.views.page.symbols import drawn_alone
from tokentape.words.catalogue import Message

if TYPE_CHECKING:
    from tokentape.data.tape import Tape
    from tokentape.data.trace import Piece, Trace

__all__ = ["attention_entropy", "direct_shape", "layers_part", "lens_shape"]

Floats = npt.NDArray[np.float64]

DIGITS = 3
"""Significant digits of a cell: a map shows no more, and a tape holds them all."""


def layers_part(trace: Trace, tape: Tape) -> Part:
    """The readings of layers that a tape keeps of a trace, the widest of each kind.

    ``lens``, ``attention`` and ``direct`` are a part each, or what stands in its place; where the tape has none of them, one
    such stands in the place of all. Positions of the replayed sequence are places.
    """
    lens, direct = _lens_of(trace, tape), _direct_of(trace, tape)
    attention = summary_of(trace, tape)
    if lens is None and direct is None and attention is None:
        return unread(Message("page_layers.unread"), trace, tape, "--lens", "--all")
    return {
        "lens": _or_missing(None if lens is None else lens_shape(lens), "lens", trace, tape),
        "attention": _or_missing(None if attention is None else attention_entropy(attention), "attention", trace, tape),
        "direct": _or_missing(None if direct is None else direct_shape(direct), "direct", trace, tape),
    }


def _or_missing(found: Part | None, kind: str, trace: Trace, tape: Tape) -> Part:
    if found is not None:
        return found
    return unread(Message(f"page_layers.no_{kind}"), trace, tape, f"--{kind}", "--all")


def _lens_of(trace: Trace, tape: Tape) -> Lens | None:
    kept = [one.found for one in tape.readings_of(trace.number, "lens")]
    return kept[-1] if kept and isinstance(kept[-1], Lens) else None


def _direct_of(trace: Trace, tape: Tape) -> DirectAttribution | None:
    """What was found token by token; a sum over several has no column here."""
    kept = [one.found for one in tape.readings_of(trace.number, "direct")]
    return next((one for one in reversed(kept) if isinstance(one, DirectAttribution) and not one.together), None)


def lens_shape(lens: Lens) -> Part:
    """A lens as the page draws it: matrices of L + 1 rows, the first of which is the entry, with a column for each place."""
    best = np.ma.MaskedArray(lens.top_ids)[..., 0]
    # of several that are first, the one that stands there is shown
    own = np.ma.filled(lens.rank == 1, False)
    ids = np.where(own, lens.ids[:, None], best.data)
    there = ~np.ma.getmaskarray(best)
    names, index = _named(ids[there].tolist(), lens.pieces)
    places = np.ma.MaskedArray(np.zeros(ids.shape, np.int64), ~there)
    places[there] = index
    return {
        "caption": _lens_caption(lens).as_dict(),
        "notes": [_agreement(lens.agreement).as_dict()] if lens.agreement is not None else [],
        "check": check_part(lens.check),
        "places": lens.positions.tolist(),
        "first": 0,
        "maps": [
            _map("rank", "count", [whole(row) for row in lens.rank.T], log=True),
            _map("share", "share", _by_layer(np.exp(lens.logprob)), high=1, power=0.5),
            _map("entropy", "nats", _by_layer(lens.entropy)),
            _map("kl", "nats", _by_layer(lens.kl), power=0.5),
        ],
        "names": names,
        "best": [whole(row) for row in places.T],
        "best_share": _by_layer(np.exp(np.ma.MaskedArray(lens.top_logprob)[..., 0])),
        "chosen_from": whole(lens.chosen_from),
    }


def _named(ids: Sequence[int], pieces: Mapping[int, Piece]) -> tuple[list[str], list[int]]:
    """The names of different tokens, each once, and for each id its place among them."""
    distinct = sorted(set(ids))
    drawn = drawn_alone(pieces, distinct)
    place = {token_id: at for at, token_id in enumerate(distinct)}
    return [drawn.get(str(token_id), f"#{token_id}") for token_id in distinct], [place[one] for one in ids]


def _by_layer(values: Any) -> list[list[float | None]]:
    """``[n, L]`` as L rows of n, with few digits."""
    return [short(row, DIGITS) for row in np.ma.MaskedArray(values).T]


def _map(
    key: str,
    unit: Unit,
    values: Sequence[Sequence[float | None]],
    *,
    high: float | None = None,
    difference: bool = False,
    log: bool = False,
    power: float = 1,
) -> Part:
    """A matrix with the ends of its colours: of a difference -high and high, else from 0 (of a logarithm from 1)."""
    most = high or max((abs(value) for row in values for value in row if value is not None), default=0)
    return {
        "key": key,
        "unit": unit,
        "difference": int(difference),
        "log": int(log),
        "power": power,
        "low": int(log),
        "high": max(most, 2) if log else most or 1,
        "values": values,
    }


def _lens_caption(lens: Lens) -> Message:
    first = lens.chosen_from.compressed()
    args: dict[str, Any] = {"n": len(lens.positions), "layers": lens.n_layers}
    if not len(first):
        return Message("page_layers.never_first", args)
    earliest = int(first.min())
    where = Message("page_layers.layer_n", {"layer": str(earliest)}) if earliest else Message("page_layers.entry")
    args |= {"first": len(first), "layer": str(statistics.median_low(first.tolist())), "earliest": where}
    late = int((first == lens.n_layers).sum())
    return Message("page_layers.first_from", {**args, "late": f"{late / len(first):.0%}"})


def _agreement(agreement: float) -> Message:
    if agreement == 0:
        return Message("page_layers.exact")
    return Message("page_layers.agreement", {"agreement": f"{agreement:.1e}"})


def attention_entropy(found: AttentionSummary) -> Part:
    """The entropy of the weights of each layer, the mean over its heads: L rows, a column for each place."""
    entropy: Any = found.entropy.astype(np.float64).mean(1)
    by_layer = np.ma.MaskedArray(entropy).mean(1)
    order = [int(layer) for layer in np.argsort(by_layer.filled(np.inf)) if not np.ma.getmaskarray(by_layer)[layer]]
    args: dict[str, Any] = {"n": len(found.positions), "layers": found.n_layers}
    if order:
        low, high = order[0], order[-1]
        args |= {
            "sharp": str(low + 1),
            "sharpest": f"{by_layer[low]:.2f}",
            "wide": str(high + 1),
            "widest": f"{by_layer[high]:.2f}",
        }
    return {
        "caption": Message("page_layers.spread" if order else "page_layers.no_spread", args).as_dict(),
        "notes": [],
        "check": check_part(found.check),
        "places": found.positions.tolist(),
        "first": 1,
        "maps": [_map("attention_entropy", "nats", _by_layer(np.ma.MaskedArray(entropy).T))],
    }


def direct_shape(found: DirectAttribution) -> Part:
    """Direct attribution as the page draws it: matrices of L rows, a column for each place; null where a layer lacks the part."""
    mask = np.ma.getmaskarray(found.heads)
    strongest = np.where(mask, -1.0, np.abs(found.heads.data))
    head: npt.NDArray[np.int64] = (
        strongest.argmax(-1) if strongest.shape[-1] else np.zeros(strongest.shape[:2], np.int64)
    )
    none = mask.all(-1)
    value = np.zeros(head.shape)
    value[~none] = np.take_along_axis(found.heads.data, head[..., None], -1)[..., 0][~none] if (~none).any() else 0
    foils = None if found.foil_ids is None else _foils(found)
    maps = {"block": found.blocks, "attention": found.attention, "mlp": found.mlp}
    if found.other.any():
        maps["other"] = found.other
    unit: Unit = "nats" if found.kind == "logprob" else "logit"
    return {
        "caption": _direct_caption(found).as_dict(),
        "what": _what(found, foils).as_dict(),
        "notes": [note.as_dict() for note in _direct_notes(found)],
        "check": check_part(found.check),
        "places": found.targets.tolist(),
        "first": 1,
        "maps": [_map(key, unit, _by_layer(values), difference=True, power=0.5) for key, values in maps.items()],
        "head": [whole(row) for row in np.ma.MaskedArray(head, none).T],
        "head_value": _by_layer(np.ma.MaskedArray(value, none)),
        "value": short(found.value, 4),
        "entry": short(found.entry, 4),
        "rest": short(found.bias + found.curvature, 4),
    }


def _foils(found: DirectAttribution) -> list[str]:
    assert found.foil_ids is not None
    names, index = _named(found.foil_ids.tolist(), found.pieces)
    return [names[place] for place in index]


def _what(found: DirectAttribution, foils: list[str] | None) -> Message:
    against = foils[0] if foils and len(set(foils)) == 1 else None
    kind = "foils" if foils and against is None else found.kind
    return Message(f"page_attention.kind.{kind}", {"foil": against} if kind == "foil" else {})


def _direct_caption(found: DirectAttribution) -> Message:
    """Which layer adds most in the mean over the tokens, and what attention and perceptrons add."""
    by_layer = found.blocks.mean(0)
    layer = int(np.argmax(np.abs(by_layer)))
    sums = {name: np.ma.filled(getattr(found, name), 0.0).sum(1).mean() for name in ("attention", "mlp")}
    args = {
        "n": len(found.targets),
        "layer": str(layer + 1),
        "most": f"{by_layer[layer]:+.2f}",
        "value": f"{found.value.mean():.2f}",
        "entry": f"{found.entry.mean():+.2f}",
        "rest": f"{(found.bias + found.curvature).mean():+.2f}",
        **{name: f"{value:+.2f}" for name, value in sums.items()},
    }
    return Message("page_layers.added", args)


def _direct_notes(found: DirectAttribution) -> list[Message]:
    said = [Message("page_layers.residual", {"residual": f"{np.abs(found.residual).max():.0e}"})]
    for why in dict.fromkeys(found.unsplit.values()):
        layers = ", ".join(str(layer + 1) for layer, reason in found.unsplit.items() if reason == why)
        said.append(Message("page_layers.unsplit", {"layers": layers, "why": why}))
    return said
