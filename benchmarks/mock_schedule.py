"""The mock server's schedule: how late its own sends are with many streams at once, and what its loop costs.

``python benchmarks/mock_schedule.py [--json] [--streams N] [--seconds S] [--gap-ms G]``

The server is a process of its own; the client (this process) does nothing but read, so that the sockets never fill. Streams
begin one after another, spread over a gap; every gap has a random part, so that no two streams keep step. Figures: *late* is the
moment just before a send against the moment at which it was due; *gap error* is the gap between two sends of a stream against
the script's. Percentiles with their n, over all messages with text. What others do on the machine is in these figures: where
its cores are busy, ``chrt -f 10 python benchmarks/mock_schedule.py`` shows what the loop itself does.
"""

from __future__ import annotations

import argparse
import json
import os
import selectors
import socket
import time
from itertools import pairwise
from typing import Any
from urllib.parse import urlsplit

from tokentape.mock.log import Log, lateness
from tokentape.mock.script import Script
from tokentape.mock.serving import MockServer


def drain(url: str, n_streams: int, gap_s: float) -> None:
    """Ask for ``n_streams`` answers, and read all of them to their end."""
    address = urlsplit(url)
    body = json.dumps({"prompt": "Hi", "stream": True, "stream_options": {"include_usage": True}}).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nhost: mock\r\nconnection: close\r\ncontent-length: {len(body)}\r\n\r\n"
    selector = selectors.DefaultSelector()
    for _ in range(n_streams):
        client = socket.create_connection((address.hostname, address.port))
        client.sendall(head.encode() + body)
        client.setblocking(False)
        selector.register(client, selectors.EVENT_READ)
        time.sleep(gap_s / n_streams)
    while selector.get_map():
        for key, _ in selector.select():
            assert isinstance(key.fileobj, socket.socket)
            if not key.fileobj.recv(1 << 16):
                selector.unregister(key.fileobj)
                key.fileobj.close()
    selector.close()


def measure(n_streams: int, seconds: float, gap_ms: float) -> dict[str, Any]:
    """Serve, and read the server's own log."""
    gap_us = gap_ms * 1000
    n_tokens = max(int(seconds * 1e6 / gap_us), 2)
    scripts = [
        Script.steady(n_tokens, ttft_us=gap_us, gap_us=gap_us, jitter="uniform", jitter_us=gap_us / 4, seed=seed)
        for seed in range(n_streams)
    ]
    began = os.times()
    with MockServer(scripts, process=True, keep_bytes=False) as server:
        drain(server.url, n_streams, gap_us / 1e6)
    assert server.log.served and all(one.how == "done" for one in server.log.served)
    client_cpu_s = os.times().user + os.times().system - began.user - began.system
    return {**figures(server.log), "n_streams": n_streams, "gap_ms": gap_ms, "client_cpu_s": round(client_cpu_s, 2)}


def figures(log: Log) -> dict[str, Any]:
    """Lateness, and the error of the gaps, of messages with text."""
    texts = [sent for sent in log.sent if sent.kind == "text"]
    by_request: dict[int, list[Any]] = {}
    for sent in texts:
        by_request.setdefault(sent.request, []).append(sent)
    errors, true_ns, wanted_ns = [], 0, 0
    for sends in by_request.values():
        for one, two in pairwise(sends):
            errors.append(abs((two.sent_ns - one.sent_ns) - (two.due_ns - one.due_ns)) / 1000)
        true_ns += sends[-1].sent_ns - sends[0].sent_ns
        wanted_ns += sends[-1].due_ns - sends[0].due_ns
    errors.sort()
    return {
        "late": lateness(texts),
        "gap_error_p99_us": errors[-(-99 * len(errors) // 100) - 1],
        "mean_gap_ratio": true_ns / wanted_ns,
        "sends_per_s": len(texts) / ((texts[-1].sent_ns - texts[0].sent_ns) / 1e9),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--streams", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--gap-ms", type=float, default=20.0)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    found = measure(given.streams, given.seconds, given.gap_ms)
    if given.json:
        print(json.dumps(found, indent=1))
        return
    late = found["late"]
    print(f"{found['n_streams']} streams, gaps of {found['gap_ms']} ms, {found['sends_per_s']:.0f} sends a second")
    print(
        f"late (n={late['n']}): p50 {late['p50_us']:.1f} us, p99 {late['p99_us']:.1f} us, most {late['max_us']:.1f} us"
    )
    print(f"gap error: p99 {found['gap_error_p99_us']:.1f} us; mean gap {100 * found['mean_gap_ratio'] - 100:+.4f} %")


if __name__ == "__main__":
    main()
