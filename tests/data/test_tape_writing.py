"""What stands in the way of writing: taken names, folders, full disks, two recorders, rows that do not fit."""

from __future__ import annotations

import gc
import os
import re
import shutil
import sqlite3
import subprocess
import tempfile
from pathlib import Path

import pytest
from tapes import SETTING, Recorder, killed_tape, step, token, write_run, write_tape

from tokentape.data import Run, Setting, TapeWriter, TraceHead, open_tape, verify
from tokentape.data.blocks import Draft, DraftTokens
from tokentape.errors import NotATape, RecordingError, TapeBusy, TapeExists, TokentapeError, UsageError


def one_trace(writer):
    begun = writer.begin(Run((TraceHead(0, 0, (), ""),)))
    return begun.number, begun.trace_numbers[0]


def the_same(path, before):
    return path.read_bytes() == before


# the path


def test_an_existing_tape_is_not_overwritten_unasked(tmp_path):
    path = write_tape(tmp_path / "cat.tape")
    before = path.read_bytes()
    with pytest.raises(TapeExists, match=r"already exists[\s\S]*--overwrite"):
        TapeWriter.create(path, SETTING)
    assert the_same(path, before)


def test_overwriting(tmp_path):
    path = write_tape(tmp_path / "cat.tape", n_runs=3)
    old = open_tape(path)
    assert len(old) == 6
    with TapeWriter.create(path, Setting({"model": "new"}), overwrite=True) as writer:
        write_run(writer)
    assert old.traces[5].text  # whoever has the old tape open keeps it
    with open_tape(path) as tape:
        assert tape.setting.facts == {"model": "new"} and len(tape) == 2 and tape.verify() == []
    assert [entry.name for entry in tmp_path.iterdir()] == ["cat.tape"]


def test_the_old_tape_survives_when_the_new_one_cannot_begin(tmp_path):
    path = write_tape(tmp_path / "cat.tape")
    before = path.read_bytes()
    with pytest.raises(UsageError, match="the fact 'x'"):
        TapeWriter.create(path, Setting({"x": object()}), overwrite=True)
    with pytest.raises(UsageError, match="the note 'y'"):
        TapeWriter.create(path, SETTING, notes={"y": float("nan")}, overwrite=True)
    with pytest.raises(UsageError, match="surrogates"):
        TapeWriter.create(path, Setting({"\ud800": 1}), overwrite=True)
    assert the_same(path, before)
    assert [entry.name for entry in tmp_path.iterdir()] == ["cat.tape"]


def test_overwriting_a_killed_tape_does_not_mix_the_two(tmp_path):
    """A stale -wal beside a new file would be replayed into it."""
    path = killed_tape(tmp_path)
    assert path.with_name("cat.tape-wal").stat().st_size > 0
    with TapeWriter.create(path, SETTING, overwrite=True) as writer:
        write_run(writer, n_steps=2)
    with open_tape(path) as tape:
        assert [trace.tokens.n_rows for trace in tape] == [2, 1] and tape.verify() == []
    assert [entry.name for entry in tmp_path.iterdir()] == ["cat.tape"]


def test_a_stale_log_of_a_deleted_tape_is_not_read(tmp_path):
    path = killed_tape(tmp_path)
    path.unlink()
    with TapeWriter.create(path, SETTING) as writer:
        write_run(writer, n_steps=2)
    assert verify(path) == []


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n" + bytes(100), b"hello"])
def test_only_tapes_are_overwritten(tmp_path, content):
    path = tmp_path / "photo.png"
    path.write_bytes(content)
    with pytest.raises(TapeExists):
        TapeWriter.create(path, SETTING)
    if content:
        with pytest.raises(TapeExists, match="is no tape"):
            TapeWriter.create(path, SETTING, overwrite=True)
        assert path.read_bytes() == content
    else:
        TapeWriter.create(path, SETTING, overwrite=True).close().close()


