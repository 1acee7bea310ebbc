"""A server in a thread, a client of it, and a reader of its events."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from tokentape.server.explaining import Explainer
from tokentape.server.folder import Shelf
from tokentape.server.gatekeeping import Gate
from tokentape.server.listening import Listening
from tokentape.server.serving import Server

TOKEN = "a-token-of-the-tests-0123456789abcdef"


@dataclass
class Served:
    gate: Gate
    base: str

    def client(self, *, entered: bool = True) -> httpx2.Client:
        """As a browser is that has opened the printed address; or one that has not."""
        cookies = {self.gate.cookie: TOKEN} if entered else None
        return httpx2.Client(base_url=self.base, cookies=cookies, timeout=30, trust_env=False)


@contextlib.contextmanager
def serving(
    shelf: Shelf, *, port: int = 0, explainer: Explainer | None = None, waiting: bool = False
) -> Iterator[Served]:
    opened = socket.socket()
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    opened.bind(("127.0.0.1", port))
    opened.listen()
    gate = Gate(token=TOKEN, port=opened.getsockname()[1])
    base = f"http://127.0.0.1:{gate.port}"
    server = Server(shelf, Listening(opened, gate, base), explainer=explainer, waiting=waiting)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield Served(gate, base)
    finally:
        server.stop()
        thread.join()
        opened.close()


@dataclass
class Event:
    name: str
    data: Any
    id: str | None


def events(response: httpx2.Response) -> Iterator[Event]:
    """The events of a stream, by the rules of the HTML standard."""
    name, data, last = "message", [], None
    for line in response.iter_lines():
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if line == "":
            if data:
                yield Event(name, json.loads("\n".join(data)), last)
            name, data = "message", []
        elif field == "event":
            name = value
        elif field == "data":
            data.append(value)
        elif field == "id":
            last = value


def document_of(text: str) -> Any:
    """The document in a page."""
    _, _, rest = text.partition('id="tokentape-data">')
    return json.loads(rest.partition("</script>")[0])


def merged(page: dict[str, Any], rows: dict[str, Any]) -> None:
    """What web/src/live.ts does with an event ``rows``, column by column."""

    def put(columns: dict[str, Any], new: dict[str, Any]) -> None:
        for name, values in new.items():
            if name not in ("from", "number"):
                assert len(columns[name]) >= new["from"]
                columns[name] = columns[name][: new["from"]] + values

    tape = page["tape"]
    put(next(run for run in tape["runs"] if run["number"] == rows["run"]["number"]), rows["run"])
    for new in rows["traces"]:
        trace = next(one for one in tape["traces"] if one["number"] == new["number"])
        put(trace["tokens"], new["tokens"])
        put(trace["symbols"], new["symbols"])
    tape["pieces"] |= rows["pieces"]


def shelf_of_one(path: Path) -> Shelf:
    return Shelf(files=[path])
