"""Bytes of the cache are those that a recording finds; what a step reads is what it has to."""

from __future__ import annotations

import random
import statistics
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tokentape as tt
from every_family import tiny
from tokentape.models.cache import cache_bytes, cache_in
from tokentape.sources.local import LocalSource
from tokentape.study.cost.blocks import Matrix
from tokentape.study.cost.counting import workload
from tokentape.study.cost.families import FAMILIES

RECORDED = (
    "bloom deepseek_v3 falcon falcon_h1 gemma2 gpt2 gpt_neox gpt_oss jamba lfm2 llama llama4_text mamba mamba2 mistral mixtral "
    "mpt olmo2 opt phi3 qwen2 qwen3 qwen3_moe qwen3_next rwkv starcoder2"
).split()
"""The families whose cache a recording can see; recurrent_gemma keeps its states in the model."""

LLAMA = {
    "model_type": "llama", "hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 3, "num_attention_heads": 8,
    "num_key_value_heads": 2, "vocab_size": 1000, "tie_word_embeddings": False, "dtype": "bfloat16",
}  # fmt: skip


@pytest.fixture(autouse=True)
def no_advice(recwarn: pytest.WarningsRecorder) -> None:
    """transformers' deprecations are not what is tested."""


def config_of_model(family: str) -> dict[str, Any]:
    config = tiny(family).model.config
    return {**config.to_diff_dict(), "model_type": config.model_type}


@pytest.mark.parametrize("family", RECORDED)
def test_cache_is_the_recorded_one_at_every_step(family: str) -> None:
    tape = tt.record(LocalSource(tiny(family)), [list(range(40, 52))] * 2, max_new_tokens=9, min_new_tokens=9)
    steps = tape.traces[0].steps
    work = workload(config_of_model(family), "float32")
    recorded = dict(enumerate(steps["cache_bytes"].tolist(), 12))  # null where steps share a reading
    seen = {context: n_bytes for context, n_bytes in recorded.items() if n_bytes is not None}
    assert {12, 20} <= set(seen)
    assert seen == {context: work.cache_bytes(context, 2) for context in seen}
    assert workload(tape).cache_bytes(12, 2) == work.cache_bytes(12, 2), "the tape knows its own architecture"


@pytest.mark.slow
@pytest.mark.parametrize("family", sorted(set(FAMILIES) - set(RECORDED) - {"recurrent_gemma"}))
def test_cache_of_every_other_family(family: str) -> None:
    import torch

    model, work = tiny(family).model, workload(config_of_model(family), "float32")
    ids = torch.arange(80).reshape(2, 40)
    out = model(ids, use_cache=True)
    assert cache_bytes(cache_in(out)) == work.cache_bytes(40, 2)


def test_grouped_heads_by_hand() -> None:
    work = workload(LLAMA)
    assert work.kv_bytes_per_token == 3 * 2 * 2 * 8 * 2  # layers, key-value heads, keys and values, width, bytes
    step = work.decode(100, 4)
    assert step.kv_bytes == 4 * 100 * 192 and step.kv_write_bytes == 4 * 192
    read = work.prefill(100, 4)
    assert read.kv_write_bytes == 400 * 192


def test_a_step_reads_the_head_and_not_the_embedding() -> None:
    work = workload(LLAMA)
    a = work.architecture
    assert work.decode(10, 1).weight_bytes == 2 * (a.parameters - 1000 * 64 + 64)
    tied = workload({**LLAMA, "tie_word_embeddings": True})
    assert tied.decode(10, 1).weight_bytes == 2 * tied.architecture.parameters


def test_window_bounds_what_is_read_and_kept() -> None:
    config = {**LLAMA, "model_type": "mistral", "sliding_window": 16}
    work = workload(config)
    assert work.decode(1000, 1).kv_bytes == work.decode(16, 1).kv_bytes == 16 * 192
    assert work.cache_bytes(1000) == 15 * 192 + 3 * 8  # a mark of eight bytes in each layer of transformers' cache
    seen = workload(config, pairs="seen").prefill(100, 1)
    every = workload(config).prefill(100, 1)
    pairs = sum(min(query, 16) for query in range(1, 101))
    assert seen.attention_flops / every.attention_flops == pytest.approx(pairs / 100**2)


def test_alternating_windows() -> None:
    config = {**LLAMA, "model_type": "gemma2", "head_dim": 8, "sliding_window": 10, "num_hidden_layers": 5}
    windows = [block.attention.window for block in workload(config).architecture.blocks]
    assert windows == [10, None, 10, None, 10]


@given(st.integers(2, 16), st.data())
def test_touched_experts_are_those_of_a_draw(copies: int, data: st.DataObject) -> None:
    active = data.draw(st.integers(1, copies))
    tokens = data.draw(st.integers(1, 8))
    draw = random.Random(5)
    drawn = [len({e for _ in range(tokens) for e in draw.sample(range(copies), active)}) for _ in range(400)]
    found = Matrix("expert", 1, 1, 0, copies, active).touched(tokens)
    assert active <= found + 1e-9 <= copies + 2e-9
    assert found == pytest.approx(statistics.mean(drawn), abs=5 * copies / 400**0.5)


def test_tensor_parallel_shares_products_and_repeats_the_rest() -> None:
    one, four = workload(LLAMA), workload(LLAMA, tensor_parallel=2)
    norms = 2 * 64 * 7
    assert four.weight_bytes == one.weight_bytes + norms
    assert four.kv_bytes_per_token == one.kv_bytes_per_token
    many = workload(LLAMA, tensor_parallel=8)
    assert many.kv_bytes_per_token == 4 * one.kv_bytes_per_token, (
        "two key-value heads on eight devices: four copies of each"
    )
    step = four.decode(10, 3)
    assert step.reduce_bytes == 3 * 2 * 3 * 64 * 2 * 2 * (2 - 1) / 2  # layers, sums, tokens, width, bytes, ring
    assert one.decode(10, 3).reduce_bytes == 0


@given(
    st.integers(1, 4000),
    st.integers(1, 64),
    st.sampled_from(["llama", "gemma2", "mixtral", "mamba2", "jamba", "deepseek_v3"]),
)
def test_work_grows_with_context_and_batch(context: int, batch: int, family: str) -> None:
    work = workload(config_of_model(family))
    for made in (work.decode, work.prefill):
        here, longer, more = made(context, batch), made(context + 1, batch), made(context, batch + 1)
        for name in ("weight_bytes", "kv_bytes", "kv_write_bytes", "flops", "attention_flops"):
            assert 0 <= getattr(here, name) <= getattr(longer, name)
            assert getattr(here, name) <= getattr(more, name)
        assert here.weight_bytes <= work.weight_bytes + context * batch * 1000
