"""The peak of memory is that of the tensors that live while a model is recorded."""

from __future__ import annotations

from typing import Any

import pytest
import transformers
from live_tensors import LiveTensors
from transformers import AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

import tokentape as tt
from tokentape.models.causal import CausalModel
from tokentape.sources.local import LocalSource
from tokentape.study.cost.counting import workload
from tokentape.study.cost.memory import largest, memory_needed

ENDS = {"bos_token_id": 1, "eos_token_id": 2}
SHAPE = {
    "hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 3, "num_attention_heads": 8, "vocab_size": 2000,
    "num_key_value_heads": 2, "max_position_embeddings": 2048, **ENDS,
}  # fmt: skip
SHAPES: dict[str, dict[str, Any]] = {
    "bloom": {"hidden_size": 256, "n_layer": 3, "n_head": 4, "vocab_size": 8000},
    "gpt2": {"n_embd": 256, "n_layer": 3, "n_head": 8, "vocab_size": 2000, "n_positions": 2048, **ENDS},
    "llama": SHAPE,
    "mistral": {**SHAPE, "sliding_window": 128},
    "gpt_neox": SHAPE,
    "mixtral": SHAPE,
    "qwen3_moe": {**SHAPE, "moe_intermediate_size": 128, "num_experts": 8, "num_experts_per_tok": 2, "head_dim": 32},
    "gemma2": {**SHAPE, "head_dim": 32, "sliding_window": 128},
    "mamba": {"hidden_size": 256, "num_hidden_layers": 3, "vocab_size": 2000},
}  # fmt: skip


@pytest.fixture(autouse=True)
def no_advice(recwarn: pytest.WarningsRecorder) -> None:
    """transformers' deprecations are not what is tested."""


def made(config: Any) -> Any:
    verbosity = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    try:
        return AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)
    finally:
        transformers.logging.set_verbosity(verbosity)


def measured(model: Any, context: int, batch: int, new_tokens: int) -> int:
    vocab = model.config.vocab_size
    source = LocalSource(CausalModel(model, None, model.config.model_type, None, None, None, vocab))
    prompts = [[3 + i % 1500 for i in range(context)]] * batch
    with LiveTensors([*model.parameters(), *model.buffers()]) as live:
        tt.record(source, prompts, max_new_tokens=new_tokens, min_new_tokens=new_tokens)
    return live.peak_bytes


@pytest.mark.parametrize(("context", "batch", "new_tokens"), [(768, 1, 3), (12, 4, 40)])
@pytest.mark.parametrize("family", SHAPES)
def test_peak_within_three_percent(family: str, context: int, batch: int, new_tokens: int) -> None:
    config = CONFIG_MAPPING[family](**SHAPES[family])
    work = workload({**config.to_diff_dict(), "model_type": family}, "float32")
    peak = measured(made(config), context, batch, new_tokens)
    assert memory_needed(work, context, batch, new_tokens).peak_bytes == pytest.approx(peak, rel=0.03)


@pytest.mark.slow
def test_peak_of_bloom_560m() -> None:
    config = CONFIG_MAPPING["bloom"](vocab_size=250_880, hidden_size=1024, n_layer=24, n_head=16)
    work = workload({**config.to_diff_dict(), "model_type": "bloom"}, "float32")
    model = made(config)
    for context, new_tokens in ((512, 2), (32, 4)):
        peak = measured(model, context, 1, new_tokens)
        assert memory_needed(work, context, 1, new_tokens).peak_bytes == pytest.approx(peak, rel=0.03)


def test_memory_grows_with_everything() -> None:
    work = workload({**SHAPE, "model_type": "llama"})
    base = memory_needed(work, 100, 2, 8).peak_bytes
    assert memory_needed(work, 200, 2, 8).peak_bytes > base
    assert memory_needed(work, 100, 3, 8).peak_bytes > base
    assert memory_needed(work, 100, 2, 800).peak_bytes > base
    assert memory_needed(workload({**SHAPE, "model_type": "llama"}, tensor_parallel=2), 100, 2, 8).peak_bytes < base


@pytest.mark.parametrize("bound", [0, 1, 7, 1000, 123_456])
def test_largest_is_the_largest(bound: int) -> None:
    assert largest(lambda n: n <= bound) == bound


def test_nothing_bounds_it() -> None:
    assert largest(lambda n: True) is None
