"""Taking turns: the order of the steps, what is measured on paper, budgets, and tapes that tell the same again."""

from __future__ import annotations

import functools
import itertools
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import tokentape
from tokentape import FakeClock, Line, ScriptedSource
from tokentape.data.request import Request
from tokentape.errors import TokentapeError, TooFewPoints
from tokentape.experiment.pairs import FunctionSide, Measured, Moment, measure
from tokentape.experiment.sides import IsolatedSide, RecordedSide, Recording, noted
from tokentape.recorder.tick import Said
from tokentape.study.compare import compare
from tokentape.study.turns import NOTE
from tokentape.study.verdict import FASTER, SAME, SLOWER, UNCLEAR, Question

MS = 1_000_000
Q = Question()


class PaperSide:
    """Runs of ``n`` steps of ``ns`` each on a shared clock; notes who had the turn."""

    def __init__(self, name: str, turns: list[str], clock: FakeClock, ns: float, n: int = 8) -> None:
        self.name, self.turns, self.clock, self.ns, self.n = name, turns, clock, ns, n
        self.n_runs = self.n_closed = 0

    def run(self) -> Iterator[float]:
        self.n_runs += 1
        try:
            for _ in range(self.n):
                self.turns.append(self.name)
                self.clock.advance(round(self.ns))
                yield self.ns
        except GeneratorExit:
            self.n_closed += 1
            raise


def paper(b_ns: float = MS, n: int = 8, n_b: int | None = None) -> tuple[PaperSide, PaperSide, list[str], FakeClock]:
    turns: list[str] = []
    clock = FakeClock()
    return PaperSide("A", turns, clock, MS, n), PaperSide("B", turns, clock, b_ns, n_b or n), turns, clock


def measured(a: Any, b: Any, clock: FakeClock, **how: Any) -> Measured:
    return measure(a, b, how.pop("question", Q), seed=how.pop("seed", 0), now_ns=lambda: clock.now_ns, **how)


@pytest.mark.parametrize("how", ["steps", "runs"])
@pytest.mark.parametrize(("b_ns", "word"), [(MS, SAME), (1.05 * MS, SLOWER), (0.95 * MS, FASTER), (1.01 * MS, SAME)])
def test_exact_times_give_an_exact_verdict_at_the_first_look(how: str, b_ns: float, word: str) -> None:
    a, b, _, clock = paper(b_ns)
    found = measured(a, b, clock, turns=how)
    assert (found.verdict.word, found.verdict.n, found.ended) == (word, 5, "clear")
    assert found.verdict.change == pytest.approx(b_ns / MS - 1)
    assert found.verdict.low == pytest.approx(found.verdict.high)


def test_steps_take_turns_as_abba_and_units_begin_with_either_side() -> None:
    a, b, turns, clock = paper(n=8)
    found = measured(a, b, clock, turns="steps")
    order = "".join(turns)
    assert order[:16] == "A" * 8 + "B" * 8, "a whole run of each warms up"
    units = [order[i : i + 16] for i in range(16, 16 + 16 * 16, 16)]
    assert set(units) == {"ABBA" * 4, "BAAB" * 4}, "a unit is a run of four ABBA here"
    assert all(one != other for one, other in itertools.pairwise(units)), "begun by either side in turn"
    assert found.units[:2] == ((1, 0, 8), (2, 0, 8))
    assert set(found.pairs) == {16}, "the least, where there is no noise"


def test_runs_take_turns_as_abba() -> None:
    a, b, turns, clock = paper(n=2)
    found = measured(a, b, clock, turns="runs")
    order = "".join(turns[::2])
    assert order[:2] == "AB" and order[2:10] in ("ABBABAAB", "BAABABBA")
    assert found.units[:2] == ((1, 0, 0), (3, 0, 0))
    assert a.n_runs == b.n_runs == 1 + 2 * len(found.units)


def test_coin_decides_which_side_begins_a_pair() -> None:
    begins = set()
    for seed in range(12):
        a, b, turns, clock = paper(n=2)
        measured(a, b, clock, turns="runs", seed=seed)
        begins.add(turns[2 * 2])
    assert begins == {"A", "B"}


