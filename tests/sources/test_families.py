"""Every family of causal models that transformers offers: what is recorded is what ``generate()`` does."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

import tokentape as tt
from every_family import FAMILIES, NOT_BUILT, tiny
from tokentape.errors import ModelError, UsageError
from tokentape.models.architecture import IGNORES_PADDING, check_causal
from tokentape.sources.local import LocalSource

QUICK = frozenset(
    "bamba bloom codegen cohere falcon falcon_mamba gemma2 gemma3_text gpt2 gpt_bigcode gpt_neox gpt_oss gptj granite jamba "
    "llama mamba mamba2 mistral mixtral mpt olmo2 opt phi phi3 qwen2 qwen3 qwen3_next recurrent_gemma rwkv stablelm "
    "starcoder2 xlstm zamba2".split()
)
"""Families whose tests run each time; the others are slow only together."""

POSITIONS_COUNT_PADDING = frozenset({"reformer", "trocr"})
"""Families that look at no padding but number their positions from its start: what a prompt gives depends on its batch."""

READ_EVERYTHING_AGAIN = frozenset({"openai-gpt", "xlm"})
"""Families that are given a cache and put nothing into it: each of their steps reads the whole sequence."""

N_NEW = 8
SEED = 11
LONG, SHORT = list(range(40, 49)), [70, 71, 72, 73]


def families(names: list[str]) -> list[Any]:
    return [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in names]


@pytest.fixture(autouse=True)
def no_advice() -> Iterator[None]:
    """transformers' advice on kernels that are missing here, and its deprecations, are not what is tested."""
    verbosity = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    transformers.logging.set_verbosity(verbosity)


def padded(rows: list[list[int]], pad: int = 259) -> dict[str, torch.Tensor]:
    width = max(map(len, rows))
    return {
        "input_ids": torch.tensor([[pad] * (width - len(row)) + row for row in rows]),
        "attention_mask": torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows]),
    }


def generated(family: str, inputs: dict[str, torch.Tensor], **options: Any) -> Any:
    model = tiny(family).model  # made before the seed is set: drawing its weights sets another
    torch.manual_seed(SEED)
    return model.generate(**inputs, max_new_tokens=N_NEW, return_dict_in_generate=True, output_logits=True, **options)


def tensors_in(value: Any, seen: set[int]) -> Iterator[torch.Tensor]:
    """Every tensor that can be reached from ``value``, once: how the bytes of a cache are counted by brute force."""
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from tensors_in(inner, seen)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from tensors_in(inner, seen)
    elif hasattr(value, "__dict__") and not isinstance(value, type | torch.nn.Module | transformers.PreTrainedConfig):
        yield from tensors_in(vars(value), seen)


def check(tape: tt.Tape, expected: Any, rows: list[list[int]]) -> None:
    width = max(map(len, rows))
    raw = torch.stack(expected.logits).double().log_softmax(-1)
    for row, trace in enumerate(tape.traces):
        ids = trace.token_ids.tolist()
        wanted = expected.sequences[row, width:].tolist()
        assert ids == wanted[: len(ids)]
        assert all(left == 259 for left in wanted[len(ids) :]), "only padding may be missing from the tape"
        own = [float(raw[step, row, token]) for step, token in enumerate(ids)]
        np.testing.assert_allclose(trace.tokens["logprob"].filled(np.nan), own, rtol=0, atol=1e-6)
        assert trace.prompt_ids.tolist() == rows[row]
    assert not tape.verify()


def check_cache(family: str, tape: tt.Tape, cache: Any) -> None:
    steps = tape.traces[0].steps
    recorded, n_in = steps["cache_bytes"], steps["n_in"].tolist()
    if cache is None:
        assert recorded.mask.all(), "there is no cache, so its size is unavailable, not zero"
    else:
        n_bytes = sum(tensor.numel() * tensor.element_size() for tensor in tensors_in(cache, set()))
        assert int(recorded[-1]) == n_bytes
        assert (n_bytes > 0) == (family not in READ_EVERYTHING_AGAIN)
    decoded = np.asarray(steps["context"])[1:] if family in READ_EVERYTHING_AGAIN else 1
    np.testing.assert_array_equal(n_in[1:], decoded + (family == "xlm"))  # which appends a mask, to be predicted


@pytest.mark.parametrize("family", families(FAMILIES))
def test_recorded_is_what_generate_does(family: str) -> None:
    source = LocalSource(tiny(family))
    one = padded([LONG])
    for options in ({"do_sample": False}, {"do_sample": True, "temperature": 1.4}):
        expected = generated(family, one, **options)
        tape = tt.record(source, LONG, seed=SEED, max_new_tokens=N_NEW, **options)
        check(tape, expected, [LONG])
        check_cache(family, tape, expected.past_key_values)
    torch.manual_seed(SEED)
    with tt.recording(tiny(family).model, tokenizer=tiny(family).tokenizer) as attached:
        returned = tiny(family).model.generate(**one, max_new_tokens=N_NEW, **options)
    assert torch.equal(returned, expected.sequences)
    check(attached.tape, expected, [LONG])


@pytest.mark.parametrize("family", families(FAMILIES))
def test_batch_is_what_generate_does(family: str) -> None:
    rows = [LONG, SHORT]
    if family in IGNORES_PADDING:
        with pytest.raises(UsageError, match="unequal length") as caught:
            tt.record(LocalSource(tiny(family)), rows, max_new_tokens=N_NEW)
        assert "padding" in caught.value.why and caught.value.fix
        rows = [LONG, LONG[::-1]]
    expected = generated(family, padded(rows), do_sample=True)
    tape = tt.record(LocalSource(tiny(family)), rows, seed=SEED, max_new_tokens=N_NEW, do_sample=True)
    check(tape, expected, rows)


@pytest.mark.parametrize("family", families(FAMILIES))
def test_padding_is_honoured_where_the_table_says_so(family: str) -> None:
    """What stands under the mask must make no difference, and neither must how much of it there is.

    The id of the padding alone would not tell: its embedding is zero in many families (``padding_idx``), which a recurrence
    that ignores the mask reads without a trace.
    """

    def logits(inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        return torch.stack(generated(family, inputs, do_sample=False, min_new_tokens=N_NEW).logits)[0, -1]

    alone = logits(padded([SHORT]))
    one, another = (logits(padded([LONG, SHORT], pad)) for pad in (259, 7))
    scale = float(alone.std())
    read_as_text = float((one - another).abs().max()) / scale
    shifted = float((one - alone).abs().max()) / scale
    assert (read_as_text > 1e-2) == (family in IGNORES_PADDING)
    if family not in IGNORES_PADDING:
        assert (shifted > 1e-2) == (family in POSITIONS_COUNT_PADDING)


def test_every_family_of_transformers_is_built_or_named() -> None:
    offered = set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
    assert not set(NOT_BUILT) - offered, "the table names what transformers no longer offers"
    assert offered == set(FAMILIES) | set(NOT_BUILT)
    assert set(FAMILIES) >= QUICK
    assert len(FAMILIES) >= 150


ENCODER_DECODERS = [name for name, reason in NOT_BUILT.items() if reason.startswith("an encoder-decoder")]


@pytest.mark.parametrize("family", [*ENCODER_DECODERS, "cpmant", "xlnet"])
def test_what_does_not_read_from_left_to_right_is_refused_by_name(family: str) -> None:
    with pytest.raises(ModelError, match=family) as caught:
        check_causal(CONFIG_MAPPING[family](), family)
    assert caught.value.why and caught.value.fix
    assert ("encoder-decoder" in caught.value.why) == (family in ENCODER_DECODERS)
