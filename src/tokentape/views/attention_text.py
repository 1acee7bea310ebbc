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

NAME = 14
"""Cells of the longest name of a token."""

NARROW, WIDE = 56, 72
"""From how many cells on there is room for figures; and for what single heads did."""

IN_A_CELL = 3
"""Sources named for a layer, or for a token in a list of several."""


def attention_text(found: AttentionSummary, screen: Screen, *, top: int = 5) -> str:
    """One row in detail, its ``top`` sources in a sentence and a table of layers; or a line for each of several rows.

    Shares are weights of the mean over heads, and over layers where no layer is named.
    """
    lines = _detail(found, screen, top) if len(found.positions) == 1 else _rows(found, screen)
    if found.without:
        which = screen.say("attention.list").join(str(layer + 1) for layer in found.without)
        lines += folded(screen.say("attention.without", layers=which), screen.width)
    lines += ["", *(screen.paint(line, "dim") for line in folded(screen.say("attention.caveat"), screen.width))]
    if found.check is not None:
        lines += folded(screen.safe(check_sentence(found.check, screen)), screen.width)
    return "\n".join(screen.safe(line) for line in lines)


def _detail(found: AttentionSummary, screen: Screen, top: int) -> list[str]:
    position = int(found.positions[0])
    looked = _looked(found, found.overall, (0,), top, screen)
    where = screen.say("attention.before", token=_name(found, position), position=str(position), sources=looked)
    figures, sharpest = _figures(found, screen), len(found.head_positions) > 0 and screen.width >= WIDE
    body = [
        [
            str(layer + 1),
            _looked(found, found.layers, (layer, 0), IN_A_CELL, screen),
            *(_mean(getattr(found, name)[layer : layer + 1, :, 0], form) for name, form in figures.values()),
            *([_sharpest(found, layer, screen)] if sharpest else []),
        ]
        for layer in range(found.n_layers - 1, -1, -1)
    ]
    header = _said(["layer", "looked_at", *figures, *(["sharpest"] * sharpest)], screen)
    table = columns(screen, header, body, "<<" + ">" * len(figures) + "<" * sharpest, stretch=1)
    return [*folded(screen.safe(where), screen.width), "", *table]


def _rows(found: AttentionSummary, screen: Screen) -> list[str]:
    figures = _figures(found, screen)
    body = [
        [
            str(position),
            _name(found, int(position)),
            _looked(found, found.overall, (row,), IN_A_CELL, screen),
            *(_mean(getattr(found, name)[:, :, row], form) for name, form in figures.values()),
        ]
        for row, position in enumerate(found.positions)
    ]
    header = _said(["pos", "token", "looked_at", *figures], screen)
    return columns(screen, header, body, "><<" + ">" * len(figures), stretch=2)


def _said(names: list[str], screen: Screen) -> list[str]:
    return [screen.say(f"attention.{name}") for name in names]


def _figures(found: AttentionSummary, screen: Screen) -> dict[str, tuple[str, str]]:
    """Columns of figures for which there is something to show and room: field and format by the name of the heading."""
    figures = {"entropy": ("entropy", ".2f"), "first": ("sink_share", ".0%"), "distance": ("distance", ".1f")}
    if not np.ma.getmaskarray(found.nowhere).all():
        figures["nowhere"] = ("nowhere", ".0%")
    return figures if screen.width >= NARROW else {}


def _name(found: AttentionSummary, position: int) -> str:
    return fit(name_alone(int(found.ids[position]), found.pieces), NAME)


def _looked(found: AttentionSummary, sources: TopSources, where: tuple[int, ...], top: int, screen: Screen) -> str:
    """The best sources of a row with their weights; one token at several places is told apart by its positions."""
    mask = np.ma.getmaskarray(sources.sources)[where]
    places = [int(place) for place in sources.sources.data[where][~mask]][:top]
    if not places:
        return ABSENT
    weights = sources.weights.data[where][~mask]
    before = found.ids[: found.positions[-1]]
    named = []
    for place, weight in zip(places, weights, strict=False):
        name, share = _name(found, place), f"{weight:.0%}"
        again = (before == found.ids[place]).sum() > 1
        named.append(
            screen.say("attention.source_at", token=name, place=str(place), share=share) if again else f"{name} {share}"
        )
    return screen.say("attention.list").join(named)


def _mean(figure: Masked, form: str) -> str:
    """The mean over layers ``[L, H]`` of the means over their heads."""
    means = [float(heads.compressed().mean()) for heads in figure if heads.count()]
    return format(sum(means) / len(means), form) if means else ABSENT


def _sharpest(found: AttentionSummary, layer: int, screen: Screen) -> str:
    """The head, counted from 0, whose weights have the least entropy, and where it looked most."""
    entropy = found.entropy[layer, :, 0]
    if np.ma.getmaskarray(entropy).all():
        return ABSENT
    head = int(np.ma.argmin(entropy))
    return screen.say("attention.head", head=head, sources=_looked(found, found.heads, (layer, head, 0), 1, screen))
