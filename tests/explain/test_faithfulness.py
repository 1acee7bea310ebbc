"""Curves, ERASER's figures and planted evidence, against a model whose truth is known and against brute force."""

from __future__ import annotations

import json
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from torch import nn

import families
import tokentape.explain.judging.deletion as deletion_module
import tokentape.explain.replacing.occlusion as occlusion
import tokentape.explain.replacing.standins as standins
from tokentape.errors import ExplainError, UsageError
from tokentape.explain.judging.deletion import Curves, Deletion, curves, order
from tokentape.explain.judging.estimates import bootstrapped, paired, rank_correlation, wilson
from tokentape.explain.judging.evaluation import GRID, Evaluation
from tokentape.explain.judging.faithfulness import evaluate, explainers, random_order
from tokentape.explain.methods import METHODS
from tokentape.explain.question import Attribution, Question
from tokentape.explain.replacing.standins import fills
from tokentape.explain.replay import Replay
from tokentape.models.causal import CausalModel

VOCAB = 40
NEUTRAL = 3


class Additive(nn.Module):
    """The logits of a row are the sum of what each token up to it says of every token: nothing but additive evidence."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.says = nn.Embedding(VOCAB, VOCAB, dtype=torch.float64)
        text = SimpleNamespace(bos_token_id=None, eos_token_id=None, pad_token_id=NEUTRAL)
        self.config = SimpleNamespace(get_text_config=lambda decoder: text, pad_token_id=NEUTRAL)
        self.dtype = torch.float64

    def get_input_embeddings(self) -> nn.Module:
        return self.says

    def forward(self, input_ids: torch.Tensor, use_cache: bool = False) -> Any:
        return SimpleNamespace(logits=self.says(input_ids).cumsum(1))


@pytest.fixture(autouse=True)
def neutral_token(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (standins, occlusion):
        monkeypatch.setattr(module, "neutral_id", lambda causal: NEUTRAL)


def additive(seed: int = 0) -> CausalModel:
    return CausalModel(Additive(seed).eval(), None, "additive", None, None, None, VOCAB)


def replay_of(causal: CausalModel, n: int, seed: int = 0) -> Replay:
    ids = np.random.default_rng(seed).permutation(np.arange(5, causal.vocab_size))[:n]
    return Replay(causal, tuple(int(i) for i in ids), n - 1)


def truth(replay: Replay, question: Question) -> Attribution:
    """How far the value of each target falls when a source becomes the neutral token, read off the model's table."""
    table = replay.model.says.weight.detach()
    table = (table - table.mean(1, keepdim=True)).numpy()
    ids = np.array(replay.ids)
    rows = np.array([table[ids, ids[t]] - table[NEUTRAL, ids[t]] for t in question.targets])
    values = np.array([table[ids[:t], ids[t]].sum() for t in question.targets])
    return Attribution(question.by_segment(question.fold(rows)), question.fold(values))


def inverse(replay: Replay, question: Question) -> Attribution:
    found = truth(replay, question)
    return Attribution(-found.relevance, found.value)


def items(n: int, length: int = 9) -> list[tuple[Replay, Question]]:
    causal = additive()
    return [(replay_of(causal, length, seed), Question((length - 1,))) for seed in range(n)]


# curves


def test_curves_of_the_true_order_have_a_closed_form() -> None:
    ((replay, question),) = items(1)
    found = truth(replay, question)
    drops = np.sort(found.relevance[0])
    asked = Deletion(replay, question, 0, fills(replay, ["neutral"], 1, np.random.default_rng(0)))
    seen = curves(asked, order(found.relevance[0], np.random.default_rng(0)), "neutral")
    assert seen.counts.tolist() == list(range(9))
    most = found.value[0] - np.concatenate([[0], np.cumsum(drops[::-1])])
    least = found.value[0] - np.concatenate([[0], np.cumsum(drops)])
    np.testing.assert_allclose(seen.most, most, rtol=0, atol=1e-12)
    np.testing.assert_allclose(seen.least, least, rtol=0, atol=1e-12)
    assert seen.area == pytest.approx(least.mean() - most.mean(), abs=1e-12)
    put_back, inserted = seen.put_back
    np.testing.assert_allclose(inserted, most[-1] + np.concatenate([[0], np.cumsum(drops[::-1])]), rtol=0, atol=1e-12)
    assert put_back.tolist() == list(range(9))


