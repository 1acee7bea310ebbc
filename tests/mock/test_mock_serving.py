"""How requests are served: when each send happens, slots, keys, connections, TLS, a process of its own, and the log of it all."""

from __future__ import annotations

import json
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mock_client import CHAT, COMPLETIONS, connected, read_all, request_bytes, timeless

from tokentape.errors import UsageError
from tokentape.mock.expecting import expected
from tokentape.mock.log import Log, Sent, lateness
from tokentape.mock.scenarios import scenarios
from tokentape.mock.script import Beat, Script
from tokentape.mock.script_file import as_json
from tokentape.mock.serving import MockServer
from tokentape.mock.settings import Settings

FAST = Script.steady(3, ttft_us=500, gap_us=500)
BODY = {"prompt": "Hi", "stream": True}
Ask = Callable[..., Any]


def due_us(log: Log, request: int) -> list[float]:
    """When each send was due, since the request was read."""
    read_ns = log.served[request].read_ns
    return [(sent.due_ns - read_ns) / 1000 for sent in log.of(request)]


# the schedule and the log


@pytest.mark.parametrize("dialect", ["vllm", "sglang", "llama.cpp", "transformers"])
@pytest.mark.parametrize("stream", [True, False])
def test_the_log_has_the_schedule_and_the_bytes_that_came(ask: Ask, dialect: str, stream: bool) -> None:
    script = Script.steady(6, ttft_us=3_000, gap_us=2_500, jitter="exponential", jitter_us=700, seed=5)
    body = {"prompt": "Hi", "stream": stream}
    with MockServer(script, dialect=dialect) as server:
        seen = ask(server, body)
    moments = expected(script, body, dialect=dialect).moments
    log = server.log
    assert seen.data == b"".join(sent.data or b"" for sent in log.sent)
    assert due_us(log, 0) == pytest.approx([moment.due_us for moment in moments], abs=0.001)
    assert [timeless(sent.data or b"") for sent in log.sent] == [timeless(moment.data) for moment in moments]
    assert [sent.n_tokens for sent in log.sent] == [moment.n_tokens for moment in moments]
    assert [sent.place for sent in log.sent] == list(range(len(moments)))
    assert all(sent.sent_ns >= sent.due_ns for sent in log.sent)
    assert all(one.sent_ns <= two.sent_ns for one, two in pairwise(log.sent))
    assert (log.served[0].how, log.served[0].n_completion, log.served[0].body) == ("done", 6, body)


def test_reads_come_after_the_sends_that_brought_them(ask: Ask) -> None:
    with MockServer(Script.steady(5, ttft_us=5_000, gap_us=20_000)) as server:
        seen = ask(server)
    texts = [sent for sent in server.log.of(0) if sent.kind == "text"]
    for sent in texts:
        came = next(at for at, data in seen.reads if sent.data is not None and sent.data in data)
        assert came > sent.sent_ns


def test_times_do_not_drift_with_lateness() -> None:
    script = Script.steady(40, ttft_us=1_000, gap_us=1_000)
    with MockServer(script) as server:
        httpx2.post(f"{server.url}{COMPLETIONS}", json=BODY)
    texts = [sent for sent in server.log.of(0) if sent.kind == "text"]
    assert [two.due_ns - one.due_ns for one, two in pairwise(texts)] == [1_000_000] * 39


def test_the_log_can_be_had_over_http_and_written_as_lines(ask: Ask) -> None:
    with MockServer(FAST) as server:
        ask(server)
        text = httpx2.get(f"{server.url}/mock/log").text
    found = Log.from_lines(text.splitlines())
    assert found.of(0) == server.log.of(0)
    assert found.served[0] == server.log.served[0]
    rows = [json.loads(line) for line in server.log.lines()]
    assert {row["event"] for row in rows} == {"request", "send"}
    assert Log.from_lines(server.log.lines()) == server.log


def test_a_log_without_bytes(ask: Ask) -> None:
    with MockServer(FAST, keep_bytes=False) as server:
        seen = ask(server)
    assert sum(sent.n_bytes for sent in server.log.sent) == len(seen.data)
    assert all(sent.data is None for sent in server.log.sent)


def test_lateness_has_its_percentiles() -> None:
    sent = [Sent(0, n, "text", 0, (n + 1) * 1000, 1) for n in range(100)]
    assert lateness(sent) == {"n": 100, "p50_us": 50.0, "p99_us": 99.0, "max_us": 100.0}
    assert lateness([]) == {"n": 0, "p50_us": None, "p99_us": None, "max_us": None}


