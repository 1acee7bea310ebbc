"""Every fault does what its name says, seen as bytes on a socket."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from mock_client import CHAT, COMPLETIONS, Seen, connected, read_all, request_bytes, timeless

from tokentape.mock.dialects.choosing import DIALECTS
from tokentape.mock.expecting import expected
from tokentape.mock.faults import FAULTS, Fault, parse_fault
from tokentape.mock.script import Script
from tokentape.mock.serving import MockServer
from tokentape.mock.vocabulary import Speech

USAGE = {"stream_options": {"include_usage": True}}
BODY = {"prompt": "Hi", "stream": True, **USAGE, "return_token_ids": True}
N = 6
Ask = Callable[..., Seen]
TRIED: set[str] = set()


@pytest.fixture
def broken(ask: Ask) -> Callable[..., Seen]:
    """``broken("stall:at=1 crlf")``: what a server with these faults sends."""

    def broken(faults: str, body: Any = None, path: str = COMPLETIONS, *, dialect: str = "vllm", **more: Any) -> Seen:
        given = tuple(parse_fault(fault) for fault in faults.split())
        TRIED.update(fault.name for fault in given)
        script = Script.steady(N, ttft_us=1_000, gap_us=1_000, faults=given, **more.pop("script", {}))
        with MockServer(script, dialect=dialect) as server:
            seen = ask(server, BODY if body is None else body, path, **more)
            seen_log.append(server.log)
            return seen

    return broken


seen_log: list[Any] = []


def texts(seen: Seen) -> list[str]:
    return [m["choices"][0]["text"] for m in seen.messages if m.get("choices")]


def words(n: int = N) -> list[str]:
    return [token.data.decode() for token in Speech(0).first(n)]


def ids(seen: Seen) -> list[Any]:
    return [m["choices"][0]["token_ids"] for m in seen.messages if m.get("choices")]


IDS = [[token.id] for token in Speech(0).first(N)]


# instead of an answer


@pytest.mark.parametrize("code", [400, 401, 404, 422, 429, 500, 503])
def test_status(broken: Ask, code: int) -> None:
    seen = broken(f"status:code={code},retry_after=7")
    assert seen.status == code and seen.field("retry-after") == "7"
    assert "error" in json.loads(seen.body)


def test_status_with_other_bodies(broken: Ask) -> None:
    assert broken("status:body=html").body.startswith(b"<!DOCTYPE html>")
    assert broken("status:body=text,message=overloaded").body == b"overloaded"
    assert broken("status:body=empty").body == b""


def test_refuse_names_the_field(broken: Ask) -> None:
    seen = broken("refuse:fields=logprobs+return_token_ids,code=400")
    assert seen.status == 400 and json.loads(seen.body)["error"]["param"] == "return_token_ids"
    inner = broken("refuse:fields=stream_options.include_usage")
    assert inner.status == 422 and b"stream_options.include_usage" in inner.body
    assert broken("refuse:fields=logprobs+echo").status == 200


def test_html_and_redirect(broken: Ask) -> None:
    seen = broken("html")
    assert seen.status == 200 and seen.field("content-type") == "text/html; charset=utf-8" and b"<html>" in seen.body
    moved = broken("redirect:code=308,to=/v2/completions")
    assert moved.status == 308 and moved.field("location") == "/v2/completions"


def test_silence_answers_nothing_and_keeps_the_connection(broken: Ask) -> None:
    seen = broken("silence")
    assert seen.data == b"" and seen.ended is None


def test_hang_up(broken: Ask, ask: Ask) -> None:
    seen = broken("hang_up")
    assert seen.data == b"" and seen.ended == "closed"
    with MockServer(
        [Script.steady(1, faults=(Fault("hang_up", {"when": "accept"}),)), Script.steady(1, ttft_us=0)]
    ) as server:
        with connected(server.url) as client:
            assert read_all(client, quiet_s=1.0).ended == "closed"  # before anything was asked
        assert ask(server).events[-1] == "[DONE]"


# the head


def due(log: Any, kind: str) -> float:
    """When the first send of a kind was due, in microseconds since the request."""
    return next(sent.due_ns - log.served[0].read_ns for sent in log.sent if sent.kind == kind) / 1000


@pytest.mark.parametrize("dialect", list(DIALECTS))
def test_slow_head_and_late(broken: Ask, dialect: str) -> None:
    body = {"prompt": "Hi", "stream": True}
    early = DIALECTS[dialect].early_head
    broken("slow_head:us=50000", body, dialect=dialect)
    assert due(seen_log[-1], "head") == (50_000 if early else 51_000)
    assert due(seen_log[-1], "text") == (50_000 if early else 51_000)
    broken("late:us=50000", body, dialect=dialect)
    assert due(seen_log[-1], "head") == (0 if early else 51_000)
    assert due(seen_log[-1], "text") == 51_000


def test_trickle_sends_the_head_byte_by_byte(broken: Ask) -> None:
    seen = broken("trickle:us=100")
    heads = [sent for sent in seen_log[-1].sent if sent.kind == "head"]
    assert [sent.n_bytes for sent in heads] == [1] * (len(seen.head) + 4)
    assert heads[9].due_ns - heads[8].due_ns == 100_000
    assert texts(seen) == words()


def test_content_type(broken: Ask) -> None:
    assert broken("content_type:type=application/json").field("content-type") == "application/json"


def test_length_tells_the_length_of_all_that_comes(broken: Ask) -> None:
    seen = broken("length")
    assert int(seen.field("content-length") or 0) == len(seen.after_head) and seen.field("transfer-encoding") is None
    assert texts(seen) == words()
    assert len({sent.due_ns for sent in seen_log[-1].sent if sent.kind == "text"}) == N  # still on its schedule


def test_http10_ends_with_its_connection(broken: Ask) -> None:
    seen = broken("http10", headers={"connection": "keep-alive"})
    assert seen.data.startswith(b"HTTP/1.0 200") and seen.ended == "closed"
    assert seen.field("transfer-encoding") is None and seen.field("content-length") is None
    assert seen.after_head.endswith(b"data: [DONE]\n\n")


def test_no_keep_closes(broken: Ask) -> None:
    seen = broken("no_keep", headers={"connection": "keep-alive"})
    assert seen.field("connection") == "close" and seen.ended == "closed"
    assert broken("crlf", headers={"connection": "keep-alive"}).ended is None


def test_gzip_can_be_read_as_it_comes(broken: Ask) -> None:
    seen = broken("gzip")
    assert seen.field("content-encoding") == "gzip"
    unpacker = zlib.decompressobj(wbits=31)
    parts = [unpacker.decompress(chunk) for chunk in seen.chunks]
    assert unpacker.eof
    assert [part.count(b"data: ") for part in parts] == [1] * (N + 2) + [0]
    whole = broken("gzip", {"prompt": "Hi"})
    assert json.loads(zlib.decompress(whole.body, wbits=31))["usage"]["completion_tokens"] == N


# which messages there are


def test_stall(broken: Ask) -> None:
    seen = broken("stall:at=2,us=40000")
    moments = [sent.due_ns for sent in seen_log[-1].sent if sent.kind == "text"]
    assert [round((two - one) / 1000) for one, two in pairwise(moments)] == [
        1000,
        41000,
        1000,
        1000,
        1000,
    ]
    assert texts(seen) == words()
    hangs = broken("stall:at=2,forever=1")
    assert texts(hangs) == words(2) and hangs.ended is None
    assert not hangs.data.endswith(b"0\r\n\r\n")


@pytest.mark.parametrize("dialect", list(DIALECTS))
def test_error_event(broken: Ask, dialect: str) -> None:
    seen = broken("error_event:at=2", {"prompt": "Hi", "stream": True}, dialect=dialect)
    error = next(message for message in seen.messages if "error" in message)
    assert seen.messages.index(error) == 2
    assert isinstance(error["error"], str if dialect == "transformers" else dict)
    rest = seen.events[3:]
    assert rest == ([] if dialect == "transformers" else ["[DONE]"])


def test_error_event_in_other_forms_and_what_follows(broken: Ask) -> None:
    openai = broken("error_event:at=1,form=openai,then=go_on")
    assert openai.messages[1]["error"]["type"] == "server_error"
    assert len(openai.messages) == N + 2 and openai.events[-1] == "[DONE]"
    string = broken("error_event:at=0,form=string,then=cut")
    assert string.messages == [{"error": "The engine stopped."}]
    assert string.ended == "closed" and not string.data.endswith(b"0\r\n\r\n")
    assert broken("error_event:form=vllm,then=end").data.endswith(b"0\r\n\r\n")


def test_done(broken: Ask) -> None:
    without = broken("no_done")
    assert "[DONE]" not in without.events and texts(without) == words() and without.data.endswith(b"0\r\n\r\n")
    after = broken("after_done")
    assert after.events[-2] == "[DONE]" and json.loads(after.events[-1])["choices"][0]["text"] == words()[-1]


def usages(seen: Seen) -> list[int]:
    return [message["usage"]["completion_tokens"] for message in seen.messages if message.get("usage")]


def test_usage(broken: Ask) -> None:
    assert usages(broken("crlf", {"prompt": "Hi"})) == []  # it is no stream: see below
    assert json.loads(broken("no_usage", {"prompt": "Hi"}).body).get("usage") is None
    assert json.loads(broken("wrong_usage:by=3", {"prompt": "Hi"}).body)["usage"]["completion_tokens"] == N + 3
    assert usages(broken("no_usage")) == []
    assert usages(broken("wrong_usage:by=2")) == [N + 2]
    assert usages(broken("wrong_usage:by=-2")) == [N - 2]
    assert usages(broken("wrong_usage:by=-99")) == [0]
    assert usages(broken("twice_usage")) == [N, N]
    plain = {"prompt": "Hi", "stream": True}
    assert usages(broken("no_usage", plain, dialect="transformers")) == []
    assert usages(broken("wrong_usage:by=1", plain, dialect="transformers")) == [N + 1]


def test_empty_messages(broken: Ask) -> None:
    seen = broken("empty:at=2,n=2")
    assert texts(seen) == [*words(2), "", "", *words()[2:]]
    assert ids(seen) == [*IDS[:2], [], [], *IDS[2:]]
    bare = broken("empty_choices:at=1,n=2")
    assert [len(message["choices"]) for message in bare.messages] == [1, 0, 0, 1, 1, 1, 1, 1, 0]
    assert usages(bare) == [N]


def test_role_again(broken: Ask) -> None:
    body = {"messages": [], "stream": True}
    deltas = [m["choices"][0]["delta"] for m in broken("role_again:at=2", body, CHAT).messages]
    assert [index for index, delta in enumerate(deltas) if "role" in delta] == [0, 3]
    assert deltas[3] == {"role": "assistant"}


def test_ids_and_texts_apart(broken: Ask) -> None:
    assert ids(broken("no_ids:at=2")) == [*IDS[:2], None, None, None, None]
    assert texts(broken("no_ids:at=2")) == words()
    missing = broken("missing_id:at=2")
    assert ids(missing) == [*IDS[:2], [], *IDS[3:]] and texts(missing) == words()
    held = broken("no_text:at=1,n=2")
    assert texts(held) == [words()[0], "", "", "".join(words()[1:4]), *words()[4:]] and ids(held) == IDS
    chat = broken("no_text:at=1,n=9", {"messages": [], "stream": True}, CHAT)
    said = [m["choices"][0]["delta"]["content"] for m in chat.messages]
    assert said == ["", words()[0], "", "", "", "", "".join(words()[1:])]  # the last has what was held back
    probs = broken("no_logprobs:at=3", {"prompt": "Hi", "stream": True, "logprobs": 1})
    assert [m["choices"][0]["logprobs"] is None for m in probs.messages] == [False] * 3 + [True] * 3


@pytest.mark.parametrize("dialect", list(DIALECTS))
def test_finish(broken: Ask, dialect: str) -> None:
    def reasons(faults: str) -> list[str]:
        seen = broken(faults, {"prompt": "Hi", "stream": True}, dialect=dialect)
        return [c["finish_reason"] for m in seen.messages for c in m["choices"] if c.get("finish_reason")]

    assert reasons("crlf".replace("crlf", "escaped")) == ["stop"]
    assert reasons("no_finish") == []
    assert reasons("finish:reason=content_filter") == ["content_filter"]


def test_broken_messages(broken: Ask) -> None:
    bad = broken("bad_json:at=1")
    with pytest.raises(ValueError):
        json.loads(bad.events[1])
    assert len(bad.events) == N + 3
    wrong = broken("wrong_types:at=1").messages[1]
    assert wrong["usage"] == "much" and isinstance(wrong["choices"][0]["text"], int)
    double = broken("duplicate:at=1")
    assert texts(double) == [words()[0], words()[1], words()[1], *words()[2:]]
    big = broken("huge:at=1,bytes=200000")
    assert len(big.messages[1]["padding"]) == 200_000 and texts(big) == words()


def test_shuffle_keeps_the_order_within_a_choice(broken: Ask) -> None:
    seen = broken("shuffle", {**BODY, "n": 3})
    order = [m["choices"][0]["index"] for m in seen.messages if m["choices"]]
    assert sorted(order) == [0] * N + [1] * N + [2] * N and order != [0, 1, 2] * N
    for choice in range(3):
        said = [m["choices"][0] for m in seen.messages if m["choices"] and m["choices"][0]["index"] == choice]
        assert [one["token_ids"] for one in said] == [[token.id] for token in Speech(0, choice).first(N)]
    moments = [sent.due_ns for sent in seen_log[-1].sent if sent.kind == "text"]
    assert len(set(moments)) == N


def test_endless_goes_past_every_limit() -> None:
    script = Script.steady(2, ttft_us=0, gap_us=100, faults=(Fault("endless"),))
    TRIED.add("endless")
    with MockServer(script) as server, connected(server.url) as client:
        client.sendall(request_bytes(COMPLETIONS, {**BODY, "max_tokens": 3}))
        data = b""
        while data.count(b"data: ") < 50:
            data += client.recv(1 << 16)
    assert b"[DONE]" not in data and b'"finish_reason":"' not in data


# how a message is written


def test_line_ends(broken: Ask) -> None:
    plain = broken("stop:at=99").body
    assert b"\r" not in plain
    with_cr_lf = broken("crlf").body
    assert with_cr_lf.count(b"\r\n") == with_cr_lf.count(b"\n") == plain.count(b"\n")
    with_cr = broken("cr").body
    assert b"\n" not in with_cr and with_cr.count(b"\r") == plain.count(b"\n")


def test_marks_and_fields(broken: Ask) -> None:
    assert broken("bom").body.startswith(b"\xef\xbb\xbfdata: {") and broken("bom").body.count(b"\xef\xbb\xbf") == 1
    assert b"data: " not in broken("no_space").body and broken("no_space").body.count(b"data:{") == N + 1
    comments = broken("comments:every=2,text=ping").body
    assert comments.count(b":ping\n\n") == (N + 3) // 2 and comments.startswith(b":ping\n\ndata: ")
    fields = broken("fields").body
    assert fields.startswith(b"event: message\nid: 0\nretry: 3000\ndata: ") and fields.count(b"retry: ") == N + 2


def test_json_on_several_lines_and_in_ascii(broken: Ask) -> None:
    several = broken("multi_line")
    assert several.body.count(b"data: ") > 10 * N and texts(several) == words()
    script = {"seed": 3}
    ascii_only = broken("escaped", script=script)
    assert ascii_only.body.isascii() and texts(ascii_only) == texts(broken("stop:at=99", script=script))


# the bytes that are sent


@pytest.mark.parametrize(
    ("where", "first"),
    [("field", b"da"), ("middle", None), ("newline", None), ("utf8", None), ("1", b"d"), ("9", b'data: {"i')],
)
def test_split_sends_a_message_in_two(broken: Ask, where: str, first: bytes | None) -> None:
    script = {"seed": 0}  # has a character of several bytes among its first tokens
    whole = broken("stop:at=99", script=script).chunks
    seen = broken(f"split:where={where},us=2000", script=script)
    assert timeless(b"".join(seen.chunks[:-1])) == timeless(b"".join(whole[:-1]))
    parts = [sent for sent in seen_log[-1].sent if sent.kind == "part"]
    ends = [sent for sent in seen_log[-1].sent if sent.kind in ("text", "usage", "done")]
    if where == "utf8":
        assert parts
        for sent in parts:
            with pytest.raises(UnicodeDecodeError):
                (sent.data or b"").decode()
    else:
        assert len(parts) == len(ends) == N + 2
    assert all(sent.n_messages == 0 for sent in parts) and all(sent.n_messages == 1 for sent in ends)
    for part in parts:
        rest = next(sent for sent in ends if sent.place > part.place)
        assert rest.due_ns - part.due_ns == 2_000_000
    if first is not None:
        assert seen.chunks[0] == first
    if where == "newline":
        assert seen.chunks[1] == b"\n"


def test_split_frame_sends_sizes_apart(broken: Ask) -> None:
    seen = broken("split_frame:us=500")
    sizes = [sent.data for sent in seen_log[-1].sent if sent.kind == "part"]
    assert sizes[0] == b"%x\r\n" % len(seen.chunks[0]) and sizes[1] == b"\r\n"
    assert texts(seen) == words()


def test_coalesce_sends_together_when_the_last_is_due(broken: Ask) -> None:
    seen = broken("coalesce:n=3")
    assert [chunk.count(b"data: ") for chunk in seen.chunks] == [3, 3, 2, 0]
    texts_sent = [sent for sent in seen_log[-1].sent if sent.kind == "text"]
    assert [(sent.n_messages, sent.n_tokens) for sent in texts_sent] == [(3, 3), (3, 3)]
    assert [sent.due_ns - seen_log[-1].served[0].read_ns for sent in texts_sent] == [3_000_000, 6_000_000]
    assert broken("coalesce:n=99").chunks[0].count(b"data: ") == N + 2


def test_bytewise_sends_every_byte_alone(broken: Ask) -> None:
    seen = broken("bytewise")
    assert {len(chunk) for chunk in seen.chunks[:-1]} == {1} and texts(seen) == words()
    assert sum(sent.n_messages for sent in seen_log[-1].sent) == N + 2
    broken("coalesce:n=2 bytewise:us=20")
    parts = [sent for sent in seen_log[-1].sent if sent.kind == "part"]
    assert parts[5].due_ns - parts[4].due_ns == 20_000


# how it ends


def test_reset(broken: Ask) -> None:
    seen = broken("reset:at=2")
    assert seen.ended == "reset" and texts(seen) == words(2) and seen_log[-1].served[0].how == "reset"
    partial = broken("reset:at=2,bytes=10")
    assert partial.ended == "reset" and partial.data.endswith(b'\r\ndata: {"id')
    at_once = broken("reset:at=0")
    assert at_once.ended == "reset" and at_once.status == 200 and at_once.after_head == b""


def test_cut(broken: Ask) -> None:
    seen = broken("cut:at=2")
    assert seen.ended == "closed" and texts(seen) == words(2) and not seen.data.endswith(b"0\r\n\r\n")
    partial = broken("cut:at=2,bytes=10")
    size = int(partial.data.rpartition(b"\r\n")[0].rpartition(b"\r\n")[2], 16)
    assert size > 200 and partial.chunks[2] == b'data: {"id'
    with_length = broken("cut:at=2,bytes=10 length")
    assert int(with_length.field("content-length") or 0) > len(with_length.after_head)


def test_stop_looks_whole_but_has_no_end(broken: Ask) -> None:
    seen = broken("stop:at=2")
    assert texts(seen) == words(2) and seen.data.endswith(b"0\r\n\r\n") and "[DONE]" not in seen.events


def test_faults_of_the_server_come_beside_those_of_the_script(ask: Ask) -> None:
    with MockServer(Script.steady(2, ttft_us=0, faults=(Fault("no_done"),)), faults=["bom", "comments"]) as server:
        seen = ask(server)
    assert seen.body.startswith(b"\xef\xbb\xbf:") and "[DONE]" not in seen.events


def test_a_fault_that_is_never_reached_changes_nothing(broken: Ask) -> None:
    plain = expected(Script.steady(N, ttft_us=1_000, gap_us=1_000), BODY)
    for faults in ("stall:at=99", "cut:at=99", "reset:at=99", "error_event:at=99", "empty:at=99", "duplicate:at=99"):
        given = Script.steady(N, ttft_us=1_000, gap_us=1_000, faults=(parse_fault(faults),))
        changed = expected(given, BODY)
        assert [timeless(m.data) for m in changed.moments] == [timeless(m.data) for m in plain.moments]


def test_every_fault_was_tried() -> None:
    assert set(FAULTS) == TRIED, sorted(set(FAULTS) - TRIED)
