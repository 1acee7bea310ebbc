"""``tokentape answer``: let a model answer questions about a text, and record it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import click

from tokentape.cli.prompts import stdin_text
from tokentape.cli.sections import SectionedCommand, in_section
from tokentape.cli.tasks_options import (
    asked_options,
    asked_records,
    free_path,
    in_column,
    local_source,
    report,
    show_prompts,
    told_partial,
    with_options,
    working,
)
from tokentape.errors import UsageError

__all__ = ["command"]

EPILOG = """\b
Examples:
  tokentape answer demo "Where is Tom?" --context story.txt
  tokentape answer ./my-model --file questions.jsonl --template passage --span words
  tokentape answer ./my-model --file lambada.jsonl --template cloze
"""

_context = partial(in_section, "Context")
_CONTEXT = [
    _context(
        "--context",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="The text that all questions are about; - reads stdin.",
    ),
    _context(
        "--span",
        type=click.Choice(["words", "characters"]),
        help="Constrain each answer to a part of its context, cut between words or anywhere.",
    ),
]


@click.command("answer", cls=SectionedCommand, epilog=EPILOG)
@click.argument("model")
@click.argument("question", nargs=-1)
@with_options("answer", *_CONTEXT)
def command(**given: Any) -> None:
    """Let MODEL answer QUESTION about a text, by a prompt template.

    The answer goes to stdout, one line for each question, everything else to stderr. QUESTION - reads stdin. In a .jsonl file the
    fields are question, context and answer (or answers, any of which is right), the last where there are references: then exact
    match, and exact match and F1 as in SQuAD, are told, with n and 95 % intervals. With --template cloze a text alone is enough:
    its last word is the answer.
    """
    from tokentape.tasks.answer import answer, answer_prompts
    from tokentape.tasks.templates import load_template

    template = load_template(given["template"], "answer")
    records = asked_records("answer", given["question"], given, last_word=template.last_word)
    questions, contexts = in_column(records, "question"), _contexts(in_column(records, "context"), given)
    asked = questions[0] if given["question"] and questions else questions
    prompts = answer_prompts(template, asked, contexts)[1]
    if given["show_prompt"]:
        show_prompts(prompts)
        return
    options, seed = asked_options(given)
    path = free_path(given, "answer")
    source = local_source(given)
    with told_partial(path), working("answering", given) as progress:
        found = answer(
            source,
            asked,
            context=contexts,
            template=template,
            span=given["span"],
            references=records.references,
            batch_size=given["batch_size"],
            path=path,
            overwrite=given["overwrite"],
            seed=seed,
            progress=progress,
            **options,
        )
    report("answer", found, found.texts, given)


def _contexts(column: list[str] | None, given: Mapping[str, Any]) -> str | list[str] | None:
    """The context of each record, or the one that is given for all."""
    path = given["context"]
    if path is None:
        return column
    if column is not None:
        raise UsageError(
            f"--context, and {given['file']} has its own", why="they may differ", fix="leave out --context"
        )
    if path == Path("-"):
        return stdin_text().rstrip("\n")
    from tokentape.tasks.records import read_lines

    text = "\n".join(read_lines(path))
    if not text.strip():
        raise UsageError(f"{path} is empty", why="there is nothing to ask about", fix="put a text in it")
    return text
