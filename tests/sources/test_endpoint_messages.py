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


@pytest.mark.parametrize("n_usage", [1, 3, 9])
def test_where_usage_contradicts_the_ids_that_came_these_are_what_counts(n_usage):
    chunks, ticks = chunks_of([event(" a", token_ids=[1]), event(" c", token_ids=[3], finish="stop"), end(n_usage)])
    assert chunks.label(whole_answer=True) == ("counted", f"usage says {n_usage}, 2 ids came")
    assert rows(ticks) == [[(1, b" a")], [(3, b" c")]] and chunks.n_completion == n_usage
    named, _ = chunks_of([event("a", logprobs=entry("a")), event("", finish="stop"), end(n_usage + 1)])
    assert named.label(whole_answer=True) == ("counted", f"usage says {n_usage + 1}, 1 tokens came")


def timed(text, n, logprobs=None, *, finish=None, **more):
    """A message of llama.cpp with its running count."""
    choice = {"index": 0, "text": text, "finish_reason": finish, "logprobs": logprobs}
    return json.dumps({"choices": [choice], "timings": {"predicted_n": n}, **more}).encode()


def test_tokens_that_leave_a_character_unfinished_are_counted_by_timings():
    """As llama.cpp's server sent it, asked for waves by a grammar: of the four tokens of a wave it tells the last."""
    wave = "\N{WATER WAVE}"
    events = [
        timed(wave, 4, entry(wave, 236)),
        timed("a", 5, entry("a", 68)),
        timed(wave, 9, entry(wave, 236)),
        timed("", 9, finish="length", usage={"prompt_tokens": 2, "completion_tokens": 9}),
    ]
    chunks, ticks = chunks_of(events)
    left_out, told = [(None, b"")] * 3, (236, wave.encode())
    assert rows(ticks) == [[*left_out, told], [(68, b"a")], [*left_out, told], []]
    assert chunks.label(whole_answer=True) == ("counted", "6 tokens inside characters are counted, and not told")
    # without the running counts nobody can tell where those were that usage counts too
    bare, ticks = chunks_of([event(wave, logprobs=entry(wave, 236)), event("", finish="length"), end(4)])
    assert bare.label(whole_answer=True) == ("counted", "usage says 4, 1 ids came")
    # who counts with usage tells all tokens: there more of them are a contradiction, and no rows
    lied = [event("abcd", token_ids=[7], usage={"completion_tokens": 3}), event("", finish="stop"), end(3)]
    chunks, ticks = chunks_of(lied)
    assert rows(ticks)[0] == [(7, b"abcd")]
    assert chunks.label(whole_answer=True) == ("counted", "usage says 3, 1 ids came")


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
    label, why = counted.label(whole_answer=True)
    assert label == "counted" and "each of them may be one" in why
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


def test_a_choice_that_was_not_asked_for_does_not_lose_the_others():
    both = {"choices": [{"index": 1 << 70, "text": "x"}, {"index": 0, "text": "a"}, {"index": 2, "text": "c"}]}
    message = message_of(json.dumps(both).encode())
    tick = Chunks(2).tick(message, Stamp(0, 0, True), 0)
    assert [(one.row, one.data) for one in tick.said] == [(0, b"a")]
    assert len(message.problems) == 2 and "2 were asked for" in message.problems[0]


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


# what a server says that cannot be


@pytest.mark.parametrize("count", [17 + 16 + 1, 3_000_000_000, 20_000_000, 1 << 61, 1 << 70])
def test_a_count_that_no_text_can_have_is_no_count(count):
    chunks, ticks = chunks_of(
        [
            event("a", usage={"completion_tokens": 1}),
            event("b" * 16, usage={"completion_tokens": count}),
            event("c", usage={"completion_tokens": count + 1}, finish="stop"),
        ]
    )
    assert [len(tick.said) for tick in ticks] == [1, 1, 1]
    assert chunks.label(whole_answer=True)[0] == "coarse"


