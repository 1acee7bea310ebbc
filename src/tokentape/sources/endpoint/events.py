"""An event stream from its bytes: server-sent events as the WHATWG standard has them, without any input or output.

>>> stream = EventStream(); stream.feed(b"data: one\\n", 1), stream.feed(b"\\ndata: t", 2), stream.feed(b"wo\\r\\n\\r\\n", 3)
([], [Event(data=b'one', stamp=2, name=None)], [Event(data=b'two', stamp=3, name=None)])
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

__all__ = ["LONGEST_EVENT_BYTES", "Event", "EventStream", "EventTooLong"]

LONGEST_EVENT_BYTES = 16 << 20
"""An event that is longer than this is none: log-probabilities of a whole vocabulary take 12 MB."""

LINE_BYTES = 64
"""What a line counts beside its bytes: of empty ones too an event may not have as many as it likes."""

_LINE_END = re.compile(rb"\r\n|\n|\r")
_BOM = b"\xef\xbb\xbf"


class EventTooLong(Exception):
    """An event does not end within :data:`LONGEST_EVENT_BYTES`."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event: its ``data``, lines joined by LF; ``stamp`` is that of the bytes which completed it."""

    data: bytes
    stamp: Any
    name: str | None = None


class EventStream:
    """Feed it the bytes as they come, with a stamp; it gives the events that they complete.

    Lines end with LF, CR LF or CR, wherever the bytes are split. Comments, ``id`` and ``retry`` are read over, as are events
    without data. :attr:`comments` counts the comments.
    """

    def __init__(self, longest_bytes: int = LONGEST_EVENT_BYTES) -> None:
        self.comments = 0
        self._longest = longest_bytes
        self._rest = bytearray()  # the line that has not ended
        self._after_cr = False
        self._begun = False
        self._data: list[bytes] = []
        self._n_bytes = 0
        self._name: str | None = None

    @property
    def unfinished(self) -> bool:
        """Whether something has come that belongs to an event which has not ended."""
        return bool(self._rest or self._data)

    def feed(self, data: bytes, stamp: Any = None) -> list[Event]:
        """The events that these bytes complete. Raises :class:`EventTooLong`. Each byte is looked at once, however it comes."""
        if not self._begun:
            data = bytes(self._rest) + data
            self._rest.clear()
            if len(data) < len(_BOM) and _BOM.startswith(data):
                self._rest += data
                return []
            self._begun = True
            data = data.removeprefix(_BOM)
        if not data:
            return []
        at = 0
        if self._after_cr:
            at = int(data.startswith(b"\n"))
        found: list[Event] = []
        for end in _LINE_END.finditer(data, at):
            line = data[at : end.start()]
            at = end.end()
            if self._rest:
                line = bytes(self._rest) + line
                self._rest.clear()
            if line:
                self._take(line)
                if self._n_bytes > self._longest:
                    break
            elif (event := self._dispatched(stamp)) is not None:
                found.append(event)
        self._rest += data[at:]
        # a CR ends its line at once; an LF that follows in the next bytes belongs to it
        self._after_cr = not self._rest and data.endswith(b"\r")
        if self._n_bytes + len(self._rest) > self._longest:
            raise EventTooLong(f"an event of more than {self._longest:,} bytes")
        return found

    def close(self, stamp: Any = None) -> list[Event]:
        """The event that the end of the stream completes, where its last blank line is missing."""
        line, self._rest = bytes(self._rest), bytearray()
        if line:
            self._take(line)
        event = self._dispatched(stamp)
        return [] if event is None else [event]

    def _take(self, line: bytes) -> None:
        name, colon, value = line.partition(b":")
        if not name:
            self.comments += 1
            return
        if colon and value.startswith(b" "):
            value = value[1:]
        if name == b"data":
            self._data.append(value)
            self._n_bytes += len(value) + LINE_BYTES
        elif name == b"event":
            self._name = value.decode("utf-8", errors="replace")

    def _dispatched(self, stamp: Any) -> Event | None:
        data, name = self._data, self._name
        if not data:
            self._name = None
            return None
        self._data, self._name, self._n_bytes = [], None, 0
        return Event(data[0] if len(data) == 1 else b"\n".join(data), stamp, name)
