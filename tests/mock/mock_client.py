"""A client with nothing but a socket, which sees every byte as it came."""

from __future__ import annotations

import json
import re
import select
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

COMPLETIONS = "/v1/completions"
CHAT = "/v1/chat/completions"


@dataclass
class Seen:
    """What one request brought: each read with its moment, and how it ended: closed, reset or None for neither."""

    reads: list[tuple[int, bytes]] = field(default_factory=list)
    ended: str | None = None

    @property
    def data(self) -> bytes:
        return b"".join(data for _, data in self.reads)

    @property
    def head(self) -> bytes:
        return self.data.partition(b"\r\n\r\n")[0]

    @property
    def status(self) -> int:
        return int(self.head.split(b" ", 2)[1])

    def field(self, name: str) -> str | None:
        for line in self.head.decode().split("\r\n")[1:]:
            key, _, value = line.partition(": ")
            if key == name:
                return value
        return None

    @property
    def after_head(self) -> bytes:
        return self.data.partition(b"\r\n\r\n")[2]

    @property
    def chunks(self) -> list[bytes]:
        """The chunks of a body in chunks; the last one may be cut short."""
        found, rest = [], self.after_head
        while rest:
            size, _, rest = rest.partition(b"\r\n")
            n = int(size, 16)
            found.append(rest[:n])
            rest = rest[n + 2 :]
        return found

    @property
    def body(self) -> bytes:
        return b"".join(self.chunks) if self.field("transfer-encoding") == "chunked" else self.after_head

    @property
    def events(self) -> list[str]:
        """The data of each event, for streams whose lines end with LF."""
        blocks = self.body.decode().split("\n\n")[:-1]
        return [
            "\n".join(line.removeprefix("data: ") for line in block.split("\n") if line.startswith("data"))
            for block in blocks
        ]

    @property
    def messages(self) -> list[Any]:
        return [json.loads(data) for data in self.events if data and data != "[DONE]"]


def request_bytes(path: str, body: Any, headers: Mapping[str, str] | None = None) -> bytes:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    fields = {"host": "mock", "content-type": "application/json", "content-length": str(len(data))}
    fields |= {"connection": "close", **(headers or {})}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + data


def read_all(client: socket.socket, *, quiet_s: float, whole_s: float = 5.0) -> Seen:
    """Read until the end, or until nothing came for so long."""
    seen, until = Seen(), time.monotonic() + whole_s
    while time.monotonic() < until:
        if not select.select([client], [], [], quiet_s)[0]:
            break
        try:
            data = client.recv(1 << 20)
        except ConnectionResetError:
            seen.ended = "reset"
            break
        if not data:
            seen.ended = "closed"
            break
        seen.reads.append((time.perf_counter_ns(), data))
    return seen


def connected(url: str) -> socket.socket:
    address = urlsplit(url)
    return socket.create_connection((address.hostname, address.port))


def asked(server: Any, body: Any = None, path: str = COMPLETIONS, *, quiet_s: float = 0.3, **more: Any) -> Seen:
    """What the server sends for one request, read until it is quiet."""
    prompt = {"messages": [{"role": "user", "content": "Hi"}]} if path == CHAT else {"prompt": "Hi"}
    with connected(server.url) as client:
        client.sendall(request_bytes(path, {**prompt, "stream": True} if body is None else body, **more))
        return read_all(client, quiet_s=quiet_s)


def timeless(data: bytes) -> bytes:
    """Bytes without the date of their head and the second of their making."""
    return re.sub(rb'"created":\d+|date: [^\r]+', b"", data)
