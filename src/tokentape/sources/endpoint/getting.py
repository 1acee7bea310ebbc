"""Small documents of a server, such as its list of models and its metrics; waits for them, but not for ever."""

from __future__ import annotations

import selectors
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

import h11

from tokentape.sources.endpoint.wire import Connection, Host, WireError

__all__ = ["Got", "get", "speaks_tls", "wait_for"]

MOST_BYTES = 8 << 20


class Selectable(Protocol):
    """What can be waited for."""

    def fileno(self) -> int: ...

    @property
    def wants(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Got:
    """An answer; ``fault`` and ``error`` where none came. Marks of ``time.perf_counter_ns`` around it."""

    began_ns: int
    ended_ns: int
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    fault: str | None = None
    error: str | None = None


def wait_for(one: Selectable, until_ns: int | None, slice_ns: int = 500_000_000) -> None:
    """Wait until something can be done, or until the mark ``until_ns``, but no longer than a moment: signals are to be heard."""
    now = time.perf_counter_ns()
    wait_ns = slice_ns if until_ns is None else max(0, min(slice_ns, until_ns - now))
    if one.fileno() < 0:
        return
    with selectors.DefaultSelector() as selector:
        selector.register(one.fileno(), one.wants)
        selector.select(wait_ns / 1e9)


def get(host: Host, target: str, *, within_ns: int = 5_000_000_000) -> Got:
    """What the server has at ``target``, on a connection of its own. Faults are in the answer."""
    began = time.perf_counter_ns()
    connection = host.connection()
    found = _Found()
    fault = error = None
    try:
        _exchange(connection, host, target, found, within_ns)
    except WireError as problem:
        fault, error = problem.fault, host.unsecret(str(problem))
    except h11.RemoteProtocolError as problem:
        fault, error = "malformed", host.unsecret(f"no HTTP: {problem}")
    finally:
        connection.close()
    return Got(began, time.perf_counter_ns(), found.status, found.headers, bytes(found.body), fault, error)


@dataclass(slots=True)
class _Found:
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    body: bytearray = field(default_factory=bytearray)


def speaks_tls(host: Host, *, within_ns: int = 3_000_000_000) -> bool:
    """Whether a server that is asked without TLS takes a handshake of it, with whatever certificate."""
    until_ns = time.perf_counter_ns() + within_ns
    connection = host.connection(replace(host.address, scheme="https", ca_file=None, insecure=True).tls_context())
    try:
        while not connection.advance():
            if time.perf_counter_ns() >= until_ns:
                return False
            wait_for(connection, until_ns)
    except WireError:
        return False
    finally:
        connection.close()
    return True


def _exchange(connection: Connection, host: Host, target: str, found: _Found, within_ns: int) -> None:
    http, sent = connection.http, False
    until_ns = time.perf_counter_ns() + within_ns
    while True:
        if time.perf_counter_ns() >= until_ns:
            if connection.is_shaking:
                raise WireError("tls", f"no TLS handshake within {within_ns / 1e9:.3g} s")
            raise WireError("timeout", f"no answer within {within_ns / 1e9:.3g} s")
        if connection.advance():
            if not sent:
                request = h11.Request(method="GET", target=target, headers=[*host.headers, ("Connection", "close")])
                connection.write((http.send(request) or b"") + (http.send(h11.EndOfMessage()) or b""))
                sent = True
            connection.flush()
            data = connection.read()
            if data is not None:
                http.receive_data(data[0])
                if _take(http, found):
                    return
                continue
        wait_for(connection, until_ns)


def _take(http: h11.Connection, found: _Found) -> bool:
    """Note what has come; whether that is all."""
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA or event is h11.PAUSED:
            return False
        if isinstance(event, h11.Response):
            found.status = event.status_code
            found.headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in event.headers}
        elif isinstance(event, h11.Data):
            found.body += event.data
            if len(found.body) > MOST_BYTES:
                raise WireError("too_long", f"more than {MOST_BYTES:,} bytes came")
        elif isinstance(event, h11.EndOfMessage):
            return True
        elif isinstance(event, h11.ConnectionClosed):
            raise WireError("cut_short", "the server closed the connection without an answer")
