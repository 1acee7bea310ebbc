"""`tokentape record` with rules: what is said, what the tape and its card say of it, and the mistakes that a user makes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tokentape as tt

Tape = Callable[..., Any]
PROMPT = "The cat sat on the"
SCHEMA = {
    "type": "object",
    "properties": {"animal": {"enum": ["cat", "dog"]}, "legs": {"type": "integer", "minimum": 0, "maximum": 9}},
    "required": ["animal", "legs"],
    "additionalProperties": False,
}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("cat.json").write_text(json.dumps(SCHEMA))
    Path("positive.txt").write_text("Review: The soup was great.\nReview: The bed was lovely.\n")
    Path("negative.txt").write_text("Review: The soup was awful.\nReview: The bed was horrible.\n\n")
    return tmp_path


def test_json_by_a_schema_is_checked_and_its_forced_tokens_cost_no_step(tape: Tape) -> None:
    done = tape("record", "demo", PROMPT, "--json-schema", "cat.json", "--compact", "-n", "60", "-o", "a.tape")
    assert done.code == 0, done.err
    assert json.loads(done.out)["animal"] in ("cat", "dog")
    assert "complete" in done.err and re.search(r"rules +removed [\d.]+ nats of probability", done.err)
    with tt.open("a.tape") as found:
        trace = found.traces[0]
        assert trace.outcomes[0].valid and trace.run.rules[0].name == "grammar"
        assert trace.run.rules[0].description["source"] == json.dumps(SCHEMA)
        assert trace.tokens["forced"].sum() > 5 and trace.steps.n_rows < len(trace.token_ids) / 2
        assert found.verify() == []
    shown = tape("show", "a.tape")
    assert "instead of" in shown.out and "removed" in shown.out and "grammar: divergence" in shown.out
    document = json.loads(tape("show", "a.tape", "--json").out)
    assert document["control"]["outcomes"] == {"complete": 1} and document["traces"][0]["outcomes"][0]["valid"] is True
    series = tape("show", "a.tape", "--series", "allowed,removed,log_weight,overruled,rules_time")
    assert "log_weight_nats" in series.out


def test_a_length_limit_inside_of_a_structure_is_named(tape: Tape) -> None:
    done = tape("record", "demo", PROMPT, "--json-schema", "cat.json", "-n", "3", "-o", "a.tape")
    assert done.code == 0 and "unfinished" in done.err
    with tt.open("a.tape") as found:
        assert (found.traces[0].outcomes[0].name, found.traces[0].outcomes[0].valid) == ("unfinished", None)
        assert found.traces[0].finish_reason == "length"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--regex", " (mat|floor)"], r" (mat|floor)"),
        (["--choices", " mat, floor"], r" (mat|floor)"),
        (["--choices", '[" mat, and", " floor"]'], r" mat, and| floor"),
        (["--grammar", "g.lark"], r" floor( floor)*"),
    ],
    ids=lambda value: str(value[0]) if isinstance(value, list) else "",
)
def test_other_languages(tape: Tape, options: list[str], said: str) -> None:
    Path("g.lark").write_text('start: " floor"+')
    done = tape("record", "demo", PROMPT, *options, "-q")
    assert done.code == 0 and re.fullmatch(said, done.out[:-1]), (done.out, done.err)


def test_guidance_bias_and_a_second_model(tape: Tape) -> None:
    done = tape(
        "record", "demo", PROMPT, "--guidance", "2", "--negative", "The dog", "--amateur", "demo", "-o", "a.tape"
    )
    assert done.code == 0, done.err
    with tt.open("a.tape") as found:
        rules = found.runs[0].rules
        assert [rule.name for rule in rules] == ["guidance", "contrast"]
        assert rules[0].description["strength"] == 2 and (found.traces[0].effects["divergence"] > 0).any()
    biased = tape("record", "demo", PROMPT, "--bias", " floor=50", "-n", "1", "-q")
    assert biased.out == " floor\n"


def test_a_direction_is_made_and_steered_by(tape: Tape) -> None:
    made = tape("direction", "demo", "--positive", "positive.txt", "--negative", "negative.txt", "-o", "d.safetensors")
    assert made.code == 0 and "--steer d.safetensors" in made.err
    prompt = ["record", "demo", "Review: The pool was", "-n", "4", "--steer", "d.safetensors"]
    done = tape(*prompt, "--strength", "3", "-o", "a.tape")
    assert done.code == 0 and "steering: divergence" in done.err
    assert tape(*prompt, "--strength", "0", "-q").out == tape(*prompt[:5], "-q").out
    again = tape("direction", "demo", "--positive", "positive.txt", "--negative", "negative.txt", "-o", "d.safetensors")
    assert again.code == 2 and "already exists" in again.err


@pytest.mark.parametrize("action", ["stop", "redact", "resample"])
def test_nothing_of_a_blocked_phrase_comes_out(tape: Tape, action: str) -> None:
    """Neither on stdout nor in the text that `show` prints; what was said is in the tape's rows."""
    plain = tape("record", "demo", PROMPT, "-n", "12", "-q").out
    assert "looked at" in plain
    options = ["record", "demo", PROMPT, "-n", "12", "--block", "LOOKED  AT", "--on-block", action, "-o", "a.tape"]
    done = tape(*options)
    assert done.code == 0 and "looked at" not in done.out.lower() and action in done.err
    assert done.out[:-1] == {"stop": " mat and ", "redact": plain[:-1].replace("looked at", "[...]")}.get(
        action, done.out[:-1]
    )
    with tt.open("a.tape") as found:
        (decision,) = found.traces[0].decisions
        assert decision.action == action and "looked" not in decision.reason
        assert (found.traces[0].finish_reason == "guard") == (action == "stop")
    assert "looked at the" not in tape("show", "a.tape", "--rows", "1").out


