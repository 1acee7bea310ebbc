"""A whole tape as plain values: cut from columns that are read in one go, and the same as read trace by trace."""

from __future__ import annotations

from pathlib import Path

import pytest

from served_tapes import loaded_tape, served_tape
from tokentape.data import open_tape
from tokentape.views import document
from tokentape.views.document import tape_document
from tokentape.views.shape import plain_columns

GOLDEN = sorted((Path(__file__).parents[1] / "data" / "golden").glob("*.tape"))


@pytest.fixture(params=[*GOLDEN, "kinds", "load"], ids=lambda one: getattr(one, "name", one))
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    make = {"kinds": served_tape, "load": lambda at: loaded_tape(at, 60)}.get(request.param)
    return request.param if make is None else make(tmp_path / "a.tape")


def test_what_is_read_in_one_go_is_what_each_trace_has(path, monkeypatch):
    monkeypatch.setattr(document, "FEW", 0)
    with open_tape(path) as tape:
        found = tape_document(tape)
        assert len(found["traces"]) == len(tape.traces)
        for told, trace in zip(found["traces"], tape.traces, strict=True):
            assert told["tokens"] == plain_columns(trace.tokens) and told["overshoot"] == plain_columns(trace.overshoot)
            assert told["effects"] == plain_columns(trace.effects)
            ids, scores = plain_columns({"ids": trace.candidates.ids, "logprob": trace.candidates.logprob}).values()
            pairs = [
                [[i, p] for i, p in zip(*one, strict=True) if i is not None] for one in zip(ids, scores, strict=True)
            ]
            assert told["candidates"] == pairs
        steps = {trace.run.number: trace.steps for trace in tape.traces}
        for told in found["runs"]:
            plain = plain_columns(steps[told["number"]])
            assert {name: values for name, values in told["steps"].items() if name != "kind_name"} == plain
        alone = tape_document(tape, traces=[len(tape.traces) - 1])
        assert alone["traces"] == found["traces"][-1:] and alone["runs"] == found["runs"]
