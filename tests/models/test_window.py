"""A cache that forgets gives the logits of a pass without any cache in which a mask hides what was forgotten."""

from __future__ import annotations

import copy
import functools
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, DynamicCache
from window_twin import at_once, passes_of, seen, through_cache

from every_family import FAMILIES, config_of, tiny
from families import VOCAB, causal
from tokentape.errors import UsageError
from tokentape.models.cache import cache_bytes
from tokentape.models.causal import CausalModel
from tokentape.models.window import DEFAULT_SINKS, WindowCache, window_cache, windowed
from tokentape.models.window_positions import REASONS, WINDOWED, reason_against, rotations_of

QUICK = frozenset("bloom cohere gemma3_text gpt_neox llama mpt nanochat phi qwen3 smollm3".split())
"""Families whose twins run each time: ALiBi, rotated pairs of both orders and directions, in part, in some layers alone."""

CASES = {"no sinks": (8, 0, 6, 6), "sinks": (8, 3, 6, 6), "long prompt": (9, 2, 30, 4), "one by one": (12, 4, 1, 1)}
"""Window, sinks, prompt, chunk."""


@pytest.fixture(autouse=True)
def no_advice() -> Iterator[None]:
    """transformers' advice on kernels that are missing here, and on small configurations, is not what is tested."""
    verbosity = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    transformers.logging.set_verbosity(verbosity)


def exact(model: Any) -> Any:
    """The model in double precision, so that what is left of a difference is that of single-precision angles."""
    made = copy.deepcopy(model).double()
    made.config._experts_implementation = "eager"
    return made


def drawn(config: Any) -> Any:
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4)
    return model


def text_of(n_tokens: int, seed: int = 3) -> torch.Tensor:
    return torch.randint(0, 256, (n_tokens,), generator=torch.Generator().manual_seed(seed))


def gap(model: Any, case: str, n_tokens: int = 40, sliding: int | None = None) -> float:
    """The largest difference between the windowed logits and those of the twin, relative to the largest logit."""
    window, sinks, n_prompt, chunk = CASES[case]
    cache = WindowCache(rotations_of(model, "it", window + sinks), window, sinks)
    ids, passes = text_of(n_tokens), passes_of(n_tokens, n_prompt, chunk)
    found = through_cache(model, cache, ids, passes)
    wanted = at_once(model, ids, window, sinks, passes, sliding)
    assert cache.get_seq_length() == window + sinks
    assert cache.dropped == n_tokens - window - sinks
    return float((found - wanted).abs().max() / wanted.abs().max())


@pytest.mark.parametrize(
    "family", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in sorted(WINDOWED)]
)
def test_what_is_forgotten_is_as_if_hidden(family: str) -> None:
    model = exact(tiny(family).model)
    for case in CASES:
        assert gap(model, case) < 1e-5, case


def test_a_twin_that_hides_something_else_is_told_apart() -> None:
    model, ids = exact(causal("llama").model), text_of(30)
    passes = passes_of(30, 6, 6)
    found = through_cache(model, WindowCache(rotations_of(model, "it", 11), 8, 3), ids, passes)
    for window, sinks in ((9, 3), (8, 2), (7, 4)):
        assert float((found - at_once(model, ids, window, sinks, passes)).abs().max()) > 1e-2


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_type": "linear", "factor": 4.0},
        {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64},
        {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        },
        {"rope_type": "dynamic", "factor": 4.0},
        {"rope_type": "default", "partial_rotary_factor": 0.5},
    ],
    ids=lambda rope: rope["rope_type"],
)
def test_scaled_rotary_positions(rope: dict[str, Any]) -> None:
    config = config_of("llama")
    config.rope_parameters = {"rope_theta": 10000.0, **rope}
    assert gap(exact(drawn(config)), "sinks") < 1e-5


@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
def test_frequencies_that_change_with_the_length_are_refused(kind: str) -> None:
    config = config_of("llama")
    config.max_position_embeddings = 16 if kind == "dynamic" else 64
    factors = {"short_factor": [1.0] * 4, "long_factor": [4.0] * 4, "original_max_position_embeddings": 16}
    config.rope_parameters = {
        "rope_theta": 10000.0,
        "rope_type": kind,
        "factor": 4.0,
        **(factors if kind == "longrope" else {}),
    }
    model = drawn(config)
    rotations_of(model, "it", 12)
    with pytest.raises(UsageError, match="not rotated by one set of frequencies"):
        rotations_of(model, "it", 40)
    rotations_of(model, "it", 13)  # and the model is as it was


def test_layers_that_slide_see_as_far_as_before() -> None:
    config = config_of("mistral")
    config.sliding_window = 6
    model = exact(drawn(config))
    assert gap(model, "sinks", sliding=6) < 1e-5
    assert gap(model, "sinks") > 1e-3


