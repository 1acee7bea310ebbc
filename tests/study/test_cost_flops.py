"""Operations counted from a configuration are those that torch counts while the model runs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from every_family import tiny
from tokentape.models.cache import cache_in
from tokentape.study.cost.counting import workload

QUICK = (
    "bloom deepseek_v3 falcon gemma2 gpt2 gpt_neox gpt_oss llama lfm2 mixtral opt qwen3 qwen3_moe starcoder2".split()
)
SLOW = (
    "apertus arcee codegen cohere cohere2 dots1 ernie4_5 exaone4 gemma gemma3_text glm glm4 glm4_moe gpt_bigcode gpt_neo gptj "
    "granite granitemoe helium hunyuan_v1_dense ministral mistral mpt nemotron olmo olmo3 olmoe persimmon phi phi3 phimoe qwen2 "
    "qwen2_moe seed_oss smollm3 stablelm xglm"
).split()


@pytest.fixture(autouse=True)
def no_advice(recwarn: pytest.WarningsRecorder) -> None:
    """transformers' deprecations are not what is tested."""


def counted(model: Any, ids: torch.Tensor, **more: Any) -> tuple[int, Any]:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        out = model(ids, use_cache=True, logits_to_keep=1, **more)
    return counter.get_total_flops(), cache_in(out)


@pytest.mark.parametrize("family", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def test_within_one_percent_of_torch(family: str) -> None:
    model = tiny(family).model
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")  # the counter sees the products of fused kernels only on some devices
    if hasattr(model, "set_experts_implementation"):
        model.set_experts_implementation("eager")
    try:
        ids = torch.arange(96).reshape(2, 48) % 250
        read, cache = counted(model, ids)
        step, _ = counted(model, ids[:, :1], past_key_values=cache)
    finally:
        model.set_attn_implementation(before)
    work = workload({**model.config.to_diff_dict(), "model_type": model.config.model_type})
    prefill, decode = work.prefill(48, 2), work.decode(49, 2)
    assert prefill.flops + prefill.attention_flops == pytest.approx(read, rel=0.01)
    assert decode.flops + decode.attention_flops == pytest.approx(step, rel=0.01)


def test_logits_of_the_last_position_alone() -> None:
    work = workload({"model_type": "bloom", "hidden_size": 8, "n_layer": 1, "n_head": 2, "vocab_size": 100})
    per_token = 2 * (8 * 8 * 4 + 8 * 32 * 2)
    assert work.prefill(10, 3).flops == 30 * per_token + 3 * 2 * 8 * 100
    assert work.prefill(10, 3).attention_flops == 3 * 2 * 2 * (4 + 4) * 100
    assert work.decode(10, 3).attention_flops == 3 * 2 * 2 * (4 + 4) * 10


def test_pairs_that_a_mask_leaves() -> None:
    work = workload(
        {"model_type": "bloom", "hidden_size": 8, "n_layer": 1, "n_head": 2, "vocab_size": 100}, pairs="seen"
    )
    assert work.prefill(10, 1).attention_flops == 2 * 2 * (4 + 4) * 55
