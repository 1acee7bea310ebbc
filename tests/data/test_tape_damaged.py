"""Files that are no tapes, and tapes that were altered: each is refused or found out by name."""

from __future__ import annotations

import contextlib
import random
import sqlite3
import struct
from pathlib import Path

import pytest
from tapes import (
    SETTING,
    added,
    alter,
    control_of,
    explained,
    explained_together,
    lensed,
    looked,
    read_by,
    said_by,
    write_run,
    write_tape,
)

from tokentape.data import SCHEMA_VERSION, TapeWriter, open_tape, verify
from tokentape.data.annex import add_explanations, add_readings
from tokentape.errors import DamagedTape, NewerTape, NotATape, TapeError, UsageError

FLIPS = 300
CUTS = 100


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """The bytes of a finished tape of a few pages, packs and every table among them."""
    path = write_tape(tmp_path_factory.mktemp("sound") / "cat.tape", n_runs=3, n_steps=12, ruled=True)
    add_explanations(path, [explained(), explained_together()])
    add_readings(path, [looked(), lensed(), added()])
    return path.read_bytes()


def decoded(path):
    """Everything that a tape says."""
    with open_tape(path) as tape:
        said = [tape.state, dict(tape.notes), tape.setting, list(tape.runs), dict(tape.pieces)]
        for trace in tape:
            said.append(
                (trace.run, trace.row, trace.n_prompt, trace.finish_reason, trace.prompt_text, trace.token_bytes)
            )
            said.append(None if trace.prompt_ids is None else trace.prompt_ids.tolist())
            for columns in (trace.tokens, trace.overshoot, trace.steps):
                said.append({name: column.tolist() for name, column in columns.items()})
            said.append((trace.candidates.ids.tolist(), trace.candidates.logprob.tolist()))
            said.append(control_of(trace))
        for series in ("step", "token"):
            said.append({name: column.tolist() for name, column in tape.columns(series).items()})
        said.append(tape.candidates.ids.tolist())
        said.append([said_by(explanation) for explanation in tape.explanations])
        said.append([read_by(reading) for reading in tape.readings])
        return said


def rows_say(path):
    """Every value of every table, as plain SQLite gives it."""
    connection = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)
    try:
        tables = [
            row[0] for row in connection.execute("select name from sqlite_master where type = 'table' order by 1")
        ]
        return {table: connection.execute(f"select * from {table}").fetchall() for table in tables}
    finally:
        connection.close()


def outcome(path, truth, rows):
    """``refused`` or ``found``; ``the same`` only where every value is as it was."""
    try:
        problems = verify(path)
    except (NotATape, NewerTape):
        return "refused"
    if problems:
        with contextlib.suppress(TapeError):  # reading it may fail too, but only in our own words
            decoded(path)
        return "found"
    assert decoded(path) == truth, "it says something else, and verify() found nothing"
    assert rows_say(path) == rows, "a row is altered, and verify() found nothing"
    return "the same"


@pytest.mark.slow
def test_flipped_bits(sound, tmp_path):
    path = tmp_path / "cat.tape"
    path.write_bytes(sound)
    truth, rows = decoded(path), rows_say(path)
    chance = random.Random(20)
    seen = {"refused": 0, "found": 0, "the same": 0}
    # Half anywhere, half where something is written: a page's free space is most of a small tape.
    written = [i for i, byte in enumerate(sound) if byte]
    for flip in range(FLIPS):
        place = chance.choice(written) if flip % 2 else chance.randrange(len(sound))
        altered = bytearray(sound)
        altered[place] ^= 1 << chance.randrange(8)
        path.write_bytes(altered)
        try:
            seen[outcome(path, truth, rows)] += 1
        except AssertionError as error:
            raise AssertionError(f"byte {place} (page {place // 4096 + 1}, {place % 4096}): {error}") from error
    assert seen["found"] > FLIPS / 3, seen


def test_every_bit_of_the_header(sound, tmp_path):
    path = tmp_path / "cat.tape"
    path.write_bytes(sound)
    truth, rows = decoded(path), rows_say(path)
    for place in range(100):
        altered = bytearray(sound)
        altered[place] ^= 1 << place % 8
        path.write_bytes(altered)
        try:
            outcome(path, truth, rows)
        except AssertionError as error:
            raise AssertionError(f"byte {place}: {error}") from error


