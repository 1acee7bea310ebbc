"""What was said held against what is right: shares, overlaps and calibration, each with n and its 95 % interval."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tokentape.errors import MissingExtra
from tokentape.explain.judging.estimates import CONFIDENCE, RESAMPLES, Estimate, bootstrapped, wilson

__all__ = [
    "Figure",
    "answer_figures",
    "expected_calibration_error",
    "label_figures",
    "require_sacrebleu",
    "squad_f1",
    "squad_normalized",
    "translation_figures",
]

BINS = 15
"""Bins of equal width, as Guo et al. took."""

BLEU_TOKENIZERS = {"zh": "zh", "ja": "char", "ko": "char", "th": "char"}
"""Tokenizers of sacrebleu by target language; 13a for what is not here."""

_ARTICLES = re.compile(r"\b(?:a|an|the)\b")


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure over ``n`` items and its 95 % interval, ``low`` to ``high``; None where none can be told.

    ``name`` may be followed by the label that it is about. Shares are from 0 to 1; chrF and BLEU from 0 to 100, in ``unit`` points.
    ``how`` says how the interval was made, or what signature a score has.
    """

    name: str
    value: float | None
    low: float | None
    high: float | None
    n: int
    how: str
    label: str | None = None
    unit: str = "share"

    def as_dict(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def label_figures(
    predicted: Sequence[str],
    references: Sequence[str],
    labels: Sequence[str],
    probabilities: Sequence[Sequence[float]],
) -> list[Figure]:
    """Accuracy, macro F1, the F1 of each label, and the expected calibration error of labels ``[n]``.

    F1 is 2 TP / (2 TP + FP + FN), null for a label that is neither said nor right anywhere; its mean over the other labels is macro
    F1. Their intervals are percentiles of a bootstrap over items. ``probabilities`` are ``[n, L]``.
    """
    hits = np.array([one == right for one, right in zip(predicted, references, strict=True)], dtype=float)
    place = {label: i for i, label in enumerate(labels)}
    counts = np.zeros((len(labels), len(labels)), dtype=np.int64)
    for one, right in zip(predicted, references, strict=True):
        counts[place[right], place[one]] += 1
    each, drawn = _f1(counts[None])[0], _f1(_resampled(counts))
    macro = Figure("macro_f1", _mean(each), *_percentiles(_means(drawn), len(hits)), len(hits), "bootstrap")
    found = [_figure("accuracy", wilson(hits), "Wilson"), macro]
    for label, value, values in zip(labels, each, drawn.T, strict=True):
        n = int(counts[place[label]].sum())
        known = None if np.isnan(value) else float(value)
        found.append(Figure("f1", known, *_percentiles(values, len(hits)), n, "bootstrap", label))
    confidence = np.array([max(row) for row in probabilities])
    found.append(
        Figure(
            "ece", expected_calibration_error(confidence, hits), None, None, len(hits), f"{BINS} bins of equal width"
        )
    )
    return found


def expected_calibration_error(
    confidence: npt.NDArray[np.float64], hits: npt.NDArray[np.float64], bins: int = BINS
) -> float:
    """How far confidence ``[n]`` and accuracy lie apart, bin by bin, weighted by the items of each bin.

    Source: Guo et al., "On calibration of modern neural networks", ICML 2017. No interval is told: of few items the error
    comes out too large, and of resampled ones larger still.
    """
    # a bin holds its upper edge
    at = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    gaps = np.bincount(at, weights=confidence - hits, minlength=bins)
    return float(np.abs(gaps).sum() / len(hits))


def translation_figures(
    said: Sequence[str], references: Sequence[Sequence[str]], target: str | None = None
) -> list[Figure]:
    """Exact match, chrF and BLEU of texts ``[n]``, each with one reference or several.

    chrF (Popovic, WMT 2015) and BLEU (Papineni et al., ACL 2002) are those of sacrebleu, over the corpus, with its signatures;
    their intervals are percentiles of a bootstrap over texts. ``target`` is the language's code, which decides how BLEU cuts words.
    Raises MissingExtra without sacrebleu.
    """
    require_sacrebleu()
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

    exact = [one in right for one, right in zip(said, references, strict=True)]
    found = [_figure("exact_match", wilson(np.array(exact, dtype=float)), "Wilson")]
    most = max(map(len, references))
    # sacrebleu wants the first references of all texts, then the second; what a text lacks is None
    columns: Any = [[right[i] if i < len(right) else None for right in references] for i in range(most)]
    bleu = BLEU(tokenize=BLEU_TOKENIZERS.get(target or "", "13a"), force=True)
    for name, metric in (("chrf", CHRF()), ("bleu", bleu)):
        score = min(
            float(metric.corpus_score(list(said), columns).score), 100.0
        )  # in floats a little more may come out
        low, high = _percentiles(_scores(metric, said, columns), len(said))
        how = f"bootstrap; {metric.get_signature()}"
        found.append(Figure(name, score, low, high, len(said), how, unit="points"))
    return found


def answer_figures(said: Sequence[str], references: Sequence[Sequence[str]]) -> list[Figure]:
    """Exact match, exact match and token F1 as in SQuAD; of several references the one that fits best.

    Source: Rajpurkar et al., "SQuAD: 100,000+ questions for machine comprehension of text", EMNLP 2016.
    """
    pairs = list(zip(said, references, strict=True))
    exact = [float(one in right) for one, right in pairs]
    alike = [float(squad_normalized(one) in map(squad_normalized, right)) for one, right in pairs]
    overlap = np.array([max(squad_f1(one, each) for each in right) for one, right in pairs])
    return [
        _figure("exact_match", wilson(np.array(exact)), "Wilson"),
        _figure("squad_exact_match", wilson(np.array(alike)), "Wilson"),
        _figure("squad_f1", bootstrapped(overlap), "bootstrap"),
    ]


def squad_normalized(text: str) -> str:
    """Lower case, without punctuation, English articles and double spaces."""
    plain = "".join(c for c in text.lower() if c not in string.punctuation)
    return " ".join(_ARTICLES.sub(" ", plain).split())


def squad_f1(said: str, reference: str) -> float:
    """Harmonic mean of precision and recall of the words, after :func:`squad_normalized`; where one has none, 1 if both."""
    one, right = squad_normalized(said).split(), squad_normalized(reference).split()
    if not one or not right:
        return float(one == right)
    shared = sum((Counter(one) & Counter(right)).values())
    return 2 * shared / (len(one) + len(right))


def require_sacrebleu() -> None:
    """Raise MissingExtra where sacrebleu is not installed."""
    try:
        import sacrebleu  # noqa: F401
    except ImportError as error:
        raise MissingExtra(
            "chrF and BLEU need sacrebleu, which is not installed",
            why="it is in the extra [tasks]; translating without references needs none",
            fix="pip install 'tokentape[tasks]', or leave the references out",
        ) from error


def _figure(name: str, found: Estimate, how: str) -> Figure:
    return Figure(name, found.mean, found.low, found.high, found.n, how)


def _f1(counts: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """F1 of each label, ``[R, L]``, from ``[R, L, L]`` counts of (right, said); NaN where a label does not occur."""
    both = np.diagonal(counts, axis1=1, axis2=2).astype(float)
    total = (counts.sum(1) + counts.sum(2)).astype(float)
    found: npt.NDArray[np.float64] = np.divide(2 * both, total, out=np.full_like(both, np.nan), where=total > 0)
    return found


def _resampled(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Counts ``[R, L, L]`` of items drawn again with replacement."""
    n = int(counts.sum())
    drawn = np.random.default_rng(0).multinomial(n, counts.ravel() / n, size=RESAMPLES)
    return drawn.reshape(-1, *counts.shape)


def _mean(values: npt.NDArray[np.float64]) -> float:
    return float(values[~np.isnan(values)].mean())


def _means(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Means ``[R]`` over the labels that occur; one does in every sample."""
    known = ~np.isnan(values)
    means: npt.NDArray[np.float64] = np.where(known, values, 0.0).sum(1) / known.sum(1)
    return means


def _scores(metric: Any, said: Sequence[str], columns: Sequence[Sequence[str | None]]) -> npt.NDArray[np.float64]:
    """Corpus scores ``[R]`` of texts drawn again with replacement, from the counts of each text, which add up.

    sacrebleu's own bootstrap does the same, but fails where some of the samples score 0 (2.6, Python 3.11).
    """
    counts = np.array(metric._extract_corpus_statistics(list(said), [list(column) for column in columns]), dtype=float)
    rng = np.random.default_rng(0)
    samples = [counts[rng.integers(len(counts), size=len(counts))].sum(0).tolist() for _ in range(RESAMPLES)]
    return np.minimum([metric._compute_score_from_stats(sample).score for sample in samples], 100.0)


def _percentiles(values: npt.NDArray[np.float64], n_items: int) -> tuple[float | None, float | None]:
    """The interval between the outer percentiles of what was resampled; one item cannot tell any."""
    known = values[~np.isnan(values)]
    if not len(known) or n_items < 2:
        return None, None
    low, high = np.quantile(known, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)
