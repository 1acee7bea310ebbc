"""What a model's layers would have said, and what each wrote for or against a token, as tables of layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from rich.cells import cell_len

from tokentape.views.explanation_text import check_sentence, value_text
from tokentape.views.screen import Screen, columns, fit, pad
from tokentape.views.shape import name_alone
from tokentape.views.text import folded
from tokentape.views.units import ABSENT, percent
from tokentape.words.retold import retold

if TYPE_CHECKING:
    from tokentape.data.layers import DirectAttribution, Lens

__all__ = ["direct_text", "lens_text"]

_NAME = 14
"""Cells of the longest name of a token in a cell of the table."""


def lens_text(lens: Lens, screen: Screen) -> str:
    """A sentence for each step, then the table: a row for each layer, the model itself on top, a column for each step.

    A cell has the layer's best token and its probability. It is marked where that is the token that stands there; elsewhere
    the rank of that token follows. Steps for which the screen is too narrow get tables of their own below.
    """
    said = [screen.safe(_sentence(lens, step, screen)) for step in range(len(lens.ids))]
    lines = [line for sentence in said for line in folded(sentence, screen.width)]
    layers, entry = screen.say("lens.layer"), screen.say("lens.entry")
    depth = max(cell_len(layers), cell_len(entry), len(str(lens.n_layers)))
    steps = [_column(lens, step, screen) for step in range(len(lens.ids))]
    for group in _groups([width for width, _ in steps], screen.width - depth):
        lines += ["", screen.paint(_row(layers, depth, [_head(lens, i, steps[i][0], screen) for i in group]), "dim")]
        for layer in range(lens.n_layers, -1, -1):
            label = str(layer) if layer else entry
            lines.append(_row(label, depth, [_painted(*steps[i][1][layer], steps[i][0], screen) for i in group]))
    lines += ["", *(screen.paint(line, "dim") for line in folded(screen.say("lens.legend"), screen.width))]
    if lens.check is not None:
        lines += folded(screen.safe(check_sentence(lens.check, screen)), screen.width)
    return "\n".join(screen.safe(line) for line in lines)


def direct_text(found: DirectAttribution, screen: Screen, row: int = 0) -> str:
    """One row's value as a table of layers, the last on top: attention with its strongest head, MLP, what is neither."""
    target = " + ".join(name_alone(int(token), found.pieces) for token in _of_row(found, row))
    facts = {"target": target, "value": value_text(found.kind, f"{found.value[row]:.3f}", screen)}
    if found.foil_ids is None or found.together:
        head = screen.say("lens.written", **facts)
    else:
        head = screen.say("lens.written_foil", **facts, foil=name_alone(int(found.foil_ids[row]), found.pieces))
    lines = [screen.paint(screen.safe(head), "bold")]
    header = [screen.say(f"lens.{name}") for name in ("layer", "attention", "strongest", "mlp", "other")]
    body = [
        [
            str(layer + 1),
            _signed(found.attention, row, layer),
            _strongest(found, row, layer, screen),
            _signed(found.mlp, row, layer),
            f"{found.other[row, layer]:+.3f}",
        ]
        for layer in range(found.n_layers - 1, -1, -1)
    ]
    if not found.other[row].any():
        header, body = header[:-1], [cells[:-1] for cells in body]
    lines += columns(screen, header, body, "<><>>"[: len(header)])
    rest = {"entry": found.entry, "norm_and_head": found.bias, "entropy": found.curvature}
    parts = [
        f"{screen.say(f'lens.{name}')} {values[row]:+.3f}" for name, values in rest.items() if abs(values[row]) >= 5e-4
    ]
    told = screen.say("lens.list").join(parts) or screen.say("lens.nothing_else")
    lines.append(screen.say("lens.rest", parts=told, residual=f"{abs(found.residual[row]):.0e}"))
    for why in dict.fromkeys(found.unsplit.values()):
        layers = ", ".join(str(layer + 1) for layer, reason in found.unsplit.items() if reason == why)
        told = screen.say("lens.not_split", layers=layers, why=retold(why, screen.lang, "lens.why"))
        lines += folded(screen.safe(told), screen.width)
    if found.check is not None:
        lines += folded(screen.safe(check_sentence(found.check, screen)), screen.width)
    return "\n".join(screen.safe(line) for line in lines)


def _of_row(found: DirectAttribution, row: int) -> list[int]:
    return list(found.target_ids) if found.together else [found.target_ids[row]]