@pytest.mark.slow
def test_truncated(sound, tmp_path):
    path = tmp_path / "cat.tape"
    path.write_bytes(sound)
    truth, rows = decoded(path), rows_say(path)
    chance = random.Random(21)
    for length in [
        0,
        1,
        15,
        16,
        99,
        100,
        4095,
        4096,
        len(sound) - 1,
        *(chance.randrange(len(sound)) for _ in range(CUTS)),
    ]:
        path.write_bytes(sound[:length])
        assert outcome(path, truth, rows) != "the same", length
        with pytest.raises((NotATape, DamagedTape)):
            decoded(path)


@pytest.mark.parametrize(
    "change",
    [
        "update token set logprob = logprob - 1e-15 where trace = 1 and position = 5",
        "update token set text = 'A' where trace = 0 and position = 8",
        "update token set raw = null, text = 'x' where trace = 0 and position = 3",
        "update token set rank = null where trace = 0 and position = 4",
        "update token set candidates = '[]' where trace = 0 and position = 3",
        "update token set candidates = '[[250000,-0.100000001]]' where trace = 0 and position = 5",
        "update token set forced = 1 - forced where trace = 2 and position = 3",
        "delete from token where trace = 2 and position = 8",
        "update step set end_ns = end_ns + 1 where run = 1 and \"index\" = 2",
        "update step set rss_bytes = null where run = 1",
        "delete from step where run = 0 and \"index\" = 5",
        "update trace set prompt_text = 'another' where number = 1",
        "update trace set finish_reason = 'stop' where number = 0",
        "update trace set prompt_ids = '[0,1,3]' where number = 0",
        "update run set options = '{}' where number = 0",
        "update run set packed = 0 where number = 1",
        "update piece set bytes = x'00' where id = 3",
        "update setting set value = '\"other\"' where name = 'model'",
        "update setting set value = '\"elsewhere\"' where name = 'hostname'",
        "update tape set value = '1' where key = 'origin_unix_ns'",
        "update packed set records = zeroblob(length(records)) where series = 'step' and owner = 1",
        "update packed set sha256 = zeroblob(32) where owner = 1",
        "update packed set n = n - 1",
        "delete from packed where series = 'token' and owner = 1",
        "insert into packed select series, owner, 1, n, 0, 0, 0, sha256, records, candidates, bytes from packed where owner = 1",
        "delete from manifest where name = 'piece'",
        "delete from manifest",
        "delete from tape where key = 'fingerprint'",
        "drop table piece",
        "drop index trace_of_run",
        "alter table token add column extra",
    ],
)  # fmt: skip
def test_altered_rows_are_found(tmp_path, change):
    path = write_tape(tmp_path / "cat.tape", n_runs=2)
    alter(path, change)
    assert verify(path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("update token set logprob = 0.5 where position = 4", "log-probability above 0"),
        ("update token set entropy = -1.0 where position = 4", "entropy below 0"),
        ("update token set rank = 0 where position = 4", "rank below 1"),
        ("update token set step = 77 where position = 8", "not among the run's 6"),
        ("update token set step = 0 where position = 7", "points at an earlier step|n_out"),
        ("update token set position = 99 where position = 8", "without a gap"),
        ("update token set overshoot = 1 where position = 4", "its end came before"),
        ("update token set raw = cast('a' as blob), text = null where position = 7", "text among its raw bytes"),
        ('update step set n_out = 1 where "index" = 2', "n_out 1, but 2 tokens"),
        ('update step set end_ns = 0 where "index" = 2', "ends before it starts"),
        ('update step set start_ns = 0 where "index" = 2', "starts before the step before it"),
        ('update step set "index" = 77 where "index" = 5', "has another index"),
        ("update trace set n_prompt = 4", "prompt ids, but n_prompt is 4"),
        ("update trace set run = 9", "points to a run that is not there"),
    ],
)
def test_rows_that_contradict_one_another(tmp_path, change, said):
    """Also where no hash protects them, as in a tape that was never finished."""
    import re

    writer = TapeWriter.create(tmp_path / "cat.tape", SETTING)
    write_run(writer, end=False)
    writer.database.rows(change)
    with open_tape(tmp_path / "cat.tape") as tape:
        problems = " / ".join(map(str, tape.verify()))
    assert re.search(said, problems), problems
    writer.close("partial").close()


