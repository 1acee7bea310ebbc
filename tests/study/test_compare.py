"""Two tapes compared: what is refused and why, what is aligned, and what a verdict may not be without."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import tokentape
from tokentape import Line
from tokentape.data.tape import Tape
from tokentape.errors import NotComparable, StudyError, TooFewPoints, UsageError
from tokentape.recorder.tick import Said
from tokentape.study.comparability import FOLLOWS
from tokentape.study.compare import compare, fails
from tokentape.study.verdict import FASTER, SAME, SLOWER, UNCLEAR, Verdict

MS = 1_000_000
FACTS = {"model": "paper", "weights": "full:1", "dtype": "float32", "processor": "one", "logical_cpus": 2, "gpu": None}


@pytest.fixture(autouse=True)
def no_law(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A stand-in for the laws: a scripted tape has too few points for one."""
    laws = ModuleType("tokentape.study.law.laws")

    def fit(tape: Tape) -> Any:
        raise TooFewPoints("no law", why="one context", fix="sweep")

    laws.fit = fit
    monkeypatch.setitem(sys.modules, "tokentape.study.law.laws", laws)
    return laws


def script(n: int = 20, ms: float = 2, text: str = "abcdefghijklmnopqrstuvwxyz", wobble: float = 0.0) -> list[Line]:
    times = [5.0, *(ms * (1 + wobble * (-1) ** i) for i in range(n - 1))]
    said = [Said(0, i, text[i].encode(), -1.0, 1.0, 1) for i in range(n)]
    return [Line(round(t * MS), [one], context=5 + i) for i, (t, one) in enumerate(zip(times, said, strict=True))]


def taped(
    lines: list[Line], path: Path | None = None, prompt: Any = "The cat", seed: int | None = None, **facts: Any
) -> Tape:
    source = tokentape.ScriptedSource(lines, facts={**FACTS, "tokenizer": "x", **facts})
    return tokentape.record(source, prompt, path=path, seed=seed)


# what may be compared


def test_tapes_of_different_machines_are_refused_and_it_says_what_differs() -> None:
    a, b = taped(script()), taped(script(), processor="another", logical_cpus=64)
    with pytest.raises(NotComparable) as refused:
        compare(a, b)
    assert "processor (one | another)" in refused.value.what and "logical_cpus (2 | 64)" in refused.value.what
    assert "--across processor" in refused.value.fix and "logical_cpus" not in refused.value.fix, "that follows from it"
    assert compare(a, b, across=["machine"]).differences[0].because == "asked"


def test_what_is_the_question_may_differ_and_what_follows_from_it() -> None:
    a, b = taped(script()), taped(script(), dtype="bfloat16", weights="full:2")
    found = compare(a, b, across=["dtype"])
    assert {d.name: d.because for d in found.differences} == {"dtype": "asked", "weights": "dtype"}


def test_what_does_not_follow_is_still_refused() -> None:
    a, b = taped(script()), taped(script(), model="other", weights="full:2", dtype="bfloat16")
    with pytest.raises(NotComparable) as refused:
        compare(a, b, across=["model"])
    assert "dtype" in refused.value.what and "weights" not in refused.value.what
    assert refused.value.fix.endswith("--across model,dtype")
    compare(a, b, across="model,dtype".split(","))


def test_prompt_options_and_seed_are_part_of_what_must_be_equal() -> None:
    with pytest.raises(NotComparable, match=r"prompt \('The cat' \| 'A dog'\)"):
        compare(taped(script()), taped(script(), prompt="A dog"))
    with pytest.raises(NotComparable, match=r"seed \(1 \| 2\)"):
        compare(taped(script(), seed=1), taped(script(), seed=2))
    assert compare(taped(script(), seed=1), taped(script(), seed=2), across=["seed"]).verdict is not None


def test_notes_of_a_machine_do_not_matter() -> None:
    assert compare(taped(script(), hostname="a", pid=1), taped(script(), hostname="b", pid=2)).differences == ()