# which script


def test_the_nth_request_gets_the_nth_script_and_then_they_begin_again(ask: Ask) -> None:
    scripts = [Script.steady(n, ttft_us=0, gap_us=0) for n in (1, 2, 3)]
    with MockServer(scripts) as server:
        counts = [sum(m["choices"] != [] for m in ask(server).messages) for _ in range(4)]
        httpx2.get(f"{server.url}/v1/models")  # is no request for a completion
        counts.append(len(ask(server).messages))
    assert counts == [1, 2, 3, 1, 2]


def test_a_request_brings_its_own_script(ask: Ask) -> None:
    own = Script((Beat(0, says=("own",)),), finish="content_filter")
    with MockServer([Script.steady(1, ttft_us=0), Script.steady(2, ttft_us=0, gap_us=0)]) as server:
        in_body = ask(server, {**BODY, "mock": as_json(own)})
        in_head = ask(server, BODY, headers={"X-Mock-Script": json.dumps({"tokens": 4, "ttft_us": 0, "gap_us": 0})})
        after = ask(server), ask(server)
        wrong = ask(server, {**BODY, "mock": {"token": 3}}), ask(server, BODY, headers={"X-Mock-Script": "{"})
    assert [m["choices"][0]["text"] for m in in_body.messages] == ["own"]
    assert in_body.messages[-1]["choices"][0]["finish_reason"] == "content_filter"
    assert len(in_head.messages) == 4
    assert [len(seen.messages) for seen in after] == [1, 2]  # the server's scripts were not used up
    assert [seen.status for seen in wrong] == [400, 400]


# slots and batches


def _together(url: str, n: int, body: dict[str, Any] = BODY) -> None:
    with ThreadPoolExecutor(n) as pool, httpx2.Client(limits=httpx2.Limits(max_connections=n)) as client:
        list(pool.map(lambda _: client.post(f"{url}{COMPLETIONS}", json=body), range(n)))


def test_slots_are_given_first_come_first_served() -> None:
    with MockServer(Script.steady(3, ttft_us=10_000, gap_us=10_000), slots=2) as server:
        _together(server.url, 7)
    served = server.log.served
    assert all(one.begun_ns is not None and one.ended_ns is not None and one.how == "done" for one in served)
    begun = [one.begun_ns for one in sorted(served, key=lambda one: one.read_ns)]
    assert begun == sorted(begun)
    for one in served:
        others = [other for other in served if other.begun_ns <= one.begun_ns < other.ended_ns]
        assert len(others) <= 2
    waited = [one for one in served if one.begun_ns != one.read_ns]
    assert len(waited) == 5
    for one in waited:  # the schedule begins with the slot
        first = next(sent for sent in server.log.of(one.request) if sent.kind == "text")
        assert first.due_ns - one.begun_ns == 10_000_000


def test_a_client_that_goes_gives_back_its_slot_or_its_place() -> None:
    with MockServer(Script.steady(1000, ttft_us=1_000, gap_us=50_000), slots=1) as server:
        first, second = connected(server.url), connected(server.url)
        first.sendall(request_bytes(COMPLETIONS, BODY))
        assert first.recv(10)
        second.sendall(request_bytes(COMPLETIONS, BODY))
        _until(lambda: len(server.log.served) == 2)
        second.close()
        _until(lambda: server.log.served[1].how == "gone")
        with connected(server.url) as third:
            third.sendall(request_bytes(COMPLETIONS, {**BODY, "max_tokens": 1}))
            _until(lambda: len(server.log.served) == 3)
            first.close()
            seen = read_all(third, quiet_s=1.0)
    assert seen.events[-1] == "[DONE]"
    assert [one.how for one in server.log.served] == ["gone", "gone", "done"]


def _until(there: Callable[[], bool], seconds: float = 5.0) -> None:
    until = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < until, "it never came"
        time.sleep(0.005)


def test_a_batch_makes_gaps_longer_by_its_size() -> None:
    with MockServer(Script.steady(8, ttft_us=30_000, gap_us=20_000), batch_cost_us=3_000) as server:
        _together(server.url, 3)
    for request in range(3):
        texts = [sent.due_ns for sent in server.log.of(request) if sent.kind == "text"]
        gaps = [(two - one) / 1e6 for one, two in pairwise(texts)]
        assert set(gaps) <= {20.0, 23.0, 26.0} and 26.0 in gaps