def test_paths_that_can_be_no_tape(tmp_path):
    with pytest.raises(UsageError, match=r"does not exist[\s\S]*mkdir -p"):
        TapeWriter.create(tmp_path / "no" / "cat.tape", SETTING)
    with pytest.raises(UsageError, match="is a folder"):
        TapeWriter.create(tmp_path, SETTING)
    with pytest.raises(UsageError, match="no ordinary file"):
        TapeWriter.create("/dev/null", SETTING, overwrite=True)
    with pytest.raises(UsageError, match="empty"):
        TapeWriter.create("", SETTING)
    with pytest.raises(UsageError):
        TapeWriter.create("a\0b", SETTING)
    with pytest.raises(UsageError, match="too long"):
        TapeWriter.create(tmp_path / ("x" * 300), SETTING)
    (tmp_path / "file").touch()
    with pytest.raises(UsageError):
        TapeWriter.create(tmp_path / "file" / "cat.tape", SETTING)
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_folder_not_writable(read_only):
    folder = read_only(lambda folder: write_tape(folder / "old.tape"))
    with pytest.raises(UsageError, match=f"cannot write into {re.escape(str(folder))}"):
        TapeWriter.create(folder / "cat.tape", SETTING)
    with pytest.raises(UsageError, match="cannot write into"):
        TapeWriter.create(folder / "old.tape", SETTING, overwrite=True)
    with open_tape(folder / "old.tape") as tape:  # reading needs no right to write
        assert tape.state == "complete" and tape.verify() == [] and tape.traces[0].text


def test_killed_tape_in_a_folder_not_writable(read_only):
    folder = read_only(killed_tape)
    with open_tape(folder / "cat.tape") as tape:
        assert tape.state == "partial" and tape.verify() == []
        assert tape.traces[0].tokens.n_rows == 6
    (folder / "cat.tape-wal").stat()


def test_what_was_copied_aside_to_be_read_is_gone_with_its_reader(read_only, tmp_path_factory, monkeypatch):
    """Without its index of the log, which no restart of the machine outlasts, SQLite has to write beside the tape."""

    def fill(folder):
        killed_tape(folder)
        (folder / "cat.tape-shm").unlink()

    folder, elsewhere = read_only(fill), tmp_path_factory.mktemp("elsewhere")
    monkeypatch.setattr("tempfile.tempdir", str(elsewhere))
    with open_tape(folder / "cat.tape") as tape:
        assert tape.state == "partial" and tape.traces[0].tokens.n_rows == 6
        assert len(list(elsewhere.iterdir())) == 1
    del tape
    gc.collect()
    assert list(elsewhere.iterdir()) == []


# two recorders


def test_a_live_recorder_is_not_disturbed(tmp_path):
    path = tmp_path / "cat.tape"
    with Recorder(path, "finish") as other:
        for overwrite in (False, True):
            with pytest.raises(TapeBusy, match=f"process {other.pid}"):
                TapeWriter.create(path, SETTING, overwrite=overwrite)
        source = write_tape(tmp_path / "source.tape")
        with open_tape(source) as tape, pytest.raises(TapeBusy):
            tape.save(path, overwrite=True)
        with open_tape(path) as tape:
            assert tape.state == "recording"
            assert tape.traces[0].tokens.n_rows == 6
    with open_tape(path) as tape:
        assert tape.state == "complete" and tape.verify() == []
    assert {entry.name for entry in tmp_path.iterdir()} == {"cat.tape", "source.tape"}


def test_a_second_recorder_in_this_process(tmp_path):
    with TapeWriter.create(tmp_path / "cat.tape", SETTING) as writer:
        with pytest.raises(TapeBusy, match=f"process {os.getpid()}"):
            TapeWriter.create(tmp_path / "cat.tape", SETTING, overwrite=True)
        write_run(writer)
    assert verify(tmp_path / "cat.tape") == []


def test_a_dead_recorder_leaves_a_partial_tape(tmp_path):
    path = killed_tape(tmp_path)
    with open_tape(path) as tape:
        assert tape.state == "partial" and not tape.runs[0].finished and tape.verify() == []
        assert tape.traces[0].text.startswith("🐈nul\0nul")
    TapeWriter.create(path, SETTING, overwrite=True).close().close()


def test_a_reader_of_another_program_that_stays_does_not_lose_rows(tmp_path):
    path = tmp_path / "cat.tape"
    writer = TapeWriter.create(path, SETTING)
    stranger = sqlite3.connect(path)
    stranger.execute("begin")
    stranger.execute("select count(*) from token").fetchone()
    writer.database.rows("pragma busy_timeout = 100")
    write_run(writer)
    with writer.close() as tape:
        assert tape.state == "complete" and len(tape) == 2 and tape.verify() == []
    stranger.close()
    assert verify(path) == []


