"""Figures against references: each held against its definition, written out, or against the package that is known for it."""

from __future__ import annotations

import builtins
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokentape.errors import MissingExtra
from tokentape.tasks.references import (
    Figure,
    answer_figures,
    expected_calibration_error,
    label_figures,
    squad_f1,
    squad_normalized,
    translation_figures,
)


def by_name(figures: list[Figure]) -> dict[Any, Figure]:
    return {(figure.name, figure.label) if figure.label else figure.name: figure for figure in figures}


def f1_by_definition(predicted: list[str], right: list[str], label: str) -> float | None:
    true = sum(p == r == label for p, r in zip(predicted, right, strict=True))
    if label not in predicted and label not in right:
        return None
    precision = true / predicted.count(label) if label in predicted else 0.0
    recall = true / right.count(label) if label in right else 0.0
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abc")), min_size=1, max_size=30))
def test_label_figures_are_their_definitions(pairs: list[tuple[str, str]]) -> None:
    predicted, right = [p for p, _ in pairs], [r for _, r in pairs]
    shares = [[0.5, 0.3, 0.2]] * len(pairs)
    found = by_name(label_figures(predicted, right, ["a", "b", "c"], shares))
    assert found["accuracy"].value == pytest.approx(np.mean([p == r for p, r in pairs]))
    each = [f1_by_definition(predicted, right, label) for label in "abc"]
    for label, value in zip("abc", each, strict=True):
        assert found["f1", label].value == (None if value is None else pytest.approx(value))
        assert found["f1", label].n == right.count(label)
    assert found["macro_f1"].value == pytest.approx(np.mean([value for value in each if value is not None]))
    for figure in found.values():
        if figure.low is not None:
            assert figure.low - 1e-12 <= figure.value <= figure.high + 1e-12 or figure.name in ("f1", "macro_f1")
            assert 0 <= figure.low <= figure.high <= 1


def test_accuracy_has_the_interval_of_wilson() -> None:
    """Newcombe (Statistics in Medicine 17, 1998), table I: 81 of 263 gives 0.2553 to 0.3662."""
    right = ["a"] * 263
    predicted = ["a"] * 81 + ["b"] * 182
    found = by_name(label_figures(predicted, right, ["a", "b"], [[0.6, 0.4]] * 263))["accuracy"]
    assert (round(found.low, 4), round(found.high, 4), found.n) == (0.2553, 0.3662, 263)


def test_macro_f1_has_the_interval_of_resampled_items() -> None:
    """The bootstrap over items, one index at a time."""
    rng = Random(5)
    right = [rng.choice("ab") for _ in range(60)]
    predicted = [r if rng.random() < 0.7 else rng.choice("ab") for r in right]
    found = by_name(label_figures(predicted, right, ["a", "b"], [[0.6, 0.4]] * 60))["macro_f1"]
    drawn = []
    for _ in range(1500):
        at = [rng.randrange(60) for _ in range(60)]
        some = [predicted[i] for i in at], [right[i] for i in at]
        values = [f1_by_definition(*some, label) for label in "ab"]
        drawn.append(np.mean([value for value in values if value is not None]))
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])), abs=0.02)


def test_one_item_has_no_bootstrap() -> None:
    found = by_name(label_figures(["a"], ["a"], ["a", "b"], [[0.9, 0.1]]))
    assert found["macro_f1"].low is None and found["accuracy"].low == pytest.approx(0.2065, abs=1e-4)


def test_calibration_error_is_a_mean_over_bins() -> None:
    """Two bins of four: (0.05, 0.1] with confidence 0.1 and accuracy 1/2, (0.85, 0.9] with 0.9 and 1."""
    confidence = np.array([0.1, 0.1, 0.9, 0.9])
    hits = np.array([0.0, 1.0, 1.0, 1.0])
    assert expected_calibration_error(confidence, hits, bins=20) == pytest.approx(0.5 * 0.4 + 0.5 * 0.1)
    assert expected_calibration_error(np.array([1.0, 1.0]), np.array([1.0, 1.0])) == 0
    # an edge belongs to the bin below it: these two share one, and there the errors cancel
    assert expected_calibration_error(np.array([0.5, 0.45]), np.array([1.0, 0.0]), bins=10) == pytest.approx(0.025)