# connections


def test_requests_follow_one_another_on_one_connection() -> None:
    with MockServer(FAST) as server, connected(server.url) as client:
        both = request_bytes(COMPLETIONS, BODY, {"connection": "keep-alive"})
        client.sendall(both + both)  # the second before the first is answered
        seen = read_all(client, quiet_s=0.3)
        assert seen.data.count(b"[DONE]") == 2 and seen.data.count(b"HTTP/1.1 200") == 2 and seen.ended is None
    assert [one.how for one in server.log.served] == ["done", "done"]


def test_a_request_may_come_in_pieces() -> None:
    data = request_bytes(COMPLETIONS, BODY)
    with MockServer(FAST) as server, connected(server.url) as client:
        for place in range(0, len(data), 7):
            time.sleep(0.001)
            last = time.perf_counter_ns()
            client.sendall(data[place : place + 7])
        seen = read_all(client, quiet_s=0.3)
    assert seen.events[-1] == "[DONE]"
    assert server.log.served[0].read_ns > last


def test_a_client_that_awaits_continue_gets_it() -> None:
    data = request_bytes(COMPLETIONS, BODY, {"expect": "100-continue"})
    head, _, body = data.partition(b"\r\n\r\n")
    with MockServer(FAST) as server, connected(server.url) as client:
        client.sendall(head + b"\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 100 ")
        client.sendall(body)
        assert read_all(client, quiet_s=0.3).events[-1] == "[DONE]"


@pytest.mark.parametrize("data", [b"nonsense\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n"])
def test_what_is_no_request_is_refused_and_the_server_lives(ask: Ask, data: bytes) -> None:
    with MockServer(FAST) as server:
        with connected(server.url) as client:
            client.sendall(data)
            seen = read_all(client, quiet_s=0.5)
        assert seen.status == 400 and seen.ended in ("closed", "reset")
        assert ask(server).events[-1] == "[DONE]"


@pytest.mark.parametrize("body", [b"{", b"[]", b"3", b"\xff", b"[" * 100_000])
def test_a_body_that_is_no_object_is_refused(ask: Ask, body: bytes) -> None:
    with MockServer(FAST) as server:
        assert ask(server, body).status == 400


def test_a_slow_reader_holds_up_nobody_else(ask: Ask) -> None:
    heavy = {"tokens": 400, "ttft_us": 0, "gap_us": 0, "faults": [{"name": "huge", "at": 0, "bytes": 8_000_000}]}
    with MockServer(FAST) as server, connected(server.url) as slow:
        slow.sendall(request_bytes(COMPLETIONS, {**BODY, "mock": heavy}))
        assert slow.recv(10)
        assert ask(server).events[-1] == "[DONE]"
        seen = read_all(slow, quiet_s=1.0)
        assert seen.data.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
    held = [sent for sent in server.log.of(0) if sent.n_late_bytes]
    assert held and sum(sent.n_bytes for sent in server.log.of(0)) == len(seen.data) + 10


def test_many_connections_at_once() -> None:
    with MockServer(Script.steady(4, ttft_us=20_000, gap_us=5_000)) as server:
        clients = [connected(server.url) for _ in range(100)]
        for client in clients:
            client.sendall(request_bytes(COMPLETIONS, BODY))
        seen = [read_all(client, quiet_s=2.0) for client in clients]
        for client in clients:
            client.close()
    assert all(one.events[-1] == "[DONE]" for one in seen)


# keys, TLS, addresses


LLAMACPP_401 = {"error": {"code": 401, "message": "Invalid API Key", "type": "authentication_error"}}


@pytest.mark.parametrize(("dialect", "body"), [("vllm", {"error": "Unauthorized"}), ("llama.cpp", LLAMACPP_401)])
def test_a_key_is_asked_for(ask: Ask, dialect: str, body: Any) -> None:
    with MockServer(FAST, dialect=dialect, api_key="secret-1") as server:
        without = ask(server)
        wrong = ask(server, headers={"authorization": "Bearer other"})
        right = ask(server, headers={"authorization": "Bearer secret-1"})
        assert httpx2.get(f"{server.url}/health").status_code == 200
    assert (without.status, wrong.status, right.status) == (401, 401, 200)
    assert json.loads(without.body) == body
    assert "secret-1" not in "".join(server.log.lines()) and "secret-1" not in repr(server.settings)


