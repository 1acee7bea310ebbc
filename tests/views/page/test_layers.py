"""Layers by tokens as the page has them, held against loops over the readings."""

from __future__ import annotations

import json
import math
import statistics
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from test_page_attention import H, L, summary

from tokentape.data.explanation import ReplayCheck
from tokentape.data.layers import DirectAttribution, Lens
from tokentape.data.trace import Piece
from tokentape.views.page.layers import attention_entropy, direct_shape, layers_part, lens_shape
from tokentape.words.catalogue import LANGS, Message, phrases, places, said
from views.page.pages import IN_PROCESS, replayable

N, DEEP, VOCABULARY = 5, 4, 12
PIECES = {i: Piece(i, f"t{i}", f" t{i}".encode(), False) for i in range(VOCABULARY - 1)}
CHECK = ReplayCheck(1e-6, 1e-7, 8, 1e-4, True)


def text(plain: dict[str, Any]) -> str:
    return said(Message.of(plain))


def logits() -> Any:
    return np.random.default_rng(11).normal(0, 2, (N, DEEP + 1, VOCABULARY))


def lens(**more: Any) -> Lens:
    """A lens of five tokens, whose figures are those of :func:`logits`; one cell is not known."""
    z = logits()
    logp = z - np.log(np.exp(z).sum(-1, keepdims=True))
    ids = np.array([int(z[0, -1].argmax()), 3, int(z[2, -1].argmax()), 11, int(z[4, 0].argmax())])
    order = np.argsort(-logp, -1)[..., :2]
    mask = np.zeros((N, DEEP + 1), bool)
    mask[1, 2] = True
    deep = np.repeat(mask[..., None], 2, -1)
    own = np.take_along_axis(z, ids[:, None, None], -1)
    p = np.exp(logp)
    given = {
        "positions": np.arange(4, 4 + 2 * N, 2),
        "ids": ids,
        "rank": np.ma.MaskedArray(1 + (z > own).sum(-1), mask),
        "logprob": np.ma.MaskedArray(np.take_along_axis(logp, ids[:, None, None], -1)[..., 0], mask),
        "final_rank": np.ma.MaskedArray(np.ones((N, DEEP + 1), int), mask),
        "entropy": np.ma.MaskedArray(-(p * logp).sum(-1), mask),
        "kl": np.ma.MaskedArray((p[:, -1:] * (logp[:, -1:] - logp)).sum(-1), mask),
        "top_ids": np.ma.MaskedArray(order, deep),
        "top_logprob": np.ma.MaskedArray(np.take_along_axis(logp, order, -1), deep),
        "pieces": PIECES,
        "agreement": 1e-7,
        "check": CHECK,
    }
    return Lens(**{**given, **more})


def direct(**more: Any) -> DirectAttribution:
    """Two blocks, the second without attention; a value for each of three tokens."""
    rng = np.random.default_rng(5)
    attention = np.ma.MaskedArray(rng.normal(size=(3, 2)), [[0, 1]] * 3)
    mlp, other = rng.normal(size=(3, 2)), np.zeros((3, 2))
    blocks = attention.filled(0) + mlp
    entry, bias, curvature = (rng.normal(size=3) for _ in range(3))
    heads = np.ma.MaskedArray(rng.normal(size=(3, 2, 4)), np.broadcast_to([[0, 0, 0, 1], [1, 1, 1, 1]], (3, 2, 4)))
    given = {
        "kind": "logit",
        "together": False,
        "targets": [4, 6, 8],
        "target_ids": [1, 2, 3],
        "foil_ids": None,
        "value": entry + blocks.sum(1) + bias + curvature,
        "entry": entry,
        "blocks": blocks,
        "bias": bias,
        "curvature": curvature,
        "residual": np.array([1e-9, -3e-8, 0]),
        "attention": attention,
        "mlp": np.ma.MaskedArray(mlp),
        "other": other,
        "heads": heads,
        "unsplit": {},
        "pieces": PIECES,
        "check": CHECK,
    }
    return DirectAttribution(**{**given, **more})


def maps(part: dict[str, Any]) -> dict[str, Any]:
    return {one["key"]: one for one in part["maps"]}


def near(found: float | None, exact: float) -> bool:
    return found == pytest.approx(exact, rel=6e-3, abs=1e-12)


def tape(path: str | None = "/x/a b.tape", **found: list[Any]) -> Any:
    def readings_of(trace: int, kind: str) -> list[Any]:
        return [] if trace else [SimpleNamespace(found=one) for one in found.get(kind, [])]

    return SimpleNamespace(readings_of=readings_of, path=None if path is None else Path(path), setting=IN_PROCESS)


