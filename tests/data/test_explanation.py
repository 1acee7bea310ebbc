"""The Explanation as a value: what it refuses, what it freezes, and when it has shares."""

from __future__ import annotations

import numpy as np
import pytest
from tapes import explained, explained_together

from tokentape.data.explanation import ReplayCheck, Source
from tokentape.errors import UsageError


def test_arrays_are_copies_that_cannot_be_written_to():
    relevance = np.ma.MaskedArray(np.ones((1, 4)), mask=[[False, False, True, True]])
    value = np.array([1.0])
    one = explained(targets=[3], target_ids=[0], relevance=relevance, value=value)
    relevance[0, 0], value[0] = 5.0, 5.0
    assert one.relevance[0, 0] == 1.0 and one.value[0] == 1.0
    for array in (
        one.targets,
        one.target_ids,
        one.value,
        one.relevance,
        one.relevance.data,
        explained_together().foil_ids,
    ):
        with pytest.raises(ValueError):
            array[:1] = 0
    with pytest.raises(ValueError):
        one.relevance[0, 0] = np.ma.masked
    for mapping in (one.options, one.made, one.passes, one.ledger):
        with pytest.raises(TypeError):
            mapping["x"] = 1
    assert one.targets.dtype == one.target_ids.dtype == np.int64
    assert one.value.dtype == one.relevance.dtype == np.float64


def test_what_is_masked_cannot_leak():
    """NaN lies under the mask, whatever was given there."""
    one = explained()
    assert np.isnan(one.relevance.data[one.relevance.mask]).all() and np.isnan(one.relevance.filled()[0, 2])
    assert one.relevance.tolist()[0] == [0.5, -0.25, None, None]


def test_options_are_plain_and_in_order():
    one = explained(options={"b": (1, 2), "a": {"d": None, "c": 1.5}})
    assert dict(one.options) == {"a": {"c": 1.5, "d": None}, "b": [1, 2]} and list(one.options) == ["a", "b"]
    assert list(one.options["a"]) == ["c", "d"]


