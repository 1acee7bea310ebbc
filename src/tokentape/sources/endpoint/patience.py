"""How long one request is waited for: until it is connected, answered, goes on, says something, and is over."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from tokentape.sources.endpoint.call import Limits

__all__ = ["CLOSING_NS", "SILENT_TIMES", "Patience", "Stage"]

CLOSING_NS = 2_000_000_000
"""How long the end of an answer is waited for when its last message has come: after it the connection can be used again."""
SILENT_TIMES = 10
"""A server may send so many times as long as it may be silent what says nothing: comments, and messages without text."""


class Stage(IntEnum):
    """Where a request is on its way."""

    CONNECTING = 0
    ANSWERING = 1
    CLOSING = 2
    DONE = 3


@dataclass(slots=True)
class Patience:
    """The marks from which waiting counts, None for what has not come yet; the byte that came last is at ``last_ns``."""

    limits: Limits
    begun_ns: int | None = None
    connected: bool = False
    last_ns: int = 0
    first_byte_ns: int | None = None
    said_ns: int | None = None
    closing_ns: int | None = None

    @property
    def silence_ns(self) -> int | None:
        """When it is given up if nothing is there to be read then; None where it waits for ever."""
        if self.begun_ns is None or self.closing_ns is not None:
            return None
        if not self.connected:
            since, wait = self.begun_ns, self.limits.connect_ns
        elif self.first_byte_ns is None:
            since, wait = self.last_ns, self.limits.first_ns
        else:
            since, wait = self.last_ns, self.limits.between_ns
        return None if wait is None else since + wait

    @property
    def end_ns(self) -> int | None:
        """When it is given up, whatever comes."""
        if self.begun_ns is None:
            return None
        ends = [] if self.limits.whole_ns is None else [self.begun_ns + self.limits.whole_ns]
        if self.closing_ns is not None:
            ends.append(self.closing_ns + CLOSING_NS)
        elif self.first_byte_ns is not None and self.limits.between_ns is not None:
            said_ns = self.first_byte_ns if self.said_ns is None else self.said_ns
            ends.append(said_ns + SILENT_TIMES * self.limits.between_ns)
        return min(ends, default=None)

    @property
    def deadline_ns(self) -> int | None:
        """The earlier of both."""
        return min((one for one in (self.silence_ns, self.end_ns) if one is not None), default=None)

    def why(self, now: int, *, shaking: bool = False) -> str:
        """What has not happened within which time, at the mark ``now``; ``shaking`` where TLS is what is waited for."""
        begun = self.begun_ns if self.begun_ns is not None else now
        silence = self.silence_ns
        if silence is not None and now < silence and self.first_byte_ns is not None:
            whole = self.limits.whole_ns
            if whole is not None and now >= begun + whole:
                return f"not over within {(now - begun) / 1e9:.3g} s"
            said_ns = self.first_byte_ns if self.said_ns is None else self.said_ns
            return f"nothing that says anything within {(now - said_ns) / 1e9:.3g} s"
        waited = "no TLS handshake" if shaking else "no connection"
        what = waited if not self.connected else "no answer" if self.first_byte_ns is None else "nothing more"
        return f"{what} within {(now - (self.last_ns or begun)) / 1e9:.3g} s"
