"""What the views of figures say in Chinese: the same numbers as in English, and the words that are meant."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from types import SimpleNamespace

import pytest

from study.paper import FIVE, MS, paper
from tokentape.experiment.grid import Cell, cells_of, fitting
from tokentape.experiment.visits import Plan, advice_of
from tokentape.study.dialects import DIALECTS
from tokentape.study.metrics import metrics
from tokentape.study.paired_scores import ScoreComparison, Span
from tokentape.study.scores import DocumentScore, Total
from tokentape.study.series import SERIES, series_named
from tokentape.study.slo import Slo
from tokentape.tasks.templates import JOBS, shipped
from tokentape.views import evaluation_text, metrics_text, score_text, series_text, sweep_text, tasks_text
from tokentape.views.screen import Screen
from tokentape.words.catalogue import phrase
from tokentape.words.retold import retold

NUMBERS = re.compile(r"(?<![A-Za-z\d.,])\d(?:[\d,.]*\d)?")
"""Digits that are part of a name, such as E2E, are none."""

SLO = Slo(ttft_ns=10 * MS, gap_ns=4 * MS, e2e_ns=25 * MS)
TAPE = paper(*FIVE)

ONE = DocumentScore(0, "d0", 0, Total(-6.5, 4, 11, 11), "bos", 1, 0, 0, 1, False, True, True)
CUT = replace(ONE, index=1, name="d1", n_given=7, n_cut=2, n_windows=3, merged=True)
CHANGED = replace(ONE, index=2, name="d2", spelled=False, total=Total(None, 1234, 2000, None))

PAIRED = ScoreComparison(
    ("small", "large"),
    0.9,
    0.75,
    -0.15,
    -0.25,
    -0.05,
    0.95,
    "documents",
    40,
    41,
    12_345,
    (4000, 4100),
    (Span(3, 10, 14, b" cat", -2.5, -1.0), Span(5, 0, 3, b"The", -1.0, -1.6)),
    tuple((f"d{i}", "...") for i in range(12)),
)

LEFT_OUT = [{"kind": "decode", "context": 2**n, "batch": 8, "reason": "memory", "why": "..."} for n in range(8, 15)]
ACCOUNT = {
    "n_visits": 1,
    "n_visited": 6,
    "n_cells": 18,
    "left_out": LEFT_OUT,
    "impossible": LEFT_OUT[:1],
    "outlook": [{"kind": "prefill", "n_visited": 5, "n_cells": 9, "error": 0.0123}],
    "advice": ["..."],
}


@dataclass
class Row:
    """A figure of a job, or one of a method."""

    name: str = "accuracy"
    label: str | None = None
    value: float | None = 0.75
    low: float | None = 0.5
    high: float | None = 0.9
    n: int = 1200
    how: str = "exact; nrefs:1"
    unit: str = "share"
    method: str = "gradient"
    figure: str = "abpc_neutral"
    mean: float | None = 0.31


LABELS = SimpleNamespace(
    labels=("good", "bad"),
    continuations=[SimpleNamespace(logprob=p, ids=[1, 2], merged=True) for p in (-1.5, -2.25)],
    scores=(-1.5, -2.25),
    probabilities=(0.7, 0.3),
    margin=0.4,
)
TEMPLATES = [SimpleNamespace(name=name, about="...", prompt="{text}\nSo:") for name in ("pair", "own")]
FIGURES = [Row(), Row("chrf", value=41.5, low=None, unit=""), *(Row(name) for name in ("macro_f1", "ece", "squad_f1"))]
ESTIMATED = [
    Row(figure=figure, method=method) for figure in evaluation_text.FIGURES for method in ("gradient", "random")
]


def a_visit(screen):
    cell = sweep_text.cell_text(SimpleNamespace(kind="decode", context=4096, batch=2), screen)
    made = [(1.5e6, 3, 40, 75.4), (None, 1, None, None)]
    return screen.safe("\n".join(sweep_text.visit_text(cell, *some, screen) for some in made))  # as StatusLine does


def progress(screen):
    return screen.safe("\n".join(score_text.progress_text(3, 1200, 5000, left, screen) for left in (None, 12.0)))


VIEWS = {
    "scores": (lambda screen: score_text.score_text([ONE, CUT, CHANGED], TAPE, screen, rows=2), "困惑度"),
    "score": (lambda screen: score_text.score_text([replace(ONE, first="skip")], TAPE, screen), "最意外的词元"),
    "score progress": (progress, "剩余"),
    "paired scores": (lambda screen: score_text.comparison_text(PAIRED, screen), "每字节"),
    "paired blocks": (
        lambda screen: score_text.comparison_text(replace(PAIRED, units="blocks", difference=0.1), screen),
        "多用",
    ),
    "paired, too few": (lambda screen: score_text.comparison_text(replace(PAIRED, low=None), screen), "给不出区间"),
    "figures": (lambda screen: tasks_text.figures_text(FIGURES, screen), "准确率"),
    "labels": (lambda screen: tasks_text.labels_text(LABELS, "sum", screen), "对数概率"),
    "templates": (lambda screen: tasks_text.templates_text(TEMPLATES, "pair", "/a/b7", screen), "（默认）"),
    "evaluation": (
        lambda screen: evaluation_text.evaluation_text(ESTIMATED, {"attention": "..."}, 12, screen),
        "充分性",
    ),
    "visit": (a_visit, "解码"),
    "sweep": (lambda screen: sweep_text.account_text(ACCOUNT, "a.tape", screen), "延迟定律"),
    "metrics": (lambda screen: metrics_text.metrics_text(metrics(TAPE, slo=SLO), screen), "有效吞吐量"),
    "all dialects": (lambda screen: metrics_text.comparison_text(TAPE, screen, SLO), "首词元延迟"),
    **{
        name: (
            lambda screen, name=name: metrics_text.reading_text(metrics(TAPE, dialect=name, slo=SLO), screen),
            "百分位",
        )
        for name in DIALECTS
    },
    "series": (lambda screen: series_text.series_table(TAPE, series_named(["gap"]), screen, rows=1), "显示全部"),
    "series list": (series_text.series_list, "首词元延迟"),
}


@pytest.mark.parametrize("view", VIEWS)
def test_the_chinese_form_has_the_same_numbers(view):
    shown, word = VIEWS[view]
    english, chinese = shown(Screen(400)), shown(Screen(400, lang="zh"))
    assert sorted(NUMBERS.findall(chinese)) == sorted(NUMBERS.findall(english))
    assert word in chinese
    assert word not in english


@pytest.mark.parametrize("view", VIEWS)
def test_a_screen_without_chinese_characters_gets_none(view):
    shown, _ = VIEWS[view]
    shown(Screen(400, encoding="ascii", lang="zh")).encode("ascii")


def test_what_the_study_says_of_its_own_is_said_alike_in_the_catalogue():
    assert {name: phrase(f"metrics.counted.{name}") for name in DIALECTS} == {
        name: one.counted for name, one in DIALECTS.items()
    }
    assert {name: phrase(f"metrics.meaning.{name}") for name in SERIES} == {
        name: one.meaning for name, one in SERIES.items()
    }


@pytest.mark.parametrize("contexts", [(64,), (64, 128)])
def test_every_advice_on_a_sweep_has_its_chinese_form(contexts):
    cells = [Cell(kind, context, 2) for kind in ("decode", "prefill") for context in contexts]
    advice = advice_of(cells, Plan(contexts, (2,), steps=4, repeat=1))
    assert len(advice) == 5
    assert all(retold(one, "zh", "sweep.advice") != one for one in advice)


def test_the_reasons_of_cells_left_out_have_their_chinese_form():
    cells, left_out = cells_of((64, 4096), (1, 4), ("prefill",))
    fits = fitting(cells, SimpleNamespace(bytes_of=lambda cell, n_new: 2 * 10**9), 1024, 10**9, 4)[1]
    found = {one.reason: one.why for one in (*left_out, *fits)}
    assert set(found) == {"tokens", "positions", "memory"}
    for why in (*found.values(), "out of memory"):
        chinese = retold(why, "zh", "sweep.why")
        assert chinese != why
        assert sorted(NUMBERS.findall(chinese)) == sorted(NUMBERS.findall(why))


def test_every_shipped_template_is_told_in_chinese():
    for template in (one for job in JOBS for one in shipped(job)):
        assert template.about == phrase(f"tasks.about.{template.name}")
