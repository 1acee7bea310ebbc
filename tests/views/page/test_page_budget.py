"""A page within its bytes: what is missed least goes first, what is shown first goes last, and all that went is said."""

from __future__ import annotations

import copy
import json
from itertools import product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tokentape
from study.paper import Take, paper
from tokentape import Line, ScriptedSource
from tokentape.data.tape import Tape
from tokentape.recorder.tick import Said
from tokentape.views.page import file
from tokentape.views.page.budget import page_within, within
from tokentape.views.page.document import page_document
from tokentape.views.page.json_text import page_json
from tokentape.views.page.parts import named_ids
from views.page.pages import MS, said

ORDER = (
    "heads",
    "layers",
    "candidates",
    "attention_layers",
    "older",
    "explained",
    "traces",
    "distribution",
    "all_candidates",
)


def tape_of(n_traces: int, n_tokens: int = 6) -> Tape:
    candidates = tuple((i, -1.0 - i) for i in range(5))
    lines = [Line(2 * MS, [said(b" w%d" % i, candidates=candidates)]) for i in range(n_tokens)]
    return paper(*[Take(lines) for _ in range(n_traces)])


def rich(n_traces: int) -> dict[str, Any]:
    """A document whose every part that can be left out is there."""
    document = copy.deepcopy(page_document(tape_of(n_traces)))
    for trace in document["tape"]["traces"]:
        trace["attention"] = {
            "heads": [[0.5] * 40],
            "head_rows": [1, 2],
            "layers": [[0.25] * 30, None],
            "overall": [1] * 20,
        }
        trace["layers"] = {"caption": {"key": "x"}, "grid": [0.125] * 80}
        trace["relevance"] = {
            "explanations": [{"rows": [0.5] * 25, "target_ids": [2]}, {"rows": [0.75] * 25, "target_ids": [3]}]
        }
    return document


def size(document: Any) -> int:
    return len(page_json(document).encode())


def lacks(trace: dict[str, Any]) -> dict[str, bool]:
    """What a trace has lost, read off the trace itself."""
    n_candidates = max(len(row) for row in trace["tokens"]["candidate_ids"])
    explained = "missing" in trace["attention"] and "missing" in trace["relevance"]
    return {
        "heads": explained or trace["attention"]["heads"] == [],
        "layers": "missing" in trace["layers"],
        "candidates": n_candidates <= 3,
        "attention_layers": explained or not any(trace["attention"]["layers"]),
        "older": explained or len(trace["relevance"]["explanations"]) == 1,
        "explained": explained,
        "distribution": "missing" in trace["distribution"],
        "all_candidates": n_candidates == 0,
    }


@pytest.mark.parametrize("n_traces", [1, 3])
def test_every_budget_is_kept_by_the_least_loss(n_traces: int) -> None:
    whole = rich(n_traces)
    before = copy.deepcopy(whole)
    for most in range(size(whole) + 100, 0, -211):
        found = within(whole, most)
        assert whole == before, "what was given stays as it was"
        traces = found["tape"]["traces"]
        assert traces[0]["symbols"] == whole["tape"]["traces"][0]["symbols"]
        assert traces[0]["tokens"]["logprob"] == whole["tape"]["traces"][0]["tokens"]["logprob"]
        lost = [lacks(trace) for trace in traces]
        _check_order(lost, n_traces)
        said_so = [one["what"]["key"].rpartition(".")[2] for one in found["dropped"]]
        assert said_so == [name for name in ORDER if name in said_so], "in the order in which they went"
        assert ("traces" in said_so) == (len(traces) < n_traces)
        nothing_left = len(traces) == 1 and all(lost[0].values())
        saved = sum(one["bytes"] for one in found["dropped"])
        assert size(whole) - saved <= most or nothing_left
        if size(whole) <= most:
            assert found == whole and not said_so


def _check_order(lost: list[dict[str, bool]], n_traces: int) -> None:
    """Brute force over the rule: no trace has lost something while another still has something that goes before it."""
    kinds = [kind for kind in ORDER if kind != "traces"]
    for (i, mine), (j, other) in product(enumerate(lost), repeat=2):
        for place, kind in enumerate(kinds):
            if mine[kind]:
                assert all(
                    other[earlier] for earlier in kinds[:place] if earlier not in ("distribution", "all_candidates")
                )
                assert other[kind] or j <= i, "the one that is shown first loses last"
    if lost[0]["distribution"]:
        assert len(lost) == 1


def test_what_was_dropped_says_how_to_have_it_back() -> None:
    whole = rich(3)
    found = within(whole, size(whole) // 2)
    heads = found["dropped"][0]
    assert heads["what"] == {"key": "page_core.dropped.heads", "args": {"n": 3}} and heads["flag"] == "--max-bytes 1MB"
    assert within(whole, 1_000_000) == whole, "that flag brings all of it back"
    gone = within(whole, 10)["dropped"][-3]
    assert gone["what"]["args"] == {"n": 2, "first": 1} and gone["flag"] == "--trace 1"


def test_nothing_points_into_what_is_gone() -> None:
    whole = rich(3)
    whole["tape"]["overview"]["findings"][0]["link"] = {"part": "time", "trace": 2, "place": 1}
    tape = within(whole, 10)["tape"]
    assert tape["overview"]["findings"][0]["link"] == {"part": "time"}
    assert [run["number"] for run in tape["runs"]] == [0]
    assert set(tape["pieces"]) <= {str(number) for trace in tape["traces"] for number in named_ids(trace)}


def test_sequences_that_cannot_fit_are_not_even_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    tape = tape_of(40, 30)
    limit = 40_000
    found = page_within(tape, limit)
    assert found["tape"]["n_traces"] == 40 and 1 <= len(found["tape"]["traces"]) < 40
    (gone,) = [one for one in found["dropped"] if one["what"]["key"] == "page_core.dropped.traces"]
    assert gone["what"]["args"] == {"n": 40 - len(found["tape"]["traces"]), "first": len(found["tape"]["traces"])}
    assert page_within(tape, None) == page_document(tape)
    assert page_within(tape, 10**8) == page_document(tape)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 200_000), st.integers(0, 5_000))
def test_it_is_the_same_each_time(most: int, around: int) -> None:
    whole = rich(2)
    first, second = (json.dumps(within(whole, most, around=around)) for _ in range(2))
    assert first == second


def test_a_file_is_within_its_bytes_whatever_of_it_is_no_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """The text that is read without script takes up to four bytes for a letter of the data."""
    monkeypatch.setattr(file, "bundle", lambda: ("", ""))
    candidates = tuple((i, -0.5 - i / 7) for i in range(20))
    lines = [Line(1, [Said(0, 5, "<你&>".encode() * 4, -0.5, 1.0, 1, candidates=candidates)])] * 400
    tape = tokentape.record(ScriptedSource(lines), "<")
    sizes = {}
    whole = len(file.page_html(page_document(tape)).encode())
    for most in range(whole, whole // 3, -whole // 40):
        found = page_within(tape, most, around=file.shell_bytes)
        sizes[most] = len(file.page_html(found).encode())
        if "page_core.dropped.all_candidates" not in [one["what"]["key"] for one in found["dropped"]]:
            assert sizes[most] <= most
    assert len(set(sizes.values())) > 2, "several rungs of the ladder were tried"
