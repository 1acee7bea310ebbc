"""``tokentape doctor``: what is here, what is missing, how well this machine can be timed."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from tokentape.cli.output import document, json_option, print_document, print_lines

if TYPE_CHECKING:
    from tokentape.study.cost.hardware import Hardware
    from tokentape.views.listing import Check

__all__ = ["command"]


@click.command("doctor")
@click.option(
    "--measure", is_flag=True, help="Measure memory and matrix rates, in some seconds, for `predict --on this`."
)
@click.option(
    "--model", metavar="CONFIG", default="demo", show_default=True, help="Whose decode step to find the ceiling of."
)
@json_option
def command(measure: bool, model: str, as_json: bool) -> None:
    """Look at this machine: versions, devices, clock, processor, memory, model cache.

    Works without torch, and says how to get what is missing. Measures the clock for 0.3 s, and with --measure how fast this
    machine reads memory and multiplies matrices.
    """
    from tokentape.cli.checkup import clock_jitter, examine
    from tokentape.views.listing import doctor_report
    from tokentape.views.screen import Screen

    clock = clock_jitter()
    checks = examine(clock)
    found = None
    if measure:
        found, more = _measured(model)
        checks += more
    if as_json:
        listed = [asdict(check) for check in checks]
        print_document(
            document("doctor", clock=asdict(clock), checks=listed, machine=None if found is None else found.as_dict())
        )
    else:
        print_lines(doctor_report(checks, Screen.of(sys.stdout)))


def _measured(model: str) -> tuple[Hardware, list[Check]]:
    from tokentape.cli.checkup import machine_checks
    from tokentape.experiment.machine import keep, measure
    from tokentape.study.cost.configuration import read_config
    from tokentape.views.screen import Screen
    from tokentape.words.retold import retold

    config = read_config(model)  # a mistake in the name shows before the seconds are spent
    screen = Screen.of(sys.stderr)

    def tell(text: str) -> None:
        click.echo(screen.safe(retold(f"measuring: {text}", screen.lang, "live.doing")), err=True)

    found = measure(tell=tell)
    return found, machine_checks(found, config, keep(found))