def _signed(values: np.ma.MaskedArray, row: int, layer: int) -> str:
    return ABSENT if np.ma.getmaskarray(values)[row, layer] else f"{values.data[row, layer]:+.3f}"


def _strongest(found: DirectAttribution, row: int, layer: int, screen: Screen) -> str:
    """The head with the largest share, counted from 0, by its absolute value."""
    mask = np.ma.getmaskarray(found.heads)[row, layer]
    if mask.all():
        return ABSENT
    head = int(np.argmax(np.where(mask, -1.0, np.abs(found.heads.data[row, layer]))))
    return screen.say("lens.head", head=head, value=f"{found.heads.data[row, layer, head]:+.3f}")


def _sentence(lens: Lens, step: int, screen: Screen) -> str:
    """From which layer on the token that stands there is first; else what is."""
    name, last = name_alone(int(lens.ids[step]), lens.pieces), lens.n_layers
    where = screen.say("lens.where", position=str(lens.positions[step]), token=name)
    if not np.ma.getmaskarray(lens.chosen_from)[step]:
        return screen.say("lens.first", where=where, since=_since(int(lens.chosen_from.data[step]), last, screen))
    if np.ma.getmaskarray(lens.settled_from)[step]:
        return screen.say("lens.no_rank", where=where)
    unranked = np.ma.getmaskarray(lens.rank)[step, last]
    rank = "no_probability" if unranked else "rank"
    return screen.say(
        "lens.other_first",
        where=where,
        rank=screen.say(f"lens.{rank}", rank=int(lens.rank.data[step, last])),
        first=name_alone(int(lens.top_ids.data[step, last, 0]), lens.pieces),
        since=_since(int(lens.settled_from.data[step]), last, screen),
    )


def _since(layer: int, last: int, screen: Screen) -> str:
    key = "last" if layer == last else "layer" if layer else "entry"
    return screen.say(f"lens.since_{key}", layer=str(layer), last=str(last))


def _column(lens: Lens, step: int, screen: Screen) -> tuple[int, list[tuple[str, bool]]]:
    """Width of a step's column, and its cells from layer 0 on, with whether each is marked."""
    cells = [_cell(lens, step, layer, screen) for layer in range(lens.n_layers + 1)]
    head = _heading(lens, step, screen)
    return max(cell_len(head), *(cell_len(text) for text, _ in cells)), cells


def _heading(lens: Lens, step: int, screen: Screen) -> str:
    name = fit(screen.safe(name_alone(int(lens.ids[step]), lens.pieces)), _NAME, screen.choose("…", "..."))
    return f" {screen.say('lens.at', token=name, position=str(lens.positions[step]))}"


def _cell(lens: Lens, step: int, layer: int, screen: Screen) -> tuple[str, bool]:
    if np.ma.getmaskarray(lens.top_ids)[step, layer, 0]:
        return f" {ABSENT}", False
    rank = None if np.ma.getmaskarray(lens.rank)[step, layer] else int(lens.rank.data[step, layer])
    # of several that are first, the one that stands there is shown
    best = int(lens.ids[step]) if rank == 1 else int(lens.top_ids.data[step, layer, 0])
    name = fit(screen.safe(name_alone(best, lens.pieces)), _NAME, screen.choose("…", "..."))
    share = percent(lens.top_logprob.data[step, layer, 0])
    behind = ABSENT if rank is None else f"{rank:,}"
    return (f"*{name} {share}", True) if rank == 1 else (f" {name} {share} ({behind})", False)


def _head(lens: Lens, step: int, width: int, screen: Screen) -> str:
    return pad(_heading(lens, step, screen), width)


def _painted(text: str, marked: bool, width: int, screen: Screen) -> str:
    # control codes have no width, and would be counted
    return (screen.paint(text, "green") if marked else text) + " " * (width - cell_len(text))


def _row(label: str, depth: int, cells: list[str]) -> str:
    return f"{pad(label, depth)} {' '.join(cells)}".rstrip()


def _groups(widths: list[int], room: int) -> list[list[int]]:
    """Columns in order, as many together as there is room for, with a space before each."""
    groups: list[list[int]] = []
    taken = 0
    for column, width in enumerate(widths):
        if not groups or taken + width + 1 > room:
            groups.append([])
            taken = 0
        groups[-1].append(column)
        taken += width + 1
    return groups
