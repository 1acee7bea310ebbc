"""The pytest plugin, in test suites of its own: it fails, it warns, it says what it saw, and it costs nothing at the start."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import scipy.stats  # noqa: F401  pytester drops what a suite imports first, and numpy does not survive that

import tokentape
import tokentape.experiment.pairs
import tokentape.study.compare
from tokentape import Line, ScriptedSource
from tokentape.recorder.tick import Said

pytest_plugins = ["pytester"]
MS = 1_000_000

# a clock that moves by what is called, so that no test depends on the machine's
CLOCKED = """
    import time
    import pytest
    now = [0]

    @pytest.fixture(autouse=True)
    def clock(monkeypatch):
        from tokentape.experiment import pairs
        monkeypatch.setattr(pairs.FunctionSide.__init__, "__defaults__", (lambda: now[0],))

    def takes(us):
        return lambda: now.__setitem__(0, now[0] + us * 1000)
"""


def suite(pytester: pytest.Pytester, body: str, *arguments: str) -> pytest.RunResult:
    pytester.makepyfile(CLOCKED + body)
    installed = any(point.value == "tokentape.gate" for point in entry_points(group="pytest11"))
    if not installed:  # into an environment that is older than the entry point
        arguments = ("-p", "tokentape.gate", *arguments)
    return pytester.runpytest_inprocess(
        "-p", "no:cacheprovider", "-p", "no:hypothesispytest", "-W", "default", *arguments
    )


def test_slower_fails_with_the_verdicts_sentence(pytester: pytest.Pytester) -> None:
    done = suite(pytester, "    def test_it(tokentape_gate): tokentape_gate(takes(100), takes(110))")
    done.assert_outcomes(failed=1)
    done.stdout.fnmatch_lines(["*SLOWER at 5 %: B takes 10.0 % longer a call than A*", "*tokentape gate*"])


def test_same_passes_and_is_told_in_the_summary(pytester: pytest.Pytester) -> None:
    done = suite(
        pytester,
        "    def test_it(tokentape_gate): assert tokentape_gate(takes(100), takes(101)).word == 'SAME'",
        "-W",
        "error",
    )
    done.assert_outcomes(passed=1)
    done.stdout.fnmatch_lines(["*test_it: SAME at 5 %: B takes 1.0 % longer a call than A*"])


def test_faster_passes(pytester: pytest.Pytester) -> None:
    done = suite(
        pytester, "    def test_it(tokentape_gate): assert tokentape_gate(takes(100), takes(50)).word == 'FASTER'"
    )
    done.assert_outcomes(passed=1)


def test_size_comes_from_the_call_else_from_the_settings(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\ntokentape_threshold = 20%\ntokentape_budget = 1m")
    body = """
    def test_setting(tokentape_gate): assert tokentape_gate(takes(100), takes(110)).threshold == 0.2
    def test_call(tokentape_gate): tokentape_gate(takes(100), takes(110), fail_over=0.03)
    """
    suite(pytester, body).assert_outcomes(passed=1, failed=1)


UNCLEAR = """
    from tokentape.experiment import pairs

    def test_it(tokentape_gate, monkeypatch):
        monkeypatch.setattr(pairs, "measure", cut(pairs.measure))
        tokentape_gate(takes(100), takes(200), unclear={!r})

    def cut(measure):
        def impatient(a, b, question, budget_ns):
            return measure(a, b, question, budget_ns=2_000_000, now_ns=lambda: now[0])
        return impatient
"""


@pytest.mark.parametrize(("unclear", "outcome"), [("warn", "passed"), ("pass", "passed"), ("fail", "failed")])
def test_unclear_is_never_silent(pytester: pytest.Pytester, unclear: str, outcome: str) -> None:
    done = suite(pytester, UNCLEAR.format(unclear))
    done.assert_outcomes(**{outcome: 1}, warnings=int(unclear == "warn"))
    done.stdout.fnmatch_lines(["*UNCLEAR at 5 %; the budget was spent after*"])


def taped(path: Path, ms: float, **facts: str) -> Path:
    script = [Line(round(ms * MS), [Said(0, i, b"x", -1.0, 1.0, 1)], context=5 + i) for i in range(24)]
    tokentape.record(ScriptedSource(script, facts={"model": "paper", **facts}), "The cat", path=path).close()
    return path


def test_tapes_recorded_apart_warn_that_a_drift_may_be_all(pytester: pytest.Pytester, tmp_path: Path) -> None:
    a, b, other = taped(tmp_path / "a.tape", 2), taped(tmp_path / "b.tape", 2), taped(tmp_path / "c.tape", 2, gpu="x")
    body = f"""
    def test_same(tokentape_gate): tokentape_gate({str(a)!r}, {str(b)!r})
    def test_other(tokentape_gate): tokentape_gate({str(a)!r}, {str(other)!r})
    def test_asked(tokentape_gate): tokentape_gate({str(a)!r}, {str(other)!r}, across=["gpu"])
    def test_itself(tokentape_gate): tokentape_gate({str(a)!r}, {str(a)!r})
    """
    done = suite(pytester, body)
    done.assert_outcomes(passed=2, failed=2, warnings=2)
    done.stdout.fnmatch_lines(["*A and B differ in gpu (none | x)*", "*cannot be told from a difference*"])


@pytest.mark.parametrize(
    "call", ["(takes(1), 'b.tape')", "(1, 2)", "(takes(1), takes(1), fail_over='5 apples')", "('a', 'b', budget='1s')"]
)
def test_nonsense_is_an_error(pytester: pytest.Pytester, call: str) -> None:
    done = suite(pytester, f"    def test_it(tokentape_gate): tokentape_gate{call}")
    done.assert_outcomes(failed=1)
    done.stdout.fnmatch_lines(["*UsageError*"])


def test_plugin_loads_nothing_heavy() -> None:
    program = "import sys, pytest, tokentape.gate; print(*sorted({'numpy', 'scipy', 'torch', 'click', 'rich'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr
