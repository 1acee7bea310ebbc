"""Files of a job: inputs, and the references that they are held against."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokentape.errors import UsageError
from tokentape.tasks.texts import read_text

__all__ = ["FIELDS", "Fields", "Records", "read_lines", "read_records"]


@dataclass(frozen=True, slots=True)
class Fields:
    """What a job's records hold: ``inputs`` by the name of their slot, and ``references``, under the first name that is there."""

    inputs: Mapping[str, tuple[str, ...]]
    references: tuple[str, ...]

    @property
    def columns(self) -> list[str]:
        """The columns of a table without a heading."""
        return [*(names[0] for names in self.inputs.values()), self.references[0]]


FIELDS: Mapping[str, Fields] = {
    "translate": Fields({"text": ("source", "text")}, ("target",)),
    "classify": Fields({"text": ("text",)}, ("label",)),
    "answer": Fields({"question": ("question",), "context": ("context",)}, ("answer", "answers")),
}


@dataclass(frozen=True, slots=True)
class Records:
    """What is asked, slot by slot, and for each what would be right: one text or several. ``references`` is None without any."""

    inputs: tuple[Mapping[str, str], ...]
    references: tuple[tuple[str, ...], ...] | None = None


def read_records(path: Path, job: str, *, last_word: bool = False) -> Records:
    """The records of a file: JSON lines (.jsonl, .ndjson), tab-separated columns (.tsv), else one input a line.

    A .tsv may begin with a line of the names of its columns; without, they are those of :data:`FIELDS`. With ``last_word``, a
    record with a ``text`` alone is a text whose last word is the answer. Raises UsageError for a file that cannot be read, is
    empty, or lacks a field, and where some records have a reference and others none.
    """
    lines = [(number, line) for number, line in enumerate(read_lines(path), 1) if line.strip()]
    if not lines:
        raise UsageError(f"{path} is empty", why="there is nothing to work on", fix="put one input on each line")
    if path.suffix in (".jsonl", ".ndjson"):
        found = [(number, _from_json(line, path, number)) for number, line in lines]
    elif path.suffix == ".tsv":
        found = _from_columns(lines, path, FIELDS[job])
    else:
        name = "text" if last_word else FIELDS[job].columns[0]
        found = [(number, {name: line}) for number, line in lines]
    if last_word:
        found = [(number, _split(record, path, number)) for number, record in found]
    inputs = [_inputs(record, path, number, FIELDS[job]) for number, record in found]
    references = [_references(record, path, number, FIELDS[job]) for number, record in found]
    known = [reference for reference in references if reference is not None]
    if known and len(known) < len(references):
        missing = next(number for (number, _), reference in zip(found, references, strict=True) if reference is None)
        raise UsageError(
            f"{path}: {len(known)} of {len(references)} records have a {FIELDS[job].references[0]}",
            why=f"figures are taken over all records or none; line {missing} has none",
            fix="give one to every record, or to none",
        )
    return Records(tuple(inputs), tuple(known) or None)


def read_lines(path: Path) -> list[str]:
    """The lines of a text file. Raises UsageError where it cannot be read, or is not UTF-8."""
    # not splitlines(): a text may hold separators that are no line ends
    lines = read_text(path).replace("\r\n", "\n").split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def _from_json(line: str, path: Path, number: int) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except ValueError as error:
        raise UsageError(
            f"{path}, line {number}: not JSON", why=str(error), fix='{"text": "..."}, one a line'
        ) from error
    if not isinstance(value, dict):
        raise UsageError(
            f"{path}, line {number}: no object", why="a record names its fields", fix='{"text": "..."}, one a line'
        )
    return value


def _from_columns(lines: list[tuple[int, str]], path: Path, fields: Fields) -> list[tuple[int, dict[str, Any]]]:
    names = {name for names in fields.inputs.values() for name in names} | {*fields.references}
    columns = lines[0][1].split("\t")
    if set(columns) <= names:
        lines = lines[1:]
    else:
        columns = fields.columns
    found = []
    for number, line in lines:
        cells = line.split("\t")
        if len(cells) > len(columns):
            raise UsageError(
                f"{path}, line {number}: {len(cells)} columns",
                why=f"there are {len(columns)}: {', '.join(columns)}",
                fix="a first line that names the columns, or a .jsonl file",
            )
        found.append((number, dict(zip(columns, cells, strict=False))))
    if not found:
        raise UsageError(f"{path} is empty", why="it has a heading and no rows", fix="put one input on each line")
    return found


def _split(record: dict[str, Any], path: Path, number: int) -> dict[str, Any]:
    """A text as a context and its last word."""
    text = record.get("text")
    if not isinstance(text, str) or "context" in record:
        return record
    context, _, word = text.rstrip().rpartition(" ")
    if not context:
        raise UsageError(
            f"{path}, line {number}: a text of one word", why="nothing precedes its last word", fix="give a longer text"
        )
    return {"context": context, "answer": word}


def _inputs(record: Mapping[str, Any], path: Path, number: int, fields: Fields) -> dict[str, str]:
    found = {}
    for slot, names in fields.inputs.items():
        value = next((record[name] for name in names if name in record), None)
        if value is None:
            continue
        if not isinstance(value, str) or not value.strip():
            raise UsageError(
                f"{path}, line {number}: no {slot} in it", why="a text is needed", fix=f'"{names[0]}": "..."'
            )
        found[slot] = value
    if not found:
        wanted = " or ".join(names[0] for names in fields.inputs.values())
        raise UsageError(
            f"{path}, line {number}: no {wanted} in it",
            why=f"its fields are {', '.join(record) or 'none'}",
            fix=f"name the fields {', '.join(fields.columns)}",
        )
    return found


def _references(record: Mapping[str, Any], path: Path, number: int, fields: Fields) -> tuple[str, ...] | None:
    value = next((record[name] for name in fields.references if record.get(name) is not None), None)
    if value is None:
        return None
    values = value if isinstance(value, list) else [value]
    if not values or not all(isinstance(one, str) for one in values):
        raise UsageError(
            f"{path}, line {number}: {value!r} is no {fields.references[0]}",
            why="a reference is a text, or a list of texts of which any is right",
            fix=f'"{fields.references[0]}": "..."',
        )
    return tuple(values)
