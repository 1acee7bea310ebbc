"""The part Distribution: against the trace's own columns and candidates, counted one by one."""

from __future__ import annotations

import json
import math
import statistics
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tokentape
from study.paper import Take, paper
from tokentape import Line, ScriptedSource
from tokentape.data.control import Effect
from tokentape.data.tape import Tape
from tokentape.recorder.tick import Said
from tokentape.views.page.distribution import _ranges, _share, distribution_part

MS = 1_000_000


def taped(tokens: list[Said], **more: Any) -> Tape:
    source = ScriptedSource([Line(MS, [one]) for one in tokens], **more)
    return tokentape.record(source, "The cat", candidates=64)


def part_of(tokens: list[Said], **more: Any) -> Any:
    tape = taped(tokens, **more)
    part = distribution_part(tape.traces[0], tape)
    assert json.loads(json.dumps(part, allow_nan=False)) == part
    return part


def believed(weights: list[float]) -> tuple[tuple[int, float], ...]:
    """Candidates whose probabilities are these, best first."""
    return tuple((i, math.log(weight)) for i, weight in enumerate(sorted(weights, reverse=True)))


def token(logprob: float | None = -0.5, entropy: float | None = 1.0, rank: int | None = 1, **more: Any) -> Said:
    return Said(0, 7, b" a", logprob, entropy, rank, **more)


def test_bands_hold_what_the_candidates_hold_and_the_rest_is_told_apart():
    weights = [0.4, 0.2, 0.1, 0.05, 0.05, 0.04, 0.03, 0.02, 0.01, 0.01]
    mass = part_of([token(candidates=believed(weights)), token(candidates=believed([0.9, 0.05]))])["mass"]
    edges = [(one["label"]["args"].get("first"), one["label"]["args"].get("last")) for one in mass["bands"][:-1]]
    assert edges == [(1, 1), (2, 3), (4, 8), (9, 10)]
    first = [band["values"][0] for band in mass["bands"]]
    assert first == pytest.approx([0.4, 0.3, 0.19, 0.02, 0.09], abs=1e-4)
    # the second token kept two candidates alone: what is beyond them is not known, not nothing
    assert [band["values"][1] for band in mass["bands"]] == pytest.approx([0.9, 0.05, 0, 0, 0.05], abs=1e-4)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.floats(1e-6, 1.0), min_size=1, max_size=20), min_size=1, max_size=6))
def test_bands_add_up_to_one_at_each_token(rows):
    tokens = []
    for row in rows:
        total = sum(row) * 1.0000001
        tokens.append(token(candidates=believed([value / total for value in row])))
    mass = part_of(tokens)["mass"]
    for i in range(len(rows)):
        values = [band["values"][i] for band in mass["bands"]]
        assert all(0 <= value <= 1 for value in values)
        assert sum(values) == pytest.approx(1, abs=1e-3)


@given(st.integers(1, 300))
def test_the_ranges_of_ranks_follow_one_another_and_hold_every_candidate(k):
    found = _ranges(k)
    assert [rank for first, last in found for rank in range(first, last + 1)] == list(range(1, k + 1))


def test_a_token_without_candidates_is_a_gap():
    mass = part_of([token(candidates=believed([0.5])), token()])["mass"]
    assert [band["values"][1] for band in mass["bands"]] == [None] * len(mass["bands"])


def test_without_any_candidates_it_is_said_how_to_keep_some():
    assert part_of([token()], facts={"model": "a model"})["mass"]["run"] == (
        "tokentape record 'a model' PROMPT --candidates 16"
    )
    tape = paper(Take([Line(MS, [token()])], "given"))
    assert distribution_part(tape.traces[0], tape)["mass"]["run"].startswith("tokentape score ")
    wordless = tokentape.record(ScriptedSource([Line(MS, [token(candidates=believed([0.9]))])]), "The cat", text=False)
    mass = distribution_part(wordless.traces[0], wordless)["mass"]
    assert (mass["missing"]["key"], mass["run"]) == ("page_distribution.no_text", None)


