"""``tokentape direction``: what sets one list of prompts apart from another, as a file to steer by."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tokentape.cli.output import document, json_option, print_document
from tokentape.cli.preparation import loaded, refuse_no_folder, refuse_taken
from tokentape.cli.prompts import read_text
from tokentape.cli.record_options import LOAD_NAMES, MODEL_OPTIONS
from tokentape.cli.sections import SectionedCommand, with_all
from tokentape.errors import PromptError

__all__ = ["command"]

_FILE = click.Path(path_type=Path)


@click.command("direction", cls=SectionedCommand)
@click.argument("model")
@click.option("--positive", type=_FILE, required=True, metavar="FILE", help="Prompts to steer towards, one a line.")
@click.option("--negative", type=_FILE, required=True, metavar="FILE", help="Prompts to steer away from, one a line.")
@click.option(
    "--layer", "layers", type=int, multiple=True, metavar="L", help="Behind block L, from 1; default: the middle."
)
@click.option("-o", "--output", type=_FILE, required=True, metavar="PATH", help="The direction, a .safetensors file.")
@click.option("--overwrite", is_flag=True, help="Replace a file that is already there.")
@json_option
@with_all(*MODEL_OPTIONS)
def command(
    model: str,
    positive: Path,
    negative: Path,
    layers: tuple[int, ...],
    output: Path,
    overwrite: bool,
    as_json: bool,
    threads: int | None,
    **load: Any,
) -> None:
    """Compute the direction from the NEGATIVE prompts to the POSITIVE ones in what MODEL holds of their last token.

    `tokentape record MODEL PROMPT --steer PATH --strength X` adds it while the model speaks. Prompts come best in pairs
    that differ in nothing else.
    """
    refuse_taken(output, overwrite=overwrite)
    refuse_no_folder(output)
    towards, away = _lines(positive), _lines(negative)
    from tokentape.control.guidance.direction import steering_direction

    source = loaded(model, {name: load[name] for name in LOAD_NAMES}, threads)
    found = steering_direction(source.causal, towards, away, layer=layers or None)
    place = found.save(output, overwrite=overwrite)
    if as_json:
        print_document(document("direction", path=place, direction=found.describe()))
        return
    where = ", ".join(f"layer {layer}: norm {float(vector.norm()):.3f}" for layer, vector in found.vectors.items())
    click.echo(f"{place}: from {len(away)} prompts to {len(towards)}, {where}", err=True)
    click.echo(f'next: tokentape record {model} "..." --steer {place} --strength 1', err=True)


def _lines(path: Path) -> list[str]:
    found = [line for line in read_text(path).splitlines() if line.strip()]
    if not found:
        raise PromptError(f"{path} has no prompts", why="every line is empty", fix="put one prompt on each line")
    return found
