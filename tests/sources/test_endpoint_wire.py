"""Addresses, sockets, TLS, the kernel's stamps, and the text format of metrics."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tokentape as tt
from raw_servers import Saying, Sealed, Speaking, http
from tokentape.data.request import TraceHead
from tokentape.errors import Unreachable, UsageError
from tokentape.mock.script import Script
from tokentape.mock.serving import MockServer
from tokentape.sources.endpoint.address import address_of
from tokentape.sources.endpoint.call import Call, Limits
from tokentape.sources.endpoint.capability import flown
from tokentape.sources.endpoint.flight import Flight
from tokentape.sources.endpoint.getting import get
from tokentape.sources.endpoint.scraping import MOST_VALUES, NotMetrics, metrics_of, scrape
from tokentape.sources.endpoint.stamps import (
    ANCILLARY_BYTES,
    STEP_NS,
    WallClock,
    kernel_stamp,
    stamped_by_kernel,
)
from tokentape.sources.endpoint.wire import Host
from tokentape.study.served import flights
from tokentape.views.screen import Screen
from tokentape.views.text import show

MS = 1_000_000
S = 1_000_000_000
FAST = Script.steady(4, ttft_us=0, gap_us=0)


def call_to(address, *, n_tokens=4, limits=None, **more):
    body = {"model": "mock", "prompt": "It is", "max_tokens": n_tokens, "stream": True, **more}
    return Call(
        address.target("/completions"),
        json.dumps(body).encode(),
        (TraceHead(0, None, None, None),),
        limits=limits or Limits(5 * S, 5 * S, 5 * S),
    )


def shown(tape):
    return show(tape, Screen(width=200))


def answered(host, connection=None, **more):
    flight = Flight(call_to(host.address, **more), host, connection)
    ticks = flown(flight)
    return flight, ticks


# addresses


@pytest.mark.parametrize(
    ("url", "base", "route"),
    [
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000/v1", None),
        ("127.0.0.1:8000/", "http://127.0.0.1:8000/v1", None),
        ("localhost:8000/v1/", "http://localhost:8000/v1", None),
        ("https://api.example.com/v1", "https://api.example.com/v1", None),
        ("https://example.com/serve/llama", "https://example.com/serve/llama/v1", None),
        ("https://example.com/api/v4", "https://example.com/api/v4", None),
        ("http://[::1]:8000/v1/chat/completions", "http://[::1]:8000/v1", "/chat/completions"),
        ("http://h:80/v1/completions", "http://h/v1", "/completions"),
        ("https://h:443/metrics", "https://h/v1", "/metrics"),
        ("http://h/a b/ä%20/v1", "http://h/a%20b/%C3%A4%20/v1", None),
    ],
)
def test_a_url_is_taken_apart(url, base, route):
    address, pasted = address_of(url)
    assert (address.url, pasted) == (base, route)


def test_what_a_request_names():
    address, _ = address_of("https://example.com/serve/v1?api-version=2")
    assert address.target("/completions") == "/serve/v1/completions?api-version=2"
    assert address.target("//metrics") == "/serve/metrics?api-version=2"
    assert "api-version" not in address.url


@pytest.mark.parametrize(
    "url",
    [
        "ftp://h",
        "http://",
        "",
        "http://a b",
        "http://h:0",
        "http://h:99999",
        "http://[::1",
        "http://h\r\nX: y",
        "http://h/\ud800",
    ],
)
def test_what_is_no_url(url):
    with pytest.raises(UsageError):
        address_of(url)


def test_a_key_is_not_taken_from_a_url():
    with pytest.raises(UsageError, match="a name or a password") as failure:
        address_of("http://me:hunter2@example.com")
    assert "hunter2" not in str(failure.value)


@given(st.text(max_size=40))
def test_no_text_is_another_exception(url):
    try:
        address, _ = address_of(url)
    except UsageError:
        return
    assert address_of(address.url)[0] == address_of(address.url)[0]


def test_a_variable_that_was_named_and_is_not_set_is_told(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("NOPE", raising=False)
    assert "Authorization" not in dict(address_of("http://h")[0].headers())
    with pytest.raises(UsageError, match="NOPE is not set"):
        address_of("http://h", key_env="NOPE")[0].headers()


def test_a_key_in_the_path_of_a_url_is_not_shown(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk/é 12")
    monkeypatch.setenv("OTHER", "Bearer token-9")
    address, _ = address_of("http://h/x/sk%2Fé 12/y/token-9/v1?key=sk", header_envs=(("X-Other", "OTHER"),))
    assert address.target("/completions").startswith("/x/sk%2F%C3%A9%2012/y/token-9/v1")
    assert address.url == "http://h/x/***/y/***/v1"


def test_the_key_comes_from_the_environment(monkeypatch):
    monkeypatch.setenv("TEAM_KEY", "sk-team\n")
    monkeypatch.setenv("TRACK", "blue")
    address, _ = address_of("http://h", key_env="TEAM_KEY", header_envs=(("X-Track", "TRACK"),))
    assert dict(address.headers())["Authorization"] == "Bearer sk-team"
    assert dict(address.headers())["X-Track"] == "blue"
    assert "sk-team" not in repr(address)
    monkeypatch.setenv("TEAM_KEY", "sk-\nteam")
    with pytest.raises(UsageError, match="TEAM_KEY") as failure:
        address.headers()
    assert "sk-" not in str(failure.value)
    monkeypatch.setenv("TEAM_KEY", " ")
    with pytest.raises(UsageError, match="TEAM_KEY is blank"):
        address.headers()
    monkeypatch.delenv("TRACK")
    monkeypatch.setenv("TEAM_KEY", "sk-team")
    with pytest.raises(UsageError, match="TRACK is not set"):
        address.headers()


# stamps


class Clocks:
    """Two clocks that are apart; reading either takes 100 ns."""

    def __init__(self) -> None:
        self.now_ns, self.apart_ns = 1_000 * S, 5 * S

    def now(self) -> int:
        self.now_ns += 100
        return self.now_ns

    def wall(self) -> int:
        self.now_ns += 100
        return self.now_ns + self.apart_ns


def test_a_stamp_of_the_wall_clock_becomes_one_of_the_monotonic_clock():
    clocks = Clocks()
    clock = WallClock(clocks.now, clocks.wall)
    came = clocks.now_ns + 10_000
    clocks.now_ns += 50_000
    found = clock.monotonic(came + clocks.apart_ns, clocks.now_ns, 0)
    assert abs(found - came) <= 200
    assert clock.steps == 0


@pytest.mark.parametrize("step", [-3600 * S, -10 * MS, 10 * MS, 3600 * S])
def test_a_step_of_the_wall_clock_is_noticed(step):
    clocks = Clocks()
    clock = WallClock(clocks.now, clocks.wall)
    clocks.apart_ns += step
    before = clocks.now_ns
    clocks.now_ns += 1000
    # what was stamped about the step is given no time of the kernel; what comes later is
    assert clock.monotonic(before + clocks.apart_ns, clocks.now_ns, 0) is None
    assert clock.steps == 1
    came = clocks.now_ns
    clocks.now_ns += 1000
    assert abs(clock.monotonic(came + clocks.apart_ns, clocks.now_ns, came) - came) <= 200


@pytest.mark.parametrize("step", [-100 * MS, 100 * MS])
def test_a_step_that_one_connection_notices_holds_for_all_of_a_host(step):
    clocks = Clocks()
    clock = WallClock(clocks.now, clocks.wall)
    seen = clocks.now_ns
    clocks.now_ns += 500 * MS
    stamped = clocks.now_ns + clocks.apart_ns  # the kernel's stamp for the other connection, not read yet
    clocks.now_ns += MS
    clocks.apart_ns += step
    assert clock.monotonic(clocks.now_ns + clocks.apart_ns, clocks.now_ns + 1000, clocks.now_ns) is None
    clocks.now_ns += 200 * MS
    assert clock.monotonic(stamped, clocks.now_ns, seen) is None
    # that connection is believed again from its next bytes on
    seen, came = clocks.now_ns, clocks.now_ns + 1000
    clocks.now_ns += 5000
    assert abs(clock.monotonic(came + clocks.apart_ns, clocks.now_ns, seen) - came) <= 200


def test_a_clock_that_was_only_read_slowly_was_not_set():
    clocks = Clocks()
    clock = WallClock(clocks.now, clocks.wall)
    wall, slow = clock._wall, iter([2 * STEP_NS])
    clock._wall = lambda: wall() - next(slow, 0)
    came = clocks.now_ns
    assert clock.monotonic(came + clocks.apart_ns, clocks.now_ns + 1000, 0) is not None
    assert clock.steps == 0


def test_a_process_that_is_held_up_again_and_again_pairs_its_clocks_until_it_is_not():
    clocks, held_up = Clocks(), iter([300_000] * 30)

    def wall():
        told = clocks.wall()
        clocks.now_ns += next(
            held_up, 0
        )  # behind the wall clock's reading, so that the middle of the pair is not its moment
        return told

    clock = WallClock(clocks.now, wall)
    came = clocks.now_ns
    clocks.now_ns += 1000
    assert abs(clock.monotonic(came + clocks.apart_ns, clocks.now_ns, 0) - came) <= 200
    assert clock.steps == 0


def test_a_stamp_outside_of_the_two_reads_is_refused():
    clocks = Clocks()
    clock = WallClock(clocks.now, clocks.wall)
    now = clocks.now_ns
    assert clock.monotonic(now + clocks.apart_ns - 5000, now, now - 1000) is None
    assert clock.monotonic(now + clocks.apart_ns + 5000, now, now - 1000) is None


@pytest.fixture
def stamping():
    """A kernel that stamps what comes: it begins some time after the first socket of the machine has asked for it, and goes on as
    long as one does.
    """
    with socket.socket(type=socket.SOCK_DGRAM) as one:
        one.bind(("127.0.0.1", 0))
        if not stamped_by_kernel(one):
            pytest.skip("this kernel stamps nothing")
        one.settimeout(10)
        last, wall_ns, before_ns = time.monotonic() + 10, 1, 0
        while wall_ns >= before_ns:  # what came unstamped is given the moment of its reading
            assert time.monotonic() < last
            one.sendto(b"?", one.getsockname())
            time.sleep(0.005)
            before_ns = time.time_ns()
            wall_ns = kernel_stamp(one.recvmsg(1, ANCILLARY_BYTES)[1])
        yield


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="kernel stamps are of Linux")
def test_bytes_are_stamped_when_they_come_and_not_when_they_are_read(stamping):
    with MockServer(Script.steady(1, ttft_us=30_000, gap_us=0)) as server:
        address, _ = address_of(server.url)
        flight = Flight(call_to(address), Host(address))
        while flight.started_ns is None:
            flight.advance()
        time.sleep(0.4)
        slept_ns = time.perf_counter_ns()
        ticks = flown(flight)
        flight.connection.close()
    assert ticks[0].end < slept_ns - 50 * MS
    assert ticks[0].end <= ticks[0].read <= ticks[0].parsed
    assert flight.exchange(0).stamps == "kernel"


def test_without_the_kernels_stamps_those_of_the_reads_are_told(monkeypatch):
    monkeypatch.setattr("tokentape.sources.endpoint.wire.stamped_by_kernel", lambda connection: False)
    with MockServer(FAST) as server:
        host = Host(address_of(server.url)[0])
        flight, ticks = answered(host)
        flight.connection.close()
    assert flight.exchange(0).stamps == "read"
    assert all(tick.end == tick.read for tick in ticks)


# connections


def test_the_moments_of_a_request_are_in_order():
    with MockServer(FAST) as server:
        host = Host(address_of(server.url)[0])
        flight, _ = answered(host)
        first = flight.exchange(0)
        again, _ = answered(host, flight.connection)
        again.connection.close()
    marks = [first.connect_ns, first.connected_ns, flight.started_ns, first.first_byte_ns, first.ended_ns]
    assert marks == sorted(marks) and None not in marks
    second = again.exchange(0)
    assert (second.connect_ns, second.connected_ns) == (None, None)
    assert second.status == 200 and second.fault is None


def test_a_connection_that_the_server_closed_is_seen_to_have_gone():
    with MockServer(FAST) as server:
        host = Host(address_of(server.url)[0])
        flight, _ = answered(host)
        connection = flight.connection
        assert not connection.has_gone()
    deadline = time.monotonic() + 5
    while not connection.has_gone() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert connection.has_gone()
    connection.close()


def test_a_server_that_asks_for_it_gets_no_second_request():
    with MockServer(FAST, faults=["no_keep"]) as server:
        flight, _ = answered(Host(address_of(server.url)[0]))
    assert flight.connection is None and flight.fault is None


def test_the_next_address_of_a_host_is_tried():
    with MockServer(FAST) as server:
        host = Host(address_of(server.url)[0])
        with socket.create_server(("127.0.0.1", 0)) as closed:
            nobody = closed.getsockname()
        host._places = ((socket.AF_INET, nobody), *host._places)
        flight, _ = answered(host)
        flight.connection.close()
    assert flight.fault is None


def test_a_large_request_is_sent_in_parts():
    with MockServer(FAST) as server:
        host = Host(address_of(server.url)[0])
        flight, _ = answered(host, prompt="word " * 400_000)
        flight.connection.close()
    assert flight.fault is None
    assert flight.exchange(0).sent_ns >= flight.started_ns


@pytest.mark.parametrize(
    ("limits", "what"),
    [(Limits(first_ns=100 * MS), "no answer within"), (Limits(whole_ns=100 * MS), "no answer within")],
)
def test_a_silent_server_is_not_waited_for_for_ever(limits, what):
    with MockServer(FAST, faults=["silence"]) as server:
        flight, _ = answered(Host(address_of(server.url)[0]), limits=limits)
    assert flight.fault == "timeout" and flight.error.startswith(what)
    assert flight.finish_reasons() == ["error"]


def test_a_stall_keeps_what_came():
    with MockServer(FAST, faults=["stall:at=2,forever=1"]) as server:
        flight, ticks = answered(Host(address_of(server.url)[0]), limits=Limits(between_ns=150 * MS))
    assert flight.fault == "timeout" and flight.error.startswith("nothing more within")
    assert len(ticks) == 2


def test_an_endless_answer_is_cut_off():
    with MockServer(FAST, faults=["endless"]) as server:
        by_tokens, ticks = answered(Host(address_of(server.url)[0]), limits=Limits(most_tokens=20))
        by_bytes, _ = answered(Host(address_of(server.url)[0]), limits=Limits(most_bytes=5_000))
    assert (by_tokens.fault, by_bytes.fault) == ("too_long", "too_long")
    assert sum(len(tick.said) for tick in ticks) == 21


def test_an_aborted_request_is_interrupted():
    with MockServer(Script.steady(4, ttft_us=0, gap_us=0), faults=["stall:at=2,forever=1"]) as server:
        address, _ = address_of(server.url)
        flight, ticks = Flight(call_to(address), Host(address)), []
        while len(ticks) < 2:
            ticks += flight.advance()
        flight.abort()
    assert flight.done and flight.connection is None and flight.fault is None
    assert flight.finish_reasons() == ["interrupted"]
    assert flight.exchange(0).error == "interrupted"


def test_nobody_there():
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    flight, _ = answered(Host(address_of(f"http://127.0.0.1:{port}")[0]))
    assert flight.fault == "refused" and flight.exchange(0).status is None
    assert flight.live().run.traces[0].prompt_text is None


def test_a_host_that_nobody_knows():
    with pytest.raises(Unreachable, match="cannot be found"):
        Host(address_of("http://no-such-host.invalid")[0])


def test_a_document_instead_of_a_stream_is_one_chunk():
    body = {
        "choices": [{"index": 0, "text": " all at once", "finish_reason": "stop"}],
        "usage": {"completion_tokens": 3},
    }
    answer = http(json.dumps(body).encode(), "application/json", connection="keep-alive")
    with Speaking(answer) as url:
        flight, ticks = answered(Host(address_of(url)[0]))
        flight.connection.close()
    passed = flight.exchange(0)
    assert (flight.fault, passed.label, passed.streamed) == (None, "counted", False)
    assert [one.data for one in ticks[0].said] == [b" all at once", b"", b""]


def test_an_answer_in_one_piece_has_no_time_to_a_first_token_and_says_so(tmp_path):
    body = {"choices": [{"index": 0, "text": " all at once", "finish_reason": "stop"}], "model": "m"}
    whole = {**body, "usage": {"completion_tokens": 3}}
    with Saying(http(json.dumps(whole).encode(), "application/json")) as url:
        tape = tt.record(tt.endpoint(url), "Hi", path=tmp_path / "a.tape", max_new_tokens=3)
    trace, (one,) = tape.traces[0], flights(tape)
    assert (trace.text, trace.tokens.n_rows, one.n_tokens) == (" all at once", 3, 3)
    assert one.ttft_ns is None and one.e2e_ns == trace.steps["end_ns"][0] - trace.run.start_ns
    found = tt.metrics(tape, slo=tt.Slo(ttft_ns=10**12))
    assert found.ttft.n == found.token_gap.n == found.mean_gap.n == 0 and found.e2e.n == 1
    assert found.goodput.n_unknown == 1 and tt.metrics(tape, slo=tt.Slo(e2e_ns=10**12)).goodput.n_good == 1
    assert trace.exchange.server == {"came": "in one piece", "label_reason": trace.exchange.server["label_reason"]}
    assert "1 answer came as a whole and not as a stream" in shown(tape)
    assert tt.verify(tmp_path / "a.tape") == []
    # a stream of one message is a stream
    with Saying(http(b"data: " + json.dumps(whole).encode() + b"\n\ndata: [DONE]\n\n")) as url:
        tape = tt.record(tt.endpoint(url), "Hi", max_new_tokens=3)
    assert flights(tape)[0].ttft_ns is not None and "as a whole" not in shown(tape)


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (b"SSH-2.0-OpenSSH_9.6\r\n", "malformed"),
        (b"\x15\x03\x01\x00\x02\x02\x16", "tls"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            "malformed",
        ),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: br\r\nContent-Length: 3\r\n\r\nabc", "malformed"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc",
            "malformed",
        ),
        (b"HTTP/1.1 204 No Content\r\n\r\n", "not_json"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 500 No\r\nContent-Length: 2\r\n\r\nno", "http_error"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"a" * 100_000, "malformed"),
        (b"", "cut_short"),
    ],
)
def test_servers_of_another_kind(answer, fault):
    with Speaking(answer) as url:
        flight, _ = answered(Host(address_of(url)[0]))
        if flight.connection is not None:
            flight.connection.close()
    assert flight.fault == fault


# TLS


def test_tls_with_a_certificate_that_is_trusted(certificate):
    with MockServer(FAST, tls=certificate) as server:
        host = Host(address_of(server.url, ca_file=certificate[0])[0])
        flight, ticks = answered(host, return_token_ids=True)
        again, _ = answered(host, flight.connection)
        again.connection.close()
    assert flight.fault is None and again.fault is None
    assert len(ticks) >= 4
    marks = flight.exchange(0)
    assert marks.connect_ns < marks.connected_ns <= flight.started_ns


def test_tls_with_a_certificate_that_is_not(certificate):
    with MockServer(FAST, tls=certificate) as server:
        refused, _ = answered(Host(address_of(server.url)[0]))
        trusted, _ = answered(Host(address_of(server.url, insecure=True)[0]))
        trusted.connection.close()
    assert refused.fault == "tls" and refused.error.startswith("certificate:")
    assert trusted.fault is None


def test_http_where_tls_is_spoken_and_the_other_way_round(certificate):
    with MockServer(FAST, tls=certificate) as server:
        plain, _ = answered(Host(address_of(server.url.replace("https", "http"))[0]))
    assert plain.fault in ("tls", "cut_short", "reset")
    with MockServer(FAST) as server:
        sealed, _ = answered(Host(address_of(server.url.replace("http", "https"))[0]))
    assert sealed.fault == "tls" and sealed.exchange(0).status is None


@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 400 No\r\nContent-Length: 5\r\n\r\nHTTPS", b"\x15\x03\x01\x00\x02\x02\x16"]
)
def test_a_server_that_speaks_tls_and_is_asked_without_is_found_out(answer, certificate):
    """However it ends the request that it cannot read."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    with Sealed(context, answer) as url, pytest.raises(Unreachable, match="no TLS with") as failure:
        tt.endpoint(url).capability()
    assert failure.value.why == "the server speaks TLS, and was asked without"
    assert failure.value.fix == f"{url.replace('http', 'https')}/v1"


