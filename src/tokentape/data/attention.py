"""Where a model looked: its attention, reduced to sources kept and figures of heads, as frozen values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from tokentape.data.columns import frozen, under_the_mask
from tokentape.data.explanation import ReplayCheck
from tokentape.data.layers import beside_arrays, fix_plain, plain, refuse_infinite, refuse_shape
from tokentape.data.trace import Masked, Piece
from tokentape.errors import UsageError

__all__ = ["FIGURES", "AttentionSummary", "TopSources"]

Ints = npt.NDArray[np.int64]

FIGURES = ("entropy", "sink_share", "nowhere", "distance")
"""What is kept of each head and row, whatever the length."""


@dataclass(frozen=True, eq=False)
class TopSources:
    """The K sources with the largest weights of each row, best first.

    ``sources`` ``[..., K]`` are positions, ``weights`` ``[..., K]`` their weights, masked where a row has fewer sources with
    any weight; ``kept`` ``[...]`` is the weight of the K together, of 1 less what goes nowhere.
    """

    sources: Masked
    weights: Masked
    kept: Masked

    def take(self, rows: Any) -> TopSources:
        """The rows of these indices; rows are the axis before the last of the sources."""
        return TopSources(
            _taken(self.sources, (..., rows, slice(None))),
            _taken(self.weights, (..., rows, slice(None))),
            _taken(self.kept, (..., rows)),
        )


@dataclass(frozen=True, eq=False)
class AttentionSummary:
    """Where a model looked before each token of a sequence of T.

    A row belongs to the position it *predicts*: ``positions`` ``[n]`` are 1 .. T-1, and the row of position p looked at the
    sources 0 .. p-1. A layer is a block of the model (a weighted sum where the model has no plain list of blocks);
    ``n_heads`` ``[L]`` is 0 for one without attention, whose cells are masked everywhere.

    Of each head, ``[L, H, n]``, masked past a layer's own heads: ``entropy`` in nats of its weights, made to sum to one;
    ``sink_share``, the weight on position 0; ``nowhere``, the weight that a learned sink takes away from all tokens, masked
    where the model has none; ``distance``, the mean number of tokens between the row and its sources (0: itself). Of each
    layer ``layers`` ``[L, n, K]`` has the sources of the mean over its heads, ``overall`` ``[n, K]`` those of the mean over
    layers. ``heads`` ``[L, H, m, K]`` has the sources of single heads for the ``head_positions`` ``[m]`` that were asked for.

    ``ids`` ``[T]`` are the tokens of the sequence, ``pieces`` the vocabulary's entries of these as far as there is a
    tokenizer, ``check`` that of the replay, null where none was asked for. Arrays are read-only. Raises UsageError where shapes
    differ.
    """

    positions: Ints
    ids: Ints
    n_heads: tuple[int, ...]
    entropy: Masked
    sink_share: Masked
    nowhere: Masked
    distance: Masked
    layers: TopSources
    overall: TopSources
    head_positions: Ints
    heads: TopSources
    pieces: Mapping[int, Piece] = field(default_factory=dict, repr=False)
    check: ReplayCheck | None = None

    def __post_init__(self) -> None:
        for name in ("positions", "ids", "head_positions"):
            fix_plain(self, (name,))
        for name, shape in _shapes(self.n_heads, self.positions, self.head_positions, self.top_k).items():
            refuse_shape(name, np.shape(_found(self, name)), shape)
        object.__setattr__(self, "pieces", MappingProxyType(dict(self.pieces)))

    @property
    def n_layers(self) -> int:
        """L."""
        return len(self.n_heads)

    @property
    def top_k(self) -> int:
        """K: the most sources that are kept of a row."""
        return int(self.overall.sources.shape[-1])

    @property
    def without(self) -> tuple[int, ...]:
        """Layers that do not attend."""
        return tuple(layer for layer, heads in enumerate(self.n_heads) if not heads)

    def rows(self, positions: Iterable[int]) -> AttentionSummary:
        """The rows of some positions alone, in ascending order. Raises UsageError for one that has no row here."""
        wanted = np.unique(np.fromiter(positions, np.int64))
        strange = np.setdiff1d(wanted, self.positions)
        if len(strange):
            raise UsageError(
                f"no row for position {strange[0]}",
                why=f"there are {len(self.positions)} rows, of {len(self.ids)} tokens",
                fix="ask for positions that were looked at",
            )
        rows, heads = np.searchsorted(self.positions, wanted), np.isin(self.head_positions, wanted)
        kept: dict[str, Any] = {name: _taken(getattr(self, name), (..., rows)) for name in FIGURES}
        kept |= {"layers": self.layers.take(rows), "overall": self.overall.take(rows)}
        kept |= {"head_positions": self.head_positions[heads], "heads": self.heads.take(np.flatnonzero(heads))}
        return replace(self, positions=wanted, **kept)

    def to_dict(self) -> dict[str, Any]:
        """All of it as what JSON can hold; null where masked."""
        return plain(self)

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Self:
        """What :meth:`to_dict` gave, again: figures and weights as float32, sources as int32."""
        n_heads = tuple(plain["n_heads"])
        top_k = max((len(row) for row in plain["overall"]["sources"]), default=0)
        arrays = {
            name: _array(_found(plain, name), np.int32 if name.endswith("sources") else np.float32, shape)
            for name, shape in _shapes(n_heads, plain["positions"], plain["head_positions"], top_k).items()
        }
        kept = {of: TopSources(*(arrays[f"{of}.{part}"] for part in ("sources", "weights", "kept"))) for of in _TOPS}
        figures = {name: arrays[name] for name in FIGURES}
        return cls(**{**plain, "n_heads": n_heads, **figures, **kept, **beside_arrays(plain)})


_TOPS = ("layers", "overall", "heads")


def _shapes(
    n_heads: Sequence[int], positions: Sequence[int] | Ints, head_positions: Sequence[int] | Ints, top_k: int
) -> dict[str, tuple[int, ...]]:
    """The shape of each array of a summary, by its name."""
    n_layers, most, n = len(n_heads), max(n_heads, default=0), len(positions)
    rows = {"layers": (n_layers, n), "overall": (n,), "heads": (n_layers, most, len(head_positions))}
    shapes: dict[str, tuple[int, ...]] = dict.fromkeys(FIGURES, (n_layers, most, n))
    for of, shape in rows.items():
        shapes |= {f"{of}.sources": (*shape, top_k), f"{of}.weights": (*shape, top_k), f"{of}.kept": shape}
    return shapes


def _found(holder: Any, name: str) -> Any:
    """An array of a summary, or of its dict, by a name such as ``heads.kept``."""
    for part in name.split("."):
        holder = holder[part] if isinstance(holder, Mapping) else getattr(holder, part)
    return holder


def _array(nested: Any, dtype: type[np.generic], shape: tuple[int, ...]) -> Masked:
    """Nested lists as a frozen array of that type, None masked."""
    given = np.array(nested, np.float64)
    mask = np.isnan(given)
    refuse_infinite(given[~mask])
    if given.size == 0:  # lists say nothing of the axes behind an empty one
        given, mask = (array.reshape(shape) for array in (given, mask))
    data = np.where(mask, 0, given).astype(dtype)
    data[mask] = under_the_mask(data.dtype)
    return frozen(data, mask)


def _taken(values: Masked, index: tuple[Any, ...]) -> Masked:
    """A part of a masked array, frozen as the whole is."""
    part = values[index]
    return frozen(part.data, np.ma.getmaskarray(part))
