"""Tapes of endpoints, as a load writes them: requests of every kind, deterministic, with no server in sight.

:func:`served_tape` has one request of each kind in :data:`KINDS`; :func:`loaded_tape` has as many ordinary ones as asked for.
Every time is in nanoseconds since the tape's origin.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np

from tokentape.data import Run, Setting, TraceHead
from tokentape.data.exchange import Exchange, Scrape
from tokentape.recorder.many import ManyRuns
from tokentape.recorder.tick import LiveRun, Said, Tick

MS = 1_000_000
ORIGIN = 7_000 * MS
"""The mark of the host clock at which a tape begins."""

SETTING = Setting(
    {
        "model": "demo",
        "source": "endpoint",
        "engine": "vllm",
        "url": "http://127.0.0.1:8000",
        "api": "completions",
        "hostname": "somewhere",
    }
)
CLIENT = {
    "bottleneck": False,
    "dispatch_delay_ns": {"p50": 40_000, "p99": 210_000, "max": 400_000, "n": 14},
    "read_lag_ns": {"p50": 20_000, "p99": 90_000, "max": 120_000, "n": 40},
    "cpu_share": 0.12,
    "reasons": [],
}
LATE_CLIENT = {
    **CLIENT,
    "bottleneck": True,
    "dispatch_delay_ns": {"p50": 12 * MS, "p99": 88 * MS, "max": 130 * MS, "n": 14},
    "cpu_share": 0.99,
    "reasons": ["requests were sent 88 ms late at the 99th percentile", "a client process used 99 % of its core"],
}


@dataclass(frozen=True)
class Served:
    """One request and its answer. ``chunks`` are ``(after_ns, tokens)``: the time since the chunk before, of the first one since
    the request was sent; tokens are ``(row, text, channel)``. ``cut`` leaves the run open.
    """

    name: str
    chunks: tuple = ()
    exchange: Exchange = field(default_factory=Exchange)
    reasons: tuple = ("stop",)
    cut: bool = False

    @property
    def n_traces(self):
        return len(self.reasons)


def words(*texts, row=0, channel=None):
    """Tokens of a chunk."""
    return tuple((row, text, channel) for text in texts)


def passed(start_ns, answered_ns=None, ended_ns=None, **known):
    """What passed for a request sent at ``start_ns``: on a connection of its own unless ``connect_ns`` says None."""
    found = {
        "scheduled_ns": start_ns - 2 * MS,
        "connect_ns": start_ns - MS,
        "connected_ns": start_ns - MS // 4,
        "sent_ns": start_ns + 30_000,
        "first_byte_ns": answered_ns,
        "ended_ns": ended_ns,
        "status": None if answered_ns is None else 200,
        "stamps": None if answered_ns is None else "kernel",
        "process": 0,
    }
    return Exchange(**{**found, **known})


def usage(n_prompt, n_completion, **more):
    return {
        "n_prompt": n_prompt,
        "n_completion": n_completion,
        "usage": {"prompt_tokens": n_prompt, "completion_tokens": n_completion, **more},
    }


def _kinds():
    yield Served(
        "exact",
        ((9 * MS, ()), (20 * MS, words(" The")), (5 * MS, words(" cat", " 🐈")), (6 * MS, words("."))),
        passed(
            0,
            8 * MS,
            42 * MS,
            label="exact",
            finish="stop",
            model="demo-1",
            request_id="cmpl-1",
            n_cached=2,
            server={"prompt_ms": 18.5, "predicted_ms": 11.0},
            **usage(5, 4),
        ),
    )
    yield Served(
        "counted",
        ((31 * MS, words(" Once upon", "", "")), (7 * MS, words(" a time", ""))),
        passed(0, 11 * MS, 40 * MS, label="counted", finish="length", stamps="read", **usage(5, 5)),
        ("length",),
    )
    yield Served(
        "coarse",
        ((25 * MS, words(" Es war")), (12 * MS, words(" einmal <b>"))),
        passed(0, 9 * MS, 38 * MS, label="coarse", finish="stop", connect_ns=None, connected_ns=None),
    )
    yield Served(
        "http_error",
        (),
        passed(0, 6 * MS, 7 * MS, status=503, fault="http_error", error="the queue is full: \x1b[31mtry later"),
        ("error",),
    )
    yield Served(
        "retried",
        ((16 * MS, words(" again")), (4 * MS, words("!"))),
        passed(0, 12 * MS, 21 * MS, label="exact", finish="stop", attempt=2, retry_of=3, **usage(5, 2)),
    )
    yield Served(
        "choices",
        (
            (14 * MS, (*words("A1", row=0), *words("B1", row=1))),
            (3 * MS, words("B2", row=1)),
            (3 * MS, words("A2", row=0)),
        ),
        passed(0, 10 * MS, 22 * MS, label="exact", finish="stop", **usage(5, 4)),
        ("stop", "stop"),
    )
    yield Served(
        "reasoning",
        (
            (18 * MS, words("hmm", ",", channel=1)),
            (6 * MS, words(" so", channel=1)),
            (8 * MS, words("42", channel=0)),
        ),
        passed(0, 10 * MS, 34 * MS, label="exact", finish="stop", n_reasoning=3, **usage(9, 4)),
    )
    yield Served(
        "tool",
        ((21 * MS, words('{"city":', channel=2)), (5 * MS, words('"Oslo"}', channel=2))),
        passed(0, 10 * MS, 30 * MS, label="counted", finish="tool_calls", **usage(40, 2)),
        ("tool_calls",),
    )
    for turn in range(2):
        yield Served(
            f"turn {turn}",
            ((15 * MS, words("yes" if turn else "Do I?")),),
            passed(0, 9 * MS, 16 * MS, label="exact", finish="stop", conversation="talk 1", turn=turn, **usage(7, 1)),
        )
    yield Served(
        "reset",
        ((15 * MS, words(" It")), (4 * MS, words(" brea"))),
        passed(0, 9 * MS, 24 * MS, label="exact", fault="reset", error="Connection reset by peer"),
        ("error",),
    )
    yield Served(
        "no_done",
        ((15 * MS, words(" whole")), (4 * MS, words("."))),
        passed(0, 9 * MS, 24 * MS, label="exact", finish=None, fault="no_done", **usage(5, 2)),
        ("unsaid",),
    )
    yield Served(
        "refused",
        (),
        passed(0, None, MS, connected_ns=None, sent_ns=None, connect_ns=0, fault="refused", error="Connection refused"),
        ("error",),
    )
    yield Served(
        "filtered",
        ((15 * MS, words(" I")),),
        passed(0, 9 * MS, 17 * MS, label="exact", finish="content_filter", **usage(5, 1)),
        ("content_filter",),
    )
    yield Served("interrupted", ((15 * MS, words(" Then")),), reasons=("interrupted",), cut=True)


KINDS = tuple(_kinds())
"""One request of each kind, in the order of their runs; the last one did not come to its end."""

EVERY_NS = 25 * MS
"""The time from one request of :data:`KINDS` to the next, so that some are in flight together."""


def served_tape(path, *, kinds=KINDS, text=True, notes=None, scrapes=None, client=CLIENT):
    """A tape with one request of each of ``kinds``, one every 25 ms, and its path; what is ``cut`` makes it partial."""
    notes = {"origin_unix_ns": 10**18, **({} if client is None else {"client": client}), **(notes or {})}
    with ManyRuns(path, SETTING, ORIGIN, notes=notes, text=text) as many:
        for number, one in enumerate(kinds):
            write_served(many, number, one, 10 * MS + number * EVERY_NS)
        many.scraped(readings(len(kinds)) if scrapes is None else scrapes)
        many.close().close()
    return path


def readings(n):
    """What a server and a client said of themselves, every 50 ms: a gauge, a counter, a share with labels."""
    for i in range(n // 2 + 1):
        at = i * 50 * MS
        yield Scrape(
            "server",
            at,
            at + 2 * MS,
            {
                'vllm:num_requests_running{model_name="demo"}': float(i % 4),
                'vllm:num_requests_waiting{model_name="demo"}': float(i % 3),
                "vllm:kv_cache_usage_perc": 0.125 * (i % 5),
                "vllm:prompt_tokens_total": 5.0 * i,
            },
        )
        yield Scrape("client 0", at, at, {"cpu_share": 0.1 + 0.01 * i, "in_flight": i % 3})


def write_served(many, key, one, at_ns):
    """One request, sent at ``at_ns``; what it says of times counts from there."""
    heads = tuple(TraceHead(row, None, None, "Tell me of a cat 猫") for row in range(one.n_traces))
    asked = {"max_tokens": 16, "stream": True, "messages": [{"role": "user", "content": "Tell me of a cat 猫"}]}
    live = LiveRun(Run(heads, asked), ORIGIN + at_ns, iter(()), lambda: one.reasons)
    many.begin(key, live)
    many.add(key, ticks(one, at_ns))
    if not one.cut:
        many.end(key, one.reasons, moved(one.exchange, at_ns))


def ticks(one, at_ns):
    """The chunks of an answer: each had come 1 us before it was read, and was understood 3 us later."""
    at, found, serial = at_ns, [], 0
    exact = one.exchange.label == "exact" or one.cut
    ends = [at_ns]
    for after, _ in one.chunks:
        at += after
        ends.append(at)
    for (before, end), (_, tokens) in zip(pairwise(ends), one.chunks, strict=True):
        said = []
        for row, text, channel in tokens:
            serial += 1
            known = {"id": 100 + serial, "logprob": -0.25 * serial, "candidates": ((100 + serial, -0.25 * serial),)}
            said.append(Said(row, data=text.encode(), channel=channel, **(known if exact else {"id": None})))
        marks = {"read": ORIGIN + end + 1_000, "parsed": ORIGIN + end + 4_000}
        found.append(Tick("chunk", one.n_traces, ORIGIN + before, ORIGIN + end, said=tuple(said), **marks))
    return found


def moved(exchange, by_ns):
    """The same exchange, later."""
    names = ("scheduled_ns", "connect_ns", "connected_ns", "sent_ns", "first_byte_ns", "ended_ns")
    known = {name: at + by_ns for name in names if (at := getattr(exchange, name)) is not None}
    return replace(exchange, **known)


def loaded_tape(path, n=3000, *, per_s=50.0, n_chunks=16, seed=7, every_fault=97, text=True):
    """``n`` requests of ordinary kinds at Poisson arrivals, one in ``every_fault`` of them failed; a reading a second."""
    draw = np.random.default_rng(seed)
    due = np.cumsum(draw.exponential(1e9 / per_s, n)).astype(np.int64) + 10 * MS
    with ManyRuns(path, SETTING, ORIGIN, notes={"origin_unix_ns": 10**18, "client": CLIENT}, text=text) as many:
        for number in range(n):
            ttft, gap = int(draw.lognormal(3.4, 0.4) * MS), int(draw.lognormal(2.0, 0.2) * MS)
            late = int(draw.exponential(50_000))
            failed = number % every_fault == every_fault - 1
            length = 1 + int(draw.integers(n_chunks))
            gaps = (gap * draw.uniform(0.7, 1.4, length)).astype(int).tolist()
            chunks = tuple((ns if i else ttft, words(f" w{(number + i) % 50}")) for i, ns in enumerate(gaps))
            known = {"label": "exact", "finish": "length", **usage(5 + number % 40, length)}
            if failed:
                known = {"fault": "http_error", "status": 429, "error": "too many requests"}
            exchange = passed(
                0,
                ttft // 2,
                ttft + sum(gaps),
                scheduled_ns=-late,
                connect_ns=None,
                connected_ns=None,
                process=number % 2,
                **known,
            )
            reasons = ("error",) if failed else ("length",)
            write_served(many, number, Served("", () if failed else chunks, exchange, reasons), int(due[number]) + late)
        many.scraped(readings_each_second(int(due[-1])))
        many.close().close()
    return path


def readings_each_second(until_ns):
    """A server's reading a second."""
    for i in range(until_ns // 1_000_000_000 + 2):
        at = i * 1_000_000_000
        names = {"vllm:num_requests_running": float(8 + i % 5), "vllm:num_requests_waiting": float(i % 7)}
        yield Scrape("server", at, at + 3 * MS, names)
