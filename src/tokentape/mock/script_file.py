"""Scripts as JSON: read from a file or a request, and written.

A script is an object. Either it lists its ``beats``, each with ``after_us`` and ``tokens`` (a number, or a list of
texts; an entry ``{"bytes": [228, 184]}`` is a token of these bytes) and perhaps ``channel`` (text, reasoning,
tool_call); or it has some of the numbers of :meth:`~tokentape.mock.script.Script.steady`. Beside these: ``seed``,
``plain``, ``finish``, ``n_cached``, ``tool`` and ``faults``, each a name, ``name:parameter=value`` or an object with
``name`` and its parameters. A file has one script, a list of them, or ``{"scripts": [...]}``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokentape.errors import UsageError
from tokentape.mock.faults import Fault, parse_fault
from tokentape.mock.script import Beat, Script

__all__ = ["as_json", "fault_of", "read_scripts", "script_of"]

_STEADY: dict[str, type | tuple[type, ...]] = {
    "tokens": int,
    "ttft_us": (int, float),
    "gap_us": (int, float),
    "chunk": int,
    "jitter": str,
    "jitter_us": (int, float),
    "n_reasoning": int,
    "n_tool": int,
}
_BOTH: dict[str, type | tuple[type, ...]] = {
    "seed": int,
    "plain": bool,
    "finish": (str, type(None)),
    "n_cached": (int, type(None)),
    "tool": str,
    "faults": list,
}
_BEAT: dict[str, type | tuple[type, ...]] = {"after_us": (int, float), "tokens": (int, list), "channel": str}


def read_scripts(path: Path) -> tuple[Script, ...]:
    """The scripts of a file; raises UsageError, with the place, for what is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(
            f"cannot read the script {path}", why=error.strerror or str(error), fix="give the path of a JSON file"
        ) from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is no JSON", why=str(error), fix="see docs/how-to/mock.md for the format") from error
    if isinstance(found, Mapping) and "scripts" in found:
        found = found["scripts"]
    listed = found if isinstance(found, list) else [found]
    return tuple(script_of(one) for one in listed)


def script_of(values: Any) -> Script:
    """A script from plain values; raises UsageError for what is none."""
    given = _object(values, "a script")
    kinds = {"beats": list, **_BOTH} if "beats" in given else {**_STEADY, **_BOTH}
    _check(given, kinds, "a script")
    more = {name: given[name] for name in _BOTH if name in given and name != "faults"}
    faults = tuple(fault_of(fault) for fault in given.get("faults", []))
    if "beats" in given:
        return Script(tuple(_beat(beat) for beat in given["beats"]), faults=faults, **more)
    numbers = {name: given[name] for name in _STEADY if name in given and name != "tokens"}
    tool = more.pop("tool", None)
    script = Script.steady(given.get("tokens", 64), faults=faults, **numbers, **more)
    if tool is None:
        return script
    return Script(**{**_fields(script), "tool": tool})


def as_json(script: Script) -> dict[str, Any]:
    """A script as plain values, each beat by itself."""
    fields = _fields(script)
    fields["beats"] = [
        {
            "after_us": beat.after_us,
            "tokens": beat.n_tokens if beat.says is None else [_plain(part) for part in beat.says],
            "channel": beat.channel,
        }
        for beat in script.beats
    ]
    fields["faults"] = [{"name": fault.name, **dict(fault.given)} for fault in script.faults]
    return fields


def fault_of(values: Any) -> Fault:
    """A fault from a text, or from an object with its name and parameters."""
    if isinstance(values, str):
        return parse_fault(values)
    given = _object(values, "a fault")
    return Fault(str(given.get("name", "")), {name: value for name, value in given.items() if name != "name"})


def _fields(script: Script) -> dict[str, Any]:
    names = ("beats", "finish", "seed", "plain", "n_cached", "tool", "faults")
    return {name: getattr(script, name) for name in names}


def _beat(values: Any) -> Beat:
    given = _object(values, "a beat")
    _check(given, _BEAT, "a beat")
    tokens = given.get("tokens", 1)
    channel = given.get("channel", "text")
    if "after_us" not in given:
        raise UsageError(
            "a beat without after_us", why="it says when the beat comes", fix='{"after_us": 20000, "tokens": 1}'
        )
    if isinstance(tokens, int):
        return Beat(float(given["after_us"]), tokens, channel)
    return Beat(float(given["after_us"]), len(tokens), channel, tuple(_said(part) for part in tokens))


def _said(part: Any) -> str | bytes:
    if isinstance(part, str):
        return part
    try:
        return bytes(part["bytes"])
    except (TypeError, KeyError, ValueError):
        raise UsageError(
            f"{part!r} is no token", why="it is a text or a list of bytes", fix='" word" or {"bytes": [228, 184]}'
        ) from None


def _plain(part: str | bytes) -> Any:
    return part if isinstance(part, str) else {"bytes": list(part)}


def _object(values: Any, what: str) -> Mapping[str, Any]:
    if not isinstance(values, Mapping):
        raise UsageError(
            f"{what} that is no object: {values!r:.80}", why="it has names and values", fix='{"tokens": 64}'
        )
    return values


def _check(given: Mapping[str, Any], kinds: Mapping[str, type | tuple[type, ...]], what: str) -> None:
    for name, value in given.items():
        if name not in kinds:
            raise UsageError(
                f"{what} has no field {name!r}",
                why=f"its fields: {', '.join(kinds)}",
                fix="leave it out, or give one of these",
            )
        kind = kinds[name]
        allowed = kind if isinstance(kind, tuple) else (kind,)
        if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed):
            names = " or ".join("null" if one is type(None) else one.__name__ for one in allowed)
            raise UsageError(f"{name} of {what} is {value!r:.80}", why=f"it takes {names}", fix="give another value")
