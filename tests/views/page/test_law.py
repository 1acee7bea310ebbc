"""The page of a law: its lines are what the law predicts, its points what was measured, its words in both languages."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokentape.errors import StudyError
from tokentape.study.cost.counting import workload
from tokentape.study.cost.hardware import Hardware
from tokentape.study.cost.roofline import roof
from tokentape.study.law.gathering import Subject
from tokentape.study.law.laws import Law, context_sentence, fit_points
from tokentape.study.law.points import CAUSES, Point
from tokentape.study.law.residuals import residuals_of
from tokentape.study.law.terms import forms_of
from tokentape.views.page.law import MOST_POINTS, law_document, law_part, time_text
from tokentape.views.page.law_words import form_message, meaning_message, per_message, term_message
from tokentape.words.catalogue import LANGS, Message, said
from views.page.pages import words_of

CONFIG = {
    "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256, "torch_dtype": "bfloat16",
}  # fmt: skip
FACTS = {"config": CONFIG, "dtype": "bfloat16"}
MACHINE = Hardware("paper", {"bfloat16": 100.0}, 24.0, 1000.0, None, None, "a test")
CONTEXTS, BATCHES = (64, 128, 256, 512, 1024), (1, 2, 4)


def points(visits: int = 2) -> list[Point]:
    random = np.random.default_rng(0)
    found = [
        Point(kind, c, b, (40e6 + 1e6 * b + 400.0 * b * c) * float(np.exp(0.01 * random.standard_normal())))
        for kind in ("decode", "prefill")
        for c in CONTEXTS
        for b in BATCHES
        for _ in range(visits)
    ]
    return [*found, *[Point("decode", 128, 1, 120e6, cause="gc")] * 3, Point("decode", 64, 2, 9e9, cause="warm-up")]


@pytest.fixture(scope="module")
def law() -> Law:
    return fit_points(points(), (Subject("a model\u202e", "f", FACTS),))


def test_lines_are_what_the_law_predicts(law: Law) -> None:
    part = law_part(law, confidence=0.8)
    (subject,) = part["subjects"]
    assert [column["kind"] for column in subject["columns"]] == ["decode", "prefill"]
    for column in subject["columns"]:
        assert [line["batch"] for line in column["lines"]] == list(BATCHES)
        for line in column["lines"]:
            for i in (0, 17, len(column["contexts"]) - 1):
                told = law.predict(
                    context=column["contexts"][i], batch=line["batch"], kind=column["kind"], confidence=0.8
                )
                got = (line["ns"][i], line["low"][i], line["high"][i])
                assert got == pytest.approx((told.ns, told.low_ns, told.high_ns), rel=1e-3)
            assert line["roof"] is None


def test_points_are_the_measurements_with_their_ratio_and_cause(law: Law) -> None:
    decode = law_part(law)["subjects"][0]["columns"][0]
    assert law.decode is not None
    expected = residuals_of(law, law.decode)
    shown = decode["points"]
    assert shown["n"] == len(expected) == len(shown["ns"]) == 34
    assert shown["ns"] == pytest.approx([r.ns for r in expected], rel=1e-4)
    assert shown["ratio"] == pytest.approx([r.ratio for r in expected], rel=1e-4)
    assert [None if c == 0 else CAUSES[c - 1] for c in shown["cause"]] == [r.cause for r in expected]
    fitted = [ns for ns, cause in zip(shown["ns"], shown["cause"], strict=True) if not cause]
    low, high = decode["ends"]
    assert low < min(fitted) and max(fitted) < high < 9e9, "what was left out does not stretch the axis"
    assert decode["measured"] == [64, 1024] and decode["batch"] == [1, 4]
    cells = decode["cells"]
    assert len(cells["ns"]) == 15 and set(cells["batch"]) == set(BATCHES)


def test_coefficients_and_sentences(law: Law) -> None:
    part = law_part(law)
    assert law.decode is not None and law.decode.check is not None
    column = part["subjects"][0]["columns"][0]
    for got, c in zip(column["coefficients"], law.decode.coefficients, strict=True):
        assert (got["value"], got["low"], got["high"], got["share"]) == pytest.approx(
            (c.value, c.low, c.high, c.share), rel=1e-3
        )
        assert said(Message.of(got["term"])) == c.name and said(Message.of(got["meaning"])) == c.meaning
    told = [said(Message.of(one)) for one in column["sentences"]]
    assert f"the median error was {law.decode.check.median_error:.1%}" in told[0]
    assert any(text.startswith("Left out: 3 measurements for garbage collection, ") for text in told)
    assert context_sentence(law.decode) is not None and part["caption"]["key"] == "page_law.context"
    per_1000 = next(c for c in law.decode.coefficients if c.name == "key-value").value * 1000
    assert said(Message.of(part["caption"])).startswith(f"Each 1,000 tokens of context add {time_text(per_1000)} ")


def test_rooflines_are_those_of_the_machine(law: Law) -> None:
    part = law_part(law, hardware=MACHINE)
    column = part["subjects"][0]["columns"][0]
    work = workload({**CONFIG, "dtype": "bfloat16"}, pairs="seen")
    for line in column["lines"]:
        at = column["contexts"][3]
        assert line["roof"][3] == pytest.approx(roof(work.decode(at, line["batch"]), MACHINE, "bfloat16").ns, rel=1e-3)
    assert any(one["key"] == "page_law.above_roof" for one in column["sentences"])
    with pytest.raises(StudyError):
        law_part(fit_points(points(), (Subject("unknown", "f"),)), hardware=MACHINE)


def test_a_kind_that_is_missing_is_told() -> None:
    law = fit_points([point for point in points() if point.kind == "decode"], (Subject("a", "f"),))
    part = law_part(law)
    assert [column["kind"] for column in part["subjects"][0]["columns"]] == ["decode"]
    assert said(Message.of(part["missing"][0])).startswith("No law for a prefill")


def test_many_points_are_chosen_evenly_and_counted() -> None:
    law = fit_points(points(visits=250), (Subject("a", "f"),))
    shown = law_part(law)["subjects"][0]["columns"][0]["points"]
    assert len(shown["ns"]) == MOST_POINTS < shown["n"] == 15 * 250 + 4


def test_document_is_json_and_its_messages_can_be_said(law: Law) -> None:
    found = law_document(law, hardware=MACHINE, lang="zh")
    json.dumps(found, allow_nan=False)
    assert found["tape"] is None and found["compare"] is None and found["lang"] == "zh"
    assert "\u202e" not in found["title"] + found["law"]["subjects"][0]["name"]
    assert len(words_of(found["law"])) > 40 and all(words_of(found["law"]))


def test_every_term_that_a_law_may_have_has_its_words() -> None:
    work = workload({**CONFIG, "dtype": "bfloat16"}, tensor_parallel=4)
    from tokentape.study.law.terms import Loads

    grid = [(c, b) for c in (64.0, 300.0, 1000.0, 4000.0, 9000.0) for b in (1.0, 3.0, 8.0, 64.0)]
    contexts, batches = zip(*grid, strict=True)
    for kind in ("decode", "prefill"):
        for works in (None, [work] * len(grid)):
            for form in forms_of(Loads.of(kind, contexts, batches, works)):
                for term in form.terms:
                    told = [term_message(term.name), meaning_message(term.name), per_message(term.per)]
                    assert all(said(one, lang) for one in told for lang in LANGS)
                    assert not any(one.key == "page_law.as_is" for one in told), term.name
                    bend = term_message(term.name).args.get("term")
                    assert bend is None or bend.key != "page_law.as_is", term.name
                assert len(form_message(form.name)) == len(form.terms)


def test_names_that_are_not_known_stand_for_themselves() -> None:
    assert (
        said(term_message("moonlight"))
        == said(meaning_message("moonlight"))
        == said(per_message("moonlight"))
        == "moonlight"
    )


@given(st.floats(1e-6, 1e13))
def test_times_are_told_within_half_of_their_last_digit(ns: float) -> None:
    number, unit = time_text(ns).split()
    size = {"ps": 1e-3, "ns": 1.0, "us": 1e3, "ms": 1e6, "s": 1e9}[unit]
    assert float(number.replace(",", "")) * size == pytest.approx(ns, rel=0.006)
    assert unit in ("s", "ps") or 0.99 <= float(number.replace(",", "")) < 1000.5
    assert math.isfinite(ns) and time_text(0.0) == "0"
