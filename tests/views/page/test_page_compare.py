"""The part Compare: what it holds against `study`'s own comparison, and against what was written on paper."""

from __future__ import annotations

import json
import math
import re
import statistics
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tokentape
from tokentape import Line
from tokentape.data.control import Decision
from tokentape.data.tape import Tape
from tokentape.errors import UsageError
from tokentape.recorder.tick import Said
from tokentape.study.compare import compare
from tokentape.study.side_by_side import CoefficientPair
from tokentape.study.verdict import Verdict
from tokentape.views.page.compare import compare_part, compared_document, refused_part, told_message
from tokentape.views.page.compare_time import MOST_PLACES, coefficients_part
from tokentape.words.catalogue import LANGS, Message, said
from views.page.pages import words_of

MS = 1_000_000
FACTS = {"model": "paper", "weights": "full:1", "dtype": "float32", "tokenizer": "x", "engine": "scripted"}
ALPHABET = "abcdefghijklmnopqrstuvwxyz"


def script(
    text: Sequence[str] = ALPHABET[:20], ms: float = 2.0, candidates: Any = None, wobble: float = 0.0
) -> list[Line]:
    """A step a letter, whose id is its code; the i-th attends 5 + i positions."""
    lines = []
    for i, letter in enumerate(text):
        one = Said(0, ord(letter[0]), letter.encode(), -0.5, 1.0, 1, candidates=(candidates or {}).get(i, ()))
        lines.append(Line(round((5 if i == 0 else ms * (1 + wobble * (-1) ** i)) * MS), [one], context=5 + i))
    return lines


def taped(lines: list[Line], path: Path | None = None, prompt: Any = "The cat", **facts: Any) -> Tape:
    return tokentape.record(tokentape.ScriptedSource(lines, facts={**FACTS, **facts}), prompt, path=path)


def part_of(a: Tape, b: Tape, **asked: Any) -> Any:
    part = compare_part(compare(a, b, **asked), (a, b))
    json.dumps(part, allow_nan=False)
    assert all(words_of(part))
    return part


def english(part: Any) -> str:
    return said(Message.of(part))


# text


def test_parting_with_what_both_gave() -> None:
    letters = list(ALPHABET[:20])
    other = [*letters[:5], "X", *letters[6:]]
    a = taped(script(letters, candidates={5: ((ord("f"), -0.5), (ord("q"), -2.0))}))
    b = taped(script(other, candidates={5: ((ord("X"), -0.5), (ord("f"), -1.5))}))
    part = part_of(a, b)
    (aligned,) = part["aligned"]
    assert aligned["stretches"] == [0, 5, 0, 5, 0, 5, 6, 5, 6, 2, 6, 20, 6, 20, 0]
    parting = aligned["parting"]
    rows = {name: (parting["share"][0][i], parting["share"][1][i]) for i, name in enumerate(parting["name"])}
    near = lambda nats: pytest.approx(math.exp(nats), abs=1e-5)  # noqa: E731
    assert rows["f"] == (near(-0.5), near(-1.5)) and rows["X"][1] == near(-0.5)
    assert rows["X"][0] is None, "not among the candidates of A: a gap, not zero"
    assert [parting["name"][i] for i in parting["said"]] == ["f", "X"]
    assert parting["below"] == pytest.approx([math.exp(-2.0), math.exp(-1.5)], rel=0.01)
    assert english(aligned["outcome"]) == "Sequence 0: they say the same 5 tokens and part at position 7."


def test_one_ends_and_the_other_goes_on() -> None:
    part = part_of(taped(script(ALPHABET[:18])), taped(script(ALPHABET[:20])))
    (aligned,) = part["aligned"]
    assert english(aligned["outcome"]).startswith("Sequence 0: A ends after 18 tokens (")
    assert aligned["parting"]["said"][0] is None and aligned["parting"]["position"] == [None, 20]
    assert aligned["stretches"] == [0, 18, 0, 18, 0, 18, 18, 18, 20, 2]


