"""A config.json as it is asked for values: by name, with a default, and with an error that says what is missing."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokentape.errors import StudyError, UsageError

__all__ = ["REQUIRED", "Config", "Field", "config_in", "read_config"]

REQUIRED = object()
"""The default of a field without which a configuration describes no model."""

DEMO = Path(__file__).parents[2] / "models" / "demo" / "config.json"


@dataclass(frozen=True, slots=True)
class Field:
    """Where a value stands: the first of ``names`` that the configuration has (``a.b`` is a field of a field), else ``default``."""

    names: tuple[str, ...]
    default: Any = REQUIRED


@dataclass(frozen=True, slots=True)
class Config:
    """The fields of one text model."""

    fields: Mapping[str, Any]

    @property
    def model_type(self) -> str:
        """The family's name; raises UsageError where there is none."""
        found = self.fields.get("model_type")
        if not isinstance(found, str) or not found:
            raise UsageError(
                "the configuration names no model_type",
                why=f"it has {', '.join(sorted(self.fields)[:8]) or 'no fields'}: so nothing says what its numbers mean",
                fix='give the config.json of a Hugging Face model, with a field such as "model_type": "llama"',
            )
        return found

    def get(self, name: str, default: Any = None) -> Any:
        """A field by its name, ``a.b`` for a field of a field; ``default`` where it is absent."""
        found: Any = self.fields
        for part in name.split("."):
            if not isinstance(found, Mapping) or part not in found:
                return default
            found = found[part]
        return found

    def value(self, wanted: Any) -> Any:
        """What a :class:`Field` says, or ``wanted`` itself where it is none."""
        if not isinstance(wanted, Field):
            return wanted
        for name in wanted.names:
            found = self.get(name, REQUIRED)
            if found is not REQUIRED:
                return found
        if wanted.default is REQUIRED:
            raise UsageError(
                f"the configuration has no {wanted.names[0]}",
                why=f"the cost of a {self.model_type!r} cannot be told without it",
                fix=f'add "{wanted.names[0]}" to it, or give the whole config.json',
            )
        return wanted.default

    def size(self, wanted: Any) -> int:
        """A value that has to be a positive whole number; raises UsageError where it is none."""
        found = self.value(wanted)
        if isinstance(found, bool) or not isinstance(found, (int, float)) or found != int(found) or found < 1:
            name = wanted.names[0] if isinstance(wanted, Field) else "a size"
            raise UsageError(
                f"{name} is {found!r}",
                why="a size is a whole number, 1 or more",
                fix=f"correct {name} in the configuration",
            )
        return int(found)


def read_config(source: Any) -> dict[str, Any]:
    """The fields of a configuration: of a mapping, a config.json, a folder that holds one, ``"demo"``, a tape or its path.

    Raises UsageError where there is none, StudyError for a tape whose Setting does not hold it.
    """
    if isinstance(source, Mapping):
        return dict(source)
    setting = getattr(source, "setting", None)
    if setting is not None:
        return config_in(setting.facts, str(getattr(source, "path", None) or "the tape"))
    path = DEMO if str(source) == "demo" else Path(os.fspath(source)).expanduser()
    if path.suffix == ".tape":
        from tokentape.data.tape import open_tape

        with open_tape(path) as tape:
            return config_in(tape.setting.facts, str(path))
    if path.is_dir():
        path = path / "config.json"
    if not path.is_file():
        raise _absent(source, path)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError("it holds no JSON object")
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{path} is no configuration", why=str(error), fix="give the config.json of a Hugging Face model"
        ) from error
    return found


def _absent(source: Any, path: Path) -> UsageError:
    if path.parent.is_dir() and path.name == "config.json" and str(source) != str(path):
        return UsageError(
            f"{source} holds no config.json", why="a folder is known by that file", fix="give a folder that has one"
        )
    looks_like_hub = "/" in str(source) and not str(source).startswith((".", "/", "~")) and str(source).count("/") == 1
    fix = "give a config.json, a folder with one, a .tape, or 'demo'"
    if looks_like_hub:
        fix = f"download its config.json first (huggingface-cli download {source} config.json), and give the file"
    return UsageError(f"there is no {str(source)!r} here", why="a prediction reads a file and asks no network", fix=fix)


def config_in(facts: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The configuration that the facts of a Setting note; raises StudyError, with ``name``, where there is none."""
    found = facts.get("config")
    if isinstance(found, Mapping):
        # what the parameters are in memory, the commonest first, goes before what the file said
        dtype = str(facts.get("dtype") or "").partition("+")[0]
        return {**found, **({"dtype": dtype} if dtype else {})}
    raise StudyError(
        f"{name} does not say how its model is built",
        why="its Setting has no fact `config`: it was recorded from an endpoint or a script, or by an earlier version",
        fix="give the model's config.json instead",
    )
