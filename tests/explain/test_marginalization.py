"""Input marginalization equals a sum written out over the model's own expectations, one pass for each."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from lively import IDS, assert_untouched, footprint, lively, replay_of
from torch import nn

from tokentape.errors import UsageError
from tokentape.explain.question import Question
from tokentape.explain.replacing.marginalization import input_marginalization
from tokentape.explain.replacing.occlusion import leave_one_out
from tokentape.explain.replacing.standins import fills, neutral_id
from tokentape.explain.replay import Replay
from tokentape.models.causal import CausalModel


def twin(replay: Replay, target: int, foil: int, candidates: int, least: float, unexpected: float) -> np.ndarray:
    """Positions from 1 on, each by itself: whole sequences weighted by how probable the model finds each of them."""

    def read(ids: list[int]) -> tuple[float, float]:
        """The value, and the log-probability of the sequence after its first token."""
        rows = replay.model(torch.tensor([ids])).logits[0].detach().double()
        own = rows[:-1].log_softmax(-1)[torch.arange(target - 1), torch.tensor(ids[1:])]
        return float(rows[target - 1, replay.ids[target]] - rows[target - 1, foil]), float(own.sum())

    ids = list(replay.ids[:target])
    expected = replay.model(torch.tensor([ids])).logits[0].detach().double().softmax(-1)
    value, whole = read(ids)
    found = np.zeros(target)
    for s in range(1, target):
        p = expected[s - 1]
        others = [int(i) for i in p.argsort(descending=True) if int(i) != ids[s]][:candidates]
        total = float(p[ids[s]] + p[others].sum())
        read_as = [read([*ids[:s], other, *ids[s + 1 :]]) for other in others if p[other] >= least * total]
        share = torch.tensor([whole, *(fits for _, fits in read_as)], dtype=torch.float64).softmax(0)[1:]
        found[s] = (1 - unexpected) * sum(float(w) * (value - v) for w, (v, _) in zip(share, read_as, strict=True))
        neutral = [*ids[:s], neutral_id(replay.causal), *ids[s + 1 :]]
        found[s] += unexpected * (value - read(neutral)[0])
    return found


@pytest.mark.parametrize("family", ["bloom", "llama", "gpt2", "mistral", "mamba"])
@pytest.mark.parametrize(("candidates", "least", "unexpected"), [(3, 0.0, 0.0), (12, 0.05, 0.25), (6, 0.12, 0.0)])
def test_it_is_the_mean_over_what_the_model_holds_possible(
    family: str, candidates: int, least: float, unexpected: float
) -> None:
    replay = replay_of(family, torch.float64)
    options = {"candidates": candidates, "least": least, "unexpected": unexpected}
    found = input_marginalization(replay, Question((10,), "foil", (8,)), **options)
    expected = twin(replay, 10, 8, candidates, least, unexpected)
    exact = 1e-5 if family == "mamba" else 1e-10  # which leaves double precision on its way
    np.testing.assert_allclose(found.relevance[0, 1:], expected[1:], atol=exact)
    assert {name: found.notes[name] for name in ("candidates", "unexpected")} == {
        "candidates": candidates, "unexpected": unexpected
    }  # fmt: skip


@pytest.mark.parametrize("family", ["llama", "mamba"])
def test_logits_beyond_what_may_be_held_come_in_parts(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    replay = replay_of(family, torch.float64)
    question = Question((4, 8, 10), "foil", (8, 3, 5))
    whole = input_marginalization(replay, question, candidates=3)
    for module in ("fallen", "marginalization"):
        monkeypatch.setattr(f"tokentape.explain.replacing.{module}.HEAD_BYTES", 4 * 3 * replay.causal.vocab_size)
    held: list[int] = []
    watch = replay.model.register_forward_hook(
        lambda module, inputs, output: held.append(output.logits[..., 0].numel())
    )
    parts = input_marginalization(replay, question, candidates=3)
    watch.remove()
    assert max(held) == 3
    np.testing.assert_allclose(parts.relevance, whole.relevance, atol=1e-5 if family == "mamba" else 1e-10)


class Twice(nn.Module):
    """Says nearly every token twice: the first of a pair comes by chance, and the second repeats it."""

    def __init__(self, masked: int | None = None) -> None:
        super().__init__()
        self.masked = masked
        self.says = nn.Embedding(20, 20, dtype=torch.float64)
        nn.init.normal_(self.says.weight, generator=torch.Generator().manual_seed(0))
        text = SimpleNamespace(bos_token_id=None, eos_token_id=None, pad_token_id=0)
        self.config = SimpleNamespace(get_text_config=lambda decoder: text, pad_token_id=0)
        self.dtype = torch.float64

    def get_input_embeddings(self) -> nn.Module:
        return self.says

    def forward(self, input_ids: torch.Tensor, use_cache: bool = False) -> Any:
        logits = self.says(input_ids).cumsum(1)
        logits[:, ::2] += 40 * torch.nn.functional.one_hot(input_ids[:, ::2], 20)
        if self.masked is not None:
            logits[..., self.masked :] = -torch.inf
        return SimpleNamespace(logits=logits)


def test_a_first_token_was_as_likely_as_each_of_the_draws() -> None:
    replay = replay_of("llama", torch.float64)
    found = input_marginalization(replay, Question((10,)), draws=3, seed=5, unexpected=0.0).relevance[0, 0]
    first = replace(replay, ids=replay.ids[:1])
    drawn = fills(first, ("random",), 3, np.random.default_rng(5))["random"][:, 0].tolist()
    value, after = [], []
    for token in (replay.ids[0], *drawn):
        rows = replay.model(torch.tensor([[token, *replay.ids[1:10]]])).logits[0].detach().double()
        value.append(float(rows[9, replay.ids[10]] - rows[9].mean()))
        after.append(float(rows[:9].log_softmax(-1)[torch.arange(9), torch.tensor(replay.ids[1:10])].sum()))
    share = torch.tensor(after, dtype=torch.float64).softmax(0).numpy()
    np.testing.assert_allclose(found, value[0] - (share * value).sum(), atol=1e-10)


def test_more_candidates_than_there_are_tokens_are_all_of_them() -> None:
    causal = CausalModel(Twice().eval(), None, "twice", None, None, None, 20)
    replay = Replay(causal, (4, 4, 7, 2, 9), 2)
    every, more = (input_marginalization(replay, Question((4,)), candidates=n, least=0.0).relevance for n in (19, 1000))
    np.testing.assert_array_equal(every, more)


def test_what_has_no_probability_is_not_drawn() -> None:
    """Vocabularies that are padded have entries at minus infinity."""
    causal = CausalModel(Twice(masked=4).eval(), None, "twice", None, None, None, 20)
    replay = Replay(causal, (3, 3, 1, 2, 3), 2)
    question = Question((4,), "foil", (2,))
    all_of_them, possible = (
        input_marginalization(replay, question, candidates=n, least=0.0, seed=3).relevance for n in (19, 3)
    )
    np.testing.assert_allclose(all_of_them, possible, atol=1e-12)


def test_what_follows_says_what_could_have_stood_there() -> None:
    causal = CausalModel(Twice().eval(), None, "twice", None, None, None, 20)
    replay = Replay(causal, (4, 4, 7, 7, 9), 2)
    by_itself = input_marginalization(replay, Question((3,)), unexpected=0.0)
    assert by_itself.relevance[0, 2] > 10
    followed = input_marginalization(replay, Question((4,)), unexpected=0.0)
    np.testing.assert_allclose(followed.relevance, 0, atol=1e-9)
    neutral = input_marginalization(replay, Question((4,)))
    alone = leave_one_out(replay, Question((4,))).relevance
    np.testing.assert_allclose(neutral.relevance, 0.2 * alone, atol=1e-9)


def test_what_could_not_have_been_another_has_no_part() -> None:
    replay = replay_of("llama")
    sure = Question((10,), "foil", (8,))
    found = input_marginalization(replay, sure, least=0.999, unexpected=0.0)
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
