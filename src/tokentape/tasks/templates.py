"""Prompt templates: TOML files that say how a job is put to a model, and how its answer is read."""

from __future__ import annotations

import re
import string
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from tokentape.errors import UsageError

__all__ = ["DEFAULTS", "FOLDER", "JOBS", "Job", "Template", "load_template", "shipped"]

FOLDER = Path(__file__).parent / "templates"
"""Where the shipped templates lie, to be read and copied."""

LANGUAGES = "languages"
"""The one file of that folder that is no template."""


@dataclass(frozen=True, slots=True)
class Job:
    """What the templates of a job may say.

    ``slots`` are what a prompt may name; of ``needed`` it has to name one, or what is asked would not reach the model. ``shared``
    slots hold for the examples too, the others each example fills itself, and ``answer`` is what its answer is called there.
    ``keys`` are those of the file, besides the ones of every job.
    """

    slots: tuple[str, ...]
    needed: tuple[str, ...]
    shared: tuple[str, ...]
    answer: str
    keys: tuple[str, ...]


_GENERATES = ("stop", "max_new_tokens")
JOBS: Mapping[str, Job] = {
    "translate": Job(("text", "from", "to"), ("text",), ("from", "to"), "answer", (*_GENERATES, "languages")),
    "classify": Job(("text", "labels"), ("text",), ("labels",), "label", ("labels", "domain", "content_free")),
    "answer": Job(("question", "context"), ("question", "context"), (), "answer", (*_GENERATES, "last_word")),
}
DEFAULTS: Mapping[str, str] = {"translate": "pair", "classify": "sentiment", "answer": "story"}

_KEYS = ("job", "about", "prompt", "answer", "separator", "examples")
_TYPES: Mapping[str, tuple[type, str]] = {
    **dict.fromkeys(("job", "about", "prompt", "answer", "separator", "domain"), (str, "a text")),
    **dict.fromkeys(("stop", "labels", "content_free"), (list, "a list of texts")),
    "examples": (list, "a list of tables"),
    "languages": (dict, "a table of code = name"),
    "max_new_tokens": (int, "a whole number from 1 on"),
    "last_word": (bool, "true or false"),
}
_WORD = re.compile(r"\w+(?:['’\-]\w+)*")


@dataclass(frozen=True, slots=True)
class Template:
    """How a job is put to a model.

    ``prompt`` has slots in braces, filled by :meth:`fill`; ``answer`` says how an answer follows it, which decides where the
    space between the two belongs. ``examples`` are put before the prompt, each with its answer. A generated answer ends at the
    first of the ``stop`` texts; with ``last_word`` it is the first word alone. ``domain`` and ``content_free`` are what labels are
    calibrated by: a prompt that names the domain alone, and texts that say nothing.
    """

    name: str
    job: str
    where: str
    prompt: str
    about: str = ""
    answer: str = " {answer}"
    separator: str = "\n\n"
    examples: tuple[Mapping[str, str], ...] = ()
    stop: tuple[str, ...] = ("\n",)
    max_new_tokens: int = 100
    last_word: bool = False
    languages: Mapping[str, str] = field(default_factory=dict)
    labels: tuple[str, ...] = ()
    domain: str | None = None
    content_free: tuple[str, ...] = ("N/A",)

    @property
    def slots(self) -> frozenset[str]:
        """The slots that the prompt names."""
        return frozenset(_slots(self.prompt))

    def fill(self, examples: Sequence[Mapping[str, str]] | None = None, /, **values: str) -> str:
        """The prompt with its slots filled, after the examples: the template's own unless others are given."""
        job = JOBS[self.job]
        shared = {name: values[name] for name in job.shared if name in values}
        parts = []
        for example in self.examples if examples is None else examples:
            filled = {**shared, **example}
            parts.append(self.prompt.format_map(filled) + self.follow(filled[job.answer]))
        return self.separator.join([*parts, self.prompt.format_map(values)])

    def follow(self, answer: str) -> str:
        """An answer as it follows the prompt, space included."""
        return self.answer.format_map({"answer": answer})

    def read(self, text: str) -> str:
        """The answer in what a model said: up to the first stop, without the space around it."""
        ends = [at for at in (text.find(stop) for stop in self.stop) if at >= 0]
        text = text[: min(ends)] if ends else text
        if self.last_word:
            word = _WORD.search(text)
            return word.group() if word else ""
        return text.strip()

    def language(self, code: str) -> str:
        """What a language is called in the prompt. Raises UsageError for a code that no table has."""
        if code in self.languages:
            return self.languages[code]
        raise UsageError(
            f"unknown language code {code!r}",
            why=f"the template {self.name} knows {', '.join(sorted(self.languages))}",
            fix=f'one of these, or a template of your own with [languages] {code} = "..."; {self.where} is one to copy',
        )

    def check_given(self, given: Mapping[str, str]) -> None:
        """Raise UsageError where a slot of the prompt has no value, or a value no slot."""
        names = {name: name if name in ("text", "question") else f"--{name}" for name in JOBS[self.job].slots}
        for name in sorted(self.slots - given.keys()):
            raise UsageError(
                f"no {name} was given",
                why=f"the prompt of the template {self.name} has a slot {{{name}}}",
                fix=f"give {names[name]}, or another --template: --template list",
            )
        for name in sorted(given.keys() - self.slots):
            raise UsageError(
                f"a {name} was given, and the template {self.name} has no slot {{{name}}}",
                why="it would not reach the model",
                fix=f"leave {names[name]} out, or another --template: --template list",
            )


