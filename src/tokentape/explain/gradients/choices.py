"""What gradients do not see of a model: hard choices, and parts that it leaves out of the graph.

A choice of the largest scores (which experts a token goes to, which keys are looked at) jumps where two scores cross, so
that a value jumps on the way from a baseline to the input, and no gradient tells of a jump. With the choices of the
input kept all the way the model is a smooth one, and at the input it is the model itself. The weights that go with a
choice still follow their scores.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

__all__ = ["Kept", "Noted", "Unbroken"]

_TOP = frozenset({torch.topk, torch.Tensor.topk})
_MAX = frozenset({torch.max, torch.Tensor.max})
_COMPARED = frozenset(
    {torch.gt, torch.Tensor.gt, torch.Tensor.__gt__, torch.lt, torch.Tensor.lt, torch.Tensor.__lt__}
    | {torch.ge, torch.Tensor.ge, torch.Tensor.__ge__, torch.le, torch.Tensor.le, torch.Tensor.__le__}
)


class Unbroken(TorchFunctionMode):
    """Within it, gradients are those of what the model computes, whatever parts of it it switches gradients off for.

    Some models do so for all but the last rounds of a recurrence, which makes training cheaper and the gradient another.
    """

    def __init__(self) -> None:
        super().__init__()
        self.switched_off = False

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is torch._C._set_grad_enabled:
            self.switched_off = not args[0]
            return None
        return self.called(func, args, kwargs or {})

    def called(self, func: Any, args: Sequence[Any], options: Mapping[str, Any]) -> Any:
        """What a call of the model's gives."""
        return func(*args, **options)

    def chooses(self, func: Any, args: Sequence[Any]) -> bool:
        """Whether a call chooses by floating scores: the k largest always, the largest and comparisons where gradients
        are switched off. Elsewhere these are parts of smooth functions.
        """
        by_scores = func in _TOP or (self.switched_off and (func in _MAX or func in _COMPARED))
        return by_scores and bool(args) and isinstance(args[0], torch.Tensor) and args[0].is_floating_point()


class Noted(Unbroken):
    """Within it, choices are noted in the order of the calls."""

    def __init__(self) -> None:
        super().__init__()
        self.choices: list[torch.Tensor] = []

    def called(self, func: Any, args: Sequence[Any], options: Mapping[str, Any]) -> Any:
        """What the call gives."""
        found = func(*args, **options)
        if self.chooses(func, args):
            self.choices.append((found[1] if isinstance(found, tuple) else found).detach())
        return found


class Kept(Unbroken):
    """Within it, one forward pass over the same positions chooses what was noted, with the scores that are there now."""

    def __init__(self, choices: Sequence[torch.Tensor]) -> None:
        super().__init__()
        self._left = list(reversed(choices))

    def called(self, func: Any, args: Sequence[Any], options: Mapping[str, Any]) -> Any:
        """What the call gives with the noted choice in the place of its own."""
        found = func(*args, **options)
        if not self.chooses(func, args):
            return found
        choice = self._left.pop()
        if not isinstance(found, tuple):
            return choice
        scores, dim = args[0], _dim(func, args, options)
        if choice.dim() == scores.dim():
            return type(found)((scores.gather(dim, choice), choice))
        return type(found)((scores.gather(dim, choice.unsqueeze(dim)).squeeze(dim), choice))


def _dim(func: Any, args: Sequence[Any], options: Mapping[str, Any]) -> int:
    place = 2 if func in _TOP else 1
    return int(args[place] if len(args) > place else options.get("dim", -1))
