"""Find the sentences with which the package refuses things, and whether each has its Chinese form.

python tools/error_phrases.py                 list what lacks one, by room
python tools/error_phrases.py --room data     of one room, as lines to fill in, each with the place of its error
python tools/error_phrases.py --check         exit 1 if something lacks one, or if a form belongs to nothing

A template is the text of an error as it stands in the code, with {0}, {1}, ... for what the code fills in. The code is not run:
``package_texts.py`` follows each text from the error back to where it is written.
"""

from __future__ import annotations

import ast
import json
import re
import sys
import tomllib
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from package_texts import PLACE, Package, Scope
from tokentape import errors
from tokentape.words.refusals import LETTERS, letters, templates

SOURCE = Path(__file__).resolve().parents[1] / "src" / "tokentape"
FOREIGN = SOURCE / "words" / "errors" / "foreign.toml"
"""Sentences of others: they are not in our code."""
CLASSES = {name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)}
SHOWN = ("phrase", "say")
"""Functions that show an error, and make none."""
PARTS = ("what", "why", "fix")

_START = re.compile(
    r"(tokentape( [a-z]+)?|make [a-z-]+|pip install|uv [a-z]+|ls|python -m [a-z_.]+|[A-Z_]+=\S+)(?=\s|$)"
)
_WORD = re.compile(r"[a-z]+[,;:.)]*|[(]\S*|\S+[,;:]|[A-Z][a-z]+\b.*")
"""What may be a word of a sentence: in lower case, in brackets, before a comma, or the first of a sentence."""
_JOINING = {"and", "has", "in", "is", "none", "of", "or", "to", "with", "without"}
"""Words that are the value of no option."""


def is_command(text: str) -> bool:
    """Whether the whole of a text is to be typed as it stands: an option, a command, or code.

    A command has no word in lower case but its own name and the value of an option: what has another is a sentence, or is
    taken for one, and then wants a form, be it the same text.
    """
    text = text.replace(PLACE, "{}")
    if (start := _START.match(text)) is not None:
        text = text[start.end() :]
    elif not text.startswith("-"):
        return re.match(r"tt\.\w+\([^;]*\)$", text) is not None
    before = ""
    for word in text.split():
        is_value = before.startswith("-") and "=" not in before and word.isalnum() and word not in _JOINING
        if _WORD.fullmatch(word) and not is_value:
            return False
        before = word
    return True


def found() -> dict[str, dict[str, str]]:
    """By room, the templates, and for each the place of an error that has it."""
    package = Package(SOURCE)
    rooms: dict[str, dict[str, str]] = {}
    for call, scope in package.calls():
        for value in _parts(call, scope):
            for text in package.texts(value, scope):
                template = _numbered(text)
                if letters(template) >= LETTERS and not is_command(text):
                    place = f"{scope.module.path.relative_to(SOURCE)}:{call.lineno}"
                    rooms.setdefault(scope.module.room, {}).setdefault(template, place)
    return rooms


def _parts(call: ast.Call, scope: Scope) -> list[ast.expr]:
    """What an error says: the arguments of a call that makes one."""
    words = {word.arg: word.value for word in call.keywords}
    name = getattr(call.func, "id", getattr(call.func, "attr", None))
    makes = name in CLASSES or ({"why", "fix"} <= set(words) and name not in SHOWN)
    if not makes or scope.module.path == SOURCE / "errors.py":
        return []
    return [*call.args[:1], *(words[part] for part in PARTS if part in words)]


def _numbered(text: str) -> str:
    parts = text.split(PLACE)
    return "".join(part + (f"{{{i}}}" if i < len(parts) - 1 else "") for i, part in enumerate(parts))


def main() -> int:
    rooms, known = found(), templates()
    if "--room" in sys.argv:
        room = sys.argv[sys.argv.index("--room") + 1]
        for template, place in sorted(rooms.get(room, {}).items()):
            if template not in known:
                print(f"{json.dumps(template, ensure_ascii=False)} =   # {place}")
        return 0
    missing = {room: sorted(set(of_it) - set(known)) for room, of_it in rooms.items()}
    for room, of_it in sorted(missing.items()):
        print(f"{room}: {len(rooms[room])} templates, {len(of_it)} without a Chinese form")
    others = tomllib.loads(FOREIGN.read_text("utf-8"))
    stale = sorted(set(known) - set().union(*rooms.values()) - set(others))
    for template in stale:
        print(f"belongs to nothing: {template}")
    return int("--check" in sys.argv and (any(missing.values()) or bool(stale)))


if __name__ == "__main__":
    sys.exit(main())
