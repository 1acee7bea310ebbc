"""The scenarios: named, reproducible, and each concludes what a plain reading of its bytes concludes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from mock_client import Seen, connected, read_all, request_bytes

from tokentape.mock.faults import FAULTS
from tokentape.mock.scenarios import FAULT_CODES, Scenario, scenarios

ALL = scenarios(200)


def test_there_are_as_many_as_asked_for_each_with_its_own_name() -> None:
    assert len(ALL) == 200 and len({scenario.name for scenario in ALL}) == 200
    assert len({scenario.name for scenario in scenarios(700)}) == 700
    assert scenarios(200) == ALL and scenarios(50) == ALL[:50]
    assert {s.script.seed for s in scenarios(200, seed=1)}.isdisjoint(s.script.seed for s in ALL)


def test_every_fault_every_dialect_and_every_conclusion_is_among_them() -> None:
    assert {fault.name for scenario in ALL for fault in scenario.script.faults} == set(FAULTS)
    assert {scenario.dialect for scenario in ALL} == {"vllm", "sglang", "llama.cpp", "transformers"}
    known = {expectation.fault for scenario in ALL for expectation in scenario.expected}
    assert known == {None, *FAULT_CODES} - {"refused", "tls", "client_died"}  # in these no server answers
    assert {e.label for scenario in ALL for e in scenario.expected} == {None, "exact", "counted", "coarse"}
    assert all(json.dumps(scenario.body) for scenario in ALL)


def normal(body: bytes) -> list[str]:
    """The events of a body by the standard's rules, written plainly: the data of each."""
    text = body.decode("utf-8", "replace").removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    found, data = [], []
    for line in text.split("\n")[:-1]:
        if line.startswith("data:"):
            data.append(line[5:].removeprefix(" "))
        elif not line:
            if data:
                found.append("\n".join(data))
            data = []
    return found


def plainly(seen: Seen) -> tuple[dict[int, str], dict[int, str | None], bool]:
    """Text and finish reason of each choice, and whether [DONE] came: what a few lines of any client would see."""
    texts: dict[int, str] = {}
    reasons: dict[int, str | None] = {}
    for data in normal(seen.body):
        if data == "[DONE]":
            return texts, reasons, True
        try:
            message: Any = json.loads(data)
        except ValueError:
            continue
        if "content" in message:
            message = {"choices": [{"index": 0, "text": message["content"], "finish_reason": message.get("stop_type")}]}
        for choice in message.get("choices") or []:
            if not isinstance(choice["index"], int):
                continue
            delta = choice.get("delta", {})
            calls = "".join(call["function"]["arguments"] for call in delta.get("tool_calls") or [])
            parts = [
                choice.get("text"),
                delta.get("reasoning"),
                delta.get("reasoning_content"),
                delta.get("content"),
                calls,
            ]
            texts[choice["index"]] = texts.get(choice["index"], "") + "".join(filter(None, parts))
            reasons[choice["index"]] = choice.get("finish_reason") or reasons.get(choice["index"])
    return texts, reasons, False


@pytest.mark.parametrize("scenario", ALL, ids=lambda scenario: scenario.name)
def test_what_is_expected_is_what_comes(scenario: Scenario) -> None:
    wanted = scenario.expected[0]
    with scenario.server() as server, connected(server.url) as client:
        client.sendall(request_bytes(scenario.route, dict(scenario.body)))
        quiet_s = 0.3 if scenario.patience_s else 3.0
        seen = read_all(client, quiet_s=quiet_s, whole_s=0.5 if wanted.texts is None else 8.0)
    names = {fault.name for fault in scenario.script.faults}
    if wanted.status is None:
        assert seen.data == b"" and (seen.ended is None) == (wanted.fault == "timeout")
        return
    assert seen.status == wanted.status
    assert (seen.ended == "reset") == (wanted.fault == "reset")
    if wanted.fault == "timeout":
        assert seen.ended is None
    if wanted.texts is None or "gzip" in names or wanted.label is None:
        return
    texts, reasons, done = plainly(seen)
    channels = ("reasoning", "text", "tool_call")
    assert texts == {n: "".join(text.get(channel, "") for channel in channels) for n, text in enumerate(wanted.texts)}
    if scenario.route != "/completion":
        assert tuple(reasons.get(n) for n in range(len(wanted.finish))) == wanted.finish
    ends_with_done = scenario.dialect != "transformers" and scenario.route != "/completion"
    if wanted.fault in (None, "no_done", "malformed"):
        assert done == (ends_with_done and "no_done" not in names)
    if wanted.ids is not None:
        assert all(len(ids) > 0 for ids in wanted.ids)
    if wanted.label == "exact" and wanted.n_completion is not None and wanted.ids is not None:
        assert sum(map(len, wanted.ids)) == wanted.n_completion


def test_a_server_of_a_scenario_takes_more_settings() -> None:
    with ALL[0].server(model="other", slots=1) as server:
        assert server.settings.model == "other" and server.settings.scripts == (ALL[0].script,)
