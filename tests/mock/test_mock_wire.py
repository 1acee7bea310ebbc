"""The bytes on the wire, dialect by dialect, against what each server's own code and documentation show."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from mock_client import CHAT, COMPLETIONS

from tokentape.mock.dialects.choosing import DIALECTS
from tokentape.mock.expecting import expected
from tokentape.mock.script import Script
from tokentape.mock.serving import MockServer
from tokentape.mock.vocabulary import Speech

FAST = Script.steady(2, ttft_us=500, gap_us=500)
CREATED = re.compile(rb'"created":\d+')
USAGE = {"stream_options": {"include_usage": True}}
ID = "0" * 32
DIALECT_NAMES = list(DIALECTS)


def lines(body: bytes) -> list[str]:
    """The events of a stream, with the one thing that differs from run to run taken out."""
    return CREATED.sub(b'"created":0', body).decode().split("\n\n")[:-1]


def words(n: int = 2) -> list[str]:
    return [token.data.decode() for token in Speech(0).first(n)]


Ask = Callable[..., Any]


def test_vllm_completions(ask: Ask) -> None:
    with MockServer(FAST) as server:
        seen = ask(server, {"prompt": "Hi there", "stream": True, **USAGE})
    head = f'"id":"cmpl-{ID}","object":"text_completion","created":0,"model":"mock"'
    nulls = '"stop_reason":null,"prompt_token_ids":null,"token_ids":null'
    one, two = words()
    assert lines(seen.body) == [
        f'data: {{{head},"choices":[{{"index":0,"text":"{one}","logprobs":null,"finish_reason":null,{nulls}}}]}}',
        f'data: {{{head},"choices":[{{"index":0,"text":"{two}","logprobs":null,"finish_reason":"stop",{nulls}}}]}}',
        f'data: {{{head},"choices":[],"usage":{{"prompt_tokens":2,"total_tokens":4,"completion_tokens":2}}}}',
        "data: [DONE]",
    ]
    assert seen.field("content-type") == "text/event-stream; charset=utf-8" and seen.field("server") == "uvicorn"


def test_vllm_chat(ask: Ask) -> None:
    with MockServer(FAST) as server:
        body = {"messages": [{"role": "user", "content": "Hi"}], "stream": True, "return_token_ids": True}
        seen = ask(server, body, CHAT)
    head = f'"id":"chatcmpl-{ID}","object":"chat.completion.chunk","created":0,"model":"mock"'
    one, two = words()
    ids = [token.id for token in Speech(0).first(2)]
    prompt = json.dumps(expected(FAST, body, route=CHAT).prompt_ids, separators=(",", ":"))
    role = '{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}'
    assert lines(seen.body) == [
        f'data: {{{head},"choices":[{role}],"prompt_token_ids":{prompt}}}',
        f'data: {{{head},"choices":[{{"index":0,"delta":{{"content":"{one}"}},"logprobs":null,"finish_reason":null,'
        f'"token_ids":[{ids[0]}]}}]}}',
        f'data: {{{head},"choices":[{{"index":0,"delta":{{"content":"{two}"}},"logprobs":null,"finish_reason":"stop",'
        f'"stop_reason":null,"token_ids":[{ids[1]}]}}]}}',
        "data: [DONE]",
    ]


def test_sglang_completions(ask: Ask) -> None:
    with MockServer(FAST, dialect="sglang") as server:
        seen = ask(server, {"prompt": "Hi there", "stream": True, **USAGE})
    head = f'"id":"{ID}","object":"text_completion","created":0,"model":"mock"'
    one, two = words()
    first = f'{{"index":0,"text":"{one}","logprobs":null,"finish_reason":null,"matched_stop":null}}'
    second = f'{{"index":0,"text":"{two}","logprobs":null,"finish_reason":"stop","matched_stop":null}}'
    assert lines(seen.body) == [
        f'data: {{{head},"choices":[{first}],"usage":null}}',
        f'data: {{{head},"choices":[{second}],"usage":null}}',
        f'data: {{{head},"choices":[],"usage":{{"prompt_tokens":2,"total_tokens":4,"completion_tokens":2,"reasoning_tokens":0}}}}',
        "data: [DONE]",
    ]


def test_sglang_chat_ends_with_a_message_of_its_own(ask: Ask) -> None:
    with MockServer(FAST, dialect="sglang") as server:
        seen = ask(server, path=CHAT)
    deltas = [message["choices"][0]["delta"] for message in seen.messages]
    reasons = [message["choices"][0]["finish_reason"] for message in seen.messages]
    one, two = words()
    none = {"reasoning_content": None}
    assert deltas == [
        {**none, "role": "assistant", "content": ""},
        {**none, "content": one},
        {**none, "content": two},
        none,
    ]
    assert reasons == [None, None, None, "stop"] and seen.events[-1] == "[DONE]"


def test_llamacpp_completions(ask: Ask) -> None:
    with MockServer(FAST, dialect="llama.cpp") as server:
        seen = ask(server, {"prompt": "Hi there", "stream": True})
    tail = (
        f'"created":0,"model":"mock","system_fingerprint":"b9999-mock","object":"text_completion","id":"chatcmpl-{ID}"'
    )
    one, two = words()
    found = lines(seen.body)
    assert found[:2] == [
        f'data: {{"choices":[{{"text":"{one}","index":0,"logprobs":null,"finish_reason":null}}],{tail}}}',
        f'data: {{"choices":[{{"text":"{two}","index":0,"logprobs":null,"finish_reason":null}}],{tail}}}',
    ]
    last = seen.messages[-1]
    assert last["choices"] == [{"text": "", "index": 0, "logprobs": None, "finish_reason": "stop"}]
    assert last["usage"]["completion_tokens"] == 2
    assert last["timings"]["prompt_ms"] == 0.5 and last["timings"]["predicted_n"] == 2
    assert found[3:] == ["data: [DONE]"] and seen.field("server") == "llama.cpp"


def test_llamacpp_chat_has_usage_without_choices_and_timings_in_the_last(ask: Ask) -> None:
    with MockServer(FAST, dialect="llama.cpp") as server:
        body = {"messages": [{"role": "user", "content": "Hi"}], "stream": True, "timings_per_token": True, **USAGE}
        seen = ask(server, body, CHAT)
    first, *texts, finish, usage = seen.messages
    assert first["choices"] == [{"finish_reason": None, "index": 0, "delta": {"role": "assistant", "content": None}}]
    assert [message["timings"]["predicted_n"] for message in texts] == [1, 2]
    assert finish["choices"] == [{"finish_reason": "stop", "index": 0, "delta": {}}]
    assert usage["choices"] == [] and usage["usage"]["completion_tokens"] == 2 and "timings" in usage


def test_llamacpp_own_route(ask: Ask) -> None:
    with MockServer(FAST, dialect="llama.cpp") as server:
        seen = ask(server, {"prompt": "Hi", "stream": True, "n_predict": 2, "n_probs": 2}, "/completion")
    first, second, last = seen.messages
    token = Speech(0)[0]
    assert [message["content"] for message in (first, second)] == words()
    assert first["tokens"] == [token.id] and first["stop"] is False and first["tokens_predicted"] == 1
    assert first["completion_probabilities"][0]["id"] == token.id
    assert len(first["completion_probabilities"][0]["top_logprobs"]) == 2
    assert last["stop"] is True and last["stop_type"] == "limit" and last["tokens"] == []
    assert "[DONE]" not in seen.events


def test_llamacpp_loses_tokens_that_leave_a_character_unfinished(ask: Ask) -> None:
    script = Script.steady(60, ttft_us=0, gap_us=0, seed=3)
    with MockServer(script, dialect="llama.cpp") as server:
        seen = ask(server, {"prompt": "Hi", "stream": True, "logprobs": 1})
    result = expected(script, {"prompt": "Hi", "stream": True}, dialect="llama.cpp")
    told = [
        entry for message in seen.messages for entry in (message["choices"][0]["logprobs"] or {}).get("content", [])
    ]
    assert "".join(message["choices"][0]["text"] for message in seen.messages) == result.texts[0]["text"]
    assert len(told) < 60 == seen.messages[-1]["usage"]["completion_tokens"]
    assert b"".join(bytes(entry["bytes"]) for entry in told).decode() == result.texts[0]["text"]


# what `transformers serve` 5.23 really builds, from its own functions
CHAT_TAIL = '"created":0,"model":"mock","object":"chat.completion.chunk","system_fingerprint":""'
TEXT_TAIL = '"created":0,"model":"mock","object":"text_completion"'
CALL = '{"index":0,"id":"rid_tool_call_0","function":{"arguments":"{}","name":"look_up"},"type":"function"}'
TRANSFORMERS_CHAT = [
    '{"id":"rid","choices":[{"delta":{"role":"assistant"},"index":0}],CHAT}',
    '{"id":"rid","choices":[{"delta":{"reasoning_content":"ONE"},"index":0}],CHAT}',
    '{"id":"rid","choices":[{"delta":{"content":"TWO"},"index":0}],CHAT}',
    '{"id":"rid","choices":[{"delta":{"tool_calls":[CALL]},"index":0}],CHAT}',
    '{"id":"rid","choices":[{"delta":{},"index":0,"finish_reason":"tool_calls"}],CHAT,'
    '"usage":{"completion_tokens":3,"prompt_tokens":4,"total_tokens":7}}',
]
TRANSFORMERS_COMPLETIONS = [
    '{"id":"rid","choices":[{"index":0,"text":"ONE"}],TEXT}',
    '{"id":"rid","choices":[{"index":0,"text":"TWO"}],TEXT}',
    '{"id":"rid","choices":[{"finish_reason":"stop","index":0,"text":""}],TEXT,'
    '"usage":{"completion_tokens":2,"prompt_tokens":1,"total_tokens":3}}',
]


def test_transformers_bytes_are_those_of_the_real_server(ask: Ask) -> None:
    tools = Script.steady(3, ttft_us=0, gap_us=0, n_reasoning=1, n_tool=1)
    one, two = words()
    for script, path, golden in ((tools, CHAT, TRANSFORMERS_CHAT), (FAST, COMPLETIONS, TRANSFORMERS_COMPLETIONS)):
        with MockServer(script, dialect="transformers") as server:
            seen = ask(server, path=path, headers={"x-request-id": "rid"})
        text = "".join(f"data: {line}\n\n" for line in golden)
        for name, meant in (("ONE", one), ("TWO", two), ("CHAT", CHAT_TAIL), ("TEXT", TEXT_TAIL), ("CALL", CALL)):
            text = text.replace(name, meant)
        assert CREATED.sub(b'"created":0', seen.body).decode() == text
        assert seen.field("x-request-id") == "rid"


def test_transformers_sends_tokens_of_one_moment_in_one_piece(ask: Ask) -> None:
    with MockServer(Script.steady(4, ttft_us=0, gap_us=0, chunk=2, plain=True), dialect="transformers") as server:
        seen = ask(server)
    assert [chunk.count(b"data: ") for chunk in seen.chunks] == [2, 2, 1, 0]


def test_transformers_refuses_unknown_fields_and_ignores_known_ones(ask: Ask) -> None:
    with MockServer(FAST, dialect="transformers") as server:
        refused = ask(server, {"prompt": "a", "stream": True, "return_token_ids": True})
        taken = ask(server, {"prompt": "a", "stream": True, "logprobs": 1, "n": 3, **USAGE})
    assert refused.status == 422
    assert json.loads(refused.body) == {"detail": "Unexpected fields in the request: {'return_token_ids'}"}
    assert taken.status == 200 and "logprobs" not in taken.messages[0]["choices"][0]
    assert {message["choices"][0]["index"] for message in taken.messages} == {0}
    assert taken.messages[-1]["usage"]["completion_tokens"] == 2


# log-probabilities


def test_legacy_logprobs_are_those_of_the_tokens(ask: Ask) -> None:
    script = Script.steady(30, ttft_us=0, gap_us=0, chunk=4, seed=8)
    tokens = Speech(8).first(30)
    for dialect, n_candidates in (("vllm", None), ("sglang", 2)):
        with MockServer(script, dialect=dialect) as server:
            seen = ask(server, {"prompt": "a", "stream": True, "logprobs": 2})
        found = [message["choices"][0]["logprobs"] for message in seen.messages]
        assert [p for one in found for p in one["token_logprobs"]] == [token.logprob for token in tokens]
        names = [name for one in found for name in one["tokens"]]
        assert names == [token.data.decode("utf-8", "replace") for token in tokens]
        for token, name, top in zip(tokens, names, [t for one in found for t in one["top_logprobs"]], strict=True):
            if n_candidates is None:  # vLLM has the token itself beside the two likeliest
                assert name in top and len(top) <= 3
            if "\ufffd" not in top:  # parts of characters share one name
                assert max(top.values()) == token.candidates(1)[0][1]
        offsets = [offset for one in found for offset in one["text_offset"]]
        if dialect == "vllm":
            text = "".join(message["choices"][0]["text"] for message in seen.messages)
            assert all(
                text[offset:].startswith(name)
                for offset, name in zip(offsets, names, strict=True)
                if "\ufffd" not in name
            )
        else:
            assert set(offsets) == {-1}


def test_whole_vocabulary_is_given_where_it_is_asked_for(ask: Ask) -> None:
    with MockServer(FAST) as server:
        seen = ask(server, {"prompt": "a", "stream": True, "logprobs": -1, "return_tokens_as_token_ids": True})
    probs = seen.messages[0]["choices"][0]["logprobs"]
    assert probs["tokens"] == [f"token_id:{Speech(0)[0].id}"]
    assert len(probs["top_logprobs"][0]) == 650


def test_chat_logprobs_have_an_entry_a_token(ask: Ask) -> None:
    body = {"messages": [], "stream": True, "logprobs": True, "top_logprobs": 3}
    with MockServer(Script.steady(6, ttft_us=0, gap_us=0, chunk=2)) as server:
        seen = ask(server, body, CHAT)
    entries = [e for m in seen.messages[1:] for e in m["choices"][0]["logprobs"]["content"]]
    tokens = Speech(0).first(6)
    assert [entry["logprob"] for entry in entries] == [token.logprob for token in tokens]
    assert all(
        [one["logprob"] for one in e["top_logprobs"]] == [p for _, p in t.candidates(3)]
        for e, t in zip(entries, tokens, strict=True)
    )
    assert entries[0]["bytes"] == list(tokens[0].data)


# choices, channels, usage


@pytest.mark.parametrize("dialect", ["vllm", "sglang", "llama.cpp"])
def test_choices_are_interleaved_by_index(ask: Ask, dialect: str) -> None:
    script = Script.steady(3, ttft_us=0, gap_us=0, plain=True)
    body = {"prompt": "a", "stream": True, "n": 2, **USAGE}
    with MockServer(script, dialect=dialect) as server:
        seen = ask(server, body)
    result = expected(script, body, dialect=dialect)
    said = [(c["index"], c["text"]) for m in seen.messages for c in m["choices"] if c["text"]]
    assert [index for index, _ in said] == [0, 1, 0, 1, 0, 1]
    for choice in (0, 1):
        assert "".join(text for index, text in said if index == choice) == result.texts[choice]["text"]
    assert result.texts[0] != result.texts[1]
    if dialect != "llama.cpp":
        assert seen.messages[-1]["usage"]["completion_tokens"] == 6


@pytest.mark.parametrize(
    ("dialect", "name"), [("vllm", "reasoning"), ("sglang", "reasoning_content"), ("llama.cpp", "reasoning_content")]
)
def test_reasoning_and_tool_calls_have_their_fields(ask: Ask, dialect: str, name: str) -> None:
    script = Script.steady(9, ttft_us=0, gap_us=0, n_reasoning=3, n_tool=3, plain=True)
    with MockServer(script, dialect=dialect) as server:
        seen = ask(server, path=CHAT)
    result = expected(
        script, {"messages": [{"role": "user", "content": "Hi"}], "stream": True}, route=CHAT, dialect=dialect
    )
    deltas = [choice["delta"] for message in seen.messages for choice in message["choices"]]
    assert "".join(delta.get(name) or "" for delta in deltas) == result.texts[0]["reasoning"]
    assert "".join(delta.get("content") or "" for delta in deltas) == result.texts[0]["text"]
    calls = [call for delta in deltas for call in delta.get("tool_calls") or []]
    assert calls[0]["function"]["name"] == "look_up" and calls[0]["type"] == "function" and calls[0]["id"]
    assert "".join(call["function"]["arguments"] for call in calls) == result.texts[0]["tool_call"]
    reasons = [c["finish_reason"] for m in seen.messages for c in m["choices"] if c["finish_reason"]]
    assert reasons == ["tool_calls"]


@pytest.mark.parametrize("dialect", ["vllm", "sglang"])
@pytest.mark.parametrize("path", [COMPLETIONS, CHAT])
def test_running_usage_counts_the_tokens_of_each_message(ask: Ask, dialect: str, path: str) -> None:
    options = {"stream_options": {"include_usage": True, "continuous_usage_stats": True}}
    body = {"prompt": "a", "messages": [], "stream": True, **options}
    with MockServer(Script.steady(7, ttft_us=0, gap_us=0, chunk=3), dialect=dialect) as server:
        seen = ask(server, body, path)
    counts = [m["usage"]["completion_tokens"] for m in seen.messages if m.get("usage")]
    assert [count for count in counts if count] == [3, 6, 7, 7]


def test_cached_tokens_are_told_where_there_is_a_place(ask: Ask) -> None:
    script = Script.steady(2, ttft_us=0, gap_us=0, n_cached=1)
    for dialect in ("vllm", "sglang", "llama.cpp"):
        with MockServer(script, dialect=dialect) as server:
            seen = ask(server, {"prompt": "Hi there", "stream": True, **USAGE})
        assert seen.messages[-1]["usage"]["prompt_tokens_details"] == {"cached_tokens": 1}


# answers in one piece, and the other routes


@pytest.mark.parametrize("dialect", DIALECT_NAMES)
@pytest.mark.parametrize("path", [COMPLETIONS, CHAT])
def test_a_whole_answer_says_what_the_stream_says(dialect: str, path: str) -> None:
    script = Script.steady(9, ttft_us=0, gap_us=0, n_reasoning=2, n_cached=0)
    body: dict[str, Any] = {"messages": [{"role": "user", "content": "Hi"}]} if path == CHAT else {"prompt": "Hi"}
    with MockServer(script, dialect=dialect) as server, httpx2.Client(base_url=server.url) as client:
        answer = client.post(path, json={**body, "max_tokens": 8}).json()
        assert client.post(path, json={**body, "max_tokens": 8}).headers["content-type"] == "application/json"
    result = expected(script, {**body, "max_tokens": 8}, route=path, dialect=dialect)
    choice = answer["choices"][0]
    if path == CHAT:
        reasoning = choice["message"].get("reasoning") or choice["message"].get("reasoning_content")
        assert choice["message"]["content"] == result.texts[0]["text"] and reasoning == result.texts[0]["reasoning"]
    else:
        assert choice["text"] == result.texts[0]["reasoning"] + result.texts[0]["text"]
    assert choice["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 8
    assert answer["usage"]["total_tokens"] == 8 + len(result.prompt_ids)


@pytest.mark.parametrize("dialect", DIALECT_NAMES)
def test_the_other_routes(dialect: str) -> None:
    with MockServer(FAST, dialect=dialect, model="m-1") as server, httpx2.Client(base_url=server.url) as client:
        assert client.get("/v1/models").json()["data"][0]["id"] == "m-1"
        assert client.get("/health").status_code == 200
        assert client.get("/nowhere").status_code == 404
        assert client.get(COMPLETIONS).status_code == 405
        assert client.post("/completion", json={"prompt": "a"}).status_code == (200 if dialect == "llama.cpp" else 404)
        tokens = client.post("/tokenize", json={"prompt": "one two", "content": "one two"})
        if dialect == "transformers":
            assert tokens.status_code == 404
        else:
            assert len(tokens.json()["tokens"]) == 2


@pytest.mark.parametrize(
    ("dialect", "names"),
    [
        ("vllm", ["vllm:inter_token_latency_seconds", "vllm:time_to_first_token_seconds", "vllm:kv_cache_usage_perc"]),
        ("sglang", ["sglang:num_running_reqs", "sglang:time_to_first_token_seconds", "sglang:generation_tokens_total"]),
        (
            "llama.cpp",
            ["llamacpp:requests_processing", "llamacpp:tokens_predicted_total", "llamacpp:requests_deferred"],
        ),
    ],
)
def test_metrics_count_what_was_served(ask: Ask, dialect: str, names: list[str]) -> None:
    with MockServer(Script.steady(5, ttft_us=0, gap_us=1000, plain=True), dialect=dialect) as server:
        ask(server)
        text = httpx2.get(f"{server.url}/metrics").text
    for name in names:
        assert f"# TYPE {name} " in text
    total = next(
        line for line in text.splitlines() if re.match(r"\w+:(generation_tokens|tokens_predicted)_total", line)
    )
    assert float(total.rpartition(" ")[2]) == 5
    samples = [line for line in text.splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z]+:\w+(\{[^}]*\})? [\d.e+-]+", line) for line in samples)


def test_transformers_has_no_metrics() -> None:
    with MockServer(FAST, dialect="transformers") as server:
        assert httpx2.get(f"{server.url}/metrics").status_code == 404


@pytest.mark.parametrize(
    ("dialect", "status", "found"),
    [
        (
            "vllm",
            404,
            {
                "error": {
                    "message": "The model `other` does not exist.",
                    "type": "NotFoundError",
                    "param": "model",
                    "code": 404,
                }
            },
        ),
        ("transformers", 400, {"detail": "Server is pinned to 'mock'; requested 'other'."}),
        ("sglang", 200, None),
        ("llama.cpp", 200, None),
    ],
)
def test_another_model_is_refused_where_the_server_does_so(dialect: str, status: int, found: Any) -> None:
    with MockServer(FAST, dialect=dialect) as server:
        answer = httpx2.post(f"{server.url}{COMPLETIONS}", json={"prompt": "a", "model": "other"})
    assert answer.status_code == status
    assert found is None or answer.json() == found


NO_PROMPT = "prompt is neither a text nor a list of token ids"
FLAT = {"message": NO_PROMPT, "type": "BadRequestError", "param": "prompt", "code": 400}


@pytest.mark.parametrize(
    ("dialect", "found"),
    [
        ("vllm", {"error": FLAT}),
        ("sglang", {"object": "error", **FLAT}),
        ("llama.cpp", {"error": {"code": 400, "message": NO_PROMPT, "type": "invalid_request_error"}}),
        ("transformers", {"detail": "prompt must be a string."}),
    ],
)
def test_errors_have_the_form_of_their_server(dialect: str, found: Any) -> None:
    with MockServer(FAST, dialect=dialect) as server:
        answer = httpx2.post(f"{server.url}{COMPLETIONS}", json={"prompt": 3})
    assert answer.status_code == 400 and answer.json() == found


@pytest.mark.parametrize("dialect", DIALECT_NAMES)
def test_the_head_comes_before_the_first_token_or_with_it(ask: Ask, dialect: str) -> None:
    with MockServer(Script.steady(2, ttft_us=80_000, gap_us=0), dialect=dialect) as server:
        ask(server)
    due = {sent.kind: sent.due_ns for sent in reversed(server.log.of(0))}
    early = dialect in ("vllm", "transformers")
    assert due["text"] - due["head"] == (80_000_000 if early else 0)
