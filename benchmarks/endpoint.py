"""How exact the times of a served stream are, and what reading it costs.

python benchmarks/endpoint.py               both, about a minute
python benchmarks/endpoint.py gaps          64 streams of a mock server in its own process: each gap against what was sent
python benchmarks/endpoint.py cost          time of the processor for each message, by what it holds

The truth is the mock's own log: the moment just before each send. Each gap between two messages of a stream is compared with the
gap between the two sends, by the kernel's stamps, by the moments at which the reads returned, and by those at which the messages
were understood. Both processes share this machine's cores with whatever else runs on it, so its load is printed too.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import selectors
import statistics
import time
from itertools import pairwise
from typing import Any

import h11

from tokentape.data.request import TraceHead
from tokentape.mock.script import Script
from tokentape.mock.serving import MockServer
from tokentape.recorder.tick import Tick
from tokentape.sources.endpoint.address import address_of
from tokentape.sources.endpoint.body import Body
from tokentape.sources.endpoint.call import Call
from tokentape.sources.endpoint.chunks import Chunks
from tokentape.sources.endpoint.flight import Flight
from tokentape.sources.endpoint.messages import message_of
from tokentape.sources.endpoint.stamps import Stamp
from tokentape.sources.endpoint.wire import Host

N_STREAMS, N_TOKENS = 64, 200
GAP_US = 20_000.0
RICH = {"return_token_ids": True, "stream_options": {"include_usage": True, "continuous_usage_stats": True}}


def gaps() -> dict[str, Any]:
    """Every gap of many streams, against the mock's log."""
    scripts = [
        Script.steady(N_TOKENS, ttft_us=30_000, gap_us=GAP_US, jitter="uniform", jitter_us=5_000, seed=seed, plain=True)
        for seed in range(N_STREAMS)
    ]
    with MockServer(scripts, process=True, keep_bytes=False) as server:
        host = Host(address_of(server.url)[0])
        flights = [_flight(host) for _ in range(N_STREAMS)]
        began = time.process_time_ns()
        ticks = _flown(flights)
        cpu_ns = time.process_time_ns() - began
        sent = _sent(server)
    for flight in flights:
        if flight.connection is not None:
            flight.connection.close()
    found: dict[str, Any] = {"streams": N_STREAMS, "gap_ms": GAP_US / 1000, "load": os.getloadavg()[0]}
    for name, moment in (("kernel", "end"), ("read", "read"), ("understood", "parsed")):
        found[name] = _compared(ticks, sent, moment)
    n = sum(map(len, ticks.values()))
    return {**found, "messages": n, "cpu_us_a_message": cpu_ns / 1000 / n, "stamps": flights[0].exchange(0).stamps}


def _flight(host: Host) -> Flight:
    body = {"model": "mock", "prompt": "It is", "max_tokens": N_TOKENS, "stream": True, **RICH}
    heads = (TraceHead(0, None, None, None),)
    return Flight(Call(host.address.target("/completions"), json.dumps(body).encode(), heads), host)


def _flown(flights: list[Flight]) -> dict[int, list[Tick]]:
    """All of them to their end, in one loop; begun one after another, so that no two keep step."""
    ticks: dict[int, list[Tick]] = {number: [] for number in range(len(flights))}
    gc.collect()
    gc.freeze()
    gc.disable()
    with selectors.DefaultSelector() as selector:
        for number, flight in enumerate(flights):
            while flight.started_ns is None:
                ticks[number] += flight.advance()
            selector.register(flight.fileno(), selectors.EVENT_READ, number)
            _serve(selector, flights, ticks, GAP_US / 1e6 / len(flights))
        while selector.get_map():
            _serve(selector, flights, ticks, 1.0)
    gc.enable()
    return ticks


def _serve(selector: Any, flights: list[Flight], ticks: dict[int, list[Tick]], wait: float) -> None:
    for key, _ in selector.select(wait):
        flight = flights[key.data]
        ticks[key.data] += flight.advance()
        if flight.done:
            selector.unregister(key.fd)


