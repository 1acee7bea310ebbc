"""Files made to do harm: SQLite takes their schema and their journal in good faith, and so must not be asked."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import struct
import sys
import zlib

import numpy as np
import pytest
from tapes import SETTING, explained, lensed, write_run, write_tape

from tokentape.data import SCHEMA_VERSION, TapeWriter, open_tape
from tokentape.data.annex import add_explanations, add_readings
from tokentape.data.blocks import _COLUMNS, _decoded
from tokentape.data.columns import candidates_of
from tokentape.data.doubt import in_doubt
from tokentape.data.packing import CANDIDATE
from tokentape.data.reading_rows import MOST_LISTS
from tokentape.errors import DamagedTape, UsageError

ENDLESS = "with recursive c (x) as (select 1 union all select x + 1 from c)"
AWAY = "alter table piece rename to away; "
OTHERS = "pragma writable_schema = on; "

SCHEMAS = {
    "a view without end": f"{AWAY}create view piece as {ENDLESS} select x id, 'a' token, x'61' bytes, 0 special from c",
    "a view that never has a row": f"{AWAY}create view piece as {ENDLESS} select x id, 'a' token, x bytes, 0 special from c "
    "where x < 0",
    "a column that is 200 MB": f"{AWAY}create table piece (id integer primary key, token text, special integer, "
    "bytes blob as (zeroblob(200000000))); insert into piece (id, token, special) select id, token, special from away",
    "a trigger": f"create trigger more after insert on explanation begin insert into piece {ENDLESS} "
    "select x, 'a', x'', 0 from c; end",
    # the name of the entry is that of a table, its definition that of a view
    "a view under another name": f"{AWAY}create view other as {ENDLESS} select x id, 'a' token, x'61' bytes, 0 special from c; "
    "create table dummy (id integer); "
    f"{OTHERS} update sqlite_master set sql = replace(sql, 'VIEW other', 'VIEW piece') where name = 'other'; "
    "update sqlite_master set name = 'piece' where name = 'dummy'",
}  # fmt: skip


def alter(path, script):
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript(script)


@pytest.mark.parametrize("what", SCHEMAS)
def test_a_tape_whose_tables_compute_is_refused(tmp_path, what):
    path = write_tape(tmp_path / "cat.tape", n_runs=1)
    alter(path, SCHEMAS[what])
    with pytest.raises(DamagedTape), open_tape(path) as tape:
        dict(tape.pieces)


def test_tables_and_views_of_ones_own_are_left_alone(tmp_path):
    path = write_tape(tmp_path / "cat.tape", n_runs=1)
    alter(
        path, "create table mine (a, b as (a + 1)); create view ours as select * from mine; create index i on mine (a)"
    )
    with open_tape(path) as tape:
        assert tape.traces[0].tokens.n_rows and dict(tape.pieces) is not None


def journal_that_names(tape, victim):
    """A hot journal of a tape that changes nothing, and belongs to a transaction over several files with ``victim`` as its list."""
    page = struct.unpack(">H", tape.read_bytes()[16:18])[0]
    magic, name = bytes.fromhex("d9d505f920a163d7"), os.fsencode(victim)
    head = magic + struct.pack(">IIIII", 0, 1, tape.stat().st_size // page, 512, page)
    total = sum(struct.unpack(f"{len(name)}b", name)) & 0xFFFFFFFF
    end = struct.pack(">I", 0x40000000 // page + 1) + name + struct.pack(">II", len(name), total) + magic
    tape.with_name(f"{tape.name}-journal").write_bytes(head.ljust(512, b"\0") + end)


@pytest.fixture
def trap(tmp_path):
    """A tape beside which a journal lies that has a file deleted, and that file."""
    path, victim = write_tape(tmp_path / "cat.tape", n_runs=1), tmp_path / "precious"
    victim.write_text("precious")
    journal_that_names(path, victim)
    return path, victim


def test_the_trap_is_one(trap):
    path, victim = trap
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("select * from tape").fetchall()
    assert not victim.exists()


def test_a_journal_has_no_file_deleted(trap):
    path, victim = trap
    with pytest.raises(DamagedTape, match=r"cat\.tape-journal"):
        open_tape(path)
    with pytest.raises(DamagedTape):
        add_explanations(path, [])
    assert victim.exists()


def test_a_tape_with_such_a_journal_is_written_over(trap):
    path, victim = trap
    writer = TapeWriter.create(path, SETTING, overwrite=True)
    write_run(writer)
    writer.close().close()
    assert victim.exists() and not path.with_name("cat.tape-journal").exists()
    with open_tape(path) as tape:
        assert tape.state == "complete"


@pytest.mark.skipif(sys.platform == "win32", reason="there are no named pipes")
@pytest.mark.parametrize("suffix", ["-wal", "-journal"])
def test_a_pipe_beside_a_tape_is_not_waited_for(tmp_path, suffix):
    path = write_tape(tmp_path / "cat.tape", n_runs=1)
    os.mkfifo(tmp_path / f"cat.tape{suffix}")
    with pytest.raises(DamagedTape, match="no ordinary file"):
        open_tape(path)


# -- values ------------------------------------------------------------------------------------------------------------

WRONG = [
    "update run set start_ns = 'x'",
    "update run set start_ns = 9e999",
    "update run set seed = x'00'",
    "update run set options = '[1]'",
    "update run set options = '{\"a\": NaN}'",
    "update trace set finish_reason = 'bored'",
    "update trace set n_prompt = 'x'",
    "update trace set prompt_ids = '{}'",
    "update trace set prompt_text = x'00'",
    "update piece set bytes = 'text'",
    "update explanation set method = x'00'",
    "update tape set value = '1e999' where key = 'clock'",
    "update setting set value = 'Infinity' where name = 'dtype'",
    "update decision set shown = x'00'",
    "update rule set description = '[]'",
]


@pytest.mark.parametrize("change", WRONG)
def test_a_value_of_another_kind_is_damage(tmp_path, change):
    path = write_tape(tmp_path / "cat.tape", n_runs=1, ruled=True)
    add_explanations(path, [explained()])
    alter(path, f"pragma ignore_check_constraints = on; {change}")
    with pytest.raises(DamagedTape), open_tape(path) as tape:
        for trace in tape:
            assert (trace.prompt_ids, trace.tokens, trace.decisions, trace.run.rules) is not None
        dict(tape.pieces), list(tape.explanations)


def test_a_block_does_not_ask_for_memory_that_its_bytes_do_not_have():
    step = b"".join(b"\1" + struct.pack(f"<{code}", 1) for _, code in _COLUMNS["step"])
    assert len(_decoded("step", struct.pack("<I", 1) + step, SCHEMA_VERSION)) == 1
    for n in (2, 20_000, 2**32 - 1):
        with pytest.raises(ValueError, match=f"{n} steps in"):
            _decoded("step", struct.pack("<I", n) + step[:15], SCHEMA_VERSION)


def test_the_candidates_of_one_token_do_not_lengthen_the_rows_of_all():
    flat = np.zeros(40_000, CANDIDATE)
    counts = np.zeros(40_000, np.uint32)
    counts[0] = len(flat)
    with pytest.raises(ValueError, match="40000 candidates"):
        candidates_of(counts, flat)
    assert candidates_of(counts[:1], flat).ids.shape == (1, 40_000)


def test_a_reading_is_no_heap_of_lists(tmp_path):
    path = write_tape(tmp_path / "cat.tape", n_runs=1)
    add_readings(path, [lensed()])
    body = zlib.compress(b"[" + b"[]," * MOST_LISTS + b"[]]", 1)
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("update reading set body = ?", (body,))
    with open_tape(path) as tape, pytest.raises(DamagedTape, match="lists"):
        tape.readings[0]


def test_what_cannot_be_computed_is_blamed_on_a_tape_that_is_damaged_alone(tmp_path):
    path = write_tape(tmp_path / "cat.tape", n_runs=1)
    with open_tape(path) as tape, pytest.raises(KeyError), in_doubt(tape):
        raise KeyError("ours")
    alter(path, "update trace set prompt_text = 'another'")
    with open_tape(path) as tape:
        with pytest.raises(DamagedTape, match="is damaged"), in_doubt(tape):
            raise KeyError("its")
        with pytest.raises(UsageError), in_doubt(tape):
            raise UsageError("said already", why="", fix="")
