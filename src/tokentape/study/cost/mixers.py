"""What recurrences are made of: the products, the other parameters and the state of one block.

Each function takes a configuration and the width of the model. The operations of an update are those that its equations
write: a multiply-add counts two, an exponential one.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from tokentape.study.cost.blocks import Matrix, State
from tokentape.study.cost.configuration import Config, Field

__all__ = ["MIXERS", "Parts"]

Parts = tuple[tuple[Matrix, ...], int, State]
"""Products, other parameters, state."""


def _mixer(n_in: int, n_out: int, bias: bool = False, copies: int = 1) -> Matrix:
    return Matrix("mixer", n_in, n_out, n_out if bias else 0, copies, copies)


def _first(config: Config, *names: str, default: int) -> int:
    return config.size(Field(names, default))


def mamba(config: Config, hidden: int) -> Parts:
    """Selective state space. Source: Gu and Dao, "Mamba", 2023, algorithm 2."""
    expand = config.value(Field(("expand", "mamba_expand"), 2))
    inner = int(expand * hidden)
    if config.model_type in _INNER_GIVEN:
        inner = config.value(Field(("intermediate_size",), None)) or inner
    state = _first(config, "state_size", "mamba_d_state", default=16)
    kernel = _first(config, "conv_kernel", "mamba_d_conv", default=4)
    rank = config.value(Field(("time_step_rank", "mamba_dt_rank"), "auto"))
    rank = math.ceil(hidden / 16) if rank in ("auto", None) else int(rank)
    bias = bool(config.value(Field(("use_bias", "mamba_proj_bias"), False)))
    conv_bias = bool(config.value(Field(("use_conv_bias", "mamba_conv_bias"), True)))
    matrices = (
        _mixer(hidden, 2 * inner, bias),
        _mixer(inner, rank + 2 * state),
        _mixer(rank, inner, True),
        _mixer(inner, hidden, bias),
    )
    other = inner * (state + 1 + kernel + conv_bias)
    if config.model_type in _INNER_NORMS:
        other += rank + 2 * state
    return matrices, other, State(inner * (kernel + state), 0, inner * (2 * kernel + 7 * state + 2), inner * state)


_INNER_GIVEN = frozenset({"mamba", "falcon_mamba"})
"""Families whose intermediate_size is that of the recurrence."""

_INNER_NORMS = frozenset({"jamba"})
"""Families that put a norm on the step and on both projections of the state."""


def mamba2(config: Config, hidden: int) -> Parts:
    """State space duality. Source: Dao and Gu, "Transformers are SSMs", 2024, section 7."""
    expand = config.value(Field(("expand", "mamba_expand"), 2))
    default_inner, default_groups, default_state = _MAMBA2_DEFAULTS.get(config.model_type, (None, 1, 256))
    inner = config.value(Field(("mamba_d_ssm",), default_inner)) or int(expand * hidden)
    heads = _first(config, "num_heads", "mamba_n_heads", default=128)
    groups = _first(config, "n_groups", "mamba_n_groups", default=default_groups)
    state = _first(config, "state_size", "mamba_d_state", default=default_state)
    kernel = _first(config, "conv_kernel", "mamba_d_conv", default=4)
    bias = bool(config.value(Field(("use_bias", "mamba_proj_bias"), False)))
    conv_bias = bool(config.value(Field(("use_conv_bias", "mamba_conv_bias"), True)))
    convolved = inner + 2 * groups * state
    normed = bool(config.value(Field(("mamba_rms_norm",), config.model_type not in _BARE_SSM)))
    matrices = (_mixer(hidden, inner + convolved + heads, bias), _mixer(inner, hidden, bias))
    other = 3 * heads + convolved * (kernel + conv_bias) + (inner if normed else 0)
    return (
        matrices,
        other,
        State(convolved * kernel + inner * state, 0, 2 * convolved * kernel + inner * (7 * state + 2)),
    )


_MAMBA2_DEFAULTS = {"mamba2": (None, 8, 128), "falcon_h1": (1024, 1, 256)}
"""Width, groups and size of the state where a configuration leaves them out."""

_BARE_SSM = frozenset({"falcon_h1"})
"""Families whose recurrence ends without a norm unless they ask for one."""


def rwkv(config: Config, hidden: int) -> Parts:
    """RWKV-4, channel mixing included. Source: Peng et al., "RWKV", 2023, section 3."""
    width = config.value(Field(("attention_hidden_size",), None)) or hidden
    inner = config.value(Field(("intermediate_size",), None)) or 4 * hidden
    matrices = (
        *(_mixer(hidden, width) for _ in range(3)),
        _mixer(width, hidden),
        _mixer(hidden, inner),
        _mixer(hidden, hidden),
        _mixer(inner, hidden),
    )
    return matrices, 2 * width + 5 * hidden, State(2 * hidden, 3 * width, 14 * width)


def rglru(config: Config, hidden: int) -> Parts:
    """Real-gated linear recurrent unit. Source: De et al., "Griffin", 2024, section 2.4."""
    width = config.value(Field(("lru_width",), None)) or hidden
    heads = config.size(Field(("num_attention_heads",)))
    kernel = _first(config, "conv1d_width", default=4)
    gate = _mixer(width // heads, width // heads, True, heads)
    matrices = (_mixer(hidden, width, True), _mixer(hidden, width, True), gate, gate, _mixer(width, hidden, True))
    return matrices, width * (kernel + 2), State((kernel - 1) * width, width, width * (2 * kernel + 12))


def deltanet(config: Config, hidden: int) -> Parts:
    """Gated delta rule. Source: Yang et al., "Gated Delta Networks", 2024, equation 10."""
    key_dim = _first(config, "linear_key_head_dim", default=128)
    value_dim = _first(config, "linear_value_head_dim", default=128)
    keys = _first(config, "linear_num_key_heads", default=16)
    values = _first(config, "linear_num_value_heads", default=32)
    kernel = _first(config, "linear_conv_kernel_dim", default=4)
    convolved = 2 * keys * key_dim + values * value_dim
    matrices = (
        _mixer(hidden, convolved + values * value_dim),
        _mixer(hidden, 2 * values),
        _mixer(values * value_dim, hidden),
    )
    state = State(
        convolved * kernel, values * key_dim * value_dim, 2 * convolved * kernel + 7 * values * key_dim * value_dim
    )
    return matrices, 2 * values + convolved * kernel + value_dim, state


def short_conv(config: Config, hidden: int) -> Parts:
    """Gated short convolution of LFM2."""
    kernel, bias = _first(config, "conv_L_cache", default=3), bool(config.get("conv_bias", False))
    matrices = (_mixer(hidden, 3 * hidden, bias), _mixer(hidden, hidden, bias))
    return matrices, hidden * (kernel + bias), State(hidden * kernel, 0, hidden * (2 * kernel + 2))


MIXERS: dict[str, Callable[[Config, int], Parts]] = {
    "mamba": mamba,
    "mamba2": mamba2,
    "rwkv": rwkv,
    "rglru": rglru,
    "deltanet": deltanet,
    "short_conv": short_conv,
}
"""By the name that a family gives its recurrence."""
