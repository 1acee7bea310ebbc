"""What watches a text that grows: fed what comes, it says what it found and from where on a finding may still happen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

__all__ = ["Finding", "Heard", "Watch"]


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """Something that must not be shown: from ``start`` to before ``stop``; ``reason`` says what it is without quoting it."""

    start: int
    stop: int
    reason: str


@dataclass(frozen=True, slots=True)
class Heard:
    """What is known of a piece of text besides its characters.

    ``logprob`` is the log-probability of its token in nats, None where nothing chose it; ``begun`` says that it ends within a
    character, which is not among its characters yet.
    """

    logprob: float | None = None
    begun: bool = False


class Watch(Protocol):
    """Looks for one kind of thing. Everything is counted in characters since the beginning of the text.

    Its attributes are values that are replaced and never changed, so that a shallow copy of it is a watch of its own.
    """

    def feed(self, text: str, heard: Heard) -> list[Finding]:
        """What is found for certain with the next characters, whatever comes after them."""

    def ending(self) -> list[Finding]:
        """What would be found besides if the text, cut off here, were judged. Changes nothing."""

    def close(self) -> list[Finding]:
        """What is found besides now that the text has ended."""

    def held(self) -> int:
        """From where on something may still be found: the length of the text where nothing may."""