def test_other_tokenizers_are_aligned_by_bytes() -> None:
    a, b = taped(script(["ab", "c", "d"])), taped(script(["a", "bc", "e"]), tokenizer="y")
    (aligned,) = part_of(a, b, across=["tokenizer"])["aligned"]
    assert aligned["by"] == "bytes" and aligned["stretches"] == [0, 2, 0, 2, 1, 2, 3, 2, 3, 2]


def test_those_that_part_come_first_and_the_rest_is_counted() -> None:
    def tape(last: str) -> Tape:
        texts = [["a", letter, last if i == 13 else "z"] for i, letter in enumerate(ALPHABET[:14])]
        lines = [
            Line(MS, [Said(row, ord(text[k]), text[k].encode(), -1.0) for row, text in enumerate(texts)], context=3 + k)
            for k in range(3)
        ]
        return taped(lines, prompt=[f"prompt {letter}" for letter in ALPHABET[:14]])

    part = part_of(tape("y"), tape("x"))
    assert part["aligned"][0]["a"] == 13 and part["aligned"][0]["parting"] is not None
    assert len(part["aligned"]) == 12 and part["more"]["args"] == {"n": 2}


def test_hostile_tokens_are_drawn_as_text() -> None:
    bad = ["</script>", "\u202e", "\0", "x" * 5000]
    part = part_of(taped(script(bad)), taped(script([*bad[:3], "y"])))
    texts = part["aligned"][0]["sides"][0]["text"]
    assert texts[0] == "</script>" and "\u202e" not in texts[1] and "\0" not in texts[2] and len(texts[3]) < 1000
    assert len(part["aligned"][0]["parting"]["name"][0]) < 100


def test_what_a_guard_withheld_is_not_in_the_document(monkeypatch: pytest.MonkeyPatch) -> None:
    from tokentape.data.trace import Trace

    a, b = taped(script(["sec", "ret", "ok"])), taped(script(["sec", "ret", "no"]))
    monkeypatch.setattr(Trace, "guarded", property(lambda self: True))
    monkeypatch.setattr(Trace, "decisions", property(lambda self: (Decision(0, 0, "redact", 0, 6, "a word", "[-]"),)))
    text = json.dumps(compared_document(a, b)["compare"])
    assert "ret" not in re.findall(r'"(\w+)"', text) and "[-]" in text


# times


def test_series_and_ratios_are_those_of_the_comparison() -> None:
    a, b = taped(script(ms=2.0)), taped(script(ms=3.0, wobble=0.1))
    found = compare(a, b)
    part = part_of(a, b)
    assert found.steps is not None
    (batch,) = part["series"]["batches"]
    assert (batch["batch"], batch["x"]) == (1, [place[1] for place in found.steps.places])
    assert batch["a_ns"] == list(found.steps.a_ns) and batch["b_ns"] == list(found.steps.b_ns)
    assert batch["ratio"] == pytest.approx([y / x for x, y in zip(batch["a_ns"], batch["b_ns"], strict=True)], rel=1e-4)
    ttft, whole, *stretches = part["ratios"]
    assert (ttft["a_ns"], ttft["b_ns"], ttft["ratio"]) == (5 * MS, 5 * MS, 1)
    assert found.verdict is not None and found.verdict.low is not None and found.verdict.change is not None
    assert not whole["low"] <= found.steps.whole.ratio <= whole["high"], "the median of the places is of other values"
    assert whole["low"] <= whole["ratio"] <= whole["high"]
    assert whole["ratio"] == pytest.approx(1 + found.verdict.change, rel=1e-5)
    assert whole["low"] == pytest.approx(1 + found.verdict.low, rel=1e-4)
    assert sum(row["n_a"] for row in stretches) == len(found.steps.places)
    assert all(row["low"] is None for row in stretches), "three steps have no interval"
    for row in stretches:
        first, last = row["label"]["args"]["first"], row["label"]["args"]["last"]
        inside = [r for x, r in zip(batch["x"], batch["ratio"], strict=True) if first <= x <= last]
        assert row["ratio"] == pytest.approx(math.exp(statistics.median(map(math.log, inside))), rel=1e-4)


