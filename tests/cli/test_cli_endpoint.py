"""`tokentape record --endpoint`: what comes out where, what is refused before a server is asked, what is kept."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import tokentape
from tokentape.cli.record import command
from tokentape.cli.record_endpoint import endpoint_of
from tokentape.mock.faults import parse_fault
from tokentape.mock.script import Script
from tokentape.mock.serving import MockServer

Tape = Callable[..., Any]
FAST = Script.steady(12, ttft_us=500, gap_us=500)


@pytest.fixture(autouse=True)
def empty_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TOKENTAPE_DIR", raising=False)


@pytest.fixture
def server() -> Iterator[MockServer]:
    with MockServer(FAST) as found:
        yield found


def breaking(fault: str) -> MockServer:
    """A server whose probe goes well, and whose next answer breaks so."""
    return MockServer([FAST, Script.steady(12, ttft_us=500, gap_us=500, faults=(parse_fault(fault),))])


def test_stdout_is_the_text_and_stderr_the_rest(tape: Tape, server: MockServer) -> None:
    done = tape("record", "--endpoint", server.url, "The cat", "-n", 8, "--greedy", "-o", "cat.tape")
    with tokentape.open("cat.tape") as found:
        text = found.traces[0].text
    assert (done.code, done.out) == (0, f"{text}\n")
    assert "TTFT" in done.err and "tokentape show cat.tape" in done.err
    assert tape("verify", "cat.tape").code == 0
    assert tape("show", "cat.tape").code == 0
    assert tape("show", "cat.tape", "--json").code == 0


def test_json_is_one_document(tape: Tape, server: MockServer) -> None:
    done = tape("record", "--endpoint", server.url, "The cat", "-n", 8, "--json")
    found = json.loads(done.out)
    assert (found["command"], found["state"], found["setting"]["engine"]) == ("record", "complete", "vllm")
    assert Path(found["tape"]).name.startswith("127.0.0.1-2")


def test_the_prompt_may_come_from_a_file_or_as_ids(tape: Tape, server: MockServer) -> None:
    Path("p.txt").write_text("The cat\n")
    assert tape("record", "--endpoint", server.url, "-f", "p.txt", "-n", 3, "-o", "a.tape").code == 0
    assert tape("record", "--endpoint", server.url, "--prompt-ids", "3,1,4", "-n", 3, "-o", "b.tape").code == 0
    with tokentape.open("a.tape") as first, tokentape.open("b.tape") as second:
        assert first.traces[0].prompt_text == "The cat"
        assert second.traces[0].prompt_ids.tolist() == [3, 1, 4]


def test_a_chat_with_a_system_text(tape: Tape, server: MockServer) -> None:
    done = tape("record", "--endpoint", server.url, "It is?", "--system", "Be brief.", "-n", 3, "-o", "a.tape")
    assert done.code == 0
    with tokentape.open("a.tape") as found:
        assert found.setting.facts["api"] == "chat"
        assert found.traces[0].run.options["messages"][0] == {"role": "system", "content": "Be brief."}


def test_further_fields_and_attempts(tape: Tape) -> None:
    with breaking("status:code=503") as server:
        done = tape(
            *("record", "--endpoint", server.url, "It is", "-n", 3, "--retries", 2, "-o", "a.tape"),
            *("--extra-body", '{"priority": 1}', "--timeout", 5),
        )
    assert done.code == 0
    with tokentape.open("a.tape") as found:
        assert [one.status for one in found.exchanges.values()] == [503, 200]
        assert found.exchanges[1].retry_of == 0
        assert found.traces[1].run.options["priority"] == 1


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["--dtype", "float32"], "--dtype with --endpoint"),
        (["--device", "cpu"], "--device with --endpoint"),
        (["--threads", "2"], "--threads with --endpoint"),
        (["--regex", "a+"], "--regex with --endpoint"),
        (["--window", "30"], "--window with --endpoint"),
        (["--extra-body", "[1]"], "--extra-body is no object"),
        (["--extra-body", "{"], "--extra-body is no JSON"),
        (["--extra-body", '{"stream": false}'], "stream in the extra body"),
        (["--header-env", "X-Team"], "not HEADER=NAME"),
        (["--header-env", "Host=HOME"], "the header Host is set by the recording itself"),
        (["--extra-body", '{"a": "\\ud800"}'], "the extra body is no JSON"),
        (["--ca-file", "cert.pem"], "a file of certificates for a server without TLS"),
        (["--seed", "99999999999999999999"], "seed=99999999999999999999"),
        (["--chat", "--api", "completions"], "--chat with --api completions"),
        (["--timeout", "0"], "--timeout 0 is no time"),
        (["--timeout", "soon"], "fix: --timeout 2m"),
        (["--timeout", "-3s"], "--timeout -3s is no time"),
        (["--timeout", "20000d"], "timeout=1728000000"),
        (["--greedy", "--do-sample"], "--greedy together with"),
        (["--num-beams", "4"], "beam search"),
    ],
)
def test_what_is_refused_before_the_server_is_asked(tape: Tape, words: list[str], what: str) -> None:
    done = tape("record", "--endpoint", "http://127.0.0.1:1", "It is", *words)
    assert done.code == 2 and what in done.err
    assert done.out == "" and not list(Path().glob("*.tape"))


@pytest.mark.parametrize(
    ("text", "ns"), [("500ms", 5 * 10**8), ("30s", 3 * 10**10), ("2m", 12 * 10**10), ("1.5", 15 * 10**8)]
)
def test_a_time_to_wait_is_written_as_every_other_time(text: str, ns: int) -> None:
    words = ["--endpoint", "http://127.0.0.1:1", "x", "--timeout", text]
    limits = endpoint_of(command.make_context("record", words).params).limits
    assert (limits.first_ns, limits.between_ns) == (ns, ns)


@pytest.mark.parametrize(
    "flag", ["--served-model=x", "--timeout=3s", "--insecure", "--no-probe", "--api=chat", "--retries=1"]
)
def test_options_of_a_server_want_a_server(tape: Tape, flag: str) -> None:
    done = tape("record", "demo", "It is", flag)
    assert done.code == 2 and f"{flag.partition('=')[0]} without --endpoint" in done.err


@pytest.mark.parametrize("ids", ["1,-2", "1,2147483648"])
def test_ids_that_are_none_are_refused_before_the_server_is_asked(tape: Tape, ids: str) -> None:
    done = tape("record", "--endpoint", "http://127.0.0.1:1", "--prompt-ids", ids)
    assert done.code == 2 and "among the ids of the prompt" in done.err
    assert not list(Path().glob("*.tape"))


def test_a_blank_key_is_refused(tape: Tape, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", " ")
    done = tape("record", "--endpoint", "http://127.0.0.1:1", "It is")
    assert done.code == 2 and "OPENAI_API_KEY is blank" in done.err


def test_a_path_with_spaces_and_letters_of_all_kinds_is_escaped(tape: Tape) -> None:
    done = tape("record", "--endpoint", "http://127.0.0.1:1/a b/ä", "It is")
    assert done.code == 5 and "http://127.0.0.1:1/a%20b/%C3%A4/v1" in done.err


def test_a_request_that_came_through_at_last_is_complete(tape: Tape) -> None:
    with breaking("status:code=503") as server:
        tape("record", "--endpoint", server.url, "It is", "-n", 3, "--retries", 2, "-o", "a.tape")
    with tokentape.open("a.tape") as found:
        assert found.state == "complete" and len(found.exchanges) == 2


def test_no_prompt_and_no_model(tape: Tape) -> None:
    assert "no prompt was given" in tape("record", "--endpoint", "http://127.0.0.1:1").err
    assert "no model was given" in tape("record").err


@pytest.mark.parametrize("more", [(), ("--requests", "3")])
def test_advice_is_what_can_be_typed_in_a_shell(tape: Tape, more: tuple[str, ...]) -> None:
    there = ("record", "--endpoint", "http://127.0.0.1:1", *more)
    done = tape(*there, "demo", "Hi")
    assert (
        "that is --served-model NAME\nfix: put the prompt in quotes: tokentape record --endpoint URL 'demo Hi'"
        in done.err
    )
    Path("picture.png").write_bytes(b"\x89PNG\r\n\x1a\n\0\0")
    for flag in ("-f", "--prompts"):
        done = tape(*there, flag, "picture.png")
        assert done.code == 2 and "picture.png holds no text" in done.err and "iconv" not in done.err


def test_several_answers_of_greedy_search_are_refused_in_words_of_the_shell(tape: Tape) -> None:
    with breaking("no_done") as server:
        done = tape("record", "--endpoint", server.url, "Hi", "--num-return-sequences", 3, "--greedy")
    assert done.code == 2 and "fix: --do-sample instead of --greedy" in done.err


def test_nobody_there_is_exit_code_5(tape: Tape) -> None:
    done = tape("record", "--endpoint", "http://127.0.0.1:1", "It is")
    assert done.code == 5
    assert done.err.startswith("error: no server answers at http://127.0.0.1:1/v1\nwhy: Connection refused\nfix: ")
    found = json.loads(tape("record", "--endpoint", "http://127.0.0.1:1", "It is", "--json").out)
    assert found["error"]["type"] == "Unreachable"


def test_an_error_in_chinese(tape: Tape, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "zh_CN.UTF-8")
    done = tape("record", "--endpoint", "http://127.0.0.1:1", "It is")
    assert "http://127.0.0.1:1/v1 没有服务器应答" in done.err


def test_what_came_before_a_fault_is_kept_and_named(tape: Tape) -> None:
    with breaking("reset:at=4") as server:
        done = tape("record", "--endpoint", server.url, "It is", "-o", "a.tape")
    assert done.code == 1 and done.out == ""
    assert "what was recorded is in a.tape (partial)" in done.err and "the answer broke off" in done.err
    with tokentape.open("a.tape") as found:
        assert found.traces[0].exchange.fault == "reset" and found.traces[0].tokens.n_rows >= 3


def test_an_interrupt_keeps_what_came(tmp_path: Path) -> None:
    with breaking("stall:at=4,forever=1") as server:
        words = ["record", "--endpoint", server.url, "It is", "-o", "a.tape"]
        process = subprocess.Popen(
            [sys.executable, "-m", "tokentape", *words], cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE
        )
        path, deadline = tmp_path / "a.tape", time.monotonic() + 30
        while not path.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.5)
        os.kill(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    with tokentape.open(path) as found:
        (trace,) = found.traces
        assert trace.finish_reason == "interrupted" and trace.tokens.n_rows >= 4
        assert out.decode() == f"{trace.text}\n"


def test_torch_is_not_needed(server: MockServer, tmp_path: Path) -> None:
    program = f"""
import sys
from tokentape.cli.program import run
sys.modules["torch"] = sys.modules["transformers"] = None
assert run(["record", "--endpoint", {server.url!r}, "It is", "-n", "4", "-o", "a.tape", "-q"]) == 0
assert run(["show", "a.tape"]) == 0
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
