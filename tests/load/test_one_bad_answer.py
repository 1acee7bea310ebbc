"""One bad answer is the fault of one request: in the loop, in the writer, and where a whole process goes."""

import os
from pathlib import Path

import pytest

from load.flights_on_paper import MS, Heard, PaperLauncher, World, talk
from served_tapes import SETTING
from tokentape.data.exchange import Exchange
from tokentape.data.request import Run, TraceHead
from tokentape.data.tape import open_tape, verify
from tokentape.load import loading
from tokentape.load.engine import Engine
from tokentape.load.errands import Errands
from tokentape.load.loading import load
from tokentape.load.workloads import Synthetic
from tokentape.mock.script import Script
from tokentape.mock.serving import MockServer
from tokentape.recorder.many import ManyRuns
from tokentape.recorder.tick import LiveRun, Said, Tick


class Exploding(PaperLauncher):
    """The flight of request 2 raises at its second chunk; request 4 cannot be made."""

    def launch(self, errand):
        if errand.conversation.number == 4:
            raise ValueError("no such \ud800\nfield")
        flight = super().launch(errand)
        if errand.conversation.number == 2:
            real = flight.advance

            def advance(now):
                if len(flight.left) < 2:
                    raise MemoryError
                return real(now)

            flight.advance = advance
        return flight


def test_the_loop_goes_on_after_a_flight_that_raises():
    world, heard = World(), Heard()
    errands = Errands(((i * MS, talk(i)) for i in range(6)), cap=None, closed=False, until_ns=None)
    engine = Engine(errands, Exploding(world), heard, world, origin=0)
    while engine.step():
        pass
    faults = {key: (one.fault, one.error) for key, (_, one) in heard.ends.items()}
    assert faults.pop(2) == ("malformed", "MemoryError")
    assert faults.pop(4) == ("malformed", "it could not be made: ValueError: no such \ufffd field")
    assert faults == dict.fromkeys((0, 1, 3, 5), (None, None))
    assert heard.ends[2][0] == heard.ends[4][0] == ["error"]
    assert [s.data for t in heard.ticks[2] for s in t.said] == [b"a"]  # its good part
    assert (engine.counts.done, engine.counts.failed, engine.counts.under_way) == (4, 2, 0)


class _Speller:
    def feed(self, token_id):
        return b""

    def piece(self, token_id):
        return ("\ud800" if token_id == 7 else f"<{token_id}>", b"x", False)


def live(**head):
    told = {"n_prompt": 1, "prompt_ids": None, "prompt_text": "hi", **head}
    return LiveRun(Run((TraceHead(0, **told),), {"max_tokens": 3}), 0, iter(()), lambda: (), spellers=[_Speller()])


def tick(place, token_id=1, logprob=-1.0):
    said = (Said(0, token_id, b"x", logprob),)
    return Tick("chunk", 1, place * MS, (place + 1) * MS, said=said, read=(place + 1) * MS, parsed=(place + 1) * MS)


