"""Bytes held by a key-value cache or a recurrent state, cheap enough to ask for at every step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["CACHE_NAMES", "cache_bytes", "cache_in"]

CACHE_NAMES = ("past_key_values", "cache_params", "state", "mems", "past_buckets_states")
"""Attributes of a model's output that hold its cache: key-value caches, Mamba, RWKV, XLNet, Reformer."""

_CLOSED = frozenset(
    {"Module", "PreTrainedConfig", "Stream", "Event", "Generator", "type", "function", "module", "method"}
)
"""Classes that are not entered: what they hold is the model's or the device's, not the cache's."""

_Plan = tuple[tuple[str, ...], tuple[str, ...]]
_plans: dict[type, dict[int, _Plan]] = {}
"""By class, then by number of attributes: attributes that hold a tensor or None, and those to look into. A layer that
sees its first states gains attributes, hence another plan."""

_above: set[int] = set()
"""Objects whose insides are being planned: an attribute that leads back to one is not followed."""

_tensor_classes: set[type] = set()
"""Classes met so far whose ``nbytes`` is what they hold; learnt, so that this module need not import torch."""


def cache_in(*holders: Any) -> Any | None:
    """The cache that the first of the holders with one carries; None where none does.

    A holder is a model's output or the keyword arguments of its next call: some models (RecurrentGemma) change the cache
    that they were given and do not return it.
    """
    for holder in holders:
        for name in CACHE_NAMES:
            cache = holder.get(name) if isinstance(holder, Mapping) else getattr(holder, name, None)
            if cache is not None:
                return cache
    return None


def cache_bytes(cache: Any) -> int | None:
    """Bytes of the tensors that ``cache`` holds: elements times their size, preallocated room included.

    Takes a transformers cache, a recurrent state, or tensors in tuples, lists and dicts. A tensor that is a view counts
    what it shows. None for None.
    """
    return None if cache is None else _bytes((cache,))


def _bytes(values: Iterable[Any]) -> int:
    total = 0
    for value in values:
        by_size = _plans.get(type(value))
        if by_size is None:
            total += _unplanned(value)
            continue
        held = value.__dict__
        try:
            tensors, others = by_size[len(held)]
            subtotal = 0
            for name in tensors:
                tensor = held[name]
                if tensor is not None:
                    subtotal += tensor.nbytes
        except (AttributeError, KeyError):
            # attributes appeared or changed their kind since the plan was made
            total += _replanned(value)
            continue
        total += subtotal
        for name in others:
            inner = held[name]
            total += _bytes(inner) if type(inner) in (list, tuple) else _bytes((inner,))
    return total


def _unplanned(value: Any) -> int:
    if value is None:
        return 0
    if type(value) in _tensor_classes:
        return int(value.nbytes)
    if hasattr(value, "untyped_storage"):
        if hasattr(value, "__tensor_flatten__"):
            # a wrapper (quantized states): its own nbytes is that of what it stands for
            return _bytes(getattr(value, name) for name in value.__tensor_flatten__()[0])
        _tensor_classes.add(type(value))
        return int(value.nbytes)
    if isinstance(value, Mapping):
        return _bytes(value.values())
    if isinstance(value, (list, tuple, set, frozenset)):
        return _bytes(value)
    return _replanned(value) if _is_open(value) else 0


def _replanned(value: Any) -> int:
    _plans.setdefault(type(value), {})[len(value.__dict__)] = _plan(value)
    _above.add(id(value))
    try:
        return _bytes((value,))
    finally:
        _above.discard(id(value))


def _is_open(value: Any) -> bool:
    return hasattr(value, "__dict__") and _CLOSED.isdisjoint(base.__name__ for base in type(value).__mro__)


def _plan(value: Any) -> _Plan:
    tensors, others = [], []
    seen: set[int] = set()
    for name, inner in value.__dict__.items():
        if inner is None or type(inner) in _tensor_classes or _is_plain_tensor(inner):
            # an attribute that leads to a tensor already counted is a second name of it
            if inner is None or id(inner) not in seen:
                tensors.append(name)
                seen.add(id(inner))
        elif _is_container(inner) or hasattr(inner, "untyped_storage") or _is_open(inner):
            inside = inner.values() if isinstance(inner, Mapping) else inner if _is_container(inner) else ()
            if _above.isdisjoint(map(id, (inner, *inside))) and inner is not value:
                others.append(name)
    return tuple(tensors), tuple(others)


def _is_plain_tensor(value: Any) -> bool:
    return hasattr(value, "untyped_storage") and not hasattr(value, "__tensor_flatten__")


def _is_container(value: Any) -> bool:
    return isinstance(value, (Mapping, list, tuple, set, frozenset))
