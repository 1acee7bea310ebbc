"""What a rule is: logits to logits, out of place; and what some rules can do besides.

A rule is called as transformers calls its logits processors, so that rules and processors stand in one list and a rule can also
be handed to ``model.generate(logits_processor=[rule])``.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from tokentape.data.control import Decision, Outcome

if TYPE_CHECKING:
    import torch

    from tokentape.models.causal import CausalModel

__all__ = ["Begins", "Concludes", "Control", "Ends", "Forces", "Rule", "Steers", "Vetoes"]


@runtime_checkable
class Rule(Protocol):
    """Maps logits to logits and never writes into those it is given.

    ``believes`` tells the rules that change what the model believes (guidance), which come before all processors of
    transformers, from those that say what may be said (a grammar, a guard), which come where transformers puts the
    processors of its callers: after its own penalties and bans, before temperature and filters.
    """

    @property
    def name(self) -> str: ...

    @property
    def believes(self) -> bool: ...

    @property
    def masks(self) -> bool:
        """Whether it leaves each logit as it is or makes it minus infinity."""

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """``[B, T]`` ids so far and ``[B, V]`` fp32 logits to new ``[B, V]`` logits, minus infinity where a token may not follow.

        The first call's ids are the prompt, left-padded; a later call's are the prompt and what was chosen since, several ids
        at once where they were forced. Rows that have ended go on with padding.
        """

    def describe(self) -> dict[str, Any]:
        """What the tape keeps of the rule: JSON-able."""


@runtime_checkable
class Control(Protocol):
    """A rule that was asked for before a model is known."""

    def bound(self, causal: CausalModel) -> Rule:
        """A fresh rule for one run of that model. Raises UsageError where the model cannot be ruled so."""


@runtime_checkable
class Begins(Protocol):
    """A rule that is told where a run begins, rather than taking what its first call brings for the prompt."""

    def begin(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None) -> None:
        """The prompts ``[B, T]``, left-padded, and their mask (None: no padding), before anything is forced or chosen."""


@runtime_checkable
class Forces(Protocol):
    """A rule that may leave one way to go on."""

    def forced(self, input_ids: torch.Tensor) -> Sequence[int]:
        """The ids that must follow ``[1, T]`` ids, in order; none where there is a choice.

        Asked for batches of one alone: before the first call, with the prompt, and after each choice, with what was chosen.
        What it gives is appended to the ids that the next call brings.
        """


@runtime_checkable
class Ends(Protocol):
    """A rule that may end a sequence without an end-of-text token; ``eos`` are the ids of such tokens, set before a run begins."""

    eos: frozenset[int]

    def ended(self, input_ids: torch.Tensor) -> Sequence[bool]:
        """For each row of ``[B, T]`` ids whether nothing may follow it."""


@runtime_checkable
class Vetoes(Protocol):
    """A rule that looks at what was chosen before it is said."""

    def veto(self, row: int, token_id: int) -> bool:
        """Whether another token has to be chosen in place of this one. Asked again for each choice of a step."""

    def accept(self, row: int, token_id: int) -> bool:
        """The token stays; whether the sequence is to end here."""

    def close(self, row: int) -> None:
        """The row's text has ended: what was held back is judged as it stands. Asked again, it does nothing."""

    def decisions(self, row: int) -> Sequence[Decision]:
        """What was decided about a row since the last time it was asked."""


@runtime_checkable
class Concludes(Protocol):
    """A rule that says how a run went."""

    def outcomes(self, input_ids: torch.Tensor) -> Sequence[Outcome]:
        """After the run, one for each row of the ``[B, T]`` ids that came of it."""


@runtime_checkable
class Steers(Protocol):
    """A rule that changes the forward pass itself, so that what it did shows only beside a pass without it."""

    def attached(self, model: Any) -> AbstractContextManager[None]:
        """The context in which the model's forward passes are changed."""

    def baseline(self, input_ids: torch.Tensor) -> torch.Tensor:
        """``[B, V]`` fp32 logits of a pass without this rule over the same ids."""
