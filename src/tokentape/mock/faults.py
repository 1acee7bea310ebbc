"""What may go wrong, by name; each fault changes one thing of an answer, and several may be put together.

``at`` counts the messages with text of a stream from 0. Where the faults act: on the whole answer (``answering.py``),
on the messages of a stream (``disturbing.py``), on how a message is written (``event_text.py``), and on the bytes
that are sent (``framing.py``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from tokentape.errors import UsageError

__all__ = ["FAULTS", "Fault", "parse_fault"]

Value = int | float | str


@dataclass(frozen=True, slots=True)
class Kind:
    """What a fault does, and its parameters with their defaults."""

    sentence: str
    parameters: Mapping[str, Value]


FAULTS: dict[str, Kind] = {
    # instead of an answer
    "status": Kind("An HTTP error before any stream.", {"code": 500, "retry_after": "", "body": "json", "message": ""}),
    "refuse": Kind("An HTTP error that names the first of these fields (joined by +) in the request.", {"fields": "", "code": 422}),
    "html": Kind("A page of HTML with status 200.", {}),
    "redirect": Kind("A redirect.", {"code": 307, "to": "/elsewhere"}),
    "silence": Kind("The request is read, and nothing is ever answered.", {}),
    "hang_up": Kind("The connection is closed: on accept, or when the request was read.", {"when": "request"}),
    # the head of the answer
    "slow_head": Kind("The head of the answer comes late.", {"us": 200_000.0}),
    "trickle": Kind("The head of the answer comes byte by byte.", {"us": 500.0}),
    "content_type": Kind("The stream says that it is something else.", {"type": "text/plain"}),
    "length": Kind("Content-Length instead of chunks; all of it is made before it is sent.", {}),
    "http10": Kind("HTTP/1.0: no chunks, the end of the connection is the end of the answer.", {}),
    "no_keep": Kind("Connection: close.", {}),
    "gzip": Kind("The stream is compressed though nobody asked for it.", {}),
    # which messages there are
    "late": Kind("The first message comes later.", {"us": 200_000.0}),
    "stall": Kind("A pause before a message; for ever with forever=1.", {"at": 1, "us": 200_000.0, "forever": 0}),
    "error_event": Kind("A message with an error.", {"at": 1, "form": "own", "then": "done"}),
    "no_done": Kind("No [DONE] at the end.", {}),
    "after_done": Kind("A message with text after [DONE].", {}),
    "no_usage": Kind("No usage though it was asked for.", {}),
    "wrong_usage": Kind("Usage tells of more or fewer tokens than there were.", {"by": 2}),
    "twice_usage": Kind("Usage comes twice.", {}),
    "empty": Kind("Messages without tokens.", {"at": 1, "n": 1}),
    "empty_choices": Kind("Messages with no choice and no usage.", {"at": 1, "n": 1}),
    "role_again": Kind("A message with nothing but a role, in the middle.", {"at": 1}),
    "no_ids": Kind("Text without the ids that were asked for, from a message on.", {"at": 0}),
    "no_logprobs": Kind("Text without the log-probabilities that were asked for, from a message on.", {"at": 0}),
    "no_text": Kind("Ids without text: n messages hold theirs back, the next has it.", {"at": 1, "n": 1}),
    "missing_id": Kind("One id fewer than tokens in a message.", {"at": 1}),
    "no_finish": Kind("No finish reason.", {}),
    "finish": Kind("Another finish reason.", {"reason": "length"}),
    "bad_json": Kind("A message that is no JSON.", {"at": 1}),
    "wrong_types": Kind("A message whose fields have the wrong types.", {"at": 1}),
    "duplicate": Kind("A message comes twice.", {"at": 1}),
    "shuffle": Kind("The choices of one moment come in another order each time.", {}),
    "huge": Kind("A message with a very long field that nobody knows.", {"at": 1, "bytes": 1_000_000}),
    "endless": Kind("The stream goes on and on.", {}),
    # how a message is written
    "crlf": Kind("Lines end with CR LF.", {}),
    "cr": Kind("Lines end with CR.", {}),
    "bom": Kind("The stream begins with a byte order mark.", {}),
    "no_space": Kind("No space after the colon.", {}),
    "comments": Kind("A comment before every so many messages.", {"every": 1, "text": " keep-alive"}),
    "fields": Kind("Messages with event, id and retry fields.", {}),
    "multi_line": Kind("The JSON of a message on several data lines.", {}),
    "escaped": Kind("JSON with all but ASCII escaped.", {}),
    # the bytes that are sent
    "split": Kind("A message is sent in two parts: utf8, field, newline, middle, a number.", {"where": "middle", "us": 1_000.0}),
    "split_frame": Kind("The framing of a chunk is sent apart from its content.", {"us": 1_000.0}),
    "coalesce": Kind("So many messages are sent together, when the last of them is due.", {"n": 3}),
    "bytewise": Kind("Every byte is sent alone.", {"us": 0.0}),
    # how it ends
    "reset": Kind("The connection is reset, before a message or so many bytes into it.", {"at": 1, "bytes": 0, "us": 5_000.0}),
    "cut": Kind("The connection ends, before a message or so many bytes into it.", {"at": 1, "bytes": 0, "us": 1_000.0}),
    "stop": Kind("The stream ends before a message, as if it were whole.", {"at": 1}),
}  # fmt: skip
"""Every fault there is."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault with its parameters: those given, and the defaults of the others.

    >>> Fault("stall", {"at": 3})["us"]
    200000.0
    """

    name: str
    given: tuple[tuple[str, Value], ...]

    def __init__(self, name: str, given: Mapping[str, object] | None = None) -> None:
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "given", tuple(sorted(_checked(name, given or {}).items())))

    def __getitem__(self, parameter: str) -> Value:
        return dict(self.given).get(parameter, FAULTS[self.name].parameters[parameter])

    def number(self, parameter: str) -> int:
        """A parameter that is a whole number."""
        return int(self[parameter])

    def us(self, parameter: str = "us") -> float:
        """A parameter that is a time, in microseconds."""
        return float(self[parameter])


def parse_fault(text: str) -> Fault:
    """A fault as it is given on the command line: ``name`` or ``name:parameter=value,...``.

    >>> parse_fault("stall:at=3,us=5000")
    Fault(name='stall', given=(('at', 3), ('us', 5000.0)))
    """
    name, _, rest = text.partition(":")
    given: dict[str, object] = {}
    for part in filter(None, rest.split(",")):
        key, sign, value = part.partition("=")
        if not sign:
            raise UsageError(
                f"no fault: {text!r}", why=f"{part!r} has no value", fix=f"--fault {name}:{key or 'parameter'}=VALUE"
            )
        given[key.strip()] = value.strip()
    return Fault(name.strip(), given)


def _checked(name: str, given: Mapping[str, object]) -> dict[str, Value]:
    if name not in FAULTS:
        import difflib

        near = difflib.get_close_matches(name, FAULTS, n=1)
        raise UsageError(
            f"there is no fault {name!r}",
            why=f"there are {', '.join(FAULTS)}",
            fix=f"--fault {near[0]}" if near else "tokentape mock --faults lists them with their parameters",
        )
    known = FAULTS[name].parameters
    checked: dict[str, Value] = {}
    for key, value in given.items():
        if key not in known:
            raise UsageError(
                f"the fault {name} has no parameter {key!r}",
                why=f"its parameters: {', '.join(known) or 'none'}",
                fix="leave it out, or give one of these",
            )
        checked[key] = _as(known[key], value, name, key)
    return checked


def _as(default: Value, value: object, name: str, key: str) -> Value:
    """A value of the same type as the default."""
    try:
        if isinstance(default, str):
            return str(value)
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise ValueError
        number = float(value)
        if not (math.isfinite(number) and abs(number) <= 1e12) or (
            isinstance(default, int) and not number.is_integer()
        ):
            raise ValueError
    except ValueError:
        wanted = "a whole number" if isinstance(default, int) else "a number"
        raise UsageError(
            f"{key}={value!r} of the fault {name}", why=f"it takes {wanted}", fix=f"for example {key}={default}"
        ) from None
    if number < 0 and key != "by":
        raise UsageError(
            f"{key}={value!r} of the fault {name}", why="it is not below 0", fix=f"for example {key}={default}"
        )
    return int(number) if isinstance(default, int) else number
