"""``tokentape record --endpoint`` with many requests: what it prints, what it leaves, and what it says to mistakes."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import tokentape as tt
from tokentape.mock.script import Script
from tokentape.mock.serving import MockServer

QUICK = Script.steady(8, ttft_us=4_000, gap_us=1_000)


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("TOKENTAPE_DIR", "OPENAI_API_KEY", "LANG", "LC_ALL", "LC_MESSAGES", "LANGUAGE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server() -> Iterator[MockServer]:
    with MockServer(QUICK) as found:
        yield found


def test_the_path_goes_to_stdout_and_the_card_to_stderr(tape: Callable[..., Any], server: MockServer) -> None:
    options = ("--rate", "60", "--duration", "soon", "--prompt-tokens", "30", "-n", "4", "-o", "a.tape")
    wrong = tape("record", "--endpoint", server.url, *options)
    assert wrong.code == 2 and "--duration soon is no time" in wrong.err
    done = tape("record", "--endpoint", server.url, *options[:2], "--requests", "20", *options[4:])
    assert done.code == 0 and done.out == "a.tape\n", done.err
    assert re.search(r"requests +20 requests: 20 answered, 0 failed, 0 not finished", done.err)
    assert "600 tokens asked for, 600 counted by the server" in done.err
    assert "TTFT, due" in done.err and "60.0 requests/s due" not in done.err  # poisson is never exactly that
    assert re.search(r"client +(kept up|was late|the client, not the server, was the bottleneck)", done.err)
    with tt.open("a.tape") as recorded:
        assert len(recorded.runs) == 20 and not recorded.verify()
        assert recorded.notes["load"]["kind"] == "poisson" and recorded.notes["load"]["rate"] == 60


def test_a_document(tape: Callable[..., Any], server: MockServer) -> None:
    done = tape(
        "record", "--endpoint", server.url, "hello", "--requests", "4", "--concurrency", "2", "--json",
        "--slo", "ttft=10s", "-o", "b.tape",
    )  # fmt: skip
    found = json.loads(done.out)
    assert (found["command"], found["state"], found["interrupted"], done.err) == ("record", "complete", False, "")
    load = found["load"]
    assert (load["n_requests"], load["n_ended"], load["plan"]["loop"]) == (4, 4, "closed")
    assert load["goodput"]["n_good"] == 4 and load["offered_per_s"] is None
    assert isinstance(load["client"]["bottleneck"], bool)


def test_several_prompts_are_a_load(tape: Callable[..., Any], server: MockServer, tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text('{"prompt": "one"}\n{"prompt": "two", "max_tokens": 2}\n')
    done = tape("record", "--endpoint", server.url, "--prompts", "p.jsonl", "-o", "c.tape", "-q", "-n", "5")
    assert (done.code, done.out, done.err) == (0, "c.tape\n", "")
    with tt.open("c.tape") as recorded:
        assert [trace.prompt_text for trace in recorded.traces] == ["one", "two"]
        assert [len(trace.tokens["step"]) for trace in recorded.traces] == [5, 2]


def test_traffic_is_replayed_at_a_rate(tape: Callable[..., Any], server: MockServer, tmp_path: Path) -> None:
    rows = [f"2023-11-16 18:15:{46 + i}.0000000,{20 + i},{1 + i % 5}" for i in range(10)]
    (tmp_path / "t.csv").write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n" + "\n".join(rows) + "\n")
    done = tape("record", "--endpoint", server.url, "--workload", "t.csv", "--rate", "50", "-o", "d.tape", "-q")
    assert done.code == 0, done.err
    with tt.open("d.tape") as recorded:
        passed = sorted(recorded.exchanges.values(), key=lambda one: one.scheduled_ns)
        due = [one.scheduled_ns for one in passed]
        assert [after - due[0] for after in due] == [i * 20_000_000 for i in range(10)]
        assert [one.n_prompt for one in passed] == [20 + i for i in range(10)]
        assert [one.n_completion for one in passed] == [1 + i % 5 for i in range(10)]
        assert recorded.notes["load"]["kind"] == "trace"


def test_a_sweep_over_rates_has_a_tape_for_each(tape: Callable[..., Any], tmp_path: Path) -> None:
    # one at a time, 8 ms each: 125 a second at most
    with MockServer(QUICK, slots=1) as server:
        options = ("--prompt-tokens", "10", "-n", "5", "--requests", "12", "--slo", "e2e=10s", "-o", "s.tape")
        done = tape("record", "--endpoint", server.url, "--rate", "20,40,80", *options)
        assert done.code == 0, done.err
        lines = done.out.splitlines()
        assert (
            lines[0].split()
            == "rate/s due/s ended/s tokens/s mean TTFT TTFT p99 mean gap met client server tape".split()
        )
        assert [line.split()[0] for line in lines[1:4]] == ["20", "40", "80"]
        assert "e2e=10s is met everywhere, up to 80.0 requests/s" in done.out
        assert sorted(path.name for path in tmp_path.glob("*.tape")) == ["s-20.tape", "s-40.tape", "s-80.tape"]
        again = tape("record", "--endpoint", server.url, "--rate", "20,40,80", *options)
        assert again.code == 2 and "s-20.tape already exists" in again.err
        found = json.loads(
            tape("record", "--endpoint", server.url, "--rate", "20..80", *options, "--overwrite", "--json").out
        )["sweep"]
        assert [step["rate"] for step in found["steps"]] == [20, 40, 80]
        assert found["knee"]["verdict"] in ("found", "below", "none") and found["largest"]["good"] == 80


def test_a_server_that_goes_in_a_sweep_leaves_what_was_measured(
    tape: Callable[..., Any], server: MockServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tokentape.cli import record_load
    from tokentape.errors import Unreachable

    real, times = record_load._recorded, iter(range(9))

    def recorded(*given: Any) -> Any:
        if next(times):
            raise Unreachable("it answers no more", why="it is gone", fix="start it")
        return real(*given)

    monkeypatch.setattr(record_load, "_recorded", recorded)
    options = ("--prompt-tokens", "10", "-n", "5", "--requests", "6", "-o", "s.tape")
    done = tape("record", "--endpoint", server.url, "--rate", "20,40,80", *options)
    assert done.code == 5 and "error: it answers no more" in done.err
    assert [line.split()[0] for line in done.out.splitlines()[:2]] == ["rate/s", "20"]


def test_a_sweep_over_concurrency(tape: Callable[..., Any], tmp_path: Path) -> None:
    with MockServer(QUICK) as server:
        options = ("--prompt-tokens", "10", "-n", "5", "--requests", "12", "-o", "c.tape")
        done = tape("record", "--endpoint", server.url, "--concurrency", "1,2,4", *options)
        assert done.code == 0, done.err
        lines = done.out.splitlines()
        assert lines[0].startswith("at a time  due/s") and [line.split()[0] for line in lines[1:4]] == ["1", "2", "4"]
        assert [line.split()[-1] for line in lines[1:4]] == ["c-1.tape", "c-2.tape", "c-4.tape"]
        assert lines[-1] == "next: tokentape show c.tape (this table again); tokentape view c-4.tape"
        assert "4 at a time: 12 of 12 ended" in done.err
        with tt.open("c-4.tape") as recorded:
            assert recorded.notes["load"]["concurrency"] == 4 and recorded.notes["load"]["loop"] == "closed"


@pytest.mark.parametrize("more", [(), ("--json",), ("-q",)])
def test_where_every_request_failed_the_command_has_failed(tape: Callable[..., Any], more: tuple[str, ...]) -> None:
    options = ("--served-model", "mock", "--api", "completions", "--no-probe", "--requests", "3", "-o", "x.tape", *more)
    with MockServer(QUICK, faults=["status:code=503"]) as server:
        done = tape("record", "--endpoint", server.url, "hello", "--concurrency", "1", *options)
    assert done.code == 1
    if more == ("--json",):
        load = json.loads(done.out)["load"]
        assert (load["n_ended"], load["n_failed"], load["client"]["bottleneck"]) == (0, 3, False)
    else:
        assert "error: no request was answered: http_error" in done.err and done.out == "x.tape\n"
    with tt.open("x.tape") as recorded:
        assert len(recorded.runs) == 3


def test_some_failures_are_said_and_are_no_failure(capsys: pytest.CaptureFixture[str]) -> None:
    from tokentape.cli.record_load import _tell_failures
    from tokentape.views.screen import Screen

    told = {"n_requests": 4, "n_failed": 1, "n_ended": 3, "n_cut_short": 0, "faults": {"reset": 1}}
    told |= {"n_retries": 0, "n_failed_for_good": 1}
    _tell_failures(told, Screen.of(sys.stderr), quiet=False)  # and leaves no command
    assert "error: 1 of 4 requests failed" in capsys.readouterr().err
    again = {**told, "n_requests": 11, "n_failed": 6, "n_ended": 5, "n_retries": 5}
    _tell_failures(again, Screen.of(sys.stderr), quiet=False)  # six requests, one of which was given up
    assert "error: 1 of 6 requests failed" in capsys.readouterr().err
    _tell_failures({**again, "n_failed_for_good": 0}, Screen.of(sys.stderr), quiet=False)
    assert capsys.readouterr().err == ""
    _tell_failures({**told, "n_failed": 0}, Screen.of(sys.stderr), quiet=False)
    assert capsys.readouterr().err == ""


def test_an_import_that_ctrl_c_broke_off_is_an_interrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    from tokentape.cli.load_ending import ends_in_order

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt), ends_in_order():
            try:
                signal.raise_signal(signal.SIGINT)
            except KeyboardInterrupt:
                raise ImportError("numpy.core.multiarray failed to import") from None
        with pytest.raises(ImportError), ends_in_order():
            raise ImportError("of its own")
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (("hello", "--rate", "0"), "a rate of 0"),
        (("hello", "--rate", "many"), "the rate many"),
        (("hello", "--rate", "8..2"), "the rates 8..2"),
        (("hello", "--concurrency", "0"), "--concurrency 0"),
        (("hello", "--requests", "0"), "--requests 0"),
        (("hello", "--rate", "2", "--arrivals", "poison"), "no arrivals 'poison'"),
        (("hello", "--rate", "2", "--slo-share", "50%"), "a share of objectives without any"),
        (("hello", "--rate", "2", "--slo", "ttfb=5ms"), "no objective 'ttfb'"),
        (("--rate", "2"), "a load of nothing"),
        (("hello", "--prompt-tokens", "5", "--rate", "2"), "--prompt-tokens and a prompt together"),
        (("--prompt-tokens", "5", "--rate", "2"), "a load that would never end"),
        (("--prompt-ids", "1,2", "--rate", "2"), "--prompt-ids in a load"),
        (("--workload", "bad.csv", "--rate", "2"), "bad.csv, line 1: the columns when, in, out"),
        (("--workload", "none.csv"), "none.csv cannot be read"),
        (("hello", "--rate", "1,2", "--requests", "4", "--report", "x.html"), "--report of a sweep"),
        (("hello", "--rate", "inf"), "a rate without end"),
        (("hello", "--rate", "5"), "--rate for one prompt"),
        (("hello", "--concurrency", "4"), "--concurrency for one prompt"),
        (("hello", "--concurrency", "two"), "--concurrency two"),
        (("hello", "--concurrency", "1..3/4"), "--concurrency 1..3/4"),
        (("hello", "--concurrency", "1,2", "--rate", "1,2"), "a sweep over rates and concurrency at once"),
        (("--prompt-tokens", "5", "--concurrency", "2"), "a load that would never end"),
        (("hello", "--rate", "2", "--json-schema", "x.json"), "--json-schema with --endpoint"),
    ],
)
def test_mistakes_are_told_before_anything_is_sent(
    tape: Callable[..., Any], tmp_path: Path, asked: tuple[str, ...], says: str
) -> None:
    (tmp_path / "bad.csv").write_text("when,in,out\n1,2,3\n")
    done = tape("record", "--endpoint", "http://127.0.0.1:9", *asked)  # nothing listens there, and nobody asks
    assert done.code == 2 and says in done.err, done.err
    assert "why: " in done.err and "fix: " in done.err
    assert not list(tmp_path.glob("*.tape"))


def test_a_load_needs_an_endpoint(tape: Callable[..., Any]) -> None:
    done = tape("record", "demo", "hello", "--rate", "2")
    assert done.code == 2 and "--rate without --endpoint" in done.err


def test_a_server_that_is_not_there(tape: Callable[..., Any], tmp_path: Path) -> None:
    done = tape("record", "--endpoint", "http://127.0.0.1:9", "hello", "--rate", "2", "--requests", "2")
    assert done.code == 5 and "no server answers" in done.err
    assert not list(tmp_path.glob("*.tape"))


class Loading:
    """A load in a process of its own, which hears signals whoever started it; it goes on for a minute unless it is told."""

    def __init__(self, server: MockServer, folder: Path, *options: str, terminal: int = subprocess.PIPE) -> None:
        command = [sys.executable, "-m", "tokentape", "record", "--endpoint", server.url, "--prompt-tokens", "10"]
        command += ["--duration", "60s", *options]
        # where tests run in the background, Ctrl-C and the like are ignored by whom they start
        listening = "import os, signal; signal.signal(2, signal.default_int_handler); "
        listening += f"[signal.signal(n, signal.SIG_DFL) for n in (1, 15)]; os.execv({sys.executable!r}, {command!r})"
        self.running = subprocess.Popen([sys.executable, "-c", listening], stdout=terminal, stderr=terminal, cwd=folder)

    def wait_for(self, served: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 60
        while not served():
            assert self.running.poll() is None and time.monotonic() < deadline
            time.sleep(0.2)

    def end(self, number: int) -> tuple[int, str, str]:
        self.running.send_signal(number)
        return self.left()

    def left(self) -> tuple[int, str, str]:
        out, err = self.running.communicate(timeout=60)
        return self.running.returncode, (out or b"").decode(), (err or b"").decode()


LONG = Script.steady(400, ttft_us=2_000, gap_us=20_000)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_ends_a_load_in_order(tape: Callable[..., Any], tmp_path: Path, number: int, code: int) -> None:
    with MockServer(LONG, process=True) as server:
        load = Loading(server, tmp_path, "-n", "400", "--concurrency", "3", "-o", "i.tape", "--json")
        load.wait_for(lambda: sum(one.n_tokens for one in server.log.sent) > 60)
        rc, out, err = load.end(number)
    assert rc == code, err[-1500:]
    found = json.loads(out)
    assert found["interrupted"] is True and found["state"] == "partial"
    assert found["load"]["client"]["late"] in (True, False) and found["load"]["n_cut_short"] == 3
    assert [path.name for path in tmp_path.iterdir()] == ["i.tape"]
    with tt.open(tmp_path / "i.tape") as recorded:
        assert recorded.notes["ended_by"] == signal.Signals(number).name
        assert {trace.finish_reason for trace in recorded.traces} == {"interrupted"}
        n_tokens = sum(len(trace.tokens["step"]) for trace in recorded.traces)
        assert n_tokens > 0
    shown = tape("show", "i.tape").out  # though nothing was answered, what came was counted
    assert f"3 requests, {n_tokens:,} tokens" in shown and "0 requests/s, n/a" not in shown


def test_a_terminal_that_is_closed_costs_nothing_but_the_terminal(tmp_path: Path) -> None:
    ours, theirs = os.openpty()
    with MockServer(LONG, process=True) as server, os.fdopen(ours, "rb", buffering=0) as screen:
        load = Loading(server, tmp_path, "-n", "400", "--concurrency", "2", "-o", "h.tape", terminal=theirs)
        os.close(theirs)
        seen = threading.Event()
        reader = threading.Thread(target=_read_until, args=(screen.fileno(), seen))
        reader.start()
        load.wait_for(lambda: sum(one.n_tokens for one in server.log.sent) > 60)
        seen.set()
        reader.join()
        screen.close()
        rc, *_ = load.end(signal.SIGHUP)
    assert rc == 129
    with tt.open(tmp_path / "h.tape") as recorded:
        assert recorded.notes["ended_by"] == "SIGHUP" and "client" in recorded.notes and not recorded.verify()


def _read_until(fileno: int, seen: threading.Event) -> None:
    while not seen.is_set():
        if select.select([fileno], [], [], 0.1)[0]:
            os.read(fileno, 1 << 16)


def test_a_signal_in_a_sweep_leaves_its_table_and_names_every_tape(tmp_path: Path) -> None:
    script = Script.steady(8, ttft_us=2_000, gap_us=1_000)
    with MockServer(script, process=True) as server:
        load = Loading(server, tmp_path, "-n", "8", "--rate", "20,40", "--requests", "30", "-o", "s.tape")
        load.wait_for(lambda: sum(one.body is not None for one in server.log.served) > 42)  # the second step has begun
        rc, out, err = load.end(signal.SIGTERM)
    assert rc == 143, err
    assert out.splitlines()[1].split()[0] == "20"
    assert "what was recorded is in s-40.tape (partial)" in err


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="processes are found through /proc")
def test_a_load_whose_client_process_died_has_failed(tape: Callable[..., Any], tmp_path: Path) -> None:
    with MockServer(LONG, process=True) as server:
        load = Loading(server, tmp_path, "-n", "400", "--rate", "5", "-o", "k.tape")
        children = Path(f"/proc/{load.running.pid}/task/{load.running.pid}/children")
        load.wait_for(lambda: sum(one.n_tokens for one in server.log.sent) > 60)
        for child in children.read_text().split():
            os.kill(int(child), signal.SIGKILL)
        rc, out, err = load.left()
    assert rc == 1 and out == "k.tape\n", err
    assert "error: a client process died" in err and "client process 0 ended with -9" in err
    assert "client_died" in err and "the client, not the server" not in err
    with tt.open(tmp_path / "k.tape") as recorded:
        assert recorded.state == "partial" and {one.fault for one in recorded.exchanges.values()} == {"client_died"}
    assert "client_died: the client process that had sent it died" in tape("show", "k.tape", "--trace", "0").out


def test_a_server_that_goes_leaves_a_partial_tape(tape: Callable[..., Any], tmp_path: Path) -> None:
    server = MockServer(Script.steady(60, ttft_us=2_000, gap_us=20_000), process=True).start()
    command = [sys.executable, "-m", "tokentape", "record", "--endpoint", server.url, "--prompt-tokens", "10"]
    command += ["-n", "60", "--rate", "20", "--duration", "60s", "-o", "g.tape"]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path)
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and len(server.log.served) < 12:
            time.sleep(0.2)
    finally:
        server.stop()
    _, err = running.communicate(timeout=90)
    assert running.returncode == 5, err
    assert b"answers no more" in err and b"what was recorded is in g.tape (partial)" in err
    assert re.search(rb"requests +\d+ requests: \d+ answered, \d+ failed", err)  # the card of what came before
    with tt.open(tmp_path / "g.tape") as recorded:
        assert recorded.state == "partial" and len(recorded.runs) > 8
        assert "refused" in {one.fault for one in recorded.exchanges.values()}


def test_help_lists_the_load(tape: Callable[..., Any]) -> None:
    done = tape("record", "--help")
    assert "Load:" in done.out and "--time-scale" in done.out


def test_progress_without_a_terminal_is_plain_lines(
    tape: Callable[..., Any], server: MockServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tokentape.cli.record_load.PLAIN_SECONDS", 0.0)
    done = tape("record", "--endpoint", server.url, "hello", "--requests", "8", "--concurrency", "2", "-o", "p.tape")
    assert re.search(r"^\d+ done, 0 failed, \d under way, 0 waiting; ", done.err, re.MULTILINE)
    assert "\x1b" not in done.err and os.path.exists("p.tape")
