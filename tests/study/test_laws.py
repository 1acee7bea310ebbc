"""The law of latency, fitted to tapes and points whose truth is written down."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import tokentape
from tokentape import Line
from tokentape.data.tape import Tape
from tokentape.errors import NotComparable, StudyError, TooFewPoints, UsageError
from tokentape.study.cost.work import Work
from tokentape.study.law.gathering import Subject
from tokentape.study.law.laws import Law, fit, fit_points
from tokentape.study.law.points import Point
from tokentape.study.law.residuals import residuals_by_cause, residuals_of

MS = 1_000_000
CONTEXTS = (64, 128, 256, 512, 1024)
BATCHES = (1, 2, 4, 8)
ONE = (Subject("a model", "f"),)


def decode_ns(context: float, batch: float) -> float:
    return 2e6 + 1e5 * batch + 40.0 * batch * context


def points(
    time: Callable[[float, float], float] = decode_ns,
    contexts: tuple[int, ...] = CONTEXTS,
    batches: tuple[int, ...] = BATCHES,
    noise: float = 0.01,
    kind: str = "decode",
) -> list[Point]:
    random = np.random.default_rng(0)
    return [
        Point(kind, context, batch, time(context, batch) * float(np.exp(noise * random.standard_normal())), n=16)
        for context in contexts
        for batch in batches
        for _ in range(3)
    ]


@pytest.fixture(scope="module")
def law() -> Law:
    return fit_points(points(), ONE)


# what it finds


def test_the_coefficients_are_the_true_ones_and_lie_in_their_intervals(law: Law) -> None:
    assert law.decode is not None
    found = {c.name: c for c in law.decode.coefficients}
    for name, true in (("constant", 2e6), ("sequences", 1e5), ("key-value", 40.0)):
        assert found[name].value == pytest.approx(true, rel=0.1), name
        assert found[name].low <= true <= found[name].high, name
    assert sum(c.share for c in found.values()) == pytest.approx(1, abs=0.01)


def test_it_says_what_context_costs(law: Law) -> None:
    assert law.decode is not None
    c = next(c for c in law.decode.coefficients if c.name == "key-value")
    # nanoseconds a position times a thousand positions, in milliseconds
    wanted = f"{c.value / 1000:.3g} ms to a token ({c.low / 1000:.3g} to {c.high / 1000:.3g}), at batch 1"
    assert law.sentence() == f"each 1,000 tokens of context add {wanted}"


def test_it_predicts_between_and_beyond(law: Law) -> None:
    inside = law.predict(context=700, batch=3)
    assert inside.ns == pytest.approx(decode_ns(700, 3), rel=0.02)
    assert inside.beyond == {}
    beyond = law.predict(context=4096, batch=16)
    assert beyond.ns == pytest.approx(decode_ns(4096, 16), rel=0.1)
    assert beyond.beyond == {"context": 4.0, "batch": 2.0}
    assert beyond.low_ns <= decode_ns(4096, 16) <= beyond.high_ns
    assert np.log(beyond.high_ns / beyond.low_ns) > 2 * np.log(inside.high_ns / inside.low_ns)
    assert law.predict(context=16).beyond == {"context": 0.25}


def test_more_confidence_is_a_wider_interval(law: Law) -> None:
    widths = [p.high_ns / p.low_ns for p in (law.predict(context=256, batch=2, confidence=c) for c in (0.5, 0.9, 0.99))]
    assert widths == sorted(widths) and widths[0] < widths[2]


def test_it_checks_itself(law: Law) -> None:
    assert law.decode is not None and law.decode.check is not None
    check = law.decode.check
    assert check.n == len(CONTEXTS) * len(BATCHES) == law.decode.n_cells
    assert check.median_error < 0.02 and 0.8 <= check.coverage <= 1


def test_prefill_has_its_square() -> None:
    def prefill_ns(length: float, batch: float) -> float:
        return 5e6 + 1e5 * batch * length + 60.0 * batch * length**2

    found = fit_points(points(prefill_ns, kind="prefill"), ONE)
    assert found.prefill is not None and found.decode is None
    assert {c.name: c.value for c in found.prefill.coefficients}["attention"] == pytest.approx(60, rel=0.15)
    assert found.predict(context=300, batch=2, kind="prefill").ns == pytest.approx(prefill_ns(300, 2), rel=0.03)
    with pytest.raises(TooFewPoints, match="no part for decode"):
        found.predict(context=300)


def test_json_has_everything_but_the_data(law: Law) -> None:
    found = json.loads(json.dumps(law.as_dict()))
    assert found["decode"]["coefficients"][0]["name"] == "constant"
    assert found["prefill"] is None and "prefill" in found["missing"]
    assert "fitted" not in found["decode"]


# residuals


def test_residuals_by_cause() -> None:
    bad = [replace(point, ns=5 * point.ns, cause="gc") for point in points()[:4]]
    law = fit_points([*points(), *bad], ONE)
    assert law.decode is not None and law.decode.left_out == {"gc": 4}
    none, gc = residuals_by_cause(residuals_of(law, law.decode))
    assert (none.cause, gc.cause, gc.n) == (None, "gc", 4)
    assert none.median_ratio == pytest.approx(1, abs=0.02)
    assert gc.median_ratio == pytest.approx(5, rel=0.05)


# what it refuses


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (points(contexts=(64,), batches=(1,))[:1], "1 settings with 1 distinct contexts"),
        (points(contexts=(64,), batches=(1,)), "1 settings with 1 distinct contexts"),
        (points(contexts=(64, 128)), "8 settings with 2 distinct contexts"),
        (points(contexts=(1000, 1001, 1002)), "4 settings with 1 distinct contexts"),
        ([], "none was measured|no decode step was measured"),
        ([replace(point, cause="warm-up") for point in points()], "60 were left out for a cause"),
    ],
)
def test_too_few_says_what_is_needed(given: list[Point], said: str) -> None:
    with pytest.raises(TooFewPoints) as caught:
        fit_points(given, ONE)
    assert "tokentape sweep" in caught.value.fix
    import re

    assert re.search(said, str(caught.value))
    if given and given[0].cause is None:
        assert "3 contexts that span a factor of 1.5" in str(caught.value)


def test_a_batch_that_never_varied_is_not_guessed() -> None:
    law = fit_points(points(batches=(2,)), ONE)
    assert law.predict(context=300, batch=2).ns == pytest.approx(decode_ns(300, 2), rel=0.03)
    with pytest.raises(TooFewPoints, match="every measured step had a batch of 2"):
        law.predict(context=300, batch=4)


@pytest.mark.parametrize("question", [{"context": 0}, {"context": 64, "batch": 0}, {"context": float("nan")}])
def test_impossible_questions(law: Law, question: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        law.predict(**question)


def test_impossible_confidence_and_kind(law: Law) -> None:
    with pytest.raises(UsageError, match="between 0 and 1"):
        law.predict(context=64, confidence=1.0)
    with pytest.raises(UsageError, match="no kind 'chunk'"):
        law.predict(context=64, kind="chunk")
    with pytest.raises(UsageError, match="no tape"):
        fit()


# tapes


def taped(n: int = 400, path: Path | None = None, prompt: int = 60, facts: dict[str, object] | None = None) -> Tape:
    """A recording of exact times: context grows by one a step."""
    lines = [Line(round(3e6 + 1e5 * prompt), ["a"], context=prompt)]
    lines += [Line(round(decode_ns(prompt + i, 1)), ["a"], context=prompt + i) for i in range(1, n)]
    source = tokentape.ScriptedSource(lines, facts=facts or {"model": "scripted", "engine": "scripted"})
    return tokentape.record(source, list(range(prompt)), path=path)


def test_one_long_recording_is_enough_for_a_law_of_context() -> None:
    law = fit(taped())
    assert law.decode is not None
    assert law.decode.clock == "host" and law.decode.batch == (1, 1)
    assert law.predict(context=300).ns == pytest.approx(decode_ns(300, 1), rel=0.002)
    assert law.predict(context=900).ns == pytest.approx(decode_ns(900, 1), rel=0.02)
    assert "prefill" in law.missing


def test_tapes_of_one_setting_go_together_and_paths_are_opened(tmp_path: Path) -> None:
    paths = [tmp_path / "a.tape", tmp_path / "b.tape"]
    for i, path in enumerate(paths):
        taped(300, path, prompt=40 + 100 * i).close()
    law = fit(*paths)
    assert len(law.subjects) == 1
    assert law.decode is not None and law.decode.context[1] > 390


def test_tapes_of_two_machines_are_refused() -> None:
    a = taped(facts={"model": "m", "processor": "one"})
    b = taped(facts={"model": "m", "processor": "two"})
    with pytest.raises(NotComparable, match=r"processor \(one, two\)"):
        fit(a, b)


def test_tapes_of_two_models_need_their_architectures() -> None:
    a, b = taped(facts={"model": "m", "processor": "one"}), taped(facts={"model": "n", "processor": "one"})
    with pytest.raises(StudyError, match="architecture of m is not on its tape"):
        fit(a, b)
    with pytest.raises(StudyError, match="architecture of m is not on its tape"):
        fit(a).predict(context=100, of=Machine(2))


def test_a_tape_without_contexts_says_so() -> None:
    lines = [Line(MS, ["a"]) for _ in range(50)]
    with pytest.raises(TooFewPoints, match="none has a known context"):
        fit(tokentape.record(tokentape.ScriptedSource(lines), "x"))


def test_a_tape_of_steps_that_took_no_time_says_so() -> None:
    lines = [Line(0, ["a"], context=60 + i) for i in range(200)]
    with pytest.raises(TooFewPoints, match="time above zero"):
        fit(tokentape.record(tokentape.ScriptedSource(lines), "x"))


def test_a_partial_tape_gives_what_it_has(tmp_path: Path) -> None:
    path = tmp_path / "partial.tape"
    lines = [Line(round(decode_ns(60 + i, 1)), ["a"], context=60 + i) for i in range(300)]
    lines.append(Line(MS, error=RuntimeError("broken")))
    with pytest.raises(RuntimeError, match="broken"):
        tokentape.record(tokentape.ScriptedSource(lines), "x", path=path)
    law = fit(path)
    assert law.predict(context=200).ns == pytest.approx(decode_ns(200, 1), rel=0.002)


# across models


class Machine:
    """A workload whose size is one number: layers, and a megabyte and two million operations each."""

    def __init__(self, layers: int, tensor_parallel: int = 1) -> None:
        self.layers, self.tensor_parallel = layers, tensor_parallel

    def decode(self, context: float, batch: float) -> Work:
        n = self.layers
        return Work(n, 1e6 * n, 1e3 * n * context * batch, 1e3 * n * batch, 2e6 * n * batch, 4e2 * n * context * batch)

    def prefill(self, length: float, batch: float) -> Work:
        return self.decode(length, batch * length)


def machine_ns(work: Work) -> float:
    return 1e5 + 2e4 * work.layers + 0.05 * work.weight_bytes + 0.02 * work.kv_bytes + 0.004 * work.flops


def test_a_law_of_work_answers_for_a_model_that_it_never_saw() -> None:
    subjects = tuple(
        Subject(f"{n} layers", str(n), workload=Machine(n), pooled=True)  # type: ignore[arg-type]
        for n in (8, 16, 24)
    )
    random = np.random.default_rng(1)
    measured = [
        Point(
            "decode",
            context,
            batch,
            machine_ns(subject.workload.decode(context, batch)) * float(np.exp(0.01 * random.standard_normal())),
            labels={"subject": i},
        )
        for i, subject in enumerate(subjects)
        for context in CONTEXTS
        for batch in BATCHES
    ]
    law = fit_points(measured, subjects)
    for context, batch in ((200, 2), (1000, 8)):
        asked = law.predict(context=context, batch=batch, of=Machine(48))
        true = machine_ns(Machine(48).decode(context, batch))
        assert asked.ns == pytest.approx(true, rel=0.1)
        assert asked.low_ns <= true <= asked.high_ns
    with pytest.raises(UsageError, match="several Settings"):
        law.predict(context=64)
    known = law.predict(context=200, batch=2, of="16 layers")
    strange = law.predict(context=200, batch=2, of=Machine(48))
    assert known.high_ns / known.low_ns < strange.high_ns / strange.low_ns


CONFIG = {
    "model_type": "llama",
    "hidden_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "intermediate_size": 128,
    "vocab_size": 256,
}


def test_the_model_that_was_measured_is_asked_directly_and_another_by_its_work() -> None:
    from tokentape.study.cost.counting import workload

    own = workload(CONFIG, "float32")
    law = fit_points(points(), (Subject("tiny", "t", {"config": CONFIG, "dtype": "float32"}, own),))
    direct = law.predict(context=256, batch=2)
    # asked for without naming its dtype, it is still the same model
    assert law.time_of("decode", workload(CONFIG), 256, 2) == (direct.ns, direct.low_ns, direct.high_ns)
    ns, low, high = law.time_of("decode", workload({**CONFIG, "num_hidden_layers": 8}), 256, 2)
    assert low < ns < high and ns > direct.ns
    assert high / low > direct.high_ns / direct.low_ns, "what one model's constant is made of is not known"
