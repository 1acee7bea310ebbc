"""Whatever goes in comes out, whether as rows or in blocks, and from rows, blocks and packs alike."""

from __future__ import annotations

import json

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tokentape.data import (
    STEP_COLUMNS,
    TOKEN_COLUMNS,
    Run,
    Setting,
    TapeWriter,
    TraceHead,
    candidates_json,
    open_tape,
    packing,
)
from tokentape.data.blocks import Draft, DraftTokens

OVERSHOOT = [column.name for column in TOKEN_COLUMNS].index("overshoot")
LIMITS = {dtype: (int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)) for dtype in ("i4", "i8", "u1")}

text = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)
some_bytes = st.one_of(
    text.map(str.encode), st.binary(max_size=6), st.sampled_from(["猫", "🐈", "é\0"]).map(lambda s: s.encode()[:-1])
)
floats = st.floats(allow_nan=False)
float32 = st.floats(width=32, allow_nan=False, max_value=0)


def values(column):
    if column.name in ("index", "position", "step"):
        return st.none()  # filled in below
    if column.choices:
        some = st.integers(0, len(column.choices) - 1)
    elif column.unit == "bool":
        some = st.integers(0, 1)
    elif column.dtype == "f8":
        some = floats
    else:
        some = st.integers(*LIMITS[column.dtype])
    return st.one_of(st.none(), some) if column.nullable else some


steps = st.lists(st.tuples(*(values(column) for column in STEP_COLUMNS)), min_size=1, max_size=8)
tokens = st.lists(
    st.tuples(
        st.tuples(*(values(column) for column in TOKEN_COLUMNS)),
        st.one_of(st.none(), some_bytes),
        st.one_of(st.none(), st.lists(st.tuples(st.integers(0, 2**31 - 1), float32), max_size=4)),
    ),
    max_size=8,
)


def split(raw):
    if raw is None:
        return None, None
    try:
        return raw.decode(), None
    except UnicodeDecodeError:
        return None, raw


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    step_rows=steps,
    traces=st.lists(tokens, min_size=1, max_size=3),
    prompt=text,
    part=st.sampled_from([1, 2, 8192]),
    ways=st.lists(st.sampled_from(["rows", "block"]), min_size=1, max_size=4),
)
def test_rows_come_back(step_rows, traces, prompt, part, ways):
    step_rows = [(i, *row[1:]) for i, row in enumerate(step_rows)]
    traces = [
        [((i, i * len(step_rows) // len(trace), *row[2:]), raw, pairs) for i, (row, raw, pairs) in enumerate(trace)]
        for trace in traces
    ]
    heads = tuple(TraceHead(row, 0, (), prompt) for row in range(len(traces)))
    writer = TapeWriter.create(None, Setting({"prompt": prompt}), notes={"note": prompt})
    begun = writer.begin(Run(heads, {"stop": prompt}))
    for i, step_row in enumerate(step_rows):
        said = [
            (number, row, raw, pairs)
            for number, trace in zip(begun.trace_numbers, traces, strict=True)
            for row, raw, pairs in trace
            if row[1] == i
        ]
        append(writer, ways[i % len(ways)], begun.number, step_row, said)
    usual, packing.PART = packing.PART, part
    try:
        same(open_tape(writer), step_rows, traces, prompt)
        writer.end(begun.number, ["length"] * len(traces))
        same(open_tape(writer), step_rows, traces, prompt)
        with writer.close() as tape:
            assert not [problem for problem in tape.verify() if "when" in problem.what or "pack" in problem.what]
    finally:
        packing.PART = usual


def append(writer, way, run, step_row, said):
    """One step and its tokens, each ``(trace, row, bytes, candidates)``."""
    if way == "rows":
        rows = [
            (trace, *row, *split(raw), None if pairs is None else candidates_json(pairs))
            for trace, row, raw, pairs in said
        ]
        writer.append([(run, *step_row)], rows)
        return
    draft = Draft()
    tokens = None
    if said:
        traces, rows, data, candidates = (list(column) for column in zip(*said, strict=True))
        tokens = DraftTokens(len(said), traces, [list(column) for column in zip(*rows, strict=True)], data, candidates)
    draft.add(1, step_row, tokens)
    writer.append_block(run, draft)


def same(tape, step_rows, traces, prompt):
    assert tape.setting.facts["prompt"] == tape.notes["note"] == tape.runs[0].options["stop"] == prompt
    for trace, expected in zip(tape.traces, traces, strict=True):
        assert trace.prompt_text == prompt
        kept = [one for one in expected if not one[0][OVERSHOOT]]
        past = [one for one in expected if one[0][OVERSHOOT]]
        for columns, rows in ((trace.tokens, kept), (trace.overshoot, past)):
            for place, column in enumerate(TOKEN_COLUMNS):
                assert columns[column.name].tolist() == [row[place] for row, _, _ in rows]
        for place, column in enumerate(STEP_COLUMNS):
            assert trace.steps[column.name].tolist() == [row[place] for row in step_rows]
            mask = trace.steps[column.name].mask
            assert not column.dtype.startswith("i") or set(trace.steps[column.name].data[mask]) <= {
                LIMITS[column.dtype][0]
            }
        assert trace.token_bytes == [raw for _, raw, _ in kept]
        if None not in trace.token_bytes:
            assert b"".join(trace.token_bytes) == trace.bytes
            assert trace.text == trace.bytes.decode("utf-8", "replace")
        for ids, logprobs, (_, _, pairs) in zip(
            trace.candidates.ids.tolist(), trace.candidates.logprob.tolist(), kept, strict=True
        ):
            pairs = pairs or []
            assert ids[: len(pairs)] == [i for i, _ in pairs] and not any(i is not None for i in ids[len(pairs) :])
            assert logprobs[: len(pairs)] == [p for _, p in pairs]


@given(st.lists(st.tuples(st.integers(0, 2**31 - 1), float32), max_size=5))
def test_candidates_as_json_give_float32_back(pairs):
    read = json.loads(candidates_json(pairs))
    assert [(i, float(np.float32(p))) for i, p in read] == pairs


def test_numpy_is_not_needed_to_read_candidates():
    assert candidates_json([(5, -0.5), (7, float("-inf"))]) == "[[5,-0.5],[7,-9e999]]"
    assert candidates_json([]) == "[]"
