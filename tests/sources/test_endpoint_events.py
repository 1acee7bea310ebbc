"""The parser of event streams: against the standard's own examples, a twin that reads lines, and any split of the bytes."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokentape.sources.endpoint.events import Event, EventStream, EventTooLong


def read(*parts: bytes, close: bool = False) -> list[tuple[str | None, str]]:
    stream = EventStream()
    events = [event for number, part in enumerate(parts) for event in stream.feed(part, number)]
    events += stream.close() if close else []
    return [(event.name, event.data.decode()) for event in events]


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        # the examples of the standard, https://html.spec.whatwg.org/multipage/server-sent-events.html
        (b"data: YHOO\ndata: +2\ndata: 10\n\n", [(None, "YHOO\n+2\n10")]),
        (
            b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n",
            [(None, "first event"), (None, "second event"), (None, " third event")],
        ),
        (b"data\n\ndata\ndata\n\ndata:", [(None, ""), (None, "\n")]),
        (b"data:test\n\ndata: test\n\n", [(None, "test"), (None, "test")]),
        (b"event: add\ndata: 73857293\n\nevent: gone\n\ndata: x\n\n", [("add", "73857293"), (None, "x")]),
        (b"retry: 5\nunknown: 3\ndata:a:b: c\n\n", [(None, "a:b: c")]),
        (b"\xef\xbb\xbfdata: begun\n\n", [(None, "begun")]),
        (b"data: \xef\xbb\xbf\n\n", [(None, "\ufeff")]),
    ],
)
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_what_the_standard_says(stream, events, end):
    assert read(stream.replace(b"\n", end)) == events


def test_the_end_completes_an_event_that_lacks_its_blank_line():
    assert read(b"data: a\n\ndata: [DONE]") == [(None, "a")]
    assert read(b"data: a\n\ndata: [DONE]", close=True) == [(None, "a"), (None, "[DONE]")]
    assert read(b"data: a\n\ndata: [DONE]\n", close=True) == [(None, "a"), (None, "[DONE]")]
    assert read(b"data: a\n\n: only a comment", close=True) == [(None, "a")]


def test_an_event_has_the_stamp_of_its_last_byte():
    stream = EventStream()
    assert stream.feed(b"data: one\n\ndata: tw", "first") == [Event(b"one", "first")]
    assert stream.feed(b"o\n", "second") == []
    assert stream.feed(b"\ndata: three\n\n", "third") == [Event(b"two", "third"), Event(b"three", "third")]


LINES = st.lists(
    st.one_of(
        st.just(b""),
        st.sampled_from(
            [b"data", b"data:", b"data: ", b": comment", b":", b"event: e", b"id: 7", b"retry: 1", b"dat: no"]
        ),
        st.text(alphabet='aé猫🐈: {}"\\\0\u2028', max_size=8).map(lambda text: b"data: " + text.encode()),
    ),
    max_size=24,
)
ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])


def by_lines(data: bytes) -> list[str]:
    """A twin that has all the bytes at once, and knows nothing of splits."""
    found, lines = [], []
    for line in re.split(rb"\r\n|\n|\r", data)[:-1]:
        if line.startswith(b"data:"):
            lines.append(line[5:].removeprefix(b" "))
        elif line == b"data":
            lines.append(b"")
        elif not line and lines:
            found.append(b"\n".join(lines).decode())
            lines = []
    return found


@given(LINES, st.lists(ENDS, min_size=24, max_size=24), st.lists(st.integers(0, 400), max_size=8))
def test_any_split_gives_the_same_events(lines, ends, cuts):
    data = b"".join(line + end for line, end in zip(lines, ends, strict=False))
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    parts = [data[start:stop] for start, stop in itertools.pairwise(edges)]
    wanted = by_lines(data)
    assert [text for _, text in read(data)] == wanted
    assert [text for _, text in read(*parts)] == wanted
    assert [text for _, text in read(*(bytes([byte]) for byte in data))] == wanted


@given(st.binary(max_size=300), st.integers(1, 50))
def test_no_bytes_are_an_exception(data, size):
    stream = EventStream()
    for at in range(0, len(data), size):
        stream.feed(data[at : at + size])
    stream.close()


@pytest.mark.parametrize("part", [b"data: " + b"x" * 40, b"data: xxxxxxxxx\n"])
def test_an_event_that_does_not_end_is_refused(part):
    stream = EventStream(longest_bytes=100)
    with pytest.raises(EventTooLong):
        for _ in range(20):
            stream.feed(part)


def test_many_short_events_are_not_one_long_one():
    stream = EventStream(longest_bytes=100)
    assert sum(len(stream.feed(b"data: " + b"x" * 20 + b"\n\n")) for _ in range(100)) == 100


@pytest.mark.parametrize("line", [b"data:\n", b"data\n", b"data: \r"])
def test_an_event_of_empty_lines_without_end_is_refused(line):
    stream = EventStream(longest_bytes=100)
    with pytest.raises(EventTooLong):
        stream.feed(line * 200)


def test_no_byte_is_looked_at_twice(monkeypatch):
    """Of a line in a thousand reads each byte is searched once; a search of all that has come would be quadratic."""
    searched = []

    class Counting:
        def finditer(self, data, at):
            searched.append(len(data) - at)
            return ENDING.finditer(data, at)

    monkeypatch.setattr("tokentape.sources.endpoint.events._LINE_END", Counting())
    stream, data = EventStream(), b"data: " + b"x" * 100_000 + b"\n\n"
    for at in range(0, len(data), 100):
        stream.feed(data[at : at + 100])
    assert sum(searched) <= len(data)


ENDING = re.compile(rb"\r\n|\n|\r")
