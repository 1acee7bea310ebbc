"""A guard: what must not be said, and what is done about it while a model says it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from tokentape.control.guard.floor import FloorWatch
from tokentape.control.guard.patterns import Pattern, PatternWatch
from tokentape.control.guard.phrases import Automaton, PhraseWatch, phrase_letters
from tokentape.control.guard.sentences import SentenceWatch, name_of
from tokentape.control.guard.text import GuardStream
from tokentape.control.guard.watch import Watch
from tokentape.data.control import ACTIONS
from tokentape.errors import UsageError

if TYPE_CHECKING:
    from tokentape.control.guard.rule import GuardRule
    from tokentape.models.causal import CausalModel

__all__ = ["Guard"]

Classifier = Callable[[str], float | bool]


@dataclass(frozen=True)
class Guard:
    """What a text must not contain, and what is done where it does: nothing of what is found is shown at any time.

    ``phrases`` are found in any casing, Unicode form and spacing; with ``whole_words`` only where no letter or digit adjoins.
    ``patterns`` are regular expressions of the ``regex`` package, read against the text as it is. ``classifier`` is asked for
    each sentence and blocks it from ``threshold`` on. ``min_logprob`` (nats) is the least mean log-probability that ``window``
    tokens may have, under the logits that reach the guard.

    ``action``: ``stop`` ends the sequence before what was found; ``redact`` shows ``placeholder`` in its place and goes on;
    ``resample`` chooses another token where the text, if it ended here, would contain something to be found, up to ``tries`` times
    a token, and then stops.

    Raises UsageError for a guard that looks for nothing, for what cannot be looked for, and for values out of range.
    """

    phrases: Sequence[str] = ()
    patterns: Sequence[str] = ()
    classifier: Classifier | None = None
    threshold: float = 0.5
    min_logprob: float | None = None
    window: int = 1
    action: str = "stop"
    placeholder: str = "[...]"
    whole_words: bool = False
    tries: int = 8

    def __post_init__(self) -> None:
        for name in ("phrases", "patterns"):
            given = getattr(self, name)
            if isinstance(given, str):
                raise UsageError(
                    f"{name}={given!r} is one text", why="a list of texts is expected", fix=f"{name}=[{given!r}]"
                )
            object.__setattr__(self, name, tuple(given))
        self._check_ranges()
        if not self._watches():
            raise UsageError(
                "the guard looks for nothing",
                why="it was given no phrase, no pattern, no classifier and no floor",
                fix="Guard(phrases=['...'])",
            )
        if self.action == "redact":
            self._check_placeholder()

    def bound(self, causal: CausalModel) -> GuardRule:
        """The guard at work on one run of a model. Raises UsageError for a model without a tokenizer."""
        from tokentape.control.guard.rule import GuardRule

        return GuardRule(self, causal)

    def stream(self) -> GuardStream:
        """The guard over a text from elsewhere: fed pieces, it gives what may be shown. ``resample`` stops: no one can choose."""
        return GuardStream(self._watches(), stops=self.action != "redact", placeholder=self.placeholder)

    def describe(self) -> dict[str, Any]:
        """What a tape keeps of it: how many phrases and patterns, and a digest by which the list is known, never their text."""
        listed = json.dumps([self.phrases, self.patterns], ensure_ascii=True).encode()
        return {
            "phrases": len(self.phrases),
            "patterns": len(self.patterns),
            "sha256": hashlib.sha256(listed).hexdigest(),
            "whole_words": self.whole_words,
            "classifier": None if self.classifier is None else name_of(self.classifier),
            "threshold": self.threshold,
            "min_logprob": self.min_logprob,
            "window": self.window,
            "action": self.action,
            "placeholder": self.placeholder,
            "tries": self.tries,
        }

    @cached_property
    def _automaton(self) -> Automaton:
        return Automaton([_letters(phrase, number) for number, phrase in enumerate(self.phrases, 1)])

    @cached_property
    def _patterns(self) -> list[Pattern]:
        return [Pattern(source, number) for number, source in enumerate(self.patterns, 1)]

    def _watches(self) -> list[Watch]:
        watches = self._text_watches()
        if self.classifier is not None:
            watches.append(SentenceWatch(self.classifier, self.threshold))
        if self.min_logprob is not None:
            watches.append(FloorWatch(self.min_logprob, self.window))
        return watches

    def _text_watches(self) -> list[Watch]:
        watches: list[Watch] = []
        if self.phrases:
            watches.append(PhraseWatch(self._automaton, whole_words=self.whole_words))
        return watches + [PatternWatch(pattern, eager=self.action == "stop") for pattern in self._patterns]

    def _check_ranges(self) -> None:
        if self.action not in ACTIONS:
            raise UsageError(
                f"{self.action!r} is no action of a guard", why=f"there are {', '.join(ACTIONS)}", fix="action='stop'"
            )
        if not 0 < self.threshold <= 1:
            raise UsageError(
                f"a threshold of {self.threshold:g}",
                why="a sentence is blocked from this probability on: above 0, at most 1",
                fix="threshold=0.5",
            )
        if self.min_logprob is not None and not self.min_logprob <= 0:
            raise UsageError(
                f"a floor of {self.min_logprob:g} nats under the log-probability",
                why="a log-probability is at most 0, so that everything would lie below",
                fix="min_logprob=-6.0",
            )
        for name in ("window", "tries"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name}={getattr(self, name)}", why="one token is the least", fix=f"{name}=1")

    def _check_placeholder(self) -> None:
        if not self.placeholder:
            raise UsageError(
                "the placeholder is empty",
                why="what stands before and after it would be joined, and may be a phrase again",
                fix="placeholder='[...]'",
            )
        stream = GuardStream(self._text_watches(), stops=True, placeholder="")
        found = stream.foresee(self.placeholder, final=True)
        if found:
            raise UsageError(
                f"the placeholder contains {found[0].reason}",
                why="it would show what is not to be shown",
                fix="another placeholder, such as '█'",
            )


def _letters(phrase: str, number: int) -> list[str]:
    """What is looked for of a phrase; raises UsageError where that is nothing, or no phrase."""
    letters = phrase_letters(phrase)
    if not letters:
        raise UsageError(
            f"phrase {number} is empty" if not phrase else f"phrase {number} shows nothing",
            why="it would be found everywhere"
            if not phrase
            else "characters without width are passed over, and it has no others",
            fix="leave it out",
        )
    if " " in (letters[0], letters[-1]):
        raise UsageError(
            f"phrase {number} begins or ends with white space",
            why="a run of white space counts as one space, so it would find its words inside of nothing else",
            fix="write it without, with whole_words=True; or as a pattern: patterns=[r'\\nUser:']",
        )
    return letters
