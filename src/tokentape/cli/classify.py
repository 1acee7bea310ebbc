"""``tokentape classify``: put texts under one of several labels."""

from __future__ import annotations

from functools import partial
from typing import Any

import click

from tokentape.cli.sections import SectionedCommand, in_section
from tokentape.cli.tasks_options import (
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
  tokentape classify demo "The soup was really excellent."
  tokentape classify demo "The soup was really excellent." --template topic
  tokentape classify ./my-model --file reviews.jsonl --labels good,bad --normalize pmi
"""

_labels = partial(in_section, "Labels")
_LABELS = [
    _labels("--labels", metavar="A,B,...", help="The labels. Default: those of the template."),
    _labels(
        "--normalize",
        type=click.Choice(["sum", "token", "character", "byte", "pmi", "calibrated"]),
        default="sum",
        show_default=True,
        help="What the log-probability of a label is divided by or held against.",
    ),
]


@click.command("classify", cls=SectionedCommand, epilog=EPILOG)
@click.argument("model")
@click.argument("text", nargs=-1)
@with_options("classify", *_LABELS)
def command(**given: Any) -> None:
    """Put TEXT under one of several labels: the one that MODEL finds the likeliest behind the prompt.

    The label goes to stdout, one line for each input, everything else to stderr. TEXT - reads stdin. In a .jsonl file the
    fields are text and label, the second where there are references: then accuracy, F1 and calibration error are told, with n
    and 95 % intervals. Nothing is generated, so nothing but a label can come out.
    """
    from tokentape.tasks.classify import classify, label_prompts, named_labels, right_labels
    from tokentape.tasks.templates import load_template
    from tokentape.views.tasks_text import labels_text

    template = load_template(given["template"], "classify")
    labels = named_labels(template, None if given["labels"] is None else given["labels"].split(","))
    records = asked_records("classify", given["text"], given)
    texts = required(records, "classify")
    prompts = label_prompts(template, texts, labels)
    if given["show_prompt"]:
        show_prompts(prompts)
        return
    right_labels(records.references, len(texts), labels)
    path = free_path(given, "classify")
    source = local_source(given)
    with told_partial(path), working("classifying", given) as progress:
        found = classify(
            source,
            texts,
            labels=labels,
            template=template,
            normalize=given["normalize"],
            references=records.references,
            batch_size=given["batch_size"],
            path=path,
            overwrite=given["overwrite"],
            progress=progress,
        )
    only = partial(labels_text, found.items[0], found.normalization) if len(found.items) == 1 else None
    report("classify", found, found.predicted, given, only)
