"""Options of methods, held against what their functions take before any work is done."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from tokentape.errors import UsageError
from tokentape.explain.methods import Method
from tokentape.explain.replay import Progress

__all__ = ["checked_options", "progress_option"]

_SPOKEN = {int: "a whole number", float: "a number", bool: "true or false", str: "a word", type(None): "left out"}
"""How the types of options are called."""


def checked_options(method: Method, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options, each known to the method and of the type it takes. Raises UsageError."""
    known = _keywords(method) - {"progress"}
    for name in options:
        if name not in known:
            raise UsageError(
                f"{method.name} has no option {name!r}",
                why=f"its options are {', '.join(sorted(known)) or 'none'}",
                fix=f"leave {name} out",
            )
    hints = _hints(method)
    for name, value in options.items():
        kinds = _kinds(hints.get(name))
        negative = name == "seed" and isinstance(value, int) and value < 0
        if (kinds and not any(_is_of(value, kind) for kind in kinds)) or negative:
            default = inspect.signature(method.function()).parameters[name].default
            raise UsageError(
                f"{method.name}: {name}={value}",
                why=f"{name} is {' or '.join(_SPOKEN[kind] for kind in kinds)}{', and not negative' * negative}",
                fix=f"--option {name}={'...' if default is None else default}",
            )
    return dict(options)


def _hints(method: Method) -> Mapping[str, Any]:
    try:
        return get_type_hints(method.function())
    except NameError:  # names that a checker alone imports
        return {}


def _kinds(hint: Any) -> tuple[type, ...]:
    """The types that a hint allows; none where some of them are not known here."""
    if get_origin(hint) is Literal:
        return tuple({type(value) for value in get_args(hint)})
    if get_origin(hint) in (Union, UnionType):
        found = [_kinds(one) for one in get_args(hint)]
        return tuple(kind for kinds in found for kind in kinds) if all(found) else ()
    return (hint,) if hint in _SPOKEN else ()


def _is_of(value: Any, kind: type) -> bool:
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, (int, float) if kind is float else kind)


def progress_option(method: Method, progress: Progress | None) -> dict[str, Any]:
    """``progress`` as an option, for a method that takes it."""
    return {"progress": progress} if progress is not None and "progress" in _keywords(method) else {}


def _keywords(method: Method) -> set[str]:
    parameters = inspect.signature(method.function()).parameters
    return set(list(parameters)[2:])