def test_true_order_is_above_random_is_above_its_inverse() -> None:
    found = evaluate(items(30), [truth, random_order, inverse])
    for operator in ("neutral", "random"):
        true, drawn, worst = (found.values(name, f"abpc_{operator}") for name in ("truth", "random_order", "inverse"))
        np.testing.assert_allclose(worst, -true, atol=1e-12)
        assert true.mean() > drawn.mean() > worst.mean()
        assert (true > 0).mean() > 0.9
        assert abs(drawn.mean()) < 0.2 * true.mean()
    assert (found.values("truth", "abpc_neutral") >= found.values("random_order", "abpc_neutral")).all()


def test_long_sequences_are_asked_at_even_counts() -> None:
    replay = replay_of(additive(), 35)
    asked = Deletion(replay, Question((34,)), 0, fills(replay, ["neutral"], 1, np.random.default_rng(0)))
    seen = curves(asked, np.arange(34), "neutral", steps=10)
    assert seen.counts.tolist() == [0, 3, 7, 10, 14, 17, 20, 24, 27, 31, 34]
    full = curves(asked, np.arange(34), "neutral", steps=34)
    np.testing.assert_array_equal(seen.most, full.most[seen.counts])
    np.testing.assert_array_equal(seen.least, full.least[seen.counts])
    put_back, inserted = seen.put_back
    assert put_back[3] == 34 - 24
    np.testing.assert_array_equal(inserted[3], full.least[24])


def brute_force(
    causal: CausalModel, ids: tuple[int, ...], target: int, foil: int, replaced: list[int], fill: np.ndarray
) -> float:
    """The mean, over draws, of the logit difference with those positions replaced, one plain forward pass each."""
    values = []
    for drawn in fill:
        changed = [int(drawn[p]) if p in replaced else ids[p] for p in range(target)]
        with torch.no_grad():
            logits = causal.model(input_ids=torch.tensor([changed])).logits[0, -1].double()
        values.append(float(logits[ids[target]] - logits[foil]))
    return float(np.mean(values))


@pytest.mark.parametrize("operator", ["neutral", "random"])
@pytest.mark.parametrize("family", ["bloom", "rwkv"])
def test_figures_equal_brute_force(family: str, operator: str) -> None:
    causal = families.causal(family)
    replay = replay_of(causal, 13)
    question = Question((6, 11), "foil", (70, 80), segments=((0, 1), (1, 4), (5, 6), (6, 9), (9, 11)))
    relevance = np.array([[0.3, -0.2, 0.9, np.nan, np.nan], [0.1, 0.5, -0.4, 2.0, -0.1]])
    ranked = [[2, 0, 1], [3, 1, 0, 4, 2]]
    found = evaluate([(replay, question)], {"m": lambda *_: Attribution(relevance, np.zeros(2))}, draws=2, seed=4)
    fill = fills(replay, ["neutral", "random"], 2, np.random.default_rng([4, 0]))[operator].numpy()
    assert found.items == ((0, 0), (0, 1))
    for row, (target, foil, ranks) in enumerate(zip(question.targets, question.foils, ranked, strict=True)):

        def value(gone: list[int], target: int = target, foil: int = foil) -> float:
            positions = [p for segment in gone for p in range(*question.segments[segment]) if p < target]
            return brute_force(causal, replay.ids, target, foil, positions, fill)

        n, full = len(ranks), value([])
        most = [value(ranks[:k]) for k in range(n + 1)]
        least = [value(ranks[n - k :]) for k in range(n + 1)]
        back = [value(ranks[k:]) for k in range(n + 1)]
        expected = {
            "deletion": np.mean(most),
            "insertion": np.mean(back),
            "abpc": np.mean(least) - np.mean(most),
            # ERASER: the top 10, 20 and 50 %, one source at least
            "comprehensiveness_10": full - most[1],
            "comprehensiveness_20": full - most[1],
            "comprehensiveness_50": full - most[{3: 2, 5: 3}[n]],
            "sufficiency_20": full - value(ranks[1:]),
            "sufficiency_50": full - value(ranks[{3: 2, 5: 3}[n] :]),
        }
        for name, wanted in expected.items():
            figure, _, percent = name.partition("_")
            full_name = f"{figure}_{operator}" + (f"_{percent}" if percent else "")
            assert found.values("m", full_name)[row] == pytest.approx(wanted, abs=2e-5), name
        drawn = found.curves["m"][f"most_{operator}"][row]
        np.testing.assert_allclose(drawn, np.interp(GRID, np.arange(n + 1) / n, most), atol=2e-5)
        if operator == "neutral":
            drops = [full - value([source]) for source in sorted(ranks)]
            wanted = scipy.stats.spearmanr(relevance[row][sorted(ranks)], drops).statistic
            assert found.values("m", "leave_one_out")[row] == pytest.approx(wanted)


