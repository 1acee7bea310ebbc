"""The page's document: its numbers are the tape's, it is the same each time, and what no tape has is said."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

import tokentape
from study.paper import FIVE, Take, paper, step
from tokentape import Line, ScriptedSource
from tokentape.data.tape import Tape
from tokentape.errors import StudyError
from tokentape.study.metrics import summary
from tokentape.study.series import SERIES
from tokentape.views.page import document
from tokentape.views.page.document import page_document
from tokentape.views.page.envelope import page_words
from tokentape.views.page.file import _said as read
from tokentape.views.page.measures import measure, received
from tokentape.views.page.overview import _removal as removal
from tokentape.views.page.parts import figure, guarded_part, named_ids
from tokentape.views.page.rounding import near, rounded, short, whole
from tokentape.words.catalogue import LANGS, Message, phrase
from views.page.pages import MS, messages, said, spoken


@pytest.fixture(scope="module")
def tape() -> Tape:
    script = [
        Line(5 * MS, [said(b"The", -0.25, candidates=((0, -0.25), (1, -2.0)))]),
        *(Line((2 + i % 3) * MS, [said(b" w%d" % (i % 7), -0.1 * (i % 40))]) for i in range(199)),
    ]
    return tokentape.record(ScriptedSource(script), "The cat")


def test_the_same_tape_gives_the_same_bytes(tape: Tape) -> None:
    first, second = (json.dumps(page_document(tape), allow_nan=False) for _ in range(2))
    assert first == second


@pytest.mark.parametrize("takes", [FIVE, [Take([])], [Take([step(3, 0)], "error")]], ids=["five", "none", "no token"])
def test_any_tape_gives_a_document_that_can_be_said_in_both_languages(takes: Any) -> None:
    found = page_document(paper(*takes))
    json.dumps(found, allow_nan=False)
    words = page_words()
    for message in messages(found):
        if not message.key.startswith("page_"):
            continue
        for lang in LANGS:
            assert message.key in words[lang]
            assert "{" not in phrase(message.key, lang, **message.args).replace("{n}", ""), message


def test_columns_are_those_of_the_tape(tape: Tape) -> None:
    found = page_document(tape)["tape"]
    trace, run = found["traces"][0], found["runs"][0]
    recorded = tape.traces[0]
    n = len(recorded.tokens["step"])
    assert trace["n_prompt"] == len(recorded.prompt_ids) if recorded.prompt_ids is not None else 1
    places = trace["n_prompt"] + n
    assert {name: len(column) for name, column in trace["symbols"].items()} == dict.fromkeys(trace["symbols"], places)
    assert {name: len(column) for name, column in trace["tokens"].items()} == dict.fromkeys(trace["tokens"], n)
    assert all(len(one["values"]) == places for one in trace["measures"])
    assert trace["tokens"]["time_ns"] == SERIES["time"].of(recorded)
    assert trace["tokens"]["gap_ns"][1:] == SERIES["gap"].of(recorded)[1:]
    assert trace["tokens"]["gap_ns"][0] == 5 * MS, "of the first token the time to first token"
    assert trace["tokens"]["logprob"] == pytest.approx(recorded.tokens["logprob"].tolist(), rel=1e-4)
    assert set(trace["tokens"]["removed"]) == {None} and not [m for m in trace["measures"] if m["name"] == "constraint"]
    assert trace["tokens"]["candidate_ids"][:2] == [[0, 1], []]
    assert run["step_ns"] == SERIES["step_time"].of(recorded) and run["pause_ns"] == SERIES["pause"].of(recorded)
    assert [a + b for a, b in zip(run["start_ns"], run["step_ns"], strict=True)] == trace["tokens"]["time_ns"]
    assert found["pieces"].keys() == {str(token_id) for token_id in named_ids(trace) if token_id in tape.pieces}


def test_figures_are_those_of_the_summary(tape: Tape) -> None:
    figures = summary(tape)
    ttft, gap, speed, surprise, _ = page_document(tape)["tape"]["overview"]["figures"]
    assert ttft["value"] == figures.ttft_ns[0] and ttft["text"] == "5.00 ms"
    assert gap["value"] == figures.gaps[0].value == 3 * MS and gap["text"] == "p50 3.00 ms, p95 4.00 ms"
    assert gap["note"]["args"]["n"] == 199
    assert speed["value"] == pytest.approx(figures.decode_tokens_per_s, rel=1e-4)
    assert surprise["value"] == pytest.approx(figures.mean_surprise_nats, rel=1e-4)
    assert surprise["note"]["args"]["value"] == f"{figures.perplexity:.2f}"


def test_the_verdict_is_made_of_the_numbers(tape: Tape) -> None:
    said_so = read(page_document(tape)["tape"]["overview"]["verdict"], "en")
    sure = np.mean(np.exp(np.asarray(tape.traces[0].tokens["logprob"])) > 0.5)
    assert said_so == (
        "scripted wrote 200 tokens at 334 tokens/s; its slowest step took 1.3 times the median, "
        f"and it was sure (p > 0.5) of {sure:.0%} of the tokens."
    )


def test_findings_lead_to_the_place_they_name(tape: Tape) -> None:
    found = page_document(tape)["tape"]
    symbols = found["traces"][0]["symbols"]["text"]
    tokens = found["traces"][0]["tokens"]
    slow, odd = found["overview"]["findings"]
    n = found["traces"][0]["n_prompt"]
    assert tokens["gap_ns"][slow["link"]["place"] - n] == max(tokens["gap_ns"][1:])
    assert tokens["surprise"][odd["link"]["place"] - n] == max(tokens["surprise"])
    for finding in (slow, odd):
        assert symbols[finding["link"]["place"]] in read(finding["text"], "zh")


def test_the_strongest_removal_is_found() -> None:
    symbols = {"text": ["The", " cat", " sat", "!"], "open": [0, 0, 0, 0]}
    traces = {4: {"n_prompt": 1, "symbols": symbols, "tokens": {"removed": [None, 0.5, 0.0]}}}
    rule = removal(traces)
    assert rule is not None and rule["link"] == {"part": "tokens", "trace": 4, "place": 2}
    assert read(rule["text"], "en") == "At ' sat' the rules took most away: 39% of the probability (0.50 nats)."
    assert removal({4: {**traces[4], "tokens": {"removed": [None, 0.0, None]}}}) is None


def test_a_number_that_is_not_known_is_null_and_never_zero() -> None:
    tape = spoken([b"a"], logprob=None)
    overview = page_document(tape)["tape"]["overview"]
    ttft, *others, memory = overview["figures"]
    assert ttft["badge"] == memory["badge"] == "measured" and memory["label"]["key"].endswith("memory_process")
    assert [one["value"] for one in others] == [None] * 3 and {one["badge"] for one in others} == {"unavailable"}
    assert read(overview["verdict"], "en") == "scripted wrote 1 token."


def test_only_the_sequences_that_were_asked_for_the_first_of_them_first() -> None:
    found = page_document(paper(*FIVE), traces=[3, 1])["tape"]
    assert [trace["number"] for trace in found["traces"]] == [3, 1] and found["n_traces"] == 5
    assert [run["number"] for run in found["runs"]] == [1, 3]
    linked = [finding["link"].get("trace") for finding in found["overview"]["findings"]]
    assert set(linked) <= {None, 3, 1}


def test_a_builder_that_the_tape_does_not_serve_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> Any:
        raise StudyError("too few steps", why="a law needs 8", fix="tokentape sweep")

    def fail(*_: Any) -> Any:
        raise ZeroDivisionError

    tape = spoken([b"a"])
    monkeypatch.setattr(document, "layers_part", refuse)
    layers = page_document(tape)["tape"]["traces"][0]["layers"]
    assert read(layers["missing"], "en") == "too few steps: a law needs 8. tokentape sweep"
    monkeypatch.setattr(document, "layers_part", fail)
    with pytest.raises(ZeroDivisionError):
        page_document(tape)


def test_guarded_part_lets_other_errors_pass() -> None:
    with pytest.raises(KeyError):
        guarded_part(lambda: {}["x"])


def test_a_figure_without_text_is_unavailable() -> None:
    assert figure(Message("a"), None)["badge"] == "unavailable"
    assert figure(Message("a"), "3", 3, badge="modelled")["badge"] == "modelled"


def test_numbers_are_short() -> None:
    column = np.ma.MaskedArray([1.234567, 2.0, np.nan, -1e-9, 123456789.0], [0, 1, 0, 0, 0])
    assert short(column) == [1.2346, None, None, -1e-09, 123460000]
    assert short([None, float("inf"), 0.1 + 0.2]) == [None, None, 0.3] and short(np.arange(2)) == [0, 1]
    assert near([0.123456, None, 1.0]) == [0.1235, None, 1]
    assert whole(np.ma.MaskedArray([3, 4], [0, 1])) == [3, None]
    assert json.dumps(rounded(2.0)) == "2"


def test_scales_do_not_bow_to_one_outlier() -> None:
    values = [float(i) for i in range(1, 100)] + [1e9]
    found = measure("latency", "ns", values, "log", values)
    assert (found["low"], found["high"]) == (3, 98)
    flat = measure("latency", "ns", [3.0, 3.0], "log", [3.0, 3.0])
    assert flat["low"] < flat["high"]
    assert measure("surprise", "nats", [None, 0.0], "linear", [0.0])["high"] > 0


def test_attention_received_is_the_mean_over_who_could_look() -> None:
    part = {
        "rows": [1, 2, 3],
        "overall": {"counts": [1, 2, 2], "columns": [0, 0, 1, 0, 2], "values": [10, 6, 4, 5, 1], "per": 10},
    }
    assert received(part, 4) == [0.7, 0.2, 0.1, None]
    assert received({"missing": {}}, 4) is None
