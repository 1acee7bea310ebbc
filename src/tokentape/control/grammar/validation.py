"""Whether a text is of a language, judged by other programs than the one that led the model there."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable, Iterator
from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from tokentape.control.grammar.grammar import Grammar
from tokentape.control.grammar.json_schema import FORMATS, dialect_of

__all__ = ["judged"]

Judgement = tuple[bool | None, str | None]
"""Valid, or None where nobody can tell; and why not."""

PATIENCE_S = 1.0
"""How long a pattern may try to match: backtracking can take exponential time."""

MOST_DIGITS = 4000
"""Digits of a number that is divided; written 1e999999999 it would take gigabytes."""

_IMPATIENT = f"a pattern was not through with it after {PATIENCE_S:g} s"


def judged(grammar: Grammar, said: bytes) -> Judgement:
    """Whether a text is of a grammar's language.

    A schema is judged by jsonschema, formats included; a pattern by the regex module in its reading of nested sets, which is
    that of Rust; choices by looking them up. Nothing but the engine reads its grammars: None.
    """
    try:
        text = said.decode()
    except UnicodeDecodeError as error:
        return False, f"it is no UTF-8: {error}"
    return _judge(grammar)(text)


@lru_cache(maxsize=64)
def _judge(grammar: Grammar) -> Callable[[str], Judgement]:
    if grammar.kind == "json_schema":
        return _schema_judge(json.loads(grammar.source, parse_float=Decimal))
    if grammar.kind == "regex":
        return _pattern_judge(grammar.source)
    if grammar.kind == "choices":
        texts = frozenset(json.loads(grammar.source))
        return lambda text: (True, None) if text in texts else (False, "it is none of the choices")
    return lambda text: (None, "only the engine itself reads its grammars")


def _pattern_judge(pattern: str) -> Callable[[str], Judgement]:
    try:
        compiled = _compiled(pattern)
    except _Unreadable as error:
        unreadable = str(error)
        return lambda text: (None, unreadable)

    def judge(text: str) -> Judgement:
        try:
            found = compiled.fullmatch(text, timeout=PATIENCE_S)
        except TimeoutError:
            return None, _IMPATIENT
        return (True, None) if found else (False, "it does not match the pattern")

    return judge


class _Unreadable(Exception):
    """A pattern that Python does not read as the engine does."""


def _compiled(pattern: str) -> Any:
    import regex

    # Rust has no possessive repeats: to it a++ is (a+)+; escapes and classes hold none
    if re.search(r"(?:[*+?]|\{\d+(?:,\d*)?\})\+", re.sub(r"\\.|\[(?:\\.|[^\]\\])*\]", "x", pattern, flags=re.DOTALL)):
        raise _Unreadable(f"Python reads {pattern!r} in another way: as a possessive repeat")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            return regex.compile(pattern, regex.VERSION1)
        except (regex.error, Warning) as error:
            raise _Unreadable(f"Python does not read {pattern!r}: {error}") from error


_ASCII_CLASSES = {r"\d": "[0-9]", r"\D": "[^0-9]", r"\w": "[0-9A-Za-z_]", r"\W": "[^0-9A-Za-z_]"}


@lru_cache(maxsize=1024)
def _in_schemas(pattern: str) -> Any:
    """A pattern as JSON Schema reads it, by ECMA-262: ``\\d`` and ``\\w`` are of ASCII alone."""
    return _compiled(re.sub(r"\\.", lambda found: _ASCII_CLASSES.get(found[0], found[0]), pattern, flags=re.DOTALL))


def _found_in(pattern: str, text: str) -> bool:
    return _in_schemas(pattern).search(text, timeout=PATIENCE_S) is not None


def _schema_judge(schema: Any) -> Callable[[str], Judgement]:
    import jsonschema

    dialect = dialect_of(schema)
    # float64 finds 0.07 to be no multiple of 0.01
    numbers = dialect.TYPE_CHECKER.redefine("integer", _is_integer)
    keywords = {
        "additionalProperties": _additional,
        "multipleOf": _multiple_of,
        "pattern": _pattern,
        "patternProperties": _pattern_properties,
    }
    judging = jsonschema.validators.extend(dialect, keywords, type_checker=numbers)
    validator = judging(schema, format_checker=_formats())

    def judge(text: str) -> Judgement:
        try:
            instance = json.loads(text, parse_float=Decimal)
            error = jsonschema.exceptions.best_match(validator.iter_errors(instance))
        except json.JSONDecodeError as found:
            return False, f"it is no JSON: {found}"
        except _Unreadable as found:
            return None, str(found)
        except ValueError as found:  # more digits than Python reads
            return None, str(found)
        except TimeoutError:
            return None, _IMPATIENT
        except RecursionError:
            return None, "it is nested too deeply to be judged"
        return (True, None) if error is None else (False, f"{error.json_path}: {error.message[:200]}")

    return judge


def _multiple_of(validator: Any, step: Any, instance: Any, schema: Any) -> Iterator[Any]:
    import jsonschema

    if not validator.is_type(instance, "number"):
        return
    if isinstance(instance, Decimal) and abs(instance.adjusted()) > MOST_DIGITS:
        raise _Unreadable(f"nobody divides {instance}")
    if Fraction(instance) % Fraction(step):
        yield jsonschema.ValidationError(f"{instance} is not a multiple of {step}")


def _pattern(validator: Any, pattern: str, instance: Any, schema: Any) -> Iterator[Any]:
    import jsonschema

    if validator.is_type(instance, "string") and not _found_in(pattern, instance):
        yield jsonschema.ValidationError(f"{instance!r} does not match {pattern!r}")


def _pattern_properties(validator: Any, patterns: Any, instance: Any, schema: Any) -> Iterator[Any]:
    for pattern, part in patterns.items() if validator.is_type(instance, "object") else ():
        for name in instance:
            if _found_in(pattern, name):
                yield from validator.descend(instance[name], part, path=name, schema_path=pattern)


def _additional(validator: Any, part: Any, instance: Any, schema: Any) -> Iterator[Any]:
    named, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
    for name in instance if validator.is_type(instance, "object") else ():
        if name not in named and not any(_found_in(pattern, name) for pattern in patterns):
            yield from validator.descend(instance[name], part, path=name)


def _is_integer(checker: Any, value: Any) -> bool:
    if isinstance(value, Decimal):
        return value == value.to_integral_value()
    return isinstance(value, int) and not isinstance(value, bool)


@lru_cache(maxsize=1)
def _formats() -> Any:
    """A checker of every format that is enforced: jsonschema's own, and those for which it would need further packages."""
    import jsonschema

    checker = jsonschema.FormatChecker(formats=())
    known = jsonschema.Draft202012Validator.FORMAT_CHECKER.checkers
    checker.checkers = {name: known[name] for name in FORMATS if name in known}
    own = {
        "date-time": _is_date_time,
        "time": _is_time,
        "duration": _is_duration,
        "hostname": _is_hostname,
        "uri": _is_uri,
    }
    for name, holds in own.items():
        checker.checks(name, raises=ValueError)(holds)
    return checker


