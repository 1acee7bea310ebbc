"""Tapes of every schema version that was ever out open for ever."""

from __future__ import annotations

import shutil
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest
from tapes import (
    CAT,
    CHANNELLED,
    DECISIONS,
    EXCHANGE,
    OUTCOMES,
    RULES,
    SCRAPES,
    added,
    control_of,
    effects_of,
    explained,
    explained_together,
    lensed,
    looked,
    read_by,
    said_by,
    write_tape,
)

from tokentape.data import (
    SCHEMA_VERSION,
    SERIES,
    TOKEN_COLUMNS,
    Column,
    Setting,
    TapeWriter,
    open_tape,
    packing,
    verify,
)
from tokentape.data.migrations import MIGRATIONS
from tokentape.data.schema import CONTROLLED_SINCE, EXPLAINED_SINCE, READ_SINCE, SERVED_SINCE

GOLDEN = Path(__file__).parent / "golden"
VERSIONS = sorted(path for path in GOLDEN.glob("v*.tape") if path.stem[1:].isdigit())


def version_of(path):
    return int(path.stem[1:])


def test_there_is_one_for_each_version():
    assert [path.stem for path in VERSIONS] == [f"v{number}" for number in range(1, SCHEMA_VERSION + 1)]


@pytest.mark.parametrize("path", VERSIONS, ids=lambda path: path.stem)
def test_golden_tape(path, tmp_path):
    copied = shutil.copy(path, tmp_path / "cat.tape")
    assert path.stat().st_size < 130_000
    assert verify(copied) == []
    with open_tape(copied) as tape:
        served = version_of(path) >= SERVED_SINCE
        assert (tape.state, len(tape), len(tape.runs)) == ("complete", 4 + served, 2 + served)
        assert tape.setting.facts["model"] == "demo" and tape.setting.fingerprint == "f013c1bef4f254c6"
        trace = tape.traces[1]
        assert trace.prompt_text == "prompt 1: 猫\0\x1b[0m\r\n"
        assert trace.prompt_ids.tolist() == [0, 1, 2]
        assert trace.run.options == {"max_new_tokens": 6, "temperature": 0.5}
        assert trace.token_bytes == [CAT[:2], CAT[2:], b"nul\0nul", b"", "\u202e\x07猫".encode()]
        assert trace.finish_reason == "stop" and trace.overshoot["position"].tolist() == [8]
        assert trace.tokens["rules_logprob"].tolist() == [-0.25, None, -0.25, None, -0.25]
        assert trace.steps["cpu_ns"].tolist() == [None, 1, 2, 3, 4, 5]
        assert trace.steps["kind"].tolist() == [0, 1, 1, 1, 1, 1]
        assert trace.candidates.ids.tolist()[3] == [3, 2**31 - 1, 0]
        assert tape.pieces[3].token == "Ġcat"
        expected = [explained(), explained_together()] if version_of(path) >= EXPLAINED_SINCE else []
        assert [said_by(found) for found in tape.explanations] == [said_by(one) for one in expected]
        known = [looked(), lensed(), added()] if version_of(path) >= READ_SINCE else []
        assert [read_by(found) for found in tape.readings] == [read_by(one) for one in known]
        ruled = RULES if version_of(path) >= CONTROLLED_SINCE else ()
        assert [run.rules for run in tape.runs][:2] == [(), ruled]
        assert "channel" in trace.tokens and trace.tokens["channel"].mask.all() and trace.steps["read_ns"].mask.all()
        if not served:
            assert (tape.exchanges, tape.scrapes, trace.exchange) == ({}, [], None)
    assert shutil.copy(path, tmp_path / "again.tape").read_bytes() == copied.read_bytes(), "reading changed the file"


@pytest.mark.parametrize(
    "path", [path for path in VERSIONS if version_of(path) >= CONTROLLED_SINCE], ids=lambda path: path.stem
)
def test_golden_tape_says_what_rules_did(path, tmp_path):
    with open_tape(shutil.copy(path, tmp_path / "cat.tape")) as tape:
        first, second = tape.traces[2:4]
        assert control_of(first) == (RULES, effects_of(5), DECISIONS[0], OUTCOMES[0])
        assert control_of(second) == (RULES, effects_of(4), DECISIONS[1], OUTCOMES[1])
        assert first.effects["removed"].tolist()[:9] == [0, 0, 0, None, None, 0, 1, 0, float("inf")]
        assert first.text == '{"🐈"}' and (first.finish_reason, second.finish_reason) == ("grammar", "guard")
        assert first.tokens["wanted"].tolist() == [1, 2, 3, 4, 5] and second.tokens["wanted"].mask.all()
        assert first.tokens["allowed"].tolist() == [100, 99, None, 97, 96]
        assert second.tokens["removed"].tolist() == [0, 0.25, 0.5, 0.75]
        assert first.steps["rules_ns"].tolist() == [None, 5001, 5002, 5003, 5004]
        assert first.steps["dropped"].tolist() == [None, None, None, 3, 4]
        assert control_of(tape.traces[0]) == ((), effects_of(0), (), ())


