"""Attention watched while a model runs: the weights of each weighted sum and the values that they weigh, as they come by.

In transformers' eager code attention is a softmax whose result, perhaps cast, sliced or dropped out, is multiplied with
values. That is what is looked for, whatever the classes are called; a fused kernel is taken apart. Each tensor is shown
once and let go: the weights of all layers are never held together.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from tokentape.errors import ExplainError
from tokentape.explain.attention.deferred import Deferred
from tokentape.models.anatomy import anatomy_of, first_of, following, state_in
from tokentape.models.runtime import quiet

__all__ = ["Look", "Survey", "Watch", "eager", "survey_of", "watching"]

_SOFTMAXES = frozenset({functional.softmax, torch.softmax, torch.Tensor.softmax, torch.special.softmax})
_PRODUCTS = frozenset({
    torch.matmul, torch.bmm, torch.Tensor.matmul, torch.Tensor.bmm, torch.Tensor.__matmul__,
})  # fmt: skip
_FUSED = functional.scaled_dot_product_attention


@dataclass(frozen=True, slots=True)
class Look:
    """Some rows of one weighted sum of values.

    ``block`` is the block that computes it, None where the model has no plain list of blocks; ``rows`` are the positions
    that look. ``weights`` ``[B, H, rows, T]`` are those that values were multiplied with; ``values`` ``[B, H, T, Dv]`` are
    repeated where heads share them. ``sink`` says that the softmax had one more place than there are values: mass that
    goes nowhere.
    """

    block: int | None
    rows: slice
    weights: torch.Tensor
    values: torch.Tensor
    sink: bool

    @property
    def n_heads(self) -> int:
        return int(self.weights.shape[1])


Saw = Callable[[Look, torch.Tensor], torch.Tensor | None]
"""What is done with a look and the sum it gave, in the sum's own shape; a tensor takes the place of that sum."""


