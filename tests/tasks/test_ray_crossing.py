"""What crosses between processes, and which clusters are refused before anything starts. Needs no Ray."""

from __future__ import annotations

import pickle
import socket
import sys
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tokentape.errors as errors
from tokentape.data.request import Run, TraceHead
from tokentape.errors import MissingExtra, ModelError, TokentapeError, Unreachable, UsageError
from tokentape.recorder.tick import LiveRun, Said, Tick
from tokentape.tasks.spread.cluster import Spread, cluster
from tokentape.tasks.spread.crossing import Answer, Moment, answered, packed
from tokentape.tasks.spread.relayed import Relayed

TREE = [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, TokentapeError)]


@pytest.mark.parametrize("kind", TREE)
def test_an_error_crosses_as_what_it_was(kind: type[TokentapeError]) -> None:
    def refuse() -> None:
        raise kind("what", why="why", fix="fix")

    there = pickle.loads(packed(answered(refuse)))
    with pytest.raises(kind) as raised:
        there.found()
    assert (type(raised.value), str(raised.value)) == (kind, "what\nwhy: why\nfix: fix")


def test_a_bug_in_a_worker_is_told_with_its_place() -> None:
    def broken() -> None:
        raise KeyError("lost")

    with pytest.raises(RuntimeError, match="in a worker: KeyError: 'lost'") as raised:
        pickle.loads(packed(answered(broken))).found()
    assert "in broken" in raised.value.__notes__[0]


def test_values_cross_with_their_read_only_parts() -> None:
    value = (1, b"\0tail\0", MappingProxyType({"a": [None, 0.1]}))
    assert Answer(packed(value)).found() == value


times = st.integers(-(10**15), 10**15)


@given(times, times, times, times)
def test_one_machine_has_one_clock(a: int, b: int, c: int, d: int) -> None:
    there, here = Moment("boot", a, b), Moment("boot", c, d)
    assert there.shift_ns(here, begun=(0, 10), ended=(5, 20)) == 0


@given(times, st.integers(0, 10**9), st.integers(0, 10**9), st.integers(0, 10**9), st.integers(-(10**12), 10**12))
def test_another_machines_marks_lie_between_sending_and_receiving(
    offset: int, before: int, took: int, after: int, wrong: int
) -> None:
    """A worker whose monotonic clock is off by ``offset`` and whose wall clock is ``wrong`` by any amount."""
    sent, began = 0, before
    ended, received = began + took, before + took + after
    there = Moment("other", ended + offset, ended + wrong)
    here = Moment("boot", received, received)
    shift = there.shift_ns(here, begun=(began + offset, sent), ended=(ended + offset, received))
    assert sent <= began + offset + shift and ended + offset + shift <= received
    if wrong == 0:
        assert shift == -offset, "clocks that agree are believed"


class Letters:
    """Spells ids as letters, and remembers what it fed."""

    def __init__(self) -> None:
        self.n = 0

    def feed(self, token_id: int) -> bytes:
        self.n += 1
        return b"%d:%c" % (self.n, token_id)

    def piece(self, token_id: int) -> tuple[str, bytes, bool]:
        return chr(token_id), b"%c" % token_id, False


def test_a_relayed_run_is_the_run() -> None:
    said = (Said(0, 65, logprob=-1.0, candidates=((66, -0.5),)), Said(1, 67), Said(0, 68))
    ticks = [Tick("prefill", 2, 100, 200, context=3, n_in=6, said=said, last=True)]
    heads = (TraceHead(0, 1, (70,), "F"), TraceHead(1, 1, (71,), "G"))
    live = LiveRun(
        Run(heads, {"score": {"documents": []}}),
        90,
        (t for t in ticks),
        lambda: ["given", "given"],
        [Letters(), Letters()],
    )
    here = pickle.loads(packed(Relayed.of(live))).here(sent=80)
    (tick,) = here.ticks
    assert tick.said is not None
    assert [one.data for one in tick.said] == [b"1:A", b"1:C", b"2:D"], "spelled once, in order, by the worker"
    assert (here.start, tick.start, tick.end, tick.n_in) == (90, 100, 200, 6)
    assert here.run.traces == heads and here.finish_reasons() == ["given", "given"]
    # whoever makes rows asks the first speller for the entries of all
    assert [here.spellers[0].piece(i) for i in (65, 66, 67, 68, 70, 71)] == [
        Letters().piece(i) for i in (65, 66, 67, 68, 70, 71)
    ]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("spread", "device", "says"),
    [
        (Spread(0), "auto", "at least one"),
        (Spread(2), "cuda:1", "a GPU of its own"),
        (Spread(2, "nowhere"), "auto", "HOST:6379"),
        (Spread(2, "ray://host:10001"), "auto", "host and port"),
        (Spread(2, "host:port"), "auto", "host and port"),
    ],
)
def test_what_cannot_be_is_refused(spread: Spread, device: str, says: str) -> None:
    with pytest.raises(UsageError) as raised:
        spread.check(device)
    assert says in str(raised.value)


def test_without_ray_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtra, match=r"Ray, which is not installed") as raised, cluster(Spread(2)):
        pass
    assert "tokentape[ray]" in raised.value.fix


def test_an_address_where_nobody_answers_is_unreachable() -> None:
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'tokentape[ray]'")
    with socket.socket() as taken:  # bound and not listening: nobody else gets the port meanwhile
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(Unreachable) as raised, cluster(Spread(2, address)):
            pass
    assert address in raised.value.what and "ray start --head" in raised.value.fix


def test_errors_have_codes_of_their_own() -> None:
    found: Any = answered(lambda: (_ for _ in ()).throw(ModelError("a", why="b", fix="c")))
    with pytest.raises(ModelError):
        found.found()
