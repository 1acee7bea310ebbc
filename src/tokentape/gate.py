"""A pytest plugin: the fixture ``tokentape_gate`` fails a test whose B is slower than its A.

It is loaded at every start of pytest, so it imports nothing before it is used.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tokentape.study.verdict import Question, Verdict

__all__ = ["Gate", "GateWarning", "pytest_addoption", "pytest_terminal_summary", "tokentape_gate"]

PROPERTY = "tokentape_gate"


class GateWarning(UserWarning):
    """A gate let a test pass without being sure: its verdict was UNCLEAR, or A and B were not recorded in turns."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """The defaults, for pytest.ini or pyproject.toml."""
    parser.addini("tokentape_threshold", "size from which tokentape_gate fails a test that names none", default="5%")
    parser.addini("tokentape_budget", "time that tokentape_gate may measure for", default="30s")


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """One line a gate, whatever came of it."""
    said = [
        f"{report.nodeid}: {text}"
        for reports in terminalreporter.stats.values()
        for report in reports
        if getattr(report, "when", None) == "call"
        for name, text in report.user_properties
        if name == PROPERTY
    ]
    if said:
        terminalreporter.section("tokentape gate")
        for text in said:
            terminalreporter.write_line(text)


@pytest.fixture
def tokentape_gate(request: pytest.FixtureRequest) -> Gate:
    """``tokentape_gate(a, b)``: two callables, which take turns, or two tapes. See :class:`Gate`."""
    return Gate(request)


class Gate:
    """Fails the test where B is SLOWER than A at a size, and by more than it."""

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self._request = request

    def __call__(
        self,
        a: Any,
        b: Any,
        *,
        fail_over: str | float | None = None,
        confidence: float | None = None,
        pairs: int | None = None,
        budget: str | float | None = None,
        unclear: str = "warn",
        across: Iterable[str] = (),
        of: str = "decode",
    ) -> Verdict:
        """The verdict on ``b`` against ``a``; the test fails, with its sentence, where the slowdown exceeds ``fail_over``.

        ``a`` and ``b`` are callables, called in turns for at most ``budget``, or tapes (paths or open ones), for which
        ``across`` and ``of`` are those of :func:`tokentape.study.compare.compare`. ``fail_over`` ("5%" or 0.05) and ``budget``
        ("30s") default to the settings ``tokentape_threshold`` and ``tokentape_budget``. ``unclear`` says what an UNCLEAR
        verdict does: ``"warn"``, ``"fail"`` or ``"pass"``. Raises what a side raises, UsageError and NotComparable.
        """
        from tokentape.errors import UsageError
        from tokentape.experiment.amounts import seconds, share
        from tokentape.study.compare import compare, fails
        from tokentape.study.verdict import UNCLEAR, Question

        if unclear not in ("warn", "fail", "pass"):
            raise UsageError(f"unclear={unclear!r}", why="it is what UNCLEAR does", fix="one of warn, fail, pass")
        config = self._request.config
        size = share(config.getini("tokentape_threshold") if fail_over is None else fail_over, "fail_over")
        default = Question()
        question = Question(size, confidence or default.confidence, pairs or default.max_pairs)
        verdict: Verdict | None
        caveat: str | None
        if callable(a) and callable(b):
            budget_s = seconds(config.getini("tokentape_budget") if budget is None else budget, "budget")
            verdict, text, caveat = self._called(a, b, question, budget_s)
        elif _is_tape(a) and _is_tape(b):
            if pairs is not None or budget is not None:
                raise UsageError("pairs and budget with tapes", why="these are recorded already", fix="leave them out")
            found = compare(a, b, across=across, of=of, threshold=size, confidence=confidence)
            verdict, text, caveat = found.verdict, found.sentence, found.caveat
        else:
            raise UsageError(
                f"a gate between {type(a).__name__} and {type(b).__name__}",
                why="it takes two callables, or two tapes",
                fix="tokentape_gate(old, new), or tokentape_gate('old.tape', 'new.tape')",
            )
        self._request.node.user_properties.append((PROPERTY, text))
        if verdict is None:
            raise UsageError("a gate between a tape and itself", why=text, fix="give the tape of another recording")
        if fails(verdict, size) or (verdict.word == UNCLEAR and unclear == "fail"):
            pytest.fail(text, pytrace=False)
        if (verdict.word == UNCLEAR and unclear == "warn") or caveat is not None:
            warnings.warn(GateWarning(text), stacklevel=2)
        return verdict

    def _called(self, a: Any, b: Any, question: Question, budget_s: float) -> tuple[Verdict, str, None]:
        from tokentape.experiment.pairs import FunctionSide, measure
        from tokentape.study.compare import verdict_sentence

        found = measure(FunctionSide(a), FunctionSide(b), question, budget_ns=round(budget_s * 1e9))
        if found.ended == "interrupted":
            raise KeyboardInterrupt
        return found.verdict, verdict_sentence(found.verdict, "call"), None


def _is_tape(given: Any) -> bool:
    from tokentape.data.tape import Tape

    return isinstance(given, (str, os.PathLike, Tape))
