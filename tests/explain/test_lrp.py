from __future__ import annotations

import ast
import dataclasses
import importlib.util
import subprocess
import sys
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from affine_models import IDS, N_PROMPT, replay

from tokentape.explain import lrp
from tokentape.explain.lrp import NOTICE, attn_lrp, cp_lrp
from tokentape.explain.methods import METHODS
from tokentape.explain.question import Attribution, Question
from tokentape.explain.replay import Replay
from tokentape.models.causal import CausalModel

# some models of transformers are compiled by it when they are imported
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")

SOURCE = Path(lrp.__file__).parents[1]


@lru_cache
def make_lxt() -> ModuleType:
    path = Path(__file__).parent / "fixtures" / "make_lxt.py"
    spec = importlib.util.spec_from_file_location("make_lxt", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def closes(found: Attribution, bound: float) -> bool:
    residual, value = found.ledger["residual"], found.value
    np.testing.assert_allclose(sum(found.ledger.values()), value, rtol=0, atol=1e-12 * np.abs(value).max())
    return bool(np.abs(residual).max() < bound * np.abs(value).max())


@pytest.mark.parametrize(("seed", "kind"), [("centred", "logit"), ("foil", "foil")])
@pytest.mark.parametrize(("rule", "method"), [("attn_lrp", attn_lrp), ("cp_attention", cp_lrp)])
@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen2", "qwen3"])
def test_relevance_equals_that_of_lxt(family: str, rule: str, method: Any, seed: str, kind: Any) -> None:
    """LXT's own CP-LRP detaches the gate of a gated perceptron besides: ``cp_attention`` is its attention alone."""
    fixture = make_lxt().load(family)
    model = make_lxt().rebuilt(fixture)
    vocabulary = fixture["config"]["vocab_size"]
    ids = (*fixture["ids"], fixture["next_id"])
    played = Replay(CausalModel(model, None, family, None, None, 32, vocabulary), ids, len(fixture["ids"]))
    for number, asked in enumerate(fixture["questions"]):
        target = asked["row"] + 1
        assert ids[target] == asked["target"]
        question = Question((target,), kind, foils=(asked["foil"],) if kind == "foil" else ())
        found = method(played, question)
        expected = fixture["relevance"][rule][seed][number]
        np.testing.assert_allclose(found.relevance[0], expected[:target], rtol=0, atol=1e-6)
        assert not np.any(expected[target:])
        logits = np.array(fixture["logits"][number])
        off = logits[asked["foil"]] if kind == "foil" else logits.mean()
        np.testing.assert_allclose(found.value, logits[asked["target"]] - off, atol=1e-6)
        assert closes(found, 1e-6)


@pytest.mark.parametrize("method", [attn_lrp, cp_lrp])
@pytest.mark.parametrize("family", ["gpt2", "bloom", "llama", "gemma2", "qwen3_moe", "mamba"])
def test_swapping_target_and_foil_flips_the_sign_exactly(family: str, method: Any) -> None:
    played = replay(family)
    other = dataclasses.replace(played, ids=(*IDS[:-1], 77))
    for exact in (True, False):
        forth = method(played, Question((12,), "foil", foils=(77,)), exact=exact)
        back = method(other, Question((12,), "foil", foils=(IDS[12],)), exact=exact)
        assert np.abs(forth.relevance).max() > 0
        assert torch.equal(torch.from_numpy(-forth.relevance), torch.from_numpy(back.relevance))
        assert torch.equal(torch.from_numpy(-forth.value), torch.from_numpy(back.value))


@pytest.mark.parametrize("method", [attn_lrp, cp_lrp])
@pytest.mark.parametrize("family", ["gpt2", "gemma2", "mixtral"])
def test_a_log_probability_books_what_its_derivative_leaves(family: str, method: Any) -> None:
    played = replay(family)
    found = method(played, Question((6, 9), "logprob"))
    assert closes(found, 1e-5)
    assert (np.abs(found.ledger["leaks"]) > 0.1).all()
    assert "fades" in found.notes
    with torch.no_grad():
        logprobs = played.logits((6, 9))[0].double().log_softmax(-1)
    np.testing.assert_allclose(found.value, [logprobs[0, IDS[6]], logprobs[1, IDS[9]]], rtol=1e-5)


@pytest.mark.parametrize("method", [attn_lrp, cp_lrp])
def test_both_ways_give_the_same_and_the_cheaper_is_chosen(method: Any) -> None:
    segments = ((0, 3), (4, 6), (6, 7), (8, 11))
    targets = tuple(range(N_PROMPT - 1, len(IDS)))
    question = Question(targets, segments=segments)
    played = replay("gpt2", torch.float64)
    by = {exact: method(played, question, exact=exact) for exact in (True, False)}
    assert [by[exact].notes["passes_by"] for exact in (True, False)] == ["rows", "segments"]
    np.testing.assert_allclose(by[True].relevance, by[False].relevance, rtol=1e-9, atol=1e-12)
    for part, owed in by[True].ledger.items():
        np.testing.assert_allclose(by[False].ledger[part], owed, rtol=1e-9, atol=1e-12)
    assert closes(by[True], 1e-12) and closes(by[False], 1e-12)
    # a target at position 5 sees nothing of what begins at 6
    assert np.isnan(by[False].relevance).tolist() == (~question.visible()).tolist()
    assert np.isnan(by[True].relevance).tolist() == (~question.visible()).tolist()
    assert np.isnan(by[True].relevance[0]).tolist() == [False, False, True, True]
    # eight rows, and four segments with five passes besides
    assert method(played, question).notes["passes_by"] == "rows"
    fewer = dataclasses.replace(question, segments=((0, 6), (6, 12)))
    assert method(played, fewer).notes["passes_by"] == "segments"
    assert method(played, Question((9, 12))).notes["passes_by"] == "rows"


def test_an_answer_asked_together_is_one_row() -> None:
    found = attn_lrp(replay("llama"), Question((6, 7, 8), together=True))
    assert found.relevance.shape == (1, 8) and found.value.shape == (1,)
    assert np.isfinite(found.relevance).all() and closes(found, 1e-5)


def test_the_notice_comes_with_every_answer() -> None:
    for name in ("attn_lrp", "cp_lrp"):
        assert METHODS[name].home == f"tokentape.explain.lrp:{name}"
        found = METHODS[name](replay("gpt2"), Question((6,)))
        assert found.notes["notice"] == NOTICE
    assert "US 12,061,966 B2" in NOTICE and "EP 3271863 B1" in NOTICE


def test_nothing_else_imports_relevance_propagation() -> None:
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                whole = [f"{getattr(node, 'module', '')}.{alias.name}" for alias in node.names]
                assert not any("explain.lrp" in name for name in whole), path
    asked = "import sys, tokentape.explain.methods, tokentape.explain.affine.graph; print('tokentape.explain.lrp' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "False"
