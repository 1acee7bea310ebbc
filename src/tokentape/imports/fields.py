"""Values out of somebody else's JSON, each by its name and with the kind it must have; what is not as it must be is an error.

A field that is absent and one that is null are the same: None from the methods that begin with ``maybe_``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

from tokentape.errors import UsageError

__all__ = ["Fields", "seconds_to_ns"]

LARGEST = 2**62
"""Beyond it a number fits no column of a tape."""


@dataclass(frozen=True, slots=True)
class Fields:
    """An object of JSON, and where it stands: ``file`` names the file, ``at`` are the names and numbers that lead to it."""

    value: Any
    file: str
    at: tuple[str | int, ...] = ()

    @property
    def place(self) -> str:
        """Where it stands, in words."""
        return " ".join(map(str, self.at)) or "results"

    def wrong(self, what: str, why: str) -> NoReturn:
        """Raise the error that says what is wrong where."""
        raise UsageError(
            f"{self.file}, {self.place}: {what}",
            why=why,
            fix="give the file as the tool wrote it; if it is, its format is not known here yet",
        )

    def has(self, name: str) -> bool:
        """Whether there is a field that is not null."""
        return isinstance(self.value, dict) and self.value.get(name) is not None

    def maybe(self, name: str) -> Any:
        """A field as it came."""
        if not isinstance(self.value, dict):
            self.wrong(f"{_shown(self.value)} is no object", "its fields are looked up by name")
        return self.value.get(name)

    def maybe_object(self, name: str) -> Fields | None:
        """An object in this one."""
        found = self.maybe(name)
        if found is None:
            return None
        if not isinstance(found, dict):
            self.wrong(f"{name} is {_shown(found)}", "it must be an object")
        return Fields(found, self.file, (*self.at, name))

    def object(self, name: str) -> Fields:
        """An object in this one, which must be there."""
        return self.maybe_object(name) or self._absent(name)

    def items(self, name: str) -> list[Any]:
        """A list that must be there."""
        found = self.maybe(name)
        if not isinstance(found, list):
            self.wrong(f"{name} is {_shown(found)}", "it must be a list")
        return found

    def objects(self, name: str) -> Iterator[Fields]:
        """The objects in a list that must be there."""
        for i, one in enumerate(self.items(name)):
            yield Fields(one, self.file, (*self.at, name, i))

    def maybe_number(self, name: str) -> float | int | None:
        """A finite number."""
        found = self.maybe(name)
        if found is None:
            return None
        if isinstance(found, bool) or not isinstance(found, int | float) or not _fits(found):
            self.wrong(f"{name} is {_shown(found)}", "it must be a finite number")
        return found

    def number(self, name: str) -> float | int:
        """A finite number that must be there."""
        found = self.maybe_number(name)
        return self._absent(name) if found is None else found

    def maybe_integer(self, name: str) -> int | None:
        """A whole number, 0 or more; one written as 12.0 counts."""
        found = self.maybe_number(name)
        if found is None:
            return None
        if found < 0 or found != int(found):
            self.wrong(f"{name} is {_shown(found)}", "it must be a whole number, 0 or more")
        return int(found)

    def integer(self, name: str) -> int:
        """A whole number that must be there."""
        found = self.maybe_integer(name)
        return self._absent(name) if found is None else found

    def numbers(self, name: str) -> list[float | int]:
        """A list of finite numbers that must be there."""
        found = self.items(name)
        for i, one in enumerate(found):
            if isinstance(one, bool) or not isinstance(one, int | float) or not _fits(one):
                self.wrong(f"{name}[{i}] is {_shown(one)}", "it must be a finite number")
        return found

    def maybe_text(self, name: str) -> str | None:
        """A string."""
        found = self.maybe(name)
        if found is not None and not isinstance(found, str):
            self.wrong(f"{name} is {_shown(found)}", "it must be text")
        return found

    def _absent(self, name: str) -> NoReturn:
        self.wrong(f"it has no {name}", "the tool writes it with every result")


def _fits(value: float | int) -> bool:
    return math.isfinite(value) and abs(value) < LARGEST


def _shown(value: Any) -> str:
    return repr(value)[:40]


def seconds_to_ns(seconds: float | int) -> int:
    """Seconds as nanoseconds, with no loss where they count from long ago: a float of today's seconds has 0.24 us."""
    whole = math.floor(seconds)
    return whole * 10**9 + round((seconds - whole) * 1e9)
