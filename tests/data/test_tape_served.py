"""Tapes of what a server answered: exchanges and readings come back as they were, and what is wrong with them is found."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import zlib
from dataclasses import fields, replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tapes import CHANNELLED, EXCHANGE, SCRAPES, SETTING, alter, killed_tape, write_run, write_served_run, write_tape

from tokentape.data import TapeWriter, open_tape, verify
from tokentape.data.database import LONGEST_VALUE
from tokentape.data.exchange import FAULTS, LABELS, STAMPS, Exchange, Scrape
from tokentape.data.schema import CHANNELS, EXCHANGE_COLUMNS
from tokentape.errors import DamagedTape, TokentapeError, UsageError

text = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)
whole = st.integers(-(2**63), 2**63 - 1)
values = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(allow_nan=False, allow_infinity=False), text
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(text, inner, max_size=3)),
    max_leaves=6,
)


def perhaps(known):
    return st.one_of(st.none(), known)


OF_KIND = {"i8": perhaps(whole), "text": perhaps(text), "json": perhaps(st.dictionaries(text, values, max_size=3))}
OF_NAME = {
    "attempt": st.integers(1, 2**63 - 1),
    "label": perhaps(st.sampled_from(LABELS)),
    "stamps": perhaps(st.sampled_from(STAMPS)),
    "fault": perhaps(st.sampled_from(FAULTS)),
}
exchanges = st.builds(
    Exchange,
    **{one.name: OF_NAME.get(one.name, OF_KIND[one.dtype]) for one in EXCHANGE_COLUMNS if one.name != "run"},
)
finite = st.floats(allow_nan=False, allow_infinity=False)
scrapes = st.builds(
    lambda source, at, took, found: Scrape(source, at, at + took, found),
    text,
    st.integers(-(2**62), 2**62),
    st.integers(0, 2**60),
    st.dictionaries(text, st.one_of(finite, st.integers(-(2**70), 2**70)), max_size=4),
)


def test_an_exchange_has_the_columns_of_the_schema():
    assert [one.name for one in fields(Exchange)] == [column.name for column in EXCHANGE_COLUMNS]
    with TapeWriter.create(None, SETTING) as writer:
        table = {row[1]: row for row in writer.database.rows("pragma table_xinfo(exchange)")}
        assert list(table) == [column.name for column in EXCHANGE_COLUMNS]
        for column in EXCHANGE_COLUMNS:
            assert table[column.name][2].upper() == column.sql_type, column.name
    assert len(CHANNELS) == 3 and len(set(FAULTS)) == len(FAULTS)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(exchanges, min_size=1, max_size=3), st.lists(scrapes, max_size=3))
def test_whatever_passed_comes_back(passed, readings):
    writer = TapeWriter.create(None, SETTING)
    for one in passed:
        write_served_run(writer, exchange=one)
    writer.add_scrapes(readings)
    with writer.close() as tape:
        assert dict(tape.exchanges) == {run: replace(one, run=run) for run, one in enumerate(passed)}
        assert [trace.exchange for trace in tape.traces] == list(tape.exchanges.values())
        assert tape.scrapes == readings
        assert [repr(one.values) for one in tape.scrapes] == [
            repr(dict(one.values)) for one in readings
        ]  # 0.0, 1 and 1.0


def test_channels_and_stamps_come_back_from_blocks_rows_and_packs(tmp_path):
    path = tmp_path / "cat.tape"
    writer = TapeWriter.create(path, SETTING)
    write_run(writer, n_steps=2)
    write_served_run(writer)
    for tape in (open_tape(writer), writer.close()):
        with tape:
            trace = tape.traces[2]
            assert trace.tokens["channel"].tolist() == list(CHANNELLED)
            assert trace.steps["read_ns"].tolist() == [None, 131, 151] and trace.n_prompt is None
            assert tape.traces[0].tokens["channel"].mask.all() and tape.traces[0].steps["parsed_ns"].mask.all()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        names = connection.execute("select channel_name from token where trace = 2 order by position").fetchall()
    assert [name for (name,) in names] == ["reasoning", None, "text", "tool", "tool"] and verify(path) == []


def test_a_run_that_is_dropped_takes_what_passed_along():
    writer = TapeWriter.create(None, SETTING)
    write_served_run(writer)
    write_served_run(writer, exchange=Exchange(fault="reset"))
    writer.drop_last()
    with writer.close() as tape:
        assert dict(tape.exchanges) == {0: replace(EXCHANGE, run=0)}


def test_a_tape_that_grows_tells_of_an_exchange_once_its_run_ended():
    writer = TapeWriter.create(None, SETTING)
    begun = write_served_run(writer, end=False)
    with open_tape(writer) as tape:
        assert tape.traces[0].exchange is None and dict(tape.exchanges) == {} and tape.scrapes == []
        writer.end(begun.number, ["stop"], exchange=Exchange(label="exact"))
        writer.add_scrapes(SCRAPES[:1])
        tape.refresh()
        assert tape.traces[0].exchange == Exchange(0, label="exact") and tape.scrapes == list(SCRAPES[:1])
    writer.close().close()


def test_a_tape_whose_recorder_was_killed_has_none(tmp_path):
    with open_tape(killed_tape(tmp_path)) as tape:
        assert (dict(tape.exchanges), tape.scrapes) == ({}, [])


@pytest.mark.parametrize(
    "one",
    [
        Exchange(server={"load": float("nan")}),
        Exchange(usage={"when": object()}),
        Exchange(error="\udc80"),
        Exchange(attempt=0),
        Exchange(label="perhaps"),
        Exchange(stamps="somebody"),
        Exchange(sent_ns=1.5),
        Exchange(ended_ns=2**63),
    ],
    ids=["no-number", "no-json", "no-unicode", "attempt-0", "label", "stamps", "half-a-nanosecond", "too-late"],
)
def test_what_no_tape_can_hold_is_refused_whole(one):
    writer = TapeWriter.create(None, SETTING)
    begun = write_served_run(writer, end=False)
    with pytest.raises(TokentapeError):
        writer.end(begun.number, ["stop"], exchange=one)
    with writer.close("partial") as tape:
        assert dict(tape.exchanges) == {} and tape.traces[0].finish_reason is None and tape.verify() == []


@pytest.mark.parametrize(
    "one",
    [
        Scrape("server", 1, 2, {"load": float("nan")}),
        Scrape("server", 1, 2, {"load": float("inf")}),
        Scrape("server", 3, 2, {}),
    ],
)
def test_a_reading_that_is_none_is_refused_with_those_beside_it(one):
    writer = TapeWriter.create(None, SETTING)
    with pytest.raises((UsageError, TokentapeError)):
        writer.add_scrapes([SCRAPES[0], one])
    with writer.close() as tape:
        assert tape.scrapes == []


# what somebody changed


@pytest.fixture
def served(tmp_path):
    return Path(write_tape(tmp_path / "cat.tape", n_runs=1, served=True))


@pytest.mark.parametrize(
    "column", [column for column in EXCHANGE_COLUMNS if column.name != "run"], ids=lambda c: c.name
)
def test_verify_finds_an_exchange_that_was_altered(served, column):
    other = {"i8": "7", "json": "'{\"a\":1}'", "text": "'x'"}[column.dtype]
    other = {"label": "'exact'", "stamps": "'read'", "fault": "'reset'"}.get(column.name, other)
    alter(served, f"update exchange set {column.name} = {other}")
    assert "exchange" in {problem.where for problem in verify(served)}


@pytest.mark.parametrize(
    "change",
    ["delete from exchange", "delete from scrape where number = 2", "update scrape set ended_ns = 76 where number = 1"],
)
def test_verify_finds_what_is_gone(served, change):
    alter(served, change)
    assert {problem.where for problem in verify(served)} <= {"exchange", "scrape"} and verify(served)


@pytest.mark.parametrize(
    "change, said",
    [
        ("connected_ns = 81", "connected_ns is before connect_ns"),
        ("connected_ns = 95", "start_ns is before connected_ns"),
        ("sent_ns = 89", "sent_ns is before start_ns"),
        ("ended_ns = 89", "ended_ns is before start_ns"),
        ("first_byte_ns = 89", "answered before it was asked"),
        ("n_prompt = -1", "n_prompt counts fewer than none"),
        ("n_cached = -5", "n_cached counts fewer than none"),
        ("retry_of = 1", "repeats run 1, which is no earlier one"),
        ("retry_of = -1", "repeats run -1"),
        ("fault = 'gremlins'", "unknown fault 'gremlins'"),
    ],
)
def test_moments_and_counts_that_cannot_be(served, change, said):
    alter(served, f"update exchange set {change}")
    assert any(said in problem.what for problem in verify(served) if problem.where == "exchange 1")
    with open_tape(served) as tape:
        assert tape.traces[2].exchange is not None  # told, not refused


@pytest.mark.parametrize(
    "change",
    [
        "usage = '[1]'",
        "usage = '{'",
        "server = '{\"a\": NaN}'",
        "server = '{\"a\": 1e999}'",
        "error = x'ff'",
        "fault = 7",
        "request_id = cast(x'c3' as text)",
    ],
)
def test_a_row_that_is_no_exchange_makes_a_tape_damaged(served, change):
    with contextlib.closing(sqlite3.connect(served)) as connection, connection:
        connection.execute("pragma ignore_check_constraints = on")
        connection.execute(f"update exchange set {change}")
    if change == "fault = 7":  # a column of text makes text of it
        assert any("fault" in problem.what for problem in verify(served))
        return
    assert verify(served)
    with pytest.raises(DamagedTape), open_tape(served) as tape:
        dict(tape.exchanges)


def deflated(said):
    return zlib.compress(said)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no deflated text",
        deflated(b'{"a": 1}')[:-2],
        deflated(b'{"a": 1}') + b"more",
        deflated(b"[1]"),
        deflated(b'{"a": "1"}'),
        deflated(b'{"a": true}'),
        deflated(b'{"a": null}'),
        deflated(b'{"a": NaN}'),
        deflated(b'{"a": 1e999}'),
        deflated(b"\xff"),
        deflated(b"[" * 100_000),
    ],
)
def test_a_body_that_is_no_reading(served, body):
    with contextlib.closing(sqlite3.connect(served)) as connection, connection:
        connection.execute("update scrape set body = ? where number = 2", (body,))
    assert "scrape" in {problem.where for problem in verify(served)}
    with open_tape(served) as tape:
        assert tape.traces[2].exchange == replace(EXCHANGE, run=1)  # the rest of the tape is there
        with pytest.raises(DamagedTape):
            _ = tape.scrapes


def test_a_body_that_asks_for_the_machines_memory(served):
    """A few kilobytes that would become gigabytes are not blown up."""
    packer = zlib.compressobj(9)
    parts = [packer.compress(b" " * 2**20) for _ in range(LONGEST_VALUE // 2**20 + 2)]
    body = b"".join([*parts, packer.compress(b"{}"), packer.flush()])
    assert len(body) < LONGEST_VALUE // 500
    with contextlib.closing(sqlite3.connect(served)) as connection, connection:
        connection.execute("update scrape set body = ? where number = 2", (body,))
    with open_tape(served) as tape, pytest.raises(DamagedTape):
        _ = tape.scrapes


@pytest.mark.parametrize("table", ["exchange", "scrape"])
def test_a_table_that_computes_is_refused(served, table):
    with contextlib.closing(sqlite3.connect(served)) as connection:
        connection.executescript(f"alter table {table} rename to away; create view {table} as select * from away;")
    with pytest.raises(DamagedTape), open_tape(served) as tape:
        _ = tape.exchanges, tape.scrapes


def test_a_table_of_others_in_an_older_tape(tmp_path):
    """Somebody's own table of that name is not read, and stands in the way of a new one."""
    path = shutil.copy(Path(__file__).parent / "golden" / "v5.tape", tmp_path / "cat.tape")
    alter(path, "create table exchange (number, currency)")
    with open_tape(path) as tape:
        assert dict(tape.exchanges) == {} and tape.scrapes == [] and tape.verify() == []
    with pytest.raises(UsageError, match="exchange already exists"):
        TapeWriter.resume(path)
    assert verify(path) == []
