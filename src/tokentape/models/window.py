"""A cache that keeps the first positions and the last ones, so that a text of any length is read in flat memory.

Keeping a few first positions, on which attention leans whatever they hold, besides the last ones is StreamingLLM (Xiao et al.
2023, "Efficient Streaming Language Models with Attention Sinks"). Positions are those within the cache: the model never meets one
past the cache's size, however long the text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from transformers.cache_utils import Cache

from tokentape.errors import UsageError
from tokentape.models.causal import CausalModel
from tokentape.models.window_layers import Padding, Turn, WindowLayer, staying
from tokentape.models.window_positions import Rotation, reason_against, rotations_of

__all__ = ["DEFAULT_SINKS", "WindowCache", "window_cache", "windowed"]

DEFAULT_SINKS = 4
"""What the paper keeps."""

PARTS = 4
"""Into how many parts of its window a long prompt is cut: each of its tokens sees more than all but one of them."""


class WindowCache(Cache):
    """Keys and values of the first ``sinks`` positions and of the last ``window``, those of the step included.

    ``dropped`` is how many positions are no longer in it, of the longest text of the batch. Padding on the left is no position:
    it goes before any. For one run, inside :func:`windowed`.
    """

    of_one_run = True

    def __init__(self, rotations: Sequence[Rotation | None], window: int, sinks: int) -> None:
        turns = {id(rotation): Turn(rotation) for rotation in rotations if rotation is not None}
        super().__init__(layers=[WindowLayer(sinks, turns.get(id(rotation))) for rotation in rotations])
        self.window = window
        self.sinks = sinks
        self.dropped = 0
        self._turns = list(turns.values())
        self._padding: Padding | None = None
        self._made = torch.empty((1, 0), dtype=torch.long)

    @property
    def capacity(self) -> int:
        """The most positions that it holds."""
        return self.window + self.sinks

    @property
    def chunk(self) -> int:
        """How many tokens of a prompt that is longer than the cache should be read at once."""
        return max(self.window // PARTS, 1)

    def make_room(self, n_new: int, mask: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Drop the oldest positions behind the sinks for ``n_new`` others, which are about to be read.

        ``mask`` is that of the text so far, the new columns included, zero where there is padding; ``[B, T]``. Gives the
        positions of the new columns within the cache, ``[1 or B, n_new]``, and the mask of what is then held. Raises
        UsageError for more at once than the window, where something has to go for it.
        """
        held = self.get_seq_length()
        n_leaving = max(held + n_new - self.capacity, 0)
        if n_leaving and n_new > self.window:
            raise UsageError(
                f"{n_new} tokens at once are more than the window of {self.window}",
                why="what one forward pass reads has to fit into the window",
                fix=f"prefill_chunk_size={self.chunk}",
            )
        if mask is not None and not held and not bool(mask.all()):
            self._padding = Padding(mask.shape[0])
        skips = None if self._padding is None else self._padding.leave(n_leaving)
        for layer in cast("list[WindowLayer]", self.layers):
            layer.leave(n_leaving, skips)
        n_held = held - n_leaving + n_new
        now = torch.arange(n_held)[None]
        if mask is not None:
            mask = mask[:, -n_held:]
            if self._padding is not None:
                self._padding.enter(mask[:, -n_new:])
                pads = self._padding.held[:, None]
                mask = (now >= pads).to(mask)
                now = (now - pads).clamp(min=0)
        self._move(now, n_new, n_leaving, skips)
        return now[:, -n_new:], mask

    def _move(self, now: torch.Tensor, n_new: int, n_leaving: int, skips: torch.Tensor | None) -> None:
        """Keep account of the positions at which the keys were made; they are at ``now``, ``[1 or B, L]``."""
        made = self._made.expand(len(now), -1)[:, None, :, None]
        kept = [part[:, 0, :, 0] for part in staying(made, self.sinks, n_leaving, skips)]
        self._made = torch.cat([*kept, now[:, -n_new:]], dim=1)
        self.dropped += n_leaving
        if self.dropped:
            for turn in self._turns:
                turn.aim(self._made, now)


def window_cache(causal: CausalModel, window: int | None, sinks: int | None = None) -> WindowCache:
    """A fresh cache for one run of a model that is to see the first ``sinks`` positions and the last ``window``.

    Raises UsageError for sizes that make no window, for more than the model's positions, and for a model whose cache cannot
    forget: by its family, or by what it gives for a few tokens that it is asked to read.
    """
    if window is None:
        raise UsageError(
            f"{sinks} sinks without a window", why="they are kept besides it", fix=f"--window 256 --sinks {sinks}"
        )
    sinks = DEFAULT_SINKS if sinks is None else sinks
    for name, value, least in (("window", window, 1), ("sinks", sinks, 0)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise UsageError(
                f"{name}={value!r} is no number of positions",
                why=f"{name} must be a whole number, at least {least}",
                fix=f"--window 256 --sinks {DEFAULT_SINKS}",
            )
    reason = reason_against(causal.config)
    if reason is not None:
        raise UsageError(
            f"{causal.name} cannot forget what lies before a window", why=reason, fix="leave --window and --sinks out"
        )
    if causal.positions is not None and window + sinks > causal.positions:
        raise UsageError(
            f"a window of {window} and {sinks} sinks are more than the {causal.positions} positions of {causal.name}",
            why="positions are counted within the cache, and the model knows no others",
            fix=f"--window {max(causal.positions - sinks, 1)} --sinks {min(sinks, causal.positions - 1)}",
        )
    return WindowCache(rotations_of(causal.model, causal.name, window + sinks), window, sinks)


@contextmanager
def windowed(model: Any, cache: WindowCache) -> Iterator[None]:
    """Within it, forward passes of the model that are given ``cache`` make room in it first, and count positions within it.

    So ``model.generate(ids, past_key_values=cache)`` may go on for ever; a prompt that is longer than the cache needs
    ``prefill_chunk_size=cache.chunk``. Forward passes with another cache are left alone.
    """

    def enter(module: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]] | None:
        if kwargs.get("past_key_values") is not cache:
            return None
        read = next(
            given for given in (*args[:1], kwargs.get("input_ids"), kwargs.get("inputs_embeds")) if given is not None
        )
        return args, {**kwargs, **_placed(cache, read.shape[1], kwargs)}

    handle = model.register_forward_pre_hook(enter, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def _placed(cache: WindowCache, n_new: int, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Positions and mask of a forward pass, as they are within the cache."""
    given = kwargs.get("position_ids")
    positions, mask = cache.make_room(n_new, kwargs.get("attention_mask"))
    placed: dict[str, Any] = {} if mask is None else {"attention_mask": mask}
    if given is not None:
        placed["position_ids"] = positions.to(given.device).expand_as(given)
    return placed
