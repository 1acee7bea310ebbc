"""GuideLLM itself against the mock server, and its report against our GuideLLM dialect.

``make guidellm-env``, then ``python benchmarks/guidellm.py [--json] [--requests N] [--rate R]``

``TOKENTAPE_GUIDELLM_PYTHON`` may name another Python that has GuideLLM. Three readings of one run:

* *printed*: the summary that GuideLLM wrote;
* *imported*: its report as a tape, through our GuideLLM dialect. Its moments are doubles of seconds since 1970, 0.24 us apart:
  so far may the two be apart, and no further;
* *sent*: what the mock server says that it read and sent, as a tape through the same dialect: by how much GuideLLM's own reading
  (a Python event loop) is late. Each request is told apart by the id of its stream.

Figures are seconds. What others do on the machine is in *sent*, and not in the other two.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from tokentape.data import Run, Setting, TraceHead
from tokentape.data.exchange import Exchange
from tokentape.data.tape import Tape
from tokentape.imports.importing import import_results
from tokentape.mock.log import Log, Sent, Served
from tokentape.mock.script import Script
from tokentape.mock.serving import MockServer
from tokentape.recorder.many import ManyRuns
from tokentape.recorder.tick import LiveRun, Said, Tick
from tokentape.study.answers import answers
from tokentape.study.metrics import metrics

REPOSITORY = Path(__file__).resolve().parents[1]
PYTHON = Path(os.environ.get("TOKENTAPE_GUIDELLM_PYTHON") or REPOSITORY / "build" / "guidellm-venv" / "bin" / "python")
TOKENIZER = REPOSITORY / "src" / "tokentape" / "models" / "demo"
CLOCK_S = 2.0**-22
"""Two neighbouring doubles of seconds since 1970."""


def ask(url: str, folder: Path, n: int, rate: float) -> Path:
    """Let GuideLLM ask ``n`` times; its report."""
    words = ["the fox went into the wood", "a cat saw a bird", "once", "where is the dog"]
    rows = [{"prompt": words[i % len(words)], "output_tokens_count": 4 + i % 21} for i in range(n)]
    (data := folder / "prompts.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    report = folder / "report.json"
    command = [
        *(str(PYTHON), "-m", "guidellm", "run", "--disable-progress"),
        *("--backend", f"kind=openai_http,target={url},model=mock"),
        *("--profile", f"kind=constant,rate={rate}"),
        *("--constraint", f"kind=max_requests,count={n}"),
        *("--tokenizer", f"kind=hf_auto,model={TOKENIZER}"),
        *("--data", f"kind=json_file,path={data}"),
        *("--output", f"kind=json,path={report}"),
    ]
    offline = {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    done = subprocess.run(command, env=offline, cwd=folder, capture_output=True, text=True, check=False, timeout=600)
    if done.returncode or not report.exists():
        raise SystemExit(f"GuideLLM did not end well:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return report


def messages(one: Sent) -> list[dict[str, Any]]:
    """The JSON of the messages in what was sent."""
    return [json.loads(line[6:]) for line in (one.data or b"").splitlines() if line.startswith(b"data: {")]


def text_of(one: Sent) -> bytes:
    """The text in what was sent."""
    choices = [choice for message in messages(one) for choice in message["choices"]]
    return "".join(choice["delta"].get("content") or "" for choice in choices).encode()


def stream_id(sends: list[Sent]) -> str | None:
    """The id in the messages of a stream."""
    return next((message["id"] for one in sends for message in messages(one)), None)


def of_log(log: Log, wanted: list[str | None]) -> Tape:
    """What the server read and sent for the streams wanted, in that order, as a tape."""
    known: dict[str | None, tuple[Served, list[Sent]]] = {}
    for served in log.served:
        if served.stream:
            sends = log.of(served.request)
            known[stream_id(sends)] = (served, sends)
    many = ManyRuns(None, Setting({"model": "mock", "source": "log"}), min(one.read_ns for one in log.served))
    for key, name in enumerate(wanted):
        served, sends = known[name]
        many.begin(key, LiveRun(Run((TraceHead(0, None, None, None),)), served.read_ns, iter(()), lambda: ("length",)))  # type: ignore[arg-type]
        before = served.read_ns
        for one in sends:
            if one.kind in ("role", "text", "finish"):
                text = text_of(one)
                said = tuple(Said(0, None, b"" if i else text) for i in range(one.n_tokens))
                many.add(key, [Tick("chunk", 1, before, one.sent_ns, said=said)])
                before = one.sent_ns
        origin = min(one.read_ns for one in log.served)
        ended = sends[-1].sent_ns - origin
        many.end(key, ("length",), Exchange(label="counted", n_completion=served.n_completion, ended_ns=ended))
    return many.close()


def figures(tape: Tape) -> dict[str, dict[str, float | None]]:
    """The dialect's figures, in seconds and tokens per second."""
    found = {}
    for one in metrics(tape, dialect="guidellm").figures:
        unit = 1.0 if one.n is None else 1e-9
        shares = {f"p{q:g}": ns * unit for q, ns in one.percentiles}
        found[one.name] = {"n": one.n, "mean": None if one.mean is None else one.mean * unit, **shares}
    return found


