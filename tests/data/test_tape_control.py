"""What rules did comes back with its tokens: whole, of one moment, and found where it was altered."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tapes import (
    CAT,
    DECISIONS,
    OUTCOMES,
    RULES,
    SETTING,
    alter,
    control_of,
    effects_of,
    explained,
    explained_together,
    step,
    write_ruled_run,
    write_run,
    write_tape,
)

from tokentape.data import SCHEMA_VERSION, Run, Setting, TapeWriter, TraceHead, open_tape, verify
from tokentape.data.annex import add_explanations
from tokentape.data.blocks import Draft, DraftTokens
from tokentape.data.control import ACTIONS, Decision, Effect, Outcome, RuleHead
from tokentape.data.schema import EFFECT_COLUMNS, LAID_OUT_SINCE
from tokentape.errors import DamagedTape, UsageError

HERE = Path(__file__).parent
OWN = ("rule", "effect", "decision", "outcome")

NOTHING = ((), effects_of(0), (), ())
"""What :func:`control_of` says of a trace without rules."""


def counts(connection):
    """Rows in each of the tables."""
    return [connection.rows(f"select count(*) from {table}")[0][0] for table in OWN]


# there and back


@pytest.fixture(params=["file", "memory"])
def place(request, tmp_path):
    return tmp_path / "cat.tape" if request.param == "file" else None


def test_what_rules_did_comes_back(place):
    writer = TapeWriter.create(place, SETTING)
    plain, ruled, again = write_run(writer), write_ruled_run(writer), write_ruled_run(writer)
    growing = open_tape(writer)
    with writer.close() as tape:
        for one in (growing, tape):  # from blocks and from rows
            for begun in (ruled, again):
                first, second = (one.traces[number] for number in begun.trace_numbers)
                assert control_of(first) == (RULES, effects_of(5), DECISIONS[0], OUTCOMES[0])
                assert control_of(second) == (RULES, effects_of(4), DECISIONS[1], OUTCOMES[1])
                assert first.text == '{"🐈"}' and second.text == "[1,22"
                assert first.text.encode()[2:6] == CAT  # what the decision to redact is about
                assert first.tokens["wanted"].tolist() == [1, 2, 3, 4, 5]
                assert second.tokens["wanted"].mask.all()
                assert first.tokens["allowed"].tolist() == [100, 99, None, 97, 96]
                assert first.tokens["removed"].tolist() == [0, 0.25, 0.5, 0.75, 1]
                assert first.steps["rules_ns"].tolist() == [None, 5001, 5002, 5003, 5004]
                assert first.steps["dropped"].tolist() == [None, None, None, 3, 4]
            assert control_of(one.traces[plain.trace_numbers[0]]) == NOTHING
            assert one.runs[plain.number].rules == () and one.runs[ruled.number].rules == RULES
        assert tape.verify() == []
    assert tape.path is None or verify(tape.path) == []


def test_effects_are_columns_like_others(place):
    writer = TapeWriter.create(place, SETTING)
    write_run(writer)
    write_ruled_run(writer)
    with writer.close() as tape:
        for trace in (tape.traces[0], tape.traces[2]):
            effects = trace.effects
            assert list(effects) == [column.name for column in EFFECT_COLUMNS]
            assert [effects[c.name].dtype.str[1:] for c in EFFECT_COLUMNS] == [c.dtype for c in EFFECT_COLUMNS]
            assert trace.effects is effects
            with pytest.raises(ValueError):
                effects["removed"][:1] = 1.0
                effects["removed"].data[...] = 1.0
        removed, allowed = effects["removed"], effects["allowed"]
        assert np.isnan(removed.data[removed.mask]).all() and removed.mask.sum() == 3
        assert set(allowed.data[allowed.mask].tolist()) == {np.iinfo(np.int32).min}
        assert removed.max() == np.inf


def test_plain_sqlite_says_which_rule_removed_most(tmp_path):
    path = write_tape(tmp_path / "cat.tape", n_runs=1, ruled=True)
    connection = sqlite3.connect(path)
    rows = connection.execute(
        "select rule.name, sum(effect.removed) from effect join trace on trace.number = effect.trace"
        " join rule on rule.run = trace.run and rule.number = effect.rule"
        " where effect.removed < 9e99 group by rule.number order by 2"
    ).fetchall()
    connection.close()
    assert rows == [("temperature", 0.0), ("grammar", 4.0)]


text = st.text(st.characters(exclude_categories=("Cs",)), max_size=8)
facts = st.dictionaries(text, st.one_of(st.none(), st.integers(), text), max_size=2)
figure = st.one_of(st.none(), st.floats(min_value=0, allow_nan=False))


@st.composite
def recordings(draw):
    """Rules; for each token of two traces of four its effects and decisions, in order; outcomes."""
    rules = tuple(RuleHead(i, draw(text), draw(facts)) for i in range(draw(st.integers(1, 3))))
    numbers = st.integers(0, len(rules) - 1)
    effects, decisions = {}, {}
    for key in [(row, i) for row in range(2) for i in range(4)]:
        effects[key] = [
            Effect(
                rule,
                draw(st.one_of(st.none(), st.integers(0, 2**31 - 1))),
                draw(figure),
                draw(figure),
                draw(st.one_of(st.none(), st.integers(0, 2**63 - 1))),
            )
            for rule in sorted(draw(st.sets(numbers)))
        ]
        spans = draw(st.lists(st.lists(st.integers(0, 8), min_size=2, max_size=2).map(sorted), max_size=2))
        decisions[key] = [
            Decision(2 + key[1], draw(numbers), draw(st.sampled_from(ACTIONS)), start, stop, draw(text), draw(text))
            for start, stop in spans
        ]
    judged, why = st.one_of(st.none(), st.booleans()), st.one_of(st.none(), text)
    names = st.sampled_from(("complete", "unfinished", "cornered"))
    ends = [
        [Outcome(rule, draw(names), draw(judged), draw(why)) for rule in sorted(draw(st.sets(numbers)))] for _ in "ab"
    ]
    return rules, effects, decisions, ends


def block(traces, steps, data=b"xy"):
    """A block with one token a step for each trace."""
    draft = Draft()
    for i in steps:
        columns = (2 + i, i, 5, -0.5, 1.0, 1, None, 0, 0, None, None, None, None)
        draft.add(1, step(0, i, len(traces))[1:], DraftTokens(len(traces), traces, columns, [data] * len(traces), None))
    return draft


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(recordings(), st.integers(1, 4))
def test_whatever_was_said_of_rules_comes_back(recording, size):
    rules, effects, decisions, ends = recording
    writer = TapeWriter.create(None, Setting())
    begun = writer.begin(Run(tuple(TraceHead(row, 2, None, None) for row in range(2)), rules=rules))
    for first in range(0, 4, size):
        covered = range(first, min(first + size, 4))
        keys = [(row, i) for i in covered for row in range(2)]
        writer.append_block(
            begun.number,
            block(begun.trace_numbers, covered),
            effects=[(row, 2 + i, one) for row, i in keys for one in effects[row, i]],
            decisions=[(row, one) for row, i in keys for one in decisions[row, i]],
        )
    writer.end(begun.number, ["grammar", None], ends)
    with writer.close() as tape:
        assert tape.verify() == []
        for row, trace in enumerate(tape.traces):
            rows = [
                (2 + i, *(getattr(one, c.name) for c in EFFECT_COLUMNS[1:]))
                for i in range(4)
                for one in effects[row, i]
            ]
            said = {column.name: [values[place] for values in rows] for place, column in enumerate(EFFECT_COLUMNS)}
            decided = tuple(one for i in range(4) for one in decisions[row, i])
            assert control_of(trace) == (rules, said, decided, tuple(ends[row]))


def test_a_run_that_is_dropped_takes_it_along(place):
    writer = TapeWriter.create(place, SETTING)
    write_ruled_run(writer)
    kept = counts(writer.database)
    write_ruled_run(writer, end=False)
    assert counts(writer.database) == [n + m for n, m in zip(kept, [3, 22, 4, 0], strict=True)]
    writer.drop_last()
    assert counts(writer.database) == kept == [3, 22, 4, 3]
    write_ruled_run(writer)
    writer.drop_last()
    assert counts(writer.database) == kept
    begun = write_run(writer)  # with the numbers of the one that was dropped
    with writer.close() as tape:
        assert begun.number == 1 and control_of(tape.traces[2]) == control_of(tape.traces[3]) == NOTHING
        assert control_of(tape.traces[0])[2:] == (DECISIONS[0], OUTCOMES[0]) and tape.verify() == []


# all or none

GOOD = (0, 2, Effect(0, 5, 0.5, 0.5, 10))
DECIDED = (0, Decision(2, 0, "stop", 0, 1, "why"))


@pytest.mark.parametrize(
    ("effects", "decisions", "said"),
    [
        ([GOOD, GOOD], [], "UNIQUE"),
        ([GOOD, (0, 3, Effect(0, removed=float("nan")))], [], "position 3 of trace 0 is NaN"),
        ([GOOD, (0, 3, Effect(0, divergence=float("nan")))], [DECIDED], "is NaN"),
        ([GOOD, (0, -1, Effect(0))], [], "refused"),
        ([GOOD, (0, 3, Effect(-1))], [], "refused"),
        ([GOOD, (0, 3, Effect(2**31))], [], "refused"),
        ([GOOD, (0, 3, Effect(0, allowed=2**31))], [], "refused"),
        ([GOOD, (0, 3, Effect(0, allowed=1.5))], [], "refused"),
        ([GOOD, (0, 3, Effect(0, rule_ns=2**63))], [], "no tape can hold"),
        ([GOOD, (0, 3, Effect(0, removed="much"))], [], "refused"),
        ([GOOD], [DECIDED, (0, Decision(2, 0, "stop", 2, 1, "why"))], "refused"),
        ([GOOD], [DECIDED, (0, Decision(2, 0, "stop", -1, 1, "why"))], "refused"),
        ([], [DECIDED, (0, Decision(2, 0, "stop", 0, 1, "\ud800"))], "surrogate"),
        ([], [DECIDED, (0, Decision(2, 0, None, 0, 1, "why"))], "refused"),
    ],
)  # fmt: skip
def test_a_block_is_kept_with_all_of_it_or_not_at_all(place, effects, decisions, said):
    writer = TapeWriter.create(place, SETTING)
    begun = writer.begin(Run((TraceHead(0, 2, None, None),), rules=RULES))
    draft = block(begun.trace_numbers, range(2))
    with pytest.raises(UsageError, match=said):
        writer.append_block(begun.number, draft, [(3, "a", b"a", False)], effects, decisions)
    assert counts(writer.database)[1:] == [0, 0, 0]
    assert (
        writer.database.rows("select count(*) from block")
        == writer.database.rows("select count(*) from piece")
        == [(0,)]
    )
    writer.append_block(begun.number, draft, [(3, "a", b"a", False)], [GOOD], [DECIDED])
    writer.end(begun.number, ["guard"])
    with writer.close() as tape:
        assert tape.verify() == [] and tape.traces[0].decisions == (DECIDED[1],)
        assert tape.traces[0].effects["removed"].tolist() == [0.5] and tape.traces[0].tokens.n_rows == 2


def test_outcomes_of_another_number_of_traces_are_refused(place):
    writer = TapeWriter.create(place, SETTING)
    begun = write_ruled_run(writer, end=False)
    with pytest.raises(UsageError, match="2 traces, but 1 lists of outcomes"):
        writer.end(begun.number, ["grammar", "guard"], OUTCOMES[:1])
    with pytest.raises(UsageError, match="refused"):
        writer.end(begun.number, ["grammar", "guard"], [OUTCOMES[0] * 2, ()])
    with open_tape(writer) as tape:
        assert not tape.runs[0].finished and tape.traces[0].finish_reason is None
    writer.end(begun.number, ["grammar", "guard"], OUTCOMES)
    writer.close().close()


def test_a_description_that_json_cannot_hold(place):
    writer = TapeWriter.create(place, SETTING)
    with pytest.raises(UsageError, match="rule guidance"):
        writer.begin(Run((), rules=(RuleHead(0, "guidance", {"strength": float("nan")}),)))
    assert writer.database.rows("select count(*) from run") == [(0,)]
    writer.close().close()


# of one moment


def test_a_growing_tape_shows_one_moment_until_refreshed(place):
    writer = TapeWriter.create(place, SETTING)
    seen = {}

    def look(block):
        seen[block] = open_tape(writer)
        assert len(seen[block]) == 2  # it has looked at the tape, and read nothing of it
        if block == 0:
            assert control_of(seen[0].traces[0]) == (RULES, effects_of(2), DECISIONS[0][:1], ())

    write_ruled_run(writer, pause=look)
    assert control_of(seen[0].traces[1]) == (RULES, effects_of(2), (), ())
    assert control_of(seen[1].traces[0]) == (RULES, effects_of(4), DECISIONS[0][:2], ())
    # The last decision came later, at the position where the tokens of this moment end.
    assert control_of(seen[1].traces[1]) == (RULES, effects_of(4), (), ())
    assert control_of(seen[2].traces[0]) == (RULES, effects_of(5), DECISIONS[0], ())  # it had not ended
    seen[0].refresh()
    assert control_of(seen[0].traces[1]) == (RULES, effects_of(4), *(each[1] for each in (DECISIONS, OUTCOMES)))
    assert control_of(seen[0].traces[0]) == (RULES, effects_of(5), *(each[0] for each in (DECISIONS, OUTCOMES)))
    for tape in seen.values():
        tape.close()
    writer.close().close()


def test_a_run_that_was_begun_later_is_not_seen(place):
    writer = TapeWriter.create(place, SETTING)
    write_run(writer)
    with open_tape(writer) as tape:
        assert len(tape) == 2
        write_ruled_run(writer)
        assert len(tape) == 2 and control_of(tape.traces[1]) == NOTHING
    writer.close().close()


# killed in the middle

NURSERY = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from tapes import SETTING, write_ruled_run
from tokentape.data import TapeWriter

def grow(path, stop, report):
    writer = TapeWriter.create(path, SETTING)
    seen = 0
    def count(statement):
        nonlocal seen
        seen += 1
        if seen == stop:
            os.kill(os.getpid(), signal.SIGKILL)
    with writer.database.connection() as connection:
        connection.execute("pragma cache_size = 1")  # pages go to the disk before the commit
        connection.set_trace_callback(count)
    write_ruled_run(writer, pause=lambda block: os.write(report, b"b"))
    os.write(report, b"e")

for line in sys.stdin:
    stop, path = line.rstrip("\\n").split(" ", 1)
    reading, report = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        try:
            grow(path, int(stop), report)
        finally:
            os._exit(0)
    os.close(report)
    os.waitpid(child, 0)
    print(os.read(reading, 99).decode(), flush=True)
    os.close(reading)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the children are forked")
def test_killed_at_any_statement(tmp_path):
    """What was committed is there, with what belongs to it, and nothing else."""
    nursery = subprocess.Popen(
        [sys.executable, "-c", NURSERY, str(HERE)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    seen = set()
    try:
        for stop in range(1, 400, 2):
            path = tmp_path / f"{stop}.tape"
            nursery.stdin.write(f"{stop} {path}\n")
            nursery.stdin.flush()
            said = nursery.stdout.readline().strip()
            with open_tape(path) as tape:
                assert tape.state == "partial" and tape.verify() == []
                n_blocks = 0
                if len(tape):
                    n_blocks = -(-tape.traces[0].tokens.n_rows // 2)
                    for row, trace in enumerate(tape.traces):
                        decided = tuple(one for one in DECISIONS[row] if one.position < 3 + 2 * n_blocks)
                        ended = OUTCOMES[row] if trace.run.finished else ()
                        tokens = min(2 * n_blocks, 5 - row)
                        assert control_of(trace) == (RULES, effects_of(tokens), decided, ended)
                assert n_blocks >= said.count("b") and ("e" not in said or tape.runs[0].finished)
            seen.add((said.count("b"), n_blocks))
            path.unlink()
            if "e" in said:
                break
    finally:
        nursery.communicate()
    assert "e" in said and {(0, 0), (1, 1), (2, 2), (3, 3)} <= seen, seen


# what was altered

CHANGES = [
    ("rule", "update rule set name = 'guard' where number = 1"),
    ("rule", "update rule set description = '{}' where number = 1"),
    ("rule", "update rule set run = 0 where number = 0"),
    ("rule", "delete from rule where number = 2"),
    ("effect", "update effect set removed = removed + 1e-9 where rule = 1 and position = 7"),
    ("effect", "update effect set removed = 0.0 where removed is null"),
    ("effect", "update effect set divergence = null where position = 5 and rule = 0"),
    ("effect", "update effect set allowed = allowed + 1 where trace = 2 and position = 3 and rule = 0"),
    ("effect", "update effect set rule_ns = 901 where trace = 3 and position = 3 and rule = 0"),
    ("effect", "update effect set rule = 2 where trace = 2 and position = 3 and rule = 1"),
    ("effect", "update effect set position = 3 where trace = 2 and position = 4 and rule = 2"),
    ("effect", "delete from effect where trace = 3 and position = 6 and rule = 2"),
    ("effect", "insert into effect values (2, 3, 2, null, null, null, null)"),
    ("decision", "update decision set start = 3 where trace = 2 and number = 1"),
    ("decision", "update decision set shown = '' where trace = 2 and number = 1"),
    ("decision", "update decision set reason = 'a namE' where trace = 2 and number = 1"),
    ("decision", "update decision set action = 'redact' where trace = 3"),
    ("decision", "update decision set number = 9 where trace = 2 and number = 2"),
    ("decision", "delete from decision where trace = 3"),
    ("outcome", "update outcome set name = 'complete' where trace = 3 and rule = 1"),
    ("outcome", "update outcome set valid = 0 where trace = 2"),
    ("outcome", "update outcome set valid = null where trace = 3"),
    ("outcome", "update outcome set why = null where trace = 3 and rule = 2"),
    ("outcome", "delete from outcome where trace = 2"),
    ("outcome", "drop table outcome"),
    ("effect", "alter table effect add column extra"),
]


@pytest.mark.parametrize(("table", "change"), CHANGES)
def test_what_was_altered_is_found(tmp_path, table, change):
    path = write_tape(tmp_path / "cat.tape", n_runs=1, ruled=True)
    alter(path, change)
    problems = verify(path)
    assert any(problem.where == table or problem.what.endswith(f": {table}") for problem in problems), problems


@pytest.mark.parametrize(
    "change",
    [
        "update token set wanted = 7 where trace = 2 and position = 5",
        "update token set allowed = null where trace = 2 and position = 3",
        "update token set removed = removed + 1e-12 where trace = 2 and position = 4",
        'update step set rules_ns = rules_ns + 1 where run = 1 and "index" = 3',
        'update step set dropped = 0 where run = 1 and "index" = 0',
    ],
)
def test_altered_columns_are_found(tmp_path, change):
    path = write_tape(tmp_path / "cat.tape", n_runs=1, ruled=True)
    alter(path, change)
    assert any("pack" in problem.what for problem in verify(path))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("update effect set position = 8 where position = 7", "trace 2: the effect of rule 0 at position 8 is on a token"),
        ("update effect set position = 2 where position = 3", "trace 2: the effect of rule 0 at position 2 is on a token"),
        ("update effect set rule = 7 where rule = 1", "effect of rule 7 at position 3 is of a rule that the run does not"),
        ("delete from rule where number = 0", "effect of rule 0 at position 3 is of a rule that the run does not have"),
        ("update effect set allowed = -1 where rule = 1 and position = 4", "rule 1 at position 4 leaves fewer than no"),
        ("update effect set removed = -0.5 where position = 5", "rule 0 at position 5 leaves more than all"),
        ("update effect set divergence = -0.5 where position = 5", "rule 0 at position 5 is a divergence below 0"),
        ("update effect set rule_ns = -1 where position = 5 and rule = 1", "rule 1 at position 5 took less than no time"),
        ("update effect set trace = 9 where trace = 3", "points to a trace that is not there"),
        ("update rule set run = 9 where number = 2", "points to a run that is not there"),
        ("update rule set description = '{' where number = 2", "run 1: JSONDecodeError"),
        ("update decision set position = 9 where trace = 2 and number = 2", "trace 2: decision 2 is at position 9"),
        ("update decision set position = 2 where trace = 2 and number = 0", "trace 2: decision 0 is at position 2"),
        ("update decision set position = 8 where trace = 3", "trace 3: decision 0 is at position 8"),
        ("update decision set rule = 3 where trace = 3", "trace 3: decision 0 is of rule 3, which the run does not have"),
        ("update decision set action = 'shout' where trace = 3", "trace 3: decision 0 is an unknown action 'shout'"),
        ("update decision set stop = 9 where trace = 2 and number = 2", "decision 2 is about bytes up to 9, .* has 8"),
        ("update decision set stop = 6 where trace = 3", "decision 0 is about bytes up to 6, .* has 5"),
        ("update decision set trace = 9 where trace = 3", "points to a trace that is not there"),
        ("update outcome set name = 'perfect' where trace = 2", "trace 2: unknown outcome 'perfect'"),
        ("update outcome set rule = 5 where trace = 2", "trace 2: an outcome of rule 5, which the run does not have"),
        ("update token set allowed = -1 where trace = 2 and position = 3", "position 3 had fewer than no tokens allowed"),
        ("update token set wanted = -1 where trace = 2 and position = 4", "position 4 was wanted with an id below 0"),
        ("update token set removed = -0.5 where trace = 2 and position = 4", "position 4 has more than all of the prob"),
        ('update step set dropped = -1 where "index" = 3 and run = 1', "step 3 counts fewer than none"),
        ('update step set rules_ns = -1 where "index" = 3 and run = 1', "step 3 has rules that took less than no time"),
    ],
)  # fmt: skip
def test_what_contradicts_its_tape_is_found(tmp_path, change, said):
    """Also where no hash protects it, as in a tape that is being recorded."""
    writer = TapeWriter.create(tmp_path / "cat.tape", SETTING)
    write_run(writer)
    write_ruled_run(writer)
    writer.lay_out()
    with open_tape(tmp_path / "cat.tape") as tape:
        assert tape.verify() == []
        writer.database.rows(change)
        problems = " / ".join(map(str, tape.verify()))
    assert re.search(said, problems), problems
    writer.close("partial").close()


@pytest.mark.parametrize("value", ["null", "-1e-7", "9e999"])
def test_what_is_possible_is_no_problem(tmp_path, value):
    """Null, the rounding of float32, and a rule that left nothing."""
    writer = TapeWriter.create(tmp_path / "cat.tape", SETTING)
    write_ruled_run(writer)
    writer.database.rows(f"update effect set removed = {value}, divergence = {value}")
    with writer.close() as tape:
        assert tape.verify() == []


def test_decisions_about_text_that_was_not_kept(tmp_path):
    """Where the bytes of a token are not known, nobody can say that a decision goes past them."""
    writer = TapeWriter.create(tmp_path / "cat.tape", SETTING)
    begun = writer.begin(Run((TraceHead(0, 2, None, None),), rules=RULES))
    writer.append_block(begun.number, block(begun.trace_numbers, range(2), None), decisions=[DECIDED])
    with writer.close("partial") as tape:
        assert tape.verify() == [] and tape.traces[0].text is None


def test_decisions_do_not_reach_past_the_end_of_a_sequence(tmp_path):
    """What was computed after it had ended is none of its text."""
    writer = TapeWriter.create(tmp_path / "cat.tape", SETTING)
    write_run(writer)
    with open_tape(writer) as tape:
        trace = tape.traces[1]
        assert trace.overshoot.n_rows == 1
        writer.database.rows("insert into rule values (0, 0, 'guard', '{}')")
        writer.database.rows(f"insert into decision values (1, 0, 7, 0, 'redact', 0, {len(trace.bytes)}, 'why', '')")
        assert tape.verify() == []
        writer.database.rows("update decision set stop = stop + 1")
        assert [problem.where for problem in tape.verify()] == ["trace 1"]
    writer.close("partial").close()


# a recorder of version 3 that was killed: tests/data/golden/v3-killed.tape was made by its code, in blocks of its layout


@pytest.fixture
def killed(tmp_path):
    return Path(shutil.copy(HERE / "golden" / "v3-killed.tape", tmp_path / "cat.tape"))


TEXT = [CAT[:2], CAT[2:], b"nul\0nul", b"", "\u202e\x07猫".encode(), None]


def of_version_3(tape):
    """What the killed tape says, wherever it is read from."""
    assert [trace.token_bytes for trace in tape.traces] == [TEXT, TEXT[:5], TEXT[:4], TEXT[:4]]
    assert [trace.finish_reason for trace in tape.traces] == ["length", "stop", None, None]
    assert [run.finished for run in tape.runs] == [True, False]
    first, last = tape.traces[0], tape.traces[3]
    assert tape.traces[1].overshoot["position"].tolist() == [8]
    assert first.tokens["id"].tolist() == [0, 1, 2, 3, 4, 5] and last.prompt_text == "prompt 1: 猫"
    assert first.tokens["rules_logprob"].tolist() == [-0.25, None] * 3
    assert last.candidates.ids.tolist() == [[None, None], [None, None], [250_000, None], [3, 0]]
    assert last.candidates.logprob[3].tolist() == [-0.125, -np.inf]
    assert last.steps["rss_bytes"].tolist() == [2**40 + i for i in range(4)]
    assert last.steps["n_in"].tolist() == [7, None, None, 7] and last.steps["cpu_ns"].tolist() == [None, 1, 2, 3]
    for name in ("wanted", "allowed", "removed"):
        assert tape.columns("token")[name].mask.tolist() == [True] * 20
    for name in ("rules_ns", "dropped"):
        assert tape.columns("step")[name].mask.tolist() == [True] * 10
    assert all(control_of(trace) == NOTHING for trace in tape.traces)


def version_of(path):
    connection = sqlite3.connect(path)
    (version,), (n_blocks,) = (
        connection.execute(question).fetchone() for question in ("pragma user_version", "select count(*) from block")
    )
    connection.close()
    return version, n_blocks


def test_a_killed_tape_of_version_3_is_read_as_it_is(killed):
    before = killed.read_bytes()
    assert version_of(killed) == (3, 4)
    with open_tape(killed) as tape:
        assert tape.state == "partial" and tape.verify() == []
        of_version_3(tape)
    assert killed.read_bytes() == before


def test_a_killed_tape_of_version_3_goes_on(killed):
    watching = open_tape(killed)
    assert len(watching) == 4  # nothing of it read yet
    writer = TapeWriter.resume(killed)
    of_version_3(watching)  # what were blocks when it was opened are rows by now
    with open_tape(writer) as tape:
        of_version_3(tape)
        assert tape.verify() == []
    begun = write_ruled_run(writer)
    writer.close().close()
    assert version_of(killed) == (SCHEMA_VERSION, 0) and verify(killed) == []
    watching.refresh()
    with watching as tape:
        assert tape.state == "complete" and begun.trace_numbers == (4, 5)
        assert control_of(tape.traces[4]) == (RULES, effects_of(5), DECISIONS[0], OUTCOMES[0])
        assert [row[6] for row in tape.reader.runs.values()] == [1, 0, 1]  # packed where finished


def test_a_killed_tape_of_version_3_has_the_same_rows_when_closed(killed):
    TapeWriter.resume(killed).close("partial").close()
    assert version_of(killed) == (SCHEMA_VERSION, 0) and verify(killed) == []
    with open_tape(killed) as tape:
        assert tape.state == "partial"
        of_version_3(tape)


def test_a_killed_tape_of_version_3_is_explained(killed):
    assert add_explanations(killed, [explained(), explained_together()]) == [0, 1]
    assert version_of(killed) == (SCHEMA_VERSION, 0) and verify(killed) == []
    with open_tape(killed) as tape:
        of_version_3(tape)


def test_a_damaged_block_of_version_3_is_not_brought_up_to_date(killed):
    alter(killed, "update block set tokens = zeroblob(length(tokens)) where number = 2")
    before = killed.read_bytes()
    assert any("the checksum is another" in problem.what for problem in verify(killed))
    with pytest.raises(DamagedTape, match="the checksum is another"):
        TapeWriter.resume(killed)
    with pytest.raises(DamagedTape, match="the checksum is another"):
        add_explanations(killed, [explained()])
    assert version_of(killed) == (3, 4) and killed.read_bytes() == before


# older versions that were finished


@pytest.mark.parametrize("version", range(1, SCHEMA_VERSION))
def test_an_older_tape_that_is_open_while_it_is_resumed(tmp_path, version):
    """Packs of another layout are taken away, and made anew when it is closed; whoever has it open reads the rows."""
    path = shutil.copy(HERE / "golden" / f"v{version}.tape", tmp_path / "cat.tape")
    with open_tape(path) as tape, open_tape(path) as later:
        assert len(tape) == len(later) == 4
        truth = tape.traces[0].text, tape.columns("step")["cpu_ns"].tolist()
        last, candidates = tape.traces[2].text, tape.candidates.ids.tolist()
        writer = TapeWriter.resume(path)
        assert (later.traces[0].text, later.columns("step")["cpu_ns"].tolist()) == truth
        writer.close().close()
        assert later.traces[2].text == last and later.candidates.ids.tolist() == candidates
    assert verify(path) == []


@pytest.mark.parametrize("version", range(1, LAID_OUT_SINCE))
@pytest.mark.parametrize(
    "change",
    [
        "update token set id = 9 where trace = 0 and position = 4",
        "update step set device_bytes = 5 where run = 1",
        "update token set candidates = '[[250000,-0.100000001]]' where trace = 0 and position = 5",
        "update token set logprob = 0.5 where trace = 2 and position = 5",
    ],
)
def test_new_packs_do_not_make_an_altered_tape_look_sound(tmp_path, version, change):
    path = shutil.copy(HERE / "golden" / f"v{version}.tape", tmp_path / "cat.tape")
    alter(path, change)
    before, problems = path.read_bytes(), verify(path)
    assert problems
    with pytest.raises(DamagedTape):
        add_explanations(path, [explained(trace=1, targets=[3, 5, 7], target_ids=[0, 2, 4])])
    assert path.read_bytes() == before and verify(path) == problems


def test_tables_of_others_that_have_these_names(tmp_path):
    path = shutil.copy(HERE / "golden" / "v3.tape", tmp_path / "cat.tape")
    alter(path, "create table effect (trace, position, rule)")
    alter(path, "create table rule (run, number)")
    before = path.read_bytes()
    assert verify(path) == []
    with open_tape(path) as tape:
        assert control_of(tape.traces[1]) == NOTHING
    with pytest.raises(UsageError, match="rule already exists"):
        add_explanations(path, [explained()])
    assert path.read_bytes() == before
    with pytest.raises(UsageError, match="rule already exists"):
        TapeWriter.resume(path)
    assert verify(path) == [] and version_of(path) == (3, 0)
