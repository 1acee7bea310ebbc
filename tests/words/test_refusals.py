"""Errors in Chinese: every sentence of the code has its form, and what the code filled in stands in it."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from tokentape.cli.failure import _as_own
from tokentape.cli.replay import command as replay
from tokentape.cli.show import command as show
from tokentape.words import refusals
from tokentape.words.refusals import LETTERS, letters, refusal, templates

ROOT = Path(__file__).resolve().parents[2]


def test_every_error_of_the_code_has_its_chinese_form():
    command = [sys.executable, str(ROOT / "tools" / "error_phrases.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_a_form_has_no_place_that_its_english_lacks():
    place = re.compile(r"\{\d+\}")
    for english, chinese in templates().items():
        assert set(place.findall(chinese)) <= set(place.findall(english)), english
        # a place may be left out where it is a plural, and where a language has no need of it; never one that is quoted
        assert len(chinese.strip()) > 0, english


def test_what_the_code_filled_in_is_found_again():
    for english, chinese in templates().items():
        if letters(english) < LETTERS:
            continue
        assert refusal(re.sub(r"\{(\d+)\}", r"‹\1›", english), "zh") == re.sub(r"\{(\d+)\}", r"‹\1›", chinese), english


@pytest.fixture
def two(monkeypatch):
    table = {
        "no {0} in {1}": "{1} 中没有 {0}",
        "no step {0}": "没有第 {0} 步",
        "no step {0}: {1}": "没有第 {0} 步：{1}",
        "{0}: {1}": "!",
        "{0} is {1}": "{0} 为 {1}",
        "a word": "单词",
        "a whole number": "整数",
        "it has none": "一个也没有",
        "{0} is empty": "{0} 为空",
        "the file": "该文件",
        "{0} is not finite": "{0} 含有非有限的数",
        "; it says: {0}": "；它说：{0}",
        "the weights take {0} GB{1}": "权重占 {0} GB{1}",
        "did you mean {0}?": "是不是想写 {0}？",
    }
    found = (refusals._compiled, refusals._whole, refusals._in_parts)
    monkeypatch.setattr(refusals, "templates", lambda: table)
    for kept in found:
        kept.cache_clear()
    yield
    for kept in found:
        kept.cache_clear()


@pytest.mark.parametrize(
    "english, chinese",
    [
        ("no step 3", "没有第 3 步"),
        ("no step 3 in x.tape", "没有第 3 in x.tape 步"),  # of two that fit, the one with more words of its own
        ("no a\nb in x", "x 中没有 a\nb"),
        ("seed is 1.5", "seed 为 1.5"),
        ("seed is wrong", "seed is wrong"),  # a short template takes no English word
        ("seed is a word or a whole number", "seed 为单词 或 整数"),
        ("seed is a=b", "seed 为 a=b"),
        ("--seed 1, or 2", "--seed 1 或 2"),
        ("seed of x is 3", "seed of x is 3"),
        ("seed is 'wrong'", "seed 为 'wrong'"),
        ("", ""),
        ("'a few words' is empty", "'a few words' 为空"),
        ("the file is empty", "该文件为空"),
        ("did you mean --top or --last?", "是不是想写 --top 或 --last？"),
        ("did you mean top-k, or last?", "是不是想写 top-k 或 last？"),
    ],
)
def test_what_fills_a_place_is_a_name_or_has_a_form_of_its_own(two, english, chinese):
    assert refusal(english, "zh") == chinese
    assert refusal(english, "en") == english


@pytest.mark.parametrize(
    "english",
    [
        "every second line is empty",
        "the folder is empty",
        "no reason why in x.tape",
        "no step that was recorded",
        "of all that it has none",
    ],
)
def test_a_sentence_without_a_form_stays_english_as_a_whole(two, english):
    assert refusal(english, "zh") == english


@pytest.mark.parametrize(
    "english, chinese",
    [
        ("no step 3; it has none", "没有第 3 步；一个也没有"),
        ("no step 3; it has none; x is empty", "没有第 3 步；一个也没有；x 为空"),
        ("ValueError: it has none", "ValueError：一个也没有"),
        ("the weights take 3 GB; it says: no room for all of it", "权重占 3 GB；它说：no room for all of it"),
        ("it has none (6)", "一个也没有（6）"),
        ("no step 3: this came from another program", "没有第 3 步：this came from another program"),
        ("it has none (as nobody knew)", "it has none (as nobody knew)"),
        ("x is empty in no step 3: as the other one said", "x is empty in no step 3: as the other one said"),
        ("no step 3; nobody knows why", "no step 3; nobody knows why"),
        ("as some other program says: it has none", "as some other program says: it has none"),
    ],
)
def test_a_text_of_several_parts_is_told_part_by_part(two, english, chinese):
    assert refusal(english, "zh") == chinese


def test_a_long_or_a_hostile_text_takes_no_time(two):
    for text in ("a: b; c (d), e or f. " * 90, "no step " * 200, "no step 3; " * 100, "x" * 100_000):
        assert refusal(text, "zh")


def test_what_click_says_of_a_command_line_has_its_form():
    for arguments in (
        ["--no-such"],
        ["--rows", "-1", "a"],
        ["--rows", "x", "a"],
        ["--step", "1.5", "a"],
        [],
        ["a", "b"],
        ["--rows"],
    ):
        name, command = ("replay", replay) if arguments == ["a", "b"] else ("show", show)  # of one file, and of several
        with pytest.raises(click.ClickException) as caught:
            command.make_context(name, arguments)
        for part in (failed := _as_own(caught.value, [name, *arguments])).what, failed.why:
            told = refusal(part, "zh")
            assert told != part and re.search("[\u4e00-\u9fff]", told), part


@pytest.mark.parametrize(
    "text, typed",
    [
        ("tokentape verify {}", True),
        ("pip install --upgrade tokentape", True),
        ("--max-new-tokens 100 --method leave_one_out", True),
        ("make web", True),
        ("tt.record(source, prompt)", True),
        ("--dtype auto keeps the one that the checkpoint was saved in", False),
        ("pip install --upgrade transformers (this is {}); or a model of a known architecture", False),
        ("make the property optional, or allow another type beside it", False),
        ("--on without --plot", False),
        ("--context FILE, or leave --span out", False),
        ("leave one out", False),
    ],
)
def test_a_fix_is_a_command_only_as_a_whole(monkeypatch, text, typed):
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    assert importlib.import_module("error_phrases").is_command(text) is typed


def test_a_text_is_followed_to_where_it_is_written(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    module = importlib.import_module("package_texts")
    folder = tmp_path / "made" / "room"
    folder.mkdir(parents=True)
    (folder / "words.py").write_text('TABLE = {"a": ("no room", "make room"), "b": ("no time", "wait")}\n')
    (folder / "here.py").write_text(
        "from made.room.words import TABLE\n"
        "def ask(name, n):\n"
        "    why, fix = TABLE.get(name, ('', f'ask {n} again'))\n"
        "    text = '; '.join(filter(None, (why, f'it said: {n}')))\n"
        "    refuse('x', text)\n"
        "    refuse('y', 'at ' + fix, more='a few words')\n"
        "def refuse(key, why, more=''):\n"
        "    raise Sink(f'{key}: {why}', why=told(more))\n"
        "def told(more: str) -> str:\n"
        "    return f'it was told that {more}' if more else 'nothing'\n"
    )
    package = module.Package(tmp_path / "made")
    (call,) = [(call, scope) for call, scope in package.calls() if getattr(call.func, "id", "") == "Sink"]
    first = package.texts(call[0].args[0], call[1])
    assert {text.replace(module.PLACE, "?") for text in first} == {
        *("?: no room", "?: no time", "?: it said: ?"),
        *("?: at make room", "?: at wait", "?: at ask ? again"),
    }
    second = package.texts(call[0].keywords[0].value, call[1])
    assert {text.replace(module.PLACE, "?") for text in second} == {"it was told that ?", "nothing", "a few words"}
