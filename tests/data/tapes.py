"""Small tapes for the tests of this folder: rows of every kind, deterministic."""

from __future__ import annotations

from tokentape.data import KINDS, Run, Setting, TapeWriter, TraceHead, candidates_json

SETTING = Setting({"model": "demo", "dtype": "float32", "hostname": "somewhere", "threads": 2, "sizes": [1, 2]})

CAT = "🐈".encode()


def step(run, index, n_out, **known):
    """A step of 10 ns every 20 ns, null wherever the name is not among ``known``."""
    nullable = (
        "forward_ns device_ns cpu_ns switches gc_count gc_ns cache_bytes rss_bytes device_bytes".split()
    )  # in the order of the schema
    first = (run, index, KINDS.index("decode" if index else "prefill"), known.get("batch", 1))
    rest = (known.get("context"), known.get("n_in"), n_out, 100 + 20 * index, 110 + 20 * index)
    return (*first, *rest, *(known.get(name) for name in nullable))


def token(trace, position, step, text="a", raw=None, candidates=((7, -0.5), (8, -1.25)), **known):
    columns = ("id", "logprob", "entropy", "rank", "rules_logprob")
    pairs = None if candidates is None else candidates_json(candidates)
    flags = (known.get("forced", 0), known.get("overshoot", 0))
    return (trace, position, step, *(known.get(name) for name in columns), *flags, text, raw, pairs)


def write_run(writer, n_steps=6, n_traces=2, n_prompt=3, end=True, pause=None):
    """A run whose traces carry text of every awkward kind; the second trace overshoots by one token."""
    heads = tuple(
        TraceHead(row, n_prompt, tuple(range(n_prompt)), f"prompt {row}: 猫\0\x1b[0m\r\n") for row in range(n_traces)
    )
    begun = writer.begin(Run(heads, {"max_new_tokens": n_steps, "temperature": 0.5}, seed=2**62, start_ns=90))
    for i in range(n_steps):
        rows = [
            awkward(begun.trace_numbers[row], n_prompt, i, n_steps if row == 0 else n_steps - 1)
            for row in range(n_traces)
        ]
        writer.append([step(begun.number, i, n_traces, batch=n_traces, cpu_ns=i or None, rss_bytes=2**40 + i)], rows)
        if pause is not None:
            pause(i)
    if end:
        writer.end(begun.number, ["length", *["stop"] * (n_traces - 1)])
    return begun


def awkward(trace, n_prompt, i, end):
    """The i-th token: one of a cycle of texts, a split emoji among them."""
    texts = [(None, CAT[:2]), (None, CAT[2:]), ("nul\0nul", None), ("", None), ("\u202e\x07猫", None), ("<b>'\"", None)]
    text, raw = texts[i % len(texts)]
    candidates = [None, [], [(250_000, -0.1)], [(3, -0.125), (2**31 - 1, -1e-30), (0, -float("inf"))]][i % 4]
    known = {"id": i, "logprob": -0.1 * i, "entropy": 1.5, "rank": 1 + i, "rules_logprob": None if i % 2 else -0.25}
    return token(trace, n_prompt + i, i, text, raw, candidates, overshoot=int(i >= end), forced=i % 2, **known)


def write_tape(path, n_runs=2, state="complete", **run):
    """A finished tape of ``n_runs`` runs; returns its path."""
    writer = TapeWriter.create(path, SETTING, notes={"origin_unix_ns": 10**18, "clock": "fake"})
    for _ in range(n_runs):
        write_run(writer, **run)
    writer.add_pieces([(3, "Ġcat", b" cat", False), (4, None, b"\xff", True)])
    writer.close(state).close()
    return path