def test_the_caption_is_made_of_the_columns():
    surprises = [0.5, 0.25, 3.0, 1.25]
    entropies = [1.0, 2.0, 0.5, 1.5]
    args = part_of([token(-s, h) for s, h in zip(surprises, entropies, strict=True)])["caption"]["args"]
    assert args["n"] == 4
    assert args["surprise"] == f"{statistics.fmean(surprises):.2f}"
    assert args["entropy"] == f"{statistics.fmean(entropies):.2f}"
    assert args["perplexity"] == f"{math.exp(statistics.fmean(surprises)):.3g}"
    assert (args["index"], args["most"]) == (2, "3.00")
    assert args["place"] == "4", "its number in the table of tokens: two of the prompt stand before"


def test_tokens_of_which_nothing_is_known_are_not_counted():
    args = part_of([token(-1.0, 2.0), token(None, None, None), token(-2.0, None)])["caption"]["args"]
    assert (args["n"], args["surprise"]) == (2, "1.50")


def test_little_is_not_told_as_nothing():
    args = part_of([token(-0.0004, 0.001)])["caption"]["args"]
    assert (args["surprise"], args["entropy"]) == ("<0.01", "<0.01")
    assert part_of([token(0.0, 0.0)])["caption"]["args"]["surprise"] == "0.00"


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (1.0, "100%"),
        (0.99995, ">99.99%"),
        (0.9996, "99.96%"),
        (0.99949, "99.9%"),
        (0.5, "50%"),
        (1e-5, "<0.01%"),
        (0, "0%"),
    ],
)
def test_nearly_all_is_not_told_as_all(share, text):
    assert _share(share) == text


def test_ranks_are_counted():
    args = part_of([token(rank=rank) for rank in (1, 1, 5, 2, 1)])["rank_caption"]["args"]
    assert args == {"best": 3, "n": 5, "share": "60%", "worst": 5}
    assert part_of([token(rank=None)])["rank_caption"]["key"] == "page_distribution.no_ranks"


def test_what_rules_took_away_is_a_share_of_the_probability():
    shares = [0.0, 0.25, 0.999]
    tokens = [
        token(removed=-math.log1p(-share), allowed=allowed, effects=(Effect(0),))
        for share, allowed in zip(shares, (9, 3, 1), strict=True)
    ]
    rules = part_of([*tokens, token()])["rules"]
    assert rules["removed"][:3] == pytest.approx(shares, abs=1e-6)
    assert rules["removed"][3] is None, "where no rule was measured nothing is known"
    args = rules["caption"]["args"]
    assert (args["n"], args["index"], args["single"], args["median"]) == (3, 2, 1, "25%")
    assert part_of([token()])["rules"] is None
    nothing = part_of([token(removed=0.0, allowed=9, effects=(Effect(0),))] * 3)["rules"]
    assert nothing["caption"] == {"key": "page_distribution.rules_none", "args": {"n": 3}}


def test_where_nothing_is_known_the_reason_is_told():
    assert part_of([token(None, None, None)])["missing"]["key"] == "page_distribution.no_logprobs"
    facts = {"engine": "transformers", "model": "a model"}
    found = part_of([token(None, None, None)], facts=facts)
    assert found["missing"]["key"] == "page_distribution.timing_only"
    assert found["run"] == "tokentape record 'a model' PROMPT"


def test_impossible_tokens_leave_no_infinity_in_the_page():
    part = part_of([token(-math.inf, 1.0), token(-1.0, 1.0)])
    assert part["mean_surprise"] is None


def test_entropy_or_surprise_alone_is_enough():
    assert part_of([token(None, 2.0)])["caption"]["key"] == "page_distribution.caption_entropy"
    assert part_of([token(-1.0, None)])["caption"]["key"] == "page_distribution.caption_surprise"


def test_the_model_that_ships_adds_up(tmp_path):
    source = tokentape.local("demo")
    tape = tokentape.record(source, "Once upon a time", max_new_tokens=8, candidates=9)
    trace = tape.traces[0]
    mass = distribution_part(trace, tape)["mass"]
    kept = np.exp(trace.candidates.logprob.astype(float))
    for i in range(len(kept)):
        assert mass["bands"][0]["values"][i] == pytest.approx(kept[i, 0], abs=1e-4)
        assert mass["bands"][-1]["values"][i] == pytest.approx(1 - kept[i].sum(), abs=2e-4)
