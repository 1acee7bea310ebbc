"""One connection of a client: its requests are read with h11, its answers written as they are, byte for byte."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass

import h11

from tokentape.mock.answering import Received

__all__ = ["Connection", "Gone"]

_MOST_BYTES = 64 * 1024 * 1024
"""Of one request."""

_AT_ONCE = 256 * 1024
_RECORD = 16 * 1024


class Gone(Exception):
    """The client closed the connection, or it broke."""


@dataclass(slots=True)
class _Incoming:
    """A request of which not everything is there."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytearray


class Connection:
    """A socket, what was read of the next request, and what could not be sent yet.

    ``received`` is called with each request and the moment at which its last byte was read; the next one is read when
    :meth:`answered` said that this one is done.
    """

    def __init__(self, sock: socket.socket, received: Callable[[Connection, Received, int], None]) -> None:
        self.sock = sock
        self.waiting = bytearray()
        self.closing = False
        self.last = False
        """Whether the client wants no other answer on this connection than the one that it waits for."""
        self._tls = isinstance(sock, ssl.SSLSocket)
        self.shaken = not self._tls
        self._received = received
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=1024 * 1024)
        self._incoming: _Incoming | None = None
        self._n_paused = 0

    def shake_hands(self) -> None:
        """Go on with the TLS handshake, as far as it goes; raises Gone where it fails."""
        assert isinstance(self.sock, ssl.SSLSocket)
        try:
            self.sock.do_handshake()
            self.shaken = True
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            pass
        except (OSError, ValueError) as error:
            raise Gone(str(error)) from None

    def read(self) -> None:
        """Read what is there; raises Gone at the end of the connection."""
        if not self.shaken:
            self.shake_hands()
            if not self.shaken:
                return
        try:
            data = self.sock.recv(_AT_ONCE)
            while isinstance(self.sock, ssl.SSLSocket) and data and self.sock.pending():
                data += self.sock.recv(_AT_ONCE)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError, InterruptedError):
            return
        except OSError as error:
            raise Gone(str(error)) from None
        read_ns = time.perf_counter_ns()
        if not data:
            raise Gone("closed by the client")
        if self._http.their_state is h11.DONE:
            self._n_paused += len(data)
            if self._n_paused > _MOST_BYTES:
                raise Gone("more than is taken before an answer")
        self._http.receive_data(data)
        self._understand(read_ns)

    def answered(self) -> None:
        """The answer is done: read on, perhaps what came meanwhile."""
        rest, _ = self._http.trailing_data
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=1024 * 1024)
        self._n_paused = 0
        if rest:
            self._http.receive_data(rest)
            self._understand(time.perf_counter_ns())

    def _understand(self, read_ns: int) -> None:
        while True:
            try:
                event = self._http.next_event()
            except h11.RemoteProtocolError as error:
                self.refuse(400, str(error))
                return
            if event is h11.NEED_DATA or event is h11.PAUSED:
                if self._http.they_are_waiting_for_100_continue:
                    self.send(b"HTTP/1.1 100 Continue\r\n\r\n")
                    self._http.send(h11.InformationalResponse(status_code=100, headers=[]))
                return
            if isinstance(event, h11.Request):
                headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in event.headers}
                target = event.target.decode("latin-1")
                self._incoming = _Incoming(event.method.decode("latin-1"), target, headers, bytearray())
            elif isinstance(event, h11.Data) and self._incoming is not None:
                self._incoming.body += event.data
                if len(self._incoming.body) > _MOST_BYTES:
                    self.refuse(413, "the body is too large")
                    return
            elif isinstance(event, h11.EndOfMessage) and self._incoming is not None:
                whole, self._incoming = self._incoming, None
                self.last = self._http.their_state is h11.MUST_CLOSE
                self._received(self, Received(whole.method, whole.target, whole.headers, bytes(whole.body)), read_ns)
                return
            else:
                raise Gone("closed by the client")

    def refuse(self, status: int, why: str) -> None:
        """Answer something that is no request, and close."""
        body = why.encode("ascii", "replace") + b"\n"
        head = f"HTTP/1.1 {status} Refused\r\ncontent-type: text/plain\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
        self.send(head.encode() + body)
        self.closing = True

    def send(self, data: bytes) -> int:
        """Send bytes; what the socket does not take at once waits, and its number is returned. Raises Gone."""
        if self.waiting or self._tls:
            self.waiting += data
            if self._tls:
                self.flush()
            return min(len(data), len(self.waiting))
        try:
            data = data[self.sock.send(data) :]
        except (BlockingIOError, InterruptedError):
            pass
        except OSError as error:
            raise Gone(str(error)) from None
        self.waiting += data
        return len(data)

    def flush(self) -> None:
        """Send what waits, as far as the socket takes it; raises Gone."""
        # OpenSSL takes a write that it refused once more only if it has not become shorter: so one record at a time
        most = _RECORD if self._tls else _AT_ONCE
        try:
            while self.waiting:
                n = self.sock.send(self.waiting[:most])
                del self.waiting[:n]
        except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError, InterruptedError):
            pass
        except OSError as error:
            raise Gone(str(error)) from None

    def reset(self) -> None:
        """Close so that the client sees a reset, not an end."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def close(self) -> None:
        """Close; the client sees the end after all that was sent."""
        with contextlib.suppress(OSError, ValueError):
            self.sock.shutdown(socket.SHUT_WR)
        self.sock.close()
