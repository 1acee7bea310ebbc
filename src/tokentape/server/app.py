"""The routes: pages, their events, their script and style, and a question that a page may ask."""

from __future__ import annotations

import asyncio
import html
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from tokentape.errors import TokentapeError
from tokentape.server.documents import Asked, Pages
from tokentape.server.events import HEARTBEAT_SECONDS, RETRY_MS, event, stream
from tokentape.server.explaining import Explainer, answer_of
from tokentape.server.folder import Shelf
from tokentape.server.following import Feed
from tokentape.server.gatekeeping import Gate, Gatekeeper
from tokentape.server.rows import Mark

__all__ = ["make_app"]

MOST_STREAMS = 64
"""Pages that are told of changes at once."""

FOLDER_SECONDS = 1.0
"""How often a folder is looked through for a page that lists it."""

STATIC = {"view.js": "text/javascript; charset=utf-8", "view.css": "text/css; charset=utf-8"}


def make_app(
    shelf: Shelf,
    gate: Gate,
    *,
    asked: Asked | None = None,
    explainer: Explainer | None = None,
    waiting: bool = False,
    stopping: Callable[[], bool] = lambda: False,
) -> ASGIApp:
    """The server's application, behind its gate.

    ``asked`` is how the pages are to be. With ``waiting`` a tape that is not there yet is waited for. ``stopping`` tells the
    streams of events when to end.
    """
    served = _Served(shelf, Pages(shelf, gate, explainer, asked or Asked()), waiting, stopping)
    routes = [
        Route("/", served.front),
        Route("/tape", served.tape),
        Route("/compare", served.compare),
        Route("/events", served.events),
        Route("/folder/events", served.folder_events),
        Route("/static/{name}", served.static),
    ]
    if explainer is not None:
        alone = asyncio.Lock()

        async def explain(request: Request) -> Response:
            return await answer_of(request, shelf, explainer, alone)

        routes.append(Route("/explain", explain, methods=["POST"]))
    app = Starlette(
        routes=routes, exception_handlers={TokentapeError: _told, HTTPException: _not_found, Exception: _broken}
    )
    app.router.redirect_slashes = False
    return Gatekeeper(app, gate)


def _told(request: Request, error: Exception) -> Response:
    assert isinstance(error, TokentapeError)
    text = f"error: {error.what}\nwhy: {error.why}\nfix: {error.fix}\n"
    return PlainTextResponse(text.encode("utf-8", "replace"), status_code=422)


def _not_found(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    text = (
        "error: there is nothing here\nwhy: no page has this address\nfix: open the address that the command printed\n"
    )
    return PlainTextResponse(text, status_code=status)


def _broken(request: Request, error: Exception) -> Response:
    """Said of what nobody foresaw; what it was is printed by the server."""
    text = "error: the page could not be computed\nwhy: this was not expected\nfix: the server printed where; please report it\n"
    return PlainTextResponse(text, status_code=500)


def _asked(request: Request, name: str) -> str | None:
    """A value of the address. The name of a file may be no UTF-8; its bytes are then as Python writes them in a path."""
    query = request.scope["query_string"].decode("latin-1")
    return dict(parse_qsl(query, keep_blank_values=True, errors="surrogateescape")).get(name)


@dataclass
class _Served:
    """What the routes share."""

    shelf: Shelf
    pages: Pages
    waiting: bool
    stopping: Callable[[], bool]
    feeds: dict[Path, Feed] = field(default_factory=dict)
    streams: int = 0

    def front(self, request: Request) -> Response:
        if self.shelf.pair is not None:
            return _page(self.pages.compare(*self.shelf.pair))
        if self.shelf.only is None:
            return _page(self.pages.folder())
        return self._tape_page(self.shelf.path_of(None))

    def tape(self, request: Request) -> Response:
        return self._tape_page(self.shelf.path_of(_asked(request, "name")))

    def _tape_page(self, path: Path | None) -> Response:
        if path is None:
            raise HTTPException(404)
        if self.waiting and not path.exists():
            return _wait_for(path)
        return _page(self.pages.tape(path))

    def compare(self, request: Request) -> Response:
        paths = [self.shelf.path_of(_asked(request, side) or "") for side in ("a", "b")]
        if None in paths:
            raise HTTPException(404)
        return _page(self.pages.compare(*[path for path in paths if path is not None]))

    def static(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in STATIC:
            raise HTTPException(404)
        data = resources.files("tokentape.views").joinpath("static", name).read_bytes()
        return Response(data, headers={"content-type": STATIC[name]})

    async def events(self, request: Request) -> Response:
        path = self.shelf.path_of(_asked(request, "tape"))
        if path is None:
            raise HTTPException(404)
        since = request.headers.get("last-event-id") or request.query_params.get("since") or ""
        feed = self.feeds.setdefault(path, Feed(path, self.pages))
        return self._streamed(request, stream(feed, Mark.parse(since), self.stopping))

    async def folder_events(self, request: Request) -> Response:
        return self._streamed(request, self._folder(request.query_params.get("since", "")))

    async def _folder(self, seen: str) -> AsyncIterator[str]:
        """Tell of the folder whenever it has changed."""
        yield f"retry: {RETRY_MS}\n\n"
        silent = 0.0
        while not self.stopping():
            version = await asyncio.to_thread(self.shelf.version)
            if version != seen:
                seen, silent = version, 0.0
                part = await asyncio.to_thread(self.pages.folder_part)
                yield f"id: {version}\n{event('folder', {'folder': part})}"
            elif silent >= HEARTBEAT_SECONDS:
                silent = 0.0
                yield ": still here\n\n"
            silent += FOLDER_SECONDS
            await asyncio.sleep(FOLDER_SECONDS)

    def _streamed(self, request: Request, events: AsyncIterator[str]) -> Response:
        if request.method == "HEAD":  # a stream without an end, of which nothing is sent
            return Response(media_type="text/event-stream")
        if self.streams >= MOST_STREAMS:
            return PlainTextResponse(
                f"error: {MOST_STREAMS} pages are open\nwhy: each holds a connection\nfix: close some\n",
                status_code=503,
            )

        async def counted() -> AsyncIterator[str]:
            self.streams += 1
            try:
                async for one in events:
                    yield one
            finally:
                self.streams -= 1

        return StreamingResponse(counted(), media_type="text/event-stream")


def _page(document: dict[str, Any]) -> Response:
    """The page around its document; the data is no script, and what could end it is escaped."""
    data = json.dumps(document, ensure_ascii=True, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    title = html.escape(str(document["title"]).encode("utf-8", "replace").decode())
    return HTMLResponse(
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{title}</title><link rel="stylesheet" href="/static/view.css"></head>'
        '<body><div id="tokentape"></div>'
        f'<script type="application/json" id="tokentape-data">{data}</script>'
        '<script src="/static/view.js"></script></body></html>\n'
    )


def _wait_for(path: Path) -> Response:
    name = html.escape(path.name.encode("utf-8", "replace").decode())
    return HTMLResponse(
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta http-equiv="refresh" content="1">'
        f'<title>{name}</title><link rel="stylesheet" href="/static/view.css"></head>'
        f"<body><p>Waiting for {name}: the model is being loaded. / 正在等待 {name}：模型加载中。</p></body></html>\n"
    )
