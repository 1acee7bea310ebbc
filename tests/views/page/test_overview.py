"""The overview's sentences where there is little to tell: text that was given, a token or two, tokens without names."""

from __future__ import annotations

import math
from typing import Any

import pytest

import tokentape
from study.paper import MS, Take, paper
from study.paper import said as said_of
from tokentape import Line, ScriptedSource
from tokentape.data.tape import Tape
from tokentape.study.metrics import summary
from tokentape.views.page.again import record_command
from tokentape.views.page.document import page_document
from tokentape.views.page.file import _said as read
from tokentape.views.page.overview import overview_part
from tokentape.views.page.parts import missing
from tokentape.views.page.rounding import out_of
from tokentape.views.page.tokens import gaps_ns
from tokentape.words.catalogue import Message
from views.page.pages import said, spoken


def line(ms: float, *logprobs: float | None) -> Line:
    return Line(round(ms * MS), [said_of(logprob=one, rank=1) for one in logprobs])


def overview(tape: Tape) -> Any:
    return page_document(tape)["tape"]["overview"]


def sentence(tape: Tape) -> str:
    return read(overview(tape)["verdict"], "en")


def finding_texts(tape: Tape) -> list[str]:
    return [read(one["text"], "en") for one in overview(tape)["findings"]]


GIVEN = Take([line(30, *[-2.0] * 40), line(20, *[-0.1] * 8)], "given")


def test_of_given_text_no_token_was_waited_for() -> None:
    tape = paper(GIVEN)
    found = overview(tape)
    ttft, gap, speed, surprise, _ = found["figures"]
    assert [one["value"] for one in (ttft, gap)] == [None, None], "48 tokens came in two reads: no gap was ever waited"
    assert {ttft["badge"], gap["badge"]} == {"unavailable"}
    assert read(speed["label"], "en") == "Reading speed" and speed["value"] == pytest.approx(48 / 0.05, rel=1e-4)
    assert surprise["badge"] == "measured"
    assert sentence(tape).startswith("scripted read 1 given text, 48 tokens; ")
    (trace,) = page_document(tape)["tape"]["traces"]
    assert trace["tokens"]["gap_ns"] == [None] * 48 == gaps_ns(tape.traces[0])
    assert "latency" not in [one["name"] for one in trace["measures"]]
    generated = paper(Take(GIVEN.script, "length"))
    assert gaps_ns(generated.traces[0])[:2] == [30 * MS, 0]


def test_a_few_tokens_are_counted_and_not_told_in_percent() -> None:
    assert sentence(spoken([b"a"], logprob=-2.0)).endswith("it gave more than half of the probability to 0 of 1 token.")
    assert sentence(spoken([b"a", b"b"], logprob=-0.1)).endswith("to 2 of 2 tokens.")


@pytest.mark.parametrize(
    ("part", "total", "text"), [(0, 9, "0%"), (1, 900, "<1%"), (899, 900, ">99%"), (9, 9, "100%"), (1, 3, "33%")]
)
def test_none_and_all_are_said_of_none_and_all_alone(part: int, total: int, text: str) -> None:
    assert out_of(part, total) == text


def test_almost_all_tokens_are_not_all() -> None:
    tape = paper(Take([line(2, -0.1) for _ in range(300)] + [line(2, -3.0)]))
    assert "it was sure (p > 0.5) of >99% of the tokens" in sentence(tape)


def test_what_was_expected_or_took_no_time_is_not_worth_a_look() -> None:
    together = paper(Take([line(5, -0.1, -0.2)]))
    assert finding_texts(together) == [], "both came at once, and neither surprised"
    odd = paper(Take([line(5, -0.1), line(5, -1.5)]))
    assert [text.split(",")[0] for text in finding_texts(odd)] == [
        "The longest wait",
        "Most surprising to the model: 'a'",
    ]


def test_a_token_without_a_name_is_told_by_its_place() -> None:
    source = ScriptedSource([Line(2 * MS, [said(b"a")]), Line(9 * MS, [said(b"b", -2.5)])])
    tape = tokentape.record(source, "The cat", text=False)
    assert finding_texts(tape) == [
        "The longest wait, 9.00 ms, was for the token at #1.",
        "Most surprising to the model: the token at #1, 2.50 nats, rank 1.",
    ]


def test_a_token_of_a_sequence_that_the_page_leaves_out_is_told_by_its_sequence() -> None:
    rows = [Line(2 * MS, [said_of(logprob=-0.1, row=0), said_of(logprob=-3.0, row=1)]) for _ in range(3)]
    found = overview_of(paper(Take(rows, prompts=("x", "x"))), 0)
    assert "a token of sequence 1" in [read(one["text"], "en") for one in found["findings"]][-1]
    both = overview(paper(Take(rows, prompts=("x", "x"))))
    assert read(both["findings"][-1]["text"], "en") == "Most surprising to the model: 'a' in sequence 1, 3.00 nats."


def overview_of(tape: Tape, *numbers: int) -> Any:
    document = page_document(tape, traces=numbers)["tape"]
    return overview_part(tape, summary(tape), {one["number"]: one for one in document["traces"]})


def test_the_lengths_of_several_prompts_are_told() -> None:
    rows = [Line(2 * MS, [said_of(row=row) for row in range(2)]) for _ in range(2)]

    def note(*prompts: str) -> str:
        tape = tokentape.record(ScriptedSource(rows), list(prompts))
        for trace, text in zip(tape.traces, prompts, strict=True):
            assert trace.n_prompt == len(text.split())
        return read(overview(tape)["figures"][0]["note"], "en")

    assert note("one two", "one two three four") == "2 prompts of 2 to 4 tokens"
    assert note("one two", "two one") == "2 sequences, prompt of 2 tokens"


def test_what_other_commands_made_is_not_said_to_be_recorded() -> None:
    facts = {"engine": "transformers", "model": "demo", "command": "tokentape"}
    tape = tokentape.record(ScriptedSource([Line(MS, [said(b"a")])], facts=facts), "The cat")
    assert record_command(tape) is not None and overview(tape)["command"] is not None
    tape.runs[0].options["score"] = {"documents": []}  # type: ignore[index]
    assert record_command(tape) is None
    del tape.runs[0].options["score"]  # type: ignore[attr-defined]
    tape.notes = {**tape.notes, "job": "translate"}
    assert overview(tape)["command"] is None


def test_perplexity_of_given_text_is_that_of_its_tokens() -> None:
    _, _, _, surprise, _ = overview(paper(GIVEN))["figures"]
    assert surprise["note"]["args"]["value"] == f"{math.exp((40 * 2.0 + 8 * 0.1) / 48):.2f}"


@pytest.mark.parametrize(
    "hostile",
    [
        {"model": "--trust-remote-code"},  # before a prompt that is the name of a model
        {"model": "x\x1b[201~\x03"},
        {"revision": "\x03\nrm -rf ~\n"},
        {"dtype": "\u202e"},
    ],
)
def test_a_command_to_copy_does_nothing_but_what_it_says(hostile: dict[str, str]) -> None:
    facts = {"engine": "transformers", "model": "demo", "command": "tokentape", **hostile}
    tape = tokentape.record(ScriptedSource([Line(MS, [said(b"a")])], facts=facts), "evil/model")
    assert record_command(tape, exact=True) is None
    assert missing(Message("page_core.withheld"), f"tokentape sweep '{hostile}' \x03")["run"] is None