def test_falcon_with_biases_for_the_distance() -> None:
    config = config_of("falcon")
    config.alibi = True
    assert gap(exact(drawn(config)), "sinks") < 1e-5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_kept(dtype: torch.dtype) -> None:
    model = copy.deepcopy(causal("llama").model).to(dtype)
    cache = WindowCache(rotations_of(model, "it", 11), 8, 3)
    ids, passes = text_of(40), passes_of(40, 6, 6)
    found = through_cache(model, cache, ids, passes)
    assert found.dtype == cache.layers[0].keys.dtype == dtype
    wanted = at_once(model, ids, 8, 3, passes)
    assert float((found - wanted).float().abs().mean() / wanted.float().abs().mean()) < 0.1


# -- keys, positions, padding ------------------------------------------------------------------------------------------


def test_keys_do_not_drift() -> None:
    """Of the first layer, whose keys tell of a token and its place alone, what is read after hundreds of steps."""
    model, window, sinks = causal("llama").model, 12, 4
    cache = WindowCache(rotations_of(model, "it", window + sinks), window, sinks)
    ids = text_of(800)
    through_cache(model, cache, ids, passes_of(800, 16, 12))
    layer = cache.layers[0]
    read = layer._turn.turned(layer.keys)
    fresh = DynamicCache()
    with torch.no_grad():
        model(input_ids=torch.cat([ids[:sinks], ids[-window:]])[None], past_key_values=fresh)
    assert torch.allclose(read, fresh.layers[0].keys, rtol=0, atol=2e-6 * float(read.abs().max()))
    assert not torch.allclose(layer.keys, fresh.layers[0].keys, rtol=0, atol=1e-2)


def test_memory_is_flat() -> None:
    model = causal("llama").model
    cache = WindowCache(rotations_of(model, "it", 16), 12, 4)
    sizes = []
    with windowed(model, cache), torch.no_grad():
        for token in text_of(200):
            model(input_ids=token[None, None], past_key_values=cache)
            sizes.append(cache_bytes(cache))
    assert len(set(sizes[16:])) == 1
    assert sizes[0] < sizes[15]


@given(
    window=st.integers(1, 8),
    sinks=st.integers(0, 4),
    pads=st.lists(st.integers(0, 12), min_size=1, max_size=3),
    lengths=st.lists(st.integers(1, 8), min_size=1, max_size=20),
)
@settings(deadline=None)
def test_columns_that_are_kept(window: int, sinks: int, pads: list[int], lengths: list[int]) -> None:
    """Against lists: padding goes first, then what lies behind the sinks; positions and masks are those of what is left."""
    total = sum(min(length, window) for length in lengths)
    pads = [min(pad, total - 1) for pad in pads]
    pads[0] = 0  # the longest has none
    cache = WindowCache([None], window, sinks)
    kept: list[list[int]] = [[] for _ in pads]
    read = 0
    for n_new in (min(length, window) for length in lengths):
        mask = torch.tensor([[int(column >= pad) for column in range(read + n_new)] for pad in pads])
        positions, fitting = cache.make_room(n_new, mask)
        new = torch.arange(read, read + n_new)
        states = new[None, None, :, None].expand(len(pads), 1, -1, 1).float()
        cache.update(states, states, 0)
        for row, pad in zip(kept, pads, strict=True):
            row += new.tolist()
            while len(row) > window + sinks:
                row.pop(0 if row[0] < pad else sinks)
        read += n_new
        assert cache.layers[0].keys[:, 0, :, 0].tolist() == cache.layers[0].values[:, 0, :, 0].tolist() == kept
        assert fitting is not None
        assert fitting.tolist() == [[int(column >= pad) for column in row] for row, pad in zip(kept, pads, strict=True)]
        wanted = [
            [max(place - sum(column < pad for column in row), 0) for place in range(len(row))][-n_new:]
            for row, pad in zip(kept, pads, strict=True)
        ]
        assert positions.expand(len(pads), -1).tolist() == wanted
    assert cache.dropped == max(total - window - sinks, 0)


@pytest.mark.parametrize("family", ["bloom", "llama", "gpt_neox", "falcon"])
def test_rows_of_a_padded_batch_are_as_if_alone(family: str) -> None:
    model = exact(tiny(family).model)
    texts = [text_of(length, seed=length) for length in (44, 37, 30)]
    mask = torch.tensor([[0] * (44 - len(text)) + [1] * len(text) for text in texts])
    ids = torch.stack([torch.cat([torch.full((44 - len(text),), 259), text]) for text in texts])
    rotations = rotations_of(model, "it", 11)
    cache = WindowCache(rotations, 8, 3)
    with windowed(model, cache), torch.no_grad():
        for start, stop in passes_of(44, 11, 4):
            given = (
                {} if family == "bloom" else {"position_ids": (mask[:, :stop].cumsum(1) - 1).clamp(min=0)[:, start:]}
            )
            output = model(input_ids=ids[:, start:stop], attention_mask=mask[:, :stop], past_key_values=cache, **given)
            last = output.logits[:, -1]
    for row, text in zip(last, texts, strict=True):
        alone = through_cache(model, WindowCache(rotations, 8, 3), text, passes_of(len(text), 1, 1))[-1]
        assert float((row - alone).abs().max() / alone.abs().max()) < 1e-5


