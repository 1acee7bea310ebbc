"""The captures that other tests replay are what the servers still send."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from real.servers import Server

pytestmark = [pytest.mark.real, pytest.mark.slow]

CAPTURES = Path(__file__).resolve().parents[1] / "sources" / "captures"
INDEX: dict[str, dict[str, Any]] = json.loads((CAPTURES / "index.json").read_text(encoding="utf-8"))
FIXTURES = {"transformers": "transformers_serve", "llamacpp": "llama_cpp"}

RECORDED = [file for file, row in INDEX.items() if row["origin"] == "recorded" and isinstance(row["request"], dict)]


def shape(value: object) -> object:
    """A JSON value with the names of its keys and the types of its values, and nothing else."""
    if isinstance(value, dict):
        return {key: shape(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return sorted({json.dumps(shape(inner), sort_keys=True) for inner in value})
    return type(value).__name__


def messages(text: str, media: str) -> list[Any]:
    if media != "text/event-stream":
        return [json.loads(text)]
    return [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]


def said(found: list[Any]) -> str:
    """Everything that a stream or an answer says, as text."""
    choices = [choice for one in found if isinstance(one, dict) for choice in one.get("choices", [])]
    texts = [choice.get("text") or choice.get("delta", {}).get("content") or "" for choice in choices]
    return "".join([*texts, *(one.get("content", "") for one in found if isinstance(one, dict))])


@pytest.mark.parametrize("file", RECORDED)
def test_a_server_still_sends_what_the_capture_shows(file: str, request: pytest.FixtureRequest) -> None:
    row = INDEX[file]
    server: Server = request.getfixturevalue(FIXTURES[row["server"]])
    status, text = server.ask(row["path"], row["request"])
    assert status == row["status"]
    captured = messages((CAPTURES / file).read_text(encoding="utf-8"), row["media"])
    now = messages(text, row["media"])
    assert {json.dumps(shape(one), sort_keys=True) for one in now} == {
        json.dumps(shape(one), sort_keys=True) for one in captured
    }
    assert sorted(said(now)) == sorted(said(captured))  # of two choices, either may be first
    assert text.rstrip().endswith("[DONE]") == (CAPTURES / file).read_text(encoding="utf-8").rstrip().endswith("[DONE]")
