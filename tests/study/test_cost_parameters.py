"""Parameters counted from a configuration equal, to the unit, those of the model that transformers makes of it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM, BloomConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from every_family import FAMILIES as BUILT
from every_family import config_of
from tokentape.study.cost.architecture import architecture_of
from tokentape.study.cost.configuration import REQUIRED, Field
from tokentape.study.cost.counting import workload
from tokentape.study.cost.families import FAMILIES

BLOOMS = {  # hidden, layers, heads: Le Scao et al., "BLOOM", 2022, table 5, and the parameters of the released models
    "560m": (1024, 24, 16, 559_214_592),
    "1b1": (1536, 24, 16, 1_065_314_304),
    "1b7": (2048, 24, 16, 1_722_408_960),
    "3b": (2560, 30, 32, 3_002_557_440),
    "7b1": (4096, 30, 32, 7_069_016_064),
    "176b": (14336, 70, 112, 176_247_271_424),
}

# Sizes that have nothing in common, so that no product can be right by chance.
ODD = {
    "llama": {"hidden_size": 48, "num_attention_heads": 6, "head_dim": 20, "attention_bias": True, "mlp_bias": True},
    "qwen3": {"hidden_size": 48, "num_attention_heads": 6, "num_key_value_heads": 3, "head_dim": 10, "attention_bias": True},
    "gemma3_text": {"hidden_size": 48, "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 10, "num_hidden_layers": 7},
    "olmo2": {"hidden_size": 48, "num_attention_heads": 6, "num_key_value_heads": 2},
    "phi": {"qk_layernorm": True},
    "stablelm": {"qk_layernorm": True, "use_qkv_bias": True, "use_parallel_residual": True},
    "cohere": {"use_qk_norm": True},
    "falcon": {"new_decoder_architecture": True, "num_kv_heads": 2, "bias": True},
    "gpt_bigcode": {"multi_query": False},
    "opt": {"word_embed_proj_dim": 16, "hidden_size": 32},
    "qwen2_moe": {"num_hidden_layers": 5, "decoder_sparse_step": 2, "mlp_only_layers": [1]},
    "glm4_moe": {"num_hidden_layers": 4, "first_k_dense_replace": 3, "n_shared_experts": 2, "use_qk_norm": True},
    "deepseek_v3": {"q_lora_rank": None, "num_hidden_layers": 4, "first_k_dense_replace": 2},
    "mamba2": {"use_bias": True},
    "jamba": {"num_hidden_layers": 8, "attn_layer_period": 4, "attn_layer_offset": 2},
    "falcon_h1": {"mamba_rms_norm": True, "attention_bias": True, "mlp_bias": True},
    "recurrent_gemma": {"num_hidden_layers": 5, "attention_bias": True},
    "smollm3": {"use_sliding_window": True, "sliding_window": 16, "num_hidden_layers": 5},
}  # fmt: skip


@pytest.fixture(autouse=True)
def silent() -> Any:
    verbosity = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    yield
    transformers.logging.set_verbosity(verbosity)


@pytest.fixture(autouse=True)
def no_advice(recwarn: pytest.WarningsRecorder) -> None:
    """transformers' deprecations are not what is tested."""


def on_meta(config: Any) -> int:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    return sum(parameter.numel() for parameter in model.parameters())


def told(config: Any) -> dict[str, Any]:
    return {**config.to_diff_dict(), "model_type": config.model_type}


QUICK = "bloom deepseek_v3 falcon gemma3_text gpt2 gpt_oss jamba llama mamba2 mixtral mpt qwen3_next rwkv starcoder2".split()
REST = sorted(set(FAMILIES) - set(QUICK))


@pytest.mark.parametrize("family", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in REST)])
def test_every_family_of_the_table(family: str) -> None:
    config = config_of(family)
    expected = on_meta(config)
    assert architecture_of(told(config)).parameters == expected
    assert architecture_of(config.to_dict()) == architecture_of(told(config))


