"""What is recorded is what ``generate()`` does: ids, and log-probabilities before and after the rules."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import tokentape as tt
from families import CONFIGS, causal, model, tokenizer
from tokentape.sources.local import LocalSource

ONE = ["The cat sat on the"]
UNEQUAL = ["The cat", "A dog and a cat sat on a mat", "猫"]
EQUAL = ["The cat", "A dog x", "1234567"]

SAMPLED = {"do_sample": True}
CASES: dict[str, tuple[list[str], dict[str, Any]]] = {
    "greedy": (ONE, {}),
    "greedy, one token": (ONE, {"max_new_tokens": 1}),
    "sampled": (ONE, SAMPLED),
    "temperature": (ONE, {**SAMPLED, "temperature": 0.7, "top_k": 0}),
    "hot": (ONE, {**SAMPLED, "temperature": 2.5, "top_k": 0}),
    "top-k": (ONE, {**SAMPLED, "top_k": 5}),
    "top-p": (ONE, {**SAMPLED, "top_p": 0.8, "top_k": 0}),
    "min-p": (ONE, {**SAMPLED, "min_p": 0.05, "top_k": 0}),
    "repetition penalty": (ONE, {"repetition_penalty": 1.5}),
    "n-gram ban": (ONE, {"no_repeat_ngram_size": 2}),
    "bad words": (ONE, {"bad_words_ids": [[5], [6, 7], [100]]}),
    "minimum length": (ONE, {"min_new_tokens": 12, "eos_token_id": list(range(0, 256, 2))}),
    "many ends": (ONE, {"eos_token_id": list(range(0, 256, 9))}),
    "stop strings": (ONE, {**SAMPLED, "stop_strings": ["a", "e", "1", "q"]}),
    "everything": (
        ONE,
        {
            **SAMPLED,
            "temperature": 0.9,
            "top_k": 50,
            "top_p": 0.95,
            "repetition_penalty": 1.2,
            "no_repeat_ngram_size": 3,
        },
    ),
    "batch, greedy": (UNEQUAL, {}),
    "batch, sampled": (UNEQUAL, {**SAMPLED, "top_p": 0.9}),
    "batch, ends apart": (UNEQUAL, {**SAMPLED, "eos_token_id": list(range(0, 256, 9))}),
    "batch, rules": (UNEQUAL, {"repetition_penalty": 1.3, "no_repeat_ngram_size": 2}),
    "batch, stop strings": (UNEQUAL, {**SAMPLED, "stop_strings": ["a", "e", "1", "q"]}),
    "three sequences": (ONE, {**SAMPLED, "num_return_sequences": 3}),
    "batch, two sequences each": (UNEQUAL, {**SAMPLED, "num_return_sequences": 2, "temperature": 1.3}),
    "batch, no end token": (UNEQUAL, {**SAMPLED, "eos_token_id": None, "stop_strings": ["a", "e", "1", "q"]}),
}

SEED = 7


def _inputs(family: str, prompts: list[str]) -> dict[str, torch.Tensor]:
    rows = [tokenizer()(prompt)["input_ids"] for prompt in prompts]
    width = max(map(len, rows))
    ids = torch.tensor([[259] * (width - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    return {"input_ids": ids, "attention_mask": mask}


def _reference(family: str, prompts: list[str], options: dict[str, Any]) -> Any:
    """``generate()`` itself, with everything that it will tell."""
    given = dict(options)
    if "stop_strings" in given:
        given["tokenizer"] = tokenizer()
    torch.manual_seed(SEED)
    return model(family).generate(
        **_inputs(family, prompts), **given, return_dict_in_generate=True, output_logits=True, output_scores=True
    )


def _check(tape: tt.Tape, reference: Any, prompts: list[str], options: dict[str, Any]) -> None:
    width = _inputs("", prompts)["input_ids"].shape[1]
    generated = reference.sequences[:, width:]
    raw = torch.stack(reference.logits).double().log_softmax(-1)
    processed = torch.stack(reference.scores).double().log_softmax(-1)
    assert len(tape.traces) == generated.shape[0]
    rules = len(tape.traces[0].token_ids) and not tape.traces[0].tokens["rules_logprob"].mask.all()
    changed = not torch.equal(torch.stack(reference.logits), torch.stack(reference.scores))
    assert rules or not changed
    for row, trace in enumerate(tape.traces):
        ids = [*trace.token_ids.tolist(), *trace.overshoot["id"].tolist()]
        expected = generated[row].tolist()
        assert ids == expected[: len(ids)]
        assert all(left == 259 for left in expected[len(ids) :]), "only padding may be missing from the tape"
        for step, token in enumerate(trace.token_ids.tolist()):
            assert trace.tokens["logprob"][step] == pytest.approx(float(raw[step, row, token]), abs=1e-6)
            if rules:
                assert trace.tokens["rules_logprob"][step] == pytest.approx(
                    float(processed[step, row, token]), abs=1e-6
                )
            assert trace.tokens["rank"][step] == 1 + int((raw[step, row] > raw[step, row, token]).sum())
            entropy = float(-(raw[step, row].exp() * raw[step, row]).nansum())
            assert trace.tokens["entropy"][step] == pytest.approx(entropy, abs=1e-5)
        best = raw[: len(trace.token_ids), row].topk(5).values.numpy()
        assert np.allclose(trace.candidates.logprob, best, atol=1e-5)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("family", CONFIGS)
def test_recorded_is_what_generate_does(family: str, case: str) -> None:
    prompts, options = CASES[case]
    if family == "rwkv" and prompts is UNEQUAL:
        prompts = EQUAL  # this family reads padding as text
    options = {"max_new_tokens": 24, **options}
    reference = _reference(family, prompts, options)

    tape = tt.record(LocalSource(causal(family)), prompts, seed=SEED, **options)
    _check(tape, reference, prompts, options)

    given = {**options, "tokenizer": tokenizer()} if "stop_strings" in options else options
    torch.manual_seed(SEED)
    with tt.recording(model(family), tokenizer=tokenizer()) as attached:
        returned = model(family).generate(
            **_inputs(family, prompts), **given, return_dict_in_generate=True, output_logits=True, output_scores=True
        )
    assert torch.equal(returned.sequences, reference.sequences)
    assert all(torch.equal(a, b) for a, b in zip(returned.logits, reference.logits, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(returned.scores, reference.scores, strict=True))
    _check(attached.tape, reference, prompts, options)
    for mine, theirs in zip(tape.traces, attached.traces, strict=True):
        assert mine.bytes == theirs.bytes
        assert mine.finish_reason == theirs.finish_reason
        for name in ("position", "step", "id", "logprob", "entropy", "rank", "rules_logprob", "forced"):
            assert np.ma.allequal(mine.tokens[name], theirs.tokens[name], fill_value=True), name


def test_there_are_enough_cases() -> None:
    assert len(CASES) * len(CONFIGS) >= 150