def test_targets_asked_together_are_one_item() -> None:
    causal = additive()
    replay = replay_of(causal, 8)
    question = Question((5, 7), together=True)
    asked = Deletion(replay, question, 0, fills(replay, ["neutral"], 1, np.random.default_rng(0)))
    table = (causal.model.says.weight - causal.model.says.weight.mean(1, keepdim=True)).detach().numpy()
    ids = replay.ids

    def value(read: list[int]) -> float:
        return table[read[:5], ids[5]].sum() + table[read[:7], ids[7]].sum()

    assert asked.full == pytest.approx(value(list(ids)))
    # the first target is a source of the second: replaced there, it is still what is asked about
    changed = [NEUTRAL if p in (2, 5) else token for p, token in enumerate(ids)]
    assert asked.without([np.array([2, 5])], "neutral")[0] == pytest.approx(value(changed))
    found = evaluate([(replay, question)], [truth], operators=["neutral"])
    assert found.items == ((0, 0),)
    assert len(found.values("truth", "abpc_neutral")) == 1


@pytest.mark.parametrize("together", [False, True])
def test_leave_one_out_is_the_method_of_that_name(together: bool) -> None:
    causal = families.causal("gpt2")
    replay = replay_of(causal, 14)
    question = Question((8, 13), segments=((0, 1), (1, 4), (4, 7), (9, 12)), together=together)
    found = METHODS["leave_one_out"](replay, question).relevance
    for row in range(question.n_rows):
        asked = Deletion(replay, question, row, fills(replay, ["neutral"], 1, np.random.default_rng(0)))
        np.testing.assert_allclose(asked.leave_one_out("neutral"), found[row], rtol=0, atol=2e-5)
    evaluation = evaluate([(replay, question)], ["leave_one_out"])
    np.testing.assert_allclose(evaluation.values("leave_one_out", "leave_one_out"), 1)


def test_batches_of_any_size_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = items(2)
    whole = evaluate(pairs, [truth, random_order])
    monkeypatch.setattr(deletion_module, "BATCH_POSITIONS", 24)
    small = evaluate(pairs, [truth, random_order])
    for figure, values in whole.figures["random_order"].items():
        if figure != "cpu_seconds":
            np.testing.assert_allclose(small.values("random_order", figure), values, rtol=0, atol=1e-12)


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    ((replay, question),) = items(1)
    seen = []
    forward = Additive.forward
    monkeypatch.setattr(
        Additive, "forward", lambda self, input_ids, **k: seen.append(len(input_ids)) or forward(self, input_ids, **k)
    )
    monkeypatch.setattr(deletion_module, "BATCH_NUMBERS", 3 * VOCAB * 8)  # no logits_to_keep: 8 rows a sequence
    evaluate([(replay, question)], [truth])
    assert max(seen) == 3


