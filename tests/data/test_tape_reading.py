from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tapes import CAT, SETTING, token, write_run, write_tape

from tokentape.data import STEP_COLUMNS, TOKEN_COLUMNS, Run, Setting, TapeWriter, TraceHead, open_tape, verify
from tokentape.errors import TapeExists, UsageError

NOTHING = [None] * sum(column.nullable for column in STEP_COLUMNS[8:])
"""What a step says after its clock where no probe was there."""


@pytest.fixture(params=["packed", "rows", "memory packed", "memory rows"])
def tape(request, tmp_path):
    """The same recording read from packs and from rows, from a file and from memory."""
    place, _, how = request.param.rpartition(" ")
    writer = TapeWriter.create(None if place else tmp_path / "cat.tape", SETTING, notes={"origin_unix_ns": 10**18})
    for _ in range(2):
        write_run(writer, end=how == "packed")
    writer.add_pieces([(3, "Ġcat", b" cat", False), (4, None, b"\xff", True), (3, "again", b"", True)])
    with writer.close("complete" if how == "packed" else "partial") as tape:
        yield tape


def test_heads(tape):
    assert len(tape) == len(tape.traces) == 4
    assert [trace.number for trace in tape] == [0, 1, 2, 3]
    trace = tape.traces[3]
    assert (trace.run.number, trace.row, trace.n_prompt) == (1, 1, 3)
    assert trace.prompt_text == "prompt 1: 猫\0\x1b[0m\r\n"
    assert trace.prompt_ids.tolist() == [0, 1, 2] and trace.prompt_ids.dtype == np.int64
    assert trace.run.options == {"max_new_tokens": 6, "temperature": 0.5}
    assert (trace.run.seed, trace.run.start_ns, trace.run.n_traces) == (2**62, 90, 2)
    assert tape.setting == SETTING and tape.setting.fingerprint == SETTING.fingerprint
    assert tape.notes["origin_unix_ns"] == 10**18
    assert [run.number for run in tape.runs] == [0, 1]
    assert tape.runs[-1] == trace.run
    with pytest.raises(IndexError, match="the tape has 4"):
        tape.traces[4]


def test_text_is_bytes_first(tape):
    whole, short = tape.traces[0], tape.traces[1]
    assert whole.text == "🐈nul\0nul\u202e\x07猫<b>'\""
    assert whole.token_bytes[:2] == [CAT[:2], CAT[2:]]
    assert b"".join(whole.token_bytes) == whole.bytes
    assert short.text == "🐈nul\0nul\u202e\x07猫"
    assert short.overshoot["position"].tolist() == [8]
    assert short.token_ids.tolist() == [0, 1, 2, 3, 4]
    assert len(whole.overshoot["position"]) == 0


def test_columns_are_masked_where_null(tape):
    trace = tape.traces[0]
    assert list(trace.tokens) == [column.name for column in TOKEN_COLUMNS]
    assert list(trace.steps) == [column.name for column in STEP_COLUMNS]
    for columns, schema in ((trace.tokens, TOKEN_COLUMNS), (trace.steps, STEP_COLUMNS)):
        assert [columns[column.name].dtype.str[1:] for column in schema] == [column.dtype for column in schema]
    rules = trace.tokens["rules_logprob"]
    assert rules.tolist() == [-0.25, None, -0.25, None, -0.25, None]
    assert np.isnan(rules.data[1]) and np.isnan(rules.filled()[1])
    device = trace.steps["device_ns"]
    assert device.mask.all() and set(device.data) == {np.iinfo(np.int64).min}
    assert trace.steps["cpu_ns"].tolist() == [None, 1, 2, 3, 4, 5]
    assert trace.steps["rss_bytes"].tolist() == [2**40 + i for i in range(6)]
    with pytest.raises(ValueError):
        rules[0] = 1.0
    with pytest.raises(ValueError):
        rules[0] = np.ma.masked
    with pytest.raises(KeyError, match=r"log_prob.*position, step, id, logprob"):
        trace.tokens["log_prob"]


