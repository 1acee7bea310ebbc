"""Whole loads, against the mock server: client processes, one tape, and what is kept when something dies."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

from raw_servers import Saying, http
from tokentape.data.tape import open_tape, verify
from tokentape.errors import Unreachable, UsageError
from tokentape.load import driving
from tokentape.load.account import account_of
from tokentape.load.loading import calibration_of, load
from tokentape.load.signals import hearing
from tokentape.load.workloads import Listed, Sized, Synthetic, Turn, prompts
from tokentape.mock.faults import parse_fault
from tokentape.mock.script import Script
from tokentape.mock.serving import MockServer
from tokentape.sources.endpoint.source import EndpointSource

MS = 1_000_000
QUICK = Script.steady(6, ttft_us=5_000, gap_us=2_000)
SLOW = Script.steady(40, ttft_us=20_000, gap_us=50_000)


@pytest.fixture
def started(monkeypatch):
    """The client processes, as they are started."""
    found = []
    real = driving._started

    def note(task):
        client = real(task)
        found.append(client)
        return client

    monkeypatch.setattr(driving, "_started", note)
    return found


def posted(server):
    """Bodies of the requests of the load: not those of the first contact."""
    return [one.body for one in server.log.served if one.method == "POST" and one.body.get("max_tokens") not in (1, 3)]


def test_an_open_loop_keeps_scheduled_and_actual_times(tmp_path):
    with MockServer(QUICK) as server:
        with load(
            server.url,
            Synthetic(50, 6),
            rate=100,
            arrivals="constant",
            requests=30,
            processes=2,
            path=tmp_path / "a.tape",
        ) as tape:
            passed = [tape.exchanges[run.number] for run in tape.runs]
            assert tape.state == "complete" and len(passed) == 30
            due = sorted(one.scheduled_ns for one in passed)
            assert {after - before for before, after in pairwise(due)} == {10 * MS}
            assert all(run.start_ns >= one.scheduled_ns for run, one in zip(tape.runs, passed, strict=True))
            assert Counter(one.process for one in passed) == {0: 15, 1: 15}
            assert {one.label for one in passed} == {"exact"} and {one.fault for one in passed} == {None}
            assert all(len(trace.tokens["id"]) == 6 for trace in tape.traces)
            assert {one.n_prompt for one in passed} == {50}
            assert {one.source for one in tape.scrapes} == {"server", "client 0", "client 1"}
            client = tape.notes["client"]
            assert client["dispatch_delay_ns"]["n"] == 30 and client["read_lag_ns"]["n"] >= 30
            account = account_of(tape)
            assert account["n_requests"] == account["n_ended"] == 30 and account["n_failed"] == 0
            assert account["offered_per_s"] == pytest.approx(100)
            assert account["prompt_tokens"] == {
                "n": 30,
                "asked": 1500,
                "counted": 1500,
                "median_error": 0,
                "max_error": 0,
            }
            assert account["ttft_from_due"]["n"] == 30
        asked = posted(server)
        assert len(asked) == 30 and len({tuple(body["prompt"][:4]) for body in asked}) == 30
        assert all(body["ignore_eos"] and body["max_tokens"] == 6 for body in asked)
    assert verify(tmp_path / "a.tape") == []


def test_a_closed_loop_has_no_more_under_way_than_users():
    with (
        MockServer(QUICK) as server,
        load(server.url, prompts([f"number {i}" for i in range(12)]), concurrency=3) as tape,
    ):
        spans = [(run.start_ns, tape.exchanges[run.number].ended_ns) for run in tape.runs]
        assert len(spans) == 12
        assert all(tape.exchanges[run.number].scheduled_ns is None for run in tape.runs)
        for start, _ in spans:
            assert sum(a <= start < b for a, b in spans) <= 3
        assert sorted(trace.prompt_text for trace in tape.traces) == sorted(f"number {i}" for i in range(12))
        # connections are used again
        assert sum(tape.exchanges[run.number].connect_ns is None for run in tape.runs) >= 9


def test_conversations_carry_the_answers_with_them():
    talk = tuple(Turn(messages=({"role": "user", "content": f"turn {i}"},), n_new=6) for i in range(3))
    workload = Listed((talk, talk), ("one", "two"), source="sharegpt")
    with MockServer(QUICK) as server:
        with load(EndpointSource(server.url, api="chat", system="Be brief."), workload, concurrency=2) as tape:
            places = sorted((one.conversation, one.turn) for one in tape.exchanges.values())
            assert places == [(name, turn) for name in ("one", "two") for turn in range(3)]
            said = {
                (tape.exchanges[t.run.number].conversation, tape.exchanges[t.run.number].turn): t.text
                for t in tape.traces
            }
            bodies = [body["messages"] for body in posted(server) if len(body["messages"]) == 6]
        assert len(bodies) == 2
        for system, *messages in bodies:
            assert system == {"role": "system", "content": "Be brief."}
            assert [one["content"] for one in messages[::2]] == ["turn 0", "turn 1", "turn 2"]
            assert [one["content"] for one in messages[1::2]] in [
                [said[name, 0], said[name, 1]] for name in ("one", "two")
            ]


def test_traffic_has_its_lengths_and_its_shared_prefixes():
    traffic = Sized([0, 20 * MS, 30 * MS], [1100, 1200, 700], [5, 3, 1], "mooncake", [(7, 8, 9), (7, 8, 10), (7, 11)])
    script = Script.steady(64, ttft_us=1000, gap_us=500)
    with MockServer(script) as server:
        with load(server.url, traffic) as tape:
            found = sorted((tape.exchanges[r.number].scheduled_ns, r.number) for r in tape.runs)
            passed = [tape.exchanges[number] for _, number in found]
            assert [one.n_prompt for one in passed] == [1100, 1200, 700]
            assert [one.n_completion for one in passed] == [5, 3, 1]
            assert [b.scheduled_ns - a.scheduled_ns for a, b in pairwise(passed)] == [
                20 * MS,
                10 * MS,
            ]
            options = tape.runs[found[1][1]].options
            assert options["prompt_tokens_asked"] == 1200 and options["prompt_blocks"] == [7, 8, 10]
            assert all(trace.prompt_ids is None and trace.n_prompt for trace in tape.traces)
        ids = {
            len(body["prompt"]): body["prompt"]
            for body in (one.body for one in server.log.served if one.body)
            if isinstance(body.get("prompt"), list)
        }
        assert ids[1100][:1024] == ids[1200][:1024] != ids[1100][24:1048]
        assert ids[700][:512] == ids[1100][:512] and ids[700][512:520] != ids[1100][512:520]


@pytest.mark.parametrize("dialect", ["vllm", "sglang", "llama.cpp", "transformers"])
def test_every_dialect_can_be_loaded(dialect):
    with (
        MockServer(QUICK, dialect=dialect) as server,
        load(server.url, Synthetic(40, 4), concurrency=2, requests=6) as tape,
    ):
        passed = list(tape.exchanges.values())
        assert len(passed) == 6 and {one.fault for one in passed} == {None}
        asked = account_of(tape)["prompt_tokens"]
        assert asked["asked"] == 240 and asked["max_error"] <= 0.1
        exact = tape.notes["load"]["exact_lengths"]
        assert exact == (dialect != "transformers")
        assert {one.n_completion for one in passed} == {4}


def test_a_calibration_measures_how_the_server_counts():
    with MockServer(QUICK) as server:
        found = calibration_of(EndpointSource(server.url))
    (few, n_few), (many, n_many) = found.counted
    assert n_few == round(found.overhead + few * found.tokens_a_word)
    assert n_many == round(found.overhead + many * found.tokens_a_word)


class _Narrow(Saying):
    """A server that reads so many words at the most, and counts them."""

    def __init__(self, n_words):
        super().__init__(b"")
        self.most, self.seen = n_words, []

    def answer_to(self, asked):
        prompt = json.loads(asked.partition(b"\r\n\r\n")[2])["prompt"]
        n = len(prompt.split())
        self.seen.append(n)
        if n > self.most:
            said = {"error": {"message": f"request ({n} tokens) exceeds the available context size"}}
            return http(json.dumps(said).encode(), "application/json", "400 No")
        told = {"choices": [{"index": 0, "text": " a", "finish_reason": "length"}], "usage": {"prompt_tokens": 2 * n}}
        return http(b"data: " + json.dumps(told).encode() + b"\n\ndata: [DONE]\n\n")


@pytest.mark.parametrize(("n_tokens", "seen"), [(512, [512, 256, 128, 16]), (64, [256, 128, 16]), (5, [32, 4])])
def test_a_calibration_goes_by_what_is_asked_and_by_what_a_server_reads(n_tokens, seen):
    with (server := _Narrow(200)) as url:
        source = EndpointSource(url, "m", api="completions", probe=False)
        found = calibration_of(source, n_tokens)
    assert server.seen == seen
    assert (found.tokens_a_word, found.overhead) == (2.0, 0.0)


def test_a_calibration_that_fails_says_what_it_was():
    with _Narrow(10) as url, pytest.raises(UsageError) as failure:
        load(EndpointSource(url, "m", api="completions", probe=False), Synthetic(64, 4), requests=1)
    assert failure.value.what.startswith("how the server counts tokens cannot be measured: the server refuses")
    assert "a text of 32 words" in failure.value.why and "(32 tokens) exceeds" in failure.value.why


def test_a_retry_is_a_run_of_its_own(tmp_path):
    with MockServer(QUICK, faults=["status:code=503"]) as broken:
        source = EndpointSource(broken.url, "mock", api="completions", probe=False)
        with load(source, prompts(["a"]), retries=2) as tape:
            passed = [tape.exchanges[run.number] for run in tape.runs]
            assert [(one.attempt, one.retry_of, one.status) for one in passed] == [
                (1, None, 503),
                (2, 0, 503),
                (3, 1, 503),
            ]
            assert account_of(tape)["n_retries"] == 2 and account_of(tape)["n_failed"] == 3
            assert account_of(tape)["n_failed_for_good"] == 1


def test_the_time_since_a_request_was_due_holds_what_failed_and_the_pause(tmp_path):
    broken = Script.steady(6, ttft_us=5_000, gap_us=2_000, faults=(parse_fault("status:code=503"),))
    with MockServer([broken, *[QUICK] * 9]) as server:
        source = EndpointSource(server.url, "mock", api="completions", probe=False)
        with load(source, prompts(["a"]), rate=5, arrivals="constant", requests=3, retries=3) as tape:
            passed = tape.exchanges
            (again,) = (one for one in passed.values() if one.retry_of is not None)
            assert again.scheduled_ns == passed[again.retry_of].scheduled_ns
            account = account_of(tape)
            assert account["ttft_from_due"]["n"] == 3 and account["ttft_from_due"]["max"] > 100 * MS  # the first pause
            assert (account["n_requests"], account["n_failed"], account["n_failed_for_good"]) == (4, 1, 0)
            assert account["client"]["dispatch_delay_ns"]["max"] < 100 * MS  # which is no lateness of the client


def test_an_interrupt_keeps_everything(tmp_path):
    def observer(now):
        if now["under_way"] and not told.is_set():
            told.set()
            os.kill(os.getpid(), signal.SIGINT)

    told = threading.Event()
    before = signal.getsignal(signal.SIGINT)
    with (
        MockServer(SLOW) as server,
        load(
            server.url,
            Synthetic(20, 40),
            concurrency=3,
            duration_ns=60_000 * MS,
            observer=observer,
            path=tmp_path / "i.tape",
        ) as tape,
    ):
        assert tape.state == "partial" and tape.notes["interrupted"] is True
        reasons = [trace.finish_reason for trace in tape.traces]
        assert reasons and set(reasons) == {"interrupted"}
        assert all(tape.exchanges[run.number].ended_ns is not None for run in tape.runs)
        assert "client" in tape.notes
    assert signal.getsignal(signal.SIGINT) is before


def test_a_second_signal_ends_at_once_and_the_tape_is_whole(tmp_path):
    def observer(now):
        if now["under_way"]:
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)

    with MockServer(SLOW) as server, pytest.raises(SystemExit) as left:
        load(
            server.url,
            Synthetic(20, 40),
            concurrency=2,
            duration_ns=60_000 * MS,
            observer=observer,
            path=tmp_path / "t",
        )
    assert left.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert verify(tmp_path / "t") == []
    with open_tape(tmp_path / "t") as tape:
        assert tape.state == "partial" and {trace.finish_reason for trace in tape.traces} == {"interrupted"}


def test_a_signal_that_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup has it
    try:
        with hearing([].append):
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_process_that_dies_loses_its_own_requests_alone(tmp_path, started):
    def observer(now):
        if now["under_way"] >= 4 and len(started) == 2 and started[1].process.poll() is None:
            started[1].process.kill()

    with (
        MockServer(SLOW) as server,
        load(
            server.url,
            Synthetic(20, 40),
            concurrency=4,
            requests=4,
            processes=2,
            observer=observer,
            path=tmp_path / "d.tape",
        ) as tape,
    ):
        by_process = {0: [], 1: []}
        for trace in tape.traces:
            one = tape.exchanges[trace.run.number]
            by_process[one.process].append((trace.finish_reason, one.fault))
        assert by_process[1] == [("error", "client_died")] * 2
        assert by_process[0] == [("length", None)] * 2
        assert tape.state == "partial"
        client = tape.notes["client"]
        assert (
            not client["bottleneck"] and client["died"] == ["client process 1 ended with -9"] == client["reasons"][-1:]
        )


def test_a_client_that_is_made_late_says_so(started):
    stopped = threading.Event()

    def observer(now):
        if now["sent"] >= 5 and not stopped.is_set():
            stopped.set()
            os.kill(started[0].process.pid, signal.SIGSTOP)
            threading.Timer(0.8, os.kill, (started[0].process.pid, signal.SIGCONT)).start()

    with MockServer(QUICK, process=True) as server:
        url = server.url
        with load(url, Synthetic(10, 6), rate=40, duration_ns=2_500 * MS, observer=observer) as tape:
            client = tape.notes["client"]
            assert client["bottleneck"] is True
            assert client["dispatch_delay_ns"]["max"] > 300 * MS
            assert "load.late_sent_most" in {one["key"] for one in client["said"]}
            # and on the tape: what was late stands beside when it was due
            late = [run.start_ns - tape.exchanges[run.number].scheduled_ns for run in tape.runs]
            assert max(late) > 300 * MS
            account = account_of(tape)
            assert account["ttft_from_due"]["max"] > account["ttft"]["mean"] + 200 * MS
            assert any(one.values.get("dispatch_delay_max_ns", 0) > 300 * MS for one in tape.scrapes)


def test_a_server_that_falls_behind_is_told_of_and_what_was_never_sent_is_counted():
    script = Script.steady(4, ttft_us=40_000, gap_us=5_000)  # one at a time: 18 a second at most
    with (
        MockServer(script, process=True, slots=1) as server,
        load(server.url, Synthetic(10, 4), rate=60, arrivals="constant", concurrency=4, duration_ns=2_000 * MS) as tape,
    ):
        account = account_of(tape)
        assert account["n_requests"] + account["n_unsent"] == 120 and account["n_unsent"] > 60
        backlog = account["backlog"]
        assert backlog["n_unsent"] == account["n_unsent"] and backlog["in_system"][-1] > account["n_unsent"]
        assert account["server_behind"] is True
        last = max(run.start_ns for run in tape.runs)
        assert last - min(one.scheduled_ns for one in tape.exchanges.values()) < 2_100 * MS


def test_a_server_that_is_gone_ends_the_load_and_the_tape_is_kept(tmp_path):
    server = MockServer(QUICK, process=True).start()

    def observer(now):
        if now["done"] >= 10:
            server.stop()

    path = tmp_path / "gone.tape"
    try:
        with pytest.raises(Unreachable, match="answers no more") as error:
            load(server.url, Synthetic(10, 6), rate=40, duration_ns=60_000 * MS, observer=observer, path=path)
    finally:
        server.stop()
    assert str(path) in error.value.why
    with open_tape(path) as tape:
        assert tape.state == "partial"
        faults = Counter(one.fault for one in tape.exchanges.values())
        assert faults[None] >= 10 and faults["refused"] >= 8


def test_without_text_no_words_are_on_the_tape(tmp_path):
    path = tmp_path / "w.tape"
    with MockServer(QUICK) as server:
        load(server.url, prompts(["a very secret question"]), text=False, path=path).close()
    assert b"secret" not in path.read_bytes()


@pytest.mark.parametrize(
    ("asked", "says"),
    [({"rate": 0}, "a rate of 0"), ({"concurrency": 0}, "--concurrency 0"), ({"top_k": 5, "nonsense": 1}, "nonsense")],
)
def test_what_cannot_be_asked_leaves_no_tape(tmp_path, asked, says):
    path = tmp_path / "none.tape"
    with MockServer(QUICK) as server, pytest.raises(UsageError, match=says):
        load(server.url, prompts(["a"]), path=path, **asked)
    assert not path.exists()


def test_messages_for_completions_are_refused_before_anything_is_sent():
    workload = Listed(((Turn(messages=({"role": "user", "content": "hi"},)),),), source="jsonl")
    with MockServer(QUICK) as server, pytest.raises(UsageError, match="messages for completions"):
        load(EndpointSource(server.url, api="completions"), workload)


def test_the_verb_is_there_whoever_imports_what():
    import tokentape as tt

    with MockServer(QUICK) as server, tt.load(server.url, "hello", requests=2, concurrency=1) as tape:
        assert len(tape.runs) == 2 and tt.metrics(tape).n_requests == 2


def test_text_conversations_for_completions_are_one_text():
    talk = tuple(Turn(messages=({"role": "user", "content": f"turn {i}"},), n_new=2) for i in range(2))
    with (
        MockServer(QUICK) as server,
        load(server.url, Listed((talk,), ("one",), source="sharegpt"), concurrency=1) as tape,
    ):
        first, second = tape.traces
        assert first.prompt_text == "turn 0"
        assert second.prompt_text == f"turn 0\n\n{first.text}\n\nturn 1"


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="processes are found through /proc")
def test_client_processes_end_with_their_parent(tmp_path):
    code = "import sys; from tokentape.load.loading import load; from tokentape.load.workloads import Synthetic; "
    code += "load(sys.argv[1], Synthetic(10, 40), concurrency=2, duration_ns=10**11, processes=2, path='p.tape')"
    with MockServer(SLOW) as server:
        parent = subprocess.Popen([sys.executable, "-c", code, server.url], cwd=tmp_path)
        children = f"/proc/{parent.pid}/task/{parent.pid}/children"
        found, deadline = [], time.monotonic() + 60
        while len(found) < 2 or sum(one.n_tokens for one in server.log.sent) < 60:
            assert parent.poll() is None and time.monotonic() < deadline
            found = [int(one) for one in Path(children).read_text().split()]
            time.sleep(0.1)
        parent.kill()
        parent.wait()
        while any(_runs(one) for one in found):
            assert time.monotonic() < deadline
            time.sleep(0.1)
    with open_tape(tmp_path / "p.tape") as tape:  # and what was flushed until then is there
        assert tape.runs and tape.state != "complete"


def _runs(process):
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
