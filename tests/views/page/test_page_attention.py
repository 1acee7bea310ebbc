"""Attention as the page has it, held against whole weights."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from test_relevance import dense, text

from tokentape.data.attention import AttentionSummary, TopSources
from tokentape.data.explanation import ReplayCheck
from tokentape.views.page.attention import attention_part, attention_shape
from views.page.pages import IN_PROCESS, replayable

L, H, T = 3, 4, 9
HEADS = (4, 0, 3)
"""The second layer does not attend, the third has three heads."""


def weights() -> Any:
    """Causal weights ``[L, H, T - 1, T - 1]``: the row of position p is p - 1; NaN where there is no head."""
    rng = np.random.default_rng(3)
    logits = rng.normal(0, 3, (L, H, T - 1, T - 1))
    logits[..., np.triu_indices(T - 1, 1)[0], np.triu_indices(T - 1, 1)[1]] = -np.inf
    found = np.exp(logits)
    found /= found.sum(-1, keepdims=True)
    for layer, heads in enumerate(HEADS):
        found[layer, heads:] = np.nan
    return found


def tops(whole: Any, k: int) -> TopSources:
    """The k best of each row ``[..., T - 1]``, best first."""
    filled = np.nan_to_num(whole)
    order = np.argsort(-filled, axis=-1, kind="stable")[..., :k]
    best = np.take_along_axis(filled, order, -1)
    kept = np.ma.MaskedArray(best.sum(-1), np.isnan(whole).all(-1))
    return TopSources(np.ma.MaskedArray(order, best <= 0), np.ma.MaskedArray(best, best <= 0), kept)


def summary(k: int = 4, heads: Any = (3, 7, 8), **more: Any) -> AttentionSummary:
    whole = weights()
    layers = np.stack([whole[0].mean(0), np.full((T - 1, T - 1), np.nan), whole[2, :3].mean(0)])
    columns = np.arange(T - 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        figures = {
            "entropy": -np.where(whole > 0, whole * np.log(whole), 0).sum(-1),
            "sink_share": whole[..., 0],
            "distance": columns - whole @ columns,
            "nowhere": np.full((L, H, T - 1), np.nan),
        }
    figures["entropy"][np.isnan(whole).all(-1)] = np.nan
    given = {
        "positions": np.arange(1, T),
        "ids": np.arange(T),
        "n_heads": HEADS,
        **{name: np.ma.MaskedArray(values, np.isnan(values)) for name, values in figures.items()},
        "layers": tops(layers, k),
        "overall": tops(np.nanmean(layers, 0), k),
        "head_positions": np.array(heads, np.int64),
        "heads": tops(whole[:, :, [p - 1 for p in heads]], k),
        "check": ReplayCheck(1e-6, 1e-7, 8, 1e-3, True),
    }
    return AttentionSummary(**{**given, **more})


def assert_rows(found: dict[str, Any], whole: Any, k: int) -> None:
    """The k largest of each row to a thousandth, by place, and how much of the row they are."""
    for row, given, kept in zip(whole, dense(found, T), found["kept"], strict=True):
        best = np.sort(row)[::-1][:k]
        for place in range(T - 1):
            if given[place] is not None:
                assert given[place] == pytest.approx(row[place], abs=6e-4) and row[place] >= best[-1]
            else:
                assert row[place] <= best[-1] or row[place] < 6e-4
        assert sum(value is not None for value in given) == (np.rint(best * 1000) > 0).sum()
        assert kept / found["per"] == pytest.approx(best.sum(), abs=6e-4)
    places = iter(found["columns"])
    for count in found["counts"]:
        row_places = [next(places) for _ in range(count)]
        assert row_places == sorted(set(row_places))


def test_maps_are_those_of_the_weights() -> None:
    whole, found = weights(), attention_shape(summary())
    assert found["rows"] == list(range(1, T)) and found["n_heads"] == [4, 0, 3]
    assert found["layers"][1] is None and found["heads"][1] == []
    assert_rows(found["layers"][0], whole[0].mean(0), 4)
    assert_rows(found["layers"][2], whole[2, :3].mean(0), 4)
    assert_rows(found["overall"], (whole[0].mean(0) + whole[2, :3].mean(0)) / 2, 4)
    assert found["head_rows"] == [3, 7, 8]
    for layer, heads in enumerate(HEADS):
        assert len(found["heads"][layer]) == heads
        for head in range(heads):
            assert_rows(found["heads"][layer][head], whole[layer, head, [2, 6, 7]], 4)
    json.dumps(found, allow_nan=False)


def test_figures_are_means_over_rows() -> None:
    whole, found = weights(), attention_shape(summary())
    figures = {one["name"]["key"].rsplit(".", 1)[-1]: one for one in found["figures"]}
    assert list(figures) == ["entropy", "sink_share", "distance"]  # no head has a learned sink
    assert figures["sink_share"]["values"][1] == [None] * 4 and figures["sink_share"]["values"][2][3] is None
    assert figures["sink_share"]["values"][0] == pytest.approx(whole[0, :, :, 0].mean(-1), rel=1e-3)
    back = np.array([sum(w * (p - s) for s, w in enumerate(row)) for p, row in enumerate(whole[2, 1])]).mean()
    assert figures["distance"]["values"][2][1] == pytest.approx(back, rel=1e-3)
    assert figures["entropy"]["high"] == max(v for row in figures["entropy"]["values"] for v in row if v is not None)


def test_the_caption_names_the_sharpest_head() -> None:
    whole, args = weights(), attention_shape(summary())["caption"]["args"]
    entropy = {
        (layer, head): np.mean([-sum(w * np.log(w) for w in row if w > 0) for row in whole[layer, head]])
        for layer, heads in enumerate(HEADS)
        for head in range(heads)
    }
    layer, head = min(entropy, key=lambda key: entropy[key])
    assert (args["layer"], args["head"]) == (str(layer + 1), str(head))
    assert args["entropy"] == f"{entropy[layer, head]:.2f}" and args["n"] == 7 and args["layers"] == 2
    sink = np.mean([whole[layer, head, :, 0].mean() for layer, head in entropy])
    assert args["first"] == f"{sink:.0%}"


def test_what_is_left_out_is_told() -> None:
    found = attention_shape(summary())
    said = [text(one) for one in found["kept"]]
    kept = np.array(found["overall"]["kept"]) / 1000
    assert said[0].startswith(
        f"The mean over all layers keeps the 4 strongest sources of each row: {kept.mean():.1%} of"
    )
    assert "3 of 8 rows (places 3 to 8)" in said[2] and said[3] == "Without attention: layer 2."
    assert found["check"]["passed"] is True
    without = attention_shape(summary(heads=()))
    assert without["heads"] == [] and without["head_rows"] == []
    assert text({**without["kept"][2], "args": {}}) == "Of single heads there are figures, no maps."


def test_long_texts_keep_fewer_sources() -> None:
    # 24 rows of layers, 7 heads of 3 rows: room for 2 sources of a layer's row, and 4 of 2 rows of each head
    found = attention_shape(summary(k=8), entries=60)
    assert max(found["layers"][0]["counts"]) == 2 and max(found["overall"]["counts"]) > 4
    assert_rows(found["layers"][0], weights()[0].mean(0), 2)
    assert found["head_rows"] == [3, 7] and len(found["heads"][0][0]["counts"]) == 2
    assert_rows(found["heads"][0][1], weights()[0, 1, [2, 6]], 4)


def test_the_widest_reading_of_a_tape_is_shown() -> None:
    def readings_of(trace: int, kind: str) -> list[Any]:
        assert kind == "attention"
        return [] if trace else [SimpleNamespace(found=summary(k=k)) for k in (2, 4)]

    tape: Any = SimpleNamespace(readings_of=readings_of, path=Path("/x/a.tape"), setting=IN_PROCESS)
    assert max(attention_part(SimpleNamespace(number=0), tape)["overall"]["counts"]) == 4
    none = attention_part(replayable(2), tape)
    assert none["run"] == "tokentape explain a.tape --attention --all --trace 2" and "missing" in none
