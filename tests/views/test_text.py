"""The card and `show`, over tapes whose every number is known."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len

import tokentape
from study.paper import Take, paper, step
from tokentape import Line
from tokentape.cli.output import document
from tokentape.data.tape import Tape
from tokentape.recorder.tick import Said
from tokentape.views.card import card, shown_path
from tokentape.views.document import tape_document
from tokentape.views.listing import Check, TapeLine, doctor_report, tape_list, verify_report
from tokentape.views.screen import Screen
from tokentape.views.text import show

MS = 1_000_000
HOSTILE = "\x1b]0;owned\x07\u202e\x00[red]"


def said(data: bytes, logprob: float | None = -0.5, **more: Any) -> Said:
    return Said(0, None, data, logprob, 1.0, 1, **more)


def lines(n: int) -> list[Line]:
    return [Line(5 * MS, [said(b"The")])] + [Line((2 + i % 3) * MS, [said(b" w%d" % i)]) for i in range(n - 1)]


@pytest.fixture
def hostile() -> Tape:
    script = [
        Line(5 * MS, [said(b" \xe4\xbd", -1.5)]),
        Line(2 * MS, [said(b"\xa0\xe5\xa5\xbd", -0.1)]),
        Line(2 * MS, [said(HOSTILE.encode(), -7.25)]),
        Line(2 * MS, [said("😀\n".encode(), None)]),
    ]
    return tokentape.record(tokentape.ScriptedSource(script), "看\x1b[2J\nthe cat")


def test_card_names_every_figure(tmp_path: Path) -> None:
    tape = tokentape.record(tokentape.ScriptedSource(lines(140)), "The cat", path=tmp_path / "a b.tape")
    text = card(tape, Screen())
    assert "140 tokens" in text
    assert re.search(r"TTFT +5\.00 ms", text)
    assert re.search(r"token gap +p50 3\.00 ms, p95 4\.00 ms \(n = 139\)", text)
    assert re.search(r"surprise +mean 0\.500 nats \(0\.721 bits\) a token, perplexity 1\.65", text)
    assert re.search(r"KV cache +n/a", text), "unknown is said, not shown as 0"
    assert f"tokentape show '{tmp_path / 'a b.tape'}'" in text, "the next command can be copied"


def test_card_path_is_short_where_the_tape_lies_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tape = tokentape.record(tokentape.ScriptedSource(lines(2)), "x", path="a.tape")
    assert "tokentape show a.tape" in card(tape, Screen())


def test_the_name_of_a_file_acts_on_no_terminal(tmp_path: Path) -> None:
    assert shown_path(tmp_path / "a\x1b[31m\u202e.tape").endswith("a\\x1b[31m\\u202e.tape")
    plain = tmp_path / "猫 \u3000it's.tape"
    assert shown_path(plain) == str(plain)


def test_card_says_how_many_samples_are_missing() -> None:
    tape = tokentape.record(tokentape.ScriptedSource(lines(6)), "x")
    assert "p50 needs 6 more, p95 needs 125 more (n = 5)" in card(tape, Screen())


def test_card_names_no_slowest_token_where_all_came_at_once() -> None:
    screen = Screen()
    assert "slowest" not in card(paper(Take([step(5, 3)])), screen)
    assert "slowest" in card(paper(Take([step(5, 1), step(5, 1)])), screen)


def test_card_of_a_tape_without_tokens() -> None:
    tape = tokentape.record(tokentape.ScriptedSource([Line(MS)]), "x")
    text = card(tape, Screen())
    assert re.search(r"TTFT +n/a", text) and re.search(r"token gap +n/a", text)


def test_hostile_tokens_act_on_no_terminal(hostile: Tape) -> None:
    for screen in (Screen(), Screen(width=60), Screen(encoding="ascii")):
        text = show(hostile, screen)
        assert not [c for c in text if ord(c) < 32 and c != "\n"]
        assert not re.search(r"[\u202a-\u202e\u2066-\u2069\u200b-\u200f\x7f-\x9f]", text)
        text.encode(screen.encoding)


def test_character_over_two_tokens_is_drawn_once_in_the_table(hostile: Tape) -> None:
    table = show(hostile, Screen()).split("pos  token")[1].splitlines()
    assert table[1].split("'")[1] == " ⟨E4 BD⟩"
    assert table[2].split("'")[1] == "你好"


def test_columns_align_under_wide_characters(hostile: Tape) -> None:
    table = show(hostile, Screen()).split("\npos")[1].splitlines()
    ends = {cell_len(line[: line.rindex("1.000") + 5]) for line in table[1:] if "1.000" in line}
    assert len(ends) == 1


def test_quotes_tell_themselves_from_the_token() -> None:
    script = [Line(MS, [said(b"'s")]), Line(MS, [said(b'"')]), Line(MS, [said(b" x")])]
    text = show(tokentape.record(tokentape.ScriptedSource(script), "x"), Screen())
    assert '"\'s" ' in text and "'\"' " in text and "' x' " in text


def test_null_is_shown_as_such(hostile: Tape) -> None:
    last = show(hostile, Screen()).splitlines()[-1]
    assert "'😀\\n'" in last and "n/a" in last


def test_show_counts_what_it_leaves_out() -> None:
    tape = tokentape.record(tokentape.ScriptedSource(lines(50)), "x")
    assert "10 more tokens: --rows 0 shows all" in show(tape, Screen())
    assert "more tokens" not in show(tape, Screen(), rows=None)


def test_show_has_every_sequence_of_a_batch() -> None:
    script = [Line(MS, [Said(0, None, b"one"), Said(1, None, b"two")])]
    tape = tokentape.record(tokentape.ScriptedSource(script), ["a", "b"])
    text = show(tape, Screen())
    assert "sequence 0" in text and "sequence 1" in text
    assert "sequence 0" not in show(tape, Screen(), traces=[1])


def test_show_fits_narrow_screens() -> None:
    tape = tokentape.record(tokentape.ScriptedSource(lines(50)), "x " * 100)
    body = show(tape, Screen(width=50)).split("\n\nprompt")[1]
    assert max(cell_len(line) for line in body.splitlines()) <= 50


def test_without_text_nothing_of_it_is_shown() -> None:
    tape = tokentape.record(tokentape.ScriptedSource([Line(MS, [said(b"secret")])]), "hush", text=False)
    text = show(tape, Screen())
    assert "secret" not in text and "n/a, position" not in text and "hush" not in text and "(not recorded)" in text


def test_document_is_json_and_has_the_bytes(hostile: Tape) -> None:
    found = json.loads(json.dumps(document("show", **tape_document(hostile)), allow_nan=False))
    assert found["schema_version"] == 1
    (trace,) = found["traces"]
    assert bytes.fromhex("".join(trace["token_bytes_hex"])).decode() == trace["text"]
    assert trace["tokens"]["logprob"] == [-1.5, -0.1, -7.25, None]
    assert found["runs"][0]["steps"]["end_ns"] == [5 * MS, 7 * MS, 9 * MS, 11 * MS]
    assert found["runs"][0]["steps"]["device_ns"] == [None] * 4


def test_list_shows_damaged_tapes_as_such() -> None:
    text = tape_list(
        [
            TapeLine(Path("a.tape"), "complete", "demo", "你好\n\x1b[2J", 5, 1, 12.5, "2026-01-01 00:00"),
            TapeLine(Path("b.tape"), "unreadable", problem="b.tape is damaged: truncated"),
        ],
        Screen(),
    )
    assert "\x1b" not in text and "你好\\n" in text
    assert "unreadable" in text and "b.tape is damaged" in text


def test_reports_are_plain_and_complete() -> None:
    report = verify_report([(Path("a.tape"), []), (Path("b.tape"), ["run 0: gone", "run 1: gone"])], Screen())
    assert report.splitlines()[0].startswith("ok") and "2 problems" in report and "run 1: gone" in report
    doctor = doctor_report(
        [Check("g", "torch", "not installed", "missing", "pip install it"), Check("g", "x", "1")], Screen()
    )
    assert "missing" in doctor and doctor.endswith("torch: pip install it")


def test_card_says_what_samples_that_are_alike_are_worth() -> None:
    # 100 gaps of 2 ms and then 100 of 4 ms: neighbours tell the same
    script = [Line((2 + 2 * (i > 100)) * MS, [said(b"a")]) for i in range(201)]
    text = card(tokentape.record(tokentape.ScriptedSource(script), "x"), Screen())
    assert re.search(r"token gap +p50 needs [\d,]+ more, .* \(n = 200, worth \d independent ones\)", text)
    assert "independent" not in card(tokentape.record(tokentape.ScriptedSource(lines(140)), "x"), Screen())


def test_card_draws_gaps_and_surprise_from_first_to_last() -> None:
    gaps = [9, 1, 1, 1, 1, 1, 1, 1, 8]
    script = [Line(50 * MS, [said(b"a", -0.1)])] + [Line(gap * MS, [said(b"a", -gap / 2)]) for gap in gaps]
    text = card(tokentape.record(tokentape.ScriptedSource(script), "x"), Screen())
    assert re.search(r"  gaps +▂▂▂▂▂▂▂█ to 8\.00 ms; first 9\.00 ms\n", text), "prefill and first gap are apart"
    assert re.search(r"  surprises +▁█▂▂▂▂▂▂▂▇ to 4\.50 nats\n", text)


def test_card_has_no_course_of_few_values_or_unknown_ones() -> None:
    script = [Line(2 * MS, [said(b"a", None)]) for _ in range(9)]
    text = card(tokentape.record(tokentape.ScriptedSource(script), "x"), Screen())
    assert "  gaps" not in text and "surprises" not in text


def test_card_tells_the_first_gap_of_every_run_apart_and_stays_narrow() -> None:
    runs = [Take([step(40, 1), step(first, 1), *[step(2, 1)] * 40], after_ns=MS) for first in (7, 30)]
    text = card(paper(*runs), Screen(width=80))
    assert "▁" not in text and re.search(r"gaps +█+ to 2\.00 ms; first 7\.00 ms to 30\.0 ms, 2 runs", text)
    assert max(cell_len(line) for line in text.splitlines() if " gaps " in line) <= 80
