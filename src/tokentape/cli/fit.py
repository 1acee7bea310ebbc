"""``tokentape fit``: the law of latency of what tapes measured."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tokentape.cli.completion import complete_tapes
from tokentape.cli.output import document, json_option, print_document, print_lines
from tokentape.cli.sections import SectionedCommand, in_section

if TYPE_CHECKING:
    from tokentape.study.law.laws import Law, Prediction

__all__ = ["command"]

EPILOG = """\b
Examples:
  tokentape sweep demo --context 16..256 --batch 1,2,4 -o demo.tape
  tokentape fit demo.tape
  tokentape fit demo.tape --context 200,400 --batch 1,8 --plot law.png
  tokentape fit splitwise.csv --config llama2-70b=llama2-70b/config.json
"""


@click.command("fit", cls=SectionedCommand, epilog=EPILOG)
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path), shell_complete=complete_tapes)
@in_section("Predict", "--context", "contexts", metavar="N,N,...", help="Predict at these contexts (prefill: lengths).")
@in_section("Predict", "--batch", "batches", default="1", show_default=True, metavar="N,N,...", help="And batches.")
@in_section("Predict", "--kind", type=click.Choice(["decode", "prefill", "both"]), default="both", show_default=True)
@in_section(
    "Predict", "--confidence", type=click.FloatRange(0, 1, min_open=True, max_open=True), default=0.9, show_default=True
)
@in_section("Predict", "--of", metavar="NAME", help="Which of several Settings is meant.")
@in_section(
    "Input", "--config", "configs", multiple=True, metavar="MODEL=FILE", help="config.json of a model in a CSV."
)
@in_section("Output", "--plot", type=click.Path(path_type=Path), metavar="FILE", help="Draw it (.png, .svg).")
@in_section(
    "Output", "--on", "hardware", metavar="HARDWARE", help="Draw its roofline: H100, `this`, a JSON file (see predict)."
)
@json_option
def command(files: tuple[Path, ...], **given: Any) -> None:
    """Fit the law of latency to FILES, and predict with it.

    FILES are tapes (of one Setting, or of several models on one machine), or one CSV with the columns prompt_size,
    batch_size, token_size, prompt_time, token_time (ms), and model, hardware, tensor_parallel, e2e_time where there are.

    A law has a part for decode steps (context, batch) and one for prefills (length, batch). Its terms have physical
    names and are never negative; its form is chosen by cross-validation; its intervals are checked on settings that
    were left out of the fit. What lies outside of the measurements says so.
    """
    from tokentape.views.law_text import law_text, predictions_text
    from tokentape.views.screen import Screen
    from tokentape.words.retold import retold

    machine = _machine(given)
    laws, notes = _laws(files, given["configs"])
    predictions = [found for law in laws for found in _predictions(law, given)]
    if given["plot"] is not None:
        from tokentape.views.plots_law import plot_law

        plot_law(laws, given["plot"], hardware=machine, of=given["of"], confidence=given["confidence"])
        told = Screen.of(sys.stderr)
        print_lines(told.safe(told.say("live.drawn", file=str(given["plot"]))), err=True)
    if given["as_json"]:
        law_documents = [law.as_dict() for law in laws]
        print_document(
            document("fit", laws=law_documents, left_out=notes, predictions=[p.as_dict() for p in predictions])
        )
        return
    screen = Screen.of(sys.stdout)
    print_lines("\n\n".join(law_text(law, screen) for law in laws))
    for why, n in notes.items():
        print_lines(screen.safe(screen.say("law.table", n=str(n), why=retold(why, screen.lang, "law.row"))))
    if predictions:
        print_lines("\n" + predictions_text(predictions, screen))


def _machine(given: dict[str, Any]) -> Any:
    """The machine whose roofline is drawn; what a plot needs is asked before the fit, which takes its time."""
    from tokentape.errors import UsageError
    from tokentape.study.cost.hardware import find_hardware
    from tokentape.views.plots import check_plot

    if given["plot"] is not None:
        check_plot(given["plot"])
    elif given["hardware"] is not None:
        raise UsageError("--on without --plot", why="a roofline is drawn, not printed", fix="--plot law.png")
    return None if given["hardware"] is None else find_hardware(given["hardware"])


def _laws(files: tuple[Path, ...], configs: tuple[str, ...]) -> tuple[list[Law], dict[str, int]]:
    from tokentape.errors import UsageError
    from tokentape.study.law.laws import fit, fit_table
    from tokentape.study.law.measurements import read_table

    tables = [file for file in files if file.suffix.lower() == ".csv"]
    if not tables:
        return [fit(*files)], {}
    if len(files) > 1:
        raise UsageError("a CSV goes alone", why="its rows are of one table", fix=f"tokentape fit {tables[0]}")
    table = read_table(tables[0], dict(_pair(text) for text in configs))
    return fit_table(table), dict(table.left_out)


def _pair(text: str) -> tuple[str, str]:
    from tokentape.errors import UsageError

    model, equals, file = text.partition("=")
    if not equals or not model or not file:
        raise UsageError(
            f"--config {text}: not MODEL=FILE", why="the CSV names models", fix="--config gpt2=config.json"
        )
    return model, file


def _predictions(law: Law, given: dict[str, Any]) -> list[Prediction]:
    if given["contexts"] is None:
        return []
    kinds = [kind for kind in ("decode", "prefill") if given["kind"] in (kind, "both")]
    if given["kind"] == "both":
        kinds = [kind for kind in kinds if getattr(law, kind) is not None]
    return [
        law.predict(context=context, batch=batch, kind=kind, confidence=given["confidence"], of=given["of"])
        for kind in kinds
        for context in _numbers(given["contexts"], "--context")
        for batch in _numbers(given["batches"], "--batch")
    ]


def _numbers(text: str, flag: str) -> list[float]:
    from tokentape.errors import UsageError

    try:
        return [float(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise UsageError(
            f"{flag} {text} is no list of numbers", why="it takes 512 or 512,1024", fix=f"{flag} 512"
        ) from None
