"""``show --step`` and the ribbon, over tapes whose every number is known."""

from __future__ import annotations

import json
import math
import re

import pytest
from rich.cells import cell_len

import tokentape
from tokentape import Line
from tokentape.cli.output import document
from tokentape.errors import UsageError
from tokentape.recorder.tick import Said
from tokentape.views.diagram import run_diagram, step_diagram
from tokentape.views.ribbon_text import ribbon, shares_of
from tokentape.views.screen import Screen
from tokentape.views.shape import token_rows
from tokentape.views.step_shape import rest_of_mass, step_row
from tokentape.views.step_text import step_document, step_text

MS = 1_000_000
ANSI = re.compile(r"\x1b\[[0-9;]*m")
HOSTILE = '"]; click x "javascript:alert(1)" <script> `#quot;` \x1b[2J\u202e'


def said(data: bytes, logprob: float | None, **more) -> Said:
    return Said(0, None, data, logprob, 1.25, 2, **more)


@pytest.fixture
def tape():
    script = [
        Line(5 * MS, [said(b"The", -0.5)]),
        Line(2 * MS, [said(b" cat", -2.0)]),
        Line(8 * MS, [said(HOSTILE.encode(), -0.1)]),
        Line(2 * MS, [said(b"\n", None)]),
    ]
    return tokentape.record(tokentape.ScriptedSource(script), "say\u202e it")


def test_a_step_tells_its_own_numbers(tape):
    found = step_row(tape, 2, tape.traces)
    assert (found.step_ns, found.kind, found.n_steps) == (8 * MS, "decode", 4)
    assert (found.median_ns, found.n_decode) == (2 * MS, 3)
    text = step_text(found, Screen())
    assert re.search(r"took +8\.00 ms, 4\.00 times the median decode step \(n = 3\)", text)
    assert "probability 90.5%, surprise 0.100 nats, rank 2, entropy 1.250 nats" in text
    assert "\x1b" not in text
    assert "\u202e" not in text


def test_a_step_in_chinese_has_the_same_numbers(tape):
    found = step_row(tape, 2, tape.traces)
    numbers = re.compile(r"\d+\.\d+")
    chinese = step_text(found, Screen(lang="zh"))
    assert sorted(numbers.findall(chinese)) == sorted(numbers.findall(step_text(found, Screen())))
    assert "解码" in chinese


def test_the_prefill_is_not_held_against_decode_steps(tape):
    assert "times the median" not in step_text(step_row(tape, 0, tape.traces), Screen())


def test_what_is_not_there_is_null_and_not_zero(tape):
    found = step_row(tape, 3, tape.traces)
    plain = step_document(found)
    json.dumps(document("show", **plain), allow_nan=False)
    assert plain["step"]["rules_ns"] is None
    assert plain["tokens"][0]["logprob"] is None
    assert rest_of_mass(found.tokens[0].row) is None


@pytest.mark.parametrize("index", [-1, 4])
def test_a_step_that_is_not_there_is_refused(tape, index):
    with pytest.raises(UsageError, match="steps 0 to 3") as refused:
        step_row(tape, index, tape.traces)
    assert refused.value.fix


def test_the_rest_of_the_mass_is_what_the_candidates_leave(tmp_path):
    tape = tokentape.record(tokentape.local("demo"), "The cat", max_new_tokens=3, seed=1)
    for row in token_rows(tape.traces[0], tape):
        assert rest_of_mass(row) == pytest.approx(1 - sum(math.exp(one.logprob) for one in row.candidates))


def test_a_ribbon_says_the_text_once_and_colours_by_the_measure(tape):
    trace = tape.traces[0]
    rows = token_rows(trace, tape)
    lines = ribbon(trace, rows, Screen(color=True, fine_color=True), "surprise")
    plain = ANSI.sub("", "".join(line[2:] for line in lines[:-1]))
    assert plain.startswith("The cat")
    assert "\x1b[2J" not in "".join(lines)
    assert "\u202e" not in "".join(lines)
    # " cat" is the most surprising and so on the lightest ground, the hostile one the least
    assert "\x1b[30;48;2;255;234;70m cat\x1b[0m" in lines[0]
    assert "0.10 nats" in ANSI.sub("", lines[-1])
    assert all(cell_len(ANSI.sub("", line)) <= 120 for line in lines)


def test_without_colour_there_is_no_ribbon(tape):
    trace = tape.traces[0]
    assert ribbon(trace, token_rows(trace, tape), Screen(), "surprise") is None


def test_a_measure_that_was_not_recorded_is_said(tape):
    trace = tape.traces[0]
    (line,) = ribbon(trace, token_rows(trace, tape), Screen(color=True), "constraint")
    assert "not recorded" in line


def test_shares_end_where_nearly_all_lie_below():
    shares, low, high = shares_of([*range(100), 10_000, None])
    assert (low, high) == (0, 98)
    assert shares[-1] is None
    assert shares[-2] == 1.0
    assert shares_of([None]) is None
    assert shares_of([3.0, 3.0])[0] == [0.0, 0.0]


def test_a_diagram_holds_hostile_text_as_text(tape):
    trace = tape.traces[0]
    for figure in (run_diagram(tape, trace, Screen()), step_diagram(tape, trace, 2, Screen())):
        lines = figure.split("\n")
        assert lines[0] == "flowchart LR"
        for line in lines[1:]:
            name = r"[a-z]+\d*"
            box = rf'  {name}(\[|\(\[|\[\()"[^"<>`;\x00-\x1f]*((<br/>|#\d+;)[^"<>`;\x00-\x1f]*)*"(\]|\]\)|\)\])'
            link = rf'  {name} (-->|<-->|-- "[^"]*" -->) {name}'
            assert re.fullmatch(box, line) or re.fullmatch(link, line), line
        assert "\u202e" not in figure


def test_every_arrow_of_a_diagram_leads_from_a_box_to_a_box(tape):
    for index in range(4):
        figure = step_diagram(tape, tape.traces[0], index, Screen())
        boxes = set(re.findall(r"^  ([a-z]+\d*)[\[(]", figure, re.M))
        ends = re.findall(r"^  ([a-z]+\d*) .*?([a-z]+\d*)$", figure, re.M)
        assert ends
        assert {end for pair in ends for end in pair} == boxes
