"""Small tapes for the tests of this folder: rows of every kind, deterministic."""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np

from tokentape.data import KINDS, STEP_COLUMNS, Piece, Run, Setting, TapeWriter, TraceHead, candidates_json
from tokentape.data.attention import AttentionSummary, TopSources
from tokentape.data.blocks import Draft, DraftTokens
from tokentape.data.control import Decision, Effect, Outcome, RuleHead
from tokentape.data.exchange import Exchange, Scrape
from tokentape.data.explanation import Explanation, ReplayCheck, Source
from tokentape.data.layers import DirectAttribution, Lens
from tokentape.data.reading import Reading
from tokentape.data.schema import EFFECT_COLUMNS

SETTING = Setting({"model": "demo", "dtype": "float32", "hostname": "somewhere", "threads": 2, "sizes": [1, 2]})

CAT = "🐈".encode()

HERE = Path(__file__).parent

RECORDER = """
import os, sys, time
sys.path.insert(0, sys.argv[2])
from tapes import SETTING, write_run
from tokentape.data import TapeWriter
writer = TapeWriter.create(sys.argv[1], SETTING)
write_run(writer, end=False)
print(os.getpid(), flush=True)
sys.stdin.readline()
if sys.argv[3] == "die":
    os.kill(os.getpid(), 9)
writer.close()
"""


def step(run, index, n_out, **known):
    """A step of 10 ns every 20 ns, null wherever the name is not among ``known``."""
    nullable = [column.name for column in STEP_COLUMNS[8:]]
    first = (run, index, KINDS.index("decode" if index else "prefill"), known.get("batch", 1))
    rest = (known.get("context"), known.get("n_in"), n_out, 100 + 20 * index, 110 + 20 * index)
    return (*first, *rest, *(known.get(name) for name in nullable))


def token(trace, position, step, text="a", raw=None, candidates=((7, -0.5), (8, -1.25)), **known):
    columns = ("id", "logprob", "entropy", "rank", "rules_logprob")
    pairs = None if candidates is None else candidates_json(candidates)
    flags = (known.get("forced", 0), known.get("overshoot", 0))
    control = tuple(known.get(name) for name in ("wanted", "allowed", "removed"))
    values = (*(known.get(name) for name in columns), *flags, *control, known.get("channel"))
    return (trace, position, step, *values, text, raw, pairs)


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


RULES = (
    RuleHead(0, "temperature", {"temperature": 0.5}),
    RuleHead(1, "grammar", {"kind": "json_schema", "source": '{"type": "string", "title": "猫\\u0000"}'}),
    RuleHead(2, "guard", {}),
)

DECISIONS = (
    (
        Decision(4, 2, "resample", 2, 2, "an address"),
        Decision(5, 2, "redact", 2, 6, "a name", "[猫]"),
        Decision(7, 2, "redact", 7, 8, "a name"),
    ),
    (Decision(7, 2, "stop", 4, 5, "a number \0\u202e", "…"),),  # where no token is: it was never chosen
)
"""What the guard of :func:`write_ruled_run` decided, by row."""

OUTCOMES = (
    (Outcome(1, "complete", True),),
    (Outcome(1, "unfinished", None, "the string is not closed"), Outcome(2, "cornered", False, "猫")),
)

RULED_TEXT = ((b'{"', CAT[:2], CAT[2:], b'"', b"}"), (b"[", b"1", b",", b"22"))


def effects_on(i):
    """What each rule did to the choice of the i-th token: some of it unknown, some of it infinite, one rule not called."""
    return (
        Effect(0, 1581, 0.0, 0.125 * i, 900 + i),
        Effect(1, i, None if i == 1 else float("inf") if i == 3 else 0.5 * i, None, 2**40),
        *((Effect(2),) if i % 2 else ()),
    )


def write_ruled_run(writer, n_blocks=3, end=True, pause=None):
    """A run of two sequences under rules, in blocks of two steps; a guard stopped the second before its fifth token."""
    heads = tuple(TraceHead(row, 3, (0, 1, 2), "prompt") for row in range(2))
    begun = writer.begin(Run(heads, {"max_new_tokens": 5}, start_ns=90, rules=RULES))
    for block in range(n_blocks):
        draft, effects, decisions = Draft(), [], []
        for i in range(2 * block, min(2 * block + 2, 5)):
            rows = [row for row in range(2) if i < len(RULED_TEXT[row])]
            traces = [begun.trace_numbers[row] for row in rows]
            known = {"rules_ns": 5000 + i if i else None, "dropped": i if i > 2 else None, "batch": 2}
            columns = (3 + i, i, [i] * len(rows), -0.5, 1.5, 1, -0.25, i % 2, 0)
            control = ([i + 1, None][: len(rows)], None if i == 2 else 100 - i, [0.25 * i] * len(rows), None)
            texts = [RULED_TEXT[row][i] for row in rows]
            tokens = DraftTokens(len(rows), traces, (*columns, *control), texts, None)
            draft.add(1, step(begun.number, i, len(rows), **known)[1:], tokens)
            effects += [(trace, 3 + i, one) for trace in traces for one in effects_on(i)]
        covered = range(3 + 2 * block, 5 + 2 * block)
        for trace, some in zip(begun.trace_numbers, DECISIONS, strict=True):
            decisions += [(trace, one) for one in some if one.position in covered]
        writer.append_block(begun.number, draft, effects=effects, decisions=decisions)
        if pause is not None:
            pause(block)
    if end:
        writer.end(begun.number, ["grammar", "guard"], OUTCOMES)
    return begun


