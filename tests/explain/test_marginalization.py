"""Input marginalization equals a sum written out over the model's own expectations, one pass for each."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from lively import IDS, assert_untouched, footprint, lively, replay_of

from tokentape.errors import UsageError
from tokentape.explain.question import Question
from tokentape.explain.replacing.marginalization import input_marginalization
from tokentape.explain.replay import Replay


def twin(replay: Replay, target: int, foil: int, candidates: int, least: float) -> np.ndarray:
    """Positions from 1 on, each by itself, every candidate in a pass of its own."""

    def value(ids: list[int]) -> float:
        row = replay.model(torch.tensor([ids])).logits[0, target - 1].detach().double()
        return float(row[replay.ids[target]] - row[foil])

    ids = list(replay.ids[:target])
    expected = replay.model(torch.tensor([ids])).logits[0].detach().double().softmax(-1)
    found = np.zeros(target)
    for s in range(1, target):
        p = expected[s - 1]
        others = [int(i) for i in p.argsort(descending=True) if int(i) != ids[s]][:candidates]
        total = float(p[ids[s]] + p[others].sum())
        for other in others:
            if p[other] >= least * total:
                found[s] += float(p[other]) / total * (value(ids) - value([*ids[:s], other, *ids[s + 1 :]]))
    return found


@pytest.mark.parametrize("family", ["bloom", "llama", "gpt2", "mistral", "mamba"])
@pytest.mark.parametrize(("candidates", "least"), [(3, 0.0), (12, 0.05)])
def test_it_is_the_sum_over_what_was_expected(family: str, candidates: int, least: float) -> None:
    replay = replay_of(family, torch.float64)
    found = input_marginalization(replay, Question((10,), "foil", (8,)), candidates=candidates, least=least)
    expected = twin(replay, 10, 8, candidates, least)
    exact = 1e-5 if family == "mamba" else 1e-10  # which leaves double precision on its way
    np.testing.assert_allclose(found.relevance[0, 1:], expected[1:], atol=exact)
    assert found.notes["candidates"] == candidates


def test_what_could_not_have_been_another_has_no_part() -> None:
    replay = replay_of("llama")
    sure = Question((10,), "foil", (8,))
    found = input_marginalization(replay, sure, least=0.999)
    assert found.notes["replaced"] == 16  # the draws of the first token alone
    np.testing.assert_array_equal(found.relevance[0, 1:], 0)


def test_what_comes_after_a_target_changes_nothing() -> None:
    causal = lively("llama")
    longer, shorter = (input_marginalization(Replay(causal, ids, 4), Question((8,))) for ids in (IDS, IDS[:9]))
    np.testing.assert_allclose(longer.relevance, shorter.relevance, atol=1e-6)


def test_a_token_that_opens_every_sequence_has_none_either() -> None:
    causal = lively("llama")
    opened = Replay(causal, (257, *IDS[1:]), 4)
    assert input_marginalization(opened, Question((10,))).relevance[0, 0] == 0
    assert input_marginalization(Replay(causal, IDS, 4), Question((10,))).relevance[0, 0] != 0


def test_many_targets_segments_and_answers_are_sums() -> None:
    replay = replay_of("bloom", torch.float64)
    each = input_marginalization(replay, Question((6, 10)))
    alone = input_marginalization(replay, Question((6,)))
    np.testing.assert_allclose(each.relevance[0, :6], alone.relevance[0], atol=1e-10)
    assert np.isnan(each.relevance[0, 6:]).all()
    together = input_marginalization(replay, Question((6, 10), segments=((0, 3), (3, 10)), together=True))
    tokens = np.nansum(each.relevance, 0)
    np.testing.assert_allclose(together.relevance[0], [tokens[:3].sum(), tokens[3:].sum()], atol=1e-10)


def test_swapping_target_and_foil_flips_the_sign() -> None:
    causal = lively("llama", torch.float64)
    asked = input_marginalization(Replay(causal, (*IDS[:10], 3), 4), Question((10,), "foil", (8,)))
    swapped = input_marginalization(Replay(causal, (*IDS[:10], 8), 4), Question((10,), "foil", (3,)))
    np.testing.assert_array_equal(asked.relevance, -swapped.relevance)


def test_the_model_is_left_as_it_was_and_options_are_checked() -> None:
    replay = replay_of("mixtral")
    before = footprint(replay.model)
    seen: list[tuple[int, int]] = []
    input_marginalization(replay, Question((10,)), progress=lambda done, total: seen.append((done, total)))
    assert_untouched(before, replay.model)
    assert seen[-1][0] == seen[-1][1] > 16
    with pytest.raises(UsageError, match="candidates 0"):
        input_marginalization(replay, Question((10,)), candidates=0)
    with pytest.raises(UsageError, match="no token at position 400"):
        input_marginalization(replay, Question((400,)))
