"""Where a model looked, in words and tables; and the rows of a summary."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tokentape.data.attention import AttentionSummary, TopSources
from tokentape.data.explanation import ReplayCheck
from tokentape.data.trace import Piece
from tokentape.errors import UsageError
from tokentape.views.attention_text import attention_text
from tokentape.views.screen import Screen

NAMES = ("The", " cat", " sat", " on", " the", " mat")
IDS = (0, 1, 2, 3, 1, 4)


def tops(sources: Any, weights: Any) -> TopSources:
    data = np.array(sources)
    shares = np.ma.MaskedArray(np.array(weights, float), data < 0)
    return TopSources(np.ma.MaskedArray(data, data < 0), shares, np.ma.MaskedArray(shares.filled(0).sum(-1)))


def summary(**more: Any) -> AttentionSummary:
    """Two layers, the second without attention; two heads; rows for positions 4 and 5, heads for 5 alone."""
    shape = (2, 2, 2)
    absent = np.zeros(shape, bool)
    absent[1] = True
    figure = {
        name: np.ma.MaskedArray(np.full(shape, value), absent)
        for name, value in (("sink_share", 0.25), ("distance", 1.5))
    }
    entropy = np.ma.MaskedArray(np.array([[[1.0, 0.5], [0.8, 0.1]], np.zeros((2, 2))]), absent)
    layers = tops([[[3, 1], [4, 0]], [[-1, -1], [-1, -1]]], [[[0.6, 0.4], [0.7, 0.2]], [[0, 0], [0, 0]]])
    heads = tops([[[[4, 0]], [[1, -1]]], [[[-1, -1]]] * 2], [[[[0.6, 0.4]], [[0.99, 0]]], [[[0, 0]]] * 2])
    given = {
        "positions": np.array([4, 5]),
        "ids": np.array(IDS),
        "n_heads": (2, 0),
        "entropy": entropy,
        **figure,
        "nowhere": np.ma.MaskedArray(np.zeros(shape), True),
        "layers": layers,
        "overall": tops([[3, 1], [4, 0]], [[0.6, 0.4], [0.7, 0.2]]),
        "head_positions": np.array([5]),
        "heads": heads,
        "pieces": {i: Piece(i, name, name.encode(), False) for i, name in enumerate(NAMES)},
    }
    return AttentionSummary(**{**given, **more})


def test_one_row_is_a_sentence_and_a_table_of_layers() -> None:
    lines = attention_text(summary().rows([5]), Screen(width=120)).splitlines()
    # the token stands at two places before it, so its own is named
    assert lines[0] == "Before ' the' at position 5 the model looked at ' cat' at 4 70%, 'The' 20%."
    assert lines[2].split() == "layer looked at entropy first distance sharpest head".split()
    assert lines[3].split() == ["2", *["n/a"] * 5]
    assert lines[4].split("  ")[0] == "1" and "' cat' at 4 70%, 'The' 20%" in lines[4]
    assert lines[4].endswith("0.30    25%       1.5  1: ' cat' at 1 99%")
    assert "without attention: layer 2" in lines


def test_several_rows_are_a_line_each() -> None:
    lines = attention_text(summary(), Screen(width=120)).splitlines()
    assert lines[0].split() == "pos token looked at entropy first distance".split()
    assert lines[1].split() == "4 ' cat' ' on' 60%, ' cat' at 1 40% 0.90 25% 1.5".split()
    assert lines[2].split()[-3:] == ["0.30", "25%", "1.5"]


def test_a_learned_sink_and_a_failed_check_are_on_its_face() -> None:
    nowhere = np.ma.MaskedArray(np.full((2, 2, 2), 0.4), summary().entropy.mask)
    failed = ReplayCheck(2.0, 1.0, 3, 1e-3, False, "other weights")
    text = attention_text(replace(summary(), nowhere=nowhere, check=failed).rows([5]), Screen(width=120))
    assert "nowhere" in text.splitlines()[2] and "40%" in text
    several = attention_text(replace(summary(), nowhere=nowhere), Screen(width=120)).splitlines()
    assert several[0].endswith("nowhere") and several[1].endswith("40%")
    assert "REPLAY DISAGREES" in text


def test_names_of_hostile_tokens_are_text_and_nothing_else() -> None:
    hostile = {1: Piece(1, "\x1b[31m\n" * 999, b"\x1b[31m\n" * 999, False)}
    for found in (summary(pieces=hostile).rows([5]), summary(pieces=hostile)):
        for width in (40, 60, 90):
            text = attention_text(found, Screen(width=width))
            assert "\x1b" not in text and "#4" in text
            assert max(map(len, text.splitlines())) <= width


def test_figures_are_means_over_the_layers_that_attend() -> None:
    entropy = np.ma.MaskedArray(np.array([[[1.0, 0.5], [0.8, 0.1]], [[2.0, 4.0], [0.0, 0.0]]]), False)
    entropy[1, 1] = np.ma.masked  # the second layer has one head
    text = attention_text(summary(entropy=entropy, n_heads=(2, 1)), Screen(width=120))
    assert text.splitlines()[1].split()[-3] == "1.45" and text.splitlines()[2].split()[-3] == "2.15"
    assert "without attention" not in text


def test_a_token_that_comes_again_later_needs_no_position() -> None:
    ids = np.array((0, 1, 2, 3, 4, 1))
    text = attention_text(summary(ids=ids).rows([4]), Screen(width=120))
    assert text.startswith("Before ' the' at position 4 the model looked at ' on' 60%, ' cat' 40%.")
    assert "sharpest" not in text  # no heads were kept for this row


def test_rows_are_chosen_by_position() -> None:
    whole = summary()
    one = whole.rows([4])
    np.testing.assert_array_equal(one.positions, [4])
    np.testing.assert_array_equal(one.entropy[:, :, 0], whole.entropy[:, :, 0])
    np.testing.assert_array_equal(one.layers.sources, whole.layers.sources[:, :1])
    assert one.heads.weights.shape[2] == 0 and len(one.head_positions) == 0
    np.testing.assert_array_equal(whole.rows([5]).heads.weights, whole.heads.weights)
    with pytest.raises(UsageError, match="no row for position 3"):
        whole.rows([3, 4])
    with pytest.raises(UsageError, match="no row for position 4"):
        whole.rows([]).rows([4])
    with pytest.raises(ValueError, match="read-only"):
        one.positions[0] = 1


def test_all_of_it_is_json_with_null_where_masked() -> None:
    plain = json.loads(json.dumps(summary().to_dict(), allow_nan=False))
    assert plain["n_heads"] == [2, 0] and plain["entropy"][1] == [[None, None], [None, None]]
    assert plain["heads"]["sources"][0][1] == [[1, None]] and plain["overall"]["kept"] == pytest.approx([1.0, 0.9])
    assert plain["pieces"]["1"] == [" cat", b" cat".hex(), False]


@pytest.mark.parametrize("positions", [[5], [4, 5]])
def test_in_chinese_it_has_the_same_numbers(positions: list[int]) -> None:
    failed = ReplayCheck(2.0, 1.0, 3, 1e-3, False, "other weights")
    found = replace(summary(), check=failed).rows(positions)
    english, chinese = attention_text(found, Screen(width=200)), attention_text(found, Screen(width=200, lang="zh"))
    assert sorted(re.findall(r"\d[\d.]*", chinese)) == sorted(re.findall(r"\d[\d.]*", english))
    assert "看向" in chinese and "没有注意力的层：2" in chinese and "重放与记录不一致" in chinese
    attention_text(found, Screen(encoding="ascii", lang="zh")).encode("ascii")
