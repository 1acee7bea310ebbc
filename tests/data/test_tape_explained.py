"""Explanations in a finished tape: they come back, replace one another, and disturb nothing."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tapes import Recorder, alter, explained, explained_together, killed_tape, said_by, write_run, write_tape

from tokentape.data import SCHEMA_VERSION, SERIES, Setting, TapeWriter, open_tape, verify
from tokentape.data.annex import add_explanations
from tokentape.data.database import connect
from tokentape.data.explanation import EXPLAINED, SOURCE_KINDS, Explanation, ReplayCheck, Source
from tokentape.data.relevance import put_explanation, read_explanation
from tokentape.errors import DamagedTape, NotATape, RecordingError, TapeBusy, UsageError

HERE = Path(__file__).parent
GOLDEN = HERE / "golden"


def columns_of(path, *but):
    """The stored columns of every table, without the tables ``but``."""
    connection = sqlite3.connect(path)
    names = [name for (name,) in connection.execute("select name from sqlite_master where type = 'table' order by 1")]
    tables = {
        name: [f'"{row[1]}"' for row in connection.execute(f"pragma table_xinfo({name})")]
        for name in names
        if name not in but
    }
    connection.close()
    return tables


def rows_of(path, *but, columns=None):
    """Every row of every table, packs included, without the tables ``but``; of ``columns`` alone where they are given."""
    columns = columns_of(path, *but) if columns is None else columns
    connection = sqlite3.connect(path)
    rows = {
        name: connection.execute(f"select {', '.join(some)} from {name}").fetchall() for name, some in columns.items()
    }
    connection.close()
    return rows


OWN = ("explanation", "relevance", "manifest", "migration")


# there and back

text = st.text(st.characters(exclude_categories=("Cs",)), max_size=8)
finite = st.floats(allow_nan=False, allow_infinity=False)
plain = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), finite, text),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(text, inner, max_size=3)),
    max_leaves=5,
)
facts = st.dictionaries(text, plain, max_size=3)


@st.composite
def explanations(draw):
    targets = sorted(draw(st.sets(st.integers(1, 40), min_size=1, max_size=5)))
    edges = sorted(draw(st.sets(st.integers(0, 45), min_size=2, max_size=12)))
    pairs = list(itertools.pairwise(edges))
    pairs = pairs if draw(st.booleans()) else pairs[::2]  # side by side, or with gaps between
    sources = tuple(Source(a, b, draw(text), draw(st.sampled_from(SOURCE_KINDS))) for a, b in pairs)
    together, kind = draw(st.booleans()), draw(st.sampled_from(EXPLAINED))
    last = targets[-1:] if together else targets
    shape = (len(last), len(sources))
    cells = draw(st.lists(finite, min_size=shape[0] * shape[1], max_size=shape[0] * shape[1]))
    unseen = [[source.start >= target or draw(st.integers(0, 9)) == 0 for source in sources] for target in last]
    rows = st.lists(finite, min_size=len(last), max_size=len(last))
    ids = st.lists(st.integers(0, 2**63 - 1), min_size=len(targets), max_size=len(targets))
    figure = draw(st.one_of(st.none(), st.floats(0, 1e3)))
    passed = figure is not None and draw(st.booleans())
    return Explanation(
        trace=draw(st.integers(0, 2**63 - 1)),
        method=draw(text),
        options=draw(facts),
        kind=kind,
        together=together,
        targets=targets,
        target_ids=draw(ids),
        foil_ids=draw(ids) if kind == "foil" else None,
        sources=sources,
        relevance=np.ma.MaskedArray(np.array(cells).reshape(shape), mask=unseen),
        value=draw(rows),
        ledger={"tokens": draw(rows), **draw(st.dictionaries(text, rows, max_size=2))} if draw(st.booleans()) else {},
        check=ReplayCheck(
            figure,
            figure,
            0 if figure is None else draw(st.integers(1, 99)),
            1e-4,
            passed,
            draw(st.one_of(st.none(), text)),
        ),
        passes=draw(st.dictionaries(st.sampled_from(("forward", "backward")), st.integers(0, 2**40), max_size=2)),
        cpu_ns=draw(st.one_of(st.none(), st.integers(0, 2**62))),
        made=draw(facts),
        notes=draw(facts),
    )


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(explanations())
@example(explained(value=[-0.0, 0.1, 2.5]))
def test_an_explanation_comes_back_to_the_bit(one):
    writer = TapeWriter.create(None, Setting())
    with writer.database.transaction() as connection:
        number = put_explanation(connection, one)
        found = read_explanation(connection, number)
        assert number == found.number == 0 and said_by(found) == said_by(one)
        assert put_explanation(connection, found) == 0  # what was read is the same question
    assert writer.database.rows("select count(*) from relevance") == [(len(one.value),)]
    writer.close().close()


def test_added_to_a_finished_tape(tmp_path):
    path = write_tape(tmp_path / "cat.tape")
    before = rows_of(path, *OWN)
    assert add_explanations(path, [explained(), explained_together()]) == [0, 1]
    assert add_explanations(path, iter([explained(trace=2)])) == [2]
    assert add_explanations(path, []) == []
    assert rows_of(path, *OWN) == before and verify(path) == []
    with open_tape(path) as tape:
        assert tape.state == "complete" and len(tape.explanations) == 3
        assert [one.number for one in tape.explanations] == [0, 1, 2]
        assert said_by(tape.explanations[0]) == said_by(explained())
        assert said_by(tape.explanations[-2]) == said_by(explained_together())
        assert tape.explanations[2] is tape.explanations[2] and tape.explanations[2].trace == 2
        assert repr(tape.explanations[1]).startswith("Explanation(1: trace 1, cp_lrp, foil of 5 targets together")
        with pytest.raises(IndexError, match="no explanation 3; the tape has 3"):
            tape.explanations[3]
    assert [entry.name for entry in tmp_path.iterdir()] == ["cat.tape"]


def test_a_tape_without_any(tmp_path):
    with open_tape(write_tape(tmp_path / "cat.tape", n_runs=1)) as tape:
        assert len(tape.explanations) == 0 and list(tape.explanations) == []
        add_explanations(tape.path, [explained()])  # while it is open here
        assert len(tape.explanations) == 0
        tape.refresh()
        assert len(tape.explanations) == 1 and tape.traces[0].text.startswith("🐈")


def test_partial_stays_partial(tmp_path):
    path = write_tape(tmp_path / "cat.tape", state="partial", end=False)
    before = rows_of(path, *OWN)
    add_explanations(path, [explained()])
    assert rows_of(path, *OWN) == before and verify(path) == []
    with open_tape(path) as tape:
        assert tape.state == "partial" and len(tape.explanations) == 1


def test_the_same_question_replaces(tmp_path):
    path = write_tape(tmp_path / "cat.tape")
    add_explanations(path, [explained(), explained_together()])
    newer = explained(value=[1.0, 2.0, 3.0], passes={"forward": 9}, made={"tokentape": "9"}, cpu_ns=None)
    assert add_explanations(path, [newer]) == [0] and verify(path) == []
    with open_tape(path) as tape:
        assert [said_by(one) for one in tape.explanations] == [said_by(newer), said_by(explained_together())]
    sources = explained().sources
    others = [
        explained(method="rollout"),
        explained(options={"operator": "mean"}),
        explained(kind="logprob"),
        explained(kind="foil", foil_ids=[1, 1, 1]),
        explained(kind="foil", foil_ids=[1, 1, 2]),
        explained(targets=[3, 5, 7], target_ids=[0, 2, 4]),
        explained(sources=(*sources[:3], Source(6, 8, "other", "part"))),
        explained(sources=(*sources[:3], Source(6, 7, "", "part"))),
        explained(trace=2),
        explained(together=True, relevance=np.ones((1, 4)), value=[1.0]),
    ]
    assert add_explanations(path, others) == list(range(2, 12)) and verify(path) == []
    assert add_explanations(path, others) == list(range(2, 12)) and verify(path) == []


def test_rows_shrink_with_their_explanation(tmp_path):
    """Rows of an older answer are gone, not left below the newer."""
    path = write_tape(tmp_path / "cat.tape")
    add_explanations(path, [explained()])
    assert len(rows_of(path)["relevance"]) == 3
    add_explanations(path, [explained(ledger={"tokens": [1.0, 2.0, 3.0]})])
    assert len(rows_of(path)["relevance"]) == 3
    with open_tape(path) as tape:
        assert tape.explanations[0].ledger["tokens"].tolist() == [1.0, 2.0, 3.0]


def test_plain_sqlite_reads_the_cells(tmp_path):
    path = write_tape(tmp_path / "cat.tape")
    add_explanations(path, [explained(), explained_together()])
    connection = sqlite3.connect(path)
    cells = connection.execute(
        "select start, stop, label, relevance from relevance_cell where explanation = 0 and target = 5 order by start"
    ).fetchall()
    # SQLite's own JSON ends a text at NUL
    assert cells == [(0, 1, "猫", 0.1), (1, 3, "<b> '", 0.0), (4, 6, "\u202e\n", 5e-324), (6, 8, "", None)]
    assert connection.execute(
        "select trace, method, row, target, source, label from relevance_cell where explanation = 1 and relevance > 1.9"
    ).fetchall() == [(1, "cp_lrp", 0, None, 6, "t6")]
    assert connection.execute(
        "select json_extract(ledger, '$.biases'), value from relevance where explanation = 1"
    ).fetchall() == [(0.25, 4.0)]
    assert connection.execute("select count(*) from relevance_cell").fetchone() == (3 * 4 + 7,)
    connection.close()


def test_a_later_run_keeps_the_explanations_and_a_dropped_one_takes_its_own_along(tmp_path):
    path = write_tape(tmp_path / "cat.tape")
    add_explanations(path, [explained(trace=2), explained(), explained_together()])
    writer = TapeWriter.resume(path)
    write_run(writer)
    writer.close().close()
    assert verify(path) == []
    writer = TapeWriter.resume(path)
    writer.drop_last()
    writer.drop_last()
    writer.close().close()
    assert verify(path) == []
    with open_tape(path) as tape:
        assert [one.number for one in tape.explanations] == [1, 2] and len(tape.traces) == 2
        assert said_by(tape.explanations[0]) == said_by(explained())
    assert add_explanations(path, [explained(method="rollout")]) == [3]


def test_saved_copies_have_them(tmp_path):
    path = write_tape(tmp_path / "cat.tape")
    add_explanations(path, [explained()])
    with open_tape(path) as tape, open_tape(tape.save(tmp_path / "copy.tape")) as copy:
        assert said_by(copy.explanations[0]) == said_by(explained()) and copy.verify() == []


def test_read_without_torch(tmp_path):
    path = write_tape(tmp_path / "cat.tape")
    add_explanations(path, [explained()])
    code = """
