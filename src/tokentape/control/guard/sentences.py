"""Sentences judged one by one by a classifier, as they end."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any

from tokentape.control.guard.watch import Finding, Heard
from tokentape.errors import RuleError, UsageError
from tokentape.models.runtime import require_transformers

__all__ = ["SentenceWatch", "name_of", "text_classifier"]

_CLOSERS = "\"'”’»)\\]」』"
_END = re.compile(rf"[.!?…]+[{_CLOSERS}]*(?=\s)|[。！？]+[{_CLOSERS}]*(?=[^。！？{_CLOSERS}])|(?=\n)")
_OVER = re.compile(rf"[.!?…。！？][{_CLOSERS}]*\Z")


class SentenceWatch:
    """Finds the sentences of which a classifier says at least ``threshold``; each is held back until it has ended and is judged.

    A sentence ends with ``.``, ``!``, ``?`` or ``…`` before white space, with ``。``, ``！`` or ``？`` before anything, or with its
    line. Raises RuleError for an answer that is no probability.
    """

    def __init__(self, classifier: Callable[[str], float | bool], threshold: float) -> None:
        self._classifier = functools.lru_cache(maxsize=2)(classifier)
        self._threshold = threshold
        self._begun = 0
        self._sentence = ""

    def feed(self, text: str, heard: Heard) -> list[Finding]:
        self._sentence += text
        found: list[Finding] = []
        self._skip_space()
        while end := _END.search(self._sentence):
            found += self._judged(self._sentence[: end.end()])
            self._begun += end.end()
            self._sentence = self._sentence[end.end() :]
            self._skip_space()
        return found

    def ending(self) -> list[Finding]:
        return self._judged(self._sentence) if _OVER.search(self._sentence) else []

    def close(self) -> list[Finding]:
        found = self._judged(self._sentence.rstrip())
        self._begun += len(self._sentence)
        self._sentence = ""
        return found

    def held(self) -> int:
        return self._begun

    def _skip_space(self) -> None:
        rest = self._sentence.lstrip()
        self._begun += len(self._sentence) - len(rest)
        self._sentence = rest

    def _judged(self, sentence: str) -> list[Finding]:
        if not sentence:
            return []
        score = float(self._classifier(sentence))
        if not 0 <= score <= 1:
            raise RuleError(
                f"the classifier says {score:g} of a sentence",
                why="a guard compares a probability, or True and False, with its threshold",
                fix="return a number from 0 to 1",
            )
        blocked = score >= self._threshold
        return [Finding(self._begun, self._begun + len(sentence), "classifier")] if blocked else []


def name_of(classifier: Any) -> str:
    """What a tape calls a classifier."""
    return str(getattr(classifier, "__qualname__", None) or type(classifier).__qualname__)


def text_classifier(model: Any, *, label: str) -> Callable[[str], float]:
    """A Hugging Face text-classification model as a classifier: the probability it gives to ``label``.

    ``model`` is a hub id, a folder, or a pipeline ``text-classification`` that was made already; a name is loaded at the first
    sentence. Raises UsageError, then, for a label that the model does not have.
    """

    @functools.cache
    def pipeline() -> Any:
        return require_transformers().pipeline("text-classification", model=model) if isinstance(model, str) else model

    def text_classification(text: str) -> float:
        scores = {one["label"]: one["score"] for one in pipeline()(text, top_k=None, truncation=True)}
        if label not in scores:
            raise UsageError(
                f"the classifier has no label {label!r}",
                why=f"it has {', '.join(map(repr, scores))}",
                fix=f"label={next(iter(scores))!r}",
            )
        return min(float(scores[label]), 1.0)

    return text_classification
