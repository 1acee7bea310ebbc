"""Connections that do not wait without end: whoever opens one has some seconds to say what he wants."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

__all__ = ["HEAD_SECONDS", "Connection"]

HEAD_SECONDS = 10.0
"""So long a request's line and headers may take to come, and what is still sent after the answer. A file descriptor is held
meanwhile, token or not."""


class Connection(H11Protocol):
    """HTTP as uvicorn speaks it, which sets a limit between requests, but none to one that comes letter by letter."""

    _limit: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._let_go()
        super().connection_lost(exc)

    @property
    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _watch(self) -> None:
        """Count from when there is nothing to answer until there is."""
        if self._is_answering:
            self._let_go()
        elif self._limit is None:
            self._limit = self.loop.call_later(HEAD_SECONDS, self._close)

    def _close(self) -> None:
        self._limit = None
        if not self._is_answering:
            self.transport.close()

    def _let_go(self) -> None:
        if self._limit is not None:
            self._limit.cancel()
            self._limit = None