EXCHANGE = Exchange(
    scheduled_ns=80,
    connect_ns=82,
    connected_ns=85,
    sent_ns=91,
    first_byte_ns=99,
    ended_ns=2**40,
    status=200,
    attempt=2,
    retry_of=0,
    label="counted",
    fault="no_done",
    error="the last word: 猫 \0\x1b[0m\u202e",
    stamps="kernel",
    finish="tool_calls",
    model="<b>demo",
    request_id="cmpl-'1\"",
    n_prompt=3,
    n_completion=5,
    n_reasoning=1,
    n_cached=0,
    usage={"completion_tokens": 5, "details": {"reasoning_tokens": 1, "none": None}},
    server={"prompt_ms": 0.1 + 0.2, "state": "猫", "slots": [1, 2]},
    process=1,
    conversation="talk 猫",
    turn=3,
)
"""What passed for :func:`write_served_run`: every field said, with text of every awkward kind."""

SCRAPES = (
    Scrape("server", 70, 75, {'running{model="<b>猫",le="+Inf"}': 0.1 + 0.2, "total": 2**53 + 1, "least": 5e-324}),
    Scrape("client 0", 75, 75, {}),
    Scrape("server", 2**40, 2**40 + 1, {"running": -0.0}),
)
CHANNELLED = (1, None, 0, 2, 2)


def write_served_run(writer, end=True, exchange=EXCHANGE):
    """A served run: chunks of 0, 2 and 3 tokens, of every channel and of none, each read and understood after it had come."""
    begun = writer.begin(Run((TraceHead(0, None, None, "prompt"),), {"max_tokens": 5}, start_ns=90))
    texts = iter(((" A", None), (None, CAT[:2]), (None, CAT[2:]), ("{", None), ("", None)))
    at = 0
    for i, n in enumerate((0, 2, 3)):
        marks = {"read_ns": 110 + 20 * i + 1 if i else None, "parsed_ns": 110 + 20 * i + 4 if i else None}
        rows = [
            token(begun.trace_numbers[0], at + j, i, *next(texts), None, channel=CHANNELLED[at + j]) for j in range(n)
        ]
        of_chunk = list(step(begun.number, i, n, batch=1, **marks))
        of_chunk[2] = KINDS.index("chunk")
        writer.append([tuple(of_chunk)], rows)
        at += n
    if end:
        writer.end(begun.number, ["tool_calls"], exchange=exchange)
    return begun


def write_tape(path, n_runs=2, state="complete", ruled=False, served=False, **run):
    """A finished tape of ``n_runs`` runs, one more under rules if it is to be ``ruled``, and one of an endpoint if it is to be
    ``served``; returns its path.
    """
    writer = TapeWriter.create(path, SETTING, notes={"origin_unix_ns": 10**18, "clock": "fake"})
    for _ in range(n_runs):
        write_run(writer, **run)
    if ruled:
        write_ruled_run(writer)
    if served:
        write_served_run(writer)
        writer.add_scrapes(SCRAPES)
    writer.add_pieces([(3, "Ġcat", b" cat", False), (4, None, b"\xff", True)])
    writer.close(state).close()
    return path


