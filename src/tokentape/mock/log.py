"""What was really sent, and when: one row a request and one a send, with times of ``time.perf_counter_ns``."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Log", "Sent", "Served", "lateness"]


@dataclass(slots=True)
class Sent:
    """One send: due at ``due_ns``, handed to the socket at ``sent_ns`` (read just before).

    ``kind``: head, role, text, finish, usage, done, error, other, part (of a message that goes on), whole, end.
    ``n_tokens`` and ``n_messages`` are those that it completes. ``n_late_bytes`` were not taken by the socket at
    once, since the client had not read.
    """

    request: int
    place: int
    kind: str
    due_ns: int
    sent_ns: int
    n_bytes: int
    n_tokens: int = 0
    n_messages: int = 0
    choice: int | None = None
    n_late_bytes: int = 0
    data: bytes | None = None


@dataclass(slots=True)
class Served:
    """One request: ``read_ns`` its last byte was read, ``begun_ns`` it got its slot, ``ended_ns`` and ``how`` it ended.

    ``how``: done, closed, reset, gone (the client went first); None while it is being answered.
    """

    request: int
    method: str
    target: str
    read_ns: int
    begun_ns: int | None = None
    ended_ns: int | None = None
    how: str | None = None
    stream: bool = False
    n_prompt: int = 0
    n_completion: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: Any = None


@dataclass(slots=True)
class Log:
    """All requests and all sends, in the order in which they were begun and sent."""

    served: list[Served] = field(default_factory=list)
    sent: list[Sent] = field(default_factory=list)

    def of(self, request: int) -> list[Sent]:
        """The sends of one request."""
        return [sent for sent in self.sent if sent.request == request]

    def lines(self) -> Iterator[str]:
        """The log as JSON lines."""
        for served in list(self.served):
            yield served_line(served)
        for sent in list(self.sent):
            yield sent_line(sent)

    @classmethod
    def from_lines(cls, lines: Iterable[str]) -> Log:
        """What :meth:`lines` gave."""
        log = cls()
        for line in filter(str.strip, lines):
            row = json.loads(line)
            event = row.pop("event")
            if event == "request":
                log.served.append(Served(**row))
            else:
                data = row.get("data")
                log.sent.append(Sent(**{**row, "data": None if data is None else base64.b64decode(data)}))
        return log


def served_line(served: Served) -> str:
    """A request as a line of JSON."""
    return json.dumps({"event": "request", **{name: getattr(served, name) for name in Served.__slots__}})


def sent_line(sent: Sent) -> str:
    """A send as a line of JSON, its bytes in base64."""
    row = {name: getattr(sent, name) for name in Sent.__slots__}
    if sent.data is not None:
        row["data"] = base64.b64encode(sent.data).decode()
    return json.dumps({"event": "send", **row})


def lateness(sent: Iterable[Sent]) -> dict[str, float | int | None]:
    """How late the sends were against their schedule, in microseconds: n, p50, p99 and the most; null where there are none."""
    late = sorted((one.sent_ns - one.due_ns) / 1000 for one in sent)
    if not late:
        return {"n": 0, "p50_us": None, "p99_us": None, "max_us": None}
    return {
        "n": len(late),
        "p50_us": late[(len(late) - 1) // 2],
        "p99_us": late[min(len(late) - 1, -(-99 * len(late) // 100) - 1)],
        "max_us": late[-1],
    }
