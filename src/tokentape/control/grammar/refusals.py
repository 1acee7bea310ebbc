"""Which schemas are refused: those that contradict themselves, and those of which more would be let through than they say.

The engine refuses most of what it cannot enforce by itself. What it would let pass is refused here:

- ``additionalItems`` in draft 2020-12, which does not know it: the engine would forget ``prefixItems``;
- ``minProperties`` above what ``required`` names, by two or more: names are not kept from coming twice, and count once;
- whole numbers beyond 2**53: it computes in float64;
- formats that it does not know, and options for it within the schema;
- a ``$ref`` that calls for itself without end, and so for an endless text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

from tokentape.control.grammar.json_schema import FORMATS, LATEST, Place, dialect_of, parts_of, takes_text
from tokentape.errors import UsageError

__all__ = ["check_exact", "refusal"]

_NUMBERS = ("const", "enum", "exclusiveMaximum", "exclusiveMinimum", "maximum", "minimum", "multipleOf")


def check_exact(schema: Any) -> None:
    """Raise UsageError where a schema contradicts its dialect's own schema, or asks for what cannot be kept exactly."""
    import jsonschema

    dialect = dialect_of(schema)
    try:
        dialect.check_schema(schema, format_checker=jsonschema.FormatChecker(formats=()))
        for place, part in parts_of(schema):
            _refuse_inexact(place, part, schema)
        endless = _endless(schema)
    except jsonschema.SchemaError as error:
        raise UsageError(
            f"the schema is wrong at {_shown(error.absolute_path)}",
            why=error.message[:300],
            fix=f"see the keyword {error.validator!r} of {dialect.__name__.removesuffix('Validator')}: "
            "https://json-schema.org/specification",
        ) from error
    except RecursionError as error:
        raise UsageError(
            "the schema is nested too deeply",
            why="it has more levels than Python's stack has",
            fix="move inner levels to $defs and $ref them",
        ) from error
    if endless:
        raise UsageError(
            "nothing satisfies the schema: its $ref calls for itself without end",
            why="a required property, or an item below minItems, leads back to the schema that it is in",
            fix="make the property optional, or allow another type beside it with anyOf",
        )


def _shown(path: Any) -> Place:
    return "/".join(["#", *(str(step) for step in path)])


def _refuse_inexact(place: Place, part: dict[str, Any], root: Any) -> None:
    """Raise UsageError where the engine would take more than a part of the schema says."""
    if "x-guidance" in part:
        _refuse(place, "x-guidance", "it holds options of the engine that loosen the schema", "leave it out")
    whole = root.get("$schema", LATEST)
    if part.get("$schema", whole) != whole:
        _refuse(place, "$schema", "a part of another dialect than the whole", "write both in one dialect")
    if "additionalItems" in part and dialect_of(root).__name__ == "Draft202012Validator":
        _refuse(
            place, "additionalItems", "draft 2020-12 does not know it", "say it with items, or name a draft in $schema"
        )
    missing = part.get("minProperties", 0) - len(set(part.get("required", ())))
    if missing >= 2:
        why = f"{missing:g} names are left open, and an object that says one of them twice would pass for two"
        _refuse(place, "minProperties", why, f"name them in required, or ask for {missing - 1:g} fewer")
    if (named := part.get("format")) is not None and named not in FORMATS and takes_text(part):
        _refuse(place, "format", f"{named!r} is not enforced; {', '.join(FORMATS)} are", "say it with pattern")
    for key in _NUMBERS:
        if key in part and (number := next(_beyond_float(part[key]), None)) is not None:
            _refuse(place, key, f"{number} is beyond 2**53, where float64 no longer tells whole numbers apart",
                    "take it as a string")  # fmt: skip


def _refuse(place: Place, keyword: str, why: str, fix: str) -> NoReturn:
    raise UsageError(f"{keyword} at {place} cannot be kept exactly", why=f"{keyword}: {why}", fix=fix)


def _beyond_float(value: Any) -> Iterator[int]:
    if isinstance(value, int) and abs(value) > 2**53:
        yield value
    elif isinstance(value, list | dict):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _beyond_float(inner)


def _endless(schema: Any) -> bool:
    """Whether every instance of a schema would have no end, since what it has to hold is of the same schema again.

    Pointers within the schema are followed, unless a part has an ``$id``, from which its own would be followed.
    """
    parts = list(parts_of(schema))
    if any(("$id" in part or "id" in part) and place != "#" for place, part in parts):
        return False
    waiting = {part["$ref"]: _pointed(schema, part["$ref"]) for _, part in parts if "$ref" in part}
    while found := [target for target, part in waiting.items() if _ends(part, waiting)]:
        for target in found:
            del waiting[target]
    return not _ends(schema, waiting)