def test_candidates(tape):
    candidates = tape.traces[0].candidates
    assert candidates.ids.shape == candidates.logprob.shape == (6, 3)
    assert candidates.ids.tolist()[:4] == [[None] * 3, [None] * 3, [250_000, None, None], [3, 2**31 - 1, 0]]
    assert candidates.logprob.dtype == np.float32
    assert candidates.logprob[3].tolist() == [-0.125, np.float32(-1e-30), -np.inf]
    assert tape.traces[1].candidates.ids.shape == (5, 3)


def test_whole_tape_columns(tape):
    tokens, steps = tape.columns("token"), tape.columns("step")
    assert next(iter(tokens)) == "trace" and next(iter(steps)) == "run"
    assert tokens["trace"].tolist() == [0] * 6 + [1] * 6 + [2] * 6 + [3] * 6
    assert steps["run"].tolist() == [0] * 6 + [1] * 6
    assert tokens["overshoot"].sum() == 2
    assert tape.candidates.ids.shape == (24, 3)
    for name in tape.traces[0].tokens:
        assert tokens[name][:6].tolist() == tape.traces[0].tokens[name].tolist()
    with pytest.raises(UsageError, match="step, token"):
        tape.columns("tokens")


def test_pieces(tape):
    assert list(tape.pieces) == [3, 4]
    assert tape.pieces[3].token == "Ġcat" and not tape.pieces[3].special
    assert tape.pieces[4].bytes == b"\xff" and tape.pieces[4].special


def test_clean(tape):
    assert tape.verify() == []


def test_saved_copy_is_the_same(tape, tmp_path):
    path = tape.save(tmp_path / "copy.tape")
    with open_tape(path) as copy:
        assert copy.state == tape.state and copy.verify() == []
        assert copy.traces[0].text == tape.traces[0].text
        assert copy.columns("token")["position"].tolist() == tape.columns("token")["position"].tolist()
    with pytest.raises(TapeExists):
        tape.save(path)
    tape.save(path, overwrite=True)
    assert not [name for name in path.parent.iterdir() if name.name.startswith(".")]


def test_a_closed_tape_says_so(tape):
    trace = tape.traces[0]
    tape.close()
    with pytest.raises(UsageError, match="closed"):
        trace.tokens["position"]


def test_empty_tape(tmp_path):
    with TapeWriter.create(tmp_path / "a.tape", Setting()).close() as tape:
        assert len(tape) == 0 and bool(tape) and tape.verify() == []
        assert len(tape.columns("token")["position"]) == 0
        assert tape.candidates.ids.shape == (0, 0)


@pytest.mark.parametrize("end", [True, False])
def test_trace_without_tokens_and_without_text(tmp_path, end):
    writer = TapeWriter.create(tmp_path / "a.tape", Setting())
    begun = writer.begin(Run((TraceHead(0, 5, None, None), TraceHead(1, 5, None, None))))
    writer.append([], [])
    if end:
        writer.end(begun.number, ["error", None])
    writer.append([(begun.number, *[0] * 6, 0, 0, *NOTHING)], []) if not end else None
    with writer.close("partial") as tape:
        assert tape.verify() == []
        assert tape.traces[0].tokens.n_rows == 0 and tape.traces[0].text == "" and tape.traces[0].prompt_ids is None
        assert tape.traces[0].finish_reason == ("error" if end else None)


def test_text_left_out(tmp_path):
    writer = TapeWriter.create(tmp_path / "a.tape", Setting())
    begun = writer.begin(Run((TraceHead(0, 5, None, None),)))
    writer.append(
        [(begun.number, 0, 0, 1, None, None, 2, 0, 0, *NOTHING)],
        [token(begun.trace_numbers[0], 5 + i, 0, text=None, candidates=None) for i in range(2)],
    )
    writer.end(begun.number, ["stop"])
    with writer.close() as tape:
        trace = tape.traces[0]
        assert trace.token_bytes == [None, None] and trace.text is None and trace.bytes is None
        assert trace.candidates.ids.shape == (2, 0)
        assert trace.tokens["id"].mask.all()