def test_passes_are_those_of_different_inputs() -> None:
    ((replay, question),) = items(1)

    def asks_twice(replay: Replay, question: Question) -> Attribution:
        replay.logits(question.targets)
        replay.logits(question.targets)
        return truth(replay, question)

    found = evaluate([(replay, question)], [asks_twice], operators=["neutral"])
    # whole, all replaced, 7 from either side, 8 alone: the most and the least relevant alone are on a curve already, and
    # the tops of ERASER are on them too
    assert found.passes == 1 + 1 + 7 + 7 + 8 - 2
    again = evaluate([(replay, question)], {"a": truth, "b": asks_twice}, operators=["neutral"])
    assert again.passes == found.passes, "two methods of one order share their passes"
    assert (found.values("asks_twice", "forward")[0], again.values("a", "forward")[0]) == (2, 0)
    assert replay.passes.forward == 0, "an evaluation is no cost of the replay that was given"


# what may be replaced


def test_unseen_sources_are_never_replaced() -> None:
    ((replay, question),) = items(1)
    relevance = np.arange(8.0)[None]
    relevance[0, [2, 5]] = np.nan
    read = []
    forward = Additive.forward

    def kept(self: Additive, input_ids: torch.Tensor, **options: Any) -> Any:
        read.append(input_ids)
        return forward(self, input_ids, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Additive, "forward", kept)
        asked = Deletion(replay, question, 0, fills(replay, ["neutral"], 1, np.random.default_rng(0)))
        curves(asked, order(relevance[0], np.random.default_rng(0)), "neutral")
    ids = torch.cat(read)
    unchanged = (ids == torch.tensor(replay.ids[:8])).all(0)
    assert unchanged.tolist() == [p in (2, 5) for p in range(8)]


def test_ties_are_not_broken_by_position() -> None:
    first = [int(order(np.zeros(6), np.random.default_rng(seed))[0]) for seed in range(300)]
    assert np.bincount(first, minlength=6).min() > 25
    assert order(np.array([1.0, np.nan, 3.0, 2.0]), np.random.default_rng(0)).tolist() == [2, 3, 0]


def test_methods_share_their_luck_with_ties() -> None:
    flat = partial(lambda value, replay, question: Attribution(np.full((1, 8), value), np.zeros(1)))
    found = evaluate(items(5), {"a": partial(flat, 0.0), "b": partial(flat, 1.0)}, evidence=[{0}] * 5)
    for figure in ("abpc_neutral", "abpc_random", "hit"):
        np.testing.assert_array_equal(found.values("a", figure), found.values("b", figure))


def test_random_tokens_are_ordinary_and_others() -> None:
    causal = families.causal("bloom")
    ids = tuple(range(60, 120))
    drawn = fills(Replay(causal, ids, 59), ["random"], 50, np.random.default_rng(0))["random"].numpy()
    assert drawn.shape == (50, 60)
    assert (drawn != np.array(ids)).all()
    assert drawn.min() >= 0 and drawn.max() < 256, "ids from 256 on are special, or none at all"
    again = fills(Replay(causal, ids, 59), ["random"], 50, np.random.default_rng(0))["random"].numpy()
    np.testing.assert_array_equal(drawn, again)


# planted evidence


def test_hit_and_mass() -> None:
    ((replay, _),) = items(1)
    question = Question((8,), segments=((0, 2), (2, 3), (3, 6), (6, 8)))

    def fixed(*relevance: float) -> Any:
        return lambda *_: Attribution(np.array([relevance]), np.zeros(1))

    methods = {"hits": fixed(-4, 1, 3, 0), "misses": fixed(3, -2, 1, 0), "null": fixed(0, 0, 0, 0)}
    found = evaluate([(replay, question)], methods, evidence=[{2, 5}])
    assert (found.values("hits", "hit")[0], found.values("misses", "hit")[0]) == (1, 0)
    assert found.values("hits", "mass")[0] == 1
    assert found.values("misses", "mass")[0] == pytest.approx(1 / 4), "what speaks against the target is no mass"
    assert np.isnan(found.values("null", "mass")[0])
    assert found.values("hits", "first")[0] == pytest.approx(4 / 8)
    wider = evaluate([(replay, question)], methods, evidence=[{2, 5}], related=[{0}])
    assert wider.values("misses", "mass")[0] == pytest.approx(1 / 4)
    assert wider.values("misses", "mass_related")[0] == 1
    assert found.estimate("hits", "hit") == wilson(np.array([1.0]))


