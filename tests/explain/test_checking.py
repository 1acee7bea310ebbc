"""The replay check: the same model passes, anything else is caught."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lively import TWENTY_ONE
from tapes_of_models import PROMPT, recorded

import every_family
import families
import tokentape
from tokentape.data.explanation import ReplayCheck
from tokentape.data.trace import Trace
from tokentape.errors import PromptError, ReplayError
from tokentape.explain.checking import check, logprobs, refuse_failed, same_model
from tokentape.explain.replay import Replay, ids_of
from tokentape.models.causal import CausalModel, load


@pytest.mark.parametrize("family", TWENTY_ONE)
def test_recorded_runs_agree_with_their_replay(family: str) -> None:
    causal = every_family.tiny(family)
    tape = recorded(causal, do_sample=True, seed=3)
    (found,) = check(list(tape.traces), causal, tape.setting)
    assert found.passed and found.n == 16
    assert found.largest is not None and found.largest < 1e-4


def test_the_shipped_model_agrees_over_a_batch_of_unequal_prompts() -> None:
    causal = load("demo")
    prompts = ["The cat sat on the", "Tom went to", "English: The dog sat on the mat.\nChinese:"]
    tape = tokentape.record(tokentape.local("demo"), prompts, max_new_tokens=30, path=None)
    found = check(list(tape.traces), causal, tape.setting)
    assert [one.passed for one in found] == [True] * 3
    assert max(one.largest or 0 for one in found) < 1e-4


@pytest.mark.material
@pytest.mark.parametrize("name", ["TinyStories-656K", "stories260K"])
def test_trained_models_agree(name: str, material: Path) -> None:
    source = tokentape.local(str(material / "models" / name), bos=True)
    tape = tokentape.record(source, "Once upon a time", max_new_tokens=120, path=None)
    (found,) = check(list(tape.traces), source.causal, tape.setting)
    assert found.passed and (found.largest or 1) < 1e-4 and (found.median or 1) < 1e-5


class Altered:
    """A loader that gives one trace another id, as a tape changed by hand would."""

    def __init__(self, loader: Any, *, prompt_at: int | None = None, token_at: int | None = None) -> None:
        self._loader, self._prompt_at, self._token_at = loader, prompt_at, token_at

    def prompt(self, number: int) -> Any:
        text, ids = self._loader.prompt(number)
        if self._prompt_at is not None:
            ids = ids.copy()
            ids[self._prompt_at] = (ids[self._prompt_at] + 7) % 250
        return text, ids

    def symbols(self, number: int) -> Any:
        inside, overshoot = self._loader.symbols(number)
        if self._token_at is None:
            return inside, overshoot
        columns = dict(inside.columns)
        ids = columns["id"].copy()
        ids[self._token_at] = (ids[self._token_at] + 7) % 250
        columns["id"] = ids
        return replace(inside, columns=type(inside.columns)(columns, inside.columns.n_rows)), overshoot

    def steps(self, run: int) -> Any:
        return self._loader.steps(run)


def altered(trace: Trace, **where: int) -> Trace:
    return replace(trace, loader=Altered(trace.loader, **where))


@pytest.mark.parametrize("where", [{"prompt_at": 0}, {"prompt_at": 4}, {"token_at": 0}, {"token_at": 9}])
@pytest.mark.parametrize("family", ["bloom", "llama", "gpt2"])
def test_one_altered_id_is_caught(family: str, where: dict[str, int]) -> None:
    causal = families.causal(family)
    tape = recorded(causal)
    (found,) = check([altered(tape.traces[0], **where)], causal, tape.setting)
    assert not found.passed
    assert "differs by" in str(found.reason)
    with pytest.raises(ReplayError, match="does not agree with the tape"):
        refuse_failed(found, 0)


def test_the_last_token_altered_is_caught_by_its_own_probability() -> None:
    causal = families.causal("llama")
    tape = recorded(causal)
    (found,) = check([altered(tape.traces[0], token_at=15)], causal, tape.setting)
    assert not found.passed and f"position {len(PROMPT) + 15} differs" in str(found.reason)


def test_other_weights_are_caught_by_figures_and_by_name() -> None:
    causal = families.causal("llama")
    tape = recorded(causal)
    other = copy.deepcopy(causal.model)
    with torch.no_grad():
        next(other.model.layers[0].self_attn.parameters()).add_(0.01)
    changed = replace(causal, model=other)
    (found,) = check(list(tape.traces), changed)
    assert not found.passed and "differs by" in str(found.reason)
    (found,) = check(list(tape.traces), changed, tape.setting)
    assert "weights full:" in str(found.reason)


def test_a_change_too_small_for_the_figures_is_caught_by_the_hash() -> None:
    causal = families.causal("llama")
    tape = recorded(causal)
    other = copy.deepcopy(causal.model)
    with torch.no_grad():
        other.model.norm.weight[0] += 1e-6
    changed = replace(causal, model=other)
    assert check(list(tape.traces), changed)[0].passed
    assert not check(list(tape.traces), changed, tape.setting)[0].passed


def test_the_same_weights_in_another_precision_are_left_to_the_figures() -> None:
    causal = families.causal("llama")
    tape = recorded(causal)
    half = replace(causal, model=copy.deepcopy(causal.model).to(torch.bfloat16))
    assert same_model(tape.setting, half) is None
    (found,) = check(list(tape.traces), half, tape.setting)
    assert found.tolerance == 0.5 and (found.largest or 0) > 1e-3


def test_another_architecture_is_named() -> None:
    tape = recorded(families.causal("llama"))
    reason = same_model(tape.setting, families.causal("bloom"))
    assert reason is not None and "architecture LlamaForCausalLM" in reason


@pytest.mark.parametrize(
    "family", ["bloom", "llama", "mistral", "gemma2", "mixtral", "gpt2", "opt", "falcon", "bamba", "rwkv"]
)
@pytest.mark.parametrize("chunk", [3, 5, 16])
def test_chunks_of_queries_give_the_same(family: str, chunk: int) -> None:
    causal = every_family.tiny(family)
    ids = np.random.default_rng(0).integers(0, 250, 41).tolist()
    whole, parts = (logprobs(causal, [ids], [4], chunk=size)[0] for size in (1000, chunk))
    np.testing.assert_allclose(parts, whole, atol=2e-5)
    assert len(whole) == 37


def test_a_batch_gives_what_each_sequence_gives_alone() -> None:
    causal = families.causal("bloom")
    rng = np.random.default_rng(1)
    rows = [rng.integers(0, 250, n).tolist() for n in (9, 30, 10, 2)]
    firsts = [3, 1, 9, 1]
    seen: list[tuple[int, int]] = []
    together = logprobs(causal, rows, firsts, progress=lambda done, total: seen.append((done, total)))
    for row, first, found in zip(rows, firsts, together, strict=True):
        np.testing.assert_allclose(found, logprobs(causal, [row], [first])[0], atol=2e-5)
    assert seen[-1] == (51, 51)


def test_log_probabilities_are_those_of_log_softmax() -> None:
    causal = families.causal("gpt2")
    ids = list(range(10, 30))
    expected = causal.model(torch.tensor([ids])).logits.detach().double().log_softmax(-1)
    found = logprobs(causal, [ids], [1])[0]
    np.testing.assert_allclose(found, [float(expected[0, p - 1, ids[p]]) for p in range(1, 20)], atol=1e-6)


def test_a_tape_without_log_probabilities_does_not_pass() -> None:
    causal = families.causal("llama")
    tape = recorded(causal, probe="timing")
    (found,) = check(list(tape.traces), causal, tape.setting)
    assert found == ReplayCheck(
        None, None, 0, found.tolerance, False, "the tape has no log-probabilities to compare with"
    )


def test_a_tape_without_text_or_of_another_vocabulary_cannot_be_replayed() -> None:
    causal = families.causal("llama")
    tape = recorded(causal)
    with pytest.raises(ReplayError, match="another vocabulary"):
        ids_of(tape.traces[0], 12)
    bare = recorded(causal, text=False)
    with pytest.raises(ReplayError, match="no prompt ids"):
        check(list(bare.traces), causal)


def test_a_sequence_longer_than_the_model_reads_is_refused() -> None:
    long = recorded(families.causal("rwkv"), n_new=150, min_new_tokens=150)
    with pytest.raises(PromptError, match="reads 128"):
        check(list(long.traces), families.causal("gpt2"))


def test_a_replay_gives_the_model_s_own_logits_and_entry() -> None:
    causal = families.causal("bloom")
    replay = Replay(causal, tuple(range(20, 32)), 4)
    plain = causal.model(torch.tensor([replay.ids])).logits.detach()
    torch.testing.assert_close(replay.logits((5, 9, 11)), plain[:, [4, 8, 10]], atol=1e-5, rtol=0)
    entry = replay.entry()
    torch.testing.assert_close(replay.logits((5, 11), entry=entry), replay.logits((5, 11)), atol=0, rtol=0)
    assert not torch.allclose(replay.logits((5,), entry=entry * 0.5), replay.logits((5,)))
    twice = replay.logits((5, 9), entry=entry[:, :9].expand(2, -1, -1))
    torch.testing.assert_close(twice[1:], plain[:, [4, 8]], atol=1e-5, rtol=0)
    assert replay.passes.forward == 1 + 1 + 1 + 1 + 1 + 1 + 2


def test_a_norm_at_both_ends_of_a_model_is_replaced_at_its_entry_alone() -> None:
    causal = every_family.tiny("nanochat")
    replay = Replay(causal, tuple(range(20, 32)), 4)
    assert replay.anatomy.entry is replay.anatomy.final_norm
    plain = causal.model(torch.tensor([replay.ids])).logits
    torch.testing.assert_close(replay.logits((5,), entry=replay.entry()), plain[:, [4]], atol=1e-5, rtol=0)


def model_state(causal: CausalModel) -> list[Any]:
    return [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in causal.model.modules()]


def test_the_model_is_as_it_was_when_a_pass_fails() -> None:
    causal = families.causal("bloom")
    before = model_state(causal)
    replay = Replay(causal, tuple(range(20, 32)), 4)
    with pytest.raises(RuntimeError):
        replay.logits((5,), entry=torch.zeros(1, 4, 7))
    assert model_state(causal) == before


def test_a_text_that_was_seen_through_a_window_is_refused() -> None:
    """A replay reads without one, so it would compute something else; where nothing was dropped it is as any other."""
    source = tokentape.local("demo")
    with tokentape.record(source, "The cat sat on the", max_new_tokens=12, window=8, sinks=2) as tape:
        with pytest.raises(ReplayError) as caught:
            tokentape.replay(tape, source)
        assert "window" in caught.value.what
    with tokentape.record(source, "The cat sat on the", max_new_tokens=12, window=32) as tape:
        assert tokentape.replay(tape, source)[0].passed