def test_a_count_that_goes_back_is_no_count():
    chunks, ticks = chunks_of([event("a", usage={"completion_tokens": n}) for n in (3, 2, 1)])
    assert [len(tick.said) for tick in ticks] == [3, 1, 1]
    assert chunks.label(whole_answer=True) == ("coarse", "the server's count goes back by 1 tokens")


def test_more_tokens_than_were_asked_for_are_not_believed():
    chunks = Chunks(1, most_tokens=100)
    for data in (event("a", finish="stop"), end(2_000)):
        chunks.tick(message_of(data), Stamp(0, 0, True), 0)
    assert chunks.n_completion is None
    chunks.tick(message_of(end(100)), Stamp(0, 0, True), 0)
    assert chunks.n_completion == 100


@pytest.mark.parametrize(
    "broken",
    [
        {"usage": []},
        {"usage": "much"},
        {"timings": 3},
        {"model": 7},
        {"id": {}},
        {"prompt_token_ids": [-1]},
        {"choices": [{"index": 0, "text": "IMPORTANT", "token_ids": [1 << 70]}]},
        {"choices": [{"index": 0, "text": "IMPORTANT", "logprobs": [1]}]},
        {"choices": [{"index": 0, "text": "IMPORTANT", "logprobs": {"tokens": [1]}}]},
        {"choices": [{"index": 0, "text": "IMPORTANT", "finish_reason": 1}]},
        {"choices": [None, 3, {"index": "0", "text": "x"}, {"index": 0, "text": "IMPORTANT"}]},
        {"choices": [{"index": 0, "delta": {"content": "IMPORTANT", "tool_calls": 5}}]},
    ],
)
def test_one_bad_field_does_not_lose_the_text(broken):
    body = {"choices": [{"index": 0, "text": "IMPORTANT"}]} | broken
    message = message_of(json.dumps(body).encode())
    assert len(message.problems) >= 1
    assert [choice.text for choice in message.choices] == ["IMPORTANT"]


def test_an_integer_of_thousands_of_digits_does_not_lose_the_text():
    data = b'{"choices": [{"index": 0, "text": "a"}], "usage": {"completion_tokens": ' + b"9" * 5000 + b"}}"
    message = message_of(data)
    assert message.choices[0].text == "a" and message.usage["completion_tokens"] is None


def test_lone_surrogates_become_the_replacement_character():
    told = {"tokens": ["\ud800"], "token_logprobs": [-1.0], "top_logprobs": [{"\ud800": -1.0}]}
    message = message_of(
        json.dumps({"id": "x\ud800", "choices": [{"index": 0, "text": "a\ud800b", "logprobs": told}]}).encode()
    )
    assert (message.request_id, message.choices[0].text) == ("x\ufffd", "a\ufffdb")
    assert message.choices[0].entries[0].token == "\ufffd"
    pair = message_of(b'{"choices": [{"index": 0, "text": "\\ud83d\\udc08"}]}')
    assert pair.choices[0].text == "🐈"


@pytest.mark.parametrize("logprob", [5.0, 1e-5, -1e308, -10_001, 10**400])
@pytest.mark.parametrize("token_id", [3, None])
def test_a_log_probability_that_is_none_is_null_and_told(logprob, token_id):
    told = {"content": [{"id": token_id, "token": "a", "logprob": logprob}]}
    chunks, ticks = chunks_of([event("a", logprobs=told)])
    assert ticks[0].said[0].logprob is None and ticks[0].said[0].id == token_id
    # the id says which token it is, whatever else does not
    assert chunks.label(whole_answer=True) == (
        "coarse" if token_id is None else "exact",
        "a log-probability is none: it is above 0, or below every other",
    )


@pytest.mark.parametrize("logprob", [0.0, 1e-7, -9999.0])
def test_a_log_probability_at_the_edge_is_one(logprob):
    chunks, ticks = chunks_of([event("a", logprobs={"content": [{"id": 3, "token": "a", "logprob": logprob}]})])
    assert ticks[0].said[0].logprob == logprob and chunks.label(whole_answer=True)[0] == "exact"


