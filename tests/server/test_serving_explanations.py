"""A question that a page asks: who may ask it, what it says, and that it waits for nobody's recording."""

from __future__ import annotations

import json

import pytest
from served import serving, shelf_of_one
from test_following import Writing

import tokentape
from tokentape import Line, ScriptedSource
from tokentape.errors import ReplayError
from tokentape.server.folder import Shelf


class Answering:
    """Notes what it is asked."""

    def __init__(self, *, offers=True, error=None):
        self.asked = []
        self._offers = offers
        self._error = error

    def offers(self, tape):
        return self._offers

    def explain(self, path, trace, position):
        if self._error is not None:
            raise self._error
        self.asked.append((path.name, trace, position))


@pytest.fixture
def tape_path(tmp_path):
    path = tmp_path / "cat.tape"
    source = ScriptedSource([Line(5, [" mat"]), Line(1, [" and"])])
    tokentape.record(source, "The cat sat", path=path, probe="timing").close()
    return path


def ask(served, client, body, **headers):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return client.post("/explain", content=content, headers={"x-tokentape-proof": served.gate.proof, **headers})


def test_a_token_is_asked_about_by_its_place(tape_path):
    explainer = Answering()
    with serving(shelf_of_one(tape_path), explainer=explainer) as served, served.client() as client:
        assert ask(served, client, {"tape": "cat.tape", "trace": 0, "place": 4}).json() == {"done": True}
        assert ask(served, client, {"tape": None, "trace": 0, "place": 3}).status_code == 200
    assert explainer.asked == [("cat.tape", 0, 4), ("cat.tape", 0, 3)]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff",
        b"[" * 3000,
        b" " * 5000,
        {"tape": "cat.tape"},
        {"tape": "cat.tape", "trace": "x", "place": 3},
        {"tape": "../cat.tape", "trace": 0, "place": 3},
        {"tape": "cat.tape", "trace": 9, "place": 3},
        {"tape": "cat.tape", "trace": -1, "place": 3},
        {"tape": "cat.tape", "trace": 0, "place": 2},
        {"tape": "cat.tape", "trace": 0, "place": 5},
        {"tape": ["cat.tape"], "trace": 0, "place": None},
    ],
)
def test_what_is_no_question_gets_no_answer(tape_path, body):
    explainer = Answering()
    with serving(shelf_of_one(tape_path), explainer=explainer) as served, served.client() as client:
        answer = ask(served, client, body)
    assert answer.status_code in (400, 404, 409)
    assert set(answer.json()) == {"what", "why", "fix"} and all(answer.json().values())
    assert explainer.asked == []


def test_only_the_page_may_ask(tape_path):
    explainer = Answering()
    body = {"tape": "cat.tape", "trace": 0, "place": 3}
    with serving(shelf_of_one(tape_path), explainer=explainer) as served, served.client() as client:
        for headers in (
            {"x-tokentape-proof": ""},
            {"x-tokentape-proof": served.gate.proof[:-1]},
            {"x-tokentape-proof": served.gate.token},
            {"origin": "http://evil.example"},
            {"host": "evil.example"},
            {"sec-fetch-site": "same-site"},
            {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"},
        ):
            wrong = ask(served, client, body, **headers)
            assert wrong.status_code == 403, headers
        with served.client(entered=False) as stranger:
            assert ask(served, stranger, body).status_code == 403
    assert explainer.asked == []


def test_a_tape_that_grows_is_not_explained(tmp_path):
    tape, explainer = Writing(tmp_path / "a.tape"), Answering()
    tape.steps(2)
    with serving(shelf_of_one(tape.path), explainer=explainer) as served, served.client() as client:
        answer = ask(served, client, {"tape": "a.tape", "trace": 0, "place": 2})
    tape.finish()
    assert answer.status_code == 409 and "recorded" in answer.json()["what"]
    assert explainer.asked == []


def test_an_error_is_told_in_its_three_lines(tape_path):
    error = ReplayError("it computes something else", why="the gap is 3 nats", fix="tokentape replay cat.tape")
    with serving(shelf_of_one(tape_path), explainer=Answering(error=error)) as served, served.client() as client:
        answer = ask(served, client, {"tape": "cat.tape", "trace": 0, "place": 3})
    assert (answer.status_code, answer.json()) == (409, {"what": error.what, "why": error.why, "fix": error.fix})


def test_a_model_that_is_not_at_hand_is_not_offered(tape_path):
    from served import document_of

    with serving(shelf_of_one(tape_path), explainer=Answering(offers=False)) as served, served.client() as client:
        live = document_of(client.get("/").text)["live"]
        assert ask(served, client, {"tape": "cat.tape", "trace": 0, "place": 3}).status_code == 409
    assert live["explain"] is None and live["proof"] is None
    with serving(shelf_of_one(tape_path), explainer=Answering()) as served, served.client() as client:
        assert document_of(client.get("/").text)["live"]["explain"] == "/explain"
    with serving(shelf_of_one(tape_path)) as served, served.client() as client:
        assert ask(served, client, {"tape": "cat.tape", "trace": 0, "place": 3}).status_code == 404


def test_the_demo_answers_and_the_tape_has_it(tmp_path):
    from tokentape.cli.serving import OnDemand

    path = tmp_path / "fox.tape"
    tokentape.record(tokentape.local("demo"), "The fox", path=path, max_new_tokens=2).close()
    with tokentape.open(path) as tape:
        place = len(tape.traces[0].prompt_ids) + 1
    with serving(Shelf(folder=tmp_path), explainer=OnDemand(None)) as served, served.client() as client:
        assert ask(served, client, {"tape": "fox.tape", "trace": 0, "place": place}).json() == {"done": True}
    with tokentape.open(path) as tape:
        (found,) = tape.explanations
        assert list(found.targets) == [place] and found.check is not None


def test_only_a_model_that_needs_no_download_is_at_hand(tmp_path):
    from tokentape.cli.serving import OnDemand

    def tape(**facts):
        return tokentape.record(ScriptedSource([Line(1, ["x"])], facts=facts), "p", probe="timing")

    assert OnDemand(None).offers(tape(model="demo"))
    assert OnDemand(None).offers(tape(model="mine", model_path=str(tmp_path)))
    assert not OnDemand(None).offers(tape(model="org/name", model_path=str(tmp_path / "gone")))
    assert not OnDemand(None).offers(tape(model="org/name"))
    assert OnDemand("org/name").offers(tape(model="org/name"))