def test_text_whose_type_was_flipped_to_bytes(sound, tmp_path):
    """One bit of a row's header makes text a blob of the same bytes; SQLite's own check says nothing of it."""
    found = 0
    path = tmp_path / "cat.tape"
    place = sound.find(b"<b>'\"[[")  # in a row, not in a pack: the candidates follow
    for before in range(place - 40, place):
        altered = bytearray(sound)
        altered[before] ^= 1
        path.write_bytes(altered)
        found += any("bytes for text" in problem.what for problem in verify(path))
    assert found


def test_verify_of_a_sound_tape_with_tables_of_others(tmp_path):
    path = write_tape(tmp_path / "cat.tape")
    connection = sqlite3.connect(path)
    connection.execute("create table evaluation (trace, values_)")
    connection.execute("create view busy as select * from step")
    connection.commit()
    connection.close()
    assert verify(path) == []


# other files


def other_sqlite(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("create table token (a)")
    connection.commit()
    connection.close()


OTHERS = {
    "empty": lambda path: path.write_bytes(b""),
    "png": lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(5000)),
    "text": lambda path: path.write_text("hello\n" * 1000),
    "short": lambda path: path.write_bytes(b"SQLite format 3\0"),
    "sqlite": other_sqlite,
    "folder": lambda path: path.mkdir(),
    "device": lambda path: path.symlink_to("/dev/null"),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_what_is_no_tape(tmp_path, kind):
    path = tmp_path / "cat.tape"
    OTHERS[kind](path)
    for look in (open_tape, verify):
        with pytest.raises(NotATape, match=r"cat\.tape is ") as caught:
            look(path)
        assert caught.value.exit_code == 6 and caught.value.why and caught.value.fix
    assert [entry.name for entry in tmp_path.iterdir()] == ["cat.tape"]


def test_a_newer_tape(tmp_path):
    path = write_tape(tmp_path / "cat.tape")
    with sqlite3.connect(path) as connection:
        connection.execute(f"pragma user_version = {SCHEMA_VERSION + 1}")
    connection.close()
    for look in (open_tape, verify):
        with pytest.raises(
            NewerTape, match=f"schema version is {SCHEMA_VERSION + 1}, this tokentape knows {SCHEMA_VERSION}"
        ):
            look(path)


def test_no_such_file(tmp_path):
    write_tape(tmp_path / "cat.tape", n_runs=1)
    write_tape(tmp_path / "dog.tape", n_runs=1)
    with pytest.raises(UsageError, match=r"no file .*cta.tape[\s\S]*did you mean .*cat.tape") as caught:
        open_tape(tmp_path / "cta.tape")
    assert caught.value.exit_code == 2
    with pytest.raises(UsageError, match="no file"):
        open_tape(tmp_path / "no" / "cat.tape")
    with pytest.raises(UsageError, match="no file"):
        open_tape("a\0b")


def test_a_value_of_absurd_length_is_refused(sound, tmp_path):
    """A damaged length must not ask for the machine's memory."""
    path = tmp_path / "cat.tape"
    path.write_bytes(sound)
    with sqlite3.connect(path) as connection:
        connection.execute("update packed set bytes = zeroblob(300000000) where series = 'token' and owner = 0")
    connection.close()
    with open_tape(path) as tape, pytest.raises(DamagedTape):
        tape.traces[0].text  # noqa: B018


def test_page_count_beyond_the_file(sound, tmp_path):
    path = tmp_path / "cat.tape"
    altered = bytearray(sound)
    altered[28:32] = struct.pack(">I", len(sound) // 4096 + 1)
    path.write_bytes(altered)
    with pytest.raises(DamagedTape):
        open_tape(path)


def test_a_tape_replaced_while_it_was_watched(tmp_path):
    path = tmp_path / "cat.tape"
    writer = TapeWriter.create(path, SETTING)
    write_run(writer)
    watching = open_tape(path)
    writer.close().close()
    write_tape(path.with_name("new.tape")).replace(path)
    with pytest.raises(TapeError, match="another file by now"):
        watching.refresh()
