"""A JSON schema read, its dialect, its parts, and the schema in the words of the grammar engine.

What the engine refuses, and what it would take too loosely and is refused here, is in :mod:`tokentape.control.grammar.refusals`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn

from tokentape.errors import MissingExtra, UsageError

__all__ = ["FORMATS", "LATEST", "Place", "dialect_of", "for_the_engine", "parsed", "parts_of", "takes_text"]

DIALECTS = {
    "https://json-schema.org/draft/2020-12/schema": "Draft202012Validator",
    "https://json-schema.org/draft/2019-09/schema": "Draft201909Validator",
    "http://json-schema.org/draft-07/schema": "Draft7Validator",
    "http://json-schema.org/draft-06/schema": "Draft6Validator",
    "http://json-schema.org/draft-04/schema": "Draft4Validator",
}
"""What ``$schema`` may say, and the class of jsonschema that judges it; 2020-12 where it says nothing."""

LATEST = "https://json-schema.org/draft/2020-12/schema"

_LEAP = r"(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:[02468][048]|[13579][26])00)"
_DATE = {"pattern": rf"^(?:[0-9]{{4}}-(?:0[13-9]|1[0-2]|02-(?:[01]|2[0-8]))|{_LEAP}-02-29)"}
_YEAR = {"pattern": "^[0-9]{0,3}[1-9]"}
_TIME = {"pattern": r":[0-5][0-9](?:\.[0-9]+)?(?:[zZ]|[+\-][0-9]{2}:[0-9]{2})$"}

FORMATS: Mapping[str, list[dict[str, Any]]] = {
    "date": [_DATE, _YEAR],
    "date-time": [_DATE, _YEAR, _TIME],
    "time": [_TIME],
    "hostname": [{"maxLength": 253}],
    "duration": [],
    "email": [],
    "ipv4": [],
    "ipv6": [],
    "uri": [],
    "uuid": [],
}
"""The formats that are enforced, and what is asked for beside each: the engine's expressions know 30 February to be none, and
take 29 February in every year, the year 0 (RFC 3339 has it, few readers do) and second 60 at any time of the day."""

_ONE = ("additionalItems", "additionalProperties", "contains", "contentSchema", "else", "if", "items", "not",
        "propertyNames", "then", "unevaluatedItems", "unevaluatedProperties")  # fmt: skip
_LISTS = ("allOf", "anyOf", "items", "oneOf", "prefixItems")
_MAPS = ("$defs", "definitions", "dependencies", "dependentSchemas", "patternProperties", "properties")
"""Keywords whose value is a schema, a list of schemas, or schemas by name."""

_SIZES = ("maxItems", "maxLength", "maxProperties", "minItems", "minLength", "minProperties")
_MAPPED_NAMES = ("patternProperties", "properties", "required")
_CONTROL = re.compile(r"[\x00-\x07\x0b\x0e-\x1f\x7f]")
_CONTROL_ESCAPE = re.compile(r"\\(?:[0ave]|c[A-Za-z]|x[01]|x7[fF]|x\{|u00[01]|u007[fF]|u\{)")

Place = str
"""A JSON pointer as it is shown: ``#/properties/age``."""


def parsed(schema: str | Mapping[str, Any] | bool) -> Any:
    """The schema as plain values, from JSON text or from what ``json.loads`` would have given.

    Raises UsageError for text that is no JSON, a value that JSON cannot hold, and what is neither object nor boolean.
    """
    try:
        text = schema if isinstance(schema, str) else json.dumps(schema, allow_nan=False)
        value = json.loads(text, parse_constant=_no_constant)
        json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        raise UsageError(
            "the schema is no JSON",
            why=f"line {error.lineno}, column {error.colno}: {error.msg}",
            fix="check it with: python -m json.tool schema.json",
        ) from error
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(
            "the schema is no JSON",
            why=str(error) or type(error).__name__,
            fix="give a dict of str, int, float, bool, None, list and dict, or its JSON text",
        ) from error
    if not isinstance(value, dict | bool):
        raise UsageError(
            f"a schema is an object or a boolean, not {json.dumps(value)[:60]}",
            why="JSON Schema has no other",
            fix='to allow one constant text: {"const": ...}',
        )
    return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def dialect_of(schema: Any) -> Any:
    """The class of jsonschema for what ``$schema`` says. Raises UsageError for a dialect that is not known."""
    try:
        import jsonschema
    except ImportError as error:
        raise MissingExtra(
            "jsonschema is not installed",
            why="it judges schemas, and what was generated under them",
            fix="pip install 'tokentape[local]'",
        ) from error
    said = schema.get("$schema", LATEST) if isinstance(schema, dict) else LATEST
    name = DIALECTS.get(str(said).removesuffix("#"))
    if name is None:
        raise UsageError(
            f"$schema names a dialect that is not known: {said}",
            why=f"what its keywords mean is not known either; known are {', '.join(DIALECTS)}",
            fix="leave $schema out: then it is read as draft 2020-12",
        )
    return getattr(jsonschema, name)