def test_resuming(tmp_path):
    path = killed_tape(tmp_path)
    with TapeWriter.resume(path) as writer:
        assert open_tape(path).state == "recording"
        assert write_run(writer).trace_numbers == (2, 3)
    with open_tape(path) as tape:
        assert tape.state == "complete" and len(tape) == 4 and tape.verify() == []
        assert [run.finished for run in tape.runs] == [False, True]
    with Recorder(tmp_path / "other.tape", "finish") as other, pytest.raises(TapeBusy, match=f"process {other.pid}"):
        TapeWriter.resume(tmp_path / "other.tape")
    with pytest.raises(UsageError, match="no file"):
        TapeWriter.resume(tmp_path / "none.tape")
    (tmp_path / "text.tape").write_text("no tape")
    with pytest.raises(NotATape):
        TapeWriter.resume(tmp_path / "text.tape")


# rows


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (token(0, 0, 0, logprob=float("nan")), "logprob of the token at position 0 of trace 0 is NaN"),
        (token(0, 0, 0, entropy=float("nan")), "entropy.*NaN"),
        (token(0, 0, 0, rank=2**31), "refused"),
        (token(0, 0, 0, id=2**63), "refused"),
        (token(0, 0, 0, id="seven"), "refused"),
        (token(0, 0, 0, forced=2), "refused"),
        (token(0, 0, 0, text="\ud800"), "surrogate"),
        (token(0, 0, 0, text="a", raw=b"a"), "refused"),
        (token(0, 0, 0, text=b"bytes"), "refused"),
        (token(0, None, 0), "refused"),
        ((*token(0, 0, 0)[:-1], "[[1,nan]]"), "candidates"),
        ((*token(0, 0, 0)[:-1], "[[1,-0.5]"), "candidates"),
        ((*token(0, 0, 0)[:-1], "[1,-0.5]"), "candidates"),
        (token(0, 0, 0)[:-3], "a token has 14 values, not 17"),
    ],
)
@pytest.mark.parametrize("where", ["file", "memory"])
def test_rows_that_do_not_fit_are_refused_whole(tmp_path, row, said, where):
    with TapeWriter.create(tmp_path / "cat.tape" if where == "file" else None, SETTING) as writer:
        run, trace = one_trace(writer)
        with pytest.raises(UsageError, match=said):
            writer.append([step(run, 0, 2)], [token(trace, 1, 0), row])
        writer.append([step(run, 0, 1)], [token(trace, 0, 0)])
        with pytest.raises(UsageError):
            writer.append([step(run, 0, 1)], [])  # the same step twice
        writer.end(run, ["stop"])
    with open_tape(writer) as tape:
        assert tape.columns("token").n_rows == 1 and tape.verify() == []


def test_wrong_number_of_finish_reasons(tmp_path):
    with TapeWriter.create(None, SETTING) as writer:
        run, _ = one_trace(writer)
        with pytest.raises(UsageError, match="1 traces, but 2 reasons"):
            writer.end(run, ["stop", "stop"])


def test_options_that_json_cannot_hold(tmp_path):
    with TapeWriter.create(None, SETTING) as writer, pytest.raises(UsageError, match="options of the run"):
        writer.begin(Run((), {"temperature": float("inf")}))


def test_closing_twice_and_unknown_states(tmp_path):
    writer = TapeWriter.create(tmp_path / "cat.tape", SETTING)
    with pytest.raises(UsageError, match="complete, partial"):
        writer.close("finished")
    assert writer.close("partial").state == "partial"
    assert writer.close().state == "partial"
    with pytest.raises(UsageError, match="closed"):
        writer.append([], [])


@pytest.mark.parametrize("finished", [True, False])
def test_dropping_the_last_run(tmp_path, finished):
    """What was packed, rows, blocks: nothing of it stays, and its numbers are given again."""
    wanted = write_tape(tmp_path / "wanted.tape", n_runs=2)
    path = write_tape(tmp_path / "cat.tape", n_runs=1 + finished)
    writer = TapeWriter.resume(path)
    if not finished:
        write_run(writer, end=False)
    writer.drop_last()
    assert write_run(writer).number == 1
    writer.close().close()
    with open_tape(path) as tape, open_tape(wanted) as other:
        assert tape.verify() == [] and len(tape) == len(other) == 4
        assert tape.traces[3].text == other.traces[3].text
        assert tape.columns("step")["start_ns"].tolist() == other.columns("step")["start_ns"].tolist()


def test_dropping_from_an_empty_tape(tmp_path):
    writer = TapeWriter.create(tmp_path / "cat.tape", SETTING)
    with pytest.raises(UsageError, match="no run"):
        writer.drop_last()
    writer.close().close()


