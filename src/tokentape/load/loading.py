"""Put a server under load, and record all of it into one tape."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tokentape.clock import HostClock
from tokentape.data.exchange import Scrape
from tokentape.data.tape import Tape
from tokentape.errors import TokentapeError, Unreachable, UsageError
from tokentape.load.driving import Driven, Observer, drive
from tokentape.load.errands import Errand
from tokentape.load.judging import verdicts
from tokentape.load.launching import Making, SourceCaller, asked_of, exact_options
from tokentape.load.plan import Plan
from tokentape.load.prompts import Calibration, PromptMaker
from tokentape.load.workload_files import read_workload
from tokentape.load.workloads import Conversation, Listed, Turn, Workload, prompts
from tokentape.recorder.many import ManyRuns
from tokentape.sources.endpoint.capability import flown
from tokentape.sources.endpoint.failures import error_of
from tokentape.sources.endpoint.flight import Flight
from tokentape.sources.endpoint.scraping import scrape
from tokentape.sources.endpoint.source import EndpointSource
from tokentape.study.traffic.recorded import BLOCK_TOKENS

__all__ = ["calibration_of", "load", "workload_of"]

FEWEST_WORDS, MOST_WORDS = 32, 512
"""Words of the longer of the two texts by which a server's counting is measured."""
LONGER_TIMES, SHORTER_TIMES = 4, 8
"""It is so much longer than what is asked, as words differ; and the other so much shorter than it."""
_TOO_LONG = (400, 413, 422, 500)
"""What servers answer to a text that is longer than they can read."""
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

    Ctrl-C, SIGTERM and SIGHUP end the load and keep everything; the tape's state is ``partial`` then, and where a client process
    died. The tape's notes: ``ended_by`` is that signal, ``client`` says whether the client kept up, ``backlog`` whether the server
    did (``behind``), ``n_unsent`` how many were due and never sent. Raises
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


def calibration_of(
    source: EndpointSource, n_tokens: int = MOST_WORDS, *, logprobs: bool = False, seed: int = 0
) -> Calibration:
    """How the server counts, for texts of about ``n_tokens``, by two requests of one token each. The default where it does not say.

    A text that it cannot read is halved, to :data:`FEWEST_WORDS` words. Raises its errors.
    """
    plain = PromptMaker(seed=seed)
    n_words = max(FEWEST_WORDS, min(LONGER_TIMES * n_tokens, MOST_WORDS))
    while True:
        many = _answered(source, plain.words(n_words, n_words), logprobs=logprobs)
        if many.fault != "http_error" or many.status not in _TOO_LONG or n_words == FEWEST_WORDS:
            break
        n_words = max(FEWEST_WORDS, n_words // 2)
    n_many, pool = _counted(source, many, n_words)
    n_few_words = n_words // SHORTER_TIMES
    few = _answered(source, plain.words(n_few_words, n_few_words), logprobs=logprobs)
    n_few, fewer = _counted(source, few, n_few_words)
    if not n_few or not n_many:
        return Calibration(pool=pool or fewer)
    return Calibration.through((n_few_words, n_few), (n_words, n_many), pool or fewer)


def _counted(source: EndpointSource, flight: Flight, n_words: int) -> tuple[int | None, tuple[int, ...]]:
    """How many tokens a server found in a text of ``n_words``, None where it does not say, and ids that may be sent again."""
    if not flight.whole:
        raise _uncounted(error_of(flight, source.address, source.name), n_words)
    live = flight.live()
    ids = () if live is None else live.run.traces[0].prompt_ids or ()
    return flight.exchange(0).n_prompt, ids[_POOL_SKIPS:]


def _answered(source: EndpointSource, text: str, *, logprobs: bool) -> Flight:
    """The answer to a text, of one token."""
    flight = Flight(source.call(text, {"max_new_tokens": 1}, logprobs=logprobs), source.host)
    flown(flight)
    if flight.connection is not None:
        flight.connection.close()
    return flight


def _uncounted(error: TokentapeError, n_words: int) -> TokentapeError:
    """The same error, of a request that nobody asked for."""
    return type(error)(
        f"how the server counts tokens cannot be measured: {error.what}",
        why=f"to a text of {n_words} words, sent before the load for that, it says: {error.why}",
        fix="give prompts in words, which need no such measurement: --prompts FILE; or see what the server refuses",
    )


def _maker(source: EndpointSource, asked: Workload, seed: int, logprobs: bool) -> tuple[PromptMaker, dict[str, Any]]:
    """What makes the prompts, and what is written down of it; nobody is asked where all have their words."""
    if not asked.n_sized:
        return PromptMaker(seed=seed), {}
    found = calibration_of(source, asked.n_sized, logprobs=logprobs, seed=seed)
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
    client, server = verdicts(
        driven.lateness,
        now.passed,
        ttft_ns=now.ttft.quantile(50),
        gap_ns=now.gap.quantile(50),
        processes=plan.processes,
        n_unsent=driven.n_unsent,
        died=driven.died,
    )
    tape.writer.note("client", client)
    if server is not None:
        tape.writer.note("backlog", server)
    if driven.n_unsent:
        tape.writer.note("n_unsent", driven.n_unsent)
    if driven.interrupted:
        tape.writer.note("interrupted", True)
        tape.writer.note("ended_by", driven.ended_by)
