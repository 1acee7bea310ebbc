"""``explain`` as a whole: from a tape to an explanation that a tape can keep, and the errors on the way."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tapes_of_models import recorded

import families
import tokentape
from tokentape.errors import ReplayError, UsageError
from tokentape.explain.explaining import DEFAULT_METHOD, explain, model_of, positions_of
from tokentape.explain.methods import METHODS, Method, method_named
from tokentape.models.causal import load

OWN = Method(
    "nearest_first", "nearest_first:nearest_first", "what stands near counts more",
    passes=lambda rows, tokens, segments: (1, 0), parameters=False, contrastive=False,
)  # fmt: skip


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(METHODS, OWN.name, OWN)
    yield


@pytest.fixture(scope="module")
def cat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tapes") / "cat.tape"
    tokentape.record(tokentape.local("demo"), "The cat sat on the", max_new_tokens=8, path=path).close()
    return path


def test_a_method_is_one_function_and_one_line(cat: Path, own: None) -> None:
    found = explain(cat, method="nearest_first", step=2, half_life=1.0)
    np.testing.assert_allclose(found.relevance[0], 0.5 ** np.arange(7, 0, -1.0))
    assert found.notes["half_life"] == 1.0
    assert found.check.passed and found.passes == {"forward": 1, "backward": 0}
    with pytest.raises(UsageError, match="its options are half_life"):
        explain(cat, method="nearest_first", step=2, halflife=1.0)


def test_every_generated_token_unless_one_is_asked_for(cat: Path, own: None) -> None:
    found = explain(cat, method="nearest_first")
    assert found.targets.tolist() == list(range(5, 13)) and len(found.sources) == 12
    assert found.relevance.shape == (8, 12)
    assert np.ma.getmaskarray(found.relevance)[0].tolist() == [False] * 5 + [True] * 7


def test_an_answer_of_several_steps_is_one_row(cat: Path, own: None) -> None:
    rows = explain(cat, method="nearest_first", step=[0, 1, 2])
    one = explain(cat, method="nearest_first", step=[0, 1, 2], together=True)
    np.testing.assert_allclose(one.relevance[0].data, rows.relevance.filled(0.0).sum(0))
    np.testing.assert_allclose(one.value, [rows.value.sum()])


def test_sources_can_be_words(cat: Path, own: None) -> None:
    found = explain(cat, method="nearest_first", step=0, by="word")
    assert [source.label for source in found.sources] == ["The", " cat", " sat", " on", " the"]


def test_the_logit_is_above_the_mean_and_the_foil_subtracts(cat: Path, own: None) -> None:
    causal = load("demo")
    with tokentape.open(cat) as tape:
        trace = tape.traces[0]
        mat, floor = int(trace.token_ids[0]), causal.encode(" floor")[0]
        ids = [*trace.prompt_ids.tolist()]
    import torch

    logits = causal.model(torch.tensor([ids])).logits[0, -1].double()
    found = explain(cat, causal, method="nearest_first", step=0)
    assert found.value[0] == pytest.approx(float(logits[mat] - logits.mean()), abs=1e-4)
    for against in (floor, "floor", " floor"):
        found = explain(cat, causal, method="nearest_first", step=0, against=against)
        assert found.kind == "foil" and found.foil_ids is not None and found.foil_ids.tolist() == [floor]
        assert found.value[0] == pytest.approx(float(logits[mat] - logits[floor]), abs=1e-4)
    found = explain(cat, causal, method="nearest_first", step=0, target="logprob")
    assert found.value[0] == pytest.approx(float(logits.log_softmax(-1)[mat]), abs=1e-4)


def test_a_foil_is_one_token_of_the_vocabulary(cat: Path, own: None) -> None:
    with pytest.raises(UsageError, match="is not one token"):
        explain(cat, method="nearest_first", step=0, against="incomprehensibility")
    with pytest.raises(UsageError, match="no token 99999"):
        explain(cat, method="nearest_first", step=0, against=99999)


def test_steps_that_do_not_exist_are_refused_with_those_that_do(cat: Path, own: None) -> None:
    with pytest.raises(UsageError, match="come from steps 0 to 7"):
        explain(cat, method="nearest_first", step=8)
    with pytest.raises(UsageError, match="no sequence 3"):
        explain(cat, method="nearest_first", trace=3)
    with tokentape.open(cat) as tape:
        assert positions_of(tape.traces[0], [0, 3]) == (5, 8)


def test_unknown_methods_are_refused_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="--method integrated_gradients"):
        method_named("integrated-gradient")
    assert method_named("attn-lrp").name == "attn_lrp"
    assert not METHODS[DEFAULT_METHOD].home.startswith("tokentape.explain.lrp")


def test_another_model_is_refused_unless_it_is_insisted_on(cat: Path, own: None) -> None:
    other = families.causal("bloom")
    with pytest.raises(ReplayError):
        explain(cat, other, method="nearest_first", step=0)
    changed = load("demo")
    changed.model.transformer.h[0].mlp.dense_h_to_4h.bias.data += 0.05
    with pytest.raises(ReplayError, match="does not agree with the tape"):
        explain(cat, changed, method="nearest_first", step=0)
    found = explain(cat, changed, method="nearest_first", step=0, unchecked=True)
    assert not found.check.passed and "check failed" in repr(found)


def test_a_source_is_told_by_what_it_is(cat: Path, own: None) -> None:
    causal = load("demo")
    for source in (None, "demo", causal, tokentape.local("demo")):
        assert explain(cat, source, method="nearest_first", step=0).check.passed
    with pytest.raises(UsageError, match="is no model"), tokentape.open(cat) as tape:
        explain(tape.traces[0], 7, method="nearest_first")


def test_a_model_that_was_never_anywhere_but_in_memory_cannot_be_loaded_again() -> None:
    tape = recorded(families.causal("llama"))
    with pytest.raises(Exception, match="llama"):
        model_of(tape)


def test_a_tape_is_replayed_by_one_call(cat: Path) -> None:
    (found,) = tokentape.replay(cat)
    assert found.passed and found.n == 8
    changed = load("demo")
    changed.model.transformer.ln_f.weight.data *= 1.1
    (found,) = tokentape.replay(cat, changed)
    assert not found.passed and "weights" in str(found.reason)


def test_explanations_are_kept_by_the_tape(cat: Path, own: None) -> None:
    from tokentape.data.annex import add_explanations

    found = explain(cat, method="nearest_first", step=1)
    (number,) = add_explanations(cat, [found])
    with tokentape.open(cat) as tape:
        kept: Any = tape.explanations[number]
        np.testing.assert_array_equal(kept.relevance, found.relevance)
        assert kept.made["model"] == "demo" and kept.check == found.check
    assert tokentape.verify(cat) == []


def test_the_verb_is_there_whatever_was_imported_before() -> None:
    """The package has the verb's name, and takes its place in the facade when a module of it is imported first."""
    asked = (
        "import tokentape.explain.methods, tokentape as tt\n"
        "tape = tt.record(tt.local('demo'), 'The cat sat on the', max_new_tokens=2)\n"
        "print(type(tt.explain(tape.traces[0], tt.local('demo'), step=0)).__name__)\n"
    )
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "Explanation", done.stderr
