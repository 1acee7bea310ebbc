from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from typing import Any

import numpy as np
import pytest
import torch
from lively import assert_untouched, footprint

import every_family
from tokentape.data.attention import AttentionSummary
from tokentape.errors import ExplainError, UsageError
from tokentape.explain.attention.summary import attend
from tokentape.explain.attention.watching import Look, Watch, eager, survey_of, watching
from tokentape.explain.replay import Replay

QUICK = ("bloom", "falcon", "gpt2", "llama", "mistral", "gemma2", "gpt_oss", "diffllama", "jamba", "xglm")
BLIND = {
    **dict.fromkeys(["falcon_mamba", "mamba", "mamba2", "rwkv", "xlstm"], "recurrent"),
    "reformer": "its softmax over hashed chunks is written out with logsumexp",
}


def ids_of(n: int) -> tuple[int, ...]:
    return tuple(torch.randint(3, 250, (n,), generator=torch.Generator().manual_seed(0)).tolist())


def replay_of(family: str, n: int = 41) -> Replay:
    return Replay(every_family.tiny(family), ids_of(n), 5)


def given_by_transformers(replay: Replay, n: int) -> list[torch.Tensor]:
    """Weights ``[H, n, n]`` of each layer that attends, over the first n tokens, as ``output_attentions`` has them."""
    model = replay.model
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    # falcon cannot be set that way, and asked for weights while it is fused it forgets its mask
    model.config._attn_implementation = "eager"
    with torch.no_grad():
        given = model(input_ids=torch.tensor([replay.ids[:n]]), use_cache=False, output_attentions=True).attentions
    model.config._attn_implementation = before
    return [weights[0] for weights in given if weights is not None and weights.shape[-2:] == (n, n)]


@pytest.mark.parametrize(
    "family",
    [pytest.param(f, marks=() if f in QUICK else pytest.mark.slow) for f in every_family.FAMILIES if f not in BLIND],
)
def test_weights_are_those_that_transformers_gives(family: str) -> None:
    replay, n = replay_of(family), 13
    whole: list[Look] = []
    pieces: list[Look] = []
    with torch.no_grad():
        ids = torch.tensor([replay.ids[:n]])
        plain = replay.model(input_ids=ids, use_cache=False).logits
        with watching(replay.model, Watch(lambda look, _: whole.append(look), n)):
            watched = replay.model(input_ids=ids, use_cache=False).logits
        with watching(replay.model, Watch(lambda look, _: pieces.append(look), n, rows=5)):
            in_pieces = replay.model(input_ids=ids, use_cache=False).logits
    wanted = given_by_transformers(replay, n)
    blocks = list(dict.fromkeys(look.block for look in whole))
    if blocks == [None]:  # no plain list of blocks: the looks are in the order of the layers
        assert len(whole) == len(wanted)
        pairs = list(zip(whole, wanted, strict=True))
    else:  # a block may look twice, with the same weights at other values
        assert len(blocks) == len(wanted)
        pairs = [(look, wanted[blocks.index(look.block)]) for look in whole]
    for look, weights in pairs:
        torch.testing.assert_close(look.weights[0], weights, atol=1e-5, rtol=0)
    assert max(look.weights.shape[2] for look in pieces) == 5
    for look, start in zip(whole, range(0, len(pieces), 3), strict=True):
        together = torch.cat([piece.weights for piece in pieces[start : start + 3]], 2)
        torch.testing.assert_close(together, look.weights, atol=1e-5, rtol=0)
    scale = float(plain.abs().max())
    torch.testing.assert_close(watched, plain, atol=1e-5 * scale, rtol=0)
    torch.testing.assert_close(in_pieces, plain, atol=1e-5 * scale, rtol=0)


@pytest.mark.parametrize("family", BLIND)
def test_what_does_not_attend_is_refused(family: str) -> None:
    with pytest.raises(ExplainError, match="has no attention that could be looked at") as caught:
        attend(replay_of(family))
    assert "leave_one_out" in caught.value.fix


def expected(weights: list[torch.Tensor]) -> dict[str, np.ndarray[Any, Any]]:
    """Figures ``[L, H, n]`` of whole weights, in float64."""
    stacked = torch.stack(weights).double().numpy()
    n = stacked.shape[-1]
    mass = stacked.sum(-1)
    shares = stacked / mass[..., None]
    with np.errstate(divide="ignore", invalid="ignore"):
        entropy = -np.where(shares > 0, shares * np.log(shares), 0).sum(-1)
    away = np.arange(n)[:, None] - np.arange(n)
    return {
        "entropy": entropy,
        "sink_share": stacked[..., 0],
        "nowhere": 1 - mass,
        "distance": (shares * away).sum(-1),
        "stacked": stacked,
    }


