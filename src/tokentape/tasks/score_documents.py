"""What is scored: texts or token ids, each alone or behind a context; from Python, from text files, from JSONL."""

from __future__ import annotations

import hashlib
import json
import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tokentape.errors import PromptError, UsageError
from tokentape.tasks.texts import read_text

__all__ = ["JSONL", "Content", "Document", "digest", "documents_of", "read_documents"]

JSONL = (".jsonl", ".ndjson")
"""Files of these names hold one document a line; every other file is one document."""

Content = str | tuple[int, ...]

_FORMS = '{"text": "..."}, or {"context": "...", "continuation": "..."}'


@dataclass(frozen=True, slots=True)
class Document:
    """One text to be scored, or its token ids; ``context`` is what it follows, read and not scored; ``name`` says which it is."""

    text: Content
    context: Content | None = None
    name: str = ""


def documents_of(texts: Any, context: Any = None) -> list[Document]:
    """Documents of what a caller gave: a text, token ids, a :class:`Document`, or a list of any of these.

    ``context`` goes before each that has none of its own. Raises PromptError for what is none of this, for no document, and
    for an empty one.
    """
    before = None if context is None else _content(context)
    listed = [texts] if isinstance(texts, str | Document) else list(_entries(texts))
    if listed and all(hasattr(one, "__index__") for one in listed):
        listed = [listed]  # the ids of one text
    if not listed:
        raise PromptError("no text was given", why="there is nothing to score", fix='give a text: "The cat sat."')
    found = [one if isinstance(one, Document) else Document(_content(one)) for one in listed]
    named = [one if one.name else replace(one, name=f"document {i}") for i, one in enumerate(found)]
    for one in named:
        if not len(one.text):
            raise PromptError(f"{one.name} is empty", why="there is nothing to score", fix="give it some text")
    return [one if one.context is not None else replace(one, context=before) for one in named]


def _entries(given: Any) -> Iterable[Any]:
    if isinstance(given, bytes | bytearray | Mapping) or not isinstance(given, Iterable):
        raise _unreadable(given)
    return given


def _content(given: Any) -> Content:
    if isinstance(given, str):
        return given
    try:
        return tuple(operator.index(one) for one in _entries(given))
    except TypeError as error:
        raise _unreadable(given) from error


def _unreadable(given: Any) -> PromptError:
    return PromptError(
        f"a text of type {type(given).__name__} cannot be scored",
        why="what is scored is a text or a list of token ids, or a list of these",
        fix="give a str, a list of int, or Document(text, context)",
    )


def read_documents(paths: Iterable[Path]) -> list[Document]:
    """The documents of files and folders, in order: a file is one document, a JSONL file has one a line.

    Of a folder the text and JSONL files that lie in it are read, by name. Texts are taken as they are, the last line end
    included. Raises UsageError for what cannot be read, PromptError for what is no UTF-8 or a line without a text.
    """
    found = []
    for path in paths:
        for file in _files(path):
            text = read_text(file)
            found += _lines(text, file) if file.suffix in JSONL else [Document(text, None, str(file))]
    return found


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    found = sorted(file for file in path.iterdir() if file.suffix in (".txt", *JSONL) and file.is_file())
    if not found:
        raise UsageError(
            f"the folder {path} has no text in it",
            why="of a folder the files *.txt, *.jsonl and *.ndjson are read",
            fix=f"tokentape score MODEL {path}/*",
        )
    return found


def _lines(text: str, path: Path) -> list[Document]:
    # not splitlines(): JSON may hold the other line ends of Unicode as they are
    numbered = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not numbered:
        raise PromptError(f"{path} has no documents", why="every line is empty", fix=f"one a line: {_FORMS}")
    return [_document(line, f"{path}:{number}") for number, line in numbered]


def _document(line: str, name: str) -> Document:
    try:
        value = json.loads(line)
    except ValueError as error:
        raise PromptError(f"{name} is not JSON", why=str(error), fix=f"one object a line: {_FORMS}") from error
    fields = value if isinstance(value, dict) else {}
    text, context = fields.get("text", fields.get("continuation")), fields.get("context")
    both = "text" in fields and "continuation" in fields
    if both or not isinstance(text, str) or not (context is None or isinstance(context, str)):
        why = "it has both text and continuation" if both else "it has no text, or something else in its place"
        raise PromptError(f"{name} has no text to score", why=why, fix=f"one object a line: {_FORMS}")
    return Document(text, context, name)


def digest(documents: Sequence[Document]) -> str:
    """First 16 hexadecimal digits of the SHA-256 of all texts and contexts, names left out."""
    found = hashlib.sha256()
    for one in documents:
        found.update(json.dumps([one.context, one.text]).encode())
    return found.hexdigest()[:16]
