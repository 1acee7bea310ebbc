"""Find the sentences with which the package refuses things, and whether each has its Chinese form.

python tools/error_phrases.py                 list what lacks one, by room
python tools/error_phrases.py --room data     of one room, as lines to fill in
python tools/error_phrases.py --check         exit 1 if something lacks one, or if a form belongs to nothing

A template is the text of an error as it stands in the code, with {0}, {1}, ... for what the code fills in.
"""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from tokentape import errors
from tokentape.words.refusals import LETTERS, letters, templates

SOURCE = Path(__file__).resolve().parents[1] / "src" / "tokentape"
CLASSES = {name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)}
COMMANDS = ("tokentape ", "--", "pip ", "make ", "TOKENTAPE_", "ls ", "python ", "tt.")
"""What a fix begins with that is to be typed as it stands."""


def found() -> dict[str, set[str]]:
    """The templates of each room."""
    rooms: dict[str, set[str]] = {}
    for path in sorted(SOURCE.rglob("*.py")):
        room = path.relative_to(SOURCE).parts[0].removesuffix(".py")
        for template in _of_module(ast.parse(path.read_text("utf-8"))):
            if letters(template) >= LETTERS and not template.startswith(COMMANDS):
                rooms.setdefault(room, set()).add(template)
    return rooms


def _of_module(tree: ast.Module) -> Iterator[str]:
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _of_function(function)


def _of_function(function: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[str]:
    texts: dict[str, list[ast.expr]] = {}
    for node in ast.walk(function):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                for name, value in _pairs(target, node.value):
                    texts.setdefault(name, []).append(value)
    for node in ast.walk(function):
        if isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", None)) in CLASSES:
            given = [*node.args[:1], *(word.value for word in node.keywords if word.arg in ("why", "fix"))]
            for value in given:
                yield from _texts(value, texts)


def _pairs(target: ast.expr, value: ast.expr) -> Iterator[tuple[str, ast.expr]]:
    if isinstance(target, ast.Name):
        yield target.id, value
    elif isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple) and len(target.elts) == len(value.elts):
        for part, of_it in zip(target.elts, value.elts, strict=True):
            yield from _pairs(part, of_it)


def _texts(value: ast.expr, texts: dict[str, list[ast.expr]], depth: int = 0) -> Iterator[str]:
    """The templates that an expression may come to."""
    if isinstance(value, ast.Constant) and isinstance(value.value, str):
        yield value.value
    elif isinstance(value, ast.JoinedStr):
        yield _numbered("".join(_part(part) for part in value.values))
    elif isinstance(value, ast.IfExp):
        yield from _texts(value.body, texts, depth)
        yield from _texts(value.orelse, texts, depth)
    elif isinstance(value, ast.BoolOp):
        for one in value.values:
            yield from _texts(one, texts, depth)
    elif isinstance(value, ast.Name) and depth < 3:
        for one in texts.get(value.id, []):
            yield from _texts(one, texts, depth + 1)


def _part(part: ast.expr) -> str:
    # a constant of an f-string may hold a brace of its own; a place is marked by a character that no message has
    return part.value if isinstance(part, ast.Constant) else "\0"


def _numbered(text: str) -> str:
    parts = text.split("\0")
    return "".join(part + (f"{{{i}}}" if i < len(parts) - 1 else "") for i, part in enumerate(parts))


def main() -> int:
    rooms, known = found(), templates()
    if "--room" in sys.argv:
        room = sys.argv[sys.argv.index("--room") + 1]
        for template in sorted(rooms.get(room, set()) - set(known)):
            print(f"{json.dumps(template, ensure_ascii=False)} = ")
        return 0
    missing = {room: sorted(of_it - set(known)) for room, of_it in rooms.items()}
    for room, of_it in missing.items():
        print(f"{room}: {len(rooms[room])} templates, {len(of_it)} without a Chinese form")
    stale = sorted(set(known) - set().union(*rooms.values()))
    for template in stale:
        print(f"belongs to nothing: {template}")
    return int("--check" in sys.argv and (any(missing.values()) or bool(stale)))


if __name__ == "__main__":
    sys.exit(main())