def assert_top(found: Any, weights: np.ndarray[Any, Any], k: int) -> None:
    """Each row's sources have the k largest of ``weights`` ``[..., rows, T]``, and no more than have any."""
    best = -np.sort(-weights, -1)[..., :k]
    np.testing.assert_allclose(found.weights.filled(0), best, atol=1e-6)
    np.testing.assert_allclose(found.kept, best.sum(-1), atol=1e-6)
    picked = np.take_along_axis(weights, found.sources.filled(0).astype(np.int64), -1)
    np.testing.assert_allclose(np.where(found.sources.mask, 0, picked), found.weights.filled(0), atol=1e-6)
    assert (found.sources.mask == (found.weights.filled(0) == 0)).all()


@pytest.mark.parametrize("chunk", [7, 1000])
@pytest.mark.parametrize("family", ["bloom", "llama", "mistral", "gpt_oss", "falcon"])
def test_summary_is_that_of_the_whole_weights(family: str, chunk: int) -> None:
    replay, n = replay_of(family), 40
    wanted = expected(given_by_transformers(replay, n))
    found = attend(replay, steps=range(9, 41, 3), top_k=4, chunk=chunk)
    assert found.n_heads == (4, 4)
    np.testing.assert_array_equal(found.positions, np.arange(1, 41))
    for name in ("entropy", "sink_share", "distance"):
        np.testing.assert_allclose(getattr(found, name), wanted[name], atol=2e-5, err_msg=name)
        assert not np.ma.getmaskarray(getattr(found, name)).any()
    if family == "gpt_oss":
        np.testing.assert_allclose(found.nowhere, wanted["nowhere"], atol=1e-5)
        assert found.nowhere.min() > 1e-3
    else:
        assert found.nowhere.mask.all()
    stacked = wanted["stacked"]
    assert_top(found.layers, stacked.mean(1), 4)
    assert_top(found.overall, stacked.mean((0, 1)), 4)
    np.testing.assert_array_equal(found.head_positions, range(9, 41, 3))
    assert_top(found.heads, stacked[:, :, 8:40:3], 4)


def test_the_first_row_has_one_source() -> None:
    found = attend(replay_of("llama"), top_k=4)
    assert found.layers.sources[0, 0].tolist() == [0, None, None, None]
    assert found.layers.kept[0, 0] == 1
    assert found.entropy[0, 0, 0] == pytest.approx(0, abs=1e-6)
    assert found.heads.sources.shape == (2, 4, 0, 4)


def test_a_window_ends_where_it_ends() -> None:
    """Mistral's window here is 16 tokens: no source lies further back."""
    found = attend(replay_of("mistral"), top_k=40, chunk=7)
    rows = np.arange(40)[None, :, None]
    assert int((rows - found.layers.sources).max()) == 15
    assert found.sink_share[:, :, 16:].max() == 0


def test_layers_that_do_not_attend_are_null() -> None:
    found = attend(replay_of("jamba"), chunk=7)
    assert found.n_heads == (0, 4)
    assert found.without == (0,)
    assert found.entropy.mask[0].all() and not found.entropy.mask[1].any()
    assert found.layers.kept.mask[0].all() and found.layers.sources.mask[0].all()
    np.testing.assert_allclose(found.overall.weights.filled(0), found.layers.weights[1].filled(0), atol=1e-7)


def test_values_looked_at_twice_count_once_in_a_layer() -> None:
    replay = replay_of("diffllama")
    weights = np.stack([w.numpy() for w in given_by_transformers(replay, 40)])
    found = attend(replay, top_k=40, chunk=9)
    assert found.n_heads == (8, 8)
    assert_top(found.layers, weights.mean(1), 40)


def test_rows_of_heads_are_kept_where_they_were_asked_for() -> None:
    some = attend(replay_of("bloom"), steps=[40, 3, 3, 20], top_k=5, chunk=6)
    every = attend(replay_of("bloom"), steps=range(1, 41), top_k=5)
    assert some.head_positions.tolist() == [3, 20, 40]
    np.testing.assert_array_equal(some.heads.sources.filled(-1), every.heads.sources[:, :, [2, 19, 39]].filled(-1))


@pytest.mark.parametrize("steps", [[0], [41], [5, 99]])
def test_a_row_that_is_not_there_is_refused(steps: list[int]) -> None:
    with pytest.raises(UsageError, match="1 to 40"):
        attend(replay_of("bloom"), steps=steps)


def test_a_single_token_has_no_row() -> None:
    with pytest.raises(UsageError, match="at least two tokens"):
        attend(replay_of("bloom", n=1))


