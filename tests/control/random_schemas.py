"""Schemas drawn at random: small ones of every kind that is enforced, a few levels deep."""

from __future__ import annotations

import random
from typing import Any

NAMES = ["a", "name", "age", "b c", "é", "kind", 'q"', "x1"]
PATTERNS = [r"^[a-z]+$", r"^\d{2,3}$", r"x|y", r"^\w+@\w+$", r"a\.b", r"^[^a-f]*$", "^(ab)+$", r"\W", r"^\D?\s*$"]
FORMATS = ["date", "date-time", "time", "ipv4", "ipv6", "uuid", "email", "hostname", "uri", "duration"]


def random_schema(draw: random.Random, depth: int = 2, scalar: bool = False) -> Any:
    """A schema that is enforced exactly; ``scalar`` leaves objects and arrays out."""
    makers = [_string, _integer, _number, _enum, _plain, _formatted]
    if not scalar and depth:
        makers += [_object, _object, _array, _any_of, _all_of, _open_object]
    elif scalar and depth:
        makers += [_any_of, _all_of]
    return draw.choice(makers)(draw, depth, scalar)


def _plain(draw: random.Random, depth: int, scalar: bool) -> Any:
    return {"type": draw.choice(["boolean", "null", "integer", ["null", "boolean"], ["integer", "null"]])}


def _string(draw: random.Random, depth: int, scalar: bool) -> Any:
    schema: dict[str, Any] = {"type": "string"}
    if draw.random() < 0.4:
        schema["pattern"] = draw.choice(PATTERNS)
    elif draw.random() < 0.5:
        schema["minLength"] = draw.randrange(4)
    schema["maxLength"] = draw.randrange(4, 12)
    return schema


def _formatted(draw: random.Random, depth: int, scalar: bool) -> Any:
    return {"type": "string", "format": draw.choice(FORMATS)}


def _integer(draw: random.Random, depth: int, scalar: bool) -> Any:
    low = draw.randrange(-200, 200)
    schema: dict[str, Any] = {"type": "integer", draw.choice(["minimum", "exclusiveMinimum"]): low}
    if draw.random() < 0.7:
        schema[draw.choice(["maximum", "exclusiveMaximum"])] = low + draw.randrange(12, 2000)
    if draw.random() < 0.3:
        schema["multipleOf"] = draw.choice([2, 3, 5])
    return schema


def _number(draw: random.Random, depth: int, scalar: bool) -> Any:
    low = round(draw.uniform(-5, 5), draw.randrange(4))
    schema: dict[str, Any] = {"type": "number", draw.choice(["minimum", "exclusiveMinimum"]): low}
    if draw.random() < 0.7:
        schema[draw.choice(["maximum", "exclusiveMaximum"])] = low + round(draw.uniform(0.5, 30), 3)
    if draw.random() < 0.3:
        schema["multipleOf"] = draw.choice([0.5, 0.25, 0.01, 0.1])
    return schema


def _enum(draw: random.Random, depth: int, scalar: bool) -> Any:
    values: list[Any] = ["yes", "no", "", "é\n", 1, 0, -3, 2.5, None, True, "1"]
    if not scalar:
        values += [[1, "a"], {"a": 1}, [], {}]
    picked = draw.sample(values, draw.randrange(1, 4))
    return {"const": picked[0]} if len(picked) == 1 else {"enum": picked}


def _any_of(draw: random.Random, depth: int, scalar: bool) -> Any:
    return {"anyOf": [random_schema(draw, depth - 1, scalar) for _ in range(draw.randrange(2, 4))]}


def _all_of(draw: random.Random, depth: int, scalar: bool) -> Any:
    return {"allOf": [{"type": "string", "pattern": draw.choice(["^a", "^[a-m]*$"])}, {"pattern": "a", "maxLength": 8}]}


def _array(draw: random.Random, depth: int, scalar: bool) -> Any:
    schema: dict[str, Any] = {"type": "array", "items": random_schema(draw, depth - 1)}
    if draw.random() < 0.5:
        schema["prefixItems"] = [random_schema(draw, depth - 1) for _ in range(draw.randrange(1, 3))]
    if draw.random() < 0.5:
        schema["minItems"] = draw.randrange(3)
    schema["maxItems"] = draw.randrange(2, 5)
    return schema


def _object(draw: random.Random, depth: int, scalar: bool) -> Any:
    names = draw.sample(NAMES, draw.randrange(1, 4))
    return {
        "type": "object",
        "properties": {name: random_schema(draw, depth - 1) for name in names},
        "required": draw.sample(names, draw.randrange(len(names) + 1)),
        "additionalProperties": False,
    }


def _open_object(draw: random.Random, depth: int, scalar: bool) -> Any:
    schema: dict[str, Any] = {"type": "object", "additionalProperties": random_schema(draw, 0)}
    if draw.random() < 0.5:
        schema["properties"] = {"a": {"type": "integer"}, "n": {"type": "boolean"}}
    if draw.random() < 0.4:
        schema["patternProperties"] = {"^[xy]": random_schema(draw, 0)}
    if "properties" not in schema and draw.random() < 0.5:
        schema["minProperties"], schema["maxProperties"] = 1, 3
    return schema