class Watch(TorchFunctionMode):
    """While it is entered, shows each weighted sum over positions to ``saw``, in pieces of at most ``rows`` rows.

    ``n_batch`` sequences of ``n_tokens`` are read in one pass, without a cache. ``block`` is the block under way; hooks
    keep it.
    """

    def __init__(self, saw: Saw, n_tokens: int, n_batch: int = 1, rows: int | None = None) -> None:
        super().__init__()
        self.saw = saw
        self.n_tokens = n_tokens
        self.n_batch = n_batch
        self.rows = min(rows or n_tokens, n_tokens)
        self.block: int | None = None
        self._deferred = Deferred(n_tokens) if self.rows < n_tokens else None
        self._chain: dict[int, tuple[weakref.ref[torch.Tensor], int]] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self.call(func, args, kwargs or {})

    def call(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """What the model's call of a torch function gives."""
        if func is _FUSED:
            sums = self._fused(*args, **kwargs)
            return func(*args, **kwargs) if sums is None else sums
        width = self._width(args[0]) if args else None
        if width is not None and func in _PRODUCTS and args[0].dim() > 2 and self._over_positions(*args[0].shape[-2:]):
            return self._sums(func, args[0], args[1], width)
        out = NotImplemented if self._deferred is None else self._deferred.call(func, args, kwargs)
        if out is NotImplemented:
            out = func(*args, **kwargs)
        if func in _SOFTMAXES:
            self._chain.clear()
            self._follow(out, int(out.shape[-1]))
        elif width is not None and _still_weights(args[0], out):
            self._follow(out, width)
        return out

    def entered(self, states: Any) -> None:
        """A block begins, with the first tensor of numbers that it is given; None where there is none."""

    def left(self, output: Any) -> None:
        """A block ends, with what it hands on."""

    def _follow(self, weights: torch.Tensor, width: int) -> None:
        self._chain[id(weights)] = (weakref.ref(weights), width)

    def _width(self, tensor: Any) -> int | None:
        """Places of the softmax that a tensor came from; None where it came from none."""
        known = self._chain.get(id(tensor))
        return known[1] if known is not None and known[0]() is tensor else None

    def _over_positions(self, n_rows: int, n_columns: int) -> bool:
        if n_rows != self.n_tokens or n_columns < n_rows:
            return False
        if n_columns > n_rows:
            raise ExplainError(
                f"this model attends to {n_columns - n_rows} places that are no tokens",
                why=f"it read {n_rows} tokens, and its weights are over {n_columns} places, some of which sum tokens up",
                fix="--method leave_one_out works for any model",
            )
        return True

    def _pieces(self) -> Iterator[slice]:
        for start in range(0, self.n_tokens, self.rows):
            yield slice(start, min(start + self.rows, self.n_tokens))

    def _sums(self, func: Any, weights: torch.Tensor, values: torch.Tensor, width: int) -> torch.Tensor:
        if self._deferred is None or not self._deferred.stands(weights):
            return self._shown(weights, values, slice(0, self.n_tokens), width, func(weights, values))
        sums = []
        for rows in self._pieces():
            piece = self._deferred.rows(weights, rows)
            sums.append(self._shown(piece, values, rows, width, func(piece, values)))
        return torch.cat(sums, -2)

    def _fused(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attn_mask: torch.Tensor | None = None,
        dropout_p: float = 0.0, is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False,
    ) -> torch.Tensor | None:  # fmt: skip
        """What a fused kernel gives, computed in the open; None where it is not over positions."""
        if not self._over_positions(query.shape[-2], key.shape[-2]):
            return None
        if enable_gqa:
            key, value = (part.repeat_interleave(query.shape[-3] // part.shape[-3], -3) for part in (key, value))
        mask = (
            torch.ones(self.n_tokens, self.n_tokens, dtype=torch.bool).to(key.device).tril() if is_causal else attn_mask
        )
        sums = []
        for rows in self._pieces():
            scores = (query[..., rows, :] @ key.transpose(-2, -1)).float()
            scores *= query.shape[-1] ** -0.5 if scale is None else scale
            if mask is not None:
                part = mask[..., rows, :] if mask.shape[-2] > 1 else mask
                scores = scores.masked_fill(~part, -math.inf) if mask.dtype == torch.bool else scores + part
            weights = scores.softmax(-1).nan_to_num(0.0).to(value.dtype)
            sums.append(self._shown(weights, value, rows, self.n_tokens, weights @ value))
        return torch.cat(sums, -2)

    def _shown(
        self, weights: torch.Tensor, values: torch.Tensor, rows: slice, width: int, sums: torch.Tensor
    ) -> torch.Tensor:
        self._chain.clear()
        by_head = weights.reshape(self.n_batch, -1, *weights.shape[-2:])
        shared = values.reshape(self.n_batch, -1, *values.shape[-2:]).expand(-1, by_head.shape[1], -1, -1)
        instead = self.saw(Look(self.block, rows, by_head, shared, width > self.n_tokens), sums)
        return sums if instead is None else instead


def _still_weights(before: torch.Tensor, after: Any) -> bool:
    """Whether a tensor is still what a softmax gave, cast, viewed, dropped out or with its sink cut off."""
    if not isinstance(after, torch.Tensor) or after.dim() < 3 or not after.is_floating_point():
        return False
    return after.shape[-2] == before.shape[-2] and 0 <= before.shape[-1] - after.shape[-1] <= 1


@contextmanager
def eager(model: Any) -> Iterator[None]:
    """Within it, the model computes attention in the open. What it was set to before is put back, also after an error."""
    configs: dict[int, Any] = {}
    for module in model.modules():
        config = getattr(module, "config", None)
        for found in (config, *(getattr(config, name, None) for name in getattr(config, "sub_configs", ()))):
            if hasattr(found, "_attn_implementation"):
                configs.setdefault(id(found), found)
    before = [(config, config._attn_implementation) for config in configs.values()]
    try:
        with quiet():  # a model that cannot be set says so; its kernels are taken apart instead
            model.set_attn_implementation("eager")
        yield
    finally:
        # setting a configuration sets those below it, which come behind it
        for config, implementation in before:
            config._attn_implementation = implementation


@contextmanager
def watching(model: Any, watch: Watch) -> Iterator[Watch]:
    """Within it, ``watch`` sees the model's passes and knows which block is under way. The model is left as it was."""
    above: list[int | None] = []

    def enter(index: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        above.append(watch.block)
        watch.block = index
        watch.entered(state_in(args, kwargs))

    def leave(index: int, output: Any) -> None:
        watch.left(first_of(output))
        watch.block = above.pop()

    with eager(model), following(anatomy_of(model).blocks, enter, leave), watch:
        yield watch


@dataclass(frozen=True, slots=True)
class Survey:
    """How a model attends, found by a pass over two short sequences that differ in their first token alone.

    ``looks`` are block and heads of each weighted sum, in order; ``n_blocks`` the number of blocks, 0 where there is no
    plain list. ``mixes_otherwise`` says that a token reaches others on ways beside these sums (convolution, recurrence,
    weights that are not seen), ``mixes_values`` that values hold more than their own position.
    """

    looks: tuple[tuple[int | None, int], ...]
    n_blocks: int
    mixes_otherwise: bool
    mixes_values: bool

    @property
    def heads(self) -> tuple[int, ...]:
        """Heads of each layer: of each block, 0 where it does not attend; without blocks, of each sum."""
        if not self.n_blocks:
            return tuple(heads for _, heads in self.looks)
        return tuple(sum(heads for block, heads in self.looks if block == index) for index in range(self.n_blocks))

    @property
    def without(self) -> tuple[int, ...]:
        """Layers that do not attend."""
        return tuple(index for index, heads in enumerate(self.heads) if not heads)

    def layer_of(self, look: Look, order: int) -> int | None:
        """The layer of the ``order``-th look of a pass; None for one outside of the blocks."""
        return look.block if self.n_blocks else order


_known: weakref.WeakKeyDictionary[Any, Survey] = weakref.WeakKeyDictionary()

PROBE = 6
"""Tokens of the sequences that a survey reads."""

TOLERANCE, ROUNDINGS = 1e-3, 16
"""Largest difference that counts as none in a survey, as a part of what is there: this, or so many roundings of the dtype."""


def survey_of(model: Any, name: str) -> Survey:
    """The survey of a model, made once and kept while the model lives. Raises ExplainError where it does not attend."""
    found = _known.get(model)
    if found is None:
        found = _known[model] = _examine(model)
    if not found.looks:
        raise ExplainError(
            f"{name} has no attention that could be looked at",
            why="no part of it multiplies values by a softmax over positions; recurrent models, for one, attend to nothing",
            fix="--method leave_one_out works for any model",
        )
    return found


def _examine(model: Any) -> Survey:
    looks: list[tuple[int | None, int]] = []
    apart: list[bool] = []

    def saw(look: Look, sums: torch.Tensor) -> torch.Tensor:
        looks.append((look.block, look.n_heads))
        values = look.values[..., -PROBE + 1 :, :]
        apart.append(not _alike(values[0], values[1]))
        # with the sums of the first sequence, the second can differ only by what came another way
        return sums.reshape(2, -1, *sums.shape[1:])[:1].expand(2, *[-1] * sums.dim()).reshape(sums.shape)

    ids = _probe_ids(model)
    with torch.no_grad(), watching(model, Watch(saw, PROBE, 2)):
        logits = model(input_ids=ids, use_cache=False).logits[:, 1:]
    return Survey(tuple(looks), len(anatomy_of(model).blocks), not _alike(logits[0], logits[1]), any(apart))


def _alike(a: torch.Tensor, b: torch.Tensor) -> bool:
    slack = max(TOLERANCE, ROUNDINGS * torch.finfo(a.dtype).eps)
    return bool((a - b).abs().max() <= slack * a.abs().max())


def _probe_ids(model: Any) -> torch.Tensor:
    """Two sequences ``[2, PROBE]`` of plain tokens that differ in the first."""
    weight = next(model.get_input_embeddings().parameters())
    special: set[int] = set()
    for name, value in vars(model.config.get_text_config(decoder=True)).items():
        if name.endswith("token_id") and value is not None:
            special.update(value if isinstance(value, (list, tuple)) else [value])
    plain = [i for i in range(min(len(weight), 8 * PROBE)) if i not in special]
    common = (plain[2:] * PROBE)[: PROBE - 1]
    return torch.tensor([[plain[0], *common], [plain[1], *common]], device=weight.device)
