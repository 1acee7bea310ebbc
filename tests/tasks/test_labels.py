"""Labels as continuations: held against the model's own logits, one label and one prompt at a time."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from label_runs import continuations

import tokentape as tt
from families import CONFIGS, causal
from tokentape.errors import PromptError, UsageError
from tokentape.sources.local import LocalSource
from tokentape.tasks.labels import Continuation, baseline_of, check_labels, scored, tokenised


@pytest.fixture(scope="module")
def demo() -> LocalSource:
    return tt.local("demo")


def by_hand(source: LocalSource, ids: list[int], n_context: int) -> float:
    """One sequence, all its logits, nothing shared and nothing padded."""
    with torch.no_grad():
        logprobs = source.causal.model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
    return sum(float(logprobs[i - 1, ids[i]]) for i in range(n_context, len(ids)))


@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.parametrize("batch_size", [1, 3])
def test_log_probabilities_are_those_of_the_model(family: str, batch_size: int) -> None:
    source = LocalSource(causal(family))
    prompts = ["a", "a longer prompt:", "b" * 30, "a"]
    follows = [" x", " xy", " other", "\n"]
    found = continuations(source, prompts, follows, batch_size=batch_size)
    for prompt, row in zip(prompts, found, strict=True):
        context = source.encode(prompt)
        for text, each in zip(follows, row, strict=True):
            ids = source.encode(prompt + text)
            assert (list(each.context), [*each.context, *each.ids], each.merged) == (context, ids, False)
            assert each.logprob == pytest.approx(by_hand(source, ids, len(context)), abs=2e-3)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.text(alphabet="abé猫 \n", min_size=1, max_size=12), min_size=1, max_size=4),
    st.lists(st.text(alphabet="xy猫z", min_size=1, max_size=4), min_size=2, max_size=5, unique=True),
    st.integers(1, 4),
)
def test_any_batch_gives_what_each_label_gives_alone(prompts: list[str], labels: list[str], batch_size: int) -> None:
    source = LocalSource(causal("llama"))
    for prompt, row in zip(prompts, continuations(source, prompts, labels, batch_size=batch_size), strict=True):
        context = source.encode(prompt)
        for label, each in zip(labels, row, strict=True):
            assert each.logprob == pytest.approx(
                by_hand(source, [*context, *source.encode(label)], len(context)), abs=2e-3
            )


def test_a_merge_at_the_boundary_is_counted_for_all_labels_alike(demo: LocalSource) -> None:
    """ "The ca" and "t" become one token " cat": the labels are scored from where the tokens begin to differ from the prompt's."""
    (row,) = continuations(demo, ["The ca"], ["t", "r"])
    assert all(each.merged for each in row)
    assert len({each.context for each in row}) == 1 and len(row[0].context) < len(demo.encode("The ca"))
    for label, each in zip("tr", row, strict=True):
        ids = demo.encode("The ca" + label)
        assert [*each.context, *each.ids] == ids
        assert each.logprob == pytest.approx(by_hand(demo, ids, len(each.context)), abs=1e-4)