def test_the_table_is_tested() -> None:
    assert set(FAMILIES) - set(BUILT) == set()


@pytest.mark.parametrize("family", ODD)
def test_odd_sizes_and_rare_flags(family: str) -> None:
    small = config_of(family)
    listed = {"layer_types", "layers_block_type", "no_rope_layers"}  # of as many blocks as the small one has
    config = type(small)(**{**{n: v for n, v in small.to_dict().items() if n not in listed}, **ODD[family]})
    assert architecture_of(told(config)).parameters == on_meta(config)


@pytest.mark.parametrize("family", sorted(set(FAMILIES) - {"glm4_moe", "dots1", "deepseek_v2"}))
def test_what_a_file_leaves_out_is_what_transformers_fills_in(family: str) -> None:
    """The three left out are those whose configuration class has no defaults that make a model."""
    kind, row = CONFIG_MAPPING[family], FAMILIES[family]
    whole = kind().to_dict()
    fields = [getattr(row, field.name) for field in dataclasses.fields(row)]
    names = [value.names for value in fields if isinstance(value, Field) and value.default is REQUIRED]
    names += [("intermediate_size",), ("max_position_embeddings",)]
    sizes = {n: whole[n] for group in names for n in group[:1] if n in whole}
    sizes |= {n: whole[n] for group in names for n in group[1:] if n in whole and group[0] not in whole}
    filled = architecture_of({**kind(**sizes).to_dict(), "model_type": family})
    bare = architecture_of({"model_type": family, **sizes})
    assert dataclasses.replace(bare, dtype=None, positions=None) == dataclasses.replace(
        filled, dtype=None, positions=None
    )


@pytest.mark.parametrize("name", BLOOMS)
def test_the_bloom_family(name: str) -> None:
    hidden, layers, heads, released = BLOOMS[name]
    config = BloomConfig(vocab_size=250_880, hidden_size=hidden, n_layer=layers, n_head=heads)
    assert architecture_of(told(config)).parameters == on_meta(config) == released


@pytest.mark.material
def test_real_configurations(material: Path) -> None:
    found = sorted((material / "configs").glob("*/config.json"))
    assert len(found) >= 5
    for path in found:
        config = AutoConfig.from_pretrained(path.parent)
        config.__dict__.pop("quantization_config", None)  # its packed tensors are not the model's parameters
        architecture = architecture_of(path)
        assert architecture.parameters == on_meta(config), path
        assert architecture.parameters == architecture_of(path.parent).parameters
        assert architecture.parameters == architecture_of(json.loads(path.read_text())).parameters


@pytest.mark.material
def test_weights_of_quantised_experts(material: Path) -> None:
    """gpt-oss-20b: 4.25 bits for the experts' weights, 16 for everything else; its checkpoint has 13.76 GB."""
    work = workload(material / "configs" / "gpt-oss-20b")
    layers, experts, hidden, inner = 24, 32, 2880, 2880
    quantised = layers * experts * 3 * hidden * inner
    assert work.weight_bytes == quantised * 4.25 / 8 + 2 * (work.architecture.parameters - quantised)
    assert work.weight_bytes == pytest.approx(13.76e9, rel=0.001)
    assert work.architecture.active_parameters - 201_088 * hidden == pytest.approx(
        3.61e9, rel=0.01
    )  # the model card's 3.6 B


def test_active_parameters_of_mixtral() -> None:
    """Jiang et al., "Mixtral of Experts", 2024: 47 B parameters, 13 B of them active."""
    architecture = architecture_of(
        {"model_type": "mixtral", "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 14336,
         "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8}
    )  # fmt: skip
    assert architecture.parameters == 46_702_792_704
    assert architecture.active_parameters == 46_702_792_704 - 32 * 6 * 3 * 4096 * 14336 == 12_879_925_248


def test_weight_bytes_are_those_of_the_module() -> None:
    config = config_of("qwen3")
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    held = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    assert workload(told(config), "bf16").weight_bytes == held
    assert workload(told(config), "float32").weight_bytes == 2 * held
