"""Put a server under load, and record all of it into one tape."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tokentape.clock import HostClock
from tokentape.data.exchange import Scrape
from tokentape.data.tape import Tape
from tokentape.errors import Unreachable, UsageError
from tokentape.load.backlog import backlog_of
from tokentape.load.driving import Driven, Observer, drive
from tokentape.load.errands import Errand
from tokentape.load.lateness import verdict
from tokentape.load.launching import Making, SourceCaller, asked_of, exact_options
from tokentape.load.plan import Plan
from tokentape.load.prompts import Calibration, PromptMaker
from tokentape.load.workload_files import BLOCK_TOKENS, read_workload
from tokentape.load.workloads import Conversation, Listed, Turn, Workload, prompts
from tokentape.recorder.many import ManyRuns
from tokentape.sources.endpoint.capability import flown
from tokentape.sources.endpoint.failures import error_of
from tokentape.sources.endpoint.flight import Flight
from tokentape.sources.endpoint.scraping import scrape
from tokentape.sources.endpoint.source import EndpointSource

__all__ = ["calibration_of", "load", "workload_of"]

FEW_WORDS, MANY_WORDS = 32, 512
"""Words of the two texts by which a server's counting is measured."""
_POOL_SKIPS = 8
"""The first ids of a text may be special ones."""

Given = Workload | str | Path | Iterable[str | Sequence[int]]


def load(
    source: EndpointSource | str,
    workload: Given,
    *,
    path: str | Path | None = None,
    overwrite: bool = False,
    text: bool = True,
    logprobs: bool = False,
    observer: Observer | None = None,
    plan: Plan | None = None,
    notes: Mapping[str, Any] | None = None,
    **given: Any,
) -> Tape:
    """Send a workload to an endpoint as planned, and record every request, chunk and token into one tape.

    ``source`` is a URL, or what :func:`tokentape.endpoint` made of one. ``workload`` is a file (a ``Path``), prompts, or one of
    :mod:`tokentape.load.workloads`. ``given`` are fields of :class:`~tokentape.load.plan.Plan` (``rate``, ``concurrency``,
    ``duration_ns``, ``requests``, ...) and options of ``generate()``. ``logprobs`` asks the server for log-probabilities too,
    which costs it time. ``observer`` is told how it stands several times a second.

    Ctrl-C ends the load and keeps everything; the tape's state is ``partial`` then. The tape's notes: ``client`` says whether the
    client kept up, ``backlog`` whether the server did (``behind``), ``n_unsent`` how many were due and never sent. Raises
    UsageError for what cannot be asked for, and what the source raises at first contact, before there is a tape; Unreachable for a
    server that is gone in the middle, with the tape kept.
    """
    plan = _planned(plan, given)
    asked = workload_of(workload)
    schedule = plan.described(asked)  # what is no plan is refused before anybody is asked
    source = EndpointSource(source) if isinstance(source, str) else source
    source.capability(logprobs=logprobs)
    caller = SourceCaller(source, given, logprobs=logprobs)
    _refuse_unfit(caller, asked)
    maker, calibrated = _maker(source, asked, plan.seed, logprobs)
    kept = {**schedule, **calibrated, **_known(source, logprobs), "options": dict(given)}
    origin = time.perf_counter_ns()
    noted = {"clock": HostClock.name, "origin_unix_ns": time.time_ns(), **(notes or {}), "load": kept}
    tape = ManyRuns(path, source.setting(), origin, notes=noted, overwrite=overwrite, text=text)
    with tape:
        driven = drive(
            plan.tasks(Making(source.address, caller, maker), asked, origin),
            tape,
            origin=origin,
            n_all=plan.n_expected(asked),
            scraper=_scraper(source) if kept["server_metrics"] else None,
            observer=observer,
        )
        _note(tape, driven, plan)
        if observer is not None:
            observer({**driven.standing.as_dict(time.perf_counter_ns()), "writing": True})
        done = tape.close("partial" if driven.interrupted or driven.gone or driven.died else None)
    if driven.gone:
        done.close()
        raise _gone(source, driven, done.path)
    return done


def _planned(plan: Plan | None, given: dict[str, Any]) -> Plan:
    """The plan, or one of the fields of a plan among what is given, which are taken out of it."""
    own = {name: given.pop(name) for name in list(given) if name in Plan.__dataclass_fields__}
    if plan is not None and own:
        raise UsageError(
            "a plan, and parts of another", why=f"there is {', '.join(own)} too", fix="leave one of them out"
        )
    return plan or Plan(**own)


def _known(source: EndpointSource, logprobs: bool) -> dict[str, Any]:
    """What the server can do of what a load may want."""
    engine = source.capability(logprobs=logprobs).engine
    return {"exact_lengths": bool(exact_options(engine)), "server_metrics": scrape(source.host) is not None}


