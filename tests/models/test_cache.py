"""Bytes of caches, against a sum over every tensor that can be reached."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from small_models import llama_config
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, DynamicCache, LlamaForCausalLM, StaticCache
from transformers.cache_utils import EncoderDecoderCache, QuantizedCache
from transformers.generation.utils import ALL_CACHE_NAMES

from tokentape.models.cache import CACHE_NAMES, cache_bytes, cache_in


def reachable(value: Any, seen: set[int]) -> int:
    """Bytes of all tensors below a value, each once, by looking everywhere."""
    if id(value) in seen:
        return 0
    seen.add(id(value))
    if isinstance(value, torch.Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, torch.nn.Module | type):
        return 0
    inside: list[Any] = []
    if isinstance(value, Mapping):
        inside = list(value.values())
    elif isinstance(value, list | tuple | set):
        inside = list(value)
    elif hasattr(value, "__dict__"):
        inside = list(vars(value).values())
    return sum(reachable(element, seen) for element in inside)


SIZES: dict[str, Any] = {
    "vocab_size": 50, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip

FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "bloom": {"n_layer": 2, "n_head": 4},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4},
    "mistral": {"sliding_window": 4},
    "gemma2": {"sliding_window": 4, "head_dim": 8},
    "rwkv": {"attention_hidden_size": 32},
    "mamba": {"state_size": 8},
    "mamba2": {"state_size": 8, "num_heads": 8, "head_dim": 8, "n_groups": 1},
    "recurrent_gemma": {"lru_width": 32, "num_hidden_layers": 3, "attention_window_size": 16, "head_dim": 8},
    "lfm2": {"num_hidden_layers": 3, "layer_types": ["conv", "full_attention", "conv"]},
    "jamba": {"num_hidden_layers": 2, "attn_layer_period": 2, "attn_layer_offset": 1, "mamba_d_state": 8,
              "num_experts": 2, "use_mamba_kernels": False},
    "qwen3_next": {"num_hidden_layers": 2, "layer_types": ["linear_attention", "full_attention"], "head_dim": 8,
                   "linear_num_key_heads": 2, "linear_num_value_heads": 2, "linear_key_head_dim": 8, "num_experts": 2,
                   "linear_value_head_dim": 8, "num_experts_per_tok": 1, "moe_intermediate_size": 16,
                   "shared_expert_intermediate_size": 16},
}  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_every_step_of_a_family(family: str) -> None:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIG_MAPPING[family](**{**SIZES, **FAMILIES[family]})).eval()
    steps: list[tuple[int | None, int]] = []
    plain = model._update_model_kwargs_for_generation

    def watched(outputs: Any, *args: Any, **kwargs: Any) -> Any:
        cache = cache_in(outputs, args[0])
        assert cache is not None
        steps.append((cache_bytes(cache), reachable(cache, set())))
        return plain(outputs, *args, **kwargs)

    model._update_model_kwargs_for_generation = watched
    ids = torch.randint(3, 50, (2, 5))
    model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=6, min_new_tokens=6, do_sample=False)
    assert len(steps) == 6
    assert all(found == expected > 0 for found, expected in steps), steps


def test_key_value_cache_is_its_formula() -> None:
    config = llama_config()
    with torch.no_grad():
        cache = LlamaForCausalLM(config)(torch.zeros(3, 7, dtype=torch.long)).past_key_values
    # keys and values x layers x batch x heads x positions x width x bytes
    assert cache_bytes(cache) == 2 * 2 * 3 * 1 * 7 * 8 * 4


def test_room_made_in_advance_counts() -> None:
    config = llama_config()
    cache = StaticCache(config=config, max_cache_len=32)
    before = cache_bytes(cache)
    with torch.no_grad():
        LlamaForCausalLM(config)(torch.zeros(1, 3, dtype=torch.long), past_key_values=cache)
    assert cache_bytes(cache) == reachable(cache, set()) >= 2 * 2 * 32 * 8 * 4
    assert before is not None and before < 64, "nothing but counters before the first states"


def test_layers_that_appear_later() -> None:
    cache = DynamicCache()
    assert cache_bytes(cache) == 0
    for n_layers in range(1, 4):
        cache.update(torch.zeros(1, 2, 5, 8), torch.zeros(1, 2, 5, 8), n_layers - 1)
        assert cache_bytes(cache) == n_layers * 2 * 2 * 5 * 8 * 4
    cache.reset()
    assert cache_bytes(cache) == reachable(cache, set())


def test_quantized_states_count_what_they_take() -> None:
    try:
        cache = QuantizedCache("fp8", llama_config())
    except ValueError:
        pytest.skip("this transformers has no cache in eight-bit floats")
    state = torch.randn(1, 1, 5, 8)
    for layer in (0, 1):
        for _ in range(3):
            cache.update(state, state, layer)
    assert cache_bytes(cache) == reachable(cache, set())
    assert 2 * 2 * 15 * 8 <= cache_bytes(cache) < 2 * 2 * 15 * 8 * 2


def test_cache_of_caches() -> None:
    inner = DynamicCache()
    inner.update(torch.zeros(1, 2, 5, 8), torch.zeros(1, 2, 5, 8), 0)
    assert cache_bytes(EncoderDecoderCache(inner, DynamicCache())) == cache_bytes(inner)


def test_plain_tensors_and_containers() -> None:
    a, b = torch.zeros(3, dtype=torch.float16), torch.zeros(2, 2, dtype=torch.int8)
    assert cache_bytes((a, [b, None], {"x": a.clone()})) == 6 + 4 + 6
    assert cache_bytes(()) == 0
    assert cache_bytes(None) is None


def test_attribute_that_becomes_something_else() -> None:
    class State:
        def __init__(self, held: Any) -> None:
            self.held = held

    assert cache_bytes(State(None)) == 0
    assert cache_bytes(State(torch.zeros(4))) == 16
    assert cache_bytes(State((torch.zeros(4), torch.zeros(1)))) == 20
    assert cache_bytes(State([State(torch.zeros(2))])) == 8
    assert cache_bytes(State(torch.zeros(4))) == 16
    assert cache_bytes(State(7)) == 0


def test_back_references_and_models_are_left_alone() -> None:
    cache = SimpleNamespace(keys=torch.zeros(4), model=torch.nn.Linear(9, 9), parts=[])
    cache.parts.append(SimpleNamespace(values=torch.zeros(2), owner=cache))
    assert cache_bytes(cache) == 24


def test_names_are_those_of_transformers() -> None:
    assert list(CACHE_NAMES) == ALL_CACHE_NAMES
    assert cache_in(SimpleNamespace(logits=1)) is None
    assert cache_in(SimpleNamespace(past_key_values=None, state=[1])) == [1]
