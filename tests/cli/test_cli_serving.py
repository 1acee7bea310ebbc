"""``view`` without ``--html`` and ``record --live``: addresses, refusals, what stays and what ends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys

import httpx2
import pytest

import tokentape
from tokentape import Line, ScriptedSource


@pytest.fixture(autouse=True)
def state(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER", "TOKENTAPE_TOKEN"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def cat(tmp_path):
    path = tmp_path / "cat.tape"
    tokentape.record(ScriptedSource([Line(5, [" mat"])]), "The cat", path=path, probe="timing").close()
    return path


def heeding():
    """Ctrl-C is heard, even where the tests run in the background of a shell, which has what it starts ignore it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def started(*arguments, **options):
    command = [sys.executable, "-m", "tokentape", *map(str, arguments)]
    pipes = {"stderr": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, preexec_fn=heeding, **pipes, **options)


def address(process):
    for line in process.stderr:
        if found := re.search(r"http://\S+", line):
            return found[0]
    raise AssertionError(process.wait())


def test_view_serves_until_ctrl_c_and_again_at_the_same_address(cat):
    urls = []
    for _ in range(2):
        process = started("view", cat)
        urls.append(address(process))
        with httpx2.Client(trust_env=False, follow_redirects=True) as client:
            page = client.get(urls[-1])
        assert page.status_code == 200 and "cat.tape" in page.text
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out) == (0, "") and err.endswith("stopped\n")
    assert urls[0] == urls[1]


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (("absent.tape",), "there is no file absent.tape"),
        (("cat.tape", "--host", "0.0.0.0"), "open to other machines"),
        (("cat.tape", "--trace", "4"), "4"),
        ((".", "cat.tape"), "is a folder"),
        (("cat.tape", "./cat.tape"), "one name"),
        ((".", "--trace", "0"), "--trace"),
        (("broken.tape",), "not a tape"),
    ],
)
def test_what_cannot_be_served_is_refused_at_once(tape, cat, monkeypatch, arguments, what):
    monkeypatch.chdir(cat.parent)
    (cat.parent / "broken.tape").write_text("x")
    done = tape("view", *arguments)
    assert done.code in (2, 6) and what in done.err
    assert "why:" in done.err and "fix:" in done.err


def test_a_port_that_is_taken_is_told(tape, cat):
    process = started("view", cat)
    port = re.search(r":(\d+)/", address(process))[1]
    done = tape("view", cat, "--port", port)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert done.code == 2 and f"port {port} is taken" in done.err


def test_an_empty_folder_is_served_and_says_so(tmp_path):
    (tmp_path / "empty").mkdir()
    process = started("view", tmp_path / "empty")
    with httpx2.Client(trust_env=False, follow_redirects=True) as client:
        page = client.get(address(process)).text
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert '"tapes":[]' in page


@pytest.mark.parametrize("option", [("--port", "8000"), ("--no-browser",)])
def test_options_of_the_live_page_need_it(tape, asked, option):
    done = tape("record", "demo", "The fox", *option)
    assert done.code == 2 and f"{option[0]} without --live" in done.err


def test_record_live_shows_the_tape_and_stays(tmp_path):
    path = tmp_path / "fox.tape"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = started("record", "demo", "The fox", "-n", "5", "-o", path, "--live", env=environment)
    url = address(process)
    with httpx2.Client(trust_env=False, follow_redirects=True) as client:
        first = client.get(url).text
        assert "Waiting for fox.tape" in first or "tokentape-data" in first
        assert address(process) == url  # at the end: the page stays
        page = client.get(url.partition("?")[0]).text
        assert '"state":"complete"' in page
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        assert process.returncode == 0
        with pytest.raises(httpx2.ConnectError):
            client.get(url)


def test_the_page_ends_with_a_recorder_that_is_killed(tmp_path):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = started("record", "demo", "The fox", "-n", "5", "-o", tmp_path / "fox.tape", "--live", env=environment)
    url = address(process)
    process.kill()
    process.communicate(timeout=60)
    with httpx2.Client(trust_env=False) as client, pytest.raises(httpx2.TransportError):
        while True:
            client.get(url)


def test_record_live_fails_where_the_page_cannot_be_served(tape, cat, tmp_path):
    process = started("view", cat)
    port = re.search(r":(\d+)/", address(process))[1]
    done = subprocess.run(
        [sys.executable, "-m", "tokentape", "record", "demo", "x", "-o", tmp_path / "a.tape", "--live", "--port", port],
        capture_output=True,
        text=True,
        timeout=120,
    )
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert done.returncode == 2 and f"port {port} is taken" in done.stderr
    assert not (tmp_path / "a.tape").exists()
