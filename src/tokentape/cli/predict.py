"""``tokentape predict``: what a model costs, without running it."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

import click

from tokentape.cli.output import document, json_option, print_document, print_lines
from tokentape.cli.sections import SectionedCommand, in_section

__all__ = ["command"]

_request = partial(in_section, "Request")
_machine = partial(in_section, "Machine")
_what_if = partial(in_section, "What if")


@click.command("predict", cls=SectionedCommand)
@click.argument("config")
@_request("--context", default="1024", show_default=True, metavar="N", help="Tokens of the prompt; 8k is 8,192.")
@_request("--batch", type=int, default=1, show_default=True, metavar="N", help="Sequences at once.")
@_request("--new-tokens", type=int, default=1, show_default=True, metavar="N", help="Tokens to write to each sequence.")
@_machine(
    "--on", "hardware", metavar="HARDWARE",
    help="A name such as H100, `this` (after `doctor --measure`), or a JSON file; else counts, and several machines.",
)  # fmt: skip
@_machine(
    "--tensor-parallel", type=int, default=1, show_default=True, metavar="N", help="Devices that share each block."
)
@_machine(
    "--law", "laws", multiple=True, metavar="TAPE", help="Tell the times by a law fitted to this tape (repeatable)."
)
@_machine("--measured-on", metavar="HARDWARE", help="Where the law's tape was recorded, to carry it over to --on.")
@_what_if("--dtype", metavar="TYPE", help="float32, bfloat16, float16, float8, int8, float4, int4.")
@_what_if("--layers", type=int, metavar="N")
@_what_if("--hidden", type=int, metavar="N", help="Width of the model.")
@_what_if("--heads", type=int, metavar="N")
@_what_if("--kv-heads", type=int, metavar="N")
@_what_if("--intermediate", type=int, metavar="N", help="Width inside the perceptrons.")
@_what_if("--vocab", type=int, metavar="N")
@_what_if("--vary", metavar="NAME=VALUES", help="A table over one of them: layers=12,24,48 or context=1k..128k.")
@in_section(
    "Output", "--plot", type=click.Path(path_type=Path), metavar="FILE",
    help="Draw times over context and batch, or what --vary varies (.png, .svg).",
)  # fmt: skip
@json_option
def command(config: str, as_json: bool, **given: Any) -> None:
    """Say what a model costs without running it: parameters, memory, compute, time, energy.

    CONFIG is a config.json, a folder that holds one, `demo`, or a tape of the model. Nothing is loaded and nothing is run.

    \b
    tokentape predict config.json --on h200 --context 8192 --batch 4
    tokentape predict config.json --layers 48 --on a100 --tensor-parallel 4
    tokentape predict config.json --vary context=1k..128k --on h100
    tokentape predict config.json --on h100 --plot cost.png

    Times without a law are the least that the machine's peaks allow: real programs take longer.
    """
    from tokentape.study.cost.whatif import read_number, read_values
    from tokentape.views.cost_text import by_value, prediction_text
    from tokentape.views.plots import check_plot
    from tokentape.views.screen import Screen

    given["context"] = read_number(given["context"], "--context")
    laws, vary, plot = given.pop("laws"), given.pop("vary"), given.pop("plot")
    if plot is not None:
        check_plot(plot)  # before a law is fitted
    given["law"] = _law(laws) if laws else None
    screen = Screen.of(sys.stdout)
    if vary is not None:
        name, values = read_values(vary)
        rows = [(value, _predicted(config, {**given, name: value})) for value in values]
        if plot is not None:
            _draw(plot, config, given, (rows, name))
        if as_json:
            found = [{"value": value, **p.as_dict()} for value, p in rows]
            print_document(document("predict", config=config, varied=name, predictions=found))
        else:
            print_lines(by_value(rows, name, screen))
        return
    prediction = _predicted(config, given)
    if plot is not None:
        _draw(plot, config, given)
    if as_json:
        print_document(document("predict", config=config, **prediction.as_dict()))
        return
    print_lines(prediction_text(prediction, screen))
    if given["hardware"] is None and not laws:
        _several(config, given, screen)


def _predicted(config: str, given: dict[str, Any]) -> Any:
    from tokentape.study.cost.prediction import predict

    return predict(config, **given)


def _draw(path: Path, config: str, given: dict[str, Any], varied: tuple[Any, str] | None = None) -> None:
    from tokentape.views.plots_cost import plot_cost
    from tokentape.views.plots_growth import plot_growth
    from tokentape.views.screen import Screen

    if varied is None:
        plot_cost(config, path, **given)
    else:
        plot_growth(*varied, path)
    screen = Screen.of(sys.stderr)
    print_lines(screen.safe(screen.say("live.drawn", file=str(path))), err=True)


def _several(config: str, given: dict[str, Any], screen: Any) -> None:
    from tokentape.study.cost.hardware import SHOWN
    from tokentape.views.cost_text import by_machine

    if given["tensor_parallel"] == 1:
        print_lines("\n" + by_machine([_predicted(config, {**given, "hardware": name}) for name in SHOWN], screen))


def _law(tapes: tuple[str, ...]) -> Any:
    from tokentape.study.law.laws import fit

    return fit(*tapes)