@pytest.mark.parametrize(
    "path", [path for path in VERSIONS if version_of(path) >= SERVED_SINCE], ids=lambda path: path.stem
)
def test_golden_tape_says_what_passed_with_a_server(path, tmp_path):
    with open_tape(shutil.copy(path, tmp_path / "cat.tape")) as tape:
        trace = tape.traces[4]
        assert (trace.run.number, trace.n_prompt, trace.finish_reason, trace.text) == (2, None, "tool_calls", " A🐈{")
        assert trace.exchange == replace(EXCHANGE, run=2) and tape.exchanges == {2: trace.exchange}
        assert tape.traces[0].exchange is None and tuple(tape.scrapes) == SCRAPES
        assert [str(one.values) for one in tape.scrapes] == [str(dict(one.values)) for one in SCRAPES]  # -0.0, 5e-324
        assert trace.tokens["channel"].tolist() == list(CHANNELLED)
        assert trace.tokens["position"].tolist() == [0, 1, 2, 3, 4] and trace.tokens["step"].tolist() == [1, 1, 2, 2, 2]
        assert trace.steps["kind"].tolist() == [2, 2, 2] and trace.steps["n_out"].tolist() == [0, 2, 3]
        assert trace.steps["read_ns"].tolist() == [None, 131, 151] and trace.steps["end_ns"].tolist() == [110, 130, 150]
        assert trace.steps["parsed_ns"].tolist() == [None, 134, 154]
        assert tape.verify() == []


def definitions(path):
    connection = sqlite3.connect(path)
    rows = connection.execute("select name, sql from sqlite_master where sql is not null order by name").fetchall()
    connection.close()
    return dict(rows)


def test_the_first_tables_are_never_edited(tmp_path):
    """A change of the tables is a new step in MIGRATIONS, not an edit of an old one."""
    now = definitions(write_tape(tmp_path / "now.tape"))
    for name, sql in definitions(VERSIONS[-1]).items():
        assert now[name] == sql


@pytest.mark.parametrize("path", VERSIONS, ids=lambda path: path.stem)
def test_a_tape_that_was_brought_up_to_date_has_the_tables_of_a_new_one(path, tmp_path):
    copied = shutil.copy(path, tmp_path / "cat.tape")
    TapeWriter.resume(copied).close().close()
    assert definitions(copied) == definitions(write_tape(tmp_path / "now.tape")) and verify(copied) == []


def test_tables_hold_the_columns_of_the_schema(tmp_path):
    assert len(MIGRATIONS) == SCHEMA_VERSION
    writer = TapeWriter.create(None, Setting())
    for series, columns in SERIES.items():
        table = {row[1]: row for row in writer.database.rows(f"pragma table_xinfo({series})")}
        for column in columns:
            _, _, kind, not_null, *_ = table[column.name]
            assert kind.upper() == column.sql_type and bool(not_null) is not column.nullable, column.name
            if column.choices:
                words = writer.database.rows(
                    f"select sql from sqlite_master where name = '{series}' and instr(sql, '{column.name}_name')"
                )
                assert all(f"'{choice}'" in words[0][0] for choice in column.choices)
    writer.close().close()


def test_an_older_tape_is_read_as_it_is_and_migrated_when_written(tmp_path, monkeypatch):
    """As the next schema version will do it: a new column, null in every row that was there before."""
    path = write_tape(tmp_path / "old.tape")
    more = Column("temperature", "f8", "", "sampling temperature of the token", since=SCHEMA_VERSION + 1)
    columns = (*TOKEN_COLUMNS, more)
    monkeypatch.setitem(SERIES, "token", columns)
    monkeypatch.setitem(packing.RECORD, "token", packing._record(columns, ("n_bytes", "<u4"), ("n_candidates", "<u4")))
    monkeypatch.setattr(packing, "NO_TEXT", 1 << len(columns))
    monkeypatch.setattr(packing, "NO_CANDIDATES", 2 << len(columns))
    monkeypatch.setattr("tokentape.data.tape.SCHEMA_VERSION", SCHEMA_VERSION + 1)
    for module in ("packing", "annex", "migrations"):
        monkeypatch.setattr(f"tokentape.data.{module}.LAID_OUT_SINCE", SCHEMA_VERSION + 1)
    steps = (*MIGRATIONS, ("temperatures", "alter table token add column temperature real;"))
    monkeypatch.setattr("tokentape.data.migrations.MIGRATIONS", steps)

    before = path.read_bytes()
    with open_tape(path) as tape:
        assert tape.traces[0].tokens["temperature"].mask.all() and tape.traces[0].text.endswith("<b>'\"")
        assert tape.candidates.ids.shape == (24, 3) and tape.verify() == []
    assert path.read_bytes() == before

    with TapeWriter.resume(path) as writer:
        assert writer.database.rows("pragma user_version") == [(SCHEMA_VERSION + 1,)]
        assert [row[0] for row in writer.database.rows("select name from migration")] == [
            *(name for name, _ in steps),
        ]
    with open_tape(path) as tape:
        assert all(row[6] for row in tape.reader.runs.values())  # packed anew
        assert tape.traces[3].tokens["temperature"].mask.all() and tape.traces[3].finish_reason == "stop"
        assert tape.verify() == []
