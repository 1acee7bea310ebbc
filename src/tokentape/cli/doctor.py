"""``tokentape doctor``: what is here, what is missing, how well this machine can be timed."""

from __future__ import annotations

import sys
from dataclasses import asdict

import click

from tokentape.cli.output import document, json_option, print_document, print_lines

__all__ = ["command"]


@click.command("doctor")
@json_option
def command(as_json: bool) -> None:
    """Look at this machine: versions, devices, clock, processor, memory, model cache.

    Works without torch, and says how to get what is missing. Measures the clock for 0.3 s.
    """
    from tokentape.cli.checkup import clock_jitter, examine
    from tokentape.views.listing import doctor_report
    from tokentape.views.screen import Screen

    clock = clock_jitter()
    checks = examine(clock)
    if as_json:
        print_document(document("doctor", clock=asdict(clock), checks=[asdict(check) for check in checks]))
    else:
        print_lines(doctor_report(checks, Screen.of(sys.stdout)))
