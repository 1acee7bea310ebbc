"""``tokentape record --tp-plan auto`` under ``torchrun``: every rank runs the model, rank 0 records and speaks."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import tokentape.errors as errors
from tokentape.cli.failure import INTERRUPTED
from tokentape.cli.record import Plan, Recording, make_plan, request_of, source_of
from tokentape.errors import ModelError, TokentapeError, UsageError

if TYPE_CHECKING:
    from tokentape.data.tape import Tape
    from tokentape.models.parallel import Party, Ranks

__all__ = ["parallel_recording"]


class _Ended(Exception):
    """``torchrun`` ends this rank because another one has ended."""


def parallel_recording(ctx: click.Context, given: dict[str, Any]) -> tuple[Path, str, Recording | None]:
    """As for a model in one process; of the ranks but the first everything is done on return, and nothing is left to record."""
    from tokentape.models.parallel import ranks_here

    ranks = ranks_here()
    if "-" in given["prompt"]:
        raise UsageError(
            "a prompt from stdin together with --tp-plan",
            why="every rank needs it, and one would get it",
            fix="-f FILE",
        )
    if ranks.rank:
        ctx.exit(_follow({**given, "overwrite": True, "report": None}, ranks))
    plan = _shared_out(make_plan(given), given)
    doing = f"loading {plan.model} on {ranks.size} ranks"
    return plan.path, doing, lambda observer: _lead(plan, ranks, observer)


def _shared_out(plan: Plan, given: dict[str, Any]) -> Plan:
    return replace(plan, load={**plan.load, "tp_plan": given["tp_plan"]})


def _by_all(plan: Plan, party: Party, path: Path | None, observer: Callable[[Any], None] | None) -> Tape:
    """What every rank does. What is drawn at random is drawn by rank 0."""
    import tokentape
    from tokentape.sources.ranks import with_ranks

    source = source_of(plan)
    prompt, keep, options = request_of(plan, source)
    prompt, keep["seed"] = party.same((prompt, keep["seed"]))
    tape = tokentape.record(source, prompt, path=path, observer=observer, **keep, **options)
    return with_ranks(tape, party)


def _lead(plan: Plan, ranks: Ranks, observer: Callable[[Any], None]) -> Tape:
    """Rank 0: the tape, or why there is none, whichever rank it was that ended."""
    from tokentape.models.parallel import is_lost_rank, joined

    with _ended_by_torchrun(), joined(ranks) as party:
        try:
            return _by_all(plan, party, plan.path, observer)
        except KeyboardInterrupt:
            party.hear()
            raise
        except Exception as error:
            if isinstance(error, TokentapeError):
                party.hear()
                raise
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it is ending; torchrun waits before it kills
            cause = _of_others(party)
            party.hear()
            if cause is not None:
                raise cause from error
            if isinstance(error, _Ended) or is_lost_rank(error):
                raise _without_a_word() from error
            raise


def _without_a_word() -> ModelError:
    return ModelError(
        "another rank ended, and left no word",
        why="it was killed, as the system does where memory runs out",
        fix="free -g on its machine; more ranks hold smaller parts",
    )


def _of_others(party: Party) -> BaseException | None:
    """Why another rank ended, as an error to raise here; None where it left no word."""
    told = party.told()
    if told is None:
        return None
    if told["kind"] == "KeyboardInterrupt":
        return KeyboardInterrupt()
    kind = getattr(errors, told["kind"], TokentapeError)
    found: BaseException = kind(f"rank {told['rank']}: {told['what']}", why=told["why"], fix=told["fix"])
    return found


def _follow(given: dict[str, Any], ranks: Ranks) -> int:
    """A rank that records nothing that stays, and says nothing; its exit code."""
    from tokentape.models.parallel import joined, outlast

    met: list[Party] = []
    try:
        plan = _shared_out(make_plan(given), given)
        with joined(ranks) as party:
            met.append(party)
            _by_all(plan, party, None, None).close()
    except KeyboardInterrupt:
        _tell(met, {"kind": "KeyboardInterrupt"})
        return INTERRUPTED
    except Exception as error:
        if os.environ.get("TOKENTAPE_DEBUG"):
            import traceback

            traceback.print_exception(error)
        if not met:
            outlast()
        _tell(met, _words_of(error))
        return getattr(error, "exit_code", 1)
    return 0


def _tell(met: list[Party], told: dict[str, str]) -> None:
    for party in met:
        party.tell(told)


def _words_of(error: Exception) -> dict[str, str]:
    if isinstance(error, TokentapeError):
        return {"kind": type(error).__name__, "what": error.what, "why": error.why, "fix": error.fix}
    text = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    return {
        "kind": "TokentapeError",
        "what": text,
        "why": "this was not expected",
        "fix": "TOKENTAPE_DEBUG=1 torchrun ... shows the traceback; please report it",
    }


@contextlib.contextmanager
def _ended_by_torchrun() -> Iterator[None]:
    """Within it, being ended is an error that saves the tape."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise _Ended

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
