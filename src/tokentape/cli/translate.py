"""``tokentape translate``: let a model translate, and record it."""

from __future__ import annotations

from functools import partial
from typing import Any

import click

from tokentape.cli.sections import SectionedCommand, in_section
from tokentape.cli.tasks_options import (
    asked_options,
    asked_records,
    free_path,
    local_source,
    report,
    required,
    show_prompts,
    told_partial,
    with_options,
    working,
)

__all__ = ["command"]

EPILOG = """\b
Examples:
  tokentape translate demo "The cat sat on the mat." --from en --to zh
  tokentape translate ./my-model --file pairs.jsonl --from en --to fr --template pair-examples
  tokentape translate ./my-model --file english.txt --references french.txt --from en --to fr
"""

_language = partial(in_section, "Languages")
_LANGUAGES = [
    _language("--from", "from_", metavar="CODE", help="The language of the text: en, zh, fr, ..."),
    _language("--to", metavar="CODE", help="The language to translate into."),
]


@click.command("translate", cls=SectionedCommand, epilog=EPILOG)
@click.argument("model")
@click.argument("text", nargs=-1)
@with_options("translate", *_LANGUAGES)
def command(**given: Any) -> None:
    """Let MODEL translate TEXT, by a prompt template.

    The translation goes to stdout, one line for each input, everything else to stderr. TEXT - reads stdin. In a .jsonl file the
    fields are source and target, the second where there are references: then exact match, chrF and BLEU are told, with n and 95 %
    intervals.
    """
    from tokentape.tasks.references import require_sacrebleu
    from tokentape.tasks.templates import load_template
    from tokentape.tasks.translate import translate, translation_prompts

    template = load_template(given["template"], "translate")
    records = asked_records("translate", given["text"], given)
    texts = required(records, "translate")
    prompts = translation_prompts(template, texts, given["from_"], given["to"])
    if given["show_prompt"]:
        show_prompts(prompts)
        return
    options, seed = asked_options(given)
    if records.references is not None:
        require_sacrebleu()
    path = free_path(given, "translate")
    source = local_source(given)
    with told_partial(path), working("translating", given) as progress:
        found = translate(
            source,
            texts,
            from_=given["from_"],
            to=given["to"],
            template=template,
            references=records.references,
            batch_size=given["batch_size"],
            path=path,
            overwrite=given["overwrite"],
            seed=seed,
            progress=progress,
            **options,
        )
    report("translate", found, found.texts, given)
