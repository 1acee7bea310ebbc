"""Messages of servers: what real ones sent, how tokens are counted, and that no JSON is an exception of another kind."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokentape.data.schema import CHANNELS
from tokentape.sources.endpoint.chunks import Chunks
from tokentape.sources.endpoint.engines import engine_of
from tokentape.sources.endpoint.events import EventStream
from tokentape.sources.endpoint.messages import Malformed, message_of
from tokentape.sources.endpoint.stamps import Stamp

CAPTURES = Path(__file__).parent / "captures"
INDEX = json.loads((CAPTURES / "index.json").read_text())
STREAMS = sorted(path.name for path in CAPTURES.glob("*.sse"))


def chunks_of(events, n=1, n_top=0):
    """The chunks of the data of some events, and their ticks."""
    chunks, ticks = Chunks(n, n_top), []
    for number, data in enumerate(events):
        if data == b"[DONE]":
            break
        message = message_of(data)
        if message.error is not None:
            break
        tick = chunks.tick(message, Stamp(number, number, True), 0)
        if tick is not None:
            ticks.append(tick)
    return chunks, ticks


def captured(name):
    stream = EventStream()
    return [event.data for event in stream.feed((CAPTURES / name).read_bytes())]


def text_of(ticks, row=0, channel=None):
    wanted = [one for tick in ticks for one in tick.said if one.row == row]
    return b"".join(one.data for one in wanted if channel in (None, CHANNELS[one.channel or 0])).decode()


@pytest.mark.parametrize("name", STREAMS)
def test_a_captured_stream_is_read_whole(name):
    request = INDEX[name]["request"]
    events = captured(name)
    chunks, ticks = chunks_of(events, request.get("n", 1))
    said = {}
    for event in filter(lambda data: data != b"[DONE]", events):
        raw = json.loads(event)
        for choice in raw.get("choices", [raw] if "content" in raw else []):
            delta = choice.get("delta", choice)
            parts = [delta.get(key) or "" for key in ("reasoning_content", "reasoning", "content", "text")]
            index = choice.get("index", 0)
            said[index] = said.get(index, "") + (parts[0] or parts[1]) + parts[2] + parts[3]
    for row, text in said.items():
        assert text_of(ticks, row) == text
    if "error" not in name:
        assert chunks.all_finished


@pytest.mark.parametrize("name", [name for name in STREAMS if "error" not in name])
def test_the_engine_is_known_by_its_first_message_with_text(name):
    server = {"llamacpp": "llama.cpp"}.get(name.partition("-")[0], name.partition("-")[0])
    header = {"llama.cpp": "llama.cpp", "transformers": "uvicorn", "vllm": "uvicorn", "sglang": "uvicorn"}[server]
    raw = json.loads(captured(name)[0])
    assert engine_of(raw, header) in (server, "openai-compatible")
    assert engine_of(raw, header, {"llama.cpp": "llamacpp"}.get(server, server)) == server


LABELS = {
    "llamacpp-completions-logprobs.sse": "exact",
    "llamacpp-chat-logprobs.sse": "exact",
    "llamacpp-completions-end.sse": "exact",
    "llamacpp-completions-timings.sse": "counted",
    "llamacpp-completion.sse": "exact",
    "transformers-completions-end.sse": "coarse",
}


@pytest.mark.parametrize("name", LABELS)
def test_a_captured_stream_is_labelled(name):
    chunks, _ = chunks_of(captured(name), INDEX[name]["request"].get("n", 1))
    assert chunks.label(whole_answer=True)[0] == LABELS[name]


def test_the_ids_and_candidates_of_llama_cpp():
    _, ticks = chunks_of(captured("llamacpp-completions-logprobs.sse"), n_top=3)
    first = ticks[0].said[0]
    assert (first.id, first.data, first.rank) == (555, b" mat", 1)
    assert first.logprob == pytest.approx(-0.7707757353782654)
    assert [token_id for token_id, _ in first.candidates] == [555, 1358, 1016]


def test_the_prompt_of_vllm_is_known_by_its_ids():
    message = message_of(b'{"choices": [{"index": 0, "text": "a", "token_ids": [5], "prompt_token_ids": [1, 2, 3]}]}')
    assert (message.prompt_ids, message.n_prompt) == ((1, 2, 3), 3)
    message = message_of(b'{"prompt_token_ids": [4, 5], "choices": [{"index": 0, "delta": {"role": "assistant"}}]}')
    assert message.prompt_ids == (4, 5)


def event(text=None, *, index=0, finish=None, usage=None, **more):
    body = {"choices": [{"index": index, "text": text or "", "finish_reason": finish, **more}]}
    return json.dumps(body | ({"usage": usage} if usage else {})).encode()


def end(n):
    return json.dumps({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": n}}).encode()


def rows(ticks):
    return [[(one.id, one.data) for one in tick.said] for tick in ticks]


def test_tokens_of_one_message_are_told_apart_by_ids():
    chunks, ticks = chunks_of([event(" a b", token_ids=[1, 2]), event(" c", token_ids=[3], finish="stop"), end(3)])
    assert rows(ticks) == [[(1, b" a b"), (2, b"")], [(3, b" c")]]
    assert chunks.label(whole_answer=True) == ("exact", None)


def test_ids_that_disagree_with_usage_are_not_exact():
    chunks, _ = chunks_of([event(" a", token_ids=[1]), event(" c", token_ids=[3], finish="stop"), end(3)])
    label, why = chunks.label(whole_answer=True)
    assert label == "coarse" and why == "the server counts 3 tokens, and 2 came"


def test_a_running_count_tells_how_many_tokens_a_message_has():
    chunks, ticks = chunks_of(
        [
            event(" a b c", usage={"completion_tokens": 3}),
            event("", usage={"completion_tokens": 4}),
            event(" d", finish="stop", usage={"completion_tokens": 5}),
            end(5),
        ]
    )
    assert rows(ticks) == [[(None, b" a b c"), (None, b""), (None, b"")], [(None, b"")], [(None, b" d")]]
    assert chunks.label(whole_answer=True)[0] == "counted"


def test_a_count_at_the_end_alone_is_no_count_of_a_message():
    chunks, ticks = chunks_of([event(" a b"), event(" c"), event("", finish="stop", usage={"completion_tokens": 5})])
    assert rows(ticks) == [[(None, b" a b")], [(None, b" c")], []]
    assert chunks.label(whole_answer=True)[0] == "coarse"


def test_as_many_messages_as_tokens_are_counted_unless_one_is_empty():
    counted, _ = chunks_of([event(" a"), event(" b", finish="stop"), end(2)])
    assert counted.label(whole_answer=True) == ("counted", None)
    empty, _ = chunks_of([event(" a"), event(""), event(" b", finish="stop"), end(2)])
    assert empty.label(whole_answer=True)[0] == "coarse"


def test_a_character_over_several_tokens_keeps_its_bytes_apart():
    cat = "猫".encode()
    parts = [
        {"content": [{"token": "�", "bytes": list(cat[:2]), "logprob": -1.0}]},
        {"content": [{"token": "�", "bytes": list(cat[2:]), "logprob": -0.5}]},
    ]
    _, ticks = chunks_of([event("", logprobs=parts[0]), event("猫", logprobs=parts[1])])
    assert rows(ticks) == [[(None, cat[:2])], [(None, cat[2:])]]
    # where the bytes are those of the replacement character, the text stands with the token that completes it
    lost = {"content": [{"token": "�", "bytes": list("�".encode()), "logprob": -1.0}]}
    _, ticks = chunks_of([event("", logprobs=lost), event("猫", logprobs=lost)])
    assert rows(ticks) == [[(None, b"")], [(None, cat)]]


def test_a_stop_string_that_the_server_keeps_back_is_not_in_the_text():
    told = {"content": [{"token": " stop", "bytes": list(b" stop"), "logprob": -1.0}]}
    _, ticks = chunks_of([event("", logprobs=told, finish="stop")])
    assert rows(ticks) == [[(None, b"")]]


def test_tokens_named_by_their_ids():
    told = {
        "tokens": ["token_id:7"],
        "token_logprobs": [-0.5],
        "top_logprobs": [{"token_id:7": -0.5, "token_id:9": -1.5}],
    }
    _, ticks = chunks_of([event(" x", logprobs=told)], n_top=2)
    (said,) = ticks[0].said
    assert (said.id, said.data, said.rank, said.candidates) == (7, b" x", 1, ((7, -0.5), (9, -1.5)))


def test_candidates_without_ids_are_not_kept():
    told = {"tokens": [" x"], "token_logprobs": [-0.5], "top_logprobs": [{" x": -0.5, " y": -1.5}]}
    _, ticks = chunks_of([event(" x", logprobs=told)], n_top=2)
    assert ticks[0].said[0].candidates is None


def test_a_rank_beyond_the_candidates_is_not_known():
    told = {"tokens": [" z"], "token_logprobs": [-3.0], "top_logprobs": [{" x": -0.5, " y": -1.5, " z": -3.0}]}
    _, ticks = chunks_of([event(" z", logprobs=told)], n_top=2)
    assert ticks[0].said[0].rank is None


def test_choices_come_interleaved():
    chunks, ticks = chunks_of(
        [event("b", index=1), event("a"), event("B", index=1, finish="stop"), event("A", finish="length")], 2
    )
    assert (text_of(ticks, 0), text_of(ticks, 1)) == ("aA", "bB")
    assert [row.finish for row in chunks.rows] == ["length", "stop"]
    with pytest.raises(Malformed, match="choice 2 came"):
        chunks_of([event("c", index=2)], 2)


def test_reasoning_and_tools_have_channels():
    def delta(**parts):
        return json.dumps({"choices": [{"index": 0, "delta": parts}]}).encode()

    call = [{"index": 0, "function": {"name": "look", "arguments": '{"at": 1}'}}]
    _, ticks = chunks_of([delta(reasoning_content="hm"), delta(content="so"), delta(tool_calls=call)])
    assert text_of(ticks, channel="reasoning") == "hm"
    assert text_of(ticks, channel="text") == "so"
    assert text_of(ticks, channel="tool") == 'look{"at": 1}'


@pytest.mark.parametrize(
    "error",
    [
        '{"error": {"message": "no", "code": 500}}',
        '{"error": "no"}',
        '{"object": "error", "message": "no"}',
        '{"detail": "no"}',
    ],
)
def test_errors_of_every_form(error):
    assert message_of(error.encode()).error == "no"


FIELDS = """choices index text delta content tool_calls function name arguments logprobs tokens token_logprobs top_logprobs token
logprob bytes id token_ids prompt_token_ids usage timings completion_tokens prompt_tokens predicted_n prompt_n cache_n finish_reason
stop stop_reason error detail reasoning_content role prompt_progress total completion_probabilities""".split()
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(FIELDS),
            inner,
            max_size=6,
        ),
    ),
    max_leaves=25,
)


@given(st.lists(JSON, max_size=4), st.integers(1, 3))
def test_no_json_is_an_exception_of_another_kind(values, n):
    chunks = Chunks(n, 2)
    for value in values:
        try:
            message = message_of(json.dumps(value).encode())
            chunks.tick(message, Stamp(0, 0, True), 0)
        except Malformed:
            continue
    label, _ = chunks.label(whole_answer=True)
    assert label in (None, "exact", "counted", "coarse")


@given(st.binary(max_size=60))
def test_no_bytes_are_an_exception_of_another_kind(data):
    with contextlib.suppress(Malformed):
        message_of(data)


def test_numbers_that_are_none():
    told = '{"choices": [{"index": 0, "text": "a", "logprobs": {"tokens": ["a"], "token_logprobs": [-Infinity]}}]}'
    _, ticks = chunks_of([told.encode()])
    assert ticks[0].said[0].logprob is None
    with pytest.raises(Malformed):
        message_of(b"[" * 100_000)
