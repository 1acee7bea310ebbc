"""What the jobs gave, as text: figures against references, the labels of one text, the list of templates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from tokentape.views.screen import Screen, columns
from tokentape.views.text import folded
from tokentape.views.units import ABSENT
from tokentape.words.retold import retold

__all__ = ["figures_text", "labels_text", "templates_text"]


class FigureRow(Protocol):
    """One figure with its interval, as a job gives it."""

    @property
    def name(self) -> str: ...
    @property
    def label(self) -> str | None: ...
    @property
    def value(self) -> float | None: ...
    @property
    def low(self) -> float | None: ...
    @property
    def high(self) -> float | None: ...
    @property
    def n(self) -> int: ...
    @property
    def how(self) -> str: ...
    @property
    def unit(self) -> str: ...


class Continued(Protocol):
    """A label behind its prompt."""

    @property
    def logprob(self) -> float: ...
    @property
    def ids(self) -> Sequence[int]: ...
    @property
    def merged(self) -> bool: ...


class LabelRows(Protocol):
    """The labels of one text, as a job gives them."""

    @property
    def labels(self) -> Sequence[str]: ...
    @property
    def continuations(self) -> Sequence[Continued]: ...
    @property
    def scores(self) -> Sequence[float]: ...
    @property
    def probabilities(self) -> Sequence[float]: ...
    @property
    def margin(self) -> float: ...


class TemplateRow(Protocol):
    """A template, as far as a list shows it."""

    @property
    def name(self) -> str: ...
    @property
    def about(self) -> str: ...
    @property
    def prompt(self) -> str: ...


def figures_text(figures: Sequence[FigureRow], screen: Screen) -> str:
    """A line for each figure with its 95 % interval and n; below, how the scores of texts were taken."""
    rows = []
    for figure in figures:
        name = " ".join([_name(figure, screen), *([figure.label] if figure.label is not None else [])])
        interval = ABSENT
        if figure.low is not None and figure.high is not None:
            low, high = (_value(end, figure.unit) for end in (figure.low, figure.high))
            interval = screen.say("tasks.between", low=low, high=high)
        rows.append([name, _value(figure.value, figure.unit), interval, f"{figure.n:,}"])
    lines = columns(screen, ["", "", screen.say("tasks.interval"), "n"], rows, "<>>>", stretch=0)
    for figure in figures:
        signature = figure.how.partition("; ")[2]
        if signature:
            said = screen.say("tasks.how", name=_name(figure, screen), how=signature)
            lines += [screen.paint(line, "dim") for line in folded(said, screen.width)]
    return "\n".join(screen.safe(line) for line in lines)


def labels_text(found: LabelRows, normalization: str, screen: Screen) -> str:
    """A line for each label, the likeliest first: its share, its log-probability, its tokens, its score."""
    order = sorted(range(len(found.labels)), key=lambda i: -found.scores[i])
    rows = []
    for i in order:
        each = found.continuations[i]
        share = f"{found.probabilities[i]:.4f}"
        rows.append([found.labels[i], share, _nats(each.logprob), f"{len(each.ids)}", _nats(found.scores[i])])
    heads = [screen.say(f"tasks.{name}") for name in ("label", "share", "logprob", "tokens")]
    heads.append(screen.say("tasks.score", how=normalization))
    lines = columns(screen, heads, rows, "<>>>>", stretch=0)
    lines.append(screen.paint(screen.say("tasks.margin", value=f"{found.margin:.4f}"), "dim"))
    if any(each.merged for each in found.continuations):
        lines += [screen.paint(line, "yellow") for line in folded(screen.say("tasks.merged"), screen.width)]
    return "\n".join(screen.safe(line) for line in lines)


def templates_text(templates: Sequence[TemplateRow], default: str, folder: str, screen: Screen) -> str:
    """Each template: its name, what it is, its prompt; and where the files are, to be copied."""
    lines = []
    for template in templates:
        name = screen.paint(template.name, "bold")
        lines.append(screen.say("tasks.default", name=name) if template.name == default else name)
        about = retold(template.about, screen.lang, "tasks.about")
        shown = [about, *(f"| {line}" for line in template.prompt.split("\n"))]
        lines += [f"  {part}" for line in shown for part in folded(screen.safe(line), screen.width - 2)]
    lines += ["", *folded(screen.safe(screen.say("tasks.files", folder=folder)), screen.width)]
    return "\n".join(screen.safe(line) for line in lines)


def _name(figure: FigureRow, screen: Screen) -> str:
    return screen.say(f"tasks.figure.{figure.name}")


def _value(value: float | None, unit: str) -> str:
    if value is None:
        return ABSENT
    return f"{100 * value:.1f} %" if unit == "share" else f"{value:.1f}"


def _nats(value: float) -> str:
    return f"{value:.3f}".replace("-0.000", "0.000")
