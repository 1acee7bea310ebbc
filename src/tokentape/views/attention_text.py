"""Where a model looked, as a table of layers for one token or a line for each of several."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tokentape.views.explanation_text import check_sentence
from tokentape.views.screen import Screen, columns, fit
from tokentape.views.shape import name_alone
from tokentape.views.text import folded
from tokentape.views.units import ABSENT

if TYPE_CHECKING:
    from tokentape.data.attention import AttentionSummary, TopSources
    from tokentape.data.trace import Masked

__all__ = ["attention_text"]

SAID = "attention is where a model looked, which is not what it used: for what an answer rests on, explain without --attention"

NAME = 14
"""Cells of the longest name of a token."""

WIDE = 72
"""Cells of a screen that has room for what single heads did."""

IN_A_CELL = 3
"""Sources named for a layer, or for a token in a list of several."""


def attention_text(found: AttentionSummary, screen: Screen, *, top: int = 5) -> str:
    """One row in detail, its ``top`` sources in a sentence and a table of layers; or a line for each of several rows.

    Shares are weights of the mean over heads, and over layers where no layer is named.
    """
    lines = _detail(found, screen, top) if len(found.positions) == 1 else _rows(found, screen)
    if found.without:
        which = ", ".join(str(layer + 1) for layer in found.without)
        lines += folded(f"without attention: layer {which}", screen.width)
    lines += ["", *(screen.paint(line, "dim") for line in folded(SAID, screen.width))]
    if found.check is not None:
        lines += folded(screen.safe(check_sentence(found.check)), screen.width)
    return "\n".join(lines)


def _detail(found: AttentionSummary, screen: Screen, top: int) -> list[str]:
    position = int(found.positions[0])
    looked = _looked(found, found.overall, (0,), top)
    where = f"Before {_name(found, position)} at position {position} the model looked at {looked}."
    header = ["layer", "looked at", "entropy", "first", "distance"]
    align = "<<>>>"
    body = [
        [
            str(layer + 1),
            _looked(found, found.layers, (layer, 0), IN_A_CELL),
            _mean(found.entropy, layer, ".2f"),
            _mean(found.sink_share, layer, ".0%"),
            _mean(found.distance, layer, ".1f"),
        ]
        for layer in range(found.n_layers - 1, -1, -1)
    ]
    if len(found.head_positions) and screen.width >= WIDE:
        header.append("sharpest head")
        align += "<"
        for cells, layer in zip(body, range(found.n_layers - 1, -1, -1), strict=True):
            cells.append(_sharpest(found, layer))
    if not np.ma.getmaskarray(found.nowhere).all():
        header.insert(4, "nowhere")
        align = align[:4] + ">" + align[4:]
        for cells, layer in zip(body, range(found.n_layers - 1, -1, -1), strict=True):
            cells.insert(4, _mean(found.nowhere, layer, ".0%"))
    table = columns(screen, header, body, align, stretch=1)
    return [*folded(screen.safe(where), screen.width), "", *table]


def _rows(found: AttentionSummary, screen: Screen) -> list[str]:
    body = [
        [
            str(position),
            _name(found, int(position)),
            _looked(found, found.overall, (row,), IN_A_CELL),
            _over_all(found.entropy, row, ".2f"),
            _over_all(found.sink_share, row, ".0%"),
            _over_all(found.distance, row, ".1f"),
        ]
        for row, position in enumerate(found.positions)
    ]
    return columns(screen, ["pos", "token", "looked at", "entropy", "first", "distance"], body, "><<>>>", stretch=2)


def _name(found: AttentionSummary, position: int) -> str:
    return fit(name_alone(int(found.ids[position]), found.pieces), NAME)


def _looked(found: AttentionSummary, sources: TopSources, where: tuple[int, ...], top: int) -> str:
    """The best sources of a row with their weights; one token at several places is told apart by its positions."""
    mask = np.ma.getmaskarray(sources.sources)[where]
    places = [int(place) for place in sources.sources.data[where][~mask]][:top]
    if not places:
        return ABSENT
    weights = sources.weights.data[where][~mask]
    before = found.ids[: found.positions[-1]]
    named = []
    for place, weight in zip(places, weights, strict=False):
        at = f" at {place}" if (before == found.ids[place]).sum() > 1 else ""
        named.append(f"{_name(found, place)}{at} {weight:.0%}")
    return ", ".join(named)


def _mean(figure: Masked, layer: int, form: str) -> str:
    """The mean over the heads of a layer, of the only row."""
    values = figure[layer, :, 0].compressed()
    return format(float(values.mean()), form) if len(values) else ABSENT


def _over_all(figure: Masked, row: int, form: str) -> str:
    """The mean over layers of the means over their heads."""
    layers = [layer[:, row].compressed() for layer in figure]
    means = [float(heads.mean()) for heads in layers if len(heads)]
    return format(sum(means) / len(means), form) if means else ABSENT


def _sharpest(found: AttentionSummary, layer: int) -> str:
    """The head, counted from 0, whose weights have the least entropy, and where it looked most."""
    entropy = found.entropy[layer, :, 0]
    if np.ma.getmaskarray(entropy).all():
        return ABSENT
    head = int(np.ma.argmin(entropy))
    return f"{head}: {_looked(found, found.heads, (layer, head, 0), 1)}"