def test_items_without_evidence_have_no_hit() -> None:
    found = evaluate(items(3), [truth], evidence=[{1}, None, {2}])
    assert found.estimate("truth", "hit").n == 2
    assert np.isnan(found.values("truth", "hit")[1])
    assert evaluate(items(1), [truth]).estimate("truth", "hit") == (None, None, None, 0)


# the evaluation


def test_equal_arguments_give_equal_figures() -> None:
    one, two = (evaluate(items(3), [truth, random_order], seed=7) for _ in range(2))
    other = evaluate(items(3), [truth, random_order], seed=8)
    assert one.items == two.items == ((0, 0), (1, 0), (2, 0))
    for figure in one.figures["truth"]:
        if figure != "cpu_seconds":
            np.testing.assert_array_equal(one.values("truth", figure), two.values("truth", figure))
            assert one.estimate("truth", figure) == two.estimate("truth", figure)
    assert (one.values("truth", "abpc_random") != other.values("truth", "abpc_random")).all()
    np.testing.assert_array_equal(one.values("truth", "abpc_neutral"), other.values("truth", "abpc_neutral"))


def test_it_becomes_json() -> None:
    found = evaluate(items(2), [truth], progress=lambda done, total: None)
    made = json.loads(json.dumps(found.as_dict(), allow_nan=False))
    assert made["methods"]["truth"]["items"]["hit"] == [None, None]
    assert made["methods"]["truth"]["figures"]["abpc_neutral"]["n"] == 2
    assert len(made["methods"]["truth"]["curves"]["most_random"]) == len(made["shares"]) == 21
    rows = {(row.method, row.figure): row for row in found.rows()}
    assert rows["truth", "abpc_neutral"].mean == pytest.approx(found.values("truth", "abpc_neutral").mean())


def test_evaluations_of_two_kinds_of_items_are_joined() -> None:
    def refuses(replay: Replay, question: Question) -> Attribution:
        raise ExplainError("no attention", why="this model has none", fix="another method")

    one = evaluate(items(2), {"truth": truth, "other": random_order}, evidence=[{1}, {2}])
    two = evaluate(items(3, length=6), {"truth": truth, "other": refuses}, evidence=[{1}, {2}, {3}])
    assert two.refused["other"] == "no attention: this model has none"
    assert two.methods == ("truth",)
    both = one.joined(two)
    assert both.methods == ("truth",)
    assert both.items == ((0, 0), (1, 0), (2, 0), (3, 0), (4, 0))
    np.testing.assert_array_equal(
        both.values("truth", "mass"), [*one.values("truth", "mass"), *two.values("truth", "mass")]
    )
    assert both.curves["truth"]["most_neutral"].shape == (5, 21)
    with pytest.raises(UsageError) as caught:
        both.values("other", "hit")
    assert "no attention" in caught.value.fix


def test_progress_is_told() -> None:
    seen: list[tuple[int, int]] = []
    evaluate(items(3), [truth], progress=lambda *told: seen.append(told))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_methods_by_name_and_by_function() -> None:
    named = explainers(["rollout", truth, partial(inverse), explainers(["attn-lrp"])["attn_lrp"]])
    assert list(named) == ["rollout", "truth", "inverse", "attn_lrp"]
    assert list(explainers("rollout")) == ["rollout"]
    assert list(explainers({"mine": "rollout"})) == ["mine"]


def wrong_shape(replay: Replay, question: Question) -> Attribution:
    return Attribution(np.zeros((1, 3)), np.zeros(1))


@pytest.mark.parametrize(
    ("methods", "options", "word"),
    [
        ([wrong_shape], {}, "shape (1, 3)"),
        ([truth, truth], {}, "two methods"),
        (["nothing"], {}, "no method"),
        ([truth], {"evidence": [{1}]}, "evidence for 1 items"),
        ([truth], {"operators": ["mask"]}, "no operator 'mask'"),
        ([truth], {"operators": []}, "no operator"),
    ],
)
def test_what_is_refused(methods: Any, options: dict[str, Any], word: str) -> None:
    with pytest.raises(UsageError) as caught:
        evaluate(items(2), methods, **options)
    assert word in str(caught.value)
    assert caught.value.why and caught.value.fix


