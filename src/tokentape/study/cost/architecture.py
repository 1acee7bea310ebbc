"""From a config.json to an :class:`~tokentape.study.cost.blocks.Architecture`: no torch, no transformers, no guess."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Mapping
from typing import Any

from tokentape.errors import UsageError
from tokentape.study.cost.blocks import Architecture, Attention, Block, Matrix, State
from tokentape.study.cost.configuration import Config, Field, read_config
from tokentape.study.cost.families import FAMILIES, Experts, Family
from tokentape.study.cost.mixers import MIXERS
from tokentape.study.cost.quantization import quantization_of

__all__ = ["architecture_of", "text_config"]


def architecture_of(config: Any) -> Architecture:
    """The architecture that a configuration describes.

    ``config`` is a mapping, the path of a config.json, a folder that holds one, ``"demo"``, or a tape that knows its
    model's. Of a model that sees or hears too, the text part is taken.

    Raises UsageError for a family that is not in the table, a field that is missing, or sizes that contradict each other.
    """
    if isinstance(config, Architecture):
        return config
    found = text_config(read_config(config))
    family = family_of(found)
    hidden, vocab = found.size(family.hidden), found.size(family.vocab)
    layers = found.size(family.layers)
    kinds = family.kinds(found, family, layers)
    blocks = tuple(_block(found, family, hidden, i, kind) for i, kind in enumerate(kinds))
    projected = _value(found, family.projected) or hidden
    outer = (
        ()
        if projected == hidden
        else (_matrix("projection", projected, hidden), _matrix("projection", hidden, projected))
    )
    positions = _value(found, family.positions)
    table = 0
    if family.learned is not None:
        table = (found.size(Field(family.positions.names)) + family.learned) * hidden
    method, bits, roles = quantization_of(found)
    return Architecture(
        model_type=found.model_type,
        hidden=hidden,
        vocab=vocab,
        blocks=blocks,
        head=Matrix("head", projected, vocab, vocab if _value(found, family.head_bias) else 0),
        tied=bool(found.get("tie_word_embeddings", family.tied)),
        embedding=vocab * projected,
        position_table=table,
        other_parameters=family.outer_norms * family.norm * hidden + _opening(family, hidden),
        outer=outer,
        positions=int(positions) if positions else None,
        dtype=_dtype(found),
        quantization=method,
        bits=bits,
        quantized_roles=roles,
    )


def text_config(fields: Mapping[str, Any]) -> Config:
    """The part of a configuration that describes the text model; what it leaves out it takes from the whole."""
    inner = next(
        (fields[n] for n in ("text_config", "language_config", "llm_config") if isinstance(fields.get(n), Mapping)),
        None,
    )
    if inner is None:
        return Config(fields)
    shared = {
        n: fields[n] for n in ("dtype", "torch_dtype", "tie_word_embeddings", "quantization_config") if n in fields
    }
    return Config({**shared, **inner})


def family_of(config: Config) -> Family:
    """The row of the table; raises UsageError, with what is near, where there is none."""
    name = config.model_type
    if name in FAMILIES:
        return FAMILIES[name]
    near = difflib.get_close_matches(name, FAMILIES, n=3)
    known = f"near it there is {', '.join(near)}" if near else f"{len(FAMILIES)} families are known"
    raise UsageError(
        f"the cost of a {name!r} is not known",
        why=f"its configuration would be read by guessing; {known}",
        fix="record it (tokentape sweep MODEL --random-weights 0) and fit a law; or, if it is built like a known family,"
        ' give a copy of its config.json that says so in "model_type"',
    )


def _value(config: Config, wanted: Any) -> Any:
    return wanted(config) if callable(wanted) else config.value(wanted)


def _matrix(role: str, n_in: int, n_out: int, bias: Any = False, copies: int = 1, active: int = 1) -> Matrix:
    return Matrix(role, n_in, n_out, n_out if bias else 0, copies, active)


def _opening(family: Family, hidden: int) -> int:
    """Parameters of a norm that the first block alone opens with."""
    return family.norm * hidden if family.mixer == "rwkv" else 0


def _dtype(config: Config) -> str | None:
    found = config.get("dtype") or config.get("torch_dtype")
    return str(found).removeprefix("torch.") if found else None


def _block(config: Config, family: Family, hidden: int, layer: int, kind: str) -> Block:
    matrices: list[Matrix] = []
    other = _value(config, family.norms) * family.norm * hidden + family.extra
    attention: Attention | None = None
    state: State | None = None
    if kind not in ("attention", "sliding", "recurrent", "both"):
        raise UsageError(
            f"block {layer} is of the kind {kind!r}",
            why=f"what such a block of a {config.model_type!r} costs is not known",
            fix="record the model and fit a law instead",
        )
    if kind != "recurrent":
        parts = _latent if family.latent else _attention
        window = (
            config.size(_value(config, family.window)) if kind == "sliding" and _value(config, family.window) else None
        )
        kind = "attention" if kind == "sliding" and window is None else kind
        attention, made, further = parts(config, family, hidden, window)
        matrices += made
        other += further
    if kind in ("recurrent", "both"):
        made_by, further, state = MIXERS[str(family.mixer)](config, hidden)
        matrices += made_by
        other += further
    fed = _feed_forward(config, family, hidden, layer) if family.has_mlp else []
    reduces = 1 + bool(fed) if family.mixer != "rwkv" else 2
    return Block(kind, (*matrices, *fed), other, attention, state, reduces)


def _attention(config: Config, family: Family, hidden: int, window: int | None) -> tuple[Attention, list[Matrix], int]:
    heads = config.size(family.heads)
    told = _value(config, family.kv_heads)
    kv_heads = heads if told is None else config.size(told)
    dim = _head_dim(config, family, hidden, heads)
    if heads % kv_heads:
        raise UsageError(
            f"{heads} heads do not share {kv_heads} key-value heads evenly",
            why="each key-value head serves the same number of query heads",
            fix=f"a number of key-value heads that divides {heads}: {_divisors(heads)}",
        )
    bias = _value(config, family.qkv_bias)
    matrices = [
        _matrix("attention", hidden, heads * dim * (2 if family.gated_query else 1), bias),
        _matrix("attention", hidden, kv_heads * dim, bias),
        _matrix("attention", hidden, kv_heads * dim, bias),
        _matrix("attention", heads * dim, hidden, _value(config, family.out_bias)),
    ]
    normed = heads + kv_heads
    over = {None: 0, "head": 2 * dim * family.norm, "all": normed * dim * family.norm, "bare": normed * dim}
    other = over[_value(config, family.qk_norm)] + (heads if family.sinks else 0)
    return Attention(heads, kv_heads, dim, dim, window), matrices, other


def _head_dim(config: Config, family: Family, hidden: int, heads: int) -> int:
    told = _value(config, family.head_dim)
    if told is not None:
        return config.size(told)
    if hidden % heads:
        raise UsageError(
            f"a width of {hidden} cannot be cut into {heads} heads",
            why="each head takes the same part of it",
            fix=f"a number of heads that divides {hidden}: {_divisors(hidden)}; or a width that {heads} divides",
        )
    return hidden // heads


def _divisors(n: int) -> str:
    found = [d for d in range(1, min(n, 512) + 1) if n % d == 0]
    return ", ".join(map(str, found[-8:]))


def _latent(config: Config, family: Family, hidden: int, window: int | None) -> tuple[Attention, list[Matrix], int]:
    """Multi-head latent attention. Source: DeepSeek-AI, "DeepSeek-V2", 2024, section 2.1.

    What is cached is the latent vector and the rotary key that all heads share; transformers makes keys and values of all
    cached positions again at each step, and so it is counted.
    """
    heads = config.size(family.heads)
    rotary, bare = config.size(Field(("qk_rope_head_dim",), 64)), config.size(Field(("qk_nope_head_dim",), 128))
    value_dim, rank = config.size(Field(("v_head_dim",), 128)), config.size(Field(("kv_lora_rank",), 512))
    query_rank = config.get("q_lora_rank", 1536)
    bias = _value(config, family.qkv_bias)
    matrices = [
        _matrix("attention", hidden, rank + rotary, bias),
        _matrix("attention", rank, heads * (bare + value_dim)),
        _matrix("attention", heads * value_dim, hidden, _value(config, family.out_bias)),
    ]
    other = rank
    if query_rank is None:
        matrices.append(_matrix("attention", hidden, heads * (bare + rotary)))
    else:
        matrices.append(_matrix("attention", hidden, query_rank, bias))
        matrices.append(_matrix("attention", query_rank, heads * (bare + rotary)))
        other += query_rank
    expand = 2 * rank * heads * (bare + value_dim)
    return Attention(heads, 1, bare + rotary, value_dim, window, rank + rotary, expand), matrices, other


def _feed_forward(config: Config, family: Family, hidden: int, layer: int) -> list[Matrix]:
    experts = family.experts
    if experts is not None and experts.where(config, layer):
        return _mixture(config, family, experts, hidden)
    inner = _value(config, family.inner)
    width = config.size(family.inner) if inner is None and family.inner_factor is None else inner
    width = int(hidden * _value(config, family.inner_factor)) if width is None else config.size(width)
    return _perceptron("mlp", hidden, width, _value(config, family.mlp_bias), family.gated)


def _perceptron(
    role: str, hidden: int, inner: int, bias: Any, gated: bool, copies: int = 1, active: int = 1
) -> list[Matrix]:
    up = [_matrix(role, hidden, inner, bias, copies, active) for _ in range(2 if gated else 1)]
    return [*up, _matrix(role, inner, hidden, bias, copies, active)]


def _mixture(config: Config, family: Family, experts: Experts, hidden: int) -> list[Matrix]:
    n, active = config.size(experts.n), config.size(experts.active)
    if active > n:
        raise UsageError(
            f"a token uses {active} of {n} experts", why="it cannot use more than there are", fix=f"at most {n}"
        )
    inner = config.size(experts.inner)
    made = _perceptron("expert", hidden, inner, experts.bias, family.gated, n, active)
    made.append(_matrix("router", hidden, n, experts.router_bias))
    shared = _value(config, experts.shared)
    if shared:
        width = config.size(shared) * int(_value(config, experts.n_shared) or 0)
        made += _perceptron("shared", hidden, width, False, family.gated) if width else []
        if experts.shared_gate:
            made.append(_matrix("router", hidden, 1))
    return made


def kinds_text(architecture: Architecture) -> str:
    """``24 attention``, ``12 sliding (128) + 12 attention``: the blocks by kind."""
    counts: Counter[str] = Counter()
    for block in architecture.blocks:
        window = block.attention.window if block.attention is not None else None
        counts[f"{block.kind} ({window:,})" if window else block.kind] += 1
    return " + ".join(f"{n} {kind}" for kind, n in counts.items())
