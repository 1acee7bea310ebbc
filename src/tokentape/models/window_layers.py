"""The parts of a cache that forgets: a layer's keys and values, how keys follow their positions, where the padding is."""

from __future__ import annotations

from typing import Any

import torch
from transformers.cache_utils import DynamicLayer

from tokentape.models.window_positions import Rotation

__all__ = ["Padding", "Turn", "WindowLayer", "staying"]


def staying(held: torch.Tensor, sinks: int, n_leaving: int, skips: torch.Tensor | None) -> list[torch.Tensor]:
    """What stays of ``[B, H, L, D]`` where the oldest ``n_leaving`` behind the sinks go, as parts to be joined along L.

    ``skips``, ``[B]``, says of how many of these a row's padding takes the place, which stands before its sinks.
    """
    if not n_leaving:
        return [held]
    first, rest = held[..., :sinks, :], held[..., sinks + n_leaving :, :]
    if skips is not None:
        index = (skips[:, None] + torch.arange(sinks)).to(held.device)[:, None, :, None]
        first = held.gather(-2, index.expand(-1, held.shape[1], -1, held.shape[-1]))
    return [first, rest]


class Turn:
    """Turns keys from the positions at which they were made to those that they hold now."""

    def __init__(self, rotation: Rotation) -> None:
        self._rotation = rotation
        self._made = self._now = torch.empty((1, 0), dtype=torch.long)
        self._table: tuple[torch.Tensor, torch.Tensor] | None = None

    def aim(self, made: torch.Tensor, now: torch.Tensor) -> None:
        """``[1 or B, L]`` positions, then and now."""
        if torch.equal(made, self._made) and torch.equal(now, self._now):
            return  # as at every step once all keys of the window were made at its end
        self._made, self._now = made, now
        forward = self._rotation.angles(now) - self._rotation.angles(made)
        self._table = forward.cos().float()[:, None], forward.sin().float()[:, None]

    def turned(self, keys: torch.Tensor) -> torch.Tensor:
        """``[B, H, L, D]`` keys as the model would have made them at their present positions."""
        if self._table is None:
            return keys  # nothing was dropped yet
        self._table = cos, sin = self._table[0].to(keys.device), self._table[1].to(keys.device)
        return self._rotation.turned(keys, cos, sin)


class WindowLayer(DynamicLayer):
    """Keeps keys as they were made, so that however often they move they are turned once, from there."""

    is_croppable = False

    def __init__(self, sinks: int, turn: Turn | None) -> None:
        super().__init__()
        self._sinks = sinks
        self._turn = turn
        self._leaving = 0
        self._skips: torch.Tensor | None = None

    def leave(self, n_leaving: int, skips: torch.Tensor | None) -> None:
        """What goes at the next update; see :func:`staying`. It counts as gone at once."""
        self._leaving, self._skips = n_leaving, skips

    def get_seq_length(self) -> int:
        return super().get_seq_length() - self._leaving

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        if self.is_initialized:
            self.keys, self.values = self._followed(self.keys, key_states), self._followed(self.values, value_states)
        else:
            self.lazy_initialization(key_states, value_states)
            self.keys, self.values = key_states, value_states
        self.leave(0, None)
        return self.keys if self._turn is None else self._turn.turned(self.keys), self.values

    def _followed(self, held: Any, new: torch.Tensor) -> torch.Tensor:
        return torch.cat([*staying(held, self._sinks, self._leaving, self._skips), new], dim=-2)


class Padding:
    """Where the rows of a batch are padded on the left: ``held`` columns of each, ``[B]``, are still in the cache."""

    def __init__(self, n_rows: int) -> None:
        self.held = torch.zeros(n_rows, dtype=torch.long)
        self._entered = torch.zeros(n_rows, dtype=torch.long)
        self._n_read = 0
        self._goes_on = True

    def enter(self, mask: torch.Tensor) -> None:
        """New columns, ``[B, n]``, zero where they are padding."""
        if not self._goes_on:
            return  # asking would mean waiting for the device
        fresh = (mask == 0).sum(dim=1).cpu()
        self._n_read += mask.shape[1]
        self.held = self.held + fresh
        self._entered = self._entered + fresh
        self._goes_on = bool((self._entered == self._n_read).any())

    def leave(self, n_columns: int) -> torch.Tensor | None:
        """How many of the columns that go are each row's padding; None where there is none."""
        skips = self.held.clamp(max=n_columns)
        self.held = self.held - skips
        return skips if bool(skips.any()) else None