def test_a_stretch_with_enough_steps_has_an_interval_that_holds_its_ratio() -> None:
    n = 240
    a, b = taped(script("a" * n, wobble=0.02)), taped(script("a" * n, ms=2.2, wobble=-0.01))
    for row in part_of(a, b)["ratios"][2:]:
        assert row["low"] <= row["ratio"] <= row["high"] and row["n_a"] in (39, 40)


def test_long_series_are_gathered_into_medians() -> None:
    n = 2 * MOST_PLACES + 11
    part = part_of(taped(script("a" * n)), taped(script("a" * n, ms=4.0)))
    (batch,) = part["series"]["batches"]
    assert len(batch["x"]) == MOST_PLACES and all(low < high for low, high in pairwise(batch["x"]))
    assert set(batch["ratio"]) == {2} and set(batch["a_ns"]) == {2 * MS}


def test_difference_of_coefficients_by_hand() -> None:
    pair = CoefficientPair("decode", "key-value", "position of a sequence", "", (10.0, 7.0, 14.0), (20.0, 15.0, 32.0))
    alone = CoefficientPair("prefill", "tokens beyond 256", "token", "", None, (1.0, 0.0, 2.0))
    both, one = coefficients_part([pair, alone])
    assert both["difference"] == pytest.approx([10, 10 - math.hypot(5, 4), 10 + math.hypot(12, 3)], rel=1e-4)
    assert both["apart"] is True and one["difference"] is None and one["apart"] is None and one["a"] is None
    assert english(one["term"]) == "tokens beyond 256" and english(both["per"]) == "position of a sequence"


# verdicts


def test_sentence_says_what_the_verdict_says() -> None:
    part = part_of(taped(script(ms=2.0, wobble=0.001)), taped(script(ms=3.0, wobble=0.002)))
    verdict = part["verdict"]
    assert verdict["word"] == "SLOWER" and verdict["change"] == pytest.approx(0.5, abs=0.02)
    assert re.fullmatch(
        r"B takes 50.\d% longer a step than A \(\+\d+.\d to \+\d+.\d% at 99% confidence, 8 values a side\).",
        english(part["caption"]),
    )
    assert part["caveat"]["key"] in ("page_compare.apart", "page_compare.apart_order")
    faster = part_of(taped(script(ms=3.0)), taped(script(ms=2.0)))
    assert "33.3% less a step" in english(faster["caption"])
    same = part_of(taped(script()), taped(script()))
    assert same["verdict"]["word"] == "SAME" and "B takes as long a step as A" in english(same["caption"])


def test_one_recording_has_no_verdict(tmp_path: Path) -> None:
    tape = taped(script(), tmp_path / "a.tape")
    part = part_of(tape, tape)
    assert part["verdict"] is None and part["caption"]["key"] == "page_compare.one_recording"
    assert "missing" in part["laws"]


def test_too_little_is_unclear_and_says_so() -> None:
    part = part_of(taped(script("abc")), taped(script("abd")))
    assert part["verdict"]["word"] == "UNCLEAR" and part["verdict"]["low"] is None
    assert (
        english(part["verdict"]["reason"])
        == "There are 2 steps at equal context and 1 run a side; it takes more of either."
    )
    assert part["caption"]["key"] == "page_compare.not_measured"


