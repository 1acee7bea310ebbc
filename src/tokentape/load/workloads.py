"""What the requests of a load ask: a workload gives one :class:`Conversation` after another, each of one turn or more.

A turn has its words (a text, token ids, or messages), or only their number: then :mod:`tokentape.load.prompts` makes a prompt of
that length. Workloads are plain values that can be sent to another process, and give the same conversation for the same number.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from tokentape.errors import UsageError

__all__ = ["Conversation", "Listed", "Sized", "Synthetic", "Turn", "Workload", "prompts"]


@dataclass(frozen=True, slots=True)
class Turn:
    """One request: its words in one of three forms, or the number of tokens that they are to have.

    ``prompt`` is a text or token ids; ``messages`` are those that the turn adds to its conversation. ``n_prompt`` is the length
    asked for, of which the first tokens are shared with whoever has the same ``blocks`` (ids of ``block_tokens`` tokens each).
    ``n_new`` limits the answer; with ``exact`` it is to have that many tokens, whatever the model would do. ``think_ns`` passes
    between the answer before and this turn. ``options`` are further options of the request.
    """

    prompt: str | tuple[int, ...] | None = None
    messages: tuple[Mapping[str, Any], ...] | None = None
    n_prompt: int | None = None
    n_new: int | None = None
    exact: bool = False
    blocks: tuple[int, ...] = ()
    think_ns: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Conversation:
    """Turns that follow each other, each sent when the one before has been answered. ``name`` None: a request of its own."""

    number: int
    turns: tuple[Turn, ...]
    name: str | None = None


@runtime_checkable
class Workload(Protocol):
    """Gives the conversation of each number from 0; ``n`` is how many there are, None where it makes any number of them.

    ``times_ns`` are the times of recorded traffic, None where there are none. ``n_sized`` is the mean length of the prompts that
    are to be made, 0 where all have their words.
    """

    @property
    def n(self) -> int | None: ...
    @property
    def times_ns(self) -> Sequence[int] | None: ...
    @property
    def n_sized(self) -> int: ...
    def conversation(self, number: int) -> Conversation: ...
    def described(self) -> dict[str, Any]:
        """What is written down of it with the tape."""


@dataclass(frozen=True, slots=True)
class Listed:
    """Conversations that were written down; the list begins anew when it has been gone through."""

    conversations: tuple[tuple[Turn, ...], ...]
    names: tuple[str | None, ...] = ()
    source: str = "prompts"
    times_ns: tuple[int, ...] | None = None

    @property
    def n(self) -> int:
        return len(self.conversations)

    @property
    def n_sized(self) -> int:
        sizes = [turn.n_prompt for turns in self.conversations for turn in turns if _is_sized(turn) and turn.n_prompt]
        return sum(sizes) // len(sizes) if sizes else 0

    def conversation(self, number: int) -> Conversation:
        place = number % len(self.conversations)
        turns = self.conversations[place]
        name = self.names[place] if self.names else None
        if len(turns) > 1:
            around = number // len(self.conversations)
            name = f"{name or place}" + (f" ({around + 1})" if around else "")
        return Conversation(number, turns, name)

    def described(self) -> dict[str, Any]:
        turns = sum(map(len, self.conversations))
        return {"workload": self.source, "conversations": self.n, "turns": turns}


@dataclass(frozen=True, slots=True)
class Sized:
    """Recorded traffic: when requests came and how long prompt and answer were; ``blocks`` where their prefixes are known."""

    times_ns: Sequence[int]
    n_prompt: Sequence[int]
    n_new: Sequence[int]
    source: str
    blocks: Sequence[tuple[int, ...]] | None = None

    @property
    def n(self) -> int:
        return len(self.times_ns)

    @property
    def n_sized(self) -> int:
        return sum(self.n_prompt) // len(self.n_prompt)

    def conversation(self, number: int) -> Conversation:
        row = number % len(self.times_ns)
        blocks = self.blocks[row] if self.blocks is not None else ()
        turn = Turn(n_prompt=self.n_prompt[row], n_new=max(1, self.n_new[row]), exact=True, blocks=blocks)
        return Conversation(number, (turn,))

    def described(self) -> dict[str, Any]:
        return {"workload": self.source, "rows": self.n, "shared_prefixes": self.blocks is not None}


@dataclass(frozen=True, slots=True)
class Synthetic:
    """Any number of prompts of one length, none of which begins like another."""

    n_prompt: int
    n_new: int | None = None
    exact: bool = True

    def __post_init__(self) -> None:
        for name, value in (("--prompt-tokens", self.n_prompt), ("--max-new-tokens", self.n_new)):
            if value is not None and value < 1:
                raise UsageError(f"{name} {value}", why="a length is 1 token or more", fix=f"{name} 128")

    @property
    def n(self) -> None:
        return None

    @property
    def times_ns(self) -> None:
        return None

    @property
    def n_sized(self) -> int:
        return self.n_prompt

    def conversation(self, number: int) -> Conversation:
        turn = Turn(n_prompt=self.n_prompt, n_new=self.n_new, exact=self.exact and self.n_new is not None)
        return Conversation(number, (turn,))

    def described(self) -> dict[str, Any]:
        return {"workload": "synthetic", "prompt_tokens": self.n_prompt, "max_new_tokens": self.n_new}


def prompts(found: Iterable[str | Sequence[int]], n_new: int | None = None) -> Listed:
    """Prompts, one request each. Raises UsageError where there are none."""
    turns = tuple((Turn(prompt=one if isinstance(one, str) else tuple(one), n_new=n_new),) for one in found)
    if not turns:
        raise UsageError(
            "a load without prompts", why="each request asks something", fix="give a prompt, or --prompt-tokens N"
        )
    return Listed(turns)


def _is_sized(turn: Turn) -> bool:
    return turn.prompt is None and turn.messages is None