def test_run_that_is_longer_on_one_side_is_ended_where_the_other_did() -> None:
    a, b, _, clock = paper(n=40, n_b=6)
    found = measured(a, b, clock, turns="steps")
    assert found.verdict.word == SAME
    assert {unit[2] for unit in found.units} == {6}
    assert a.n_closed == a.n_runs - 1, "all but the one that warmed up"


def test_long_run_holds_several_units() -> None:
    a, b, _, clock = paper(n=64)
    found = measured(a, b, clock, turns="steps")
    assert found.units[:4] == ((1, 0, 16), (1, 16, 16), (1, 32, 16), (1, 48, 16))
    assert a.n_closed == 1, "the run under way at the end is closed"


def test_long_steps_make_short_units() -> None:
    a, b, _, clock = paper()
    a.ns = b.ns = 400 * MS
    assert {unit[2] for unit in measured(a, b, clock, turns="steps").units} == {2}


def test_nothing_in_common_says_what_would_be() -> None:
    for how in ("steps", "runs"):
        a, b, _, clock = paper(n_b=1) if how == "steps" else paper()
        if how == "runs":
            b.n = 0
        with pytest.raises(TooFewPoints, match="no two steps in common"):
            measured(a, b, clock, turns=how)


def test_budget_that_is_too_small_is_unclear_and_says_so() -> None:
    a, b, _, clock = paper(1.5 * MS)
    found = measured(a, b, clock, turns="runs", budget_ns=400 * MS)
    assert (found.verdict.word, found.ended) == (UNCLEAR, "budget")
    assert "the budget was spent after 4 of the 5 pairs that it takes; at this noise, at most" in found.verdict.reason
    assert found.elapsed_ns < 500 * MS
    assert set(found.pairs) == {2}


def test_noise_that_does_not_settle_uses_the_pairs_up() -> None:
    a, b, _, clock = paper(n=2)
    rng = random.Random(1)
    run = b.run

    def shaken() -> Iterator[float]:
        factor = rng.lognormvariate(0, 0.5)
        yield from (factor * ns for ns in run())

    b.run = shaken  # type: ignore[method-assign]
    found = measured(a, b, clock, turns="runs", question=Question(max_pairs=6), budget_ns=2000 * MS)
    assert found.verdict.word == UNCLEAR
    assert (found.ended, found.verdict.reason) == ("pairs", "the 6 pairs are used up")


def test_interrupt_keeps_what_there_is() -> None:
    a, b, _, clock = paper()

    def watch(moment: Moment) -> None:
        if moment.n_pairs == 2:
            raise KeyboardInterrupt

    found = measured(a, b, clock, turns="steps", watch=watch)
    assert found.ended == "interrupted" and len(found.contrasts) == 2
    assert found.verdict.word == UNCLEAR and "interrupted after 2 of the 5 pairs" in found.verdict.reason


def test_functions_take_turns() -> None:
    clock = FakeClock()
    now = lambda: clock.now_ns  # noqa: E731
    a = FunctionSide(lambda: clock.advance(10 * MS), now)
    b = FunctionSide(lambda: clock.advance(11 * MS), now)
    found = measured(a, b, clock)
    assert (found.verdict.word, found.verdict.change) == (SLOWER, pytest.approx(0.1))


# on tapes


def lines(ms: float, n: int = 9) -> list[Line]:
    said = [Said(0, i, b"x", -1.0, 1.0, 1) for i in range(n)]
    return [Line(round(ms * MS * (3 if i == 0 else 1 + i / 10)), [one], context=4 + i) for i, one in enumerate(said)]


def recorded(folder: Path, how: str, of: str = "decode", b_ms: float = 1.1) -> Measured:
    clock = FakeClock()
    sides = [
        RecordedSide(
            ScriptedSource(lines(ms), clock, facts={"model": "paper", "side": name}),
            Recording(Request(("The cat",)), folder / f"{name}.tape", of),
            by_steps=how == "steps",
        )
        for name, ms in (("A", 1.0), ("B", b_ms))
    ]
    found = measured(sides[0], sides[1], clock, turns=how)
    for side in sides:
        side.close().close()
    for name in "AB":
        note = {**found.layout(Q), "of": of, "id": "1", "side": name, "reason": found.verdict.reason}
        noted(folder / f"{name}.tape", NOTE, note)
    return found