def shipped(job: str | None = None) -> list[Template]:
    """The templates that come with the package, of one job or of all, the default of a job first."""
    found = [_shipped(path.stem) for path in sorted(FOLDER.glob("*.toml")) if path.stem != LANGUAGES]
    chosen = [template for template in found if job in (None, template.job)]
    return sorted(chosen, key=lambda template: (template.job, template.name != DEFAULTS[template.job]))


def load_template(given: str | Path | Template | None, job: str) -> Template:
    """The template of that name, or in that file; None is the default of the job.

    Raises UsageError for a name that does not exist, a file that cannot be read or is no TOML, a template of another job, unknown
    keys, and slots that are missing or unknown.
    """
    template = given if isinstance(given, Template) else _found(given, job)
    if template.job != job:
        raise UsageError(
            f"the template {template.name} is for {template.job}, not for {job}",
            why=f'{template.where} says job = "{template.job}"',
            fix=f"tokentape {template.job}, or one of {_names(job)}",
        )
    return template


def _found(given: str | Path | None, job: str) -> Template:
    name = DEFAULTS[job] if given is None else str(given)
    path = Path(name)
    if path.suffix == ".toml" or len(path.parts) > 1:
        return _read(path)
    if name != LANGUAGES and (FOLDER / f"{name}.toml").is_file():
        return _shipped(name)
    raise UsageError(
        f"no template {name!r}",
        why=f"for {job} there are {_names(job)}; a file is told by its ending .toml",
        fix=f"--template {DEFAULTS[job]}, or --template FILE.toml",
    )


def _names(job: str) -> str:
    return ", ".join(template.name for template in shipped(job))


@cache
def _shipped(name: str) -> Template:
    return _read(FOLDER / f"{name}.toml")