@pytest.mark.parametrize(
    ("text", "plain"),
    [("The cat, sat.", "cat sat"), ("An  apple a day", "apple day"), ("theatre", "theatre"), ("", ""), ("THE", "")],
)
def test_squad_normalisation(text: str, plain: str) -> None:
    assert squad_normalized(text) == plain


@pytest.mark.parametrize(
    ("said", "right", "f1"),
    [
        ("the park", "The Park.", 1.0),
        ("in the big park", "park", 2 * (1 / 3) / (1 / 3 + 1)),
        ("cat cat", "cat", 2 * 0.5 / 1.5),
        ("dog", "cat", 0.0),
        ("", "cat", 0.0),
        ("the", "a", 1.0),
    ],
)
def test_squad_f1(said: str, right: str, f1: float) -> None:
    assert squad_f1(said, right) == pytest.approx(f1)


def test_of_several_answers_the_best_counts() -> None:
    found = by_name(answer_figures(["the park", "Tom", "x"], [("school", "park"), ("Tom", "Tim"), ("y",)]))
    assert [found[name].value for name in ("exact_match", "squad_exact_match", "squad_f1")] == pytest.approx(
        [1 / 3, 2 / 3, 2 / 3]
    )
    assert found["exact_match"].n == 3


SAID = ["the cat sat on the mat", "a dog", "birds fly south in winter"]
RIGHT = [("the cat sat on a mat", "a cat was sitting on the mat"), ("a dog",), ("in winter birds fly south",)]


def test_scores_of_translations_are_those_of_sacrebleu() -> None:
    sacrebleu = pytest.importorskip("sacrebleu")
    found = by_name(translation_figures(SAID, RIGHT, "en"))
    columns = [[right[0] for right in RIGHT], [right[1] if len(right) > 1 else None for right in RIGHT]]
    assert found["bleu"].value == pytest.approx(sacrebleu.corpus_bleu(SAID, columns).score)
    assert found["chrf"].value == pytest.approx(sacrebleu.corpus_chrf(SAID, columns).score)
    assert found["exact_match"].value == pytest.approx(1 / 3)
    assert "tok:13a" in found["bleu"].how and "nc:6" in found["chrf"].how
    assert all(found[name].low <= found[name].value <= found[name].high for name in ("bleu", "chrf"))
    assert found["bleu"].unit == "points" and found["bleu"].high <= 100


def test_the_interval_of_a_score_is_that_of_resampled_texts() -> None:
    sacrebleu = pytest.importorskip("sacrebleu")
    rng = Random(2)
    words = "the cat dog sat ran on a mat red big".split()
    said = [" ".join(rng.choice(words) for _ in range(6)) for _ in range(25)]
    right = [(" ".join(w if rng.random() < 0.6 else rng.choice(words) for w in text.split()),) for text in said]
    found = by_name(translation_figures(said, right, "en"))["chrf"]
    drawn = []
    for _ in range(200):
        at = [rng.randrange(25) for _ in range(25)]
        drawn.append(sacrebleu.corpus_chrf([said[i] for i in at], [[right[i][0] for i in at]]).score)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])), abs=3.0)


def test_chinese_is_cut_into_characters() -> None:
    pytest.importorskip("sacrebleu")
    found = by_name(translation_figures(["猫坐在垫子上。"], [("猫坐在桌子上。",)], "zh"))["bleu"]
    assert "tok:zh" in found.how and 20 < found.value < 80


def test_without_sacrebleu_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    imported = builtins.__import__

    def refused(name: str, *rest: Any, **more: Any) -> Any:
        if name.startswith("sacrebleu"):
            raise ImportError(name)
        return imported(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", refused)
    with pytest.raises(MissingExtra) as raised:
        translation_figures(["a"], [("a",)], "en")
    assert "tokentape[tasks]" in raised.value.fix
