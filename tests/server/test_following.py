"""A tape that grows, seen by a page: every row once, in any order of events, over lost connections and restarts."""

from __future__ import annotations

import contextlib
import copy
import os
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from served import Served, document_of, events, merged, serving, shelf_of_one

import tokentape
from data.tapes import SETTING, awkward, step, token, write_run
from tokentape import Line, ScriptedSource
from tokentape.data import Run, TapeWriter, TraceHead, open_tape
from tokentape.server import following
from tokentape.server.documents import Asked, Pages
from tokentape.server.following import Feed, look
from tokentape.server.gatekeeping import Gate
from tokentape.server.rows import Mark, moment_of
from tokentape.views.page.document import page_document

COLUMNS = ("symbols", "tokens")


def columns_of(document):
    """What rows add up to: the columns of every trace and run, and the drawn pieces."""
    tape = document["tape"]
    runs = [{name: values for name, values in run.items() if name != "time"} for run in tape["runs"]]
    return [{name: trace[name] for name in COLUMNS} for trace in tape["traces"]], runs, tape["pieces"]


def whole(path):
    with open_tape(path) as tape:
        return page_document(tape)


# rows since any moment, held against the whole document

TOKEN = st.one_of(
    st.lists(st.integers(0, 255), max_size=5).map(bytes),
    st.sampled_from(
        [b"", b"\x80", b"\xa9", "猫".encode()[:1], "猫".encode()[1:], "🐈".encode()[:2], "🐈".encode()[2:], b"a"]
    ),
)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(TOKEN, min_size=1, max_size=14),
    st.lists(st.integers(0, 14), max_size=4),
    st.integers(0, 2),
)
def test_rows_since_any_step_add_up_to_the_whole(tmp_path_factory, data, moments, per_step):
    """Bytes at random are full of characters that begin in one token and end in another."""
    path = tmp_path_factory.mktemp("grown") / "a.tape"
    with TapeWriter.create(path, SETTING) as writer:
        head = TraceHead(0, 2, (250, 251), "p")
        begun = writer.begin(Run((head,), {}, start_ns=7))
        writer.add_pieces([(250, "a", b"a", False), (251, "b", "é".encode()[:1], False)])  # open into the continuation
        with open_tape(path) as tape:
            page, has = page_document(tape), 0
        position = 2
        stops = sorted({min(one, len(data)) for one in moments} | {len(data)})
        for index, raw in enumerate(data):
            n = 1 if per_step == 0 else index % (per_step + 1)  # steps that give no token, and several
            rows = [token(0, position + i, index, None, raw, id=index, logprob=-0.5) for i in range(n)]
            writer.append([step(begun.number, index, n)], rows)
            position += n
            if index + 1 in stops:
                with open_tape(path) as tape:
                    moment = moment_of(tape)
                merged(page, copy.deepcopy(moment.rows_since(has)))  # which is asked when the file is closed again
                assert columns_of(page) == columns_of(whole(path))
                assert moment.mark.steps == index + 1
                has = moment.mark.steps
        writer.end(begun.number, ["stop"])
    assert columns_of(page) == columns_of(whole(path))


def test_rows_of_a_batch_go_to_their_sequences(tmp_path):
    path = tmp_path / "b.tape"
    with TapeWriter.create(path, SETTING) as writer:
        write_run(writer, n_steps=8, n_traces=3)
        with open_tape(path) as tape:
            final = page_document(tape)
            for has in range(9):
                page = copy.deepcopy(final)
                for trace in page["tape"]["traces"]:
                    n = sum(at < has for at in trace["tokens"]["step"])
                    trace["tokens"] = {name: column[:n] for name, column in trace["tokens"].items()}
                    trace["symbols"] = {
                        name: column[: trace["n_prompt"] + n] for name, column in trace["symbols"].items()
                    }
                (run,) = page["tape"]["runs"]
                for name, column in run.items():
                    if isinstance(column, list):
                        run[name] = column[:has]
                merged(page, moment_of(tape).rows_since(has))
                assert columns_of(page) == columns_of(final), has


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "0123456789abcdef.0.1",
        "0123456789abcdef.0.1.\n",
        "g123456789abcdef.0.1.",
        "0123456789abcdef.0.-1.",
        "0123456789abcdef.٣.1.",
        "0123456789abcdef.0.9999999999999.",
    ],
)
def test_what_is_no_mark_is_none(text):
    assert Mark.parse(text) is None


