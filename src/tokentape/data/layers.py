"""What was read off a model's layers: the logit lens, and the direct contribution of each layer, as frozen values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from types import MappingProxyType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from tokentape.data.columns import frozen
from tokentape.data.explanation import ReplayCheck
from tokentape.data.json_text import shortest
from tokentape.data.trace import Masked, Piece
from tokentape.errors import UsageError

__all__ = ["DirectAttribution", "Lens", "beside_arrays", "fix_plain", "plain", "refuse_infinite", "refuse_shape"]

_NULL = {"f": np.nan, "i": np.iinfo(np.int64).min}
"""What lies under a mask."""


@dataclass(frozen=True, eq=False)
class Lens:
    """What each layer would have said at the steps asked about.

    ``positions`` ``[n]`` are places in the sequence, ``ids`` ``[n]`` the tokens there. Of each layer, 0 (what the first block
    reads) to L (the model itself), ``[n, L + 1]``: ``rank`` of the token that stands there (1 = best, ties share the best
    rank) and its ``logprob`` (nats), ``final_rank`` of the token that the last layer puts first, ``entropy`` (nats) and
    ``kl``, the Kullback-Leibler divergence of the layer's distribution from the last one's, ``KL(last || layer)`` (nats).
    ``top_ids`` and ``top_logprob`` ``[n, L + 1, k]`` are the layer's best tokens, best first. Masked where a number is not
    finite. ``pieces`` holds the vocabulary's entries of all ids named here, as far as there is a tokenizer.

    ``agreement`` is the largest difference between the lens at the last layer and the model's own logits, as a part of the
    largest logit; ``check`` that of the replay, null where none was asked for. Raises UsageError where shapes differ.
    """

    positions: npt.NDArray[np.int64]
    ids: npt.NDArray[np.int64]
    rank: Masked
    logprob: Masked
    final_rank: Masked
    entropy: Masked
    kl: Masked
    top_ids: Masked
    top_logprob: Masked
    pieces: Mapping[int, Piece] = field(default_factory=dict, repr=False)
    agreement: float | None = None
    check: ReplayCheck | None = None

    def __post_init__(self) -> None:
        fix_plain(self, ("positions", "ids"))
        layers = self.rank.shape[1] if np.ndim(self.rank) == 2 else -1
        shape = (len(self.positions), layers)
        _fix_masked(self, ("rank", "final_rank"), shape, "i")
        _fix_masked(self, ("logprob", "entropy", "kl"), shape, "f")
        deep = (*shape, self.top_ids.shape[-1])
        _fix_masked(self, ("top_ids",), deep, "i")
        _fix_masked(self, ("top_logprob",), deep, "f")
        object.__setattr__(self, "pieces", MappingProxyType(dict(self.pieces)))

    @property
    def n_layers(self) -> int:
        """L: the number of blocks."""
        return int(self.rank.shape[1]) - 1

    @property
    def chosen_from(self) -> Masked:
        """``[n]``: the first layer from which on the token that stands there is first to the end; masked where it is not
        first at the end.
        """
        return _stays_first(self.rank)

    @property
    def settled_from(self) -> Masked:
        """``[n]``: the first layer from which on what the model puts first at the end is first; L at the latest. Masked where the
        model's logits are no numbers.
        """
        return _stays_first(self.final_rank)

    def to_dict(self) -> dict[str, Any]:
        """All of it as what JSON can hold; null where masked."""
        return plain(self)

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Self:
        """What :meth:`to_dict` gave, again."""
        return cls(**_unpacked(plain))


@dataclass(frozen=True, eq=False)
class DirectAttribution:
    """A target's value as a sum over what was written into the residual stream.

    ``targets`` ``[n]`` are positions, ``target_ids`` ``[n]`` the tokens there, ``foil_ids`` ``[n]`` what they are explained
    against (kind ``"foil"`` alone). With ``together`` there is one row, the sum over all targets; else one for each. All
    is in the unit of ``value`` ``[rows]``: logits, or nats for ``"logprob"``. ``value`` is the sum of ``entry`` ``[rows]`` (what
    the first block reads: the token, and its position where that is added), ``blocks`` ``[rows, L]`` (what each block
    adds), ``bias`` ``[rows]`` (constants of the final norm and the head), ``curvature`` ``[rows]`` (what is no linear function
    of the logits: of a log-probability the negative entropy, else about 0) and ``residual`` ``[rows]``, what rounding leaves.

    A block is the sum of ``attention``, ``mlp`` and ``other`` ``[rows, L]``. Attention is what reads other positions, or the
    recurrence that stands in its place; the MLP what reads its own alone; either is masked where the block has none.
    ``unsplit`` says of the blocks (counted from 0) that could not be split why: all that they add is ``other``. ``heads``
    ``[rows, L, H]`` share out attention without the bias of its output projection; masked where they cannot be told apart,
    and past the heads that a layer has.

    ``pieces``, ``agreement`` and ``check`` are as in :class:`Lens`. Raises UsageError where shapes differ.
    """

    kind: str
    together: bool
    targets: npt.NDArray[np.int64]
    target_ids: npt.NDArray[np.int64]
    foil_ids: npt.NDArray[np.int64] | None
    value: npt.NDArray[np.float64]
    entry: npt.NDArray[np.float64]
    blocks: npt.NDArray[np.float64]
    bias: npt.NDArray[np.float64]
    curvature: npt.NDArray[np.float64]
    residual: npt.NDArray[np.float64]
    attention: Masked
    mlp: Masked
    other: npt.NDArray[np.float64]
    heads: Masked
    unsplit: Mapping[int, str] = field(default_factory=dict)
    pieces: Mapping[int, Piece] = field(default_factory=dict, repr=False)
    agreement: float | None = None
    check: ReplayCheck | None = None

    def __post_init__(self) -> None:
        fix_plain(self, ("targets", "target_ids", *(("foil_ids",) if self.foil_ids is not None else ())))
        rows = (1 if self.together else len(self.targets),)
        fix_plain(self, ("value", "entry", "bias", "curvature", "residual"), rows, np.float64)
        shape = (*rows, np.shape(self.blocks)[-1])
        fix_plain(self, ("blocks", "other"), shape, np.float64)
        _fix_masked(self, ("attention", "mlp"), shape, "f")
        _fix_masked(self, ("heads",), (*shape, np.shape(self.heads)[-1]), "f")
        unsplit = {int(layer): why for layer, why in self.unsplit.items()}
        object.__setattr__(self, "unsplit", MappingProxyType(unsplit))
        object.__setattr__(self, "pieces", MappingProxyType(dict(self.pieces)))

    @property
    def n_layers(self) -> int:
        """L: the number of blocks."""
        return int(self.blocks.shape[1])

    def to_dict(self) -> dict[str, Any]:
        """All of it as what JSON can hold; null where masked."""
        return plain(self)

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Self:
        """What :meth:`to_dict` gave, again."""
        return cls(**_unpacked(plain))


def fix_plain(
    value: Any, names: Iterable[str], shape: tuple[int, ...] | None = None, dtype: type[np.generic] = np.int64
) -> None:
    """Replace the named fields by read-only copies; without ``shape`` the first of them sets it."""
    for name in names:
        array = np.ma.getdata(getattr(value, name)).astype(dtype)
        shape = array.shape if shape is None else shape
        refuse_shape(name, array.shape, shape)
        array.flags.writeable = False
        object.__setattr__(value, name, array)


def _fix_masked(value: Any, names: Iterable[str], shape: tuple[int, ...], kind: str) -> None:
    """Replace the named fields by masked arrays that cannot be written to, with something loud under the mask."""
    for name in names:
        given = getattr(value, name)
        data, mask = np.ma.getdata(given), np.ma.getmaskarray(given).copy()
        refuse_shape(name, data.shape, shape)
        filled = np.where(mask, 0, data).astype(np.float64 if kind == "f" else np.int64)
        filled[mask] = _NULL[kind]
        object.__setattr__(value, name, frozen(filled, mask))


def refuse_shape(name: str, found: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    """Raise UsageError where the array ``name`` has the shape ``found`` and not the one that is wanted."""
    if found != wanted:
        raise UsageError(
            f"{name} has the shape {list(found)}, not {list(wanted)}",
            why="every column has a row for each step and, where it is one of layers, a column for each of them",
            fix=f"an array of shape {list(wanted)} for {name}",
        )


def _stays_first(rank: Masked) -> Masked:
    """``[n]``: the first column of ``[n, L + 1]`` from which on the rank is 1 to the end; masked where the last is not."""
    first = np.ma.getdata(rank) == 1
    held = np.logical_and.accumulate(first[:, ::-1], axis=1).sum(1)
    found = np.where(held > 0, rank.shape[1] - held, _NULL["i"])
    return frozen(found, held == 0)


def plain(value: Any) -> dict[str, Any]:
    """The fields of a frozen value as what JSON can hold: null where masked, the bytes of pieces in hexadecimal."""
    found: dict[str, Any] = {}
    for one in fields(value):
        given = getattr(value, one.name)
        if isinstance(given, np.ndarray):
            found[one.name] = _listed(given)
        elif is_dataclass(given):
            found[one.name] = plain(given)
        elif isinstance(given, Mapping):
            found[one.name] = {str(key): _entry(entry) for key, entry in given.items()}
        else:
            found[one.name] = given
    return found


def _listed(array: npt.NDArray[Any]) -> list[Any]:
    """Nested lists; of a float32 the digits that it has, not those of the double beside it."""
    if array.dtype == np.float32:
        array = np.ma.MaskedArray(shortest(np.ma.getdata(array)), np.ma.getmaskarray(array))
    listed: list[Any] = array.tolist()
    return listed


def _entry(entry: Any) -> Any:
    return [entry.token, entry.bytes.hex(), entry.special] if isinstance(entry, Piece) else entry


def _unpacked(plain: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a value from what :func:`plain` gave."""
    found = {name: _array(given) if isinstance(given, list) else given for name, given in plain.items()}
    return {**found, **beside_arrays(plain)}


def beside_arrays(plain: Mapping[str, Any]) -> dict[str, Any]:
    """The check and the pieces from what :func:`plain` gave."""
    pieces = {
        int(i): Piece(int(i), token, bytes.fromhex(raw), special)
        for i, (token, raw, special) in plain["pieces"].items()
    }
    return {"check": None if plain["check"] is None else ReplayCheck(**plain["check"]), "pieces": pieces}


def _array(nested: list[Any]) -> Masked:
    """Nested lists as a masked array, None masked; whole numbers stay whole."""
    entries = np.array(nested, dtype=object)
    mask = np.array([entry is None for entry in entries.ravel()], np.bool_).reshape(entries.shape)
    whole = all(isinstance(entry, int) for entry in entries[~mask].ravel())
    data = np.where(mask, 0, entries).astype(np.int64 if whole else np.float64)
    refuse_infinite(data)
    masked: Masked = np.ma.MaskedArray(data, mask)
    return masked


def refuse_infinite(data: npt.NDArray[Any]) -> None:
    """Raise UsageError for infinity and NaN, which JSON does not have and hand-made text may."""
    if not np.isfinite(data).all():
        raise UsageError("a number that is not finite", why="what is not there is null, never NaN", fix="null")