def test_every_cell_of_the_lens() -> None:
    given, found = lens(), lens_shape(lens())
    by = maps(found)
    assert list(by) == ["rank", "share", "entropy", "kl"] and found["first"] == 0
    assert found["places"] == [4, 6, 8, 10, 12]
    for layer in range(DEEP + 1):
        for token in range(N):
            cells = [by[key]["values"][layer][token] for key in by]
            if (token, layer) == (1, 2):
                assert [*cells, found["best"][layer][token], found["best_share"][layer][token]] == [None] * 6
                continue
            assert cells[0] == given.rank[token, layer]
            assert near(cells[1], math.exp(given.logprob[token, layer]))
            assert near(cells[2], given.entropy[token, layer]) and near(cells[3], max(0.0, given.kl[token, layer]))
            best = int(given.top_ids[token, layer, 0])
            assert found["names"][found["best"][layer][token]] == (f" t{best}" if best < 11 else "#11")
            assert near(found["best_share"][layer][token], math.exp(given.top_logprob[token, layer, 0]))
    assert (by["rank"]["log"], by["rank"]["low"], by["rank"]["high"]) == (1, 1, given.rank.max())
    assert (by["share"]["low"], by["share"]["high"]) == (0, 1)
    assert near(by["kl"]["high"], given.kl.max()) and not any(one["difference"] for one in by.values())


def test_of_several_that_are_first_the_one_that_stands_there_is_named() -> None:
    ranks = np.array(lens().rank.filled(1))
    ranks[3, 1] = 1
    found = lens_shape(lens(rank=ranks))
    assert found["names"][found["best"][1][3]] == "#11"


def test_from_which_layer_on_tokens_are_first() -> None:
    given = lens()
    since = []
    for token in range(N):
        layer = DEEP + 1
        while layer > 0 and given.rank[token].tolist()[layer - 1] == 1:
            layer -= 1
        since.append(layer if layer <= DEEP else None)
    found = lens_shape(given)
    assert found["chosen_from"] == since
    there = [layer for layer in since if layer is not None]
    args = found["caption"]["args"]
    assert args["layer"] == f"{statistics.median(there):g}" and (args["first"], args["n"]) == (len(there), N)
    assert args["late"] == f"{sum(layer == DEEP for layer in there) / len(there):.0%}"
    assert f"from layer {args['layer']} of {DEEP} on" in text(found["caption"])
    never = lens_shape(lens(rank=np.full((N, DEEP + 1), 2)))
    assert text(never["caption"]) == "None of the 5 tokens is the model's first choice at the end of its 4 layers."
    four = np.array([[1 if layer >= first else 2 for layer in range(DEEP + 1)] for first in (1, 2, 3, 4, 9)])
    assert lens_shape(lens(rank=four))["caption"]["args"]["layer"] == "2", "there is no layer 2.5"
    entry = lens_shape(lens(rank=np.ones((N, DEEP + 1), int)))["caption"]
    assert "the earliest from entry on" in text(entry)


def test_how_well_the_lens_agrees() -> None:
    assert "to within 1.0e-07 of" in text(lens_shape(lens())["notes"][0])
    assert text(lens_shape(lens(agreement=0.0))["notes"][0]).endswith("logits exactly.")
    assert lens_shape(lens(agreement=None))["notes"] == []


def test_the_entropy_of_attention_is_the_mean_over_heads() -> None:
    given = summary()
    found = attention_entropy(given)
    (one,) = found["maps"]
    assert one["key"] == "attention_entropy" and found["first"] == 1
    means = {}
    for layer in range(L):
        for row in range(len(given.positions)):
            cells = [given.entropy[layer, head, row] for head in range(H) if not given.entropy.mask[layer, head, row]]
            value = one["values"][layer][row]
            assert (value is None) if not cells else near(value, sum(cells) / len(cells))
        if cells:
            rows = [statistics.mean(column.compressed().tolist()) for column in given.entropy[layer].T]
            means[layer] = statistics.mean(rows)
    args = found["caption"]["args"]
    low, high = min(means, key=means.__getitem__), max(means, key=means.__getitem__)
    assert (args["sharp"], args["wide"]) == (str(low + 1), str(high + 1))
    assert (args["sharpest"], args["widest"]) == (f"{means[low]:.2f}", f"{means[high]:.2f}")
    blank = attention_entropy(summary(entropy=np.ma.MaskedArray(given.entropy.data, True)))
    assert text(blank["caption"]) == "None of the 3 layers has attention whose entropy is known."


