"""How long a request is waited for, and how much of an answer: on stamps, and against servers that try to have no end."""

from __future__ import annotations

import contextlib
import gzip
import select
import socket
import threading
import time
import zlib

import pytest

from tokentape.data.consistency import exchange_problems
from tokentape.data.request import TraceHead
from tokentape.mock.script import Script
from tokentape.mock.serving import MockServer
from tokentape.sources.endpoint.address import address_of
from tokentape.sources.endpoint.body import MOST_BLANK_BYTES, MOST_ERROR_BYTES, Body
from tokentape.sources.endpoint.call import Call, Limits
from tokentape.sources.endpoint.capability import flown
from tokentape.sources.endpoint.flight import Flight
from tokentape.sources.endpoint.patience import CLOSING_NS, SILENT_TIMES, Patience
from tokentape.sources.endpoint.wire import Host

MS = 1_000_000
S = 1_000_000_000
LIMITS = Limits(connect_ns=1 * S, first_ns=20 * S, between_ns=3 * S)
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
TOKEN = b'data: {"choices": [{"index": 0, "text": "a"}]}\n\n'
END = b'data: {"choices": [{"index": 0, "text": "", "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n'


class serving:
    """A server that does with its one connection what it is told; ``asked`` False where it does not wait for a request."""

    def __init__(self, does, *, asked=True):
        self._does, self._asked = does, asked

    def __enter__(self):
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        return Host(address_of(f"http://127.0.0.1:{self._socket.getsockname()[1]}")[0])

    def _serve(self):
        found, _ = self._socket.accept()
        with found, contextlib.suppress(OSError):  # the client leaves when it has seen enough
            found.settimeout(5)
            if self._asked:
                found.recv(65536)
            self._does(found)

    def __exit__(self, *_):
        self._socket.close()
        self._thread.join()


def flight_to(host, limits=None, body=b"{}"):
    heads = (TraceHead(0, None, None, None),)
    return Flight(Call("/v1/completions", body, heads, limits=limits or Limits(5 * S, 5 * S, 5 * S)), host)


def ended(host, limits=None, body=b"{}"):
    flight = flight_to(host, limits, body)
    flown(flight)
    if flight.connection is not None:
        flight.connection.close()
    return flight


# on stamps


def test_the_silence_that_is_waited_for_depends_on_what_has_come():
    patience = Patience(LIMITS)
    assert patience.deadline_ns is None
    patience.begun_ns = 100
    assert patience.deadline_ns == 100 + 1 * S
    patience.connected, patience.last_ns = True, 500
    assert patience.deadline_ns == 500 + 20 * S
    patience.first_byte_ns = patience.last_ns = 1 * S
    assert patience.silence_ns == 4 * S


def test_what_says_nothing_is_not_waited_for_for_ever():
    patience = Patience(LIMITS, 0, connected=True, last_ns=2 * S, first_byte_ns=2 * S)
    for second in range(3, 100):
        patience.last_ns = second * S  # comments
        assert patience.silence_ns == (second + 3) * S
        assert patience.end_ns == 2 * S + SILENT_TIMES * 3 * S
    patience.said_ns = 50 * S
    assert patience.end_ns == 50 * S + SILENT_TIMES * 3 * S
    assert patience.why(90 * S) == "nothing that says anything within 40 s"


def test_behind_the_last_message_nothing_prolongs_the_waiting():
    patience = Patience(LIMITS, 0, connected=True, last_ns=2 * S, first_byte_ns=2 * S, closing_ns=2 * S)
    patience.last_ns = 90 * S
    assert patience.deadline_ns == 2 * S + CLOSING_NS


def test_the_whole_is_limited_whatever_comes():
    patience = Patience(
        Limits(whole_ns=7 * S), 1 * S, connected=True, last_ns=7 * S, first_byte_ns=2 * S, said_ns=7 * S
    )
    assert patience.end_ns == patience.deadline_ns == 8 * S
    assert patience.why(8 * S) == "not over within 7 s"


# against servers


def test_comments_alone_end_in_a_timeout():
    def comments(found):
        found.sendall(STREAM + TOKEN)
        for _ in range(1000):
            found.sendall(b": ping\n\n")
            time.sleep(0.005)

    with serving(comments) as host:
        flight = ended(host, Limits(5 * S, 5 * S, 100 * MS))
    assert flight.fault == "timeout" and "says anything" in flight.error
    assert flight.chunks.n_tokens == 1


