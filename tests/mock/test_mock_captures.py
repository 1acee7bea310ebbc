"""The mock's messages have the fields of the real servers' messages, in their order: against what was recorded from these."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mock_client import Seen

from tokentape.mock.script import Script
from tokentape.mock.serving import MockServer

FOLDER = Path(__file__).resolve().parents[1] / "sources" / "captures"
INDEX: dict[str, Any] = json.loads((FOLDER / "index.json").read_text("utf-8"))
DIALECT = {"llamacpp": "llama.cpp"}
APART = {
    "llamacpp-completions-timings.sse": "asks for the progress of the prefill, which the mock has not",
    "sglang-chat.sse": "SGLang has written its chat messages in more than one way",
    "sglang-chat-reasoning.sse": "SGLang has written its chat messages in more than one way",
    "vllm-completions-error-inside.sse": "breaks off in the middle",
    "sglang-completions-error-inside.sse": "breaks off in the middle",
    "vllm-chat-reasoning.sse": "needs a script that reasons",
}
STREAMS = [name for name, row in INDEX.items() if row["status"] == 200 and name.endswith(".sse") and name not in APART]


def shape(value: Any) -> Any:
    """The names in a JSON value, in their order; of a list that of its first entry."""
    if isinstance(value, dict):
        return [[name, None if name == "generation_settings" else shape(inner)] for name, inner in value.items()]
    return [shape(value[0])] if isinstance(value, list) and value and not isinstance(value[0], int | float) else None


def plain(message: dict[str, Any]) -> dict[str, Any]:
    """Candidates of the legacy form are named by their text: how many, not which."""
    for choice in message.get("choices", []):
        probs = choice.get("logprobs") or {}
        if "top_logprobs" in probs:
            probs["top_logprobs"] = len(probs["top_logprobs"])
    return message


def shapes(messages: list[Any]) -> list[str]:
    """Each form of message once, in the order in which they come first."""
    return list(dict.fromkeys(json.dumps(shape(plain(message))) for message in messages))


@pytest.mark.parametrize("name", STREAMS)
def test_messages_have_the_fields_of_the_real_ones(ask: Callable[..., Seen], name: str) -> None:
    row = INDEX[name]
    real = (FOLDER / name).read_text("utf-8").split("\n\n")
    events = [event.removeprefix("data: ") for event in real if event.startswith("data: ")]
    body = {**row["request"], "max_tokens": row["request"].get("max_tokens", 3)}
    script = Script.steady(body["max_tokens"], ttft_us=0, gap_us=0, plain=True, n_cached=_cached(events))
    with MockServer(script, dialect=DIALECT.get(row["server"], row["server"]), model="demo") as server:
        seen = ask(server, body if row["path"] != "/completion" else row["request"], row["path"])
    assert seen.status == 200
    assert shapes(seen.messages) == shapes([json.loads(event) for event in events if event != "[DONE]"])
    assert (seen.events[-1] == "[DONE]") == (events[-1] == "[DONE]")
    assert (seen.field("content-type") or "").startswith(row["media"])


def _cached(events: list[str]) -> int | None:
    return 0 if any("cached_tokens" in event for event in events) else None


@pytest.mark.parametrize(
    "name", [name for name, row in INDEX.items() if row["status"] == 200 and name.endswith("-plain.json")]
)
def test_whole_answers_have_the_fields_of_the_real_ones(name: str) -> None:
    row = INDEX[name]
    real = json.loads((FOLDER / name).read_text("utf-8"))
    script = Script.steady(row["request"]["max_tokens"], ttft_us=0, gap_us=0, plain=True, n_cached=0)
    with MockServer(script, dialect=DIALECT.get(row["server"], row["server"]), model="demo") as server:
        found = httpx2.post(f"{server.url}{row['path']}", json=row["request"]).json()
    assert shapes([found]) == shapes([real])


def test_metrics_have_names_that_the_real_server_has() -> None:
    real = {
        line.split()[0] for line in (FOLDER / "llamacpp-metrics.txt").read_text("utf-8").splitlines() if line[0] != "#"
    }
    with MockServer(Script.steady(1), dialect="llama.cpp") as server:
        text = httpx2.get(f"{server.url}/metrics").text
    assert {line.split()[0] for line in text.splitlines() if line[0] != "#"} <= real


REFUSALS = [
    ("transformers-completions-unknown-field.json", True),
    ("transformers-completions-other-model.json", True),
    ("transformers-completions-ids.json", True),
    ("vllm-completions-other-model.json", False),
]


@pytest.mark.parametrize(("name", "word_for_word"), REFUSALS)
def test_refusals_are_those_of_the_real_servers(name: str, word_for_word: bool) -> None:
    row = INDEX[name]
    real = json.loads((FOLDER / name).read_text("utf-8"))
    with MockServer(Script.steady(1), dialect=DIALECT.get(row["server"], row["server"]), model="demo") as server:
        answer = httpx2.post(f"{server.url}{row['path']}", json=row["request"])
    assert answer.status_code == row["status"]
    assert answer.json() == real if word_for_word else shape(answer.json()) == shape(real)
