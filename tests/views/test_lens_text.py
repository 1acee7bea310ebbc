"""The tables of layers, over values whose every cell is known."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from rich.cells import cell_len

from tokentape.data.explanation import ReplayCheck
from tokentape.data.layers import DirectAttribution, Lens
from tokentape.data.trace import Piece
from tokentape.views.lens_text import direct_text, lens_text
from tokentape.views.screen import Screen

WORDS = [" mat", "垫子", " the", "\x1b[31m\u202e", "</s>", " it's", "\u2060extraordinarily-long-token"]
PIECES = {i: Piece(i, word, word.encode(), word == "</s>") for i, word in enumerate(WORDS)}
ANSI = re.compile(r"\x1b\[\d+m")


def lens_of(
    ids: list[int], top: list[list[int]], rank: list[list[int | None]], p: list[list[float]], **more: Any
) -> Lens:
    unknown = np.array([[one is None for one in row] for row in rank])
    known = np.ma.MaskedArray([[one or 0 for one in row] for row in rank], unknown)
    best = np.ma.MaskedArray(np.log(p), unknown)
    first = np.array(top) == np.array(top)[:, -1:]
    return Lens(
        positions=np.arange(5, 5 + len(ids)),
        ids=np.array(ids),
        rank=known,
        logprob=best,
        final_rank=np.ma.MaskedArray(np.where(first, 1, 2)),
        entropy=best,
        kl=best,
        top_ids=np.ma.MaskedArray(top)[..., None],
        top_logprob=best[..., None],
        **{"pieces": PIECES, **more},
    )


@pytest.fixture
def lens() -> Lens:
    return lens_of(
        [0, 1, 4, 3],
        [[2, 0, 0], [2, 2, 1], [4, 4, 4], [3, 2, 2]],
        [[170, 1, 1], [9, 2, 1], [1, 1, 1], [1, 3, 1_234]],
        [[0.5, 0.25, 0.93], [0.001, 0.3, 1.0], [0.2, 0.3, 0.4], [0.2, 0.3, 0.4]],
    )


def table(text: str) -> list[str]:
    """The lines of the first table, its head first."""
    lines = text.splitlines()
    start = next(i for i, line in enumerate(lines) if ANSI.sub("", line).startswith(("layer", "层")))
    return lines[start : lines.index("", start)]


def test_a_sentence_for_each_step(lens: Lens) -> None:
    assert lens_text(lens, Screen(width=200)).splitlines()[:4] == [
        "position 5: ' mat' is first at layer 1 of 2 and stays",
        "position 6: '垫子' is first at the last layer alone, 2 of 2",
        "position 7: </s> is first from the entry on and stays",
        "position 8: '\\x1b[31m\\u202e' has rank 1,234 at the end; ' the' is first at layer 1 of 2 and stays",
    ]


def test_the_model_is_on_top_and_the_entry_below(lens: Lens) -> None:
    head, *rows = table(lens_text(lens, Screen(width=200)))
    assert [row.split()[0] for row in rows] == ["2", "1", "entry"]
    assert head == "layer  ' mat' at 5       '垫子' at 6     </s> at 7  '\\x1b[31m\\u20… at 8"


def test_cells_have_the_best_token_and_what_stands_there_is_marked(lens: Lens) -> None:
    top, middle, entry = table(lens_text(lens, Screen(width=200)))[1:]
    assert top.startswith("2     *' mat' 93%") and "*'垫子' 100%" in top and top.endswith(" ' the' 40% (1,234)")
    assert middle.startswith("1     *' mat' 25%") and " ' the' 30% (2)" in middle
    assert entry.startswith("entry  ' the' 50% (170)") and " ' the' <1% (9)" in entry and "*</s> 20%" in entry


def test_columns_stand_under_one_another_with_chinese_and_escapes(lens: Lens) -> None:
    lines = table(lens_text(lens, Screen(width=200)))
    for anchor in ("</s>", "'\\x1b", "' the' 40%"):
        assert any(anchor in line for line in lines)
    columns = {cell_len(line[: line.index("</s>")]) for line in lines}
    assert len(columns) == 1, "every line has the special token in the third column"
    starts = {cell_len(line[: line.index("'垫子'")]) for line in lines[:2]}
    assert starts == {cell_len(lines[2][: lines[2].index("' the'")])}


def test_colours_only_where_they_are_wanted(lens: Lens) -> None:
    plain = lens_text(lens, Screen(width=200))
    painted = lens_text(lens, Screen(width=200, color=True))
    assert "\x1b" not in plain and ANSI.sub("", painted) == plain
    assert "\x1b[32m*' mat' 93%" in painted and painted.count("\x1b[32m") == sum(
        line.count("*") for line in table(plain)[1:]
    )


@pytest.mark.parametrize("width", [40, 50, 60])
def test_steps_that_do_not_fit_get_tables_of_their_own(lens: Lens, width: int) -> None:
    lines = lens_text(lens, Screen(width=width)).splitlines()
    assert max(cell_len(line) for line in lines) <= width
    heads = [line for line in lines if line.startswith("layer")]
    assert len(heads) > 1 and sum(head.count(" at ") for head in heads) == 4


def test_hostile_tokens_and_narrow_encodings(lens: Lens) -> None:
    for screen in (Screen(), Screen(encoding="ascii"), Screen(encoding="gbk")):
        text = lens_text(lens, screen)
        assert not [c for c in text if (ord(c) < 32 and c != "\n") or c in "\u202e\x9b"]
        text.encode(screen.encoding)


def test_a_long_name_is_cut_and_a_quote_tells_itself(lens: Lens) -> None:
    text = lens_text(lens_of([6, 5], [[6, 6], [5, 5]], [[1, 1], [1, 1]], [[0.5, 0.5], [0.5, 0.5]]), Screen())
    assert "extrao…" in table(text)[1] and '*" it\'s" 50%' in text


def test_without_a_vocabulary_there_are_ids() -> None:
    found = lens_of([7], [[9, 7]], [[3, 1]], [[0.5, 0.5]], pieces={})
    assert "position 5: #7 is first at the last layer alone, 1 of 1" in lens_text(found, Screen())
    assert "#9 50% (3)" in lens_text(found, Screen())


def test_null_is_said() -> None:
    found = lens_of([0], [[2, 0]], [[None, None]], [[0.5, 0.5]])
    none = np.ma.MaskedArray(np.ones((1, 2)), True)
    text = lens_text(replace(found, final_rank=none, top_ids=none[..., None], top_logprob=none[..., None]), Screen())
    assert "has no rank" in text and [line.split()[1] for line in table(text)[1:]] == ["n/a", "n/a"]


def test_a_token_without_probability_is_told_from_a_model_without_numbers() -> None:
    found = lens_of([0], [[2, 2]], [[9, None]], [[0.5, 0.5]])
    text = lens_text(replace(found, top_logprob=np.ma.MaskedArray(np.log([[[0.5], [0.5]]]))), Screen())
    assert "' mat' has no probability at the end; ' the' is first from the entry on" in text
    assert "' the' 50% (n/a)" in table(text)[1]


def test_of_several_first_tokens_the_one_that_stands_there_is_shown() -> None:
    assert "*' mat' 50%" in lens_text(lens_of([0], [[2, 2]], [[1, 1]], [[0.5, 0.5]]), Screen())


def test_a_failed_check_is_on_its_face(lens: Lens) -> None:
    failed = ReplayCheck(2.0, 0.1, 9, 1e-3, False, "another model")
    assert "REPLAY DISAGREES" in lens_text(replace(lens, check=failed), Screen())
    assert "REPLAY" not in lens_text(lens, Screen())


# direct logit attribution


def direct_of(**more: Any) -> DirectAttribution:
    attention = np.ma.MaskedArray([[0.5, 0.0]], [[False, True]])
    mlp = np.ma.MaskedArray([[-0.25, 0.0]], [[False, True]])
    heads = np.ma.MaskedArray([[[0.1, -0.3], [0.0, 0.0]]], [[[False, False], [True, True]]])
    other = np.array([[0.0, 1.0]])
    one = {"value": 1.5, "entry": 0.125, "bias": 0.125, "curvature": 0.0, "residual": 2e-7}
    return DirectAttribution(
        **{
            "kind": "foil",
            "together": False,
            "targets": np.array([5]),
            "target_ids": np.array([0]),
            "foil_ids": np.array([1]),
            "blocks": np.array([[0.25, 1.0]]),
            "attention": attention,
            "mlp": mlp,
            "other": other,
            "heads": heads,
            "unsplit": {1: "what it reads does not go through it by additions alone"},
            "pieces": PIECES,
            **{name: np.array([value]) for name, value in one.items()},
            **more,
        }
    )


def test_direct_names_every_term() -> None:
    lines = direct_text(direct_of(), Screen()).splitlines()
    assert lines[0] == "' mat' rather than '垫子': 1.500 logits, written by"
    assert lines[2].split() == ["2", "n/a", "n/a", "n/a", "+1.000"]
    assert lines[3].split() == ["1", "+0.500", "1:", "-0.300", "-0.250", "+0.000"]
    assert lines[4] == "entry +0.125, norm and head +0.125; 2e-07 is unaccounted for"
    assert lines[5] == "not split: layer 2: what it reads does not go through it by additions alone"


def test_direct_leaves_out_what_is_nothing() -> None:
    found = direct_of(other=np.zeros((1, 2)), unsplit={}, kind="logit", foil_ids=None)
    text = direct_text(found, Screen())
    assert "other" not in text and "not split" not in text and "rather than" not in text
    assert text.startswith("' mat': 1.500 logits above the mean, written by")


def test_direct_of_targets_together() -> None:
    found = direct_of(together=True, targets=np.array([5, 6]), target_ids=np.array([0, 2]), foil_ids=np.array([1, 1]))
    assert direct_text(found, Screen()).startswith("' mat' + ' the': 1.500 logits, written by")


# in Chinese


def test_a_lens_in_chinese_has_the_same_numbers(lens: Lens) -> None:
    english, chinese = lens_text(lens, Screen(width=200)), lens_text(lens, Screen(width=200, lang="zh"))
    assert set(re.findall(r"\d[\d.,]*", chinese)) == set(re.findall(r"\d[\d.,]*", english))
    assert chinese.splitlines()[0] == "位置 5：' mat' 从第 1 层（共 2 层）起一直是首选"
    assert chinese.splitlines()[3].endswith("最终排名 1,234；' the' 从第 1 层（共 2 层）起一直是首选")
    assert len({cell_len(line[: line.index("</s>")]) for line in table(chinese)}) == 1
    lens_text(lens, Screen(encoding="ascii", lang="zh")).encode("ascii")


def test_direct_attribution_in_chinese_has_the_same_numbers() -> None:
    english, chinese = direct_text(direct_of(), Screen()), direct_text(direct_of(), Screen(lang="zh"))
    assert sorted(re.findall(r"\d[\d.e-]*", chinese)) == sorted(re.findall(r"\d[\d.e-]*", english))
    assert "归一化与输出头 +0.125；2e-07 未入账" in chinese
    assert chinese.splitlines()[-1] == "未拆分：第 2 层：它读取的内容并非只经加法通过"
