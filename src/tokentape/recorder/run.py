"""``record``: a source answers a request, and a tape holds every step of it."""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict, Unpack

from tokentape.data.request import Request
from tokentape.data.tape import Tape
from tokentape.errors import PromptError, TokentapeError
from tokentape.recorder.probes import tier
from tokentape.recorder.progress import Progress
from tokentape.recorder.recorder import Recorder
from tokentape.recorder.tick import LiveRun, Probe, Source, needs_of

__all__ = ["Kept", "drive", "drive_scraped", "record", "recorder_of"]

Prompt = str | Sequence[int] | Sequence[str] | Sequence[Sequence[int]]


def record(
    source: Source,
    prompt: Prompt,
    *,
    path: str | Path | None = None,
    probe: str | Sequence[Probe] = "distribution",
    candidates: int = 5,
    seed: int | None = None,
    overwrite: bool = False,
    text: bool = True,
    notes: Mapping[str, Any] | None = None,
    observer: Callable[[Progress], None] | None = None,
    **options: Any,
) -> Tape:
    """Let ``source`` answer ``prompt`` and record every step and token.

    ``prompt`` is a text, token ids, or a list of either (a batch); ``options`` are those of ``generate()``
    (``max_new_tokens``, ``do_sample``, ``temperature``, ``stop_strings``, ...). ``path`` None keeps the tape in memory.
    ``probe`` is a tier, ``"timing"`` or ``"distribution"`` (which keeps the ``candidates`` most likely tokens of each step), or
    your own probes. ``seed`` seeds the random generators. ``text`` False leaves prompt and output out of the tape.

    On Ctrl-C or an error what was recorded is saved as a partial tape, and the exception goes on. Raises
    :class:`~tokentape.errors.TapeExists`, :class:`~tokentape.errors.UsageError`,
    :class:`~tokentape.errors.RecordingError` and what the source raises.
    """
    request = Request(prompts=_prompts(prompt), options=options, seed=seed)
    probes = tier(probe, candidates) if isinstance(probe, str) else list(probe)
    live = source.start(request, needs_of(probes))  # refuses what it cannot do before a file is made
    recorder = recorder_of(source, live, probes, path, overwrite=overwrite, text=text, notes=notes, observer=observer)
    with recorder:
        drive_scraped(recorder, live, live.start)
    return recorder.tape


class Kept(TypedDict, total=False):
    """What is kept of a recording: parameters of :func:`record`."""

    overwrite: bool
    text: bool
    notes: Mapping[str, Any] | None
    observer: Callable[[Progress], None] | None


def recorder_of(
    source: Source, live: LiveRun, probes: Sequence[Probe], path: str | Path | None, **kept: Unpack[Kept]
) -> Recorder:
    """What records the runs of a source; the time of its tape begins when the first of them, ``live``, was handed over."""
    return Recorder(path, source.setting(), probes, source.clock, origin=live.start, **kept)


def drive_scraped(recorder: Recorder, live: LiveRun, origin: Any) -> None:
    """As :func:`drive`, and keep what a server says of itself before and after, also where it breaks off its answer.

    ``origin`` is the mark at which the time of the tape begins.
    """
    try:
        drive(recorder, live)
    except TokentapeError:
        with contextlib.suppress(TokentapeError):  # the error under way is the one to tell
            _keep_scrapes(recorder, live, origin)
        raise
    _keep_scrapes(recorder, live, origin)


def _keep_scrapes(recorder: Recorder, live: LiveRun, origin: Any) -> None:
    if live.scrapes is not None:
        recorder.writer.add_scrapes(live.scrapes(origin))


def drive(recorder: Recorder, live: LiveRun, each: Callable[[], object] = bool) -> None:
    """Record one run from its beginning to its end; ``each`` is called after every step."""
    with contextlib.closing(live.ticks):
        recorder.begin(live)
        for tick in live.ticks:
            recorder.add(tick)
            each()
        recorder.end(live.finish_reasons())


def _prompts(prompt: Any) -> tuple[str | tuple[int, ...], ...]:
    """One entry a sequence, each a text or token ids."""
    if isinstance(prompt, str):
        return (prompt,)
    entries = _entries(prompt)
    if entries and all(isinstance(entry, int) for entry in entries):
        return (_ids(entries),)
    return tuple(entry if isinstance(entry, str) else _ids(_entries(entry)) for entry in entries)


def _entries(prompt: Any) -> list[Any]:
    """What is in a sequence of any kind; arrays and tensors become lists of plain numbers."""
    if hasattr(prompt, "tolist"):
        prompt = prompt.tolist()
    # bytes would be read as ids, and a tokenizer's output by its keys
    if isinstance(prompt, bytes | bytearray | Mapping) or not isinstance(prompt, Iterable):
        raise _unreadable(prompt)
    return list(prompt)


def _ids(entries: Iterable[Any]) -> tuple[int, ...]:
    ids = []
    for entry in entries:
        if isinstance(entry, bool) or not hasattr(entry, "__index__"):
            raise _unreadable(entry)
        ids.append(operator.index(entry))
    return tuple(ids)


def _unreadable(given: Any) -> PromptError:
    return PromptError(
        f"a prompt of type {type(given).__name__} cannot be read",
        why="a prompt is a text or a list of token ids, a batch a list of these",
        fix="give a str, or a list of int",
    )
