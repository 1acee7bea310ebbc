"""Runs of tokens that a rule leaves no choice about: taken without asking the model, and read by one forward pass."""

from __future__ import annotations

from typing import Any

import torch

from tokentape.control.rule import Ends, Forces

__all__ = ["ForcedRuns"]


class ForcedRuns:
    """What was forced and no forward pass has read yet. For a batch of one; ``rule`` None forces nothing."""

    def __init__(self, rule: Forces | None, criteria: Any) -> None:
        self._rule = rule
        self._criteria = criteria
        self.waiting: tuple[int, ...] = ()
        self.complete = False  # the rule says that nothing may follow

    @property
    def possible(self) -> bool:
        """Whether there is a rule that may force."""
        return self._rule is not None

    def take(self) -> tuple[int, ...]:
        """What is waiting, which is then read."""
        taken, self.waiting = self.waiting, ()
        return taken

    def before_the_first(self, ids: torch.Tensor) -> tuple[torch.Tensor, int]:
        """The prompt ``[1, T]`` with what must follow it, and how many these are; the last token of a text is left to a choice."""
        if self._rule is None:
            return ids, 0
        # whether a text without an end-of-text token is whole can only be told once all of it has been
        whole = isinstance(self._rule, Ends) and not self._rule.eos
        longer, ended = self._appended(ids, ask=False)
        if self.waiting and (ended or whole):
            longer, self.waiting = longer[:, :-1], self.waiting[:-1]
        return longer, len(self.waiting)

    def after(self, ids: torch.Tensor) -> tuple[torch.Tensor, int, bool]:
        """The sequence ``[1, T]`` with what must follow it, how many these are, and whether it ends with them."""
        longer, ended = self._appended(ids, ask=True)
        return longer, len(self.waiting), ended

    def _appended(self, ids: torch.Tensor, *, ask: bool) -> tuple[torch.Tensor, bool]:
        """One token after another, so that a stopping criterion cuts the run where it would have cut it.

        With ``ask`` the rule is told of each, and may say that nothing follows.
        """
        assert self._rule is not None
        taken: list[int] = []
        ended = False
        for token_id in self._rule.forced(ids):
            ids = torch.cat([ids, ids.new_tensor([[token_id]])], dim=-1)
            taken.append(token_id)
            ended = bool(self._criteria(ids, None)[0])
            if ask and not ended and isinstance(self._rule, Ends):
                ended = self.complete = self._rule.ended(ids)[0]
            if ended:
                break
        self.waiting = tuple(taken)
        return ids, ended