def test_every_cell_of_direct_attribution() -> None:
    given, found = direct(), direct_shape(direct())
    by = maps(found)
    assert list(by) == ["block", "attention", "mlp"] and found["first"] == 1
    for layer in range(2):
        for token in range(3):
            assert near(by["block"]["values"][layer][token], given.blocks[token, layer])
            assert near(by["mlp"]["values"][layer][token], given.mlp[token, layer])
            cell = by["attention"]["values"][layer][token]
            assert (cell is None) if layer else near(cell, given.attention[token, layer])
            heads = {h: float(given.heads[token, layer, h]) for h in range(4) if not given.heads.mask[token, layer, h]}
            strongest = max(heads, key=lambda h: abs(heads[h])) if heads else None
            assert found["head"][layer][token] == strongest
            value = found["head_value"][layer][token]
            assert value is None if strongest is None else near(value, heads[strongest])
    for one in by.values():
        cells = [abs(cell) for row in one["values"] for cell in row if cell is not None]
        assert one["difference"] == 1 and one["high"] == max(cells)
    for token in range(3):  # what is shown adds up
        total = found["entry"][token] + found["rest"][token] + sum(row[token] for row in by["block"]["values"])
        assert total == pytest.approx(found["value"][token], abs=0.02)
    means = given.blocks.mean(0)
    most = int(np.abs(means).argmax())
    assert f"Layer {most + 1} adds most, {means[most]:+.2f}" in text(found["caption"])
    assert f"attention {given.attention.filled(0).sum(1).mean():+.2f}" in text(found["caption"])
    assert text(found["notes"][0]) == "What the parts leave unaccounted for is at most 3e-08."


def test_what_was_not_split_and_what_it_is_held_against() -> None:
    whole = direct().blocks
    none = np.ma.MaskedArray(np.zeros((3, 2)), True)
    apart = direct(
        attention=none,
        mlp=none,
        other=whole,
        heads=np.ma.MaskedArray(np.zeros((3, 2, 0))),
        kind="foil",
        foil_ids=[7, 7, 7],
        unsplit={0: "gated", 1: "gated"},
    )
    found = direct_shape(apart)
    assert "other" in maps(found) and found["head"] == [[None] * 3] * 2 == found["head_value"]
    assert text(found["what"]) == "logit against  t7"
    assert text(found["notes"][1]) == "Not split into attention and perceptron: layer 1, 2 (gated)."
    assert text(direct_shape(direct(kind="foil", foil_ids=[7, 8, 7]))["what"]) == "logit against another token"
    (unit,) = {one["unit"] for one in direct_shape(direct(kind="logprob"))["maps"]}
    assert unit == "nats"


def test_the_widest_readings_and_what_is_missing() -> None:
    few = lens(**{name: value[:2] for name, value in vars(lens()).items() if np.ndim(value)})
    arrays = {name: value for name, value in vars(direct()).items() if np.ndim(value)}
    rows = {name: value[:1] for name, value in arrays.items() if name not in ("targets", "target_ids")}
    summed = direct(together=True, **rows)
    found = layers_part(replayable(), tape(lens=[few, lens()], direct=[direct(), summed]))
    assert len(found["lens"]["places"]) == N and len(found["direct"]["places"]) == 3
    assert found["attention"]["run"] == "tokentape explain 'a b.tape' --attention --all"
    only = layers_part(replayable(), tape(attention=[summary()], direct=[summed]))
    assert "maps" in only["attention"]
    assert only["direct"]["run"].endswith("--direct --all") and only["lens"]["run"].endswith("--lens --all")
    nothing = layers_part(replayable(2), tape(path=None, lens=[lens()]))
    assert nothing["run"] == "tokentape explain FILE --lens --all --trace 2" and "missing" in nothing


def test_the_part_is_json_and_its_words_are_there() -> None:
    part = layers_part(SimpleNamespace(number=0), tape(lens=[lens()], direct=[direct()], attention=[summary()]))  # type: ignore[arg-type]
    told = json.loads(json.dumps(part, allow_nan=False))
    used = {held["caption"]["key"] for held in told.values()}
    used |= {f"page_layers.{one['key']}" for held in told.values() for one in held["maps"]} | {"page_layers.other"}
    for lang in LANGS:
        assert used <= phrases(lang).keys()
    for held in told.values():
        assert set(held["caption"]["args"]) >= places(phrases("en")[held["caption"]["key"]])