def test_a_candidate_that_comes_twice_is_none():
    top = [{"id": 3, "token": "a", "logprob": -1.0}, {"id": 3, "token": "b", "logprob": -2.0}]
    _, ticks = chunks_of(
        [event("a", logprobs={"content": [{"id": 3, "token": "a", "logprob": -1.0, "top_logprobs": top}]})], n_top=5
    )
    assert ticks[0].said[0].candidates is None


# whether the tokens are those of the text


def entry(text, token_id=None):
    return {"content": [{"id": token_id, "token": text, "bytes": list(text.encode()), "logprob": -1.0}]}


@pytest.mark.parametrize(
    ("events", "why"),
    [
        ([event("cats and dogs", logprobs=entry("zebra", 9))], "the text of a message is not that of its tokens"),
        ([event("a", token_ids=[1], logprobs=entry("a", 2))], "an id is another one than that of its log-probability"),
        (
            [event("a", token_ids=[1]), event("b", token_ids=[1, 2]), event("c", token_ids=[1, 2, 3])],
            "every message repeats the ids of the one before",
        ),
        (
            [event("HELLO WORLD and much more", token_ids=[5]), event("x", token_ids=[6])],
            "5 words came, and 2 tokens are told",
        ),
    ],
)
@pytest.mark.parametrize("n_usage", [None, "as many"])
def test_tokens_that_are_not_those_of_the_text_are_not_exact(events, why, n_usage):
    n = sum(len(json.loads(one)["choices"][0].get("token_ids") or [0]) for one in events)
    chunks, _ = chunks_of([*events, event("", finish="stop"), *([end(n)] if n_usage else [])])
    assert chunks.label(whole_answer=True) == ("coarse", why)


def test_text_that_is_held_back_is_still_that_of_its_tokens():
    """Servers keep back what may become a stop string, and leave out special tokens and the spaces of single tokens."""
    chunks, _ = chunks_of(
        [
            event("He", logprobs=entry("Hello", 1)),
            event("llo wo", logprobs=entry(" world", 2)),
            event("", logprobs=entry("<|sep|>", 3)),
            event("rld the", logprobs=entry("▁the", 4)),
            event("", logprobs=entry(" STOP", 5), finish="stop"),
            end(5),
        ]
    )
    assert chunks.label(whole_answer=True) == ("exact", None)


@given(st.lists(st.text(alphabet="ab é猫\n", min_size=1, max_size=4), min_size=1, max_size=12), st.integers(0, 5))
def test_no_true_stream_is_doubted(tokens, behind):
    """Text that comes in order, be it late, of tokens of which none has two words."""
    tokens = [token.split()[0] if len(token.split()) > 1 else token for token in tokens]
    whole_text, events, said = "".join(tokens), [], 0
    for number, token in enumerate(tokens):
        upto = len(whole_text) if number == len(tokens) - 1 else max(said, len("".join(tokens[: number + 1])) - behind)
        events.append(event(whole_text[said:upto], token_ids=[number], logprobs=entry(token, number)))
        said = upto
    chunks, _ = chunks_of([*events, event("", finish="stop"), end(len(tokens))])
    assert chunks.label(whole_answer=True) == ("exact", None)


def test_as_many_messages_as_tokens_is_no_count_where_one_is_two_words():
    chunks, _ = chunks_of(
        [event("one two three"), event(" fo"), event("ur"), event("!"), event("", finish="stop"), end(4)]
    )
    label, why = chunks.label(whole_answer=True)
    assert label == "coarse" and why.startswith("1 of the messages are more than a token")


@pytest.mark.parametrize("body", ['"error": {}', '"error": ""', '"error": false', '"detail": "info only", "id": "r"'])
def test_what_is_no_error(body):
    message = message_of(f'{{{body}, "choices": [{{"index": 0, "text": "a"}}]}}'.encode())
    assert message.error is None and message.choices[0].text == "a"
    assert message_of(f"{{{body}}}".encode()).error is None