class Recorder:
    """Another process that records into ``path`` until told to finish or to die."""

    def __init__(self, path, how):
        self.process = subprocess.Popen(
            [sys.executable, "-c", RECORDER, str(path), str(HERE), how],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pid = int(self.process.stdout.readline())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.communicate("\n")


def killed_tape(folder):
    """A tape whose recorder was killed; its rows are in the file's log still."""
    with Recorder(folder / "cat.tape", "die"):
        pass
    return folder / "cat.tape"


def explained(**other):
    """An explanation of three tokens of the first trace that :func:`write_run` writes, of four sources."""
    known = {
        "trace": 0,
        "method": "leave_one_out",
        "options": {"operator": "mean", "seeds": [0, 1]},
        "kind": "logit",
        "together": False,
        "targets": [3, 5, 8],
        "target_ids": [0, 2, 5],
        "foil_ids": None,
        "sources": (
            Source(0, 1, "猫\0", "token"),
            Source(1, 3, "<b> '", "word"),
            Source(4, 6, "\u202e\n", "sentence"),
            Source(6, 8, "", "part"),
        ),
        "relevance": np.ma.MaskedArray(
            [[0.5, -0.25, 7, 7], [0.1, -0.0, 5e-324, 7], [1e300, -1 / 3, 0.75, 2.0]],
            mask=[[0, 0, 1, 1], [0, 0, 0, 1], [0, 0, 0, 0]],
        ),
        "value": [0.25, 0.1, 2.5],
        "ledger": {},
        "check": ReplayCheck(3.1e-6, 0.0, 6, 1e-4, True),
        "passes": {"forward": 5, "backward": 0},
        "cpu_ns": 12_345,
        "made": {"tokentape": "0.1.0", "weights": None},
        "notes": {"steps": [16, 32], "baseline": "</s>"},
    }
    return Explanation(**{**known, **other})


def explained_together():
    """All tokens of the second trace as one answer, against foils, with a ledger, and nothing to compare with."""
    return explained(
        trace=1,
        method="cp_lrp",
        kind="foil",
        together=True,
        targets=[3, 4, 5, 6, 7],
        target_ids=[0, 1, 2, 3, 4],
        foil_ids=[9, 9, 8, 8, 7],
        sources=tuple(Source(i, i + 1, f"t{i}", "token") for i in range(7)),
        relevance=np.linspace(-1, 2, 7)[None],
        value=[4.0],
        ledger={"tokens": [3.5], "biases": [0.25], "positions": [0.25], "leaks": [0.0], "residual": [1e-17]},
        check=ReplayCheck(None, None, 0, 1e-4, False, "the tape has no log-probabilities"),
        cpu_ns=None,
    )


def said_by(explanation):
    """Everything that an explanation says, bits of floats included, as plain values that can be compared."""
    lists = {name: getattr(explanation, name) for name in ("targets", "target_ids", "foil_ids")}
    floats = {"value": explanation.value, **explanation.ledger}
    return {
        **{
            name: getattr(explanation, name)
            for name in ("trace", "method", "kind", "together", "sources", "check", "cpu_ns")
        },
        **{name: dict(getattr(explanation, name)) for name in ("options", "passes", "made")},
        **{name: None if ids is None else ids.tolist() for name, ids in lists.items()},
        **{name: array.tobytes() for name, array in floats.items()},
        "ledger": list(explanation.ledger),
        "mask": np.ma.getmaskarray(explanation.relevance).tolist(),
        "relevance": explanation.relevance.compressed().tobytes(),
    }


SEQUENCE = (0, 1, 2, 0, 1, 2, 3, 4, 5)
"""The ids of the first trace that :func:`write_run` writes."""

CHECK = ReplayCheck(3.1e-6, 0.0, 6, 1e-4, True)
PIECES = {
    0: Piece(0, "<s>", b"", True),
    1: Piece(1, "한\0", b"\xff\x00", False),
    9: Piece(9, None, "猫\u202e".encode(), False),  # which the tape itself does not name
}


def floats(*values):
    """Numbers of float32, None masked."""
    given = np.array(values, np.float64)
    return np.ma.MaskedArray(given.astype(np.float32), np.isnan(given))


def tops(sources, weights, kept):
    given = np.array(sources, np.float64)
    places = np.ma.MaskedArray(np.where(np.isnan(given), 0, given).astype(np.int32), np.isnan(given))
    return TopSources(places, floats(*weights), floats(*kept))


def looked(trace=0, **other):
    """Attention before the tokens at 3 and 4 in three layers, of two heads, one head and none; heads of position 4 alone."""
    heads = [[[0.1, 1.5], [0.7, 1e-30]], [[1 / 3, 0.0], [None, None]], [[None, None], [None, None]]]
    found = {
        "positions": [3, 4],
        "ids": SEQUENCE,
        "n_heads": (2, 1, 0),
        "entropy": floats(*heads),
        "sink_share": floats(*heads) / np.float32(2),
        "nowhere": floats(*[[[None] * 2] * 2] * 3),
        "distance": floats(*heads),
        "layers": tops(
            [[[0, 2], [3, 0]], [[1, None], [2, 3]], [[None] * 2] * 2],
            [[[0.6, 0.4], [0.7, 0.2]], [[1.0, None], [0.5, 0.25]], [[None] * 2] * 2],
            [[1.0, 0.9], [1.0, 0.75], [None, None]],
        ),
        "overall": tops([[0, 2], [3, 0]], [[0.6, 0.4], [0.7, 0.2]], [1.0, 0.9]),
        "head_positions": [4],
        "heads": tops(
            [[[[3, 0]], [[1, None]]], [[[2, 3]], [[None] * 2]], [[[None] * 2]] * 2],
            [[[[0.7, 0.2]], [[0.1, None]]], [[[0.5, 0.25]], [[None] * 2]], [[[None] * 2]] * 2],
            [[[0.9], [0.1]], [[0.75], [None]], [[None], [None]]],
        ),
        "pieces": PIECES,
        "check": CHECK,
    }
    return Reading(trace, AttentionSummary(**{**found, **other}), {"tokentape": "0.1.0", "weights": None})


def lensed(trace=0, **other):
    """What three layers said at 3, 5 and 8, in part unknown."""
    ranks = np.ma.MaskedArray([[40, 2, 1], [7, 7, 7], [1, 1, 1]], [[0, 0, 0], [0, 1, 0], [0, 0, 0]])
    logprob = np.ma.MaskedArray([[-9.5, -1 / 3, -1e-9], [-0.1, 0.0, -5e-324], [-1.0, -2.0, -3.0]], ranks.mask)
    found = {
        "positions": [3, 5, 8],
        "ids": [0, 2, 5],
        "rank": ranks,
        "logprob": logprob,
        "final_rank": ranks,
        "entropy": -logprob,
        "kl": np.ma.MaskedArray([[3.0, 1.0, 0.0]] * 3),
        "top_ids": np.ma.MaskedArray([[[9, 1], [0, 9], [0, 1]]] * 3, np.repeat(ranks.mask[..., None], 2, -1)),
        "top_logprob": np.ma.MaskedArray([[[-0.5, -1.5]] * 3] * 3, np.repeat(ranks.mask[..., None], 2, -1)),
        "pieces": PIECES,
        "agreement": 1e-7,
        "check": CHECK,
    }
    return Reading(trace, Lens(**{**found, **other}), {"tokentape": "0.1.0", "weights": "ab12"})


def added(trace=0, together=False, **other):
    """What two blocks added to the values of the tokens at 3 and 5, the second without attention."""
    rows = 1 if together else 2
    blocks = np.array([[1.5, -0.25], [0.1, 1e300]])[:rows]
    absent = np.array([[0, 1]] * rows)
    attention = np.ma.MaskedArray(np.array([[0.5, 7.0], [0.3, 7.0]])[:rows], absent)
    found = {
        "kind": "logit",
        "together": together,
        "targets": [3, 5],
        "target_ids": [0, 2],
        "foil_ids": None,
        "value": blocks.sum(1) + 2.0,
        "entry": np.full(rows, 1.0),
        "blocks": blocks,
        "bias": np.full(rows, 0.75),
        "curvature": np.full(rows, 0.25),
        "residual": np.zeros(rows),
        "attention": attention,
        "mlp": np.ma.MaskedArray(blocks - attention.filled(0.0)),
        "other": np.zeros((rows, 2)),
        "heads": np.ma.MaskedArray(np.full((rows, 2, 2), 0.25), np.repeat(absent[..., None], 2, -1)),
        "unsplit": {1: "it is a puzzle"},
        "pieces": PIECES,
        "agreement": None,
        "check": None,
    }
    return Reading(trace, DirectAttribution(**{**found, **other}), {})


def read_by(reading):
    """Everything that a reading says, bits of floats included, as plain values that can be compared."""

    def bits(value):
        if isinstance(value, np.ndarray):
            mask, data = np.ma.getmaskarray(value), np.ma.getdata(value)
            return value.dtype.str, value.shape, mask.tobytes(), data[~mask].tobytes()
        if isinstance(value, TopSources):
            return {name: bits(one) for name, one in vars(value).items()}
        return dict(value) if hasattr(value, "keys") else value

    return (
        reading.trace,
        reading.kind,
        dict(reading.made),
        {name: bits(one) for name, one in vars(reading.found).items()},
    )


def control_of(trace):
    """Everything that a trace says of rules, as plain values that can be compared."""
    effects = {name: column.tolist() for name, column in trace.effects.items()}
    return trace.run.rules, effects, trace.decisions, trace.outcomes


def effects_of(n):
    """The effects on the first ``n`` tokens of a trace of :func:`write_ruled_run`, as :func:`control_of` says them."""
    rows = [
        (3 + i, *(getattr(one, column.name) for column in EFFECT_COLUMNS[1:]))
        for i in range(n)
        for one in effects_on(i)
    ]
    return {column.name: [row[place] for row in rows] for place, column in enumerate(EFFECT_COLUMNS)}


def alter(path, statement):
    """Change a tape behind tokentape's back."""
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(statement)
