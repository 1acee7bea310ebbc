"""Recorded runs through a window: nothing changes while nothing is dropped, and then any length goes on in flat memory."""

from __future__ import annotations

import functools
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tokentape as tt
from families import causal, tokenizer
from tokentape.errors import PromptError, UsageError
from tokentape.models.causal import load
from tokentape.models.window import window_cache, windowed
from tokentape.sources.local import LocalSource

ENDLESS: dict[str, Any] = {"eos_token_id": None}
LONG = "The cat sat on the mat, and the dog looked at it for a while before it went away. " * 2


@functools.cache
def demo() -> LocalSource:
    return tt.local("demo", device="cpu")


def same(one: tt.Tape, other: tt.Tape) -> None:
    assert len(one.traces) == len(other.traces)
    for left, right in zip(one.traces, other.traces, strict=True):
        assert left.token_ids.tolist() == right.token_ids.tolist()
        assert np.abs(left.tokens["logprob"] - right.tokens["logprob"]).max() <= 1e-6


def check_no_window(source: LocalSource, prompt: str, n_new: int) -> None:
    """A window as long as the text, to the position, against none."""
    n_prompt = len(source.encode(prompt))
    for sampled in ({}, {"do_sample": True, "top_k": 0}):
        options = {"max_new_tokens": n_new, **ENDLESS, **sampled}
        plain = tt.record(source, prompt, seed=5, **options)
        # the last token is chosen and never read
        through = tt.record(source, prompt, seed=5, window=n_prompt + n_new - 5, sinks=4, **options)
        same(plain, through)
        assert through.traces[0].steps["dropped"].tolist() == [0] * n_new
        assert plain.traces[0].steps["dropped"].mask.all()
        less = tt.record(source, prompt, seed=5, window=n_prompt + n_new - 6, sinks=4, **options)
        assert less.traces[0].steps["dropped"].tolist() == [0] * (n_new - 1) + [1]


@pytest.mark.parametrize("family", ["bloom", "llama", "gpt_neox"])
def test_a_window_as_long_as_the_text_is_no_window(family: str) -> None:
    check_no_window(LocalSource(causal(family)), "The cat sat on the", 40)


def test_a_window_as_long_as_the_text_is_no_window_for_the_demo() -> None:
    check_no_window(demo(), "The cat and the dog", 60)


@pytest.mark.material
@pytest.mark.parametrize("name", ["TinyStories-656K", "stories260K"])
def test_a_window_as_long_as_the_text_is_no_window_for_real_models(material: Path, name: str) -> None:
    check_no_window(LocalSource(load(material / "models" / name, device="cpu")), "Once upon a time", 80)


def test_padded_rows_under_a_window_as_long_as_the_text() -> None:
    prompts = ["The cat", "A dog and a cat sat on a mat", "猫"]
    for family in ("bloom", "llama"):
        source = LocalSource(causal(family))
        options = {"max_new_tokens": 20, **ENDLESS}
        same(tt.record(source, prompts, **options), tt.record(source, prompts, window=60, **options))


@pytest.mark.parametrize("family", ["bloom", "llama", "gpt_neox"])
def test_padded_rows_are_as_if_alone(family: str) -> None:
    """Under a window that is much shorter than the texts; each row's prompt fits, so that none is cut into chunks."""
    source, prompts = LocalSource(causal(family)), ["The cat", "A dog and a cat", "猫"]
    options = {"max_new_tokens": 40, "window": 12, "sinks": 3, **ENDLESS}
    together = tt.record(source, prompts, **options)
    for prompt, trace in zip(prompts, together.traces, strict=True):
        alone = tt.record(source, prompt, **options).traces[0]
        assert alone.token_ids.tolist() == trace.token_ids.tolist()
        assert np.abs(alone.tokens["logprob"] - trace.tokens["logprob"]).max() < 1e-4
    assert together.traces[0].steps["dropped"][-1] == len(source.encode(prompts[1])) + 39 - 15


def test_what_the_tape_says() -> None:
    tape = tt.record(demo(), LONG, max_new_tokens=50, window=40, sinks=4, **ENDLESS)
    trace = tape.traces[0]
    n_prompt = len(demo().encode(LONG))
    assert n_prompt > 44
    assert trace.steps["dropped"].tolist() == [n_prompt + step - 44 for step in range(50)]
    assert {name: tape.runs[0].options[name] for name in ("window", "sinks", "prefill_chunk_size")} == {
        "window": 40,
        "sinks": 4,
        "prefill_chunk_size": 10,
    }
    assert len(set(trace.steps["cache_bytes"].tolist())) == 1
    assert trace.finish_reason == "length"


