"""Values and their file: schema, settings, requests, traces, tapes. Needs numpy and the standard library only."""

from __future__ import annotations

from tokentape.data.annex import add_explanations, add_readings
from tokentape.data.explanation import Explanation, ReplayCheck, Source
from tokentape.data.packing import candidates_json
from tokentape.data.reading import Reading
from tokentape.data.request import FINISH_REASONS, Request, Run, TraceHead
from tokentape.data.schema import CANDIDATE_COLUMNS, KINDS, SCHEMA_VERSION, SERIES, STEP_COLUMNS, TOKEN_COLUMNS, Column
from tokentape.data.setting import NOTED, Setting
from tokentape.data.store import BegunRun, TapeWriter
from tokentape.data.tape import Tape, open_tape, verify
from tokentape.data.trace import Candidates, Columns, Piece, RecordedRun, Trace
from tokentape.data.verification import Problem

__all__ = [
    "CANDIDATE_COLUMNS",
    "FINISH_REASONS",
    "KINDS",
    "NOTED",
    "SCHEMA_VERSION",
    "SERIES",
    "STEP_COLUMNS",
    "TOKEN_COLUMNS",
    "BegunRun",
    "Candidates",
    "Column",
    "Columns",
    "Explanation",
    "Piece",
    "Problem",
    "Reading",
    "RecordedRun",
    "ReplayCheck",
    "Request",
    "Run",
    "Setting",
    "Source",
    "Tape",
    "TapeWriter",
    "Trace",
    "TraceHead",
    "add_explanations",
    "add_readings",
    "candidates_json",
    "open_tape",
    "verify",
]