def _ends(schema: Any, waiting: Mapping[str, Any]) -> bool:
    """Whether some instance of a schema holds none of those that ``waiting`` points to."""
    if not isinstance(schema, dict):
        return True
    if schema.get("$ref") in waiting or not all(_ends(part, waiting) for part in schema.get("allOf", ())):
        return False
    for key in ("anyOf", "oneOf"):
        if schema.get(key) and not any(_ends(part, waiting) for part in schema[key]):
            return False
    held: list[Any] = []
    if schema.get("type") == "object":
        named = schema.get("properties", {})
        held = [named[name] for name in schema.get("required", ()) if name in named]
    elif schema.get("type") == "array":
        least, items = int(schema.get("minItems", 0)), schema.get("items")
        first = schema.get("prefixItems", items if isinstance(items, list) else [])
        held = [*first[:least], *([items] if least > len(first) and isinstance(items, dict) else [])]
    return all(_ends(part, waiting) for part in held)


def _pointed(root: Any, target: str) -> Any:
    """What a local JSON pointer points to; True, which is anything, where that is not told by it."""
    if target != "#" and not target.startswith("#/"):
        return True
    found = root
    for step in target.split("/")[1:]:
        step = step.replace("~1", "/").replace("~0", "~")
        if not isinstance(found, dict | list) or (isinstance(found, list) and not step.isdigit()):
            return True
        try:
            found = found[int(step)] if isinstance(found, list) else found[step]
        except (KeyError, IndexError):
            return True
    return found


_KEYWORD_OF = (
    (r"retrieving it failed|Anchor|[Pp]ointer|[Rr]esource|circular reference", "$ref"),
    (r"patternProperty", "patternProperties"),
    (r"oneOf", "oneOf"),
    (r"min/maxProperties", "minProperties"),
    (r"min/maxProperties", "maxProperties"),
    (r"look-?around|regex|backreference|escape sequence", "pattern"),
    (r"look-?around|regex|backreference|escape sequence", "patternProperties"),
)
"""What the engine's complaint says, and the keyword that it is about where it does not name it."""

_BOUND = (
    "the number of properties is bounded where all that properties lists are required",
    "list the others in required",
)
_INSTEAD = {
    "oneOf": (
        "its branches have to exclude each other by their type, or by a required property with a const of its own",
        "write anyOf, where more than one may hold",
    ),
    "minProperties": _BOUND,
    "maxProperties": _BOUND,
    "$ref": ("only what is within the schema itself is followed", "put what it points to under $defs"),
}
"""Why a keyword could not be enforced, and what to write in its place, where the engine has other advice or none."""


def refusal(schema: Any, complaint: str) -> UsageError:
    """The error for a schema that the engine refuses: it names the keyword, or says that nothing satisfies the schema."""
    said = complaint.split("<non-verbose/>")[0].split(". Enable")[0].strip()[:300]
    keys = sorted({key for _, part in parts_of(schema) for key in part})
    if "nsatisfiable" in said:
        return UsageError(
            "no JSON text satisfies the schema",
            why=f"{said.removeprefix('Unsatisfiable schema: ')}; it says {', '.join(keys) or 'false'}",
            fix="loosen what contradicts itself",
        )
    if said.startswith("Unimplemented keys: "):
        named = json.loads(said.removeprefix("Unimplemented keys: "))
        behind = "" if set(named) & set(keys) else " behind a $ref"
        return UsageError(
            f"the schema uses {', '.join(named)}{behind}, which cannot be enforced",
            why="a grammar reads a text once from left to right and has no form for it, and nothing is enforced in part",
            fix=f"leave {', '.join(named)} out, and check it afterwards",
        )
    keyword = next((key for words, key in _KEYWORD_OF if re.search(words, said) and key in keys), None)
    keyword = keyword or next((key for key in keys if key in said), "text")
    why, fix = _INSTEAD.get(keyword, ("", f"write {keyword} in another way, or leave it out and check it afterwards"))
    return UsageError(
        f"the schema's {keyword} cannot be enforced",
        why="; ".join(filter(None, (why, f"the engine says: {said}"))),
        fix=fix,
    )