def _sent(server: MockServer) -> dict[str, list[int]]:
    """By request, the moments at which its messages with text were sent."""
    found: dict[str, list[int]] = {}
    for one in server.log.sent:
        if one.kind in ("text", "finish") and one.n_messages:
            found.setdefault(str(one.request), []).append(one.sent_ns)
    return found


def _compared(ticks: dict[int, list[Tick]], sent: dict[str, list[int]], moment: str) -> dict[str, float]:
    """How far the gaps are from those that were sent; streams are known by the order of their requests."""
    errors, measured, true = [], 0, 0
    for stream, moments in zip(ticks.values(), (sent[key] for key in sorted(sent, key=int)), strict=True):
        ours = [getattr(tick, moment) for tick in stream if tick.said]
        assert len(ours) <= len(moments), (len(ours), len(moments))
        for (a, b), (c, d) in zip(pairwise(ours), pairwise(moments), strict=False):
            errors.append(abs((b - a) - (d - c)))
            measured, true = measured + b - a, true + d - c
    errors.sort()
    return {
        "gap_error_p50_us": errors[len(errors) // 2] / 1000,
        "gap_error_p99_us": errors[int(len(errors) * 0.99)] / 1000,
        "gap_error_worst_us": errors[-1] / 1000,
        "mean_gap_off_percent": 100 * (measured / true - 1),
        "n": len(errors),
    }


MESSAGES = {
    "text": {"choices": [{"index": 0, "text": " word", "logprobs": None, "finish_reason": None}]},
    "ids and usage": {
        "choices": [{"index": 0, "text": " word", "logprobs": None, "finish_reason": None, "token_ids": [421]}],
        "usage": {"prompt_tokens": 7, "total_tokens": 12, "completion_tokens": 5},
    },
    "log-probabilities with five candidates": {
        "choices": [
            {
                "index": 0,
                "text": " word",
                "finish_reason": None,
                "logprobs": {
                    "content": [
                        {
                            "id": 421,
                            "token": " word",
                            "bytes": list(b" word"),
                            "logprob": -0.51,
                            "top_logprobs": [
                                {"id": 421 + i, "token": f" w{i}", "bytes": list(b" wxyz"), "logprob": -0.51 - i}
                                for i in range(5)
                            ],
                        }
                    ]
                },
            }
        ]
    },
}


def cost(n: int = 20_000) -> dict[str, float]:
    """Microseconds for each message, from the bytes of its chunk to its tick; without the system calls of the read."""
    found = {}
    for name, message in MESSAGES.items():
        body = {"id": "cmpl-1234", "object": "text_completion", "created": 1764190000, "model": "mock", **message}
        data = f"data: {json.dumps(body)}\n\n".encode()
        chunk = b"%x\r\n%s\r\n" % (len(data), data)
        found[name] = statistics.median(_timed(chunk, n // 5) for _ in range(5))
    return found


def _timed(chunk: bytes, n: int) -> float:
    http = h11.Connection(h11.CLIENT)
    http.send(h11.Request(method="GET", target="/", headers=[("Host", "mock")]))
    http.send(h11.EndOfMessage())
    http.receive_data(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
    http.next_event()
    reading, chunks, stamp = Body(200, {"content-type": "text/event-stream"}), Chunks(1, 5), Stamp(0, 0, True)
    began = time.process_time_ns()
    for _ in range(n):
        http.receive_data(chunk)
        while (event := http.next_event()) is not h11.NEED_DATA:
            assert isinstance(event, h11.Data)
            for one in reading.feed(bytes(event.data), stamp):
                chunks.tick(message_of(one.data), stamp, 0)
    return (time.process_time_ns() - began) / 1000 / n


if __name__ == "__main__":
    PARTS = {"gaps": gaps, "cost": cost}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="*", help=", ".join(PARTS))
    chosen = parser.parse_args().part or list(PARTS)
    if unknown := sorted({*chosen} - {*PARTS}):
        parser.error(f"no {', '.join(unknown)}; there are {', '.join(PARTS)}")
    print(json.dumps({name: PARTS[name]() for name in chosen}, indent=1))
