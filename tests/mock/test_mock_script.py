"""What is said and when follows from a script and a request alone; the file format holds every script."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokentape.errors import UsageError
from tokentape.mock.asked import CHAT, COMPLETIONS, Refused, asked_of
from tokentape.mock.expecting import expected
from tokentape.mock.faults import FAULTS, Fault, parse_fault
from tokentape.mock.script import Beat, Script
from tokentape.mock.script_file import as_json, read_scripts, script_of
from tokentape.mock.telling import chunks_of
from tokentape.mock.vocabulary import SIZE, Speech, id_of, prompt_ids, spelling

PROMPT = {"prompt": "Hi"}


def asked(**fields: object):
    return asked_of(COMPLETIONS, {**PROMPT, **fields}, "mock")


# the vocabulary


def test_every_entry_has_an_id_of_its_own() -> None:
    spellings = [spelling(token_id) for token_id in range(SIZE)]
    assert len(set(spellings)) == SIZE and all(spellings)
    assert [id_of(data) for data in spellings] == list(range(SIZE))
    assert spelling(SIZE) == b"" and id_of(b" not in it") >= 1024


def test_speech_is_the_same_in_every_process_and_version() -> None:
    # written down once: whoever changes what a seed says breaks what others computed from it
    assert [token.id for token in Speech(0).first(12)] == [546, 598, 471, 283, 630, 361, 301, 227, 129, 130, 338, 501]
    assert [token.id for token in Speech(0, plain=True).first(4)] == [407, 316, 441, 511]
    assert [token.logprob for token in Speech(0).first(3)] == [-0.901402, -1.171183, -2.216287]
    assert [token.id for token in Speech(0, 1).first(8)] != [token.id for token in Speech(0, 0).first(8)]


@given(seed=st.integers(0, 10_000), n=st.integers(1, 60))
def test_speech_begins_the_same_however_much_is_asked(seed: int, n: int) -> None:
    assert Speech(seed).first(60)[:n] == Speech(seed).first(n)


def test_speech_has_characters_of_several_bytes_spread_over_tokens() -> None:
    pieces = [token.data for token in Speech(3).first(400)]
    text = b"".join(pieces).decode()  # all of it is UTF-8
    assert any(ord(letter) > 0xFFFF for letter in text)
    whole = [piece for piece in pieces if piece.isascii()]
    assert len(whole) < len(pieces)
    assert any(len(piece) == 1 and piece[0] & 0xC0 == 0x80 for piece in pieces)
    assert all(token.data.isascii() for token in Speech(3, plain=True).first(400))


def test_candidates_are_a_distribution_with_the_token_at_its_rank() -> None:
    for token in Speech(5).first(40):
        every = token.candidates(-1)
        assert len(every) == SIZE
        assert every[token.rank - 1] == (token.id, token.logprob)
        logprobs = [logprob for _, logprob in every]
        assert logprobs == sorted(logprobs, reverse=True)
        if token.id < SIZE:
            assert len({token_id for token_id, _ in every}) == SIZE
        assert math.isclose(sum(math.exp(logprob) for logprob in logprobs), 1.0, abs_tol=1e-3)
        assert token.candidates(3) == every[:3]


def test_a_prompt_has_a_token_for_each_word() -> None:
    assert len(prompt_ids("The cat sat on the")) == 5
    assert prompt_ids("The cat")[1] == prompt_ids("A cat")[1]
    assert prompt_ids("") == []


# scripts


def test_steady_script_has_its_times_and_tokens() -> None:
    script = Script.steady(7, ttft_us=900, gap_us=100, chunk=3)
    assert [(beat.after_us, beat.n_tokens) for beat in script.beats] == [(900, 3), (100, 3), (100, 1)]


def test_channels_come_in_their_order_and_a_tool_call_is_json() -> None:
    script = Script.steady(9, n_reasoning=3, n_tool=4)
    chunks = list(chunks_of(script, asked()))
    assert [chunk.channel for chunk in chunks] == ["reasoning"] * 3 + ["text"] * 2 + ["tool_call"] * 4
    assert json.loads("".join(chunk.text for chunk in chunks if chunk.channel == "tool_call")) == {"q": "w0 w1 "}
    assert script.finish == "tool_calls"


@pytest.mark.parametrize("jitter", ["uniform", "normal", "exponential"])
def test_jitter_has_its_mean_and_follows_from_the_seed(jitter: str) -> None:
    script = Script.steady(4001, gap_us=10_000, jitter=jitter, jitter_us=1_000, seed=4)
    gaps = [beat.after_us for beat in script.beats[1:]]
    mean = sum(gaps) / len(gaps)
    spread = math.sqrt(sum((gap - mean) ** 2 for gap in gaps) / len(gaps))
    assert mean == pytest.approx(11_000 if jitter == "exponential" else 10_000, rel=0.01)
    assert spread == pytest.approx(1_000 / math.sqrt(3) if jitter == "uniform" else 1_000, rel=0.06)
    assert script == Script.steady(4001, gap_us=10_000, jitter=jitter, jitter_us=1_000, seed=4)
    assert script != Script.steady(4001, gap_us=10_000, jitter=jitter, jitter_us=1_000, seed=5)


@given(
    n=st.integers(0, 30),
    chunk=st.integers(1, 5),
    limit=st.none() | st.integers(0, 40),
    at_least=st.integers(0, 20),
    ignore=st.booleans(),
    choices=st.integers(1, 3),
)
def test_limits_of_a_request_decide_how_many_tokens_come(
    n: int, chunk: int, limit: int | None, at_least: int, ignore: bool, choices: int
) -> None:
    fields = {"max_tokens": limit, "min_tokens": at_least, "ignore_eos": ignore, "n": choices}
    want = max(n, at_least, limit if ignore and limit is not None else 0)
    want = want if limit is None else min(want, limit)
    chunks = list(chunks_of(Script.steady(n, chunk=chunk), asked(**fields)))
    for choice in range(choices):
        said = [c for c in chunks if c.choice == choice]
        assert sum(len(c.tokens) for c in said) == want
        assert [c.last for c in said] == [False] * (len(said) - 1) + [True]
        assert [t for c in said for t in c.tokens] == Speech(0, choice).first(want)
        starts = [c.n_before for c in said]
        assert starts == sorted(starts) and said[0].first and not any(c.first for c in said[1:])
    result = expected(Script.steady(n, chunk=chunk), {**PROMPT, **fields})
    assert result.n_completion == want * choices
    assert result.finish == ("length" if limit is not None and want == limit else "stop")


def test_beats_without_tokens_come_where_they_stand() -> None:
    script = Script((Beat(10, 0), Beat(20, 2), Beat(30, 0), Beat(40, 1), Beat(50, 0)))
    assert [(c.after_us, len(c.tokens), c.last) for c in chunks_of(script, asked())] == [
        (10, 0, False),
        (20, 2, False),
        (30, 0, False),
        (40, 1, False),
        (50, 0, True),
    ]
    cut = [(c.after_us, len(c.tokens), c.last) for c in chunks_of(script, asked(max_tokens=2))]
    assert cut == [(10, 0, False), (20, 2, True)]


def test_a_beat_says_word_for_word_what_it_is_told() -> None:
    script = Script((Beat(0, says=("你"[:1], b"\xe5\xa5", b"\xbd")), Beat(5, says=(" ok",))))
    result = expected(script, PROMPT)
    assert result.texts == ({"text": "你好 ok"},)
    assert [token.data for token in result.tokens[0]] == ["你".encode(), b"\xe5\xa5", b"\xbd", b" ok"]


def test_a_character_that_is_not_whole_at_the_end_is_in_no_text() -> None:
    result = expected(Script((Beat(0, says=("a", b"\xe5\xa5")),)), PROMPT)
    assert result.texts == ({"text": "a"},) and result.n_completion == 2


# files


beats = st.builds(
    Beat,
    st.floats(0, 1e6).map(lambda us: round(us, 1)),
    st.integers(0, 9),
    st.sampled_from(["text", "reasoning", "tool_call"]),
    st.none()
    | st.lists(st.text(max_size=4).filter(lambda t: t.isprintable()) | st.binary(max_size=4), max_size=3).map(tuple),
)
some_faults = st.sampled_from(sorted(FAULTS)).map(Fault)
scripts = st.builds(
    Script,
    st.lists(beats, min_size=1, max_size=5).map(tuple),
    finish=st.sampled_from(["stop", None]),
    seed=st.integers(),
    plain=st.booleans(),
    n_cached=st.none() | st.integers(0, 9),
    faults=st.lists(some_faults, max_size=3).map(tuple),
)


@given(scripts)
def test_a_script_comes_back_from_json(script: Script) -> None:
    assert script_of(json.loads(json.dumps(as_json(script)))) == script


def test_a_file_has_one_script_or_several(tmp_path: Path) -> None:
    one = {"tokens": 3, "ttft_us": 5, "faults": ["no_done", {"name": "stall", "at": 2}, "cut:at=1"]}
    for content, n in ((one, 1), ([one, one], 2), ({"scripts": [one, {"beats": [{"after_us": 1}]}]}, 2)):
        path = tmp_path / "script.json"
        path.write_text(json.dumps(content), encoding="utf-8")
        found = read_scripts(path)
        assert len(found) == n
        assert found[0].faults == (Fault("no_done"), Fault("stall", {"at": 2}), Fault("cut", {"at": 1}))
    assert found[1].beats == (Beat(1.0, 1),)


@pytest.mark.parametrize(
    "values",
    [
        7,
        {"token": 3},
        {"tokens": "many"},
        {"tokens": True},
        {"tokens": -1},
        {"tokens": 3, "chunk": 0},
        {"tokens": 3, "jitter": "wild"},
        {"tokens": 3, "gap_us": -1},
        {"tokens": 3, "n_reasoning": 4},
        {"beats": []},
        {"beats": [{"tokens": 1}]},
        {"beats": [{"after_us": -1}]},
        {"beats": [{"after_us": 1e30}]},
        {"beats": [{"after_us": 1, "tokens": [3]}]},
        {"beats": [{"after_us": 1, "channel": "video"}]},
        {"beats": [3]},
        {"beats": [{"after_us": 1}], "ttft_us": 3},
        {"tokens": 3, "faults": ["nothing"]},
        {"tokens": 3, "faults": [{"name": "stall", "how": 1}]},
        {"tokens": 10**9},
    ],
)
def test_what_is_no_script_is_refused_with_a_reason(values: object) -> None:
    with pytest.raises(UsageError) as refused:
        script_of(values)
    assert refused.value.what and refused.value.why and refused.value.fix


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read"):
        read_scripts(tmp_path / "absent.json")
    (tmp_path / "broken.json").write_text("{", encoding="utf-8")
    with pytest.raises(UsageError, match="no JSON"):
        read_scripts(tmp_path / "broken.json")


def test_faults_are_read_from_text() -> None:
    fault = parse_fault("stall:at=3,us=5000")
    assert (fault.name, fault["at"], fault["us"], fault["forever"]) == ("stall", 3, 5000.0, 0)
    assert parse_fault("crlf") == Fault("crlf")
    for text in ("nothing", "stall:at", "stall:when=3", "stall:at=x", "stall:at=1.5", "stall:us=-1", "stall:us=nan"):
        with pytest.raises(UsageError):
            parse_fault(text)


def test_a_misspelt_fault_is_told_the_near_one() -> None:
    with pytest.raises(UsageError) as refused:
        parse_fault("stal")
    assert "stall" in refused.value.fix


# requests


@pytest.mark.parametrize(
    ("route", "body", "parameter"),
    [
        (COMPLETIONS, {}, "prompt"),
        (COMPLETIONS, {"prompt": 3}, "prompt"),
        (COMPLETIONS, {"prompt": ["a", "b"]}, "prompt"),
        (COMPLETIONS, {"prompt": "a", "max_tokens": "3"}, "max_tokens"),
        (COMPLETIONS, {"prompt": "a", "stream": 1}, "stream"),
        (COMPLETIONS, {"prompt": "a", "n": 0}, "n"),
        (COMPLETIONS, {"prompt": "a", "stream_options": 3}, "stream_options"),
        (CHAT, {"prompt": "a"}, "messages"),
        (CHAT, {"messages": ["a"]}, "messages"),
        (CHAT, {"messages": [], "logprobs": 3}, "logprobs"),
    ],
)
def test_fields_of_the_wrong_type_are_refused_by_name(route: str, body: dict, parameter: str) -> None:
    with pytest.raises(Refused) as refused:
        asked_of(route, body, "mock")
    assert refused.value.status == 400 and refused.value.parameter == parameter


def test_prompts_may_be_ids_texts_and_parts() -> None:
    assert asked(prompt=[5, 6]).prompt == (5, 6)
    assert asked(prompt=[[5, 6]]).prompt == (5, 6)
    assert asked(prompt=["a b"]).prompt == asked(prompt="a b").prompt
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": " b"}]
    of_parts = asked_of(CHAT, {"messages": [{"role": "user", "content": parts}]}, "m")
    of_text = asked_of(CHAT, {"messages": [{"role": "user", "content": "a b"}]}, "m")
    assert of_parts.prompt == of_text.prompt
