"""`record --endpoint` of real servers: they say what the local run says, and the replay check knows one model from another."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tokentape as tt
from real.servers import Server
from tokentape.cli.program import run

pytestmark = [pytest.mark.real, pytest.mark.slow]

PROMPTS = [
    "The cat sat on the",
    "Once upon a time there was a cat",
    "English: The cat sat on the mat.\nChinese:",
    "Chinese: 猫坐在垫子上。\nEnglish:",
]
STORY = PROMPTS[1]


@pytest.fixture(scope="module")
def local() -> dict[str, tt.Trace]:
    """The greedy run in this process, by prompt."""
    source = tt.local("demo")
    return {prompt: tt.record(source, prompt, max_new_tokens=80).traces[0] for prompt in PROMPTS}


def recorded(server: Server, prompt: str, folder: Path, *more: str) -> Path:
    """The tape of one greedy request, made as a user makes it."""
    path = folder / "served.tape"
    asked = ["--endpoint", server.url, "--served-model", server.model, "--greedy", "-n", "80", *more]
    assert run(["record", *asked, prompt, "-o", str(path), "-q"]) == 0
    return path


def replayed(path: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any]]:
    """Exit code of the replay check, and what it says of the sequence."""
    capsys.readouterr()
    code = run(["replay", str(path), "--model", "demo", "--json"])
    return code, json.loads(capsys.readouterr().out)["checks"][0]


@pytest.mark.parametrize("prompt", PROMPTS)
def test_llama_cpp_says_what_the_local_run_says(
    llama_cpp: Server, local: dict[str, tt.Trace], prompt: str, tmp_path: Path
) -> None:
    trace = tt.open(recorded(llama_cpp, prompt, tmp_path)).traces[0]
    assert trace.text == local[prompt].text
    assert trace.token_ids.tolist() == local[prompt].token_ids.tolist()
    np.testing.assert_allclose(trace.tokens["logprob"], local[prompt].tokens["logprob"], rtol=0, atol=1e-3)
    assert trace.exchange is not None
    assert trace.exchange.label == "exact"
    assert trace.exchange.n_prompt == local[prompt].n_prompt
    assert trace.exchange.server is not None
    assert trace.exchange.server["predicted_n"] == len(local[prompt].token_ids)


@pytest.mark.parametrize("prompt", PROMPTS)
def test_transformers_says_what_the_local_run_says(
    transformers_serve: Server, local: dict[str, tt.Trace], prompt: str, tmp_path: Path
) -> None:
    trace = tt.open(recorded(transformers_serve, prompt, tmp_path)).traces[0]
    assert trace.text == local[prompt].text
    assert trace.tokens["logprob"].mask.all()
    assert trace.exchange is not None
    assert trace.exchange.label in ("counted", "coarse")
    assert (trace.exchange.n_prompt, trace.exchange.n_completion) == (
        local[prompt].n_prompt,
        len(local[prompt].token_ids),
    )


@pytest.mark.parametrize("name", ["llama_cpp", "transformers_serve"])
def test_a_chat_is_recorded_too(
    name: str, local: dict[str, tt.Trace], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    path = recorded(request.getfixturevalue(name), STORY, tmp_path, "--api", "chat")
    assert tt.open(path).traces[0].text == local[STORY].text


@pytest.mark.parametrize("prompt", PROMPTS)
def test_the_replay_check_passes_for_llama_cpp(
    llama_cpp: Server, prompt: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, check = replayed(recorded(llama_cpp, prompt, tmp_path), capsys)
    assert (code, check["passed"]) == (0, True)
    assert check["largest"] < 1e-3


def test_llama_cpp_leaves_out_what_leaves_a_character_unfinished(
    llama_cpp: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A wave is four tokens of this model's: the server sends the last, and counts them all."""
    grammar = json.dumps({"grammar": 'root ::= " mat 🌊a🌊"'})
    path = recorded(llama_cpp, STORY, tmp_path, "--extra-body", grammar)
    trace = tt.open(path).traces[0]
    assert trace.exchange is not None
    assert trace.exchange.server is not None
    assert (trace.exchange.label, trace.exchange.n_completion) == ("counted", trace.tokens.n_rows)
    assert trace.exchange.server["label_reason"] == "6 tokens inside characters are counted, and not told"
    assert trace.text == " mat 🌊a🌊"
    assert int(trace.tokens["id"].mask.sum()) == 6
    _, check = replayed(path, capsys)
    # ids of the text, in which those that were told stand where they should
    assert check["n"] >= 5
    assert check["largest"] < 1e-2


def test_the_replay_check_catches_llama_cpp_with_other_weights(
    llama_of_others: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, check = replayed(recorded(llama_of_others, STORY, tmp_path), capsys)
    assert (code, check["passed"]) == (3, False)
    assert check["largest"] > 1e-2


@pytest.mark.parametrize("prompt", PROMPTS)
def test_the_replay_of_text_alone_is_said_to_be_of_text(
    transformers_serve: Server, prompt: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, check = replayed(recorded(transformers_serve, prompt, tmp_path), capsys)
    assert (code, check["passed"]) == (0, True)
    assert (
        check["how"] == "choices"
    )  # no log-probabilities to compare: is each token the one that the model would choose?
    assert check["n"] > 0


def test_the_replay_check_catches_transformers_with_other_weights(
    transformers_of_others: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, check = replayed(recorded(transformers_of_others, STORY, tmp_path), capsys)
    assert (code, check["passed"]) == (3, False)