def test_unknown_figure_is_an_error() -> None:
    found = evaluate(items(1), [truth])
    with pytest.raises(UsageError, match="no figure 'abc'"):
        found.estimate("truth", "abc")
    assert isinstance(found, Evaluation)


# intervals


def test_wilson_equals_scipy() -> None:
    for k, n in ((0, 5), (3, 7), (199, 200), (200, 200)):
        known = scipy.stats.binomtest(k, n).proportion_ci(method="wilson")
        found = wilson(np.array([1.0] * k + [0.0] * (n - k) + [np.nan]))
        assert found == pytest.approx((k / n, known.low, known.high, n))
    assert wilson(np.array([np.nan])) == (None, None, None, 0)


def test_bootstrap_equals_scipys() -> None:
    values = np.random.default_rng(0).gamma(0.6, size=40)
    known = scipy.stats.bootstrap(
        (values,), np.mean, n_resamples=40_000, method="BCa", rng=np.random.default_rng(1)
    ).confidence_interval
    found = bootstrapped(np.append(values, np.nan), resamples=40_000)
    width = known.high - known.low
    assert found.mean == values.mean() and found.n == 40
    assert found.low == pytest.approx(known.low, abs=0.02 * width)
    assert found.high == pytest.approx(known.high, abs=0.02 * width)
    assert found == bootstrapped(values, resamples=40_000), "a seed gives the same interval"
    # skewed to the right: BCa reaches farther up than down
    assert found.high - found.mean > found.mean - found.low


def test_bootstrap_of_little() -> None:
    assert bootstrapped(np.array([])) == (None, None, None, 0)
    assert bootstrapped(np.array([np.nan])) == (None, None, None, 0)
    assert bootstrapped(np.array([2.0])) == (2.0, None, None, 1)
    assert bootstrapped(np.full(5, 0.1)) == pytest.approx((0.1, 0.1, 0.1, 5))


def test_paired_bootstrap_sees_what_unpaired_would_not() -> None:
    rng = np.random.default_rng(0)
    hard = rng.normal(0, 10, 100)
    a, b = hard + rng.normal(0.5, 0.5, 100), hard.copy()
    found = paired(a, b)
    assert found.n == 100 and found.low is not None and found.low > 0
    assert found.p == pytest.approx(1 / 2001)
    assert found.mean == pytest.approx((a - b).mean())
    turned = paired(b, a)
    assert (turned.mean, turned.p) == (pytest.approx(-found.mean), found.p)
    known = scipy.stats.ttest_rel(a[:20], b[:20] + 0.4).pvalue
    assert paired(a[:20], b[:20] + 0.4, resamples=20_000).p == pytest.approx(known, abs=0.05)


def test_paired_bootstrap_of_no_difference() -> None:
    values = np.array([1.0, 2.0, np.nan, 4.0])
    same = paired(values, values)
    assert (same.mean, same.low, same.high, same.p, same.n) == (0, 0, 0, 1, 3)
    shifted = paired(values + 0.1, values)
    assert shifted.p is not None and shifted.p < 0.01
    assert paired(values[:1], values[:1] - 1).p is None
    with pytest.raises(UsageError):
        paired(values, values[:2])


def test_rank_correlation_equals_scipys() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 5, 30).astype(float), rng.normal(size=30)
    assert rank_correlation(a, b) == pytest.approx(scipy.stats.spearmanr(a, b).statistic)
    assert rank_correlation(np.array([1, np.nan, 2, 3.0]), np.array([3, 0, 2, 1.0])) == pytest.approx(-1)
    assert np.isnan(rank_correlation(np.ones(4), np.arange(4.0)))
    assert np.isnan(rank_correlation(np.array([1.0, np.nan]), np.array([1.0, 2.0])))


def test_area_by_hand() -> None:
    assert Curves(np.arange(3), np.array([6.0, 1.0, 0.0]), np.array([6.0, 5.0, 0.0])).area == pytest.approx(4 / 3)
