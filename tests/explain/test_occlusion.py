"""Occlusion equals a twin that runs the whole sequence for each source, and leaves nothing behind."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lively import assert_untouched, footprint, lively

import every_family
import families
from tokentape.errors import UsageError
from tokentape.explain.question import Question
from tokentape.explain.replacing.occlusion import leave_one_out
from tokentape.explain.replacing.standins import neutral_id
from tokentape.explain.replay import Replay
from tokentape.models.anatomy import inputs_of
from tokentape.models.causal import CausalModel

CACHED = "bloom llama gpt2 mistral gemma2 mixtral opt falcon gpt_neox".split()
RECURRENT = "rwkv mamba bamba jamba".split()


def double(family: str) -> CausalModel:
    return lively(family, torch.float64)


def twin(replay: Replay, question: Question, token: int) -> np.ndarray:
    """One pass over the whole sequence for each segment, nothing shared."""

    def values(ids: list[int]) -> np.ndarray:
        logits = replay.model(**inputs_of(replay.model, torch.tensor([ids])), use_cache=False).logits[0].detach()
        found = []
        for i, target in enumerate(question.targets):
            row = logits[target - 1].double()
            chosen = row[replay.ids[target]]
            other = {
                "logit": row.mean(),
                "logprob": row.logsumexp(0),
                "foil": row[question.foils[i]] if question.foils else None,
            }[question.kind]
            found.append(float(chosen - other))
        return np.array(found)

    full = values(list(replay.ids))
    falls = np.full((len(question.targets), len(question.segments)), np.nan)
    for n, (start, stop) in enumerate(question.segments):
        ids = [token if start <= p < stop else i for p, i in enumerate(replay.ids)]
        changed = full - values(ids)
        for row, target in enumerate(question.targets):
            if start < target:
                falls[row, n] = changed[row]
    if question.together:
        return np.nansum(falls, 0)[None]
    return falls


IDS = tuple(int(i) for i in np.random.default_rng(4).integers(0, 250, 40))


@pytest.mark.parametrize("family", [*CACHED, *RECURRENT])
@pytest.mark.parametrize("kind", ["logit", "foil", "logprob"])
def test_it_equals_a_pass_for_each_source(family: str, kind: Any) -> None:
    replay = Replay(double(family), IDS, 5)
    targets = (3, 20, 21, 39)
    question = Question(targets, kind, foils=(1, 2, 3, 4) if kind == "foil" else ())
    found = leave_one_out(replay, question, replacement=9)
    # these families leave double precision on their way
    exact = 1e-5 if family in ("mamba", "jamba") else 1e-10
    np.testing.assert_allclose(found.relevance, twin(replay, question, 9), atol=exact, rtol=0)
    assert found.notes["prefix"] == ("computed anew" if family in RECURRENT else "kept")


@pytest.mark.parametrize("family", ["moshi", "falcon_h1", "zaya"])
def test_a_cache_that_cannot_be_gone_on_with_is_found_out(family: str) -> None:
    """Their caches look like those of keys and values; one gives other numbers, the others fail in a batch."""
    replay, question = Replay(every_family.tiny(family), IDS, 5), Question((20, 39))
    found = leave_one_out(replay, question, replacement=9)
    assert found.notes["prefix"] == "computed anew"
    np.testing.assert_allclose(found.relevance, twin(replay, question, 9), atol=1e-5, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("family", sorted(set(every_family.FAMILIES) - {"reformer"}))
def test_every_family_equals_its_twin(family: str) -> None:
    replay = Replay(every_family.tiny(family), IDS, 5)
    question = Question((3, 20, 39), segments=((0, 2), (2, 3), (5, 9), (17, 22), (25, 26), (33, 34), (38, 39)))
    found = leave_one_out(replay, question, replacement=9)
    np.testing.assert_allclose(found.relevance, twin(replay, question, 9), atol=1e-5, rtol=1e-5)


def test_the_model_is_left_as_it_was_after_a_failure_too(monkeypatch: pytest.MonkeyPatch) -> None:
    replay = Replay(double("llama"), IDS, 5)
    before = footprint(replay.model)
    leave_one_out(replay, Question((20, 39)))
    assert_untouched(before, replay.model)

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        leave_one_out(replay, Question((20, 39)), progress=stop)
    assert_untouched(before, replay.model)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 38), min_size=1, max_size=9, unique=True), st.booleans(), st.integers(0, 3))
def test_segments_of_any_shape(cuts: list[int], together: bool, gap: int) -> None:
    edges = [0, *sorted(cuts), 39]
    segments = tuple((a, max(a + 1, b - gap)) for a, b in itertools.pairwise(edges))
    replay = Replay(double("llama"), IDS, 5)
    question = Question((7, 19, 39), segments=segments, together=together)
    found = leave_one_out(replay, question, replacement=9)
    np.testing.assert_allclose(found.relevance, twin(replay, question, 9), atol=1e-10, rtol=0)


def test_in_single_precision_it_agrees_to_rounding() -> None:
    replay = Replay(every_family.tiny("bloom"), IDS, 5)
    question = Question((20, 39))
    found = leave_one_out(replay, question, replacement=9)
    np.testing.assert_allclose(found.relevance, twin(replay, question, 9), atol=1e-4, rtol=0)


def test_the_neutral_token_and_draws_of_ordinary_ones() -> None:
    replay = Replay(double("gpt2"), IDS, 5)
    question = Question((30,))
    token = neutral_id(replay.causal)
    found = leave_one_out(replay, question)
    np.testing.assert_allclose(found.relevance, twin(replay, question, token), atol=1e-10)
    assert found.notes["replacement"] == {"id": token}
    once, again, other = (leave_one_out(replay, question, replacement="random", seed=s).relevance for s in (1, 1, 2))
    np.testing.assert_array_equal(once, again)
    assert not np.allclose(once, other)


def test_a_straddled_target_is_asked_about_what_stands_before_it() -> None:
    replay = Replay(double("llama"), IDS, 5)
    whole = leave_one_out(replay, Question((20,), segments=((0, 15), (15, 30))), replacement=9)
    cut = leave_one_out(replay, Question((20,), segments=((0, 15), (15, 20))), replacement=9)
    np.testing.assert_allclose(whole.relevance, cut.relevance, atol=1e-12)


def test_swapping_target_and_foil_flips_the_sign() -> None:
    ids = list(IDS)
    one, other = ids[39], (ids[39] + 5) % 250
    causal = double("llama")
    asked = leave_one_out(Replay(causal, (*ids[:39], one), 5), Question((39,), "foil", (other,)), replacement=9)
    swapped = leave_one_out(Replay(causal, (*ids[:39], other), 5), Question((39,), "foil", (one,)), replacement=9)
    np.testing.assert_array_equal(asked.relevance, -swapped.relevance)


def test_progress_is_told_and_passes_are_counted() -> None:
    replay = Replay(every_family.tiny("llama"), IDS, 5)
    seen: list[tuple[int, int]] = []
    leave_one_out(replay, Question((39,)), replacement=9, progress=lambda done, total: seen.append((done, total)))
    # the recorded ids; all 39 sources; what stands before the second batch; the ids once more in that batch, to compare
    assert seen[-1] == (39, 39) and replay.passes.forward == 1 + 39 + 1 + 1 and replay.passes.backward == 0


def test_a_token_that_does_not_exist_is_refused() -> None:
    replay = Replay(families.causal("llama"), IDS, 5)
    with pytest.raises(UsageError, match="no token 5000"):
        leave_one_out(replay, Question((39,)), replacement=5000)
    with pytest.raises(UsageError, match="no operator 'nothing'"):
        leave_one_out(replay, Question((39,)), replacement="nothing")
