"""``classify``: texts under one of several labels, by how likely a model finds each label behind a prompt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokentape.data.tape import Tape
from tokentape.errors import UsageError
from tokentape.recorder.probes import tier
from tokentape.recorder.recorder import Recorder
from tokentape.tasks.generation import Keep
from tokentape.tasks.inputs import references_of, texts_of
from tokentape.tasks.labels import (
    NORMALIZATIONS,
    Continuation,
    Scored,
    baseline_of,
    check_labels,
    scored,
    tokenised,
)
from tokentape.tasks.references import Figure, label_figures
from tokentape.tasks.templates import Template, load_template

if TYPE_CHECKING:
    from tokentape.sources.local import LocalSource

__all__ = ["Classified", "classify", "label_prompts", "named_labels", "right_labels"]

NOTE = "classify"
"""Under which name the options of a run say what its traces are: the texts' labels, or those of the baseline."""

SEPARATOR = ", "
"""Between the labels in the slot {labels}."""


@dataclass(frozen=True)
class Classified:
    """The label of each text, in order, with what every label got, and the tape of it: a trace for each label of each text.

    ``baseline`` ``[L]`` in nats is what the labels were held against; None where the normalisation holds them against nothing.
    ``references`` are the right labels, and ``figures`` what they say; empty without any.
    """

    template: str
    labels: tuple[str, ...]
    normalization: str
    prompts: tuple[str, ...]
    items: tuple[Scored, ...]
    tape: Tape
    baseline: tuple[float, ...] | None = None
    references: tuple[str, ...] = ()
    figures: tuple[Figure, ...] = ()

    @property
    def predicted(self) -> tuple[str, ...]:
        """The label of each text."""
        return tuple(item.label for item in self.items)

    def as_dict(self) -> dict[str, Any]:
        """As plain values, with an entry for each text."""
        items = []
        # the traces of the baseline come before those of the texts
        first = len(self.tape.traces) - len(self.items) * len(self.labels)
        for number, (prompt, item) in enumerate(zip(self.prompts, self.items, strict=True)):
            rows = zip(item.labels, item.continuations, item.scores, item.probabilities, strict=True)
            labels = [
                {
                    "label": label,
                    "trace": first + number * len(self.labels) + place,
                    "logprob": each.logprob,
                    "n_tokens": len(each.ids),
                    "score": score,
                    "probability": share,
                }
                for place, (label, each, score, share) in enumerate(rows)
            ]
            found: dict[str, Any] = {"prompt": prompt, "label": item.label, "margin": item.margin}
            found["merged"] = any(each.merged for each in item.continuations)
            if self.references:
                found["reference"] = self.references[number]
            items.append({**found, "labels": labels})
        return {
            "job": "classify",
            "template": self.template,
            "labels": list(self.labels),
            "normalization": self.normalization,
            "baseline": None if self.baseline is None else list(self.baseline),
            "items": items,
            "figures": [figure.as_dict() for figure in self.figures],
        }