def test_a_short_prompt_is_read_at_once() -> None:
    tape = tt.record(demo(), "The cat", max_new_tokens=5, window=40, **ENDLESS)
    assert "prefill_chunk_size" not in tape.runs[0].options


@pytest.mark.parametrize("family", ["llama", "gpt_neox"])
def test_past_the_positions_of_the_model(family: str) -> None:
    source = LocalSource(causal(family))
    with pytest.raises(PromptError) as caught:
        tt.record(source, LONG, max_new_tokens=8)
    assert "--window N --sinks K" in str(caught.value.fix)
    with pytest.raises(PromptError) as caught:
        tt.record(source, "The cat", max_new_tokens=200)
    assert "--window N --sinks K" in str(caught.value.fix)
    for prompt in (LONG, "The cat"):
        trace = tt.record(source, prompt, max_new_tokens=200, window=60, sinks=4, **ENDLESS).traces[0]
        assert len(trace.token_ids) == 200
        assert np.isfinite(trace.tokens["logprob"]).all()


def test_no_advice_that_cannot_be_followed() -> None:
    with pytest.raises(PromptError) as caught:
        tt.record(LocalSource(causal("gpt2")), "The cat", max_new_tokens=200)
    assert "--window" not in str(caught.value.fix)


def test_transformers_does_not_warn_of_positions_that_are_never_reached(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("transformers")
    logging.Logger.warning_once.cache_clear()  # type: ignore[attr-defined]
    logger.addHandler(caplog.handler)
    try:
        tt.record(LocalSource(causal("llama")), "The cat", max_new_tokens=150, window=60, **ENDLESS)
    finally:
        logger.removeHandler(caplog.handler)
    assert "predefined maximum length" not in caplog.text


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"sinks": 4}, "4 sinks without a window"),
        ({"window": 0}, "window=0"),
        ({"window": 8, "use_cache": False}, "a window without its own cache"),
        ({"window": 8, "cache_implementation": "static"}, "generate\\(\\) refuses"),
    ],
)
def test_contradictions_are_refused(options: dict[str, Any], what: str) -> None:
    with pytest.raises(UsageError, match=what):
        tt.record(demo(), "The cat", max_new_tokens=5, **options)


def test_families_without_a_window_are_refused_by_name() -> None:
    with pytest.raises(UsageError, match="gpt2 cannot forget") as caught:
        tt.record(LocalSource(causal("gpt2")), "The cat", max_new_tokens=5, window=8)
    assert "learned vector" in str(caught.value.why)


def test_a_run_that_is_given_up_leaves_the_model_as_it_was() -> None:
    source = LocalSource(causal("llama"))
    before = tt.record(source, "The cat", max_new_tokens=20)
    request = tt.data.request.Request(prompts=("The cat",), options={"max_new_tokens": 20, "window": 8})
    live = source.start(request, frozenset())
    next(live.ticks)
    live.ticks.close()
    assert not source.causal.model._forward_pre_hooks
    same(before, tt.record(source, "The cat", max_new_tokens=20))


def test_someone_elses_loop_is_recorded_too() -> None:
    made = causal("llama")
    cache = window_cache(made, 20, 4)
    ids = torch.tensor([tokenizer()("The cat sat on the")["input_ids"]])
    with tt.recording(made.model, tokenizer=tokenizer()) as tape, windowed(made.model, cache):
        made.model.generate(ids, past_key_values=cache, max_new_tokens=40, do_sample=False, **ENDLESS)
    ours = tt.record(LocalSource(made), "The cat sat on the", max_new_tokens=40, window=20, sinks=4, **ENDLESS)
    assert tape.traces[0].token_ids.tolist() == ours.traces[0].token_ids.tolist()
    assert tape.traces[0].steps["dropped"].tolist() == ours.traces[0].steps["dropped"].tolist()


@pytest.mark.slow
def test_three_thousand_tokens_in_flat_memory() -> None:
    trace = tt.record(demo(), "The cat", max_new_tokens=3000, window=96, sinks=4, **ENDLESS).traces[0]
    n_prompt = len(demo().encode("The cat"))
    assert trace.steps["dropped"][-1] == n_prompt + 2999 - 100
    held = trace.steps["cache_bytes"]
    held = held[~np.ma.getmaskarray(held)]
    assert (held[trace.steps["dropped"][~np.ma.getmaskarray(trace.steps["cache_bytes"])] > 0] == held.max()).all()
    resident = trace.steps["rss_bytes"].compressed()
    assert resident[-1] - resident[len(resident) // 2] < 16_000_000, (
        "what is kept of each step, not what is kept of the text"
    )