def parts_of(schema: Any) -> Iterator[tuple[Place, dict[str, Any]]]:
    """Every object within a schema that is a schema itself, with its place, outer ones first."""
    found: list[tuple[Place, dict[str, Any]]] = []

    def note(part: dict[str, Any], place: Place) -> dict[str, Any]:
        found.append((place, part))
        return part

    _mapped(schema, note)
    return iter(found)


def _mapped(schema: Any, change: Callable[[dict[str, Any], Place], dict[str, Any]], place: Place = "#") -> Any:
    """A copy of a schema in which every part that is a schema is what ``change`` makes of it, outer ones first."""
    if not isinstance(schema, dict):
        return schema
    part = dict(change(schema, place))
    for key, value in part.items():
        here = f"{place}/{key}"
        if key in _ONE and isinstance(value, dict):
            part[key] = _mapped(value, change, here)
        elif key in _LISTS and isinstance(value, list):
            part[key] = [_mapped(item, change, f"{here}/{i}") for i, item in enumerate(value)]
        elif key in _MAPS and isinstance(value, dict):
            part[key] = {name: _mapped(item, change, f"{here}/{name}") for name, item in value.items()}
    return part


def takes_text(part: dict[str, Any]) -> bool:
    """Whether a part's ``type``, if it has one, allows strings."""
    types = part.get("type", "string")
    return "string" in ([types] if isinstance(types, str) else types)


def for_the_engine(schema: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The schema in the engine's words, and its options.

    A size such as 2.0 is a whole number in JSON Schema, and none to the engine; beside a format stands what its expression
    does not say. Raises UsageError by :func:`_escapes`.
    """

    def said(part: dict[str, Any], place: Place) -> dict[str, Any]:
        part = {key: int(value) if key in _SIZES else value for key, value in part.items()}
        beside = FORMATS.get(part.get("format", ""), []) if takes_text(part) else []
        return {**part, "allOf": [*part.get("allOf", ()), *beside]} if beside else part

    # a boolean cannot carry options
    whole = {"allOf": [schema]} if isinstance(schema, bool) else _mapped(schema, said)
    return whole, {"lenient": False, "coerce_one_of": False, "json_allowed_escapes": _escapes(schema)}


def _escapes(schema: Any) -> str:
    r"""The letters that may follow a backslash in a generated string.

    With ``u`` among them the engine also takes ``"\u0061"`` for a further name where the name ``a`` has a schema of its own, which
    would then hold for nothing. Without ``u`` it cannot write control characters, and where a constant, a name or a pattern
    asks for one it silently writes nothing in its place. So ``u`` is there only where a schema asks for a control character
    and gives no name a schema of its own; where it does both, UsageError.
    """
    asked = next((place for place, part in parts_of(schema) if _asks_for_control(part)), None)
    if asked is None:
        return 'nrbtf\\"'
    for place, part in parts_of(schema):
        for key in _MAPPED_NAMES:
            if key in part:
                why = f"the schema asks for a control character at {asked}, and for names at {place}: not both are kept"
                raise UsageError(
                    f"{key} at {place} cannot be kept exactly",
                    why=f"{key}: {why}",
                    fix="leave the control character out",
                )
    return 'nrbtf\\"u'


def _asks_for_control(part: dict[str, Any]) -> bool:
    texts = [part.get("const"), part.get("enum"), list(part.get("properties", ())), part.get("required")]
    patterns = [part.get("pattern", ""), *part.get("patternProperties", ())]
    return any(_holds_control(text) for text in texts) or any(
        _CONTROL.search(pattern) or _CONTROL_ESCAPE.search(pattern) for pattern in patterns
    )


def _holds_control(value: Any) -> bool:
    if isinstance(value, dict):
        return any(_holds_control(inner) for inner in (*value, *value.values()))
    if isinstance(value, list):
        return any(_holds_control(inner) for inner in value)
    return isinstance(value, str) and _CONTROL.search(value) is not None
