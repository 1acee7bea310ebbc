"""Whoever opens a connection and says nothing does not hold it; whoever is answered does."""

from __future__ import annotations

import contextlib
import socket
import time

import pytest
from served import TOKEN, serving, shelf_of_one

import tokentape
import tokentape.server.connections as connections
from tokentape import Line, ScriptedSource

SECONDS = 0.3

BEGINNINGS = {
    "nothing": [],
    "a head in pieces": [b"GET / HTTP/1.1\r\n", b"Host: 127.0.0.1\r\n", b"X: y\r\n"],
    "a second request": [b"GET / HTTP/1.1\r\nHost: elsewhere\r\n\r\n", b"GET / HT", b"TP/1.1\r\n"],
    "a body that was refused": [
        b"POST /explain HTTP/1.1\r\nHost: elsewhere\r\nContent-Length: 1000\r\n\r\n",
        b"a",
        b"b",
    ],
}


@pytest.fixture
def served(tmp_path, monkeypatch):
    monkeypatch.setattr(connections, "HEAD_SECONDS", SECONDS)
    tokentape.record(ScriptedSource([Line(5, [" mat"])]), "The cat", path=tmp_path / "cat.tape", probe="timing").close()
    with serving(shelf_of_one(tmp_path / "cat.tape")) as found:
        yield found


@pytest.mark.parametrize("said", BEGINNINGS.values(), ids=BEGINNINGS)
def test_who_does_not_say_what_he_wants_is_let_go(served, said):
    with (
        socket.create_connection(("127.0.0.1", served.gate.port), timeout=10) as connection,
        contextlib.suppress(ConnectionError),
    ):
        for part in said:
            connection.sendall(part)
            time.sleep(SECONDS / 4)  # each of them begins no new count
        while connection.recv(65536):  # returns where the other side has closed; else the timeout raises
            pass


def test_who_is_being_told_of_changes_stays(served):
    head = f"GET /events HTTP/1.1\r\nHost: 127.0.0.1:{served.gate.port}\r\nCookie: {served.gate.cookie}={TOKEN}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", served.gate.port), timeout=3 * SECONDS) as connection:
        connection.sendall(head.encode())
        while b"event: document" not in (heard := connection.recv(1 << 20)):
            assert heard
        with pytest.raises(TimeoutError):
            while True:
                assert connection.recv(1 << 20)  # nothing would be the end