import sys
from tokentape.data import open_tape
import tokentape.data.annex
print(open_tape(sys.argv[1]).explanations[0].top(2, 1)[0][1])
print(*sorted({"torch", "transformers", "scipy"} & {name.partition(".")[0] for name in sys.modules}))
"""
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["1e+300"], done


# tapes of older versions


@pytest.mark.parametrize("version", range(1, SCHEMA_VERSION))
def test_an_older_tape_is_brought_up_to_date_by_adding(tmp_path, version):
    path = Path(shutil.copy(GOLDEN / f"v{version}.tape", tmp_path / "cat.tape"))
    columns = columns_of(path, *OWN, "packed")
    before = rows_of(path, columns=columns)
    packed = rows_of(path)["packed"]
    had = [said_by(one) for one in ((explained(), explained_together()) if version >= 3 else ())]
    with open_tape(path) as tape:
        last, n_tokens = tape.traces[2].text, tape.columns("token").n_rows
    with open_tape(path) as tape:
        assert [said_by(one) for one in tape.explanations] == had and tape.verify() == []
        assert tape.traces[0].text  # read before
        assert add_explanations(path, [explained(), explained_together()]) == [0, 1]
        assert tape.traces[2].text == last and tape.columns("token").n_rows == n_tokens  # read after
        tape.refresh()
        assert len(tape.explanations) == 2  # though it was opened as the older
    assert rows_of(path, columns=columns) == before
    assert [row[:4] for row in rows_of(path)["packed"]] == [row[:4] for row in packed]  # made anew, with more columns
    assert verify(path) == []
    assert [row[:2] for row in rows_of(path)["migration"]] == [
        (1, "first_tables"),
        (2, "blocks"),
        (3, "explanations"),
        (4, "control"),
        (5, "readings"),
        (6, "served"),
    ]
    with open_tape(path) as tape:
        assert tape.state == "complete" and said_by(tape.explanations[1]) == said_by(explained_together())
        for series, some in SERIES.items():
            assert all(tape.columns(series)[column.name].mask.all() for column in some if column.since > version)
        assert tape.traces[1].effects.n_rows == 0 and tape.traces[1].decisions == tape.traces[1].outcomes == ()


@pytest.mark.parametrize("version", range(1, SCHEMA_VERSION))
def test_packs_of_the_versions_before_are_read(tmp_path, version):
    """An older tape opens no slower, and what was altered in it is found."""
    path = shutil.copy(GOLDEN / f"v{version}.tape", tmp_path / "cat.tape")
    connection = sqlite3.connect(path)
    connection.execute("update packed set records_crc32 = 0 where series = 'token' and owner = 0")
    connection.commit()
    connection.close()
    with open_tape(path) as tape, pytest.raises(DamagedTape, match="part 0"):
        tape.traces[0].text  # noqa: B018
    assert any("packed" in problem.what or "when the run" in problem.what for problem in verify(path))


def test_tables_of_others_in_an_older_tape(tmp_path):
    path = shutil.copy(GOLDEN / "v2.tape", tmp_path / "cat.tape")
    connection = sqlite3.connect(path)
    connection.execute("create table explanation (number, trace)")
    connection.execute("insert into explanation values (0, 77)")
    connection.commit()
    connection.close()
    before = path.read_bytes()
    assert verify(path) == []
    with open_tape(path) as tape:
        assert len(tape.explanations) == 0
    with pytest.raises(UsageError, match="explanation already exists"):
        add_explanations(path, [explained()])
    assert path.read_bytes() == before
    with pytest.raises(UsageError, match="explanation already exists"):
        TapeWriter.resume(path)
    assert verify(path) == [] and rows_of(path)["explanation"] == [(0, 77)]


# what stands in the way


@pytest.mark.parametrize(
    ("one", "said"),
    [
        (lambda: explained(trace=4), "of trace 4 .*\n.*has 4 traces"),
        (lambda: explained(trace=-1), "of trace -1"),
        (lambda: explained(targets=[3, 5, 9]), "position 9 of trace 0, which has 9 tokens"),
        (lambda: explained(trace=1), "position 8 of trace 1, which has 8 tokens"),  # past its end lies overshoot
        (lambda: explained(target_ids=[0, 2, 6]), "position 8 is token 6, and trace 0 has token 5"),
        (lambda: explained(targets=[2, 5, 8], relevance=explained().relevance), "position 2 is token 0, and .* token 2"),
        (
            lambda: explained(sources=(*explained().sources[:3], Source(6, 10, "", "part"))),
            "position 9 of trace 0",
        ),
    ],
)  # fmt: skip
def test_an_explanation_of_something_else_is_refused(tmp_path, one, said):
    path = write_tape(tmp_path / "cat.tape")
    before = path.read_bytes()
    with pytest.raises(UsageError, match=said):
        add_explanations(path, [explained(), one()])
    assert path.read_bytes() == before


def test_text_that_no_file_can_hold(tmp_path):
    path = write_tape(tmp_path / "cat.tape")
    before = path.read_bytes()
    odd = explained(sources=(*explained().sources[:3], Source(6, 8, "\ud800", "part")))
    with pytest.raises(UsageError, match="sources of an explanation"):
        add_explanations(path, [explained(), odd])
    assert verify(path) == []
    with open_tape(path) as tape:
        assert len(tape.explanations) == 0
    assert path.read_bytes() == before


def test_files_that_are_no_tapes(tmp_path):
    with pytest.raises(UsageError, match="no file"):
        add_explanations(tmp_path / "cat.tape", [explained()])
    (tmp_path / "cat.tape").write_text("hello" * 100)
    with pytest.raises(NotATape):
        add_explanations(tmp_path / "cat.tape", [explained()])


def test_a_read_only_tape(read_only):
    folder = read_only(lambda folder: write_tape(folder / "cat.tape"))
    before = (folder / "cat.tape").read_bytes()
    with pytest.raises(UsageError, match=rf"cannot be added to\nwhy: {re.escape(str(folder))}.* is read-only"):
        add_explanations(folder / "cat.tape", [explained()])
    assert (folder / "cat.tape").read_bytes() == before


def test_a_tape_that_is_being_recorded(tmp_path):
    path = tmp_path / "cat.tape"
    with Recorder(path, "finish") as other, pytest.raises(TapeBusy, match=f"process {other.pid}"):
        add_explanations(path, [explained()])
    add_explanations(path, [explained()])
    assert verify(path) == []


def test_a_tape_whose_recorder_was_killed(tmp_path):
    path = killed_tape(tmp_path)
    with open_tape(path) as tape:
        tokens = tape.columns("token")
    assert add_explanations(path, [explained()]) == [0]
    assert [entry.name for entry in tmp_path.iterdir()] == ["cat.tape"]
    with open_tape(path) as tape:
        assert tape.state == "partial" and tape.verify() == [] and len(tape.explanations) == 1
        assert all(tape.columns("token")[name].tolist() == column.tolist() for name, column in tokens.items())


def test_a_tape_that_another_program_holds(tmp_path, monkeypatch):
    path = write_tape(tmp_path / "cat.tape")
    before = path.read_bytes()
    monkeypatch.setattr("tokentape.data.database.BUSY_SECONDS", 0.05)
    stranger = sqlite3.connect(path)
    stranger.execute("begin immediate")
    with pytest.raises(TapeBusy, match="another program"):
        add_explanations(path, [explained()])
    stranger.rollback()
    stranger.execute("begin")
    stranger.execute("select * from token").fetchone()  # a reader keeps it from being committed
    with pytest.raises(TapeBusy, match="another program"):
        add_explanations(path, [explained()])
    stranger.close()
    assert path.read_bytes() == before and verify(path) == []
    assert add_explanations(path, [explained()]) == [0]


def test_a_full_disk(tmp_path, monkeypatch):
    path = write_tape(tmp_path / "cat.tape")
    before = path.read_bytes()

    def small(place, *, writing):
        connection = connect(place, writing=writing)
        (pages,) = connection.execute("pragma page_count").fetchone()
        connection.execute(f"pragma max_page_count = {pages + 1}").fetchall()
        return connection

    monkeypatch.setattr("tokentape.data.annex.connect", small)
    big = [explained(options={"n": n, "x": "x" * 5000}) for n in range(3)]
    with pytest.raises(RecordingError, match="disk is full"):
        add_explanations(path, big)
    assert path.read_bytes() == before and verify(path) == []


# what was altered

CHANGES = [
    "update relevance set relevance = replace(relevance, '0.5', '0.6') where explanation = 0 and row = 0",
    "update relevance set relevance = '[0.5,-0.25,null,0]' where explanation = 0 and row = 0",
    "update relevance set relevance = '[NaN,-0.25,null,null]' where explanation = 0 and row = 0",
    "update relevance set relevance = '[0.5,-0.25,null]' where explanation = 0 and row = 0",
    "update relevance set relevance = '[0.5,' where explanation = 0 and row = 0",
    "update relevance set relevance = cast(relevance as blob)",
    "update relevance set value = value + 1e-15 where explanation = 1",
    "update relevance set ledger = '{}' where explanation = 1",
    "update relevance set row = 7 where explanation = 0 and row = 1",
    "update relevance set explanation = 9 where explanation = 1",
    "delete from relevance where explanation = 0 and row = 2",
    "update explanation set trace = 2 where number = 0",
    "update explanation set trace = 9 where number = 0",
    "update explanation set method = 'rollout' where number = 0",
    "update explanation set kind = 'logprob' where number = 0",
    "update explanation set kind = 'loglog' where number = 0",
    "update explanation set together = 1 where number = 0",
    "update explanation set sources = replace(sources, '猫', '描') where number = 0",
    "update explanation set targets = '[3,5,7]' where number = 0",
    "update explanation set foil_ids = null where number = 1",
    "update explanation set replay_check = replace(replay_check, 'true', 'false')",
    "update explanation set made = replace(made, '0.1.0', '0.1.1')",
    "update explanation set cpu_ns = null",
    "update explanation set number = 5 where number = 1",
    "delete from explanation where number = 1",
    "drop table explanation",
    "drop view relevance_cell",
    "alter table relevance add column extra",
]


@pytest.mark.parametrize("change", CHANGES)
def test_an_altered_explanation_is_found(tmp_path, change):
    path = write_tape(tmp_path / "cat.tape")
    add_explanations(path, [explained(), explained_together()])
    alter(path, change)
    assert verify(path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("update explanation set trace = 9 where number = 0", "points to a trace that is not there"),
        ("update explanation set trace = 1 where number = 0", "explanation 0: .*position 8 of trace 1.* 8 tokens"),
        ("update explanation set targets = '[3,5,80]' where number = 0", "explanation 0: .*position 80"),
        ("update explanation set target_ids = '[0,2,6]'", "explanation 0: .*token 6, and trace 0 has token 5"),
        ("update token set id = 7 where trace = 0 and position = 5", "token 2, and trace 0 has token 7"),
        ("update relevance set relevance = '[Infinity,0,null,null]' where row = 0", "Infinity is no number"),
        ("update relevance set relevance = '[1e999,0,null,null]' where explanation = 0 and row = 0", "not finite"),
        ("delete from relevance where row = 1", "rows of explanation 0 are missing"),
        ("delete from relevance where row = 2", r"shape \[2, 4\], not \[3, 4\]"),
        ("delete from relevance where explanation = 0", "explanation 0"),
        ("update relevance set explanation = 9 where explanation = 1", "points to a explanation that is not there"),
    ],
)
def test_explanations_that_contradict_their_tape(tmp_path, change, said):
    """Also where no hash protects them, as in a tape that went on being recorded."""
    path = write_tape(tmp_path / "cat.tape")
    add_explanations(path, [explained(), explained_together()])
    writer = TapeWriter.resume(path)
    writer.database.rows(change)
    with open_tape(path) as tape:
        problems = " / ".join(map(str, tape.verify()))
    assert re.search(said, problems), problems
    writer.close("partial").close()


def test_a_damaged_explanation_is_refused_in_our_own_words(tmp_path):
    path = write_tape(tmp_path / "cat.tape")
    add_explanations(path, [explained(), explained_together()])
    connection = sqlite3.connect(path)
    connection.execute("update relevance set relevance = '[0.5,' where explanation = 0 and row = 0")
    connection.execute("update explanation set targets = '[9,8]' where number = 1")
    connection.commit()
    connection.close()
    with open_tape(path) as tape:
        assert len(tape.explanations) == 2 and tape.traces[0].text
        for number in (0, 1):
            with pytest.raises(DamagedTape):
                tape.explanations[number]


@pytest.mark.parametrize(
    "change",
    [
        "update trace set prompt_text = 'another' where number = 1",
        "update token set id = 9 where trace = 0 and position = 4",
        "update packed set records = zeroblob(length(records)) where series = 'token' and owner = 0",
        "delete from manifest where name = 'piece'",
        "update explanation set method = 'other'",
    ],
)
def test_new_hashes_do_not_make_an_altered_tape_look_sound(tmp_path, change):
    path = write_tape(tmp_path / "cat.tape")
    add_explanations(path, [explained_together()])
    alter(path, change)
    problems = verify(path)
    assert problems
    try:
        add_explanations(path, [explained()])
    except DamagedTape as error:
        assert error.why and error.fix
    assert verify(path) == problems


# killed in the middle

NURSERY = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
import tokentape.data.annex as annex
from tapes import explained
from tokentape.data.database import connect

many = [explained(options={"n": n, "x": "x" * 4000}) for n in range(8)]

def add(path, stop):
    def counting(place, *, writing):
        connection = connect(place, writing=writing)
        if writing:
            connection.execute("pragma cache_size = 1")  # pages go to the disk before the commit
            seen = 0
            def step(statement):
                nonlocal seen
                seen += 1
                if seen == stop:
                    os.kill(os.getpid(), signal.SIGKILL)
            connection.set_trace_callback(step)
        return connection
    annex.connect = counting
    annex.add_explanations(path, many)

for line in sys.stdin:
    stop, path = line.rstrip("\\n").split(" ", 1)
    child = os.fork()
    if child == 0:
        try:
            add(path, int(stop))
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    print("killed" if os.WIFSIGNALED(status) else "lived", flush=True)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the children are forked")
@pytest.mark.parametrize("origin", ["now", "v2"])
def test_killed_at_any_statement(tmp_path, origin):
    """The tape is as it was, or has all of what was added; a journal that was left behind is rolled back by reading."""
    first = tmp_path / "first.tape"
    if origin == "now":
        add_explanations(write_tape(first), [explained_together()])
    else:
        shutil.copy(GOLDEN / f"{origin}.tape", first)
    n_before = 1 if origin == "now" else 0
    columns = columns_of(first, *OWN, *(() if origin == "now" else ("packed",)))  # packs of an older one are made anew
    before = rows_of(first, columns=columns)
    nursery = subprocess.Popen(
        [sys.executable, "-c", NURSERY, str(HERE)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    journals, lived = 0, False
    try:
        for stop in range(1, 1000, 5):
            path = tmp_path / f"{stop}.tape"
            shutil.copy(first, path)
            nursery.stdin.write(f"{stop} {path}\n")
            nursery.stdin.flush()
            lived = nursery.stdout.readline() == "lived\n"
            journals += path.with_name(path.name + "-journal").exists()
            with open_tape(path) as tape:
                assert tape.state == "complete" and tape.verify() == []
                assert len(tape.explanations) in ((n_before + 8,) if lived else (n_before, n_before + 8))
            assert rows_of(path, columns=columns) == before
            if lived:
                break
            assert add_explanations(path, [explained()]) and verify(path) == []
            path.unlink()
    finally:
        nursery.communicate()
    assert lived and journals > 3, (stop, journals)
