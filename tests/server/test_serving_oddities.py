"""Odd folders and requests: one bad entry hides no other, nothing is told of what is not served, nothing waits without end."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import sys
from pathlib import Path

import pytest
from served import TOKEN, document_of, events, serving, shelf_of_one

import tokentape
import tokentape.server.documents as documents
import tokentape.server.gatekeeping as gatekeeping
from tokentape import Line, ScriptedSource
from tokentape.server.folder import Shelf
from tokentape.server.gatekeeping import Gate
from tokentape.server.listening import listen
from tokentape.views.folder import line_of, tapes_in


def write(path):
    tokentape.record(ScriptedSource([Line(5, [" mat"])]), "The cat", path=path, probe="timing").close()
    return path


def listed(client):
    return [tape["name"] for tape in document_of(client.get("/").text)["folder"]["tapes"]]


def test_links_that_lead_nowhere_and_in_a_circle_hide_no_tape(tmp_path):
    write(tmp_path / "cat.tape")
    for name, target in (
        ("circle", "circle"),
        ("one", "other"),
        ("other", "one"),
        ("nowhere", "gone"),
        ("device", "/dev/zero"),
    ):
        (tmp_path / f"{name}.tape").symlink_to(f"{target}.tape" if target[0] != "/" else target)
    assert {path.name for path in tapes_in(tmp_path)} > {"cat.tape", "circle.tape", "nowhere.tape"}
    assert line_of(tmp_path / "circle.tape").state == "unreadable"
    with serving(Shelf(folder=tmp_path)) as served, served.client() as client:
        assert listed(client) == ["cat.tape"]
        assert client.get("/tape", params={"name": "circle.tape"}).status_code == 404
        assert client.get("/tape", params={"name": "cat.tape"}).status_code == 200


@pytest.mark.parametrize("created", ['"yesterday"', "5", '"0001-01-01T00:00:00+00:00"', "[]"])
def test_a_tape_made_of_nonsense_hides_no_other(tmp_path, created):
    write(tmp_path / "cat.tape"), write(tmp_path / "odd.tape")
    with contextlib.closing(sqlite3.connect(tmp_path / "odd.tape")) as connection, connection:
        connection.execute("update tape set value = ? where key = 'created_utc'", (created,))
    with serving(Shelf(folder=tmp_path)) as served, served.client() as client:
        assert sorted(listed(client)) == ["cat.tape", "odd.tape"]


@pytest.mark.skipif(sys.platform != "linux", reason="file names are text there")
def test_a_name_that_is_no_text_can_be_opened(tmp_path):
    write(tmp_path / "cat.tape").rename(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.tape"))
    with serving(Shelf(folder=tmp_path)) as served, served.client() as client:
        assert client.get("/tape?name=%ff.tape").status_code == 200
        assert client.get("/tape?name=%fe.tape").status_code == 404


def test_of_a_tape_that_is_gone_nothing_is_told_of_its_neighbours(tmp_path):
    tape = write(tmp_path / "cat.tape")
    write(tmp_path / "private.tape")
    with serving(shelf_of_one(tape)) as served, served.client() as client:
        page = document_of(client.get("/").text)
        with client.stream("GET", page["live"]["events"], params={"since": page["live"]["since"]}) as response:
            tape.unlink()
            told = next(event.data for event in events(response) if event.name == "trouble" and event.data)
        answer = client.get("/")
    assert answer.status_code == 422
    for text in (answer.text, str(told)):
        assert "there is no file" in text and "private" not in text


def test_a_tape_that_goes_while_it_is_read_is_told_of_like_one_that_is_gone(tmp_path, monkeypatch):
    tape = write(tmp_path / "cat.tape")
    write(tmp_path / "private.tape")
    opened = documents.open_tape

    def late(path: Path) -> object:
        path.unlink()
        return opened(path)

    monkeypatch.setattr(documents, "open_tape", late)
    with serving(shelf_of_one(tape)) as served, served.client() as client:
        answer = client.get("/")
    assert answer.status_code == 422
    assert "there is no file" in answer.text and "private" not in answer.text


def test_what_nobody_foresaw_is_told_in_our_form_and_with_our_headers(tmp_path, monkeypatch):
    tape = write(tmp_path / "cat.tape")

    def broken(*_: object, **__: object) -> object:
        raise RuntimeError("a secret of the server")

    monkeypatch.setattr("tokentape.server.documents.page_document", broken)
    with serving(shelf_of_one(tape)) as served, served.client() as client:
        answer = client.get("/")
    assert answer.status_code == 500 and answer.text.startswith("error: ") and "secret" not in answer.text
    assert "default-src 'none'" in answer.headers["content-security-policy"]


def test_a_question_for_the_head_of_a_stream_ends(tmp_path):
    with serving(shelf_of_one(write(tmp_path / "cat.tape"))) as served, served.client() as client:
        for path in ("/events", "/folder/events"):
            assert client.head(path, timeout=5).status_code == 200


def test_a_ticket_that_nobody_came_with_is_void(monkeypatch):
    clock = [1000.0]
    monkeypatch.setattr(gatekeeping.time, "monotonic", lambda: clock[0])
    keeper = gatekeeping.Gatekeeper(lambda *_: None, Gate(token=TOKEN, port=1))  # type: ignore[arg-type,return-value]
    early, late = keeper._gate.ticket(), keeper._gate.ticket()
    clock[0] += gatekeeping.TICKET_SECONDS - 1
    assert keeper._opens("ticket", early) and not keeper._opens("ticket", early)
    clock[0] += 2
    assert not keeper._opens("ticket", late) and not keeper._opens("ticket", "")


def test_a_user_without_a_home_can_serve(tmp_path, monkeypatch):
    def homeless() -> None:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setattr("pathlib.Path.home", homeless)
    listening = listen(tmp_path / "a.tape")
    listening.socket.close()
    assert len(listening.gate.token) >= 32