def test_notes(tmp_path):
    with TapeWriter.create(tmp_path / "cat.tape", SETTING, notes={"clock": "fake", "a": 1}) as writer:
        writer.note("a", {"b": [None, "猫"]})
    with open_tape(tmp_path / "cat.tape") as tape:
        assert tape.notes["a"] == {"b": [None, "猫"]} and tape.notes["clock"] == "fake"
        assert {"created_utc", "finished_utc", "tokentape_version"} <= tape.notes.keys()


# the disk


def fill(writer, n=100_000):
    """Append until the disk is full; gives how many steps were committed."""
    run, trace = one_trace(writer)
    for i in range(n):
        try:
            writer.append([step(run, i, 1)], [token(trace, i, i, text="x" * 400)])
        except RecordingError as error:
            assert error.why == "the disk is full", error
            return run, trace, i
    raise AssertionError("the disk was never full")


def test_disk_full_then_room_again(tmp_path):
    path = tmp_path / "cat.tape"
    writer = TapeWriter.create(path, SETTING)
    writer.database.rows("pragma max_page_count = 150")
    run, trace, n = fill(writer)
    with open_tape(path) as tape:
        assert tape.traces[0].tokens.n_rows == n
    with pytest.raises(RecordingError):
        writer.append([step(run, n, 1)], [token(trace, n, n, text="x" * 400)])
    writer.database.rows("pragma max_page_count = 100000")
    writer.append([step(run, n, 1)], [token(trace, n, n)])  # the same call, made again
    writer.end(run, ["error"])
    with writer.close("partial") as tape:
        assert tape.traces[0].tokens.n_rows == n + 1 and tape.verify() == []


def test_disk_full_at_the_end(tmp_path):
    path = tmp_path / "cat.tape"
    writer = TapeWriter.create(path, SETTING)
    run, trace = one_trace(writer)
    for i in range(300):
        writer.append([step(run, i, 1)], [token(trace, i, i, text="x" * 400)])
    (pages,) = writer.database.rows("pragma page_count")[0]
    writer.database.rows(f"pragma max_page_count = {pages + 2}")
    writer.end(run, ["length"])
    with open_tape(path) as tape:
        assert tape.traces[0].finish_reason == "length" and tape.traces[0].tokens.n_rows == 300
    with writer.close() as tape:  # unpacked, but whole
        assert not tape.reader.runs[run][6]
        assert tape.traces[0].tokens.n_rows == 300 and tape.verify() == [] and tape.state == "complete"


def test_disk_full_while_blocks_are_laid_out(tmp_path):
    """What has no room as rows stays as blocks, and is read as such."""
    writer = TapeWriter.create(tmp_path / "cat.tape", SETTING)
    run, trace = one_trace(writer)
    for i in range(1000):
        draft = Draft()
        draft.add(1, step(run, i, 1)[1:], DraftTokens(1, trace, token(trace, i, i)[1:-3], [b"x" * 20], None))
        writer.append_block(run, draft)
    (pages,) = writer.database.rows("pragma page_count")[0]
    writer.database.rows(f"pragma max_page_count = {pages + 2}")
    with writer.close("partial") as tape:
        assert tape.state == "partial" and tape.traces[0].tokens.n_rows == 1000 and tape.verify() == []
    with TapeWriter.resume(tmp_path / "cat.tape").close("partial") as tape:
        assert tape.traces[0].text == "x" * 20_000 and tape.verify() == []


@pytest.fixture
def small_disk():
    """A file system of 2 MB."""
    folder = Path(tempfile.mkdtemp())
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], check=False, capture_output=True
    )
    if mounted.returncode:
        shutil.rmtree(folder)
        pytest.skip(f"no small file system can be made: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", folder], check=False)
    shutil.rmtree(folder, ignore_errors=True)


def test_a_disk_that_is_really_full(small_disk):
    path = small_disk / "cat.tape"
    writer = TapeWriter.create(path, SETTING)
    *_, n = fill(writer)
    assert n > 100
    try:
        writer.close("partial").close()
    except TokentapeError as error:
        assert isinstance(error, RecordingError)
    with open_tape(path) as tape:
        assert tape.state == "partial" and tape.traces[0].tokens.n_rows == n and tape.verify() == []
    (small_disk / "filler").write_bytes(bytes(max(0, shutil.disk_usage(small_disk).free)))
    with pytest.raises(RecordingError, match="full"):
        TapeWriter.create(small_disk / "new.tape", SETTING)
    with pytest.raises(RecordingError, match="full"):
        TapeWriter.create(path, SETTING, overwrite=True)
    with open_tape(path) as tape:  # the old one is as it was
        assert tape.traces[0].tokens.n_rows == n