def _gone(source: EndpointSource, driven: Driven, path: Path | None) -> Unreachable:
    where = "" if path is None else f"; what came before is in {path}"
    return Unreachable(
        f"{source.address.url} answers no more",
        why=f"{driven.standing.done} requests had been answered, and then none{where}",
        fix="see the log of the server; then load it again, perhaps with less",
    )


def workload_of(given: Given) -> Workload:
    """What was given as a workload: itself, a file, or prompts. Raises UsageError."""
    if isinstance(given, Workload):
        return given
    if isinstance(given, Path):
        return read_workload(given)
    return prompts([given] if isinstance(given, str) else given)


def calibration_of(source: EndpointSource, *, logprobs: bool = False, seed: int = 0) -> Calibration:
    """How the server counts, by two requests of one token each. The default where it does not say. Raises its errors."""
    plain = PromptMaker(seed=seed)
    counts: list[tuple[int, int]] = []
    pool: tuple[int, ...] = ()
    for n_words in (FEW_WORDS, MANY_WORDS):
        call = source.call(plain.words(n_words, n_words), {"max_new_tokens": 1}, logprobs=logprobs)
        flight = Flight(call, source.host)
        flown(flight)
        if flight.connection is not None:
            flight.connection.close()
        if flight.fault not in (None, "no_done"):
            raise error_of(flight, source.address, source.name)
        live = flight.live()
        n_prompt = flight.exchange(0).n_prompt
        if n_prompt:
            counts.append((n_words, n_prompt))
        if live is not None:
            pool = (live.run.traces[0].prompt_ids or ())[_POOL_SKIPS:] or pool
    if len(counts) < 2:
        return Calibration(pool=pool)
    return Calibration.through(counts[0], counts[1], pool)


def _maker(source: EndpointSource, asked: Workload, seed: int, logprobs: bool) -> tuple[PromptMaker, dict[str, Any]]:
    """What makes the prompts, and what is written down of it; nobody is asked where all have their words."""
    if not asked.n_sized:
        return PromptMaker(seed=seed), {}
    found = calibration_of(source, logprobs=logprobs, seed=seed)
    known = source.capability(logprobs=logprobs)
    as_ids = bool(found.pool) and known.api == "completions" and known.engine != "transformers"
    note = {
        "prompts": "ids" if as_ids else "text",
        "tokens_a_word": found.tokens_a_word,
        "overhead_tokens": found.overhead,
        "calibrated": [list(pair) for pair in found.counted],
    }
    return PromptMaker(found, as_ids, seed, BLOCK_TOKENS), note


def _refuse_unfit(caller: SourceCaller, asked: Workload) -> None:
    """Refuse what cannot be asked of the server before anything is sent: in a client process it would be too late."""
    if not isinstance(asked, Listed):
        first = asked.conversation(0).turns[0]
        caller.call("a text", n_new=first.n_new, exact=first.exact, options=first.options)
        return
    for number in range(asked.n):
        first = asked.conversation(number).turns[0]
        # a conversation can be told as one text; what was written down as messages is to be sent as such
        chat = caller.chat or _as_written(asked, first)
        made = asked_of(Errand(Conversation(number, (first,))), PromptMaker(), chat=chat)
        caller.call(made, n_new=first.n_new, exact=first.exact, options=first.options)


def _as_written(asked: Listed, turn: Turn) -> bool:
    """Whether messages were written down as those of a chat."""
    return asked.source == "jsonl" and turn.messages is not None


def _scraper(source: EndpointSource) -> Any:
    host = source.host

    def read() -> Scrape | None:
        return scrape(host)

    return read


def _note(tape: ManyRuns, driven: Driven, plan: Plan) -> None:
    """Write down whether the client kept up, and the server."""
    now = driven.standing
    found = verdict(
        driven.lateness,
        ttft_ns=now.ttft.quantile(50),
        gap_ns=now.gap.quantile(50),
        processes=plan.processes,
        died=driven.died,
    )
    tape.writer.note("client", found)
    behind = backlog_of(now.passed, driven.n_unsent)
    if behind is not None:
        # where the client itself was that late, or had no time, nothing can be said of the server
        early, late = (one or 0 for one in behind["ttft_from_due_ns"])
        own = found["dispatch_delay_ns"]["max"] or 0
        busy = "load.late_busy" in {one["key"] for one in found["said"]}
        tape.writer.note("backlog", {**behind, "behind": behind["behind"] and not busy and own < (late - early) / 2})
    if driven.n_unsent:
        tape.writer.note("n_unsent", driven.n_unsent)
    if driven.interrupted:
        tape.writer.note("interrupted", True)