def _read(path: Path) -> Template:
    table = _table(path)
    job = table.get("job")
    if not isinstance(job, str) or job not in JOBS:
        raise _bad(path, f"job = {job!r}", f"a template is for one of {', '.join(JOBS)}", 'job = "translate"')
    _check_keys(path, table, (*_KEYS, *JOBS[job].keys))
    if "prompt" not in table:
        raise _bad(path, "no prompt in it", "the prompt is what the model reads", 'prompt = "{text}\\n"')
    _check_slots(path, job, "prompt", table["prompt"], JOBS[job].slots)
    if not set(JOBS[job].needed) & set(_slots(table["prompt"])):
        needed = " or ".join(f"{{{name}}}" for name in JOBS[job].needed)
        raise _bad(
            path, f"the prompt has no slot {needed}", "what is asked would not reach the model", f"put {needed} in it"
        )
    _check_slots(path, job, "domain", table.get("domain", ""), JOBS[job].shared)
    _check_slots(path, job, "answer", table.get("answer", "{answer}"), ("answer",))
    if "{answer}" not in table.get("answer", "{answer}"):
        raise _bad(
            path, "answer has no slot {answer}", "it says how an answer follows the prompt", 'answer = " {answer}"'
        )
    _check_examples(path, job, table)
    if job == "translate":
        table["languages"] = {**_table(FOLDER / f"{LANGUAGES}.toml"), **table.get("languages", {})}
    lists = ("examples", "stop", "labels", "content_free")
    values: dict[str, Any] = {key: tuple(value) if key in lists else value for key, value in table.items()}
    return Template(name=path.stem, where=str(path), **values)


def _table(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(
            f"{path} cannot be read",
            why=error.strerror or str(error),
            fix=f"the path of a template; the shipped ones are in {FOLDER}",
        ) from error
    except ValueError as error:  # of TOML, and of UTF-8
        raise _bad(path, "not TOML", str(error), f"see {FOLDER / 'pair.toml'} for the form") from error


def _check_keys(path: Path, table: Mapping[str, Any], known: Sequence[str]) -> None:
    for key, value in table.items():
        if key not in known:
            raise _bad(path, f"unknown key {key!r}", f"its keys are {', '.join(known)}", f"leave {key} out")
        kind, spoken = _TYPES[key]
        entries = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        inner = dict if key == "examples" else str
        right = isinstance(value, kind) and isinstance(value, bool) == (kind is bool)
        if not right or not all(isinstance(entry, inner) for entry in entries) or (kind is int and value < 1):
            raise _bad(path, f"{key} = {value!r}", f"{key} is {spoken}", f"give {spoken}")


def _slots(text: str) -> list[str]:
    """Names in braces, whatever else they ask for (``{text!r}``) left on. Raises ValueError for a brace that is alone."""
    found = []
    for _, name, spec, conversion in string.Formatter().parse(text):
        if name is not None:
            found.append(name + (f"!{conversion}" if conversion else "") + (f":{spec}" if spec else ""))
    return found


def _check_slots(path: Path, job: str, key: str, text: str, known: Sequence[str]) -> None:
    try:
        named = _slots(text)
    except ValueError as error:
        raise _bad(path, f"{key}: {error}", "braces hold slots", "write {{ and }} for braces of the text") from error
    for slot in named:
        if slot not in known:
            slots = ", ".join(f"{{{name}}}" for name in known) or "none"
            raise _bad(
                path, f"{key} has an unknown slot {{{slot}}}", f"for {job} it may have {slots}", "name one of these"
            )


def _check_examples(path: Path, job: str, table: Mapping[str, Any]) -> None:
    """Every example has what the prompt asks of it. Those of translate are by language, and held against the pair later."""
    form = JOBS[job]
    wanted = {*_slots(table["prompt"]), form.answer} - {*form.shared}
    for number, example in enumerate(table.get("examples", ()), 1):
        for key, value in example.items():
            if not isinstance(value, str):
                raise _bad(
                    path, f"example {number}: {key} = {value!r}", "what fills a slot is a text", f'{key} = "..."'
                )
        if job == "translate":
            continue
        for slot in sorted(wanted - example.keys()):
            raise _bad(path, f"example {number} has no {slot}", f"the prompt has a slot {{{slot}}}", f'{slot} = "..."')


def _bad(path: Path, what: str, why: str, fix: str) -> UsageError:
    return UsageError(f"{path}: {what}", why=why, fix=fix)
