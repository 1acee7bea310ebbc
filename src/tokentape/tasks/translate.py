"""``translate``: texts from one language into another, by a prompt template."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tokentape.errors import UsageError
from tokentape.recorder.tick import Source
from tokentape.tasks.generation import Answers, Keep, answers_of, generated, options_of
from tokentape.tasks.inputs import references_of, texts_of
from tokentape.tasks.references import require_sacrebleu, translation_figures
from tokentape.tasks.templates import Template, load_template

__all__ = ["translate", "translation_prompts"]


def translate(
    source: Source,
    text: str | Sequence[str],
    *,
    from_: str | None = None,
    to: str | None = None,
    template: str | Path | Template | None = None,
    references: Sequence[str | Sequence[str]] | None = None,
    batch_size: int = 32,
    path: str | Path | None = None,
    overwrite: bool = False,
    seed: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    **options: Any,
) -> Answers:
    """Let ``source`` translate a text, or a list of texts, and record it.

    ``from_`` and ``to`` are codes of languages (``"en"``, ``"zh"``); ``template`` the name of a shipped template or a file. With
    ``references``, one translation of each text or several, exact match, chrF and BLEU are told. ``options`` are those of
    ``generate()``; unless they say otherwise the search is greedy, up to the template's limit.

    Raises UsageError for unknown languages and templates and for references of another number, PromptError for a text that does not
    fit the model, MissingExtra where references are given and sacrebleu is not installed.
    """
    chosen = load_template(template, "translate")
    texts = texts_of(text)
    right = references_of(references, len(texts))
    if right:
        require_sacrebleu()
    prompts = translation_prompts(chosen, texts, from_, to)
    notes = {"job": "translate", "template": chosen.name, "from": from_, "to": to}
    keep = Keep(path, overwrite, notes=notes)
    tape = generated(
        source, prompts, options_of(chosen, options), keep=keep, batch_size=batch_size, seed=seed, progress=progress
    )
    return answers_of("translate", chosen, prompts, tape, right, lambda texts: translation_figures(texts, right, to))


def translation_prompts(template: Template, texts: Sequence[str], from_: str | None, to: str | None) -> list[str]:
    """The prompts as the model reads them. Raises UsageError for languages that are missing, unknown or the same."""
    codes = {name: code for name, code in (("from", from_), ("to", to)) if code is not None}
    template.check_given({**codes, "text": ""})
    if from_ is not None and from_ == to:
        raise UsageError(f"from {from_} to {to}", why="there is nothing to translate", fix="--from en --to zh")
    languages = {name: template.language(code) for name, code in codes.items()}
    examples = _examples(template, from_, to)
    return [template.fill(examples, text=text, **languages) for text in texts]


def _examples(template: Template, from_: str | None, to: str | None) -> list[Mapping[str, str]]:
    """The template's examples in these two languages."""
    if not template.examples:
        return []
    found: list[Mapping[str, str]] = [
        {"text": example[str(from_)], "answer": example[str(to)]}
        for example in template.examples
        if {from_, to} <= example.keys()
    ]
    if not found:
        codes = sorted({code for example in template.examples for code in example})
        raise UsageError(
            f"the template {template.name} has no example from {from_} to {to}",
            why=f"its examples are in {', '.join(codes)}",
            fix=f"--template pair, or a template of your own with examples in both; {template.where} is one to copy",
        )
    return found