def classify(
    source: LocalSource,
    text: str | Sequence[str],
    *,
    labels: Sequence[str] | None = None,
    template: str | Path | Template | None = None,
    normalize: str = "sum",
    references: Sequence[str | Sequence[str]] | None = None,
    batch_size: int = 32,
    path: str | Path | None = None,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Classified:
    """Put a text, or each of a list, under one of ``labels``: the one that is the likeliest continuation of the prompt.

    Nothing is generated, so nothing but a label can come out; each label behind its prompt is recorded. ``labels`` are the
    template's own unless given; ``template`` is the name of a shipped template or a file; ``normalize`` is one of
    :data:`~tokentape.tasks.labels.NORMALIZATIONS`. With ``references``, the right label of each text, accuracy, F1 and the
    expected calibration error are told.

    Raises UsageError for labels that are equal, empty or become no token, for references that are no labels or of another
    number, and for a source whose log-probabilities cannot be asked for; PromptError for a text that does not fit the model.
    """
    chosen = load_template(template, "classify")
    texts = texts_of(text)
    named = named_labels(chosen, labels)
    right = right_labels(references, len(texts), named)
    if normalize not in NORMALIZATIONS:
        raise UsageError(
            f"no normalisation {normalize!r}", why=f"there are {', '.join(NORMALIZATIONS)}", fix="--normalize sum"
        )
    if getattr(source, "causal", None) is None:
        raise UsageError(
            f"{type(source).__name__} cannot score labels",
            why="that needs the log-probability of a text that the model did not choose",
            fix="a model in this process: tokentape.local(...)",
        )
    prompts = label_prompts(chosen, texts, named)
    neutral = _neutral_prompts(chosen, named, normalize, source)
    notes = {"job": "classify", "template": chosen.name, "labels": list(named), "normalization": normalize}
    keep = Keep(path, overwrite, notes=notes)
    rows, tape = _recorded(source, chosen, named, (neutral, prompts), keep, batch_size, progress)
    baseline = tuple(baseline_of(named, rows[0], normalize)) if neutral else None
    items = tuple(scored(named, row, normalize, baseline) for row in rows[1])
    result = Classified(chosen.name, named, normalize, tuple(prompts), items, tape, baseline, right)
    if not right:
        return result
    figures = label_figures(result.predicted, right, named, [item.probabilities for item in items])
    return replace(result, figures=tuple(figures))


def _recorded(
    source: LocalSource,
    template: Template,
    labels: tuple[str, ...],
    prompts: Sequence[Sequence[str | None]],
    keep: Keep,
    batch_size: int,
    progress: Callable[[int, int], None] | None,
) -> tuple[list[list[list[Continuation]]], Tape]:
    """The labels behind each prompt, ``[2][n][L]``: first those that say nothing of a text, then the texts'; and the tape."""
    from tokentape.tasks.label_passes import LabelPasses

    follows = [template.follow(label) for label in labels]
    # all of it before a file is made: what cannot be scored is refused here
    found = [tokenised(source, some, follows) for some in prompts]
    recorder = Recorder(
        keep.path,
        source.setting(),
        tier("timing"),
        source.clock,
        notes=keep.notes,
        overwrite=keep.overwrite,
    )
    known: list[list[list[Continuation]]] = []
    with recorder:
        for kind, some, row, told in zip(("baseline", "texts"), prompts, found, (None, progress), strict=True):
            if some:
                passes = LabelPasses(source, some, row, batch_size, {NOTE: kind})
                known.append(passes.record(recorder, told))
            else:
                known.append([])
    return known, recorder.tape


def label_prompts(template: Template, texts: Sequence[str], labels: Sequence[str]) -> list[str]:
    """The prompts as the model reads them. Raises UsageError for an example whose label is not among ``labels``."""
    for number, example in enumerate(template.examples, 1):
        if example["label"] not in labels:
            raise UsageError(
                f"{template.where}: example {number} has the label {example['label']!r}",
                why=f"the labels are {', '.join(labels)}",
                fix="--labels with those of the examples, or another --template: --template list",
            )
    shared = _shared(template, labels)
    return [template.fill(text=text, **shared) for text in texts]


def _shared(template: Template, labels: Sequence[str]) -> dict[str, str]:
    return {"labels": SEPARATOR.join(labels)} if "labels" in template.slots else {}


def named_labels(template: Template, given: Sequence[str] | None = None) -> tuple[str, ...]:
    """The labels that are given, or those of the template. Raises UsageError where there are none, and as ``check_labels`` does."""
    if given is not None:
        if isinstance(given, str):
            raise UsageError(f"labels={given!r}", why="labels are a list", fix='labels=["positive", "negative"]')
        return check_labels(given)
    if not template.labels:
        raise UsageError(
            "no labels were given",
            why=f"the template {template.name} has none of its own",
            fix="--labels positive,negative",
        )
    return check_labels(template.labels)


def right_labels(
    references: Sequence[str | Sequence[str]] | None, n_texts: int, labels: tuple[str, ...]
) -> tuple[str, ...]:
    """The right label of each text. Raises UsageError for one that is not among ``labels``, and for another number of them."""
    found = references_of(references, n_texts)
    several = next((number for number, one in enumerate(found) if len(one) > 1), None)
    if several is not None:
        raise UsageError(
            f"reference {several} has {len(found[several])} labels",
            why="one label is right for a text",
            fix="give one label for each text",
        )
    right = tuple(one[0] for one in found)
    unknown = next((number for number, label in enumerate(right) if label not in labels), None)
    if unknown is not None:
        raise UsageError(
            f"reference {unknown} is {right[unknown]!r}",
            why=f"the labels are {', '.join(labels)}",
            fix="--labels with all labels that the references have",
        )
    return right


def _neutral_prompts(
    template: Template, labels: tuple[str, ...], normalize: str, source: LocalSource
) -> Sequence[str | None]:
    """The prompts whose labels those of the texts are held against; none where against nothing."""
    if normalize == "calibrated":
        return label_prompts(template, template.content_free, labels)
    if normalize != "pmi":
        return []
    if template.domain is not None:
        return [template.domain.format_map({"labels": SEPARATOR.join(labels)})]
    if source.causal.bos_id is not None:
        return [None]
    raise UsageError(
        f"the template {template.name} has no domain",
        why="pmi holds the labels against a prompt without the text, and this model has no token that opens an empty one",
        fix=f'domain = "..." in a template of your own; {template.where} is one to copy',
    )