def test_labels_of_one_token_take_one_pass_over_their_prompt(
    demo: LocalSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is predicted last is not read; a label that begins like a longer one is not read for itself."""
    from tokentape.models.head import Head

    read: list[tuple[int, ...]] = []
    logprobs = Head.logprobs
    monkeypatch.setattr(Head, "logprobs", lambda self, ids, *rest: read.append(ids.shape) or logprobs(self, ids, *rest))
    prompts = ["Review: The soup was good.\nSentiment:", "Review: The song is bad.\nSentiment:"]
    continuations(demo, prompts, [" positive", " negative"])
    n = len(demo.encode(prompts[0]))
    assert read == [(2, n)]
    read.clear()
    continuations(demo, prompts[:1], [" positive", " positive negative", " positive negative film"])
    assert read == [(1, n + 2)]


def test_without_a_prompt_the_label_follows_the_beginning_of_text(demo: LocalSource) -> None:
    (row,) = continuations(demo, [None], [" positive", " negative film"])
    bos = demo.causal.bos_id
    for text, each in zip([" positive", " negative film"], row, strict=True):
        assert each.context == (bos,)
        assert each.logprob == pytest.approx(by_hand(demo, [bos, *demo.encode(text)], 1), abs=1e-4)


def continued(*logprobs: float) -> Continuation:
    return Continuation((1,), tuple(range(len(logprobs))), False, logprobs)


LABELS = ("yes", "nope", "é猫")
FOUND = [continued(-1.0), continued(-0.5, -0.7), continued(-3.0, -1.0, -0.5)]


@pytest.mark.parametrize(
    ("normalization", "scores"),
    [
        ("sum", [-1.0, -1.2, -4.5]),
        ("token", [-1.0, -0.6, -1.5]),
        ("character", [-1 / 3, -1.2 / 4, -4.5 / 2]),
        ("byte", [-1 / 3, -1.2 / 4, -4.5 / 5]),
    ],
)
def test_normalisations_divide_by_what_they_say(normalization: str, scores: list[float]) -> None:
    found = scored(LABELS, FOUND, normalization)
    assert found.scores == pytest.approx(scores)
    shares = np.exp(scores) / np.exp(scores).sum()
    assert found.probabilities == pytest.approx(shares)
    assert found.label == LABELS[int(np.argmax(scores))]
    assert found.margin == pytest.approx(np.sort(shares)[-1] - np.sort(shares)[-2])


def test_pmi_takes_off_the_domain() -> None:
    domain = [continued(-2.0), continued(-0.1), continued(-9.0)]
    baseline = baseline_of(LABELS, [domain], "pmi")
    found = scored(LABELS, FOUND, "pmi", baseline)
    assert found.scores == pytest.approx([1.0, -1.1, 4.5])
    assert found.label == "é猫"


def test_calibration_is_that_of_the_paper() -> None:
    """W = diag(p_cf)^-1, b = 0, q = W p (Zhao et al. 2021, equation 2), with the mean of p over the content-free inputs."""
    free = [[continued(-1.0), continued(-2.0), continued(-0.2)], [continued(-3.0), continued(-1.0), continued(-0.5)]]
    p_cf = np.mean([np.exp(row) / np.exp(row).sum() for row in [[-1.0, -2.0, -0.2], [-3.0, -1.0, -0.5]]], axis=0)
    p = np.exp([-1.0, -1.2, -4.5]) / np.exp([-1.0, -1.2, -4.5]).sum()
    q = np.linalg.inv(np.diag(p_cf)) @ p
    found = scored(LABELS, FOUND, "calibrated", baseline_of(LABELS, free, "calibrated"))
    assert found.best == int(np.argmax(q))
    assert found.probabilities == pytest.approx(q / q.sum())


def test_calibration_by_the_input_itself_knows_nothing() -> None:
    found = scored(LABELS, FOUND, "calibrated", baseline_of(LABELS, [FOUND], "calibrated"))
    assert found.probabilities == pytest.approx([1 / 3] * 3)


def test_a_label_without_any_probability_stays_a_number() -> None:
    baseline = baseline_of(("a", "b"), [[continued(0.0), continued(-4000.0)]], "calibrated")
    assert all(math.isfinite(value) for value in baseline)


@pytest.mark.parametrize(
    ("labels", "what"),
    [
        (["good", "good "], "'good' is given twice"),
        (["good", " "], "an empty label"),
        (["good"], "1 labels"),
        ([], "0 labels"),
    ],
)
def test_labels_that_are_no_choice(labels: list[str], what: str) -> None:
    with pytest.raises(UsageError, match=what):
        check_labels(labels)


def source_that_reads(table: dict[str, list[int]]) -> Any:
    """A tokenizer on paper."""
    return SimpleNamespace(
        encode=lambda text, bos=None: table[text], causal=SimpleNamespace(check_length=lambda *n: None)
    )


def test_a_label_that_becomes_no_token() -> None:
    source = source_that_reads({"p": [1, 2], "p \u200b": [1, 2], "p x": [1, 2, 3]})
    with pytest.raises(UsageError, match="becomes no token"):
        tokenised(source, ["p"], [" x", " \u200b"])


def test_labels_that_become_the_same_tokens() -> None:
    source = source_that_reads({"p": [1, 2], "p ½": [1, 2, 0], "p x": [1, 2, 0]})
    with pytest.raises(UsageError, match="become the same tokens"):
        tokenised(source, ["p"], [" x", " ½"])


def test_a_prompt_that_merges_away() -> None:
    source = source_that_reads({"p": [1], "px": [7], "py": [8]})
    with pytest.raises(PromptError, match="no token in common"):
        tokenised(source, ["p"], ["x", "y"])


def test_a_prompt_that_does_not_fit() -> None:
    with pytest.raises(PromptError, match="128"):
        tokenised(LocalSource(causal("gpt2")), ["ok", "a" * 127], [" x", " y"])
