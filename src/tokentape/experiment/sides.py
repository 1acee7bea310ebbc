"""What takes turns in a comparison: a source that is recorded, here or in a process of its own."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import tokentape.errors as errors
from tokentape.data.request import Request
from tokentape.data.store import TapeWriter
from tokentape.data.tape import Tape, open_tape
from tokentape.errors import TokentapeError
from tokentape.recorder.probes import tier
from tokentape.recorder.recorder import Recorder
from tokentape.recorder.tick import LiveRun, Source, Tick
from tokentape.study.turns import step_ns

__all__ = ["IsolatedSide", "RecordedSide", "Recording", "TapedSide", "TorchTurn", "noted"]


@dataclass(frozen=True, slots=True)
class Recording:
    """What a side records at each of its runs, and into which tape.

    ``of`` is what is timed: ``"decode"`` (each step after the prompt), ``"ttft"`` or ``"e2e"``.
    """

    request: Request
    path: Path
    of: str = "decode"
    probe: str = "distribution"
    candidates: int = 5
    text: bool = True
    overwrite: bool = False


class TapedSide(Protocol):
    """A side whose runs are kept on a tape."""

    def run(self) -> Iterator[float]: ...

    def close(self) -> Tape:
        """The tape, finished."""


class RecordedSide:
    """Runs of one source, one after another, on one tape.

    ``turn`` is entered whenever it is this side's turn: what both sides share and each needs otherwise is set there. With
    ``by_steps`` what passes between its turns is left out of its times, so that its tape reads as if it had run alone; CPU time
    and context switches, which cannot be told apart then, are not recorded.
    """

    def __init__(
        self,
        source: Source,
        what: Recording,
        *,
        by_steps: bool = False,
        turn: AbstractContextManager[Any] | None = None,
    ) -> None:
        self._source = source
        self._what = what
        self._by_steps = by_steps
        self._turn = turn or nullcontext()
        probes = [p for p in tier(what.probe, what.candidates) if not (by_steps and p.name == "machine")]
        with self._turn:
            setting = source.setting()
        self._recorder = Recorder(what.path, setting, probes, source.clock, overwrite=what.overwrite, text=what.text)
        self._left = source.clock.mark()
        self._away_ns = 0

    def run(self) -> Iterator[float]:
        """One run; the time of each step that counts, as it is done. Closed early, it ends there."""
        self._arrive()
        with self._turn:
            live = self._source.start(self._what.request, self._recorder.needs)
            live.start -= self._away_ns
            self._recorder.begin(live)
        reasons: Any = ["criteria"] * len(live.run.traces)
        before_end = None
        try:
            while (tick := self._next(live)) is not None:
                ns = self._counts(live, tick, before_end)
                before_end = tick.end
                if ns is not None:
                    yield from self._handed_over(ns)
            reasons = live.finish_reasons()
            if self._what.of == "e2e" and before_end is not None:
                yield from self._handed_over(before_end - live.start)
        except Exception:
            reasons = ["error"] * len(reasons)
            raise
        except KeyboardInterrupt:
            reasons = ["interrupted"] * len(reasons)
            raise
        finally:
            live.ticks.close()
            self._recorder.end(reasons)
            self._left = self._source.clock.mark()

    def _next(self, live: LiveRun) -> Tick | None:
        """The next step, recorded, on this side's own time."""
        with self._turn:
            tick = next(live.ticks, None)
        if tick is not None:
            tick.start -= self._away_ns
            tick.end -= self._away_ns
            if tick.forward is not None:
                tick.forward = (tick.forward[0] - self._away_ns, tick.forward[1] - self._away_ns)
            self._recorder.add(tick)
        return tick

    def _counts(self, live: LiveRun, tick: Tick, before_end: int | None) -> int | None:
        """The time of a step, if it is one that counts."""
        if self._what.of == "ttft":
            return tick.end - live.start if before_end is None else None
        if self._what.of == "e2e" or before_end is None or tick.kind == "prefill":
            return None
        return step_ns(before_end, tick.start, tick.end, ran_ahead=tick.device is not None or tick.kind == "chunk")

    def _handed_over(self, ns: int) -> Iterator[float]:
        self._left = self._source.clock.mark()
        yield ns
        self._arrive()

    def _arrive(self) -> None:
        if self._by_steps:
            clock = self._source.clock
            self._away_ns += clock.ns(clock.mark(), since=self._left)

    def close(self) -> Tape:
        """The tape, finished."""
        self._recorder.close()
        return self._recorder.tape


class TorchTurn:
    """What two models in one process share: how many threads torch takes, and with ``random`` the state of its generator.

    ``threads`` None leaves them as they were when this was made.
    """

    def __init__(self, threads: int | None = None, *, random: bool = False) -> None:
        import torch

        self._torch = torch
        self._threads = threads or torch.get_num_threads()
        self._state = torch.get_rng_state() if random else None

    def __enter__(self) -> None:
        if self._torch.get_num_threads() != self._threads:
            self._torch.set_num_threads(self._threads)
        if self._state is not None:
            self._torch.set_rng_state(self._state)

    def __exit__(self, *error: object) -> None:
        if self._state is not None:
            self._state = self._torch.get_rng_state()


class IsolatedSide:
    """A side in a process of its own, which ``make`` (to be sent there, so a function of a module) makes.

    Raises what the other process raises.
    """

    def __init__(self, make: Callable[[], TapedSide]) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, make), daemon=True)
        self._process.start()
        theirs.close()
        self._asked = 0

    def ready(self) -> None:
        """Wait until the other process has made its side."""
        self._answer()

    def run(self) -> Iterator[float]:
        """One run; its times come all at once, when it is over."""
        self._pipe.send("run")
        yield from self._answer()

    def close(self) -> Tape:
        """The tape, finished; a run that is under way is waited for."""
        self._pipe.send("close")
        while not isinstance(found := self._answer(), Path):
            pass
        self._process.join()
        return open_tape(found)

    def _answer(self) -> Any:
        try:
            kind, found = self._pipe.recv()
        except EOFError:
            self._process.join()
            raise TokentapeError(
                f"the process of a side ended with exit code {self._process.exitcode}",
                why="it was killed, or ran out of memory",
                fix="a smaller model, or leave out --isolated",
            ) from None
        if kind == "error":
            name, what, why, fix = found
            raise getattr(errors, name, TokentapeError)(what, why=why, fix=fix)
        return found


def _serve(pipe: Any, make: Callable[[], TapedSide]) -> None:
    """The other process: does what it is told. Ctrl-C is for the first process to hear."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        side = make()
        pipe.send(("done", None))
        while pipe.recv() == "run":
            pipe.send(("done", list(side.run())))
        with side.close() as tape:
            pipe.send(("done", tape.path))
    except EOFError:
        pass
    except Exception as error:
        parts = (getattr(error, "what", str(error)), getattr(error, "why", ""), getattr(error, "fix", ""))
        pipe.send(("error", (type(error).__name__, *parts)))


def noted(path: Path, key: str, value: Mapping[str, Any]) -> None:
    """Write a fact onto a tape that is finished."""
    with open_tape(path) as tape:
        state = tape.state
    writer = TapeWriter.resume(path)
    writer.note(key, value)
    writer.close(state).close()