def _is_date_time(value: Any) -> bool:
    if not isinstance(value, str):
        return True
    read = datetime.fromisoformat(value.upper())
    return read.tzinfo is not None and re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", value.upper(), re.ASCII) is not None


def _is_time(value: Any) -> bool:
    return not isinstance(value, str) or _is_date_time(f"2000-01-01T{value}")


def _is_duration(value: Any) -> bool:
    if not isinstance(value, str) or re.fullmatch(r"P[0-9]+W", value):
        return True
    days, clock, seconds = value.removeprefix("P").partition("T")
    units = [re.sub(r"[0-9]+", "", part) for part in (days, seconds)]
    whole = re.fullmatch(r"P(?:[0-9]+[YMD])*(?:T(?:[0-9]+[HMS])+)?", value) and value != "P"
    # RFC 3339, appendix A: units follow each other without a gap
    return bool(whole) and units[0] in "YMD" and (not clock or units[1] in "HMS")


def _is_hostname(value: Any) -> bool:
    if not isinstance(value, str):
        return True
    label = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
    return len(value) <= 253 and re.fullmatch(rf"{label}(?:\.{label})*", value) is not None


def _is_uri(value: Any) -> bool:
    if not isinstance(value, str):
        return True
    split = urlsplit(value)  # raises ValueError for a broken host
    allowed = re.fullmatch(r"(?:[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=]|%[0-9A-Fa-f]{2})*", value)
    return bool(split.scheme) and allowed is not None
