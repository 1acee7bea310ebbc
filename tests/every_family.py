"""A tiny model of every family that transformers offers as a causal language model, with random weights.

Configurations are shrunk field by field: whatever a family calls its width or its number of experts, :data:`SMALL` has a
small value for it. :data:`EXTRAS` has what a family needs besides; :data:`NOT_BUILT` says of the others why they are not here.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from transformers import AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from families import VOCAB, tokenizer
from tokentape.models.architecture import positions_of
from tokentape.models.causal import CausalModel

_WIDTH = dict.fromkeys(
    "hidden_size n_embd d_model dim emb_dim embedding_dim embedding_size embed_dim word_embed_proj_dim lru_width".split(),
    32,
)
_INNER = dict.fromkeys(
    "intermediate_size ffn_dim n_inner ffn_hidden_size decoder_ffn_dim dff feed_forward_size dense_intermediate_size".split(),
    48,
)
_EXPERT_INNER = dict.fromkeys(
    "moe_intermediate_size shared_expert_intermediate_size shared_intermediate_size intermediate_size_mlp "
    "expert_ffn_hidden_size".split(),
    16,
)
_LAYERS = dict.fromkeys("num_hidden_layers n_layer n_layers num_layers decoder_layers num_blocks".split(), 2)
_HEADS = dict.fromkeys(
    "num_attention_heads n_head n_heads num_heads decoder_attention_heads attention_heads".split(), 4
)
_HEAD = dict.fromkeys("head_dim attention_head_dim swa_head_dim v_head_dim qk_nope_head_dim kv_channels".split(), 8)
_POSITIONS = dict.fromkeys(
    "max_position_embeddings n_positions n_ctx max_seq_len context_length max_target_positions".split(), 128
)
_EXPERTS = dict.fromkeys("num_experts num_local_experts n_routed_experts moe_num_experts".split(), 4)
_CHOSEN = dict.fromkeys("num_experts_per_tok moe_k top_k_experts moe_top_k moe_topk".split(), 2)
_WINDOW = dict.fromkeys("sliding_window attention_window_size window_size".split(), 16)
_STATE = dict.fromkeys(
    "state_size mamba_d_state ssm_state_size mamba_n_heads n_mamba_heads mamba_num_heads mamba_d_head mamba_head_dim "
    "mamba_headdim mamba_chunk_size chunk_size linear_key_head_dim linear_value_head_dim index_head_dim".split(),
    8,
)
_ONE = dict.fromkeys(
    "n_group topk_group n_shared_experts num_shared_experts first_k_dense_replace num_dense_layers moe_layer_start_index "
    "mamba_n_groups mamba_ngroups n_groups".split(),
    1,
)

SMALL: dict[str, Any] = {
    "vocab_size": VOCAB,
    "bos_token_id": 257,
    "eos_token_id": 258,
    "pad_token_id": 259,
    **_WIDTH,
    **_INNER,
    **_EXPERT_INNER,
    **_LAYERS,
    **_HEADS,
    **_HEAD,
    **_POSITIONS,
    **_EXPERTS,
    **_CHOSEN,
    **_WINDOW,
    **_STATE,
    **_ONE,
    "num_key_value_heads": 2,
    "num_kv_heads": 2,
    "qk_rope_head_dim": 4,
    "qk_head_dim": 12,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "mlp_only_layers": [],
    "mamba_dt_rank": 4,
    "time_step_rank": 4,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "rotary_dim": 8,
    "index_n_heads": 2,
    "index_topk": 64,
    "adapter_rank": 4,
    "altup_num_inputs": 2,
    "laurel_rank": 4,
    "hidden_size_per_layer_input": 8,
    "vocab_size_per_layer_input": VOCAB,
    "is_decoder": True,
    "use_cache": True,
}
"""Small values for the fields of configurations; ids are those of :func:`families.tokenizer`."""

# Positions are counted from the id of the padding on, so that there have to be more of them.
_LONG = "camembert data2vec-text roberta roberta-prelayernorm xglm xlm-roberta xlm-roberta-xl".split()
# Latent attention: every head has keys of its own, and the rotary part is what the configuration calls the head.
_LATENT = (
    "axk1 axk2 deepseek_v2 deepseek_v3 deepseek_v32 dots3_note_text longcat_flash youtu minicpm3 glm4_moe_lite glm_moe_dsa"
).split()
# Every fourth layer is one of attention, and a hybrid without any cannot tell how long its cache is.
_FOUR = "lfm3 qwen3_next qwen3_5_text qwen3_5_moe_text".split()
_HYBRID = {"num_hidden_layers": 4, "layers_block_type": ["linear_attention", "hybrid"] * 2}

EXTRAS: dict[str, dict[str, Any]] = {
    **{family: {"max_position_embeddings": 320} for family in _LONG},
    **{family: {"num_key_value_heads": 4, "head_dim": 4} for family in _LATENT},
    **{family: {"num_hidden_layers": 4} for family in _FOUR},
    "bailing_hybrid": {"layer_group_size": 2, "n_group": 1, "num_key_value_heads": 4, "num_experts_per_tok": 2},
    "bamba": {"attn_layer_indices": [1]},
    # the block-sparse kind is exchanged at the first short prompt, which draws random weights once more
    "big_bird": {"attention_type": "original_full"},
    "cohere_compass_text": {"rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 10000.0}}},
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "rope_theta": 10000.0, "clip_qkv": 8.0},
        "ffn_config": {"ffn_hidden_size": 48, "moe_num_experts": 4, "moe_top_k": 2},
    },
    "falcon_h1": {"mamba_d_ssm": 64},
    "gemma3n_text": {
        "num_hidden_layers": 4,
        "num_kv_shared_layers": 2,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
    },
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "granitemoehybrid": {"layer_types": ["mamba", "attention"]},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "kimi_linear": {
        "layer_types": ["linear_attention", "full_attention"],
        "num_key_value_heads": 4,
        "linear_head_dim": 8,
        "linear_num_heads": 4,
        "num_experts_per_tok": 2,
    },
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "mamba2": {"num_heads": 8},
    "qwen4_exp_text": {
        "num_hidden_layers": 4,
        "indexer_n_heads": 2,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 8,
        "indexer_budget": 64,
        "indexer_compress_ratio": 4,
        "hc_lowrank": 8,
    },
    "recurrent_gemma": {"num_hidden_layers": 3, "num_key_value_heads": 1},
    "reformer": {
        "attn_layers": ["local", "lsh"],
        "axial_pos_shape": [8, 16],
        "axial_pos_embds_dim": [16, 16],
        "local_attn_chunk_length": 8,
        "lsh_attn_chunk_length": 8,
        "attention_head_size": 8,
        "num_buckets": 4,
    },
    "xlm": {"causal": True},
    "xlstm": {"hidden_size": 128, "embedding_dim": 128},
    "xmod": {"max_position_embeddings": 320, "default_language": "en_XX"},
    "zamba": {**_HYBRID, "attention_head_dim": 16, "n_mamba_heads": 2},
    "zamba2": _HYBRID,
    "zaya": {"num_experts_per_tok": 1},
}

_ENCODER_DECODER = "an encoder-decoder: refused by name when it is loaded"
_MANY_KINDS = "a model of images or sound as well; a family of its text part alone is offered beside it"
_PICTURES = "a model of images or sound as well, whose text part is not offered alone"

NOT_BUILT: dict[str, str] = {
    **dict.fromkeys(
        "bart bigbird_pegasus blenderbot blenderbot-small marian mbart musicgen musicgen_melody mvp pegasus plbart "
        "prophetnet whisper".split(),
        _ENCODER_DECODER,
    ),
    **dict.fromkeys(
        "dots3_note gemma3 gemma3n gemma4 gemma4_unified llama4 qwen3_5 qwen3_5_moe qwen4_exp".split(), _MANY_KINDS
    ),
    **dict.fromkeys("emu3 fuyu git got_ocr2 mllama moss_transcribe_diarize phi4_multimodal".split(), _PICTURES),
    "gemma4_assistant": "a draft for assisted decoding: it reads the states of the model that it helps",
    "gemma4_unified_assistant": "a draft for assisted decoding: it reads the states of the model that it helps",
    "blt": "generate() of transformers 5.23 asks its configuration for num_hidden_layers, which it does not have",
    "cpmant": "it reads its prompt in both directions: refused by name when it is loaded",
    "xlnet": "it predicts words in permuted order: refused by name when it is loaded",
}
"""Families of transformers' causal mapping that no tiny model is made of here, and why."""

FAMILIES = sorted(set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES) - set(NOT_BUILT))


def config_of(family: str) -> Any:
    """The family's configuration with every size small."""
    kind = CONFIG_MAPPING[family]
    fields = kind().to_dict()
    return kind(**{**{name: value for name, value in SMALL.items() if name in fields}, **EXTRAS.get(family, {})})


@functools.lru_cache(maxsize=2)
def tiny(family: str) -> CausalModel:
    """A tiny model of the family, its weights random under a fixed seed and large enough that its choices vary."""
    torch.manual_seed(1)
    made = AutoModelForCausalLM.from_config(config_of(family)).eval().requires_grad_(False)
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4)
    return CausalModel(made, tokenizer(), family, None, None, positions_of(made.config), VOCAB)