def test_name_that_is_on_neither_tape_is_refused() -> None:
    with pytest.raises(UsageError, match="dtyp"):
        compare(taped(script()), taped(script()), across=["dtyp"])
    with pytest.raises(UsageError, match="of='speed'"):
        compare(taped(script()), taped(script()), of="speed")


def test_question_that_both_answer_alike_is_noted() -> None:
    found = compare(taped(script()), taped(script()), across=["dtype"])
    assert found.notes == ("dtype was named as the question, and is the same on both: float32",)


def test_everything_that_follows_is_a_fact_or_an_option() -> None:
    assert all("-" not in name and name == name.lower() for names in FOLLOWS.values() for name in names)


# text


def test_parting_at_token_k() -> None:
    other = script(text="abcdeXghijklmnopqrstuvwxyz")
    other[5] = Line(2 * MS, [Said(0, 99, b"X", -0.1, 1.0, 1, candidates=((99, -0.1), (5, -2.5)))], context=10)
    found = compare(taped(script()), taped(other)).alignments[0]
    assert (found.n_common, found.parting.a.data, found.parting.b.data) == (5, b"f", b"X")
    assert (found.parting.a.logprob, found.parting.b.others_logprob) == (-1.0, pytest.approx(-2.5))


def test_sequences_are_matched_by_their_prompt_and_repeats_told_once() -> None:
    def several(*prompts: str) -> Tape:
        said = [Said(row, 1, b"x", -1.0, 1.0, 1) for row in range(len(prompts))]
        source = tokentape.ScriptedSource([Line(MS, said), Line(MS, said)], facts={**FACTS, "tokenizer": "x"})
        return tokentape.record(source, list(prompts))

    found = compare(several("one", "two", "one"), several("two", "one", "one"))
    assert [(one.a, one.b, one.n_alike) for one in found.alignments] == [(0, 1, 2), (1, 0, 1)]
    left = compare(several("one", "one"), several("one"))
    assert left.notes == ("1 of the 2 sequences of A have no counterpart",)


# times


def test_steps_are_held_against_each_other_at_equal_context() -> None:
    a, b = taped(script(ms=2)), taped(script(ms=3, n=10))
    found = compare(a, b).steps
    assert found.at == "context"
    assert [place[1] for place in found.places] == list(range(6, 15))
    assert (found.whole.a_ns, found.whole.b_ns, found.whole.ratio) == (2 * MS, 3 * MS, pytest.approx(1.5))
    first = compare(a, b).first_token
    assert (first.a_ns, first.ratio) == (5 * MS, 1.0)


def test_contexts_that_have_nothing_in_common_are_held_against_each_other_by_step() -> None:
    shifted = [Line(line.ns, line.says, context=line.context + 1000) for line in script()]
    found = compare(taped(script()), taped(shifted, prompt="A longer one"), across=["prompt"]).steps
    assert (found.at, found.whole.ratio) == ("step", 1.0)


def test_a_then_b_never_gets_a_verdict_without_saying_so() -> None:
    found = compare(taped(script(wobble=0.002)), taped(script(ms=2.2, wobble=0.001)))
    assert found.verdict.word == SLOWER and not found.verdict.interleaved
    assert found.verdict.change == pytest.approx(0.1, abs=0.01)
    assert "cannot be told from a difference" in found.sentence
    assert compare(taped(script(ms=2.2)), taped(script(ms=2))).verdict.word == FASTER
    assert compare(taped(script()), taped(script())).verdict.word == SAME


def test_one_run_of_few_steps_is_unclear_and_says_what_it_takes() -> None:
    found = compare(taped(script(n=5)), taped(script(n=5)))
    assert found.verdict.word == UNCLEAR
    assert "16 steps at equal context, or 3 runs a side" in found.verdict.reason
    assert "3 runs a side" in compare(taped(script()), taped(script()), of="ttft").verdict.reason


def test_tape_without_a_token_is_refused() -> None:
    empty = taped([Line(MS)])
    with pytest.raises(StudyError, match="B has no token"):
        compare(taped(script()), empty)
    nothing = tokentape.record(tokentape.ScriptedSource([], facts={**FACTS, "tokenizer": "x"}), "The cat")
    with pytest.raises(StudyError, match="A has no token"):
        compare(nothing, taped(script()))