@pytest.mark.parametrize("process", [False, True])
def test_tls(certificate: tuple[str, str], process: bool) -> None:
    context = ssl.create_default_context(cafile=certificate[0])
    with MockServer(Script.steady(4, ttft_us=0, gap_us=0), tls=certificate, process=process) as server:
        assert server.url.startswith("https://")
        with httpx2.Client(verify=context) as client:
            answer = client.post(f"{server.url}{COMPLETIONS}", json=BODY)
            assert answer.text.endswith("data: [DONE]\n\n")
            big = {"tokens": 1, "ttft_us": 0, "faults": ["huge:at=0,bytes=3000000"]}
            assert len(client.post(f"{server.url}{COMPLETIONS}", json={**BODY, "mock": big}).text) > 3_000_000
        with connected(server.url) as plain:  # who speaks no TLS is turned away, and the server lives
            plain.sendall(request_bytes(COMPLETIONS, BODY))
            read_all(plain, quiet_s=0.3)
        assert len(server.log.served) == 2
    assert server.log.served[0].how == "done"


def test_a_certificate_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cert.pem").write_text("no certificate", encoding="utf-8")
    pem = str(tmp_path / "cert.pem")
    for process in (False, True):
        with pytest.raises(UsageError, match="no certificate"):
            MockServer(FAST, tls=(pem, pem), process=process).start()


@pytest.mark.parametrize("process", [False, True])
def test_a_port_that_is_taken_is_refused(process: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(UsageError, match="cannot listen"):
        MockServer(FAST, port=taken.getsockname()[1], process=process).start()


def test_settings_that_contradict_themselves_are_refused() -> None:
    for wrong in ({"dialect": "other"}, {"slots": 0}, {"port": 70_000}, {"scripts": ()}):
        with pytest.raises(UsageError):
            Settings(**wrong)


def test_settings_come_back_from_json() -> None:
    for scenario in scenarios(30):
        settings = scenario.server(slots=3, batch_cost_us=2.5, tls=("a", "b"), api_key="k").settings
        assert Settings.from_json(json.loads(json.dumps(settings.as_json()))) == settings


# a process of its own, and the end


def test_a_process_of_its_own_serves_the_same(ask: Ask) -> None:
    script = Script.steady(5, ttft_us=2_000, gap_us=1_000)
    with MockServer(script, process=True) as server:
        seen = ask(server)
        during = server.log
    assert seen.events[-1] == "[DONE]"
    assert seen.data == b"".join(sent.data or b"" for sent in server.log.of(0))
    assert during.of(0) == server.log.of(0)
    assert [sent.n_tokens for sent in during.of(0) if sent.kind == "text"] == [1] * 5


def test_stopping_ends_what_is_being_served() -> None:
    for process in (False, True):
        server = MockServer(Script.steady(10_000, ttft_us=0, gap_us=1_000), process=process).start()
        with connected(server.url) as client:
            client.sendall(request_bytes(COMPLETIONS, BODY))
            assert client.recv(10)
            server.stop()
            assert read_all(client, quiet_s=1.0).ended in ("closed", "reset")
        assert server.log.served[0].how == "closed"
        server.stop()  # twice does no harm
        with pytest.raises(ConnectionRefusedError):
            connected(server.url)


def test_nothing_is_left_behind(ask: Ask) -> None:
    threads, files = threading.active_count(), len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    for _ in range(5):
        with MockServer(FAST) as server:
            ask(server)
    assert threading.active_count() == threads
    if files:
        assert len(os.listdir("/proc/self/fd")) == files


def test_what_goes_wrong_in_the_server_is_told_by_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    server = MockServer(FAST).start()
    assert server._loop is not None
    monkeypatch.setattr(server._loop, "_accept", lambda: 1 / 0)
    with connected(server.url) as client:
        read_all(client, quiet_s=0.5)
    with pytest.raises(ZeroDivisionError):
        server.stop()


def test_other_clients_understand_it() -> None:
    with (
        MockServer(Script.steady(6, ttft_us=0, gap_us=1_000)) as server,
        httpx2.Client(base_url=server.url) as client,
        client.stream("POST", CHAT, json={"messages": [], "stream": True}) as answer,
    ):
        found = [line for line in answer.iter_lines() if line]
    assert found[-1] == "data: [DONE]" and len(found) == 8