@pytest.mark.parametrize(
    ("text", "key"),
    [("A is partial: what it lacks is not compared", "note_state"), ("2 of the 5 sequences of B have no counterpart", "note_left"),
     ("dtype was named as the question, and is the same on both: float32", "note_alike"),
     ("3 of the 5 pairs that the first look needs", "reason_look"), ("one measurement a side has no spread", "reason_one"),
     ("4 steps at equal context and 2 runs a side; it takes 3 runs a side", "reason_few"),
     ("the 10 pairs are used up", "reason_used"),
     ("the budget was spent after 6 of at most 10 pairs; at this noise, at most 12 min would do", "reason_budget"),
     ("the budget was spent after 2 of the 5 pairs that it takes", "reason_budget_plain"),
     ("interrupted after 7 of at most 10 pairs", "reason_interrupted"), ("something new", "as_told")],
)  # fmt: skip
def test_what_study_says_in_english_is_said_in_both_languages(text: str, key: str) -> None:
    found = told_message(text)
    assert found.key == f"page_compare.{key}" and all(said(found, lang) for lang in LANGS)


def test_notes_and_reasons_of_real_comparisons_are_all_known() -> None:
    a, b = taped(script("abc"), prompt=["x y", "z"]), taped(script("abc"), prompt=["x y"])
    found = compare(a, b, across=["any", "dtype"])
    assert len(found.notes) == 2 and "as_told" not in {told_message(note).key.partition(".")[2] for note in found.notes}
    assert isinstance(found.verdict, Verdict) and found.verdict.reason is not None
    assert told_message(found.verdict.reason).key == "page_compare.reason_few"


# documents


def test_tapes_that_may_not_be_compared_say_what_differs(tmp_path: Path) -> None:
    a = taped(script(), tmp_path / "a.tape").path
    b = taped(script(), tmp_path / "b.tape", dtype="bfloat16", weights="full:2", model="other").path
    part = compared_document(a, b)["compare"]
    assert part["verdict"] is None and part["series"] is None and part["aligned"] == []
    assert {d["name"]: d["because"] for d in part["differences"]} == {"dtype": None, "model": None, "weights": None}
    assert part["refused"]["run"].endswith("--across dtype,model") and "a.tape" in part["refused"]["run"]
    assert [side["name"] for side in part["sides"]] == ["a.tape", "b.tape"]
    assert all(words_of(part))
    asked = compared_document(a, b, across=["model", "dtype"])["compare"]
    assert asked["refused"] is None and {d["name"]: d["because"] for d in asked["differences"]}["weights"] in (
        "model",
        "dtype",
    )
    with pytest.raises(UsageError):
        compared_document(a, b, across=["toaster"])


def test_a_blank_question_is_none_and_the_other_parts_are_of_a(tmp_path: Path) -> None:
    paths = [taped(script(ms=ms), tmp_path / f"{ms}.tape").path for ms in (2.0, 3.0)]
    found = compared_document(*paths, across=[""], lang="zh")
    assert found["tape"]["name"] == "2.0.tape" and found["title"] == "2.0.tape / 3.0.tape" and found["lang"] == "zh"
    assert found["compare"]["verdict"]["word"] == "SLOWER"
    json.dumps(found, allow_nan=False)


def test_refused_tapes_in_memory_have_a_command_all_the_same() -> None:
    from tokentape.errors import NotComparable

    a, b = taped(script()), taped(script(), dtype="bfloat16")
    with pytest.raises(NotComparable) as refused:
        compare(a, b)
    part = refused_part((a, b), [], refused.value)
    assert part["refused"]["run"] == "tokentape view A B --across dtype" and part["sides"][0]["name"] is None


times = st.lists(st.integers(1, 10**10), min_size=1, max_size=40)


@settings(max_examples=40, deadline=None)
@given(times, times, st.text("ab猫\0<", min_size=40, max_size=40), st.text("ab猫\0<", min_size=40, max_size=40))
def test_any_two_tapes_become_json(a: list[int], b: list[int], said_a: str, said_b: str) -> None:
    tapes = [
        taped([Line(ns, [Said(0, ord(text[i]), text[i].encode(), -1.0)], context=4 + i) for i, ns in enumerate(side)])
        for side, text in ((a, said_a), (b, said_b))
    ]
    part = part_of(*tapes)
    stretches = part["aligned"][0]["stretches"]
    if stretches:
        assert (stretches[-4], stretches[-2]) == (len(a), len(b))
