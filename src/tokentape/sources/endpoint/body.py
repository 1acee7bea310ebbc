"""The body of an answer: an event stream, or a document where there is none."""

from __future__ import annotations

import contextlib
import json
import zlib
from collections.abc import Callable, Mapping
from typing import Any

from tokentape.sources.endpoint.events import Event, EventStream
from tokentape.sources.endpoint.fitting import LONGEST_ERROR
from tokentape.sources.endpoint.messages import error_text

__all__ = ["Body", "BodyError", "judged"]

MOST_DOCUMENT_BYTES = 32 << 20
"""An answer as a whole."""
MOST_ERROR_BYTES = 1 << 16
"""Of an error a part is enough."""
MOST_BLANK_BYTES = 1 << 12
"""Blank bytes before it is decided what a body without a media type is."""

_SIGNS = (b"data:", b"event:", b"id:", b"retry:", b":")
"""What an event stream may begin with, whatever its media type says."""


class BodyError(Exception):
    """The bytes of a body are not what its headers say."""


class Body:
    """Takes the bytes of a body; gives events where it is a stream, and keeps it as :attr:`document` where it is not.

    What is a stream is told by its media type, or by its first bytes where that says something else. A body that is compressed
    although nobody asked for that is read all the same. ``n_bytes`` are those that came, or that compressed ones stand for.
    """

    def __init__(self, status: int, headers: Mapping[str, str]) -> None:
        self.events = EventStream()
        self.n_bytes = 0
        self._document = bytearray()
        success = 200 <= status < 300
        media = headers.get("content-type", "").partition(";")[0].strip().lower()
        self._stream: bool | None = None
        if not success or media == "application/json":
            self._stream = False
        elif media == "text/event-stream":
            self._stream = True
        self._most = MOST_DOCUMENT_BYTES if success else MOST_ERROR_BYTES
        self._unpacked = _unpacking(headers.get("content-encoding", "").strip().lower())

    @property
    def is_stream(self) -> bool:
        return bool(self._stream)

    @property
    def document(self) -> bytes:
        """What has come of a body that is no stream."""
        return bytes(self._document)

    @property
    def is_full(self) -> bool:
        """Whether a document is as long as one is looked at."""
        return not self._stream and len(self._document) >= self._most

    def feed(self, data: bytes, stamp: Any) -> list[Event]:
        """The events that these bytes complete. Raises EventTooLong, :class:`BodyError`."""
        if self._unpacked is not None:
            try:
                data = self._unpacked.decompress(data, MOST_DOCUMENT_BYTES)
            except zlib.error as error:
                raise BodyError(f"the body is compressed, and cannot be unpacked: {error}") from error
            if self._unpacked.unconsumed_tail:
                raise BodyError("a few compressed bytes stand for more than an answer may have")
        self.n_bytes += len(data)
        if self._stream is None:
            self._document += data
            begun = self._document[: 2 * MOST_BLANK_BYTES].removeprefix(b"\xef\xbb\xbf").lstrip()
            if len(begun) < len("event:") and len(self._document) < MOST_BLANK_BYTES:
                return []
            self._stream = begun.startswith(_SIGNS)
            data = bytes(self._document)
            self._document.clear()
        if self._stream:
            return self.events.feed(data, stamp)
        self._document += data[: self._most - len(self._document)]
        return []

    def close(self, stamp: Any) -> list[Event]:
        """The event that the end of the body completes."""
        return self.events.close(stamp) if self._stream else []


def _unpacking(encoding: str) -> Any:
    if encoding in ("", "identity"):
        return None
    if encoding in ("gzip", "x-gzip", "deflate"):
        return zlib.decompressobj(wbits=47)  # with the header of either
    raise BodyError(f"the body is encoded as {encoding}, which was not asked for")


def judged(
    document: bytes, status: int, headers: Mapping[str, str], unsecret: Callable[[str], str]
) -> tuple[str | None, str | None]:
    """The fault and the error of an answer that is no stream; none where it is a whole answer although a stream was asked for."""
    text = unsecret(document[:MOST_ERROR_BYTES].decode("utf-8", errors="replace")).strip()[:LONGEST_ERROR]
    if 300 <= status < 400:
        return "redirect", f"{status} to {headers.get('location', 'an address that it does not say')}"
    found: Any = None
    with contextlib.suppress(ValueError, RecursionError):
        found = json.loads(document)
    told = error_text(found) if isinstance(found, dict) else None
    if status >= 400:
        return "http_error", told or text or f"status {status}"
    if told is not None:
        return "error_event", told
    if not isinstance(found, dict) or not isinstance(found.get("choices"), list):
        return "not_json", text or "nothing came"
    return None, None
