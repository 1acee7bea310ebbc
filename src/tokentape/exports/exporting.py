"""``export``: a tape as the files of another tool."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

from tokentape.data.files import path_error
from tokentape.errors import UsageError
from tokentape.exports.place import refuse_no_file, refuse_no_folder, refuse_taken, text_arriving
from tokentape.exports.tables import chosen_traces, tables

if TYPE_CHECKING:
    from tokentape.data.tape import Tape
    from tokentape.data.trace import Trace

__all__ = ["FORMATS", "Exported", "Format", "export"]

Format: TypeAlias = Literal["perfetto", "otlp", "parquet", "csv"]

FORMATS: tuple[Format, ...] = get_args(Format)

_COLUMNAR = ("parquet", "csv")
_TABLES = ("runs", "traces", "steps", "tokens", "relevance", "exchanges", "scrapes")


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written: ``path`` is the file, or the folder of ``files``; ``text`` says whether words are in them."""

    to: Format
    path: Path
    files: tuple[Path, ...]
    text: bool
    n_traces: int
    n_bytes: int


def export(
    tape: Tape | str | os.PathLike[str],
    path: str | os.PathLike[str] | None = None,
    *,
    to: Format,
    traces: Sequence[int] | None = None,
    text: bool | None = None,
    tokens: bool = False,
    withheld: bool = False,
    overwrite: bool = False,
) -> Exported:
    """Write a tape as ``"perfetto"`` (a timeline), ``"otlp"`` (OpenTelemetry spans), ``"parquet"`` or ``"csv"``
    (tables).

    ``path`` is a file (``perfetto``, ``otlp``; compressed where it ends in ``.gz``) or a folder (``parquet``, ``csv``);
    beside the tape unless given. ``traces`` are the numbers of the sequences that are wanted, all unless given.
    ``text``: whether prompts, tokens and their ids are in it; unless given they are, but for ``otlp``, which goes to
    other people's systems. ``tokens`` adds an event for each token to ``otlp``.

    A tape that is growing is exported as it is now. Raises UsageError, TapeExists, MissingExtra before any work is
    done; the errors of :func:`~tokentape.data.tape.open_tape`; RecordingError where the disk is full.
    """
    from tokentape.data.doubt import in_doubt
    from tokentape.data.tape import open_tape

    if to not in FORMATS:
        raise UsageError(
            f"no export {to!r}", why="a tape can become a few kinds of files", fix=f"one of {', '.join(FORMATS)}"
        )
    if tokens and to != "otlp":
        raise UsageError(
            f"tokens=True for {to}", why=f"{to} has the tokens anyway", fix="leave tokens=True (--tokens) out"
        )
    if isinstance(tape, str | os.PathLike):
        with open_tape(tape) as opened:
            return export(
                opened, path, to=to, traces=traces, text=text, tokens=tokens, withheld=withheld, overwrite=overwrite
            )
    place = _place(tape, None if path is None else Path(path), to)
    _refuse(tape, place, to, overwrite)
    chosen = chosen_traces(tape, traces)
    wordy = to != "otlp" if text is None else text
    with in_doubt(tape):
        files = _written(tape, chosen, place, to, text=wordy, tokens=tokens, withheld=withheld)
    return Exported(to, place, tuple(files), wordy, len(chosen), sum(one.stat().st_size for one in files))


def _written(
    tape: Tape, traces: Sequence[Trace], place: Path, to: Format, *, text: bool, tokens: bool, withheld: bool
) -> list[Path]:
    if to == "perfetto":
        from tokentape.exports.perfetto import write_perfetto

        with text_arriving(place) as file:
            write_perfetto(tape, traces, file, text=text, withheld=withheld)
        return [place]
    if to == "otlp":
        from tokentape.exports.otlp import write_otlp

        with text_arriving(place) as file:
            write_otlp(tape, traces, file, text=text, tokens=tokens, withheld=withheld)
        return [place]
    try:
        place.mkdir(exist_ok=True)
    except OSError as error:
        raise path_error(place, error) from error
    makers = tables(tape, traces, text=text, withheld=withheld)
    if to == "parquet":
        from tokentape.exports.parquet import write_parquet

        files = write_parquet(tape, makers, place)
    else:
        from tokentape.exports.csv import write_csv

        files = write_csv(makers, place)
    for stale in {place / f"{name}.{to}" for name in _TABLES} - set(files):
        stale.unlink(missing_ok=True)  # a table of an earlier export that this one does not have
    return files


def _place(tape: Tape, path: Path | None, to: Format) -> Path:
    if path is not None:
        return path
    if tape.path is None:
        raise UsageError(
            "the tape is in memory, so there is nothing to put the export beside",
            why="without a path an export is named after the tape's file",
            fix="give a path",
        )
    stem = tape.path.with_suffix("") if tape.path.suffix == ".tape" else tape.path
    return stem.with_name(f"{stem.name}-{to}" if to in _COLUMNAR else f"{stem.name}.{to}.json")


def _refuse(tape: Tape, place: Path, to: Format, overwrite: bool) -> None:
    """Everything that can be refused before the work."""
    if to not in _COLUMNAR:
        refuse_no_file(place)
        refuse_taken([place], overwrite=overwrite)
        return
    if to == "parquet":
        from tokentape.exports.parquet import refuse_no_pyarrow

        refuse_no_pyarrow()
    refuse_no_folder(place, f".{to}")
    refuse_taken([place / f"{name}.{to}" for name in _TABLES], overwrite=overwrite)
