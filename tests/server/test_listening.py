"""Ports, hosts and tokens: what is chosen, what is kept for the next time, what is refused."""

from __future__ import annotations

import json
import os
import socket
import stat
from pathlib import Path

import pytest

from tokentape.errors import UsageError
from tokentape.server.listening import DEFAULT_PORT, TOKEN_VARIABLE, listen
from tokentape.server.remembering import Remembered, fresh_token, recall, remember


@pytest.fixture(autouse=True)
def state(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    return tmp_path / "state" / "tokentape" / "served"


@pytest.fixture
def taken():
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        opened.listen()
        yield opened.getsockname()[1]


def port_of(listening):
    listening.socket.close()
    return listening.gate.port


def test_a_server_that_is_started_again_has_its_port_and_its_token(tmp_path):
    first = listen(tmp_path / "a.tape")
    port_of(first)
    second = listen(tmp_path / "a.tape")
    assert second.url == first.url
    third = listen(tmp_path / "a.tape")  # beside the second: another port, and the second keeps its own
    assert third.gate.port != second.gate.port and third.gate.token == first.gate.token
    port_of(second), port_of(third)
    assert port_of(listen(tmp_path / "a.tape")) == first.gate.port
    other = listen(tmp_path / "b.tape")
    assert other.gate.token != first.gate.token
    port_of(other)


def test_a_port_that_is_taken_is_refused_where_it_was_asked_for(tmp_path, taken):
    with pytest.raises(UsageError, match=f"port {taken} is taken") as refused:
        listen(tmp_path / "a.tape", port=taken)
    assert "--port" in refused.value.fix
    remember(tmp_path / "a.tape", Remembered(taken, fresh_token()))
    assert port_of(listen(tmp_path / "a.tape")) != taken


def test_the_usual_port_is_the_first_choice(tmp_path):
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", DEFAULT_PORT))
        except OSError:
            pytest.skip("it is in use here")
    assert port_of(listen(tmp_path / "a.tape")) == DEFAULT_PORT


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_other_machines_are_let_in_only_where_that_is_said(tmp_path, host):
    with pytest.raises(UsageError, match="open to other machines") as refused:
        listen(tmp_path / "a.tape", host=host)
    assert "ssh -L" in refused.value.fix and "--allow-remote" in refused.value.fix
    assert "prompts" in refused.value.why


def test_a_server_for_all_addresses_knows_them(tmp_path):
    listening = listen(tmp_path / "a.tape", host="0.0.0.0", allow_remote=True)
    port = port_of(listening)
    assert listening.gate.knows_host(f"203.0.113.9:{port}") and listening.gate.knows_host(f"localhost:{port}")
    assert not listening.gate.knows_host(f"evil.example:{port}")


@pytest.mark.parametrize("host", ["no such host", "host.invalid", ""])
def test_a_host_that_is_none_is_refused(tmp_path, host):
    with pytest.raises(UsageError):
        listen(tmp_path / "a.tape", host=host, port=None)


def test_what_is_kept_is_for_its_owner_alone(tmp_path, state):
    remember(tmp_path / "a.tape", Remembered(1234, fresh_token()))
    (file,) = state.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600 and stat.S_IMODE(state.stat().st_mode) == 0o700


@pytest.mark.parametrize(
    "spoil",
    [
        lambda file: file.chmod(0o644),
        lambda file: file.write_text("{"),
        lambda file: file.write_text(json.dumps({"port": 80, "token": "short"})),
        lambda file: file.write_text(json.dumps({"port": "80", "token": "x" * 43})),
        lambda file: file.write_text(json.dumps({"port": 99999, "token": "x" * 43})),
        lambda file: file.write_text(json.dumps([1])),
        lambda file: file.write_text(json.dumps({"port": 80, "token": "x" * 42 + "\n"})),
        lambda file: (file.rename(file.with_suffix(".x")), file.symlink_to(file.with_suffix(".x"))),
    ],
)
def test_what_cannot_be_trusted_is_not_believed(tmp_path, state, spoil):
    remember(tmp_path / "a.tape", Remembered(1234, fresh_token()))
    (file,) = state.iterdir()
    assert recall(tmp_path / "a.tape") is not None
    spoil(file)
    assert recall(tmp_path / "a.tape") is None


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_home_that_cannot_be_written_does_not_matter(tmp_path, monkeypatch):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    monkeypatch.setenv("XDG_STATE_HOME", str(closed))
    port_of(listen(tmp_path / "a.tape"))


def test_a_relative_state_folder_is_none(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", "here")
    monkeypatch.setenv("HOME", str(tmp_path))
    remember(tmp_path / "a.tape", Remembered(1234, fresh_token()))
    assert not Path("here").exists() and (tmp_path / ".local/state/tokentape/served").is_dir()


def test_a_token_of_ones_own(tmp_path, monkeypatch):
    monkeypatch.setenv(TOKEN_VARIABLE, "my-own_token-0123456789")
    listening = listen(tmp_path / "a.tape")
    port_of(listening)
    assert listening.gate.token == "my-own_token-0123456789" and listening.url.endswith(
        "?token=my-own_token-0123456789"
    )
    for bad in ("short", "white space 0123456789", "ünïcödé-0123456789", "a&token=b0123456789"):
        monkeypatch.setenv(TOKEN_VARIABLE, bad)
        with pytest.raises(UsageError, match=TOKEN_VARIABLE):
            listen(tmp_path / "a.tape")


def test_tokens_are_long_and_never_the_same():
    tokens = {fresh_token() for _ in range(100)}
    assert len(tokens) == 100 and min(map(len, tokens)) >= 43