def test_a_server_that_waits_for_a_request_without_tls_is_found_out(monkeypatch):
    monkeypatch.setattr("tokentape.sources.endpoint.capability._MODELS_WITHIN_NS", 200 * MS)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(Unreachable, match=f"no TLS with 127.0.0.1:{port}") as failure:
            tt.endpoint(f"https://127.0.0.1:{port}").capability()
        address, _ = address_of(f"https://127.0.0.1:{port}")
        flight, _ = answered(Host(address), limits=Limits(200 * MS, 5 * S, 5 * S))
    assert failure.value.why == "no TLS handshake within 0.2 s"
    assert failure.value.fix == f"if it speaks plain HTTP: http://127.0.0.1:{port}/v1"
    assert flight.fault == "tls" and flight.error.startswith("no TLS handshake within 0.2")


def test_a_file_of_certificates_that_is_none(tmp_path):
    (tmp_path / "ca.pem").write_text("no certificate")
    with pytest.raises(UsageError, match=r"cannot be read as certificates"):
        Host(address_of("https://127.0.0.1", ca_file=str(tmp_path / "ca.pem"))[0])
    assert isinstance(address_of("https://h", insecure=True)[0].tls_context(), ssl.SSLContext)


# metrics


def test_the_text_format():
    text = """# HELP vllm:num_requests_running Number of requests.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="a \\"b\\" {c}, d"} 3.0
requests_total 1027 1395066363000
empty{} 2
spaced{ a = "b" , } 4e1
lots_bucket{le="0.5"} 3
lots_sum 2.5
lots_count 7
quantiles{quantile="0.5"} 3
not_a_number NaN
endless +Inf
"""
    assert metrics_of(text) == {
        'vllm:num_requests_running{engine="0",model_name="a \\"b\\" {c}, d"}': 3.0,
        "requests_total": 1027.0,
        "empty": 2.0,
        'spaced{a="b"}': 40.0,
        "lots_sum": 2.5,
        "lots_count": 7.0,
    }