def test_partial_tape_is_compared_as_far_as_it_goes() -> None:
    broken = [*script(n=8), Line(MS, error=RuntimeError("boom"))]
    source = tokentape.ScriptedSource(broken, facts={**FACTS, "tokenizer": "x"})
    from tokentape.data.request import Request
    from tokentape.recorder.recorder import Recorder

    live = source.start(Request(("The cat",)), frozenset())
    recorder = Recorder(None, source.setting(), [], source.clock, origin=live.start)
    with pytest.raises(RuntimeError, match="boom"), recorder:
        recorder.begin(live)
        for tick in live.ticks:
            recorder.add(tick)
    recorder.close()
    found = compare(taped(script()), recorder.tape)
    assert found.notes == ("B is partial: what it lacks is not compared",)
    assert (found.alignments[0].n_common, found.alignments[0].parting.b.finish_reason) == (8, "error")


def test_missing_logprobs_are_null() -> None:
    lines = [Line(2 * MS, [Said(0, i, b"x")], context=5 + i) for i in range(20)]
    found = compare(taped(lines), taped(lines))
    assert found.alignments[0].deviation.nats is None


def test_tape_compared_to_itself_says_so(tmp_path: Path) -> None:
    tape = taped(script(), tmp_path / "a.tape")
    tape.save(tmp_path / "copy.tape")
    for other in (tape, tmp_path / "a.tape", tmp_path / "copy.tape"):
        found = compare(tape, other)
        assert found.same and found.verdict is None
        assert "one recording" in found.sentence


# laws


def test_laws_are_laid_beside_each_other(no_law: ModuleType) -> None:
    def fit(tape: Tape) -> Any:
        much = tape.setting.facts["dtype"] == "float32"
        c = SimpleNamespace(name="constant", per="", meaning="each pass", value=3.0, low=2.0, high=4.0 if much else 2.5)
        d = SimpleNamespace(name="kv", per="token", meaning="reading", value=9.0, low=8.0, high=9.5)
        e = SimpleNamespace(name="kv", per="token", meaning="reading", value=7.0, low=6.0, high=7.5)
        extra = [SimpleNamespace(name="knee", per="", meaning="beyond", value=1.0, low=0.0, high=2.0)] if much else []
        part = SimpleNamespace(coefficients=[c, d if much else e, *extra])
        return SimpleNamespace(decode=part, prefill=None)

    no_law.fit = fit
    found = compare(taped(script()), taped(script(), dtype="bfloat16"), across=["dtype"])
    assert [(c.name, c.apart) for c in found.laws] == [("constant", False), ("kv", True), ("knee", None)]
    assert found.laws[2].b is None and found.laws_missing is None


def test_law_that_cannot_be_fitted_is_left_out_with_its_reason() -> None:
    found = compare(taped(script()), taped(script()))
    assert found.laws == () and found.laws_missing == "A: no law: one context"


# the gate, and the document


@pytest.mark.parametrize(
    ("change", "low", "failed"),
    [(0.06, 0.03, True), (0.06, 0.02, False), (0.045, 0.04, False), (0.2, 0.1, True), (-0.2, -0.3, False)],
)
def test_gate_fails_where_slower_is_certain_and_the_estimate_lies_above(
    change: float, low: float, failed: bool
) -> None:
    assert fails(Verdict(SLOWER, 0.03, 0.99, change, low, 0.9, 10), 0.05) is failed


def test_gate_passes_what_was_not_measured() -> None:
    assert not fails(None, 0.05)
    assert not fails(Verdict(UNCLEAR, 0.03, 0.99, None, None, None, 0), 0.05)


def test_document_is_plain() -> None:
    found = compare(taped(script()), taped(script(text="abcXefghijklmnopqrstuvwxyz")))
    plain = json.loads(json.dumps(found.as_dict()))
    assert plain["sentence"] == found.sentence
    assert plain["alignments"][0]["n_alike"] == 1