def test_a_mark_comes_back_as_it_went():
    for mark in (Mark("0" * 16, -1, 0), Mark("f" * 16, 3, 12, "a" * 16)):
        assert Mark.parse(str(mark)) == mark


# over HTTP


class Writing:
    """A tape of one trace that grows step by step."""

    def __init__(self, path) -> None:
        self.path = path
        self.writer = TapeWriter.create(path, SETTING, overwrite=True)
        self.begun = self.writer.begin(Run((TraceHead(0, 2, (0, 1), "a prompt"),), {}, start_ns=90))
        self.n = 0

    def steps(self, n: int) -> None:
        for _ in range(n):
            self.writer.append([step(self.begun.number, self.n, 1)], [awkward(0, 2, self.n, 10_000)])
            self.n += 1

    def finish(self) -> None:
        self.writer.end(self.begun.number, ["length"])
        self.writer.close().close()


def opened(served: Served):
    with served.client() as client:
        return document_of(client.get("/").text)


def test_a_page_has_every_row_once_and_ends_with_the_final_document(tmp_path):
    tape = Writing(tmp_path / "a.tape")
    tape.steps(3)
    with serving(shelf_of_one(tape.path)) as served, served.client() as client:
        page = opened(served)
        assert page["tape"]["state"] == "recording"
        ids = [page["live"]["since"]]
        writer = threading.Thread(target=lambda: ([tape.steps(7) for _ in range(6)], tape.finish()))
        with client.stream("GET", page["live"]["events"], params={"since": ids[0]}) as response:
            assert response.headers["content-type"].startswith("text/event-stream")
            writer.start()
            for event in events(response):
                if event.name == "rows":
                    merged(page, event.data)
                    ids.append(event.id)
                    assert len(page["tape"]["runs"][0]["step_ns"]) == Mark.parse(event.id).steps
                elif event.name == "document":
                    final = event.data["document"]
                    break
                else:
                    assert event.name in ("sections", "trouble")
        writer.join()
    steps = [Mark.parse(one).steps for one in ids]
    assert steps == sorted(set(steps)) and steps[-1] <= 45
    expected = whole(tape.path)
    assert final["tape"] == expected["tape"] and final["tape"]["state"] == "complete"
    if steps[-1] == 45:
        assert columns_of(page) == columns_of(expected)


def test_sections_come_without_what_the_page_has(tmp_path):
    tape = Writing(tmp_path / "a.tape")
    tape.steps(3)
    with serving(shelf_of_one(tape.path)) as served, served.client() as client:
        page = opened(served)
        with client.stream("GET", page["live"]["events"], params={"since": page["live"]["since"]}) as response:
            tape.steps(4)
            found = next(event for event in events(response) if event.name == "sections").data["document"]
        tape.finish()
    assert "words" not in found and "live" not in found
    (trace,) = found["tape"]["traces"]
    assert not set(COLUMNS) & trace.keys() and {"distribution", "measures", "relevance"} <= trace.keys()
    assert found["tape"]["runs"][0].keys() == {"number", "time"}


@pytest.mark.parametrize("by_header", [True, False])
def test_a_page_goes_on_after_a_lost_connection_and_a_restart(tmp_path, by_header):
    tape = Writing(tmp_path / "a.tape")
    tape.steps(2)
    with serving(shelf_of_one(tape.path)) as served:
        page = opened(served)
        port = served.gate.port
    since, wanted = page["live"]["since"], iter(range(5, 100, 5))
    for _ in range(3):  # each time another server, and in between rows that nobody saw come
        tape.steps(5)
        with serving(shelf_of_one(tape.path), port=port) as served, served.client() as client:
            for _ in range(2):
                tape.steps(next(wanted) % 7 + 1)
                asked = {"headers": {"last-event-id": since}} if by_header else {"params": {"since": since}}
                with client.stream("GET", page["live"]["events"], **asked) as response:
                    for event in events(response):
                        if event.name == "rows":
                            merged(page, event.data)
                            since = event.id
                            if Mark.parse(since).steps == tape.n:
                                break
                        assert event.name != "document"
    tape.finish()
    assert columns_of(page) == columns_of(whole(tape.path))


