"""``tokentape record --endpoint`` with many requests: one load, or one for each step of a sweep."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tokentape.cli.live_page import live_page
from tokentape.cli.load_ending import Ending, Written, died, ends_in_order
from tokentape.cli.output import document, print_document, print_lines
from tokentape.cli.preparation import refuse_taken, tape_place
from tokentape.cli.report import refuse_report, reported
from tokentape.cli.status import Drawing, draws_on
from tokentape.errors import TapeError, Unreachable, UsageError

if TYPE_CHECKING:
    from tokentape.load.knee import Step
    from tokentape.load.plan import Plan
    from tokentape.load.workloads import Workload
    from tokentape.study.slo import Slo
    from tokentape.views.screen import Screen

__all__ = ["run"]

PLAIN_SECONDS = 5.0
"""How often a line is printed where there is no terminal to draw on."""
REFINE = 3
FAILED = 1
"""The exit code where no request was answered."""


def run(given: dict[str, Any]) -> None:
    """Carry out the load that was asked for, and report it; where a signal ended the load the exit code says so (130 for Ctrl-C).

    Raises UsageError for everything that can be seen without the server, RecordingError where a client process died.
    """
    from tokentape.load.knee import read_numbers, read_rates

    rates = [] if given["rate"] is None else read_rates(given["rate"])
    numbers = [] if given["concurrency"] is None else read_numbers(given["concurrency"])
    refuse_unfit(given)
    if len(rates) > 1 and len(numbers) > 1:
        raise UsageError(
            "a sweep over rates and concurrency at once",
            why="a sweep changes one thing",
            fix="one number for --rate, or for --concurrency",
        )
    one, users = rates[0] if rates else None, numbers[0] if numbers else None
    with ends_in_order():
        if len(rates) > 1:
            _sweep(given, rates, lambda rate: plan_of(given, rate, users), "rate")
        elif len(numbers) > 1:
            _sweep(given, numbers, lambda number: plan_of(given, one, round(number)), "concurrency")
        else:
            _once(given, plan_of(given, one, users))


def refuse_unfit(given: Mapping[str, Any]) -> None:
    """Refuse what means nothing in a load."""
    if given["prompt_ids"] is not None:
        raise UsageError(
            "--prompt-ids in a load", why="ids of many prompts stand in a file", fix="--workload FILE.jsonl"
        )
    refuse_report(given)
    sources = {"--workload": given["workload"], "--prompts": given["prompts"], "-f": given["file"]}
    sources |= {"--prompt-tokens": given["prompt_tokens"], "a prompt": given["prompt"]}
    named = [name for name, value in sources.items() if value not in (None, ())]
    if len(named) > 1:
        raise UsageError(f"{' and '.join(named)} together", why="a load has one workload", fix=f"leave out {named[-1]}")
    if not named:
        raise UsageError(
            "a load of nothing",
            why="each request asks something",
            fix="a prompt; --workload FILE; or --prompt-tokens N for prompts of a length",
        )


def _once(given: dict[str, Any], plan: Plan) -> None:
    from tokentape.load.account import account_of
    from tokentape.views.card import shown_path
    from tokentape.views.screen import Screen

    path, slo = _place(given), _slo(given)
    quiet = given["quiet"] or given["as_json"]
    screen = Screen.of(sys.stderr)
    with live_page(path, given) as page:
        written = Written.since_now(path)
        try:
            tape = _recorded(given, plan, path, quiet)
        except Unreachable:
            if written and not quiet:
                _tell_what_there_is(path, screen, given["slo"], slo)
            raise
        with tape:
            account = account_of(tape, slo)
            ending = Ending(tape.notes.get("ended_by"))
            gone = died(tape.notes, shown_path(path))
            facts = {"tape": tape.path, "state": tape.state, "interrupted": ending.by is not None}
            if given["as_json"]:
                report = reported(tape.path, given)
                print_document(document("record", **facts, setting=tape.setting.facts, report=report, load=account))
            else:
                click.echo(shown_path(path))
                if ending.by is not None and not quiet:
                    click.echo(screen.say("load.interrupted"), err=True)
                if not quiet:
                    _print_card(account, path, screen, given["slo"])
                reported(tape.path, given)
        if ending.by is not None:
            click.get_current_context().exit(ending.code)
        _tell_failures(account, screen, quiet=given["as_json"], died=gone is not None)
        if gone is not None:
            if given["as_json"]:  # the document has it
                click.get_current_context().exit(gone.exit_code)
            raise gone
        if page is not None:
            page.stay()


def _print_card(account: Mapping[str, Any], path: Path, screen: Screen, slo: str | None) -> None:
    from tokentape.views.card import shown_path
    from tokentape.views.load_table import load_card

    print_lines(load_card(account, shown_path(path), screen, slo), err=True)


def _tell_what_there_is(path: Path, screen: Screen, told: str | None, slo: Slo | None) -> None:
    """The card of a load whose server is gone: of what came before."""
    from tokentape.data.tape import open_tape
    from tokentape.load.account import account_of

    try:
        with open_tape(path) as tape:
            _print_card(account_of(tape, slo), path, screen, told)
    except TapeError:
        return  # the error that is told next says more


def _tell_failures(account: Mapping[str, Any], screen: Screen, *, quiet: bool, died: bool = False) -> None:
    """Say how many requests failed; where all did, the command has failed too. Of a load that ``died`` an error says it."""
    if not account["n_failed"]:
        return
    n, n_failed = account["n_requests"] - account["n_retries"], account["n_failed_for_good"]
    everything = not account["n_ended"] and not account["n_cut_short"]
    if n_failed and not quiet:
        faults = screen.say("card.list").join(account["faults"]) or screen.say("load.failed")
        key = "load.all_failed" if everything else "load.some_failed"
        mark = screen.say("failure.error")
        click.echo(f"{screen.paint(mark, 'red')} {screen.say(key, n=n_failed, all=n, faults=faults)}", err=True)
    if everything and not died:
        click.get_current_context().exit(FAILED)


def _sweep(given: dict[str, Any], values: Sequence[float], plan: Callable[[float], Plan], by: str) -> None:
    """One tape a step, beside each other, and what all of them say."""
    from tokentape.experiment.amounts import share
    from tokentape.load.knee import SHARE, sweep_rates
    from tokentape.views.card import shown_path
    from tokentape.views.load_table import sweep_step, sweep_table
    from tokentape.views.screen import Screen

    first, slo = _place(given, taken=False), _slo(given)
    screen, quiet = Screen.of(sys.stderr), given["quiet"] or given["as_json"]
    for name in ("report", "live"):
        if given[name]:
            raise UsageError(f"--{name} of a sweep", why="each step has a tape of its own", fix=f"leave out --{name}")
    target = SHARE if given["slo_share"] is None else share(given["slo_share"], "--slo-share")
    for value in values:
        refuse_taken(_beside(first, value), overwrite=given["overwrite"])
        plan(value).schedule(workload_of(given))
    ending = Ending()
    swept = sweep_rates(
        lambda value: _measured(given, value, plan(value), _beside(first, value), slo, quiet, ending),
        values,
        slo=given["slo"],
        target=target,
        refine=REFINE if given["refine"] is None else given["refine"],
        observer=None if quiet else lambda step: click.echo(sweep_step(step, screen, by), err=True),
        by=by,
    )
    found = swept.as_dict()
    if ending.error is not None and (given["as_json"] or not swept.steps):
        raise ending.error
    if given["as_json"]:
        print_document(document("record", sweep=found))
    elif found["steps"]:
        # what shows the table again, unless that name is of another tape
        whole = None if first.exists() or len(found["steps"]) < 2 else shown_path(first)
        print_lines(sweep_table({**found, "whole": whole}, Screen.of(sys.stdout)))
    if ending.error is not None:
        raise ending.error
    if swept.interrupted:
        click.get_current_context().exit(ending.code)
    if ending.died and not given["as_json"]:
        raise ending.died[0]
    if ending.died:
        click.get_current_context().exit(ending.died[0].exit_code)
    if not any(step.n_ended for step in swept.steps):
        click.get_current_context().exit(FAILED)


def _measured(
    given: dict[str, Any], value: float, plan: Plan, path: Path, slo: Slo | None, quiet: bool, ending: Ending
) -> Step | None:
    """One step of a sweep; None where a signal ended it, or a server that is gone: which of them, ``ending`` has."""
    from tokentape.load.account import account_of
    from tokentape.load.knee import step_of
    from tokentape.views.card import shown_path

    refuse_taken(path, overwrite=given["overwrite"])
    try:
        tape = _recorded(given, plan, path, quiet)
    except Unreachable as error:  # what was measured before is told first
        ending.error = error
        return None
    except (KeyboardInterrupt, SystemExit) as left:  # between two loads, or a second one
        ending.heard(left)
        return None
    with tape:
        ending.by = tape.notes.get("ended_by")
        if ending.by is not None:
            _tell_partial(path)
            return None
        if (gone := died(tape.notes, shown_path(path))) is not None:
            ending.died.append(gone)
        return step_of(value, account_of(tape, slo), shown_path(path))


def _recorded(given: dict[str, Any], plan: Plan, path: Path, quiet: bool) -> Any:
    from tokentape.cli.record_endpoint import endpoint_of
    from tokentape.load.loading import load

    options = _options(given)
    workload = workload_of(given)
    written = Written.since_now(path)
    with LoadTable(quiet=quiet) as table:
        try:
            return load(
                endpoint_of(given),
                workload,
                plan=plan,
                path=path,
                overwrite=given["overwrite"],
                text=given["text"],
                logprobs=_asks_for_logprobs(),
                observer=table.observe,
                **options,
            )
        except (Exception, KeyboardInterrupt, SystemExit):
            if written:
                _tell_partial(path)
            raise


def _tell_partial(path: Path) -> None:
    from tokentape.views.card import shown_path

    click.echo(f"what was recorded is in {shown_path(path)} (partial)", err=True)


def plan_of(given: Mapping[str, Any], rate: float | None, concurrency: int | None = None) -> Plan:
    """When the requests are sent. Raises UsageError."""
    from tokentape.load.plan import Plan

    return Plan(
        rate=rate,
        concurrency=concurrency,
        arrivals=given["arrivals"],
        burstiness=1.0 if given["burstiness"] is None else given["burstiness"],
        ramp_ns=_ns(given["ramp"], "--ramp") or 0,
        duration_ns=_ns(given["duration"], "--duration"),
        requests=given["requests"],
        time_scale=given["time_scale"],
        processes=1 if given["processes"] is None else given["processes"],
        retries=given["retries"],
        seed=given["seed"] or 0,
    )


def workload_of(given: Mapping[str, Any]) -> Workload:
    """What the requests ask. Raises UsageError."""
    from tokentape.cli.prompts import Asked, read_prompt
    from tokentape.load.workload_files import read_workload
    from tokentape.load.workloads import Synthetic, prompts

    limit = given["max_new_tokens"]
    if given["workload"] is not None:
        return read_workload(given["workload"], given["workload_format"], n_new=limit)
    if given["prompts"] is not None:
        return read_workload(given["prompts"], given["workload_format"], n_new=limit)
    if given["prompt_tokens"] is not None:
        return Synthetic(given["prompt_tokens"], limit)
    prompt: Any = read_prompt(Asked(words=given["prompt"], file=given["file"], server=True))
    return prompts([prompt], limit)


class LoadTable(Drawing):
    """Shows how a load stands, on stderr: drawn over itself on a terminal, a plain line now and then elsewhere."""

    def __init__(self, *, quiet: bool) -> None:
        from tokentape.views.screen import Screen

        self._screen = Screen.of(sys.stderr)
        self._now: dict[str, Any] | None = None
        drawn = draws_on()
        self._live: Any = self._made() if drawn and not quiet else None
        self._plain = not drawn and not quiet
        self._printed = time.monotonic()

    def observe(self, now: dict[str, Any]) -> None:
        """How it stands."""
        from tokentape.views.load_table import live_line

        self._now = now
        if self._plain and time.monotonic() - self._printed >= PLAIN_SECONDS:
            self._printed = time.monotonic()
            click.echo(live_line(now, self._screen), err=True)

    def _made(self) -> Any:
        from rich.console import Console
        from rich.live import Live
        from rich.text import Text

        from tokentape.views.load_table import live_lines

        def lines() -> Text:
            if self._now is None:
                return Text("")
            return Text.from_ansi("\n".join(live_lines(self._now, self._screen)), no_wrap=True, overflow="crop")

        console = Console(file=sys.stderr, force_terminal=True, no_color=not self._screen.color)
        return Live(
            console=console,
            transient=True,
            refresh_per_second=4,
            redirect_stdout=False,
            redirect_stderr=False,
            get_renderable=lines,
        )


def _options(given: Mapping[str, Any]) -> dict[str, Any]:
    """Options of ``generate()`` for all requests; the limit and the seed go their own ways."""
    from tokentape.cli.record_endpoint import options_of

    options = options_of(given)
    if given["prompt_tokens"] is not None:
        options.pop("max_new_tokens", None)  # the workload's own
    return options


def _place(given: Mapping[str, Any], *, taken: bool = True) -> Path:
    from urllib.parse import urlsplit

    url = given["endpoint"]
    host = urlsplit(url if "://" in url else f"http://{url}").hostname
    path = tape_place(given["output"], given["served_model"] or host or "endpoint", "load")
    if taken:
        refuse_taken(path, overwrite=given["overwrite"])
    return path


def _beside(path: Path, value: float) -> Path:
    """The tape of one step of a sweep."""
    return path.with_name(f"{path.stem}-{value:.4g}{path.suffix or '.tape'}")


def _slo(given: Mapping[str, Any]) -> Slo | None:
    from tokentape.study.slo import parse_slo

    if given["slo"] is None and (given["slo_share"] is not None or given["refine"] is not None):
        raise UsageError("a share of objectives without any", why="there is no --slo", fix="--slo ttft=500ms,gap=50ms")
    return None if given["slo"] is None else parse_slo(given["slo"])


def _ns(text: str | None, name: str) -> int | None:
    from tokentape.experiment.amounts import seconds

    return None if text is None else round(seconds(text, name) * 1e9)


def _asks_for_logprobs() -> bool:
    """Whether ``--probe distribution`` was given: under load it is not the default, since it costs a server time."""
    context = click.get_current_context()
    source = context.get_parameter_source("probe")
    return source is not None and source.name == "COMMANDLINE" and context.params.get("probe") == "distribution"
