"""A request is read, and becomes the acts of its answer."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tokentape.mock.asked import Refused, asked_of
from tokentape.mock.dialects.dialect import Dialect, Reply
from tokentape.mock.disturbing import disturbed_whole, messages_of
from tokentape.mock.event_text import cut_up, pieces_of
from tokentape.mock.faults import Fault
from tokentape.mock.framing import Act, Head, framed, whole
from tokentape.mock.script import Script
from tokentape.mock.telling import chunks_of

__all__ = ["Answer", "Received", "answer_of", "bare_answer", "body_of"]

_PAGE = b"<!DOCTYPE html>\n<html><head><title>Welcome</title></head><body><h1>It works</h1></body></html>\n"
JSON_TYPE = "application/json"


@dataclass(frozen=True, slots=True)
class Received:
    """A request as it came."""

    method: str
    target: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def route(self) -> str:
        return self.target.partition("?")[0]


@dataclass(frozen=True, slots=True)
class Answer:
    """The acts of an answer; ``generates`` one takes a slot, and ``n_prompt`` and ``n_completion`` tokens are counted for it."""

    acts: Iterator[Act]
    generates: bool = False
    n_prompt: int = 0
    n_completion: int = 0
    stream: bool = False


def body_of(received: Received) -> dict[str, Any]:
    """The JSON object of a request; raises :class:`Refused` where it is none."""
    try:
        body = json.loads(received.body)
    except (ValueError, RecursionError) as error:
        raise Refused(400, f"The body is no JSON: {error}") from None
    if not isinstance(body, dict):
        raise Refused(400, "The body is no JSON object.")
    return body


def bare_answer(dialect: Dialect, status: int, body: bytes, content_type: str = JSON_TYPE) -> Answer:
    """An answer that generates nothing."""
    return Answer(whole(Head(status, content_type, dialect.server), body))


def refusal_of(dialect: Dialect, refused: Refused) -> Answer:
    """The HTTP error of a request that is refused."""
    return bare_answer(
        dialect, refused.status, _json(dialect.error(refused.status, refused.message, refused.parameter))
    )


def answer_of(
    received: Received,
    body: Mapping[str, Any],
    script: Script,
    dialect: Dialect,
    *,
    model: str,
    number: int,
    extra: Sequence[Fault],
) -> Answer:
    """The answer to a request for a completion by a script, with the script's faults and ``extra`` ones.

    ``number`` is that of the request, from which its id is made. Raises :class:`Refused` for what the dialect refuses.
    """
    faults = [*script.faults, *extra]
    instead = _instead(dialect, body, faults)
    if instead is not None:
        return Answer(instead)
    route = received.route
    if (refused := dialect.refusal(route, body, model)) is not None:
        raise refused
    asked = dialect.taken(asked_of(route, body, model))
    request_id = received.headers.get("x-request-id")
    named = model if dialect.names_itself else asked.model
    reply = Reply(asked, script, named, request_id or f"{number:032x}", int(time.time()))
    head_fields = tuple(dialect.extra_head(reply.id))
    n = reply.n_tokens * asked.n
    if asked.stream:
        pieces = cut_up(pieces_of(messages_of(dialect, reply, faults), faults), faults)
        head = Head(200, dialect.stream_type, dialect.server, head_fields)
        acts = framed(head, pieces, faults, early=dialect.early_head)
    else:
        chunks = list(chunks_of(script, asked))
        data = _json(disturbed_whole(dialect.whole(reply, chunks), faults))
        after_us = sum(chunk.after_us for chunk in chunks)
        acts = whole(Head(200, JSON_TYPE, dialect.server, head_fields), data, faults, after_us, n)
    return Answer(acts, True, reply.n_prompt, n, asked.stream)


def _instead(dialect: Dialect, body: Mapping[str, Any], faults: Sequence[Fault]) -> Iterator[Act] | None:
    """The acts of a fault that stands in for the whole answer."""
    for fault in faults:
        if fault.name == "status":
            return _status(dialect, fault, faults)
        if fault.name == "refuse":
            field_name = next((name for name in str(fault["fields"]).split("+") if _has(body, name)), None)
            if field_name is not None:
                code = fault.number("code")
                error = dialect.error(code, f"Extra inputs are not permitted: {field_name}", field_name)
                return whole(Head(code, JSON_TYPE, dialect.server), _json(error), faults)
        if fault.name == "html":
            return whole(Head(200, "text/html; charset=utf-8", dialect.server), _PAGE, faults)
        if fault.name == "redirect":
            place = (("location", str(fault["to"])),)
            return whole(Head(fault.number("code"), "text/plain", dialect.server, place), b"", faults)
        if fault.name == "silence":
            return iter([Act(0.0, b"", "end", ends="hold")])
        if fault.name == "hang_up":
            return iter([Act(0.0, b"", "end", ends="close")])
    return None


def _status(dialect: Dialect, fault: Fault, faults: Sequence[Fault]) -> Iterator[Act]:
    code = fault.number("code")
    message = str(fault["message"]) or f"The mock was told to answer {code}."
    after = str(fault["retry_after"])
    extra = (("retry-after", after),) if after else ()
    if fault["body"] == "html":
        return whole(Head(code, "text/html", dialect.server, extra), _PAGE, faults)
    if fault["body"] == "text":
        return whole(Head(code, "text/plain", dialect.server, extra), message.encode(), faults)
    body = b"" if fault["body"] == "empty" else _json(dialect.error(code, message))
    return whole(Head(code, JSON_TYPE, dialect.server, extra), body, faults)


def _has(body: Mapping[str, Any], name: str) -> bool:
    """Whether a body has a field; ``stream_options.include_usage`` is one of a field."""
    above, _, below = name.partition(".")
    inner = body.get(above)
    return above in body and (not below or (isinstance(inner, Mapping) and below in inner))


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