def test_a_page_of_a_finished_tape_is_told_when_it_is_explained(tmp_path):
    path = tmp_path / "a.tape"
    tokentape.record(tokentape.local("demo"), "The fox", path=path, max_new_tokens=3).close()
    with serving(shelf_of_one(path)) as served, served.client() as client:
        page = opened(served)
        with client.stream("GET", page["live"]["events"], params={"since": page["live"]["since"]}) as response:
            _explain(path)
            event = next(events(response))
    assert event.name == "document"
    assert "missing" in page["tape"]["traces"][0]["relevance"]
    assert "missing" not in event.data["document"]["tape"]["traces"][0]["relevance"]


def _explain(path):
    from tokentape.data import add_explanations
    from tokentape.explain.explaining import explain

    add_explanations(path, [explain(path, step=0, method="saliency")])


def first(told: Iterator, name: str):
    return next(event for event in told if event.name == name)


class Told:
    """What a page knows that listens: the last trouble, and how many steps the last document has; None for no run."""

    def __init__(self, response) -> None:
        self.events = events(response)
        self.trouble, self.steps = None, -1

    def until(self, known) -> None:
        while not known(self):
            event = next(self.events)
            if event.name == "trouble":
                self.trouble = event.data and event.data["what"]
            elif event.name == "document":
                runs = event.data["document"]["tape"]["runs"]
                self.steps = len(runs[0]["step_ns"]) if runs else None


def test_a_tape_that_is_replaced_or_deleted_is_told(tmp_path):
    tape = Writing(tmp_path / "a.tape")
    tape.steps(3)
    tape.finish()
    with serving(shelf_of_one(tape.path)) as served, served.client() as client:
        page = opened(served)
        with client.stream("GET", page["live"]["events"], params={"since": page["live"]["since"]}) as response:
            told = Told(response)
            other = Writing(tape.path)
            other.steps(5)
            other.finish()
            told.until(lambda now: now.steps == 5 and now.trouble is None)
            os.unlink(tape.path)
            told.until(lambda now: now.trouble is not None and "there is no file" in now.trouble)
            last = Writing(tape.path)
            last.steps(2)
            last.finish()
            told.until(lambda now: now.steps == 2 and now.trouble is None)


def test_another_recording_in_a_file_of_the_same_number_is_read_anew(tmp_path, monkeypatch):
    """The system may give the number of a file that is gone to the one that comes in its place."""
    one, other = Writing(tmp_path / "a.tape"), Writing(tmp_path / "b.tape")
    one.steps(4), other.steps(2)
    feed = Feed(one.path, Pages(shelf_of_one(one.path), Gate(token="t", port=1), None, Asked()))
    feed.moment = feed._moment(look(one.path))
    kept = feed._tape
    opened_again = []
    monkeypatch.setattr(following, "open_tape", lambda path: opened_again.append(path) or open_tape(path))
    one.steps(1)
    feed.moment = feed._moment(look(one.path))
    assert (feed._tape, feed.moment.mark.steps, opened_again) == (kept, 5, [])
    feed.path = other.path
    feed._tape = open_tape(other.path)
    assert feed._moment(((feed._inode, 0, 0), None)).mark.steps == 2
    assert opened_again == [other.path]
    one.finish(), other.finish()


def test_a_recorder_that_was_killed_leaves_a_partial_tape(tmp_path):
    tape = Writing(tmp_path / "a.tape")
    tape.steps(3)
    with serving(shelf_of_one(tape.path)) as served, served.client() as client:
        page = opened(served)
        with client.stream("GET", page["live"]["events"], params={"since": page["live"]["since"]}) as response:
            tape.writer.database.close()  # as the kernel does it for a process that is gone
            tape.writer._mark.release()
            found = first(events(response), "document").data["document"]
    assert found["tape"]["state"] == "partial"