def test_growing_tape_shows_one_moment_until_refreshed(tmp_path):
    path = tmp_path / "cat.tape"
    writer = TapeWriter.create(path, SETTING)
    seen = []

    def look(i):
        if i == 1:
            seen.append(open_tape(path))
            assert seen[0].state == "recording"
            assert seen[0].traces[0].tokens.n_rows == 2
        if i == 3:
            tape = seen[0]
            assert tape.traces[1].tokens.n_rows == 2  # read only now, but of the moment it was opened
            assert tape.columns("step").n_rows == tape.traces[0].steps.n_rows == 2
            tape.refresh()
            assert tape.traces[1].tokens.n_rows == 4 and tape.traces[0].steps.n_rows == 4
            assert not tape.runs[0].finished

    write_run(writer, pause=look)
    writer.close().close()
    tape = seen[0]
    assert tape.traces[0].tokens.n_rows == 4
    tape.refresh()
    assert tape.state == "complete" and tape.traces[0].tokens.n_rows == 6
    assert sorted(name.name for name in tmp_path.iterdir()) == ["cat.tape"]


def test_interleaved_runs(tmp_path):
    """Runs of concurrent requests grow side by side; one is finished while the other is not."""
    writer = TapeWriter.create(tmp_path / "a.tape", Setting())
    first, second, third = (writer.begin(Run((TraceHead(0, 0, (), ""),))) for _ in range(3))
    for i in range(3):
        for begun in (third, first, second):
            row = (begun.number, i, 1, 1, None, None, 1, i, i, *NOTHING)
            writer.append([row], [token(begun.trace_numbers[0], i, i, text=f"{begun.number}")])
    writer.end(third.number, ["stop"])
    writer.end(first.number, ["stop"])
    with open_tape(writer) as tape:
        assert [trace.text for trace in tape] == ["000", "111", "222"]
        assert tape.columns("token")["trace"].tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
        assert [run.finished for run in tape.runs] == [True, False, True]
    with writer.close("partial") as tape:
        assert tape.verify() == []


def test_plain_sqlite_reads_the_rows(tmp_path):
    import sqlite3

    path = write_tape(tmp_path / "cat.tape", n_runs=1)
    connection = sqlite3.connect(path)
    rows = connection.execute(
        "select position, text, logprob from token where trace = 0 and text like '%猫%'"
    ).fetchall()
    assert rows == [(7, "\u202e\x07猫", -0.4)]
    assert connection.execute('select kind_name from step order by "index" limit 2').fetchall() == [
        ("prefill",),
        ("decode",),
    ]
    assert connection.execute("select bytes from token where position = 3").fetchone() == (CAT[:2],)
    assert connection.execute(
        "select json_extract(candidates, '$[0][0]') from token where position = 5"
    ).fetchone() == (250_000,)
    connection.close()


@pytest.mark.parametrize(
    "name", ["a b.tape", "a?mode=rw.tape", "a#b.tape", "50%20.tape", "猫🐈.tape", "-x.tape", "'\".tape"]
)
def test_any_name(tmp_path, name):
    path = write_tape(tmp_path / name, n_runs=1)
    assert verify(path) == []
    assert [entry.name for entry in tmp_path.iterdir()] == [name]


def test_relative_and_linked_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_tape("cat.tape", n_runs=1)
    Path("link.tape").symlink_to("cat.tape")
    assert verify("link.tape") == []
    with pytest.raises(TapeExists):
        TapeWriter.create("link.tape", SETTING)
    TapeWriter.create("link.tape", SETTING, overwrite=True).close().close()
    assert Path("link.tape").is_symlink()
    with open_tape("cat.tape") as tape:
        assert len(tape) == 0


def test_threads_share_a_tape(tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    with open_tape(write_tape(tmp_path / "cat.tape", n_runs=8)) as tape:
        with ThreadPoolExecutor(4) as pool:
            texts = list(pool.map(lambda i: tape.traces[i % 16].text, range(200)))
        assert set(texts) == {tape.traces[0].text, tape.traces[1].text}


def test_no_torch_is_imported():
    code = (
        "import tokentape.data, sys; sys.exit(any(m.split('.')[0] in ('torch', 'transformers') for m in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
