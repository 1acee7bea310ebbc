"""Where the prompt of ``tokentape record`` comes from: the command line, a file, stdin, ids."""

from __future__ import annotations

import json
import random
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokentape.errors import PromptError, UsageError

__all__ = ["Asked", "one_text", "read_prompt", "read_text", "stdin_text"]

_NOTHING = "without a token before it there is nothing to condition the first one on"
_SOMETHING = "give a text, or --bos alone to start from nothing"


@dataclass(frozen=True, slots=True)
class Asked:
    """What was given on the command line; at most one of these is the prompt. ``server`` is whether a server is asked."""

    words: tuple[str, ...] = ()
    file: Path | None = None
    prompts: Path | None = None
    ids: str | None = None
    n_random: int | None = None
    bos: bool = False
    seed: int | None = None
    server: bool = False

    def for_source(self, prompt: Any, vocab_size: int) -> Any:
        """The prompt for ``record``; random ids need the size of the vocabulary, known only now."""
        if self.n_random is None:
            return prompt
        drawn = random.Random(self.seed or 0)
        return [drawn.randrange(vocab_size) for _ in range(self.n_random)]


def read_prompt(asked: Asked) -> str | list[int] | list[str] | list[list[int]]:
    """The prompt, or the prompts of a batch. Raises UsageError where there is none, or more than one."""
    given = {
        "PROMPT": bool(asked.words),
        "-f": asked.file is not None,
        "--prompts": asked.prompts is not None,
        "--prompt-ids": asked.ids is not None,
        "--prompt-tokens": asked.n_random is not None,
    }
    names = [name for name, there in given.items() if there]
    if len(names) > 1:
        raise UsageError(f"{' and '.join(names)} together", why="there is one prompt", fix=f"leave out {names[-1]}")
    if not names and not asked.bos:
        raise UsageError(
            "no prompt was given",
            why="the model needs something to continue",
            fix='tokentape record MODEL "a prompt"; or -f FILE, - (stdin), --prompts FILE, or --bos alone',
        )
    if asked.words:
        return _from_words(asked.words, server=asked.server)
    if asked.file is not None:
        return _whole(read_text(asked.file), str(asked.file))
    if asked.prompts is not None:
        return _many(read_text(asked.prompts), asked.prompts)
    if asked.ids is not None:
        return _ids(asked.ids)
    return [] if asked.n_random is not None else ""


def _from_words(words: Sequence[str], *, server: bool) -> str:
    if server:
        why = "no model stands before the prompt of a server: that is --served-model NAME"
        text = one_text(words, "prompt", "tokentape record --endpoint URL", why)
    else:
        text = one_text(words, "prompt", "tokentape record MODEL")
    if words[0] == "-":
        return _whole(text, "stdin")
    if not text:
        raise PromptError("the prompt is empty", why=_NOTHING, fix=_SOMETHING)
    return text


def one_text(words: Sequence[str], noun: str, command: str, why: str = "the shell splits at spaces") -> str:
    """The one text that the words of a command line are: itself, or stdin for ``-``. Raises UsageError for several."""
    if len(words) > 1:
        together = " ".join(words)
        raise UsageError(
            f"the {noun} came as {len(words)} arguments: {together[:60]}",
            why=why,
            fix=f"put the {noun} in quotes: {command} {shlex.quote(together)}",
        )
    return stdin_text() if words[0] == "-" else words[0]


def stdin_text() -> str:
    """All of stdin. Raises PromptError for what is not UTF-8."""
    try:
        return sys.stdin.buffer.read().decode()
    except UnicodeDecodeError as error:
        raise PromptError(
            "stdin is not UTF-8", why=str(error), fix="iconv -f LATIN1 -t UTF-8, if it is Latin-1"
        ) from error


def read_text(path: Path) -> str:
    """The text of a file, or of stdin for ``-``. Raises UsageError and PromptError for what cannot be read or is no UTF-8."""
    if str(path) == "-":
        return stdin_text()
    from tokentape.tasks.texts import read_text as read

    return read(path)


def _whole(text: str, name: str) -> str:
    """A text without the one line end that editors and ``echo`` put behind it."""
    text = text.removesuffix("\n").removesuffix("\r")
    if not text:
        raise PromptError(f"{name} is empty", why=_NOTHING, fix=_SOMETHING)
    return text


def _many(text: str, path: Path) -> list[Any]:
    """One prompt a line; or JSONL: a text, ids, or an object with one of them under ``prompt`` or ``text``."""
    lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if not lines:
        raise PromptError(f"{path} has no prompts", why="every line is empty", fix="put one prompt on each line")
    if path.suffix not in (".jsonl", ".ndjson"):
        return [line for _, line in lines]
    found = [_from_json(line, f"{path}, line {number}") for number, line in lines]
    if len({isinstance(prompt, str) for prompt in found}) > 1:
        raise PromptError(f"{path} has texts and ids", why="a batch is one or the other", fix="split it into two files")
    return found


def _from_json(line: str, where: str) -> Any:
    try:
        value = json.loads(line)
    except ValueError as error:
        raise PromptError(
            f"{where}: not JSON", why=str(error), fix='{"prompt": "..."}; or a .txt file, one prompt a line'
        ) from error
    if isinstance(value, dict):
        value = value.get("prompt", value.get("text"))
    if isinstance(value, str) and value:
        return value
    if isinstance(value, list) and value and all(isinstance(i, int) and not isinstance(i, bool) for i in value):
        return value
    raise PromptError(f"{where}: no prompt in it", why="a prompt is a text or a list of ids", fix='{"prompt": "..."}')


def _ids(text: str) -> list[int]:
    try:
        ids = [int(part) for part in text.replace(",", " ").split()]
    except ValueError as error:
        raise PromptError(
            f"--prompt-ids {text[:60]}: not all are numbers", why=str(error), fix="--prompt-ids 1,306,4658"
        ) from error
    if not ids:
        raise PromptError("--prompt-ids is empty", why=_NOTHING, fix="--prompt-ids 1,306,4658")
    return ids