def test_a_run_that_begins_is_shown(tmp_path):
    tape = Writing(tmp_path / "a.tape")
    with serving(shelf_of_one(tape.path)) as served, served.client() as client:
        page = opened(served)
        assert page["tape"]["traces"][0]["symbols"]["text"] != [] and page["tape"]["traces"][0]["tokens"]["step"] == []
        with client.stream("GET", page["live"]["events"], params={"since": page["live"]["since"]}) as response:
            told = events(response)
            tape.steps(1)
            merged(page, first(told, "rows").data)
            tape.writer.end(0, ["length"])
            write_run(tape.writer, n_steps=2, n_traces=1)
            found = next(
                event for event in told if event.name == "document" and len(event.data["document"]["tape"]["runs"]) == 2
            )
        tape.writer.close().close()
    assert Mark.parse(found.id).run == 1


def test_a_guarded_text_is_not_told_before_it_is_judged(tmp_path):
    from tokentape.data.control import RuleHead

    path = tmp_path / "a.tape"
    with TapeWriter.create(path, SETTING) as writer:
        writer.begin(Run((TraceHead(0, 1, (0,), "p"),), {}, start_ns=0, rules=(RuleHead(0, "guard"),)))
        writer.append(
            [step(0, 0, 1)], [token(0, 1, 0, "secret", id=5, logprob=-1.0, candidates=[(5, -1.0), (6, -2.0)])]
        )
        writer.add_pieces([(5, "secret", b"secret", False), (6, "other", b"other", False)])
        with open_tape(path) as tape:
            rows = moment_of(tape).rows_since(0)
            open_rows = moment_of(tape, withheld=True).rows_since(0)
    (trace,) = rows["traces"]
    assert trace["symbols"]["ids"][-1] is None and trace["symbols"]["hex"][-1] is None
    assert "secret" not in repr(rows) and rows["pieces"] == {}
    assert trace["tokens"]["logprob"] == [-1]
    assert "secret" in repr(open_rows)


def test_a_slow_reader_gets_what_it_lacks_as_one(tmp_path):
    tape = Writing(tmp_path / "a.tape")
    with serving(shelf_of_one(tape.path)) as served, served.client() as client:
        page = opened(served)
        tape.steps(60)
        with client.stream("GET", page["live"]["events"], params={"since": page["live"]["since"]}) as response:
            event = first(events(response), "rows")
        tape.finish()
    assert len(event.data["run"]["step_ns"]) == 60 and event.data["run"]["from"] == 0


def test_streams_end_when_the_server_stops(tmp_path):
    tape = Writing(tmp_path / "a.tape")
    with contextlib.ExitStack() as open_streams:
        with serving(shelf_of_one(tape.path)) as served:
            client = open_streams.enter_context(served.client())
            told = [events(open_streams.enter_context(client.stream("GET", "/events"))) for _ in range(3)]
            for one in told:
                assert next(one).name == "document"
        assert [list(one) for one in told] == [[], [], []]
    tape.finish()


def test_a_source_on_paper_is_followed_to_its_end(tmp_path):
    """The recorder itself, in real time, at the other end of the file."""
    from tokentape.clock import HostClock

    path = tmp_path / "a.tape"
    script = [Line(20_000_000, [f" {i}"]) for i in range(40)]
    source = ScriptedSource(script, clock=HostClock())
    recording = threading.Thread(target=lambda: tokentape.record(source, "Count", path=path, probe="timing").close())
    with serving(shelf_of_one(path), waiting=True) as served, served.client() as client:
        assert "Waiting for a.tape" in client.get("/").text
        recording.start()
        while "tokentape-data" not in (text := client.get("/").text):
            pass
        page = document_of(text)
        with client.stream("GET", page["live"]["events"], params={"since": page["live"]["since"]}) as response:
            for event in events(response):
                if event.name == "rows":
                    merged(page, event.data)
                if event.name == "document":
                    page = event.data["document"]
                    if page["tape"]["state"] == "complete":
                        break
    recording.join()
    assert columns_of(page) == columns_of(whole(path))
    assert "".join(page["tape"]["traces"][0]["symbols"]["text"][-40:]) == "".join(f" {i}" for i in range(40))
