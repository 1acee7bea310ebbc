"""The residual stream between blocks, and what a model does behind its last one: final norm, head, whatever else stands there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from tokentape.errors import ExplainError
from tokentape.explain.replay import Replay
from tokentape.models.anatomy import first_of, following, inputs_of, state_in

__all__ = ["Stream", "Tail", "no_stream", "residual_stream", "rows_of", "tail_of"]

ELEMENTS = 2**24
"""Logits that are held at once: 67 MB in float32, and a few temporaries of that size beside them."""

TOLERANCE, ROUNDINGS = 1e-5, 4
"""How far the tail's logits may lie from the model's own, as a part of the largest: this, or so many roundings of the dtype."""

_REFUSALS = (RuntimeError, TypeError, ValueError, IndexError, AttributeError)
_FIX = "--method leave_one_out needs to know nothing of a model's layers"


@dataclass(frozen=True)
class Stream:
    """The residual stream at the rows before the asked positions.

    ``states`` are tensors ``[n, ...]``: what the first block reads, then what each block gives; or the last one alone.
    ``axis`` is where the batch stands in what a block gives, the rows next to it. ``own`` ``[m, V]`` are the model's own
    logits at the rows ``checked``, as many as may be held at once.
    """

    states: tuple[torch.Tensor, ...]
    axis: int
    own: torch.Tensor
    checked: torch.Tensor


class Tail:
    """What the model makes of the output of its last block, as a function of that alone.

    No knowledge of it is needed: the model reads one token, and a hook puts other states into the place of what its last
    block gives. ``wide`` reads as many tokens as there are states, for models that shape their output after their input.
    ``agreement`` is the largest difference from the model's own logits, as a part of the largest of those.
    """

    def __init__(self, replay: Replay, axis: int, *, wide: bool) -> None:
        self.axis = axis
        self.agreement = float("inf")
        self._replay = replay
        self._wide = wide

    def logits(self, states: torch.Tensor, begun: Callable[[], None] | None = None) -> torch.Tensor:
        """Logits ``[C, V]`` of states ``[C, ...]``; ``begun`` is called where the tail begins. Raises OutOfMemory."""
        replay, model = self._replay, self._replay.model
        ids = replay.ids_tensor(1).expand(len(states) if self._wide else 1, 1)
        placed = states[:, None].movedim((0, 1), (self.axis, self.axis + 1))

        def put(module: Any, inputs: Any, output: Any) -> Any:
            if begun is not None:
                begun()
            return placed if isinstance(output, torch.Tensor) else type(output)((placed, *output[1:]))

        handle = replay.anatomy.blocks[-1].register_forward_hook(put)
        try:
            with replay.memory("reading its layers"):
                logits: torch.Tensor = model(**inputs_of(model, ids), use_cache=False).logits
        finally:
            handle.remove()
        replay.passes.forward += len(ids)
        return logits.reshape(len(states), logits.shape[-1])


def residual_stream(replay: Replay, positions: Sequence[int], *, every: bool = True) -> Stream:
    """The residual stream before ``positions``, in one pass; with ``every`` false what the last block gives alone.

    Raises ExplainError where the model has no sequence of blocks, each run once, that hand one state on; OutOfMemory.
    """
    blocks = replay.anatomy.blocks
    if not blocks:
        raise no_stream(replay, "its blocks are not one list of modules, as long as the model is deep")
    n_read = max(positions)
    rows = torch.tensor([position - 1 for position in positions], device=replay.causal.device)
    states: list[torch.Tensor] = []
    axes: set[int] = set()

    def keep(state: Any) -> None:
        axis, found = rows_of(replay, state, n_read)
        axes.add(axis)
        states.append(found[rows.to(found.device)].detach())

    def enter(index: int, args: Any, kwargs: dict[str, Any]) -> None:
        if every and index == 0:
            keep(state_in(args, kwargs))

    watched = blocks if every else blocks[-1:]
    with torch.no_grad(), following(watched, enter, lambda index, output: keep(first_of(output))):
        checked = _spread(len(positions), max(1, ELEMENTS // replay.causal.vocab_size))
        own = replay.logits([positions[i] for i in checked])[0]
    if len(states) != (len(blocks) + 1 if every else 1) or len({state.shape for state in states}) > 1 or len(axes) > 1:
        raise no_stream(replay, f"{len(states)} states of {len({state.shape for state in states})} shapes were seen")
    return Stream(tuple(states), axes.pop(), own, torch.tensor(checked))


def tail_of(replay: Replay, stream: Stream) -> Tail:
    """The model's tail, held against the model's own logits. Raises ExplainError where it is another computation."""
    final = stream.states[-1][stream.checked.to(stream.states[-1].device)]
    rounding = torch.finfo(stream.own.dtype).eps
    tolerance = max(TOLERANCE, ROUNDINGS * rounding)
    reason = ""
    for wide in (False, True):
        tail = Tail(replay, stream.axis, wide=wide)
        try:
            with torch.no_grad():
                found = tail.logits(final)
            tail.agreement = _gap(found, stream.own)
        except _REFUSALS as error:
            reason = f"its last block's output cannot be exchanged: {' '.join(str(error).split())[:200]}"
            continue
        if tail.agreement <= tolerance:
            return tail
        reason = (
            f"from its last block's output alone come other logits than its own, by {tail.agreement:.1g} of the largest"
        )
    raise no_stream(replay, reason)


def rows_of(replay: Replay, state: Any, n_rows: int) -> tuple[int, torch.Tensor]:
    """Where a batch of one stands, followed by the rows and something behind them, and the rows ``[T, ...]``.

    Raises ExplainError for a state that has no such place.
    """
    if isinstance(state, torch.Tensor):
        for axis in range(state.dim() - 3, -1, -1):
            if state.shape[axis : axis + 2] == (1, n_rows):
                return axis, state.movedim((axis, axis + 1), (0, 1))[0]
    seen = f"a tensor {list(state.shape)}" if isinstance(state, torch.Tensor) else f"a {type(state).__name__}"
    raise no_stream(replay, f"a block reads or hands on {seen}, for {n_rows} tokens of one sequence")


def _spread(n: int, most: int) -> list[int]:
    """At most ``most`` of n places, evenly spread, the last among them."""
    count = min(n, most)
    return [((i + 1) * n - 1) // count for i in range(count)]


def _gap(found: torch.Tensor, own: torch.Tensor) -> float:
    """The largest difference as a part of the largest logit; NaN where one is no number."""
    apart = (found - own).abs().masked_fill(found == own, 0)  # masked entries are -inf in both
    return float(apart.max()) / float(own[own.isfinite()].abs().max()) if apart.any() else 0.0


def no_stream(replay: Replay, why: str) -> ExplainError:
    """The refusal of a model whose layers cannot be read."""
    return ExplainError(f"the layers of {replay.causal.name} cannot be read one by one", why=why, fix=_FIX)