def printed(report: Path) -> dict[str, dict[str, float | None]]:
    """The figures in the report, in the same units."""
    told = json.loads(report.read_text("utf-8"))["benchmarks"][0]["metrics"]
    found = {}
    for name, one in told.items():
        summary = one.get("successful") if isinstance(one, dict) else None
        if not isinstance(summary, dict) or "percentiles" not in summary:
            continue
        unit = 1e-3 if name.endswith("_ms") else 1.0
        keys = {"p001": "p0.1", "p01": "p1", "p05": "p5", "p999": "p99.9"}
        shares = {keys.get(key, key): value * unit for key, value in summary["percentiles"].items()}
        found[name] = {"n": summary["count"], "mean": summary["mean"] * unit, **shares}
    return found


def late(report: Tape, log: Tape) -> dict[str, dict[str, float]]:
    """By how much each request's times are longer for GuideLLM than for the server, in seconds."""
    pairs = [(a, b) for a, b in zip(answers(report), answers(log), strict=True) if a.shown and b.shown]
    found: dict[str, list[int]] = {"ttft": [], "last token": [], "end": []}
    for ours, theirs in pairs:
        assert ours.start_ns is not None and theirs.start_ns is not None
        assert ours.ended_ns is not None and theirs.ended_ns is not None
        by = theirs.start_ns - ours.start_ns
        found["ttft"].append(ours.shown[0].at_ns - theirs.shown[0].at_ns + by)
        found["last token"].append(ours.shown[-1].at_ns - theirs.shown[-1].at_ns + by)
        found["end"].append(ours.ended_ns - theirs.ended_ns + by)
    told = {}
    for name, ns in found.items():
        told[name] = {"n": len(ns), "min": min(ns) / 1e9, "p50": float(np.median(ns)) / 1e9, "max": max(ns) / 1e9}
    return told


def measure(n: int, rate: float) -> dict[str, Any]:
    script = Script.steady(24, ttft_us=40_000, gap_us=8_000, chunk=2, jitter="uniform", jitter_us=4_000)
    with tempfile.TemporaryDirectory() as name, MockServer(script, process=True, keep_bytes=True) as server:
        report = ask(server.url, Path(name), n, rate)
        with import_results(report) as imported:
            wanted = [trace.exchange.request_id for trace in imported.traces if trace.exchange is not None]
            theirs, ours, own = printed(report), figures(imported), [one.n_tokens for one in answers(imported)]
            with of_log(server.log, wanted) as sent:
                return {
                    "n_requests": len(wanted),
                    "clock_s": CLOCK_S,
                    "same_tokens": own == [one.n_tokens for one in answers(sent)],
                    "printed": {name: theirs[name] for name in ours},
                    "imported": ours,
                    "sent": figures(sent),
                    "late": late(imported, sent),
                }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--requests", type=int, default=60)
    parser.add_argument("--rate", type=float, default=20.0)
    given = parser.parse_args()
    if not PYTHON.exists():
        why = f"no {PYTHON}: make guidellm-env"
        if given.json:
            raise SystemExit(why)
        print(why, file=sys.stderr)  # and `make bench` goes on to the next
        return
    found = measure(given.requests, given.rate)
    if given.json:
        print(json.dumps(found, indent=1))
        return
    print(f"{found['n_requests']} requests; the same tokens in each: {found['same_tokens']}")
    print(f"{'mean, s or 1/s':<32}{'printed':>14}{'imported':>14}{'sent':>14}")
    for name in found["imported"]:
        cells = [found[which][name]["mean"] for which in ("printed", "imported", "sent")]
        print(f"{name:<32}" + "".join(f"{cell:>14.7f}" for cell in cells))
    for name, told in found["late"].items():
        print(f"{name} later than sent, ms: " + ", ".join(f"{k} {v * 1e3:.3f}" for k, v in told.items() if k != "n"))


if __name__ == "__main__":
    main()