def test_a_summary_cannot_be_written_to() -> None:
    found = attend(replay_of("bloom"))
    for array in (found.positions, found.entropy, found.layers.weights, found.overall.sources, found.heads.kept):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0


def test_progress_ends_with_the_last_layer() -> None:
    said: list[tuple[int, int]] = []
    attend(replay_of("bloom"), progress=lambda done, of: said.append((done, of)))
    assert said == [(1, 2), (2, 2)]


@pytest.mark.parametrize("family", ["bloom", "falcon", "llama"])
def test_model_is_left_as_it_was(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    replay = replay_of(family)
    model = replay.model
    survey_of(model, family)
    before, implementation = footprint(model), model.config._attn_implementation
    attend(replay, chunk=7)
    assert_untouched(before, model)
    assert model.config._attn_implementation == implementation

    def broken(*_: Any) -> None:
        raise KeyError("in the middle of a pass")

    monkeypatch.setattr("tokentape.explain.attention.summary._Gathered.add", broken)
    with pytest.raises(KeyError):
        attend(replay)
    assert_untouched(before, model)
    assert model.config._attn_implementation == implementation
    with torch.no_grad():
        model(input_ids=torch.tensor([replay.ids]))


def test_places_that_are_no_tokens_are_refused() -> None:
    watch = Watch(lambda look, _: None, 3)
    with watch, pytest.raises(ExplainError, match="2 places that are no tokens"):
        torch.nn.functional.softmax(torch.zeros(1, 4, 3, 5), -1) @ torch.zeros(1, 4, 5, 2)


MEASURED = """
    import resource, sys, torch
    from transformers import AutoModelForCausalLM, BloomConfig
    from tokentape.explain.attention.summary import attend
    from tokentape.explain.replay import Replay
    from tokentape.models.causal import CausalModel

    config = BloomConfig(vocab_size=512, hidden_size=1024, n_layer=24, n_head=16)
    torch.manual_seed(0)
    with torch.no_grad():
        model = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, sys.argv[1])).eval().requires_grad_(False)
    ids = tuple(torch.randint(3, 500, (2049,)).tolist())
    found = attend(Replay(CausalModel(model, None, "bloom", None, None, None, 512), ids, 16), steps=range(2040, 2049))
    assert found.layers.sources.shape == (24, 2048, 16)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss has other units elsewhere")
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_a_long_trace_of_a_deep_model_fits_in_two_gigabytes(dtype: str) -> None:
    """2,048 tokens, 24 layers, 16 heads, width 1,024 (BLOOM-560m), weights and libraries included.

    In float32 the weights alone are 1.2 GB. glibc keeps freed pieces of up to 32 MB for later, whatever asked for them;
    told to hand large ones back, it shows what was in use.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    if dtype == "float32":
        environment["MALLOC_MMAP_THRESHOLD_"] = "65536"
    command = [sys.executable, "-c", textwrap.dedent(MEASURED), dtype]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert int(done.stdout.split()[-1]) < 2_000_000_000


def test_a_summary_is_small() -> None:
    """Of a 2,048-token trace of that model: 22 MB. Here by proportion, from a trace of 40."""
    found = attend(replay_of("bloom"), top_k=16)

    def size(value: Any) -> int:
        if isinstance(value, np.ma.MaskedArray):
            return value.data.nbytes + np.ma.getmaskarray(value).nbytes
        return sum(size(part) for part in vars(value).values()) if hasattr(value, "kept") else 0

    heads, layers, rows = 2 * 4, 2, 40
    bytes_per_row = heads * 4 * 5 + layers * (16 * 10 + 5) + (16 * 10 + 5)
    assert isinstance(found, AttentionSummary)
    assert sum(size(part) for part in vars(found).values()) == rows * bytes_per_row


def test_positions_are_those_of_the_run() -> None:
    """RoBERTa counts from another number when it is left alone, and generate() does not leave it alone."""
    replay = replay_of("roberta", 12)
    ids = torch.tensor([replay.ids[:11]])
    with torch.no_grad(), eager(replay.model):
        given = replay.model(input_ids=ids, position_ids=torch.arange(11)[None], output_attentions=True).attentions
    assert len(given) == 2
    found = attend(replay, steps=[11], top_k=11)
    for layer, weights in enumerate(given):
        for head in range(weights.shape[1]):
            best, sources = weights[0, head, 10].sort(descending=True)
            assert found.heads.sources[layer, head, 0].tolist() == sources.tolist()
            np.testing.assert_allclose(found.heads.weights.data[layer, head, 0], best.numpy(), atol=1e-5)
