"""A configuration with some of its sizes changed: what if it had fewer layers, more heads, another vocabulary?"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from tokentape.errors import UsageError
from tokentape.study.cost.architecture import family_of, text_config
from tokentape.study.cost.blocks import Architecture
from tokentape.study.cost.configuration import Config, Field

__all__ = ["CHANGES", "altered", "read_number", "read_values", "sizes"]

CHANGES = {
    "layers": "layers",
    "hidden": "hidden",
    "heads": "heads",
    "kv_heads": "kv_heads",
    "intermediate": "inner",
    "vocab": "vocab",
}
"""What can be changed, and the role that it has in the table of families."""

_STALE = {"layers": ("moe_layers", "full_attn_idxs", "attn_layer_indices")}
"""Fields that count blocks one by one, and would contradict a changed number of them."""

_NUMBER = re.compile(r"(\d+(?:\.\d+)?)([kKmM]?)")


def altered(fields: Mapping[str, Any], **changes: int | None) -> dict[str, Any]:
    """The text part of a configuration with some sizes changed; what is None stays.

    ``changes`` are those of :data:`CHANGES`. Heads keep a width that the configuration sets apart from the model's width
    over their number; else it follows. Key-value heads follow the heads where there were as many. Everything else, the
    intermediate size too, stays what it was. Raises UsageError for a size below 1, or one that the family does not have.
    """
    config = text_config(fields)
    wanted = {name: value for name, value in changes.items() if value is not None}
    if not wanted:
        return dict(config.fields)
    family = family_of(config)
    made = dict(config.fields)
    for name, value in wanted.items():
        field = getattr(family, CHANGES[name])
        if not isinstance(field, Field):
            raise _not_a_field(name, config.model_type)
        if isinstance(value, bool) or value < 1:
            raise UsageError(
                f"{name} is {value}", why="a size is 1 or more", fix=f"--{name.replace('_', '-')} 1 or more"
            )
        _set(made, field, value)
        for stale in _STALE.get(name, ()):
            made.pop(stale, None)
    if "heads" in wanted or "hidden" in wanted:
        _follow(config, made, wanted)
    return made


def _set(fields: dict[str, Any], field: Field, value: int) -> None:
    names = [name for name in field.names if Config(fields).get(name, field) is not field] or [field.names[0]]
    for name in names:
        outer, _, inner = name.partition(".")
        if inner:
            fields[outer] = (
                {**fields[outer], inner: value} if isinstance(fields.get(outer), Mapping) else {inner: value}
            )
        else:
            fields[outer] = value


def _follow(before: Config, made: dict[str, Any], wanted: Mapping[str, int]) -> None:
    family = family_of(before)
    if not isinstance(family.heads, Field):
        return
    heads, hidden = before.value(family.heads), before.value(family.hidden)
    told = before.get("head_dim")
    if told is not None and told * heads == hidden:
        after = Config(made)
        new_heads, new_hidden = after.value(family.heads), after.value(family.hidden)
        if new_hidden % new_heads:
            made["head_dim"] = None  # reading it refuses, and says what would be needed
        else:
            made["head_dim"] = new_hidden // new_heads
    follows = "heads" in wanted and "kv_heads" not in wanted and isinstance(family.kv_heads, Field)
    if follows and before.value(family.kv_heads) == heads:
        _set(made, family.kv_heads, wanted["heads"])


def _not_a_field(name: str, model_type: str) -> UsageError:
    why = {
        "kv_heads": "in this family it follows from other fields",
        "intermediate": "in this family it is a multiple of the width",
        "heads": "this family has no attention heads",
    }.get(name, "this family has no field for it")
    return UsageError(
        f"{name.replace('_', ' ')} of a {model_type!r} cannot be changed alone",
        why=why,
        fix="change another size, or a copy of its config.json",
    )


def read_values(text: str) -> tuple[str, tuple[int, ...]]:
    """``"layers=12,24"`` or ``"context=1k..128k"`` as a name and its values; ``k`` is 1,024, a range doubles.

    Raises UsageError for what cannot be read, and for a name that is neither a size nor context or batch.
    """
    name, _, listed = text.partition("=")
    name = name.strip().replace("-", "_")
    known = (*CHANGES, "context", "batch", "new_tokens", "tensor_parallel")
    if name not in known or not listed.strip():
        raise UsageError(
            f"cannot vary {text!r}",
            why=f"a name and its values are needed; names are {', '.join(known)}",
            fix="--vary layers=12,24,48 or --vary context=1k..128k",
        )
    values: list[int] = []
    for item in listed.split(","):
        first, dots, last = item.strip().partition("..")
        low = read_number(first, name)
        if not dots:
            values.append(low)
            continue
        high = read_number(last, name)
        if high < low or low < 1:
            raise UsageError(
                f"cannot vary {text!r}", why=f"{item!r} is no range upwards", fix="--vary context=1k..128k"
            )
        while low < high:
            values.append(low)
            low *= 2
        values.append(high)
    if len(values) > 100:
        raise UsageError(f"{len(values)} values are too many", why="a table shows at most 100", fix="a shorter list")
    return name, tuple(dict.fromkeys(values))


def read_number(text: str, name: str) -> int:
    """A whole number as it is written, ``8k`` being 8,192; raises UsageError for anything else."""
    found = _NUMBER.fullmatch(text.strip())
    if found is None:
        raise UsageError(f"{name} is {text!r}", why="it is a whole number, 1 or more", fix=f"{name} 4096, or 4k")
    scale = {"": 1, "k": 1024, "m": 1024 * 1024}[found[2].lower()]
    return round(float(found[1]) * scale)


def sizes(architecture: Architecture) -> dict[str, int]:
    """The sizes of an architecture that matter to its cost, by their plain names."""
    found = {"layers": len(architecture.blocks), "hidden": architecture.hidden, "vocab": architecture.vocab}
    if architecture.heads:
        found |= {"heads": architecture.heads, "kv_heads": architecture.kv_heads}
    inner = max(
        (m.n_out for m in architecture.matrices if m.role in ("mlp", "expert") and m.n_in == architecture.hidden),
        default=0,
    )
    experts = max((m.copies for m in architecture.matrices if m.role == "expert"), default=0)
    active = max((m.active for m in architecture.matrices if m.role == "expert"), default=0)
    return (
        found
        | ({"intermediate": inner} if inner else {})
        | ({"experts": experts, "active_experts": active} if experts else {})
    )