def test_a_client_that_was_busy_does_not_blame_the_server(monkeypatch):
    """What lies in the socket came in time, however late it is read."""
    monkeypatch.setattr("tokentape.sources.endpoint.wire.READ_BYTES", 300)
    with MockServer(Script.steady(30, ttft_us=0, gap_us=200)) as server:
        address, _ = address_of(server.url)
        body = b'{"model": "mock", "prompt": "It is", "max_tokens": 30, "stream": true}'
        flight = flight_to(Host(address), Limits(5 * S, 5 * S, 100 * MS), body)
        while flight.first_byte_ns is None:
            flight.advance()
        time.sleep(0.5)
        flown(flight)
        flight.connection.close()
    assert flight.fault is None and flight.chunks.all_finished and flight.chunks.n_tokens > 20


@pytest.mark.parametrize("status", ["500 No", "200 OK"])
def test_a_document_without_end_is_cut_off(status, monkeypatch):
    monkeypatch.setattr("tokentape.sources.endpoint.body.MOST_DOCUMENT_BYTES", 100_000)

    def documents(found):
        found.sendall(f"HTTP/1.1 {status}\r\nContent-Type: text/html\r\nConnection: close\r\n\r\n".encode())
        while True:
            found.sendall(b"<p>no</p>" * 1000)

    with serving(documents) as host:
        flight = ended(host)
    assert flight.fault == ("http_error" if status.startswith("500") else "not_json")
    assert flight.error.startswith("<p>no") and len(flight.error) <= 2000


def test_a_body_keeps_of_an_error_a_part():
    body = Body(500, {"content-type": "text/html"})
    for _ in range(100):
        body.feed(b"x" * 10_000, None)
    assert body.is_full and len(body.document) == MOST_ERROR_BYTES


def test_blanks_without_a_media_type_are_no_stream():
    body = Body(200, {})
    body.feed(b" " * (MOST_BLANK_BYTES - 1), None)
    assert not body.is_stream
    body.feed(b" " * 10, None)
    assert not body.is_stream and body.feed(b"data: x\n\n", None) == []
    stream = Body(200, {})
    assert [event.data for event in stream.feed(b"\n\n  \ndata: x\n\n", None)] == [b"x"]


def test_bytes_count_as_they_are_unpacked():
    packed = gzip.compress(b": " + b"a" * 5_000_000 + b"\n")
    head = STREAM.replace(b"Connection", b"Content-Encoding: gzip\r\nConnection")
    with serving(lambda found: found.sendall(head + packed)) as host:
        flight = ended(host, Limits(5 * S, 5 * S, 5 * S, most_bytes=1_000_000))
    assert flight.fault == "too_long" and len(packed) < 100_000
    body = Body(200, {"content-type": "text/event-stream", "content-encoding": "deflate"})
    body.feed(zlib.compress(b":" * 1000 + b"\n"), None)
    assert body.n_bytes == 1001


# marks


def test_an_answer_comes_after_the_call_that_sent_the_request():
    for _ in range(20):
        with serving(lambda found: found.sendall(STREAM + TOKEN + END)) as host:
            flight = ended(host)
        assert flight.fault is None
        assert flight.started_ns <= flight.sent_ns <= flight.first_byte_ns <= flight.ended_ns


def test_an_answer_before_the_request_is_none():
    def early(found):
        found.sendall(STREAM + TOKEN + END)
        found.recv(65536)

    with serving(early, asked=False) as host:
        flight = flight_to(host)
        connection = flight.connection
        while not connection.advance():
            pass
        select.select([connection.fileno()], [], [], 5)
        flown(flight)
    assert flight.fault == "malformed" and flight.error.startswith(
        "it was answered before it was asked: HTTP/1.1 200 OK"
    )
    exchange, start = flight.exchange(0), flight.live().start
    assert exchange.first_byte_ns is exchange.sent_ns is exchange.stamps is None
    assert list(exchange_problems(exchange, start)) == []


class Broken:
    """A socket whose peer takes nothing any more."""

    def __init__(self, inner, error):
        self._inner, self._error = inner, error

    def __getattr__(self, name):
        return getattr(self._inner, name)

    def send(self, data):
        raise self._error


@pytest.mark.parametrize("error", [BrokenPipeError(32, "Broken pipe"), ConnectionResetError(104, "reset")])
def test_a_request_that_could_not_be_sent_has_not_been(error):
    answer = b"HTTP/1.1 413 No\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno"
    with serving(lambda found: found.sendall(answer), asked=False) as host:
        flight = flight_to(host)
        while not flight.connection.advance():
            pass
        flight.connection.read = held(flight.connection)
        flight.connection._socket = Broken(flight.connection._socket, error)
        flown(flight)
    assert (flight.fault, flight.status, flight.sent_ns) == ("http_error", 413, None)
    assert list(exchange_problems(flight.exchange(0), flight.live().start)) == []


def held(connection):
    """A reading to which the answer is only there once the request has been tried."""
    read = connection.read
    return lambda: read() if connection.handed_ns is not None else None
