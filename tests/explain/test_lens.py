"""The logit lens against the model itself, against norm and head applied by hand, and against sums written out."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import every_family
import tokentape.explain.layers.lens as lens_module
import tokentape.explain.layers.tail as tail_module
from explain.lively import IDS, N_PROMPT, TWENTY_ONE, assert_untouched, footprint, lively, replay_of
from tokentape.data.explanation import ReplayCheck
from tokentape.data.layers import Lens
from tokentape.errors import ExplainError, UsageError
from tokentape.explain.layers.lens import lens
from tokentape.explain.replay import Replay
from tokentape.models.anatomy import inputs_of
from tokentape.models.causal import load

ASKED = list(range(N_PROMPT, len(IDS)))

REFUSED = {"hrm_text", "inkling2_text", "longcat_flash", "xlm"}
"""Families without one list of blocks, or whose head reads more than what the last block gives."""


def own_logits(replay: Replay, positions: list[int]) -> torch.Tensor:
    with torch.no_grad():
        logits = replay.model(**inputs_of(replay.model, torch.tensor([replay.ids])), use_cache=False).logits[0]
    return logits[[p - 1 for p in positions]].float()


def assert_last_layer_is_the_model(replay: Replay, found: Lens) -> None:
    logits = own_logits(replay, ASKED)
    logp = logits.log_softmax(-1)
    chosen = torch.tensor([replay.ids[p] for p in ASKED])[:, None]
    torch.testing.assert_close(
        torch.tensor(found.logprob.data[:, -1]).float(), logp.gather(1, chosen)[:, 0], atol=1e-5, rtol=1e-5
    )
    assert found.rank.data[:, -1].tolist() == (1 + (logits > logits.gather(1, chosen)).sum(1)).tolist()
    assert found.top_ids.data[:, -1, 0].tolist() == logits.argmax(1).tolist()
    assert not found.kl.data[:, -1].any() and (found.final_rank.data[:, -1] == 1).all()
    assert found.agreement is not None and found.agreement < 1e-5


@pytest.mark.parametrize("family", [*TWENTY_ONE, "deepseek_v4", "gemma3n_text", "gpt_bigcode", "openai-gpt", "roberta"])
def test_last_layer_is_the_model(family: str) -> None:
    replay = replay_of(family)
    assert_last_layer_is_the_model(replay, lens(replay))


@pytest.mark.slow
@pytest.mark.parametrize("family", [f for f in every_family.FAMILIES if f != "reformer"])
def test_every_family_is_read_or_refused(family: str) -> None:
    replay = Replay(every_family.tiny(family), IDS, N_PROMPT)
    if family in REFUSED:
        with pytest.raises(ExplainError, match="cannot be read one by one"):
            lens(replay)
    else:
        assert_last_layer_is_the_model(replay, lens(replay))


def norm_and_head(family: str, model: Any) -> Any:
    homes = {
        "gpt2": lambda: model.transformer.ln_f,
        "bloom": lambda: model.transformer.ln_f,
        "llama": lambda: model.model.norm,
    }
    return lambda hidden: model.lm_head(homes[family]()(hidden))


@pytest.mark.parametrize("family", ["gpt2", "llama", "bloom"])
def test_every_layer_is_norm_and_head_of_its_hidden_states(family: str) -> None:
    replay = replay_of(family)
    found = lens(replay, top_k=5)
    with torch.no_grad():
        output = replay.model(input_ids=torch.tensor([IDS]), use_cache=False, output_hidden_states=True)
        # the last of the hidden states has been through the norm already
        by_hand = [norm_and_head(family, replay.model)(hidden) for hidden in output.hidden_states[:-1]] + [
            output.logits
        ]
    logp = torch.stack(by_hand, 2)[0, [p - 1 for p in ASKED]].double().log_softmax(-1)
    assert found.rank.shape == logp.shape[:2] == (len(ASKED), 3)
    p, final = logp.exp(), logp[:, -1:]
    chosen = logp.gather(-1, torch.tensor(found.ids).view(-1, 1, 1).expand(-1, 3, 1))
    last = logp.gather(-1, final.argmax(-1)[:, :, None].expand(-1, 3, 1))
    top = logp.topk(5, -1)

    def close(column: np.ma.MaskedArray, wanted: torch.Tensor) -> None:
        assert not np.ma.getmaskarray(column).any()
        torch.testing.assert_close(torch.tensor(column.data), wanted, atol=1e-5, rtol=1e-5)

    close(found.logprob, chosen[..., 0])
    close(found.entropy, -(p * logp).sum(-1))
    close(found.kl, (final.exp() * (final - logp)).sum(-1))
    close(found.top_logprob, top.values)
    assert found.top_ids.data.tolist() == top.indices.tolist()
    assert found.rank.data.tolist() == (1 + (logp > chosen).sum(-1)).tolist()
    assert found.final_rank.data.tolist() == (1 + (logp > last).sum(-1)).tolist()


def test_a_layer_of_another_architecture_is_read_through_all_that_stands_behind() -> None:
    """Gemma 2 caps its logits behind the head: a lens of norm and head alone would be wrong there."""
    replay = replay_of("gemma2")
    replay.model.config.final_logit_softcapping = 0.5
    found = lens(replay, top_k=264)
    assert_last_layer_is_the_model(replay, found)
    spread = found.top_logprob.data[..., 0] - found.top_logprob.data[..., -1]
    assert (spread <= 1 + 1e-5).all(), "logits beyond the cap"


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    replay = replay_of("llama")
    whole = lens(replay)
    assert replay.passes.forward == 3  # the sequence, the check, one read of all layers
    monkeypatch.setattr(lens_module, "ELEMENTS", 2 * 3 * every_family.VOCAB)
    monkeypatch.setattr(tail_module, "ELEMENTS", 2 * every_family.VOCAB)
    parts = lens(replay)
    assert replay.passes.forward - 3 == 2 + 4, "two positions at a time"
    for name in ("rank", "top_ids"):
        assert np.array_equal(getattr(whole, name), getattr(parts, name))
    np.testing.assert_allclose(whole.logprob, parts.logprob, atol=1e-6)


def test_half_precision() -> None:
    replay = replay_of("bloom", torch.bfloat16)
    assert_last_layer_is_the_model(replay, lens(replay))


def test_equal_logits_share_the_best_rank() -> None:
    replay = replay_of("llama")
    with torch.no_grad():
        replay.model.lm_head.weight.zero_()
    found = lens(replay)
    assert (found.rank == 1).all() and (found.final_rank == 1).all()
    np.testing.assert_allclose(found.entropy, np.log(every_family.VOCAB), rtol=1e-6)


def test_what_is_no_number_is_null() -> None:
    replay = replay_of("gptj")
    with torch.no_grad():
        replay.model.lm_head.bias[IDS[5]] = -torch.inf
    found = lens(replay)
    masked = np.ma.getmaskarray(found.logprob)
    assert masked[1].all() and masked.sum() == 3 and np.array_equal(masked, np.ma.getmaskarray(found.rank))
    assert not np.ma.getmaskarray(found.entropy).any() and not np.ma.getmaskarray(found.kl).any()
    assert not np.ma.getmaskarray(found.top_logprob).any()
    assert not np.ma.getmaskarray(found.settled_from).any(), "what is first at the end is known all the same"
    assert np.ma.getmaskarray(found.chosen_from)[1]
    with torch.no_grad():
        replay.model.transformer.h[0].mlp.fc_out.bias.fill_(torch.nan)
    with pytest.raises(ExplainError, match="cannot be read"):
        lens(replay)


def test_a_layer_that_overflows_is_null() -> None:
    """Infinity that a later layer takes away again would be none of the model's business, and none of the lens's."""
    replay = replay_of("llama")
    handle = replay.anatomy.blocks[0].register_forward_hook(lambda m, i, o: torch.full_like(o, torch.nan))
    other = replay.anatomy.blocks[1].register_forward_pre_hook(lambda m, args: (torch.zeros_like(args[0]), *args[1:]))
    try:
        found = lens(replay)
    finally:
        handle.remove()
        other.remove()
    for column in (
        found.rank,
        found.logprob,
        found.final_rank,
        found.entropy,
        found.kl,
        found.top_ids,
        found.top_logprob,
    ):
        masked = np.ma.getmaskarray(column)
        assert masked[:, 1].all() and not masked[:, [0, 2]].any()


def test_nothing_of_the_model_is_changed() -> None:
    replay = replay_of("gemma2")
    before, wanted = footprint(replay.model), own_logits(replay, ASKED)
    lens(replay)
    assert_untouched(before, replay.model)
    assert torch.equal(own_logits(replay, ASKED), wanted)


def test_a_refusal_leaves_the_model_as_it_was() -> None:
    replay = Replay(lively("inkling2_text"), IDS, N_PROMPT)
    before = footprint(replay.model)
    with pytest.raises(ExplainError, match="from its last block's output alone come other logits") as caught:
        lens(replay)
    assert caught.value.fix.startswith("--method")
    assert_untouched(before, replay.model)


@pytest.mark.parametrize("positions", [[], [0], [3, 3], [5, 4], [11]])
def test_positions_that_are_not_there(positions: list[int]) -> None:
    with pytest.raises(UsageError, match="positions"):
        lens(replay_of("gpt2"), positions)


def test_at_least_one_token_of_a_layer_is_kept() -> None:
    with pytest.raises(UsageError, match="best 0"):
        lens(replay_of("gpt2"), top_k=0)
    assert lens(replay_of("gpt2"), [1], top_k=10_000).top_ids.shape == (1, 3, every_family.VOCAB)


def test_the_demo_model_decides_for_the_mat_at_layer_3_of_4() -> None:
    demo = load("demo", device="cpu")
    ids = demo.encode("The cat sat on the mat")
    found = lens(Replay(demo, tuple(ids), len(ids) - 1))
    assert found.pieces[int(found.ids[0])].bytes == b" mat" and found.n_layers == 4
    assert found.chosen_from.tolist() == found.settled_from.tolist() == [3]
    assert found.rank.data[0, :3].min() > 1
    # an embedding that is also the head says the token that was read
    assert found.top_ids.data[0, 0, 0] == ids[-2]


# the value


def paper(rank: list[list[int | None]], final_rank: list[list[int]]) -> Lens:
    shape = np.array(final_rank).shape
    unknown = np.array([[one is None for one in row] for row in rank])
    known = np.ma.MaskedArray([[one or 0 for one in row] for row in rank], unknown)
    floats = np.ma.MaskedArray(np.zeros(shape), unknown)
    deep = np.ma.MaskedArray(np.zeros((*shape, 1)))
    n = np.arange(shape[0])
    return Lens(n + 1, n, known, floats, np.ma.MaskedArray(final_rank), floats, floats, deep, deep)


def test_where_the_decision_falls() -> None:
    found = paper(
        [[9, 1, 4, 1, 1], [1, 1, 1, 1, 1], [7, 6, 5, 4, 1], [1, 1, 1, 1, 2], [3, None, 1, 1, 1], [1, 1, 1, 1, None]],
        [[9, 1, 4, 1, 1], [1, 1, 1, 1, 1], [7, 6, 5, 4, 1], [2, 2, 1, 1, 1], [3, 3, 1, 1, 1], [1, 2, 1, 2, 1]],
    )
    assert found.chosen_from.tolist() == [3, 0, 4, None, 2, None]
    assert found.settled_from.tolist() == [3, 0, 4, 2, 2, 4]


def test_a_lens_survives_json_and_cannot_be_written_to() -> None:
    replay = replay_of("gptj")
    with torch.no_grad():
        replay.model.lm_head.bias[IDS[5]] = -torch.inf
    found = lens(replace(replay, check=ReplayCheck(1e-6, 1e-7, 7, 1e-3, True)))
    again = Lens.from_dict(json.loads(json.dumps(found.to_dict(), allow_nan=False)))
    for name in ("rank", "logprob", "final_rank", "entropy", "kl", "top_ids", "top_logprob"):
        mine, other = getattr(found, name), getattr(again, name)
        assert mine.dtype == other.dtype and np.array_equal(np.ma.getmaskarray(mine), np.ma.getmaskarray(other))
        assert np.array_equal(mine.compressed(), other.compressed())
        with pytest.raises(ValueError):
            mine[0, 0] = 0
    assert (again.pieces, again.check, again.agreement) == (found.pieces, found.check, found.agreement)
    assert np.array_equal(again.ids, found.ids) and np.array_equal(again.positions, found.positions)


def test_shapes_that_do_not_fit_are_refused() -> None:
    found = paper([[1, 1]], [[1, 1]])
    with pytest.raises(UsageError, match="kl has the shape"):
        replace(found, kl=np.ma.MaskedArray(np.zeros((1, 3))))