@pytest.mark.parametrize(
    "line", ["<html>", "name", 'name{a="b" 3', "name{a=b} 3", "name three", "name 1_000", "1name 3", '{"a": 1}']
)
def test_what_is_not_the_text_format(line):
    with pytest.raises(NotMetrics, match="line 2"):
        metrics_of(f"fine 1\n{line}\n")


def test_metrics_are_bounded():
    with pytest.raises(NotMetrics, match="more than"):
        metrics_of("\n".join(f"name_{i} {i}" for i in range(MOST_VALUES + 1)))
    assert metrics_of(f"{'n' * 600} 1\nfine 2") == {"fine": 2.0}


@given(st.text(max_size=200))
def test_no_text_of_metrics_is_another_exception(text):
    with contextlib.suppress(NotMetrics):
        metrics_of(text)


@pytest.mark.parametrize("dialect", ["vllm", "sglang", "llama.cpp"])
def test_a_server_is_scraped_on_our_clock(dialect):
    with MockServer(FAST, dialect=dialect) as server:
        before = time.perf_counter_ns()
        found = scrape(Host(address_of(server.url)[0]))
        after = time.perf_counter_ns()
    assert found.source == "server" and before <= found.began_ns <= found.ended_ns <= after
    assert any(name.startswith({"llama.cpp": "llamacpp"}.get(dialect, dialect) + ":") for name in found.values)


def test_a_server_without_metrics_has_none():
    with MockServer(FAST, dialect="transformers") as server:
        host = Host(address_of(server.url)[0])
        assert scrape(host) is None
        assert get(host, "/nowhere").status == 404
    assert scrape(host, within_ns=200 * MS) is None
