"""Explanation on demand: what a page may ask for where a model is at hand."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any, Protocol

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tokentape.data.tape import Tape, open_tape
from tokentape.errors import TokentapeError
from tokentape.server.folder import Shelf
from tokentape.views.page.symbols import n_prompt_places

__all__ = ["Explainer", "answer_of"]

LONGEST_BODY = 4096
"""Bytes of a question; it has three small fields."""


class Explainer(Protocol):
    """Whoever has a model: given from above, since this room knows nothing of models."""

    def offers(self, tape: Tape) -> bool:
        """Whether the model of this tape is at hand."""
        ...

    def explain(self, path: Path, trace: int, position: int) -> None:
        """Explain the token at a position, and keep what was found in the tape. Raises TokentapeError."""
        ...


async def answer_of(request: Request, shelf: Shelf, explainer: Explainer, alone: asyncio.Lock) -> Response:
    """Explains the token at ``place`` of sequence ``trace`` of ``tape``, one question at a time.

    The page learns what was found by the event that tells of the changed tape. A question that cannot be answered comes back as
    ``{what, why, fix}``.
    """
    try:
        asked = json.loads(await _body(request))
        name, trace, place = asked["tape"], int(asked["trace"]), int(asked["place"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return _told("this is no question", "it has not the fields tape, trace and place", "reload the page", 400)
    path = shelf.path_of(name if isinstance(name, str) else None)
    if path is None:
        return _told("there is no such tape", "it is not among those that are served", "reload the page", 404)
    async with alone:
        try:
            await asyncio.to_thread(_explain, explainer, path, trace, place)
        except TokentapeError as error:
            return _told(error.what, error.why, error.fix, 409)
    return JSONResponse({"done": True})


async def _body(request: Request) -> bytes:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > LONGEST_BODY:
            raise ValueError("too long")
    return body


def _explain(explainer: Explainer, path: Path, number: int, place: int) -> None:
    with open_tape(path) as tape:
        trace = tape.traces[number] if 0 <= number < len(tape) else None
        index = -1 if trace is None else place - n_prompt_places(trace)
        if tape.state == "recording":
            raise TokentapeError(
                "the tape is still being recorded",
                why="what is found is kept in the tape, which its recorder is writing",
                fix="ask again when the recording has ended",
            )
        if trace is None or not 0 <= index < trace.tokens.n_rows:
            raise TokentapeError(
                "there is no such token", why="tokens that were generated are explained", fix="select one of these"
            )
        if not explainer.offers(tape):
            raise TokentapeError(
                "the model of this tape is not at hand",
                why=f"it is {tape.setting.facts.get('model')}",
                fix=f"tokentape view {path} --model NAME",
            )
        position = int(trace.tokens["position"][index])
    explainer.explain(path, number, position)


def _told(what: str, why: str, fix: str, status: int) -> Response:
    told: dict[str, Any] = {"what": what, "why": why, "fix": fix}
    return JSONResponse(told, status_code=status)
