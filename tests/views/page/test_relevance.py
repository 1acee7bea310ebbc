"""Explanations as the page has them, held against the arrays that they are made of."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokentape.data.explanation import Explanation, ReplayCheck, Source
from tokentape.data.trace import Piece
from tokentape.explain.methods import METHODS
from tokentape.views.page.relevance import explained, method_note, relevance_part
from tokentape.words.catalogue import LANGS, Message, phrases, said
from views.page.pages import IN_PROCESS, replayable

PASSED = ReplayCheck(2e-6, 1e-6, 4, 1e-3, True)
PIECES = {3: Piece(3, "floor", b" floor", False)}


def tape(*explanations: Explanation, path: str | None = "a b.tape") -> Any:
    where = None if path is None else Path("/x") / path
    return SimpleNamespace(explanations=explanations, pieces=PIECES, path=where, setting=IN_PROCESS)


def trace(number: int = 0, n_prompt: int = 3, **more: Any) -> Any:
    return replayable(number, n_prompt, **more)


def explanation(relevance: Any, targets: Any, spans: Any = None, **more: Any) -> Explanation:
    """Of sources of one token each unless spans are given; NaN where a target does not see one."""
    cells = np.array(relevance, float)
    spans = spans or [(i, i + 1) for i in range(cells.shape[1])]
    known = {
        "trace": 0,
        "method": "leave_one_out",
        "options": {},
        "kind": "logit",
        "together": False,
        "targets": np.array(targets),
        "target_ids": np.arange(len(targets)),
        "foil_ids": None,
        "sources": tuple(Source(a, b, "<b>", "token" if b == a + 1 else "word") for a, b in spans),
        "relevance": np.ma.MaskedArray(cells, np.isnan(cells)),
        "value": np.arange(len(cells)) + 0.123456,
        "ledger": {},
        "check": PASSED,
        "passes": {"forward": 7},
        "cpu_ns": 1_500_000,
        "made": {},
    }
    return Explanation(**{**known, **more})


NAN = np.nan
SMALL = explanation([[1.0, -0.25, 2.0, NAN], [0.5, 0.0, -3.0, 4.0]], [3, 4])


def dense(rows: dict[str, Any], n: int) -> list[list[float | None]]:
    """The rows as a matrix again, read as the page reads them."""
    found, at = [], 0
    for count in rows["counts"]:
        columns = range(count) if rows["columns"] is None else rows["columns"][at : at + count]
        row: list[float | None] = [None] * n
        for column, value in zip(columns, rows["values"][at : at + count], strict=True):
            row[column] = None if value is None else value / rows["per"]
        found.append(row)
        at += count
    assert at == len(rows["values"])
    return found


def text(message: dict[str, Any]) -> str:
    given = message.get("args", {})
    args = {k: Message(v["key"], v.get("args", {})) if isinstance(v, dict) else v for k, v in given.items()}
    return said(Message(message["key"], args))


def test_rows_are_those_of_the_explanation() -> None:
    found = explained(SMALL, trace(), tape())
    assert dense(found["rows"], 4) == [[1, -0.25, 2, None], [0.5, 0, -3, 4]]
    assert found["limits"] == [2, 4] and found["values"] == [0.1235, 1.123]
    assert found["targets"] == [3, 4] and found["starts"] == [0, 1, 2, 3] and found["stops"] == [1, 2, 3, 4]
    assert found["wholes"] is None and found["ledger"] == [] and found["kept"] is None
    json.dumps(found, allow_nan=False)


cell = st.floats(-1e6, 1e6, allow_nan=False)


@given(st.lists(st.lists(cell, min_size=5, max_size=5), min_size=1, max_size=4), st.integers(1, 30))
def test_what_is_kept_is_the_largest_and_near(values: list[list[float]], cells: int) -> None:
    n = len(values)
    found = explanation([[*row, NAN] for row in values], range(5, 5 + n), [(i, i + 1) for i in range(5)] + [(9, 10)])
    part = explained(found, trace(), tape(), cells=cells)
    k = max(1, cells // n) if cells < 5 * n else 5
    for row, given_row, limit in zip(values, dense(part["rows"], 6), part["limits"], strict=True):
        largest = max(map(abs, row))
        assert limit == pytest.approx(largest, rel=1e-3)
        kept = {i: value for i, value in enumerate(given_row) if value is not None}
        # nothing that was left out is larger than anything kept
        left = [abs(value) for i, value in enumerate(row) if i not in kept]
        assert 5 not in kept and len(kept) <= k
        assert len(kept) == k or not any(left)
        assert all(abs(row[i]) >= max(left, default=0) for i in kept)
        assert all(value == pytest.approx(row[i], abs=largest / 19_999) for i, value in kept.items())
    assert (part["kept"] is None) == (cells >= 5 * n)


def test_the_part_that_is_kept_is_told() -> None:
    part = explained(explanation([[3.0, -6.0, 1.0], [0.0, 0.0, 0.0]], [3, 4]), trace(), tape(), cells=4)
    assert part["rows"]["counts"] == [2, 0] and part["rows"]["columns"] == [0, 1]
    assert text(part["kept"]).startswith("Of each row the 2 largest values are here, 90.0%")


def test_the_caption_is_made_of_its_numbers() -> None:
    args = explained(SMALL, trace(n_prompt=2), tape())["caption"]["args"]
    # of sizes 1, 0.25, 2 and 0.5, 0, 3, 4: in the first two places 1.25 of 3.25 and 0.5 of 7.5
    assert args == {"n": 2, "prompt": "23%", "back": 1, "best": "57%"}
    idle = explained(explanation([[0.0, 0.0]], [2]), trace(), tape())["caption"]
    assert idle == {"key": "page_attention.idle", "args": {"n": 1}}


def test_words_together_and_a_foil() -> None:
    found = explanation(
        [[1.0, 2.0]], [3, 4], [(0, 2), (2, 3)], together=True, kind="foil", foil_ids=np.array([3, 3]), value=[2.5]
    )
    part = explained(found, trace(), tape())
    assert part["foils"] == ["' floor'", "' floor'"] and part["unit"] == "logit" and part["together"]
    assert part["starts"] == [0, 2] and part["stops"] == [2, 3] and part["rows"]["counts"] == [2]
    assert text(part["title"]) == "leave_one_out: logit against ' floor' of 2 tokens as one answer, by word"
    assert part["caption"]["args"]["back"] == 2  # from the last target to the end of the source
    assert "<b>" not in json.dumps(part)  # the page writes sources with its own symbols


def test_shares_are_of_what_tokens_add_up_to() -> None:
    ledger = {"tokens": np.array([2.75, 1e-9]), "biases": np.array([1.0, 5.0]), "residual": np.array([0.0, 1e-12])}
    part = explained(explanation([[1.0, -0.25, 2.0], [1.0, -1.0, 0.0]], [3, 4], ledger=ledger), trace(), tape())
    assert part["wholes"] == [2.75, None]  # all but cancelled: no shares
    assert [(one["name"]["key"].split(".")[-1], one["values"]) for one in part["ledger"]] == [
        ("biases", [1, 5]),
        ("residual", [0, 1e-12]),
    ]


@pytest.mark.parametrize(
    ("check", "passed", "says"),
    [
        (PASSED, True, "at most, 1.0e-06 in the median (n = 4)"),
        (
            ReplayCheck(2.0, 1.0, 3, 1e-3, False, "other weights"),
            False,
            "DISAGREES with the tape: other weights (2.0e+00",
        ),
        (ReplayCheck(None, None, 0, 1e-3, False, "no log-probabilities"), None, "not compared with the tape: no log"),
    ],
)
def test_the_check_is_on_its_face(check: ReplayCheck, passed: bool | None, says: str) -> None:
    part = explained(explanation([[1.0]], [1], check=check), trace(), tape())["check"]
    assert part["passed"] is passed and says in text(part["text"])


def test_only_the_explanations_of_a_trace() -> None:
    other = explanation([[1.0]], [1], trace=1, cpu_ns=None)
    part = relevance_part(trace(1), tape(SMALL, other, SMALL))
    assert [one["targets"] for one in part["explanations"]] == [[1]]
    assert text(part["explanations"][0]["cost"]).endswith("– of processor time.")
    assert len(relevance_part(trace(), tape(SMALL, other, SMALL))["explanations"]) == 2


def test_what_is_missing_says_what_to_run() -> None:
    assert relevance_part(trace(), tape())["run"] == "tokentape explain 'a b.tape' --all"
    assert relevance_part(trace(2), tape(path=None))["run"] == "tokentape explain FILE --all --trace 2"
    served = SimpleNamespace(**{**vars(tape()), "setting": SimpleNamespace(facts={"engine": "vllm"})})
    assert relevance_part(trace(), served)["run"].endswith(" --all --model MODEL")


@pytest.mark.parametrize(
    ("lacking", "why"),
    [
        ({"prompt_ids": None}, "does not have all ids"),
        ({"tokens": {"id": np.ma.masked_all(2, int), "logprob": np.ma.array([-1.0, -1.0])}}, "does not have all ids"),
        ({"n_prompt": 0, "prompt_ids": np.arange(0)}, "it has no prompt"),
        ({"steps": {"dropped": np.ma.array([0, 5])}}, "through a window"),
        ({"run": SimpleNamespace(options={"score": {"documents": [{"n_windows": 8}]}})}, "through a window"),
    ],
)
def test_no_command_is_named_that_would_be_refused(lacking: dict[str, Any], why: str) -> None:
    found = relevance_part(trace(**lacking), tape())
    assert found["run"] is None and why in text(found["missing"])


def test_a_replay_that_nothing_can_check_is_asked_for_as_such() -> None:
    timed = {"id": np.ma.arange(2), "logprob": np.ma.masked_all(2)}
    found = relevance_part(trace(tokens=timed), tape())
    assert found["run"] == "tokentape explain 'a b.tape' --all --unchecked"
    assert "cannot be checked" in text(found["missing"])
    one = {"score": {"documents": [{"n_windows": 1}]}}
    assert "run" in relevance_part(trace(run=SimpleNamespace(options=one)), tape()), "one window sees all"


@pytest.mark.parametrize("method", METHODS)
def test_every_method_says_what_it_cannot_prove(method: str) -> None:
    assert method_note(method).key == f"page_attention.note.{method}"


def test_a_method_of_ones_own_has_a_note_too() -> None:
    assert method_note("nearest_first") == Message("page_attention.note")


@pytest.mark.parametrize("lang", LANGS)
def test_every_sentence_is_in_the_catalogue(lang: str) -> None:
    def keys(value: Any) -> set[str]:
        if isinstance(value, dict):
            inside = set().union(*map(keys, value.values())) if value else set()
            return inside | ({value["key"]} if "key" in value else set())
        return set().union(*map(keys, value)) if isinstance(value, list) and value else set()

    ledger = {name: np.array([1.0, 1.0]) for name in ("tokens", "biases", "positions", "leaks", "residual")}
    parts = [
        explained(SMALL, trace(), tape()),
        explained(explanation([[1.0], [1.0]], [3, 4], ledger=ledger), trace(), tape()),
    ]
    assert keys(parts) <= set(phrases(lang))