def test_phrases_from_a_file(tape: Tape) -> None:
    Path("words.txt").write_text("mat\n\ndog\n")
    done = tape("record", "demo", PROMPT, "-n", "12", "--block-file", "words.txt", "--on-block", "redact", "-q")
    assert done.code == 0 and "mat" not in done.out and "[...]" in done.out


def test_a_chat_without_a_template(tape: Tape) -> None:
    done = tape("record", "demo", "Hello", "--system", "Be kind.")
    assert done.code == 2 and "no chat template" in done.err


def test_a_window_says_what_it_dropped(tape: Tape) -> None:
    done = tape("record", "demo", PROMPT, "-n", "40", "--window", "16", "--sinks", "2", "--ignore-eos", "-o", "a.tape")
    assert done.code == 0, done.err
    with tt.open("a.tape") as found:
        dropped = found.traces[0].steps["dropped"].tolist()
        assert dropped[0] == 0 and dropped[-1] == 5 + 40 - 1 - 18 and dropped == sorted(dropped)
        assert found.runs[0].options["window"] == 16


MISTAKES = {
    "a schema that is not there": (["--json-schema", "nowhere.json"], "cannot be read"),
    "a schema that is no JSON": (["--json-schema", "positive.txt"], "positive.txt|JSON"),
    "a schema of a keyword that is not enforced": (["--json-schema", "unique.json"], "uniqueItems"),
    "a pattern that is none": (["--regex", "("], "unclosed"),
    "a pattern that nothing matches": (["--regex", r"[^\s\S]"], "no text at all"),
    "two grammars": (["--regex", "a", "--choices", "a"], "--regex and --choices together"),
    "no choice": (["--choices", ","], "nothing to choose"),
    "compact without JSON": (["--regex", "a", "--compact"], "--compact"),
    "a strength with nothing to steer by": (["--strength", "2"], "--strength without --steer"),
    "a negative prompt without guidance": (["--negative", "x"], "--negative without --guidance"),
    "a contrast with nobody": (["--contrast", "2"], "--contrast without"),
    "a direction that is none": (["--steer", "cat.json"], "cat.json"),
    "an action without a guard": (["--on-block", "redact"], "--on-block without --block"),
    "an empty phrase": (["--block", ""], "phrase"),
    "phrases of an empty file": (["--block-file", "empty.txt"], "empty.txt"),
    "a bias without a number": (["--bias", "cat"], "TEXT=X"),
    "a bias that is given twice": (["--bias", "cat=1", "--bias", "cat=2"], "given twice"),
    "sinks without a window": (["--sinks", "4"], "--window"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_told_before_a_tape_is_made(tape: Tape, mistake: str) -> None:
    options, said = MISTAKES[mistake]
    Path("empty.txt").write_text("\n")
    Path("unique.json").write_text('{"type": "array", "uniqueItems": true}')
    done = tape("record", "demo", PROMPT, *options, "-o", "a.tape")
    assert done.code == 2, done.err
    assert re.search(said, done.err) and "why:" in done.err and "fix:" in done.err
    assert not Path("a.tape").exists()


def test_a_long_prompt_is_read_without_a_word(tape: Tape) -> None:
    """The tokenizer's own warning tells of an error that does not come."""
    Path("long.txt").write_text("the cat and " * 400)
    done = tape("record", "demo", "-f", "long.txt", "-n", "1", "--window", "32", "-q")
    assert (done.code, done.err) == (0, "")
