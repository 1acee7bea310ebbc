"""Servers that know no HTTP: they give the bytes that a test wrote down, whatever is asked of them."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading

__all__ = ["Saying", "Sealed", "Speaking", "http"]


def http(body: bytes, media: str = "text/event-stream", status: str = "200 OK", *, connection: str = "close") -> bytes:
    """An answer in one piece."""
    lines = (
        f"HTTP/1.1 {status}",
        f"Content-Type: {media}",
        f"Content-Length: {len(body)}",
        f"Connection: {connection}",
    )
    return "\r\n".join((*lines, "", "")).encode() + body


class Speaking:
    """Answers the first that asks, and hangs up. A context: gives the URL."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer

    def __enter__(self) -> str:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        return f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    def _serve(self) -> None:
        found, _ = self._socket.accept()
        with found, contextlib.suppress(ConnectionError):  # the client leaves when it has seen enough
            found.settimeout(5)
            while b"\r\n\r\n" not in (data := found.recv(65536)) and data:
                pass
            found.sendall(self._answer)
            found.shutdown(socket.SHUT_WR)
            while found.recv(65536):
                pass

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        self._thread.join()


def _request(found: socket.socket) -> bytes:
    """A request with its body."""
    data = found.recv(65536)
    while b"\r\n\r\n" in data:
        head, _, body = data.partition(b"\r\n\r\n")
        length = next(
            (int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0
        )
        if len(body) >= length or not (more := found.recv(65536)):
            break
        data += more
    return data


class _Patient(Speaking):
    """Answers one after another, until it is left."""

    def _serve(self) -> None:
        while True:
            try:
                found, _ = self._socket.accept()
            except OSError:
                return
            with found, contextlib.suppress(OSError):
                self._talk(found)

    def _talk(self, found: socket.socket) -> None:
        raise NotImplementedError

    def __exit__(self, *_: object) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        super().__exit__()


class Saying(_Patient):
    """Answers everybody, and lists one model, or none."""

    def __init__(self, answer: bytes, model: str | None = "m") -> None:
        super().__init__(answer)
        self._model = model

    def _talk(self, found: socket.socket) -> None:
        asked = _request(found)
        listed = json.dumps({"data": [{"id": self._model}] if self._model is not None else []}).encode()
        found.sendall(http(listed, "application/json") if b"GET /v1/models" in asked else self.answer_to(asked))

    def answer_to(self, asked: bytes) -> bytes:
        """What is answered to a request that does not ask for the models."""
        return self._answer


class Sealed(_Patient):
    """Shakes hands with whoever speaks TLS, and ends every other request with what it was given. A context: gives the plain URL."""

    def __init__(self, tls: ssl.SSLContext, answer: bytes) -> None:
        super().__init__(answer)
        self._tls = tls

    def _talk(self, found: socket.socket) -> None:
        found.settimeout(5)
        if found.recv(1, socket.MSG_PEEK) == b"\x16":
            with self._tls.wrap_socket(found, server_side=True) as sealed:
                sealed.recv(1)
        else:
            found.recv(65536)
            found.sendall(self._answer)