def test_figures_of_numpy_are_taken():
    check = ReplayCheck(np.float32(0.5), np.float64(0.25), np.int64(3), 1e-4, np.bool_(False))
    assert check == ReplayCheck(0.5, 0.25, 3, 1e-4, False) and type(check.n) is int and type(check.passed) is bool
    assert ReplayCheck(float("nan"), 0.5, 3, 1e-4, False) == ReplayCheck(None, 0.5, 3, 1e-4, False)
    assert ReplayCheck(float("inf"), float("nan"), 3, 1e-4, False).median is None
    assert type(Source(np.int64(1), np.int32(2), "", "token").start) is int


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"kind": "probability"}, "no target 'probability'"),
        ({"kind": "foil"}, "kind 'foil' with no foils"),
        ({"foil_ids": [1, 2, 3]}, "kind 'logit' with foils"),
        ({"targets": []}, "targets is float64"),
        ({"targets": np.array([], np.int64)}, r"targets \[\]"),
        ({"targets": [0, 5, 8]}, "nothing stands before position 0"),
        ({"targets": [3, 8, 5]}, "ascending"),
        ({"targets": [3, 5, 5]}, "ascending"),
        ({"targets": [3.0, 5.0, 8.0]}, "targets is float64"),
        ({"target_ids": [1, 2]}, r"shape \[2\][\s\S]*as many as there are targets"),
        ({"sources": ()}, "there are no sources"),
        ({"sources": (*explained().sources[:2], Source(2, 4, "", "word"), Source(6, 8, "", "word"))}, "overlap"),
        ({"sources": explained().sources[::-1]}, "not in order"),
        ({"relevance": np.ones((3, 3))}, r"shape \[3, 3\], not \[3, 4\]"),
        ({"relevance": np.ones((1, 4))}, r"shape \[1, 4\], not \[3, 4\]"),
        ({"relevance": np.full((3, 4), np.nan)}, r"not finite[\s\S]*np\.isnan"),
        ({"relevance": np.ones((3, 4))}, "source at position 4 for the target at 3"),
        ({"value": [1.0, 2.0]}, r"value is of shape \[2\]"),
        ({"value": [1.0, 2.0, float("inf")]}, "value is not finite"),
        ({"ledger": {"biases": [1.0, 2.0, 3.0]}}, "a ledger of biases"),
        ({"ledger": {"tokens": [1.0, float("nan"), 3.0]}}, "ledger 'tokens' is not finite"),
        ({"ledger": {"tokens": [1.0]}}, r"ledger 'tokens' is of shape \[1\]"),
        ({"options": {"x": float("nan")}}, "'options' of an explanation cannot be written down"),
        ({"made": {"x": np.float32(1)}}, "'made' of an explanation"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(wrong, said):
    with pytest.raises(UsageError, match=said) as caught:
        explained(**wrong)
    assert caught.value.why and caught.value.fix


@pytest.mark.parametrize(
    "make",
    [
        lambda: Source(3, 3, "", "token"),
        lambda: Source(-1, 3, "", "token"),
        lambda: Source(0, 1, "", "syllable"),
        lambda: ReplayCheck(None, None, 3, 1e-4, True),
        lambda: ReplayCheck(None, None, 0, 1e-4, True),
        lambda: ReplayCheck(1e-6, 1e-7, 0, 1e-4, False),
        lambda: ReplayCheck(1e-6, 1e-7, 3, float("inf"), False),
    ],
)
def test_sources_and_checks_that_are_none(make):
    with pytest.raises(UsageError):
        make()


def test_together_has_one_row():
    one = explained_together()
    assert one.relevance.shape == (1, 7) and one.value.shape == (1,) and len(one.targets) == 5
    # the last target decides what is seen: the source at position 6 is one that the first targets do not see
    assert not np.ma.getmaskarray(one.relevance).any()
    with pytest.raises(UsageError, match="source at position 7"):
        explained_together_with(Source(7, 8, "t7", "token"))


def explained_together_with(source):
    one = explained_together()
    relevance = np.append(one.relevance.data, [[1.0]], axis=1)
    names = ("trace", "together", "targets", "target_ids", "value")
    known = {name: getattr(one, name) for name in names}
    return explained(**known, sources=(*one.sources, source), relevance=relevance)


def test_top():
    one = explained()
    assert [(source.start, value) for source, value in one.top(2, 3)] == [(0, 1e300), (6, 2.0), (4, 0.75)]
    assert [(source.start, value) for source, value in one.top(0, 9)] == [
        (0, 0.5),
        (1, -0.25),
    ]  # masked ones are left out
    assert one.top(1, 0) == [] and [source.label for source, _ in one.top(1, 2)] == ["猫\0", "\u202e\n"]
    tied = explained(relevance=np.ma.MaskedArray([[1, -1, 0, 0]] * 3, mask=explained().relevance.mask))
    assert [source.start for source, _ in tied.top(2, 4)] == [0, 1, 4, 6]
    for row in (3, -1):
        with pytest.raises(UsageError, match=r"no row .*\n.*has 3"):
            one.top(row, 1)


def with_ledger(tokens, relevance=None, **more):
    mask = explained().relevance.mask
    relevance = [[0.5, -0.25, 0, 0], [0.5, 0.25, 0.25, 0], [1, 2, 3, -4]] if relevance is None else relevance
    ledger = {"tokens": tokens, **more}
    return explained(relevance=np.ma.MaskedArray(relevance, mask=mask), ledger=ledger)


def test_shares_of_a_ledger():
    shares = with_ledger([0.25, 1.0, 2.0]).shares()
    assert shares.tolist() == [[2.0, -1.0, None, None], [0.5, 0.25, 0.25, None], [0.5, 1.0, 1.5, -2.0]]
    assert shares.sum(1).tolist() == [1.0, 1.0, 1.0] and np.isnan(shares.data[0, 3])
    with pytest.raises(ValueError):
        shares[0, 0] = 1.0
    # of what speaks against the target, a source's share is positive where it does so too
    assert with_ledger([-0.75, 1.0, 2.0], [[-0.5, -0.25, 0, 0]] * 3).shares().tolist()[0][:2] == [2 / 3, 1 / 3]


def test_no_shares_without_a_ledger_or_where_the_tokens_cancel():
    assert explained().shares() is None
    shares = with_ledger([0.25, 1e-9, 2.0]).shares()  # the second row's tokens all but cancel
    assert shares.mask[1].all() and not shares.mask[2].any()
    assert with_ledger([0.0, 0.0, 0.0]).shares() is None
    # tokens that hardly matter beside what was booked elsewhere
    assert with_ledger([0.25, 1.0, 2.0], biases=[90.0, 90.0, 90.0]).shares() is None


def test_repr():
    assert repr(explained()) == (
        "Explanation(trace 0, leave_one_out, logit of 3 targets, 4 sources, replay within 3.1e-06 nats)"
    )
    assert repr(explained_together()).endswith("5 targets together, 7 sources, replay not compared, check failed)")
