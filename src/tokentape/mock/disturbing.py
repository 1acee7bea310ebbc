"""The messages of a stream, and the faults that change which there are: each takes messages and gives messages."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

from tokentape.mock.dialects.dialect import Dialect, Message, Reply
from tokentape.mock.faults import Fault
from tokentape.mock.telling import chunks_of

__all__ = ["disturbed_whole", "messages_of"]

Messages = Iterator[Message]
Disturbance = Callable[[Messages, Fault, Dialect, Reply], Messages]


def messages_of(dialect: Dialect, reply: Reply, faults: Sequence[Fault]) -> Messages:
    """The messages of an answer with its faults, in the order in which these are given."""
    messages = _plain(dialect, reply, endless=any(fault.name == "endless" for fault in faults))
    for fault in faults:
        if fault.name in _DISTURBANCES:
            messages = _DISTURBANCES[fault.name](messages, fault, dialect, reply)
    return messages


def _plain(dialect: Dialect, reply: Reply, *, endless: bool) -> Messages:
    yield from dialect.begin(reply)
    owed_us, n_beats = 0.0, 0
    for chunk in chunks_of(reply.script, reply.asked, endless=endless):
        owed_us += chunk.after_us
        n_beats += chunk.choice == 0
        for message in dialect.told(reply, chunk):
            yield replace(message, after_us=owed_us, n_beats=n_beats)
            owed_us, n_beats = 0.0, 0
    for message in dialect.end(reply):
        yield replace(message, after_us=owed_us, n_beats=n_beats)
        owed_us, n_beats = 0.0, 0
    if dialect.done(reply):
        yield Message(None, "done", owed_us, raw="[DONE]")


def _counted(messages: Messages) -> Iterator[tuple[int, Message]]:
    """Each message with its number among those with text; -1 for another."""
    number = 0
    for message in messages:
        if message.kind == "text":
            yield number, message
            number += 1
        else:
            yield -1, message


def _before(make: Callable[[Message, Fault, Dialect], Sequence[Message]]) -> Disturbance:
    """A disturbance that puts messages before the text at ``at``; they come when it would have come."""

    def disturbance(messages: Messages, fault: Fault, dialect: Dialect, reply: Reply) -> Messages:
        for number, message in _counted(messages):
            if number == fault.number("at"):
                extra = make(message, fault, dialect)
                for place, one in enumerate(extra):
                    yield replace(
                        one, after_us=0.0 if place else message.after_us, n_beats=0 if place else message.n_beats
                    )
                message = replace(message, after_us=0.0, n_beats=0) if extra else message
            yield message

    return disturbance


def _each(change: Callable[[Message, Fault], Message | None], *, once: bool) -> Disturbance:
    """A disturbance that changes the text at ``at``, or all from there on."""

    def disturbance(messages: Messages, fault: Fault, dialect: Dialect, reply: Reply) -> Messages:
        at = fault.number("at")
        for number, message in _counted(messages):
            concerned = number == at or (number > at and not once)
            changed = change(message, fault) if concerned else message
            if changed is not None:
                yield changed

    return disturbance


def _without(payload: dict[str, Any] | None) -> dict[str, Any]:
    """A copy of a message with text, emptied of it and of its tokens."""
    emptied = copy.deepcopy(payload) or {}
    for choice in emptied.get("choices", []):
        if "text" in choice:
            choice["text"] = ""
        if "delta" in choice:
            choice["delta"] = {"content": ""}
        choice["finish_reason"] = None
        for name, value in (("logprobs", None), ("token_ids", [])):
            if choice.get(name) is not None:
                choice[name] = value
    if "content" in emptied:
        emptied |= {"content": "", "tokens": []}
    return emptied


def _empty(message: Message, fault: Fault, dialect: Dialect) -> list[Message]:
    return [Message(_without(message.payload), "other", choice=message.choice) for _ in range(fault.number("n"))]


def _empty_choices(message: Message, fault: Fault, dialect: Dialect) -> list[Message]:
    payload = {**(message.payload or {}), "choices": []}
    payload.pop("usage", None)
    return [Message(payload, "other") for _ in range(fault.number("n"))]


def _role_again(message: Message, fault: Fault, dialect: Dialect) -> list[Message]:
    payload = _without(message.payload)
    for choice in payload.get("choices", []):
        if "delta" in choice:
            choice["delta"] = {"role": "assistant"}
    return [Message(payload, "other", choice=message.choice)]


def _bad_json(message: Message, fault: Fault, dialect: Dialect) -> list[Message]:
    return [Message(None, "other", raw='{"id": "broken", "choices": [{"index": 0, "te')]


def _wrong_types(message: Message, fault: Fault, dialect: Dialect) -> list[Message]:
    return [Message({"id": 7, "choices": [{"index": "zero", "text": 3, "delta": "none"}], "usage": "much"}, "other")]


def _missing_id(message: Message, fault: Fault) -> Message:
    payload = copy.deepcopy(message.payload) or {}
    for choice in payload.get("choices", []):
        if choice.get("token_ids"):
            choice["token_ids"] = choice["token_ids"][:-1]
    return replace(message, payload=payload)


def _dropped(name: str) -> Callable[[Message, Fault], Message]:
    def dropped(message: Message, fault: Fault) -> Message:
        payload = copy.deepcopy(message.payload) or {}
        for choice in payload.get("choices", []):
            if name in choice:
                choice[name] = None
        return replace(message, payload=payload)

    return dropped


def _huge(message: Message, fault: Fault) -> Message:
    return replace(message, payload={**(message.payload or {}), "padding": "x" * fault.number("bytes")})


def _stall(message: Message, fault: Fault) -> Message:
    if fault.number("forever"):
        return replace(message, ends="hold", payload=None)
    return replace(message, after_us=message.after_us + fault.us())


def _error_event(messages: Messages, fault: Fault, dialect: Dialect, reply: Reply) -> Messages:
    text = "The engine stopped."
    forms: dict[str, Any] = {
        "own": dialect.error_event(text),
        "vllm": {"error": {"message": text, "type": "InternalServerError", "param": None, "code": 500}},
        "openai": {"error": {"message": text, "type": "server_error", "param": None, "code": None}},
        "string": {"error": text},
    }
    payload = forms.get(str(fault["form"]), forms["own"])
    for number, message in _counted(messages):
        if number == fault.number("at"):
            yield Message(payload, "error", message.after_us, n_beats=message.n_beats)
            if fault["then"] != "go_on":
                if fault["then"] == "done" and dialect.done(reply):
                    yield Message(None, "done", raw="[DONE]")
                elif fault["then"] == "cut":
                    yield Message(None, "other", ends="cut")
                return
            message = replace(message, after_us=0.0, n_beats=0)
        yield message


def _late(messages: Messages, fault: Fault, dialect: Dialect, reply: Reply) -> Messages:
    late = False
    for message in messages:
        if message.kind == "text" and not late:
            late = True
            message = replace(message, after_us=message.after_us + fault.us())
        yield message


def _no_text(messages: Messages, fault: Fault, dialect: Dialect, reply: Reply) -> Messages:
    at, n = fault.number("at"), fault.number("n")
    held: dict[int | None, str] = {}
    for number, message in _counted(messages):
        if number >= 0 and message.payload is not None:
            choice = (message.payload.get("choices") or [{}])[0]
            place = choice if "text" in choice else choice.get("delta", {})
            name = next(
                (name for name in ("text", "content", "reasoning", "reasoning_content") if place.get(name)), None
            )
            if name is not None:
                text = held.pop(message.choice, "") + place[name]
                if at <= number < at + n and choice.get("finish_reason") is None:
                    held[message.choice], text = text, ""
                place[name] = text
        yield message


def _duplicate(messages: Messages, fault: Fault, dialect: Dialect, reply: Reply) -> Messages:
    for number, message in _counted(messages):
        yield message
        if number == fault.number("at"):
            yield replace(message, after_us=0.0, n_beats=0)


def _no_done(messages: Messages, fault: Fault, dialect: Dialect, reply: Reply) -> Messages:
    return (message for message in messages if message.kind != "done")


def _after_done(messages: Messages, fault: Fault, dialect: Dialect, reply: Reply) -> Messages:
    last: Message | None = None
    for message in messages:
        last = message if message.kind == "text" else last
        yield message
        if message.kind == "done" and last is not None:
            yield replace(last, after_us=0.0, n_beats=0)


def _usage_of(message: Message) -> Any:
    """The usage of a message that ends a stream, None where it has none or is another message."""
    return None if message.payload is None or message.kind not in ("usage", "finish") else message.payload.get("usage")


def _no_usage(messages: Messages, fault: Fault, dialect: Dialect, reply: Reply) -> Messages:
    for message in messages:
        if message.kind == "usage":
            continue
        payload = message.payload
        if payload is not None and payload.get("usage") is not None:
            payload = {name: value for name, value in payload.items() if name != "usage"}
        yield replace(message, payload=payload)


def _wrong_usage(messages: Messages, fault: Fault, dialect: Dialect, reply: Reply) -> Messages:
    for message in messages:
        if (total := _usage_of(message)) is not None:
            message = replace(message, payload={**(message.payload or {}), "usage": _moved(total, fault.number("by"))})
        yield message


def _moved(total: dict[str, Any], by: int) -> dict[str, Any]:
    n = max(total["completion_tokens"] + by, 0)
    return {**total, "completion_tokens": n, "total_tokens": total["prompt_tokens"] + n}


def _twice_usage(messages: Messages, fault: Fault, dialect: Dialect, reply: Reply) -> Messages:
    for message in messages:
        yield message
        if _usage_of(message) is not None:
            yield replace(message, after_us=0.0, n_beats=0)


def _finish(messages: Messages, fault: Fault, dialect: Dialect, reply: Reply) -> Messages:
    reason = str(fault["reason"]) if fault.name == "finish" else None
    for message in messages:
        if any(choice.get("finish_reason") for choice in (message.payload or {}).get("choices", [])):
            payload = copy.deepcopy(message.payload) or {}
            for choice in payload["choices"]:
                choice["finish_reason"] = reason
            message = replace(message, payload=payload)
        yield message


def _shuffle(messages: Messages, fault: Fault, dialect: Dialect, reply: Reply) -> Messages:
    draw = random.Random(f"shuffle/{reply.script.seed}")
    together: list[Message] = []
    for message in chain(messages, [Message(None, "end")]):
        if message.kind == "text" and (not together or not message.n_beats):
            together.append(message)
            continue
        if together:
            after_us, n_beats = together[0].after_us, together[0].n_beats
            draw.shuffle(together)
            for place, one in enumerate(together):
                yield replace(one, after_us=0.0 if place else after_us, n_beats=0 if place else n_beats, joined=False)
        together = [message] if message.kind == "text" else []
        if message.kind not in ("text", "end"):
            yield message


def _broken_off(messages: Messages, fault: Fault, dialect: Dialect, reply: Reply) -> Messages:
    for number, message in _counted(messages):
        if number == fault.number("at"):
            if fault.name == "stop":
                return
            if n_bytes := fault.number("bytes"):
                yield replace(message, only_bytes=n_bytes)
            yield Message(None, "other", fault.us(), ends=fault.name)
            return
        yield message


_DISTURBANCES: dict[str, Disturbance] = {
    "late": _late,
    "stall": _each(_stall, once=True),
    "error_event": _error_event,
    "no_done": _no_done,
    "after_done": _after_done,
    "no_usage": _no_usage,
    "wrong_usage": _wrong_usage,
    "twice_usage": _twice_usage,
    "empty": _before(_empty),
    "empty_choices": _before(_empty_choices),
    "role_again": _before(_role_again),
    "no_ids": _each(_dropped("token_ids"), once=False),
    "no_logprobs": _each(_dropped("logprobs"), once=False),
    "no_text": _no_text,
    "missing_id": _each(_missing_id, once=True),
    "no_finish": _finish,
    "finish": _finish,
    "bad_json": _before(_bad_json),
    "wrong_types": _before(_wrong_types),
    "duplicate": _duplicate,
    "shuffle": _shuffle,
    "huge": _each(_huge, once=True),
    "reset": _broken_off,
    "cut": _broken_off,
    "stop": _broken_off,
}


def disturbed_whole(body: dict[str, Any], faults: Sequence[Fault]) -> dict[str, Any]:
    """An answer in one piece with those faults that have a meaning there."""
    for fault in faults:
        if fault.name == "no_usage":
            body = {name: value for name, value in body.items() if name != "usage"}
        elif fault.name == "wrong_usage" and "usage" in body:
            body = {**body, "usage": _moved(body["usage"], fault.number("by"))}
        elif fault.name in ("finish", "no_finish"):
            reason = str(fault["reason"]) if fault.name == "finish" else None
            body = {**body, "choices": [{**choice, "finish_reason": reason} for choice in body.get("choices", [])]}
    return body