@pytest.mark.parametrize(
    ("how", "of"),
    [
        ("steps", "decode"),
        pytest.param("runs", "decode", marks=pytest.mark.slow),
        pytest.param("runs", "ttft", marks=pytest.mark.slow),
        pytest.param("runs", "e2e", marks=pytest.mark.slow),
    ],
)
def test_tapes_tell_the_verdict_again(tmp_path: Path, how: str, of: str) -> None:
    found = recorded(tmp_path, how, of)
    assert found.verdict.word == SLOWER and found.verdict.change == pytest.approx(0.1)
    again = compare(tmp_path / "A.tape", tmp_path / "B.tape", across=["any"], of=of)
    assert (again.verdict, again.caveat) == (found.verdict, None)
    assert tokentape.verify(tmp_path / "A.tape") == tokentape.verify(tmp_path / "B.tape") == []
    # at another size the same pairs may say something else; another confidence was not what was asked
    assert compare(tmp_path / "A.tape", tmp_path / "B.tape", across=["any"], of=of, threshold=0.2).verdict.word == SAME
    with pytest.raises(TokentapeError, match="confidence"):
        compare(tmp_path / "A.tape", tmp_path / "B.tape", across=["any"], of=of, confidence=0.5)


def test_tapes_of_another_question_are_judged_apart(tmp_path: Path) -> None:
    recorded(tmp_path, "steps")
    assert compare(tmp_path / "A.tape", tmp_path / "B.tape", across=["any"], of="ttft").caveat is not None


def test_tape_recorded_by_turns_of_steps_reads_as_if_alone(tmp_path: Path) -> None:
    recorded(tmp_path, "steps")
    with tokentape.open(tmp_path / "A.tape") as tape:
        assert tape.state == "complete"
        for trace in tape.traces[1:4]:
            steps = trace.steps
            assert steps["start_ns"][1:].tolist() == steps["end_ns"][:-1].tolist(), "B's turns are left out"
            assert (steps["end_ns"] - steps["start_ns"]).tolist()[:2] == [3 * MS, 1.1 * MS]
            assert steps["cpu_ns"].mask.all(), "it cannot be told apart from the other side's"


def test_error_of_a_side_is_told_and_its_tape_kept(tmp_path: Path) -> None:
    clock = FakeClock()
    bad = ScriptedSource([*lines(1.0, 3), Line(MS, error=TooFewPoints("boom", why="so", fix="not"))], clock)
    sides = [
        RecordedSide(source, Recording(Request(("x",)), tmp_path / name), by_steps=True)
        for source, name in ((ScriptedSource(lines(1.0), clock), "A.tape"), (bad, "B.tape"))
    ]
    with pytest.raises(TooFewPoints, match="boom"):
        measured(sides[0], sides[1], clock, turns="steps")
    for side in sides:
        side.close().close()
    with tokentape.open(tmp_path / "B.tape") as tape:
        assert (tape.state, tape.traces[0].finish_reason) == ("partial", "error")


def far_side(path: Path, fails: bool = False) -> RecordedSide:
    if fails:
        raise TooFewPoints("boom", why="so", fix="not")
    return RecordedSide(ScriptedSource(lines(1.0)), Recording(Request(("x",)), path))


@pytest.mark.slow
def test_side_in_a_process_of_its_own(tmp_path: Path) -> None:
    side = IsolatedSide(functools.partial(far_side, tmp_path / "A.tape"))
    side.ready()
    assert list(side.run()) == [round(MS * (1 + i / 10)) for i in range(1, 9)]
    with side.close() as tape:
        assert (tape.path, len(tape.runs)) == (tmp_path / "A.tape", 1)
    broken = IsolatedSide(functools.partial(far_side, tmp_path / "B.tape", fails=True))
    with pytest.raises(TooFewPoints, match="boom"):
        broken.ready()