BAD = {
    "nan": [tick(2, logprob=float("nan"))],
    "huge id": [tick(2, token_id=1 << 70)],
    "no number": [tick(2, logprob="much")],
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
@pytest.mark.parametrize("apart", [True, False])
def test_a_chunk_that_no_tape_can_hold_ends_its_own_run(tmp_path, bad, apart):
    path = tmp_path / "a.tape"
    with ManyRuns(path, SETTING, 0) as tape:
        for key in (0, 1):
            tape.begin(key, live())
            tape.add(key, [tick(0), tick(1)])
            if apart:
                tape.flush()
        tape.add(0, [*bad, tick(3)])
        tape.flush()
        tape.add(0, [tick(4)])
        tape.add(1, [tick(2, token_id=7), tick(3)])
        spoiled = tape.end(0, ["stop"], Exchange(ended_ns=5 * MS))
        well = tape.end(1, ["stop"], Exchange(ended_ns=5 * MS))
    assert well == Exchange(ended_ns=5 * MS) and spoiled.fault == "malformed"
    with open_tape(path) as found:
        assert [len(trace.tokens["id"]) for trace in found.traces] == [2, 4]
        assert [trace.finish_reason for trace in found.traces] == ["error", "stop"]
        assert found.exchanges[0].fault == "malformed" and "no tape can hold" in found.exchanges[0].error
        assert found.exchanges[1].fault is None and found.state == "complete"
        assert list(found.traces[1].tokens["id"]) == [1, 1, 7, 1]
    assert verify(path) == []


@pytest.mark.parametrize(
    "what",
    [{"request_id": "x\ud800"}, {"usage": {"n": float("nan")}}, {"n_prompt": 1 << 70}, {"server": {"a": {1, 2}}}],
    ids=str,
)
def test_what_passed_is_kept_but_for_what_does_not_fit(tmp_path, what):
    path = tmp_path / "b.tape"
    with ManyRuns(path, SETTING, 0) as tape:
        tape.begin(0, live())
        tape.add(0, [tick(0)])
        told = tape.end(0, ["stop"], Exchange(ended_ns=5 * MS, model="m", n_completion=1, **what))
    assert (told.fault, told.model, told.n_completion, told.ended_ns) == ("malformed", "m", 1, 5 * MS)
    with open_tape(path) as found:
        assert found.exchanges[0].fault == "malformed" and found.state == "complete"
        assert found.traces[0].finish_reason == "stop" and len(found.traces[0].tokens["id"]) == 1
    assert verify(path) == []


@pytest.mark.parametrize("head", [{"prompt_text": "\ud800"}, {"n_prompt": 1 << 70}], ids=str)
def test_a_head_that_does_not_fit_begins_all_the_same(tmp_path, head):
    path = tmp_path / "c.tape"
    with ManyRuns(path, SETTING, 0) as tape:
        tape.begin(0, live(**head))
        tape.add(0, [tick(0)])
        assert tape.end(0, ["stop"], Exchange(ended_ns=5 * MS)).fault == "malformed"
    with open_tape(path) as found:
        assert len(found.traces[0].tokens["id"]) == 1
    assert verify(path) == []


def test_a_process_that_breaks_says_why_on_the_tape_and_not_on_the_terminal(tmp_path, monkeypatch, capfd):
    here = Path(__file__).parent
    monkeypatch.setenv("PYTHONPATH", f"{here}{os.pathsep}{here.parent}")
    monkeypatch.setattr(loading, "Making", lambda *of: Falling(*of))
    path = tmp_path / "f.tape"
    with (
        MockServer(Script.steady(6, ttft_us=5_000, gap_us=2_000)) as server,
        load(server.url, Synthetic(20, 6), concurrency=2, requests=20, path=path) as tape,
    ):
        reasons = [trace.finish_reason for trace in tape.traces]
        assert reasons.count("length") == 4 and set(reasons[4:]) <= {"error", "length"}
        (reason,) = [one for one in tape.notes["client"]["reasons"] if "ended with" in one]
        assert reason == "client process 0 ended with 1: LookupError: no room here"
        assert tape.state == "partial"
    said = capfd.readouterr()
    assert "Traceback" not in said.err + said.out


class Falling:
    """A launcher whose process breaks when the fifth flight has landed; made there."""

    def __init__(self, *of):
        from tokentape.load.launching import Making

        self._making = Making(*of)

    def __call__(self):
        launcher = self._making()
        real, landed = launcher.landed, []

        def count(flight):
            landed.append(flight)
            if len(landed) == 5:
                raise LookupError("no room\nhere")
            real(flight)

        launcher.landed = count
        return launcher


def test_what_was_sent_is_kept_where_the_parent_raises(tmp_path):
    def observer(now):
        if now["done"] >= 3:
            raise OSError("the terminal is gone")

    path = tmp_path / "o.tape"
    with MockServer(Script.steady(6, ttft_us=5_000, gap_us=2_000)) as server, pytest.raises(OSError, match="terminal"):
        load(server.url, Synthetic(20, 6), concurrency=2, requests=400, observer=observer, path=path)
    with open_tape(path) as tape:
        assert tape.state == "partial"
        assert sum(trace.finish_reason == "length" for trace in tape.traces) >= 3
    assert verify(path) == []
