"""Server-sent events of one tape: rows as they are committed, and now and then what is computed of all of them.

Events, each with the data as one JSON document:

``rows``      ``{state, run, traces, pieces}``: columns of new steps and tokens; ``from`` says where they go
``sections``  ``{document}``: the page's document without the columns and the words, which the page has
``document``  ``{document}``: the whole of it, where the page has another run, another tape, or the tape has ended
``trouble``   ``{what, why, fix}``: the file cannot be read now; ``null`` once it can

The ``id`` is what the page has afterwards (:class:`~tokentape.server.rows.Mark`): with ``Last-Event-ID`` or ``since`` a page
goes on where it was, no row lost and none twice. A slow reader is not sent everything it missed: when it is ready, it is sent what
it lacks by then, as one event.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

from tokentape.server.following import Derived, Feed
from tokentape.server.rows import Mark, Moment

__all__ = ["HEARTBEAT_SECONDS", "RETRY_MS", "event", "stream", "without_columns"]

HEARTBEAT_SECONDS = 10.0
"""A comment is sent after so long a silence, so that a reader who has gone is noticed."""

RETRY_MS = 1000

STOP_SECONDS = 0.5
"""How soon a stream ends when the server is to stop."""

COLUMNS_OF_A_RUN = frozenset({"number", "time"})
"""What of a run is not a column."""


def event(name: str, data: Any, mark: Mark | None = None) -> str:
    """One event of the stream."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    text = text.encode("utf-8", "replace").decode()  # a lone surrogate is no text; nothing the page is given has one
    head = "" if mark is None else f"id: {mark}\n"
    return f"{head}event: {name}\ndata: {text}\n\n"


def without_columns(document: dict[str, Any]) -> dict[str, Any]:
    """The document without what the page has: the columns of symbols, tokens and steps, and the words."""
    tape = document["tape"]
    slim = {
        **tape,
        "traces": [{k: v for k, v in trace.items() if k not in ("symbols", "tokens")} for trace in tape["traces"]],
        "runs": [{k: v for k, v in run.items() if k in COLUMNS_OF_A_RUN} for run in tape["runs"]],
    }
    return {k: v for k, v in document.items() if k not in ("words", "live", "tape")} | {"tape": slim}


async def stream(feed: Feed, since: Mark | None, stopping: Callable[[], bool]) -> AsyncIterator[str]:
    """What a page that has ``since`` is to be told, until it goes or the server stops."""
    yield f"retry: {RETRY_MS}\n\n"
    page = _Page(since)
    silent = 0.0
    async with feed:
        while not stopping():
            if not await feed.news(page.seen, STOP_SECONDS):
                silent += STOP_SECONDS
                if silent >= HEARTBEAT_SECONDS:
                    silent = 0.0
                    yield ": still here\n\n"
                continue
            silent = 0.0
            counters, moment, derived, trouble = feed.counters, feed.moment, feed.derived, feed.trouble
            before, page.seen = page.seen, counters
            if counters[2] != before[2]:
                told = None if trouble is None else {"what": trouble.what, "why": trouble.why, "fix": trouble.fix}
                yield event("trouble", told)
            if derived is not None and counters[1] != before[1]:
                yield await asyncio.to_thread(page.document, derived)
            if moment is not None and page.lacks(moment):
                yield await asyncio.to_thread(page.rows, moment)


class _Page:
    """What one page has."""

    def __init__(self, has: Mark | None) -> None:
        self.has = has
        self.seen = (0, 0, 0)
        self._served = 0 if has is None else has.steps

    def lacks(self, moment: Moment) -> bool:
        """Whether rows would bring it up to the moment."""
        has = self.has
        return has is not None and has.grows_into(moment.mark) and has.steps < moment.mark.steps

    def rows(self, moment: Moment) -> str:
        assert self.has is not None
        found = moment.rows_since(self.has.steps)
        self.has = Mark(moment.mark.tape, moment.mark.run, moment.mark.steps, self.has.settled)
        return event("rows", {"state": moment.state, **found}, self.has)

    def document(self, derived: Derived) -> str:
        """All of it where the page shows something else, or what no longer grows."""
        has, mark = self.has, derived.mark
        same = has is not None and (has.tape, has.run) == (mark.tape, mark.run)
        if same and has is not None and not mark.settled:
            if mark.steps < self._served:  # computed for an earlier page
                return ": nothing new\n\n"
            return event("sections", {"document": without_columns(derived.document)})
        if has == mark:  # it was served with the page
            return ": nothing new\n\n"
        self.has = mark
        return event("document", {"document": derived.document}, mark)
