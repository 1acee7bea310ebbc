"""Replay of tapes of servers: with the ids that they gave, and with those of the local tokenizer where they gave none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tokentape as tt
from tokentape.data.exchange import Exchange
from tokentape.data.request import Run, TraceHead
from tokentape.data.setting import Setting
from tokentape.errors import ReplayError
from tokentape.explain.checking import check
from tokentape.explain.retokenised import is_greedy, played
from tokentape.models.causal import CausalModel, load
from tokentape.models.chat import chat_prompt
from tokentape.recorder.many import ManyRuns
from tokentape.recorder.tick import LiveRun, Said, Tick

PROMPT = "English: The cat sat on the mat.\nChinese:"
TEMPLATE = "{% for m in messages %}{{ m['content'] }}{% endfor %}"


@pytest.fixture(scope="module")
def causal() -> CausalModel:
    return load("demo")


@pytest.fixture(scope="module")
def local(causal: CausalModel) -> tt.Trace:
    """The greedy run that the server is taken to have made."""
    return tt.record(tt.local("demo"), PROMPT, max_new_tokens=24).traces[0]


def served(
    path: Path,
    local: tt.Trace,
    *,
    ids: bool = True,
    logprobs: bool = True,
    prompt_ids: bool = False,
    n_prompt: int | None = None,
    together: bool = False,
    off: float = 0.0,
    left_out: tuple[int, ...] = (),
    **options: Any,
) -> tt.Tape:
    """A tape of a server that says the same, and tells so much of it; nothing of those ``left_out`` but that they are."""
    head = TraceHead(0, n_prompt, tuple(map(int, local.prompt_ids)) if prompt_ids else None, local.prompt_text)
    tokens = zip(local.token_ids.tolist(), local.token_bytes, local.tokens["logprob"].tolist(), strict=True)
    said = [
        Said(0, token_id if ids else None, data, logprob + off if logprobs else None)
        for token_id, data, logprob in tokens
    ]
    for place in left_out:  # as of the first of two that make up a character: its bytes come with the second
        said[place + 1] = replace(said[place + 1], data=(said[place].data or b"") + (said[place + 1].data or b""))
        said[place] = Said(0, None, b"")
    if together:
        said = [Said(0, None, b"".join(one.data or b"" for one in said))]
    ticks = [Tick("chunk", 1, i, i + 1, said=(one,), read=i + 1, parsed=i + 1) for i, one in enumerate(said)]
    run = Run((replace(head, n_prompt=len(local.prompt_ids)) if prompt_ids else head,), options)
    with ManyRuns(path, Setting({"model": "demo", "source": "endpoint"}), 0) as many:
        many.begin(0, LiveRun(run, 0, iter(()), lambda: ["stop"]))
        many.add(0, ticks)
        many.end(0, ["stop"], Exchange(n_prompt=n_prompt, label="exact"))
        return many.close()


def test_ids_of_the_server_are_played_as_they_are(tmp_path, local, causal):
    tape = served(tmp_path / "a.tape", local, prompt_ids=True)
    (found,) = check(list(tape.traces), causal, tape.setting)
    assert found.passed and found.how == "ids" and found.n == len(local.token_ids)


@pytest.mark.parametrize("n_prompt", [None, "told"])
def test_a_prompt_without_ids_is_tokenised_here(tmp_path, local, causal, n_prompt):
    known = len(local.prompt_ids) if n_prompt else None
    tape = served(tmp_path / "a.tape", local, n_prompt=known)
    (found,) = check(list(tape.traces), causal, tape.setting)
    assert found.passed and found.how == "prompt" and found.largest < 1e-4


def test_a_prompt_of_another_length_is_another_prompt(tmp_path, local, causal):
    tape = served(tmp_path / "a.tape", local, n_prompt=len(local.prompt_ids) + 1)
    (found,) = check(list(tape.traces), causal, tape.setting)
    assert not found.passed and "the server read a prompt of" in found.reason


def test_log_probabilities_without_ids_are_held_against_the_same_tokens(tmp_path, local, causal):
    tape = served(tmp_path / "a.tape", local, ids=False)
    trace = tape.traces[0]
    assert trace.token_bytes[-1] == b"", "the end of the text is a token without one"
    assert played(trace, causal).n_aligned == len(local.token_ids) - 1
    (found,) = check([trace], causal, tape.setting)
    assert found.passed and found.how == "text" and found.n == len(local.token_ids) - 1


def test_ids_hold_a_text_in_place_of_which_some_tokens_were_left_out(tmp_path, local, causal):
    tape = served(tmp_path / "a.tape", local, left_out=(2, 5))
    (found,) = check(list(tape.traces), causal, tape.setting)
    assert found.passed and found.how == "text" and found.n == len(local.token_ids) - 1 - 2
    other = served(tmp_path / "b.tape", local, left_out=(2, 5), off=-0.01)
    (found,) = check(list(other.traces), causal, other.setting)
    assert not found.passed and found.largest == pytest.approx(0.01, abs=1e-4)


def test_log_probabilities_of_another_model_are_caught(tmp_path, local, causal):
    tape = served(tmp_path / "a.tape", local, off=-0.01)
    (found,) = check(list(tape.traces), causal, tape.setting)
    assert not found.passed and found.largest == pytest.approx(0.01, abs=1e-4)


@pytest.mark.parametrize("together", [False, True])
def test_text_alone_is_held_against_greedy_search(tmp_path, local, causal, together):
    tape = served(tmp_path / "a.tape", local, ids=False, logprobs=False, together=together, temperature=0)
    (found,) = check(list(tape.traces), causal, tape.setting)
    assert found.passed and found.how == "choices" and found.largest < 1e-4
    text = local.text.encode()
    assert found.n == len(causal.encode(PROMPT + text.decode())) - len(local.prompt_ids)


def test_text_that_greedy_search_would_not_have_said_is_caught(tmp_path, local, causal):
    other = tt.record(tt.local("demo"), "Once upon a time", max_new_tokens=24).traces[0]
    strange = Strange(local, other)
    tape = served(tmp_path / "a.tape", strange, ids=False, logprobs=False, temperature=0)
    (found,) = check(list(tape.traces), causal, tape.setting)
    assert not found.passed and "less likely than the model's first choice" in found.reason


class Strange:
    """The prompt of one trace, what was said of another."""

    def __init__(self, asked: tt.Trace, said: tt.Trace) -> None:
        self.prompt_ids, self.prompt_text = asked.prompt_ids, asked.prompt_text
        self.token_ids, self.token_bytes, self.tokens = said.token_ids, said.token_bytes, said.tokens


def test_text_that_was_drawn_cannot_be_checked(tmp_path, local, causal):
    tape = served(tmp_path / "a.tape", local, ids=False, logprobs=False, temperature=0.7)
    (found,) = check(list(tape.traces), causal, tape.setting)
    assert not found.passed and found.n == 0 and "no log-probabilities" in found.reason


def test_messages_are_put_together_by_the_template(tmp_path, local, causal, monkeypatch):
    monkeypatch.setattr(causal.tokenizer, "chat_template", TEMPLATE)
    messages = [{"role": "user", "content": PROMPT}]
    assert chat_prompt(causal, messages) == list(local.prompt_ids)
    tape = served(tmp_path / "a.tape", local, messages=messages, n_prompt=len(local.prompt_ids))
    (found,) = check(list(tape.traces), causal, tape.setting)
    assert found.passed and found.how == "prompt"


def test_messages_without_a_template_are_refused(tmp_path, local, causal):
    tape = served(tmp_path / "a.tape", local, messages=[{"role": "user", "content": PROMPT}])
    with pytest.raises(ReplayError, match="cannot be put together"):
        check(list(tape.traces), causal, tape.setting)


def test_a_tape_without_text_is_refused(tmp_path, local, causal):
    bare = Strange(local, local)
    bare.prompt_text = None
    tape = served(tmp_path / "a.tape", bare, ids=False, logprobs=False, temperature=0)
    with pytest.raises(ReplayError, match="neither ids nor a text"):
        check(list(tape.traces), causal, tape.setting)


@pytest.mark.parametrize(
    ("options", "greedy"),
    [
        ({"temperature": 0}, True),
        ({"temperature": 0.0}, True),
        ({"temperature": 1}, False),
        ({}, False),
        ({"generation_config": '{"do_sample": false}'}, True),
        ({"generation_config": "no JSON"}, False),
        ({"generation_config": "[]"}, False),
    ],
)
def test_what_asks_for_greedy_search(tmp_path, local, options, greedy):
    assert is_greedy(served(tmp_path / "a.tape", local, **options).traces[0]) is greedy


def test_an_explanation_of_a_server_whose_prompt_length_is_known(tmp_path, local, causal):
    tape = served(tmp_path / "a.tape", local, n_prompt=len(local.prompt_ids))
    found = tt.explain(tape, causal, step=2, method="rollout")
    assert found.check.how == "prompt" and np.isfinite(found.relevance).all()


def test_the_command_says_what_was_tokenised_here(tmp_path, local, capfd):
    from tokentape.cli.program import run

    served(tmp_path / "a.tape", local, ids=False, logprobs=False, temperature=0).close()
    assert run(["replay", str(tmp_path / "a.tape"), "--model", "demo"]) == 0
    assert "tokenised here: the server gave no log-probabilities" in capfd.readouterr().out
