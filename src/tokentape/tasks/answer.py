"""``answer``: questions about a text, by a prompt template; where asked, in the text's own words alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokentape.errors import UsageError
from tokentape.recorder.tick import Source
from tokentape.tasks.generation import Answers, Keep, answers_of, generated, options_of
from tokentape.tasks.inputs import references_of, texts_of
from tokentape.tasks.references import answer_figures
from tokentape.tasks.templates import Template, load_template

if TYPE_CHECKING:
    from tokentape.control.rule import Control

__all__ = ["SPANS", "answer", "answer_prompts", "span_grammar"]

SPANS = ("words", "characters")
"""What a span is made of: whole words; any characters, for writing without spaces between words."""

_SUBSTRING = {"words": "substring_words", "characters": "substring_chars"}


def answer(
    source: Source,
    question: str | Sequence[str] | None = None,
    *,
    context: str | Sequence[str] | None = None,
    template: str | Path | Template | None = None,
    span: str | None = None,
    references: Sequence[str | Sequence[str]] | None = None,
    batch_size: int = 32,
    path: str | Path | None = None,
    overwrite: bool = False,
    seed: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    **options: Any,
) -> Answers:
    """Let ``source`` answer a question, or a list of them, and record it.

    ``context`` is a text for all questions, or a list of one for each; ``template`` the name of a shipped template or a file,
    which may want one of the two alone. ``span`` (``"words"`` or ``"characters"``) constrains an answer to a part of its
    context, by a grammar. With ``references``, one right answer for each question or several, exact match and the exact match
    and F1 of SQuAD are told. ``options`` are those of ``generate()``; unless they say otherwise the search is greedy, up to the
    template's limit.

    Raises UsageError for what contradicts the template and for references of another number, PromptError for a context that
    does not fit the model.
    """
    chosen = load_template(template, "answer")
    contexts, prompts = answer_prompts(chosen, question, context)
    right = references_of(references, len(prompts))
    notes = {"job": "answer", "template": chosen.name, "span": span}
    keep = Keep(path, overwrite, notes=notes)
    tape = generated(
        source,
        prompts,
        options_of(chosen, options),
        keep=keep,
        batch_size=batch_size,
        seed=seed,
        rules=_spans(chosen, contexts, span),
        progress=progress,
    )
    return answers_of("answer", chosen, prompts, tape, right, lambda texts: answer_figures(texts, right))


def answer_prompts(
    template: Template, question: str | Sequence[str] | None, context: str | Sequence[str] | None
) -> tuple[list[str | None], list[str]]:
    """The context of each question, and the prompts as the model reads them; one text stands for all of a list of the other.

    Raises UsageError where the template has no slot for what is given or lacks what it needs, and for lists of unequal length.
    """
    given = {name: value for name, value in (("question", question), ("context", context)) if value is not None}
    template.check_given(dict.fromkeys(given, ""))
    texts = {name: texts_of(value, name) for name, value in given.items()}
    lists = {name: len(texts[name]) for name, value in given.items() if not isinstance(value, str)}
    if len(set(lists.values())) > 1:
        raise UsageError(
            f"{lists['question']} questions and {lists['context']} contexts",
            why="each question is asked about the context at its place",
            fix="give one context for all questions, or one for each, in the same order",
        )
    n = next(iter(lists.values()), 1)
    rows = [{name: found[i if name in lists else 0] for name, found in texts.items()} for i in range(n)]
    return [row.get("context") for row in rows], [template.fill(**row) for row in rows]


def span_grammar(template: Template, context: str, span: str = "words") -> str:
    """The grammar, in the Lark dialect of llguidance, of answers that are a part of ``context`` as they follow the prompt.

    Behind the part the answer may end, by the end of the text or by one of the template's stops.
    """
    before, after = (json.dumps(part, ensure_ascii=False) for part in template.follow("\0").split("\0"))
    stops = " | ".join(json.dumps(stop, ensure_ascii=False) for stop in template.stop)
    lines = [
        f"start: {before} SPAN {after}{' stop?' * bool(stops)}",
        "SPAN: PART & SOME",
        f"PART: %regex {json.dumps({_SUBSTRING[span]: context}, ensure_ascii=False)}",
        "SOME: /(?s:.+)/",
    ]
    return "\n".join([*lines, f"stop: {stops}"] if stops else lines)


def _spans(
    template: Template, contexts: Sequence[str | None], span: str | None
) -> Callable[[int], Sequence[Control]] | None:
    """The rules of each question: that its answer is a part of its context."""
    if span is None:
        return None
    if span not in SPANS:
        raise UsageError(f"no span of {span!r}", why=f"there are {', '.join(SPANS)}", fix="span='words'")
    if None in contexts:
        raise UsageError(
            "a span of no context",
            why=f"the template {template.name} has no slot {{context}}, or nothing was given for it",
            fix="--context FILE, or leave --span out",
        )
    from tokentape.control.grammar.grammar import Grammar

    return lambda place: [Grammar.lark(span_grammar(template, contexts[place] or "", span))]