def test_what_is_seen() -> None:
    sees, dropped = seen(8, 2, 1, [(0, 1), (1, 2), (2, 3), (3, 4), (4, 6), (6, 8)])
    assert [row.nonzero().flatten().tolist() for row in sees] == [
        [0],
        [0, 1],
        [0, 1, 2],
        [0, 2, 3],
        [0, 4],
        [0, 4, 5],
        [0, 6],
        [0, 6, 7],
    ]
    assert dropped == [0, 0, 0, 1, 3, 3, 5, 5]


# -- the door ----------------------------------------------------------------------------------------------------------


def test_the_model_is_left_as_it_was() -> None:
    model, cache = causal("llama").model, window_cache(causal("llama"), 8)
    hooks = len(model._forward_pre_hooks)
    with pytest.raises(RuntimeError, match="stop"), windowed(model, cache):
        assert len(model._forward_pre_hooks) == hooks + 1
        raise RuntimeError("stop")
    assert len(model._forward_pre_hooks) == hooks


def test_other_passes_are_left_alone() -> None:
    model, ids = causal("llama").model, text_of(30)[None]
    with windowed(model, window_cache(causal("llama"), 8)), torch.no_grad():
        other = DynamicCache()
        inside = model(input_ids=ids, past_key_values=other).logits
    assert other.get_seq_length() == 30
    assert torch.equal(inside, model(input_ids=ids).logits)


@pytest.mark.parametrize("family", ["bloom", "llama", "gemma3_text"])
def test_generate_by_itself(family: str) -> None:
    """Tokens of plain ``generate()``, past the model's positions, are the twin's first choices."""
    model = exact(tiny(family).model)
    made = CausalModel(model, None, family, None, None, 128, VOCAB)
    cache = window_cache(made, 8, 3)
    prompt = text_of(30)
    with windowed(model, cache):
        ids = model.generate(
            prompt[None], past_key_values=cache, max_new_tokens=20, eos_token_id=None, prefill_chunk_size=cache.chunk,
            do_sample=False,
        )[0]  # fmt: skip
    assert len(ids) == 50
    chosen = at_once(model, ids, 8, 3, passes_of(50, 30, cache.chunk)).argmax(-1)
    assert chosen[29:49].tolist() == ids[30:].tolist()


def test_a_pass_over_more_than_the_window_is_refused() -> None:
    model, cache = causal("llama").model, window_cache(causal("llama"), 8)
    with windowed(model, cache), torch.no_grad():
        model(input_ids=text_of(cache.capacity)[None], past_key_values=cache)
        assert cache.dropped == 0
        with pytest.raises(UsageError, match="9 tokens at once") as caught:
            model(input_ids=text_of(9)[None], past_key_values=cache)
    assert caught.value.fix == "prefill_chunk_size=2"


@pytest.mark.parametrize(
    ("window", "sinks", "what"),
    [
        (None, 4, "4 sinks without a window"),
        (0, 4, "window=0"),
        (8, -1, "sinks=-1"),
        (True, 4, "window=True"),
        (8.0, 4, "window=8.0"),
        (125, 4, "more than the 128 positions"),
    ],
)
def test_sizes_that_make_no_window(window: Any, sinks: Any, what: str) -> None:
    with pytest.raises(UsageError, match=what):
        window_cache(causal("llama"), window, sinks)


def test_as_many_sinks_as_in_the_paper() -> None:
    assert window_cache(causal("llama"), 8).sinks == DEFAULT_SINKS == 4
    assert window_cache(causal("llama"), 124).capacity == 128


# -- families ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", sorted(set(FAMILIES) - WINDOWED))
def test_families_that_cannot_forget_are_refused_by_name(family: str) -> None:
    config = config_of(family)
    reason = reason_against(config)
    assert reason is not None
    assert reason.startswith(f"{config.get_text_config(decoder=True).model_type}: ")
    made = CausalModel(type("Stub", (), {"config": config})(), None, "it", None, None, None, VOCAB)
    with pytest.raises(UsageError, match="it cannot forget") as caught:
        window_cache(made, 8)
    assert caught.value.why == reason


def test_no_family_is_in_both_tables() -> None:
    assert not WINDOWED & set(REASONS)
    assert set(FAMILIES) >= WINDOWED


@pytest.mark.parametrize(
    ("family", "why"),
    [
        ("gpt2", "what it says about a lone token depends"),
        ("opt", "what it says about a lone token depends"),
        ("deepseek_v3", "the values of layer 0 depend"),
        ("jamba", "its cache holds more than keys and values: LinearAttentionLayer"),
        ("gptj", "the keys of layer 0 are not rotated"),
    ],
)
def test_the_model_itself_is_asked(family: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        rotations_of(tiny(family).model, family, 16)


def test_rotations_are_found() -> None:
    @functools.cache
    def found(family: str) -> list[Any]:
        rotations = rotations_of(tiny(family).model, family, 16)
        return [None if one is None else (one.interleaved, one.start, len(one.frequencies)) for one in rotations]

    assert found("bloom") == [None, None]
    assert found("llama") == [(False, 0, 4)] * 2
    assert found("cohere") == [(True, 0, 4)] * 2
    assert found("stablelm") == [(False, 0, 1)] * 2
    assert found("glm") == [(True, 0, 2)] * 2
