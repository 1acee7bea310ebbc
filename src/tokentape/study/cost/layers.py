"""The rules that the table of families names: which kind of block stands where, and values made of several fields."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tokentape.study.cost.configuration import Config, Field

if TYPE_CHECKING:
    from tokentape.study.cost.families import Family

__all__ = ["KINDS", "Kinds", "Places"]

Kinds = Callable[[Config, Any, int], list[str]]
"""A function of the configuration, the family and the number of blocks that names the kind of each block."""

Places = Callable[[Config, int], bool]
"""A function of the configuration and a block's number that says whether the block holds experts."""

KINDS = {
    "full_attention": "attention",
    "attention": "attention",
    "sliding_attention": "sliding",
    "chunked_attention": "sliding",
    "linear_attention": "recurrent",
    "mamba": "recurrent",
    "recurrent": "recurrent",
    "conv": "recurrent",
}
"""Entries of ``layer_types`` and its like, as the kinds of block that they are."""


def at(*names: str, default: Any = None) -> Field:
    """A field that may be left out."""
    return Field(names, default)


def off(name: str) -> Field:
    return Field((name,), False)


# rules: which kind of block stands where


def uniform(config: Config, family: Family, n: int) -> list[str]:
    """All blocks alike: with a window where the configuration has one, else attention to everything."""
    return ["sliding" if config.value(family.window) else "attention"] * n


def recurrent(config: Config, family: Family, n: int) -> list[str]:
    return ["recurrent"] * n


def both(config: Config, family: Family, n: int) -> list[str]:
    """Attention and a recurrence side by side in every block."""
    return ["both"] * n


def listed(config: Config, family: Family, n: int) -> list[str]:
    """As ``layer_types`` lists them; where it is absent, as the family's configuration class would fill it in."""
    types = config.get("layer_types") or config.get("layers_block_type")
    if types is None:
        return family.pattern(config, family, n) if family.pattern is not None else uniform(config, family, n)
    return [KINDS.get(str(types[i % len(types)]), str(types[i % len(types)])) for i in range(n)]


def after(config: Config, family: Family, n: int) -> list[str]:
    """A window from block ``max_window_layers`` on, where windows are in use."""
    first = config.get("max_window_layers", 28)
    windowed = config.value(family.window)
    return ["sliding" if windowed and i >= first else "attention" for i in range(n)]


def every(period: Field | int, special: str = "attention", usual: str = "sliding", offset: int = -1) -> Kinds:
    """Of every ``period`` blocks one is ``special``, the last by default."""

    def rule(config: Config, family: Family, n: int) -> list[str]:
        p = config.value(period) or 0
        return [special if p and i % p == offset % p else usual for i in range(n)]

    return rule


def even_sliding(config: Config, family: Family, n: int) -> list[str]:
    return ["attention" if i % 2 else "sliding" for i in range(n)]


def jamba_kinds(config: Config, family: Family, n: int) -> list[str]:
    period, offset = config.get("attn_layer_period", 8), config.get("attn_layer_offset", 4)
    return ["attention" if i % period == offset else "recurrent" for i in range(n)]


def bamba_kinds(config: Config, family: Family, n: int) -> list[str]:
    chosen = config.get("attn_layer_indices") or []
    return ["attention" if i in chosen else "recurrent" for i in range(n)]


def griffin_kinds(config: Config, family: Family, n: int) -> list[str]:
    types = config.get("block_types") or ["recurrent", "recurrent", "attention"]
    return ["sliding" if types[i % len(types)] == "attention" else "recurrent" for i in range(n)]


def lfm_kinds(config: Config, family: Family, n: int) -> list[str]:
    full = config.get("full_attn_idxs")
    return ["attention" if full is None or i in full else "recurrent" for i in range(n)]


# rules: which blocks hold experts


def sparse_step(config: Config, layer: int) -> bool:
    step = config.get("decoder_sparse_step", 1)
    return layer not in (config.get("mlp_only_layers") or []) and (layer + 1) % step == 0


def all_blocks(config: Config, layer: int) -> bool:
    return True


def not_first(name: str, default: int) -> Places:
    """All but the first so many."""
    return lambda config, layer: layer >= int(config.get(name, default))


def jamba_experts(config: Config, layer: int) -> bool:
    period, offset = config.get("expert_layer_period", 2), config.get("expert_layer_offset", 1)
    return bool(layer % period == offset and config.get("num_experts", 16) > 1)


def interleaved(config: Config, layer: int) -> bool:
    chosen, step = config.get("moe_layers"), config.get("interleave_moe_layer_step", 1)
    return layer in chosen if chosen else bool(step and (layer + 1) % step == 0)


# rules: one value made of several fields


def falcon_kv_heads(config: Config) -> Any:
    heads = config.get("num_attention_heads")
    if config.get("new_decoder_architecture", False):
        return config.get("num_kv_heads") or heads
    return 1 if config.get("multi_query", True) else heads


def griffin_inner(config: Config) -> int:
    return config.size(Field(("intermediate_size",))) // 2


def bigcode_kv_heads(config: Config) -> int | None:
    return 1 if config.get("multi_query", True) else None


def stablelm_norms(config: Config) -> int:
    return 1 if config.get("use_parallel_residual", False) else 2


def falcon_norms(config: Config) -> int:
    if not config.get("parallel_attn", True):
        return 2
    told = config.get("num_ln_in_parallel_attn")
    return int(told) if told is not None else 2 if config.get("new_decoder_architecture", False) else 1


def lfm_inner(config: Config) -> int:
    inner = config.value(Field(("block_ff_dim", "intermediate_size")))
    if not config.get("block_auto_adjust_ff_dim", True):
        return int(inner)
    inner = int(config.get("block_ffn_dim_multiplier", 1.0) * int(2 * inner / 3))
    multiple = config.get("block_multiple_of", 256)
    return int(multiple * ((inner + multiple - 1) // multiple))


def asked(name: str, kind: str, default: bool = False) -> Callable[[Config], str | None]:
    """Norms of queries and keys that the configuration has to ask for."""
    return lambda config: kind if config.get(name, default) else None


def in_use(default: Any = 4096) -> Callable[[Config], Any]:
    """A window that counts only where ``use_sliding_window`` says so."""
    return lambda config: config.get("sliding_window", default) if config.get("use_sliding_window", False) else None
