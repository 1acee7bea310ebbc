"""Which field of a config.json says what, family by family: a table.

Defaults are those of the family's configuration class in transformers 5.23, for files that leave a field out; sizes have
none, since a file without them describes no model.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from tokentape.study.cost.configuration import Field
from tokentape.study.cost.layers import (
    Kinds,
    Places,
    after,
    all_blocks,
    asked,
    at,
    bamba_kinds,
    bigcode_kv_heads,
    both,
    even_sliding,
    every,
    falcon_kv_heads,
    falcon_norms,
    griffin_inner,
    griffin_kinds,
    in_use,
    interleaved,
    jamba_experts,
    jamba_kinds,
    lfm_inner,
    lfm_kinds,
    listed,
    not_first,
    off,
    recurrent,
    sparse_step,
    stablelm_norms,
    uniform,
)

__all__ = ["FAMILIES", "Experts", "Family"]

LAYERS, HIDDEN, VOCAB = Field(("num_hidden_layers",)), Field(("hidden_size",)), Field(("vocab_size",))
HEADS, KV_HEADS, HEAD_DIM = Field(("num_attention_heads",)), at("num_key_value_heads"), at("head_dim")
INNER, POSITIONS = Field(("intermediate_size",)), at("max_position_embeddings")


def kv(default: int) -> Field:
    return at("num_key_value_heads", default=default)


def dim(default: int) -> Field:
    return at("head_dim", default=default)


@dataclass(frozen=True, slots=True)
class Experts:
    """A mixture of experts: how many, how many a token uses, how wide each is, in which blocks.

    ``shared`` is the width of experts that every token uses (times ``n_shared``), ``shared_gate`` says that a gate of one
    value weighs them.
    """

    n: Any
    active: Any
    inner: Any = INNER
    where: Places = all_blocks
    shared: Any = None
    n_shared: Any = 1
    shared_gate: bool = False
    bias: Any = False
    router_bias: Any = False


@dataclass(frozen=True, slots=True)
class Family:
    """Fields and traits of one family; a value is a :class:`Field`, a literal, or a function of the configuration.

    ``norm`` counts the parameters of a norm per value: 2 with a bias, 1 without, 0 for none. ``qk_norm`` is what the norms of
    queries and keys run over: ``"head"`` one head, ``"all"`` all heads, ``"bare"`` all heads and without a bias.
    """

    layers: Any = LAYERS
    hidden: Any = HIDDEN
    vocab: Any = VOCAB
    heads: Any = HEADS
    kv_heads: Any = KV_HEADS
    head_dim: Any = HEAD_DIM
    inner: Any = INNER
    inner_factor: Any = None
    positions: Any = POSITIONS
    learned: int | None = None
    tied: bool = False
    norm: int = 1
    norms: Any = 2
    outer_norms: int = 1
    extra: int = 0
    qkv_bias: Any = False
    out_bias: Any = False
    mlp_bias: Any = False
    head_bias: Any = False
    gated: bool = True
    gated_query: bool = False
    sinks: bool = False
    qk_norm: Any = None
    kinds: Kinds = uniform
    pattern: Kinds | None = None
    window: Any = None
    experts: Experts | None = None
    mixer: str | None = None
    latent: bool = False
    has_mlp: bool = True
    projected: Any = None


_LLAMA = Family(qkv_bias=off("attention_bias"), out_bias=off("attention_bias"), mlp_bias=off("mlp_bias"))
_WINDOW = at("sliding_window", default=4096)
_MAYBE_WINDOW = at("sliding_window")
_ATTENTION_BIAS: dict[str, Any] = {"qkv_bias": off("attention_bias"), "out_bias": off("attention_bias")}
_ALL_BIASES: dict[str, Any] = {"qkv_bias": True, "out_bias": True, "mlp_bias": True}
_GPT = Family(
    layers=Field(("n_layer",)),
    hidden=Field(("n_embd",)),
    heads=Field(("n_head",)),
    kv_heads=None,
    head_dim=None,
    inner=at("n_inner"),
    inner_factor=4,
    positions=Field(("n_positions",)),
    norm=2,
    gated=False,
    **_ALL_BIASES,
)
_MIXTRAL = Experts(at("num_local_experts", default=8), at("num_experts_per_tok", default=2))
_QWEN_MOE = Experts(
    at("num_experts", "num_local_experts", default=128),
    at("num_experts_per_tok", default=8),
    at("moe_intermediate_size", default=768),
    sparse_step,
)
_DEEPSEEK = Experts(
    at("n_routed_experts", default=256),
    at("num_experts_per_tok", default=8),
    at("moe_intermediate_size", default=2048),
    not_first("first_k_dense_replace", 3),
    shared=at("moe_intermediate_size", default=2048),
    n_shared=at("n_shared_experts", default=1),
)
_GEMMA = Family(head_dim=dim(256), tied=True, **_ATTENTION_BIAS)
_GEMMA2 = replace(_GEMMA, norms=4, kv_heads=kv(4), window=_WINDOW, kinds=listed, pattern=even_sliding)
_PATTERN: dict[str, Any] = {"window": _WINDOW, "kinds": listed}
_QWEN2 = Family(qkv_bias=True, kv_heads=kv(32), window=in_use(), kinds=listed, pattern=after)

FAMILIES: dict[str, Family] = {
    # dense
    "llama": _LLAMA,
    "mistral": Family(kv_heads=kv(8), window=_WINDOW),
    "ministral": Family(kv_heads=kv(8), window=_WINDOW, kinds=listed),
    "qwen2": _QWEN2,
    "qwen3": replace(
        _QWEN2, qkv_bias=off("attention_bias"), out_bias=off("attention_bias"), qk_norm="head",
        head_dim=dim(128),
    ),
    "gemma": replace(_GEMMA, kv_heads=kv(16)),
    "gemma2": _GEMMA2,
    "gemma3_text": replace(_GEMMA2, qk_norm="head", pattern=every(at("sliding_window_pattern", default=6))),
    "phi3": Family(head_dim=None, window=_MAYBE_WINDOW),
    "phi": Family(
        norm=2, norms=1, head_bias=True, gated=False, head_dim=None, qk_norm=asked("qk_layernorm", "head"), **_ALL_BIASES
    ),
    "granite": _LLAMA,
    "helium": replace(_LLAMA, kv_heads=kv(20), head_dim=dim(128)),
    "arcee": replace(_LLAMA, gated=False),
    "smollm3": replace(
        _LLAMA, tied=True, head_dim=None, kv_heads=kv(4), window=in_use(None), kinds=listed
    ),
    "seed_oss": replace(
        _LLAMA, qkv_bias=at("attention_bias", default=True), out_bias=off("attention_out_bias"),
        kv_heads=kv(8), head_dim=dim(128),
    ),
    "glm": replace(
        _LLAMA, qkv_bias=at("attention_bias", default=True), out_bias=False, mlp_bias=False,
        kv_heads=kv(2), head_dim=dim(128),
    ),
    "glm4": replace(
        _LLAMA, qkv_bias=at("attention_bias", default=True), out_bias=False, mlp_bias=False, norms=4,
        kv_heads=kv(2), head_dim=dim(128),
    ),
    "ernie4_5": Family(
        tied=True, qkv_bias=off("use_bias"), out_bias=off("use_bias"), mlp_bias=off("use_bias"),
        kv_heads=kv(2), head_dim=dim(128),
    ),
    "hunyuan_v1_dense": replace(_LLAMA, mlp_bias=False, qk_norm="head"),
    "apertus": Family(gated=False, qk_norm="head", extra=2, head_dim=None, **_ATTENTION_BIAS),
    "exaone4": Family(qk_norm="head", window=_WINDOW, kinds=listed, pattern=every(at("sliding_window_pattern", default=4))),
    "olmo": Family(norm=0, head_dim=None, **_ATTENTION_BIAS),
    "olmo2": Family(qk_norm="all", head_dim=None, **_ATTENTION_BIAS),
    "olmo3": Family(qk_norm="all", pattern=every(4), **_PATTERN, **_ATTENTION_BIAS),
    "cohere": Family(
        norms=1, tied=True, qk_norm=asked("use_qk_norm", "all"), **_ATTENTION_BIAS
    ),
    "cohere2": Family(norms=1, tied=True, pattern=every(at("sliding_window_pattern", default=4)), **_PATTERN, **_ATTENTION_BIAS),
    "stablelm": Family(
        norm=2, norms=stablelm_norms, qkv_bias=off("use_qkv_bias"),
        qk_norm=asked("qk_layernorm", "bare"),
    ),
    "starcoder2": Family(
        norm=2, tied=True, gated=False, kv_heads=kv(2), window=_MAYBE_WINDOW,
        qkv_bias=at("use_bias", default=True), out_bias=at("use_bias", default=True), mlp_bias=at("use_bias", default=True),
    ),
    "nemotron": replace(_LLAMA, norm=2, gated=False),
    "persimmon": Family(
        norm=2, gated=False, kv_heads=None, head_dim=None, qk_norm=asked("qk_layernorm", "head", True), **_ALL_BIASES
    ),
    "gpt_neox": Family(
        norm=2, gated=False, kv_heads=None, head_dim=None, mlp_bias=True,
        qkv_bias=at("attention_bias", default=True), out_bias=at("attention_bias", default=True),
    ),
    "gpt2": replace(_GPT, tied=True, learned=0),
    "gptj": replace(_GPT, norms=1, qkv_bias=False, out_bias=False, head_bias=True),
    "codegen": replace(_GPT, norms=1, qkv_bias=False, out_bias=False, head_bias=True),
    "gpt_bigcode": replace(
        _GPT, tied=True, learned=0, kv_heads=bigcode_kv_heads
    ),
    "gpt_neo": Family(
        layers=Field(("num_layers",)), heads=Field(("num_heads",)), kv_heads=None, inner=at("intermediate_size"),
        inner_factor=4, learned=0, tied=True, norm=2, gated=False, out_bias=True, mlp_bias=True,
    ),
    "opt": Family(
        inner=Field(("ffn_dim",)), kv_heads=None, learned=2, tied=True, norm=2, gated=False,
        outer_norms=1, projected=at("word_embed_proj_dim"),
        qkv_bias=at("enable_bias", default=True), out_bias=at("enable_bias", default=True),
        mlp_bias=at("enable_bias", default=True),
    ),
    "xglm": Family(
        layers=Field(("num_layers",)), hidden=Field(("d_model",)), heads=Field(("attention_heads",)), kv_heads=None,
        inner=Field(("ffn_dim",)), tied=True, norm=2, gated=False, **_ALL_BIASES,
    ),
    "bloom": Family(
        layers=Field(("n_layer", "num_hidden_layers")), hidden=Field(("hidden_size", "n_embed")),
        heads=Field(("n_head", "num_attention_heads")), kv_heads=None, head_dim=None, inner=None, inner_factor=4,
        positions=None, tied=True, norm=2, outer_norms=2, gated=False, **_ALL_BIASES,
    ),
    "falcon": Family(
        layers=Field(("num_hidden_layers", "n_layer")), heads=Field(("num_attention_heads", "n_head")),
        kv_heads=falcon_kv_heads, head_dim=None, inner=at("ffn_hidden_size"), inner_factor=4, tied=True,
        norm=2, norms=falcon_norms, gated=False, qkv_bias=off("bias"), out_bias=off("bias"), mlp_bias=off("bias"),
    ),
    "mpt": Family(
        layers=Field(("n_layers",)), hidden=Field(("d_model",)), heads=Field(("n_heads",)), kv_heads=None, head_dim=None,
        inner=None, inner_factor=at("expansion_ratio", default=4), positions=at("max_seq_len"), tied=True,
        gated=False,
    ),
    # mixtures of experts
    "mixtral": Family(kv_heads=kv(8), window=_MAYBE_WINDOW, experts=_MIXTRAL),
    "phimoe": Family(
        norm=2, kv_heads=kv(8), head_bias=off("lm_head_bias"), window=_MAYBE_WINDOW,
        experts=replace(_MIXTRAL, n=at("num_local_experts", default=16)), **_ATTENTION_BIAS,
    ),
    "granitemoe": Family(experts=_MIXTRAL, **_ATTENTION_BIAS),
    "olmoe": Family(
        qk_norm="all", experts=Experts(at("num_experts", default=64), at("num_experts_per_tok", default=8)),
        **_ATTENTION_BIAS,
    ),
    "qwen2_moe": Family(
        qkv_bias=at("qkv_bias", default=True), kv_heads=kv(16), head_dim=None,
        window=in_use(), kinds=listed,
        experts=replace(
            _QWEN_MOE, n=at("num_experts", default=60), active=at("num_experts_per_tok", default=4),
            inner=at("moe_intermediate_size", default=1408), shared=at("shared_expert_intermediate_size", default=5632),
            shared_gate=True,
        ),
    ),
    "qwen3_moe": Family(
        qk_norm="head", kv_heads=kv(4), window=in_use(), experts=_QWEN_MOE,
        **_ATTENTION_BIAS,
    ),
    "gpt_oss": Family(
        kv_heads=kv(8), head_dim=dim(64), sinks=True,
        qkv_bias=at("attention_bias", default=True), out_bias=at("attention_bias", default=True),
        window=at("sliding_window", default=128), kinds=listed, pattern=even_sliding,
        experts=Experts(
            at("num_local_experts", default=128), at("num_experts_per_tok", "experts_per_token", default=4),
            bias=True, router_bias=True,
        ),
    ),
    "glm4_moe": Family(
        qkv_bias=off("attention_bias"), kv_heads=kv(8),
        qk_norm=asked("use_qk_norm", "head"),
        experts=replace(
            _DEEPSEEK, n=at("n_routed_experts", default=128), inner=at("moe_intermediate_size", default=1408),
            shared=at("moe_intermediate_size", default=1408), where=not_first("first_k_dense_replace", 1),
        ),
    ),
    "dots1": Family(
        qk_norm="head", kinds=listed, window=_WINDOW, **_ATTENTION_BIAS,
        experts=replace(
            _DEEPSEEK, n=at("n_routed_experts"), where=not_first("first_k_dense_replace", 0),
            active=at("num_experts_per_tok"), inner=at("moe_intermediate_size", default=1408),
            shared=at("moe_intermediate_size", default=1408), n_shared=at("n_shared_experts"),
        ),
    ),
    "dbrx": Family(
        layers=Field(("n_layers",)), hidden=Field(("d_model",)), heads=Field(("n_heads",)), head_dim=None,
        kv_heads=at("attn_config.kv_n_heads", default=1), inner=None, positions=at("max_seq_len"),
        experts=Experts(
            at("ffn_config.moe_num_experts", default=4), at("ffn_config.moe_top_k", default=1),
            at("ffn_config.ffn_hidden_size", default=3584),
        ),
    ),
    "llama4_text": Family(
        kv_heads=kv(8), head_dim=dim(128),
        inner=at("intermediate_size_mlp", default=16384), kinds=listed, window=at("attention_chunk_size", default=8192),
        pattern=every(at("no_rope_layer_interval", default=4)), **_ATTENTION_BIAS,
        experts=Experts(
            at("num_local_experts", default=16), at("num_experts_per_tok", default=1), where=interleaved,
            shared=Field(("intermediate_size",)),
        ),
    ),
    "deepseek_v2": Family(
        latent=True, experts=replace(
            _DEEPSEEK, n=at("n_routed_experts", default=64), active=at("num_experts_per_tok"),
            where=not_first("first_k_dense_replace", 0), inner=at("moe_intermediate_size", default=1407),
            shared=at("moe_intermediate_size", default=1407), n_shared=at("n_shared_experts", default=2),
        ),
        mlp_bias=off("mlp_bias"), **_ATTENTION_BIAS,
    ),
    "deepseek_v3": Family(latent=True, experts=_DEEPSEEK, **_ATTENTION_BIAS),
    # recurrent, and attention with recurrence
    "mamba": Family(heads=None, tied=True, norms=1, kinds=recurrent, mixer="mamba", has_mlp=False, positions=None),
    "falcon_mamba": Family(heads=None, tied=True, norms=1, kinds=recurrent, mixer="mamba", has_mlp=False, positions=None),
    "mamba2": Family(heads=None, norms=1, kinds=recurrent, mixer="mamba2", has_mlp=False, positions=None),
    "rwkv": Family(heads=None, norm=2, kinds=recurrent, mixer="rwkv", has_mlp=False, positions=None),
    "jamba": Family(
        kv_heads=kv(8), head_dim=None, kinds=jamba_kinds, mixer="mamba",
        experts=Experts(
            at("num_experts", default=16), at("num_experts_per_tok", default=2), where=jamba_experts
        ),
    ),
    "recurrent_gemma": Family(
        tied=True, inner=griffin_inner,
        mlp_bias=True, qkv_bias=off("attention_bias"), out_bias=True, kinds=griffin_kinds,
        window=at("attention_window_size", default=2048), mixer="rglru", positions=None,
    ),
    "qwen3_next": Family(
        qk_norm="head", kv_heads=kv(2), head_dim=dim(256),
        gated_query=True, mixer="deltanet", kinds=listed, pattern=every(4, usual="recurrent"), **_ATTENTION_BIAS,
        experts=replace(
            _QWEN_MOE, n=at("num_experts", default=512), active=at("num_experts_per_tok", default=10),
            inner=at("moe_intermediate_size", default=512), shared=at("shared_expert_intermediate_size", default=512),
            shared_gate=True,
        ),
    ),
    "falcon_h1": replace(
        _LLAMA, kv_heads=kv(8), kinds=both,
        mixer="mamba2",
    ),
    "bamba": replace(
        _LLAMA, kv_heads=kv(8), head_dim=None, kinds=bamba_kinds, mixer="mamba2"
    ),
    "granitemoehybrid": Family(
        head_dim=None, experts=replace(_MIXTRAL, shared=at("shared_intermediate_size", default=1024)),
        mixer="mamba2", kinds=listed, pattern=recurrent, **_ATTENTION_BIAS,
    ),
    "lfm2": Family(
        tied=True, inner=lfm_inner, kv_heads=kv(8), qk_norm="head", head_dim=None, kinds=listed, pattern=lfm_kinds,
        mixer="short_conv",
    ),
}  # fmt: skip
"""By ``model_type``."""
