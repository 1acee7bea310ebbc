"""What ``translate``, ``classify`` and ``answer`` share: their options, where their inputs come from, how they print."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tokentape.cli.completion import complete_tapes
from tokentape.cli.generation import generation_options
from tokentape.cli.output import document, json_option, print_document, print_lines
from tokentape.cli.preparation import inode, loaded, refuse_taken, tape_place
from tokentape.cli.prompts import one_text
from tokentape.cli.record import second_interrupt_quits
from tokentape.cli.record_options import LOAD_NAMES, MODEL_OPTIONS
from tokentape.cli.replaying import progress_line
from tokentape.cli.report import refuse_report, report_option, reported
from tokentape.cli.sections import in_section, with_all
from tokentape.cli.status import StatusLine
from tokentape.errors import UsageError

if TYPE_CHECKING:
    from tokentape.tasks.classify import Classified
    from tokentape.tasks.generation import Answers
    from tokentape.tasks.records import Records
    from tokentape.views.screen import Screen

    Reported = Answers | Classified

__all__ = [
    "asked_options",
    "asked_records",
    "free_path",
    "in_column",
    "list_templates",
    "local_source",
    "report",
    "required",
    "show_prompts",
    "told_partial",
    "with_options",
    "working",
]

_FILE = click.Path(path_type=Path)
_input = partial(in_section, "Input")
_prompt = partial(in_section, "Prompt")
_generation = partial(in_section, "Generation")
_recording = partial(in_section, "Recording")

INPUT = [
    _input(
        "--file",
        "-f",
        type=_FILE,
        metavar="FILE",
        help="Many inputs: .jsonl with fields, .tsv with columns, or one input a line.",
    ),
    _input("--references", type=_FILE, metavar="FILE", help="What would be right, one line for each input."),
]
PROMPTING = [
    _prompt("--show-prompt", is_flag=True, help="Print the prompt exactly as the model would read it, and stop."),
    _prompt(
        "--batch-size", type=click.IntRange(min=1), default=32, show_default=True, metavar="N", help="Inputs at once."
    ),
]
GENERATION = [
    _generation("--max-new-tokens", "-n", type=int, metavar="N", help="Default: the template's limit."),
    _generation("--seed", type=int, metavar="N", help="Seed of the random generators, where tokens are drawn."),
    _generation("-g", "pairs", multiple=True, metavar="KEY=VALUE", help="Any option of generate(); VALUE is JSON."),
]
RECORDING = [
    _recording(
        "-o",
        "--output",
        type=_FILE,
        metavar="PATH",
        shell_complete=complete_tapes,
        help="The tape. Default: MODEL-JOB-DATE-TIME.tape in $TOKENTAPE_DIR, else here.",
    ),
    _recording("--overwrite", is_flag=True, help="Replace a tape that is already there."),
    report_option,
    _recording("--quiet", "-q", is_flag=True, help="No progress and no figures on stderr."),
]


def with_options(job: str, *own: Callable[..., Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The job's own options and those of all three; the first of the list comes first on the help page."""
    template = _prompt(
        "--template",
        metavar="NAME|FILE",
        is_eager=True,
        callback=partial(list_templates, job),
        help="A shipped template or a .toml file; list shows the shipped ones.",
    )

    generation = [] if job == "classify" else GENERATION
    return with_all(*INPUT, *own, template, *PROMPTING, *MODEL_OPTIONS, *generation, *RECORDING, json_option)


def list_templates(job: str, ctx: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """``--template list`` prints the templates of the job and stops."""
    if value != "list":
        return value
    from tokentape.tasks.templates import DEFAULTS, FOLDER, shipped
    from tokentape.views.screen import Screen
    from tokentape.views.tasks_text import templates_text

    print_lines(templates_text(shipped(job), DEFAULTS[job], str(FOLDER), Screen.of(sys.stdout)))
    ctx.exit()


def asked_records(job: str, words: Sequence[str], given: Mapping[str, Any], *, last_word: bool = False) -> Records:
    """The inputs and their references: the words of the command line (``-`` is stdin), or a file. Raises UsageError."""
    from tokentape.tasks.records import FIELDS, Records, read_lines, read_records

    slot = next(iter(FIELDS[job].inputs))
    noun = slot.upper()
    if words and given["file"] is not None:
        raise UsageError(f"{noun} and --file together", why="there is one input", fix="leave out --file")
    if given["file"] is not None:
        found = read_records(given["file"], job, last_word=last_word)
    else:
        text = one_text(words, noun.lower(), f"tokentape {job} MODEL") if words else None
        if text is not None and words[0] == "-":
            text = text.removesuffix("\n")
        found = Records(({} if text is None else {slot: text},))
    path = given["references"]
    if path is None:
        return found
    if found.references is not None:
        raise UsageError(
            f"--references, and {given['file']} has its own", why="they may differ", fix="leave out --references"
        )
    lines = read_lines(path)
    if len(lines) != len(found.inputs):
        raise UsageError(
            f"{path}: {len(lines)} references for {len(found.inputs)} inputs",
            why="each input is held against the reference at its place",
            fix="give one line for each input, in the same order",
        )
    return Records(found.inputs, tuple((line,) for line in lines))


def in_column(records: Records, slot: str) -> list[str] | None:
    """What all inputs have under a slot; None where none has. Raises UsageError where only some do."""
    found = [record[slot] for record in records.inputs if slot in record]
    if found and len(found) < len(records.inputs):
        raise UsageError(
            f"{len(found)} of {len(records.inputs)} records have a {slot}",
            why="they are put to the model by one template",
            fix="give one to every record, or to none",
        )
    return found or None


def required(records: Records, job: str) -> list[str]:
    """The texts of the inputs. Raises UsageError where there is none."""
    texts = in_column(records, "text")
    if texts is None:
        raise UsageError(
            "no text was given",
            why=f"there is nothing to {job}",
            fix=f'tokentape {job} MODEL "a text"; or --file FILE',
        )
    return texts


def asked_options(given: Mapping[str, Any]) -> tuple[dict[str, Any], int | None]:
    """Options of ``generate()``, and the seed: drawn and kept where tokens are drawn and none is given."""
    options = generation_options({"max_new_tokens": given["max_new_tokens"]}, given["pairs"])
    seed = given["seed"]
    if options.get("do_sample") and seed is None:
        import secrets

        seed = secrets.randbits(31)
    return options, seed


def free_path(given: Mapping[str, Any], job: str) -> Path:
    """Where the tape goes. Refused now rather than after a model has been loaded."""
    path = tape_place(given["output"], given["model"], job)
    refuse_taken(path, overwrite=given["overwrite"])
    refuse_report(given)
    return path


def local_source(given: Mapping[str, Any]) -> Any:
    """The model, loaded."""
    quiet = given["quiet"] or given["as_json"]
    with StatusLine(f"loading {given['model']}", quiet=quiet):
        return loaded(given["model"], {name: given[name] for name in LOAD_NAMES}, given["threads"])


@contextmanager
def working(doing: str, given: Mapping[str, Any]) -> Iterator[Callable[[int, int], None]]:
    """The progress of a job; within it the first Ctrl-C saves the tape, a second one quits at once."""
    quiet = given["quiet"] or given["as_json"]
    with progress_line(doing, "inputs", quiet=quiet) as progress, second_interrupt_quits():
        yield progress


@contextmanager
def told_partial(path: Path) -> Iterator[None]:
    """Says where what was recorded is, if something ends the job in the middle."""
    before = inode(path)
    try:
        yield
    except BaseException:
        if inode(path) not in (None, before):
            click.echo(f"what was recorded is in {path} (partial)", err=True)
        raise


def show_prompts(prompts: Sequence[str]) -> None:
    """The prompts, exactly, each with a line end; several are headed ``==> 0 <==``, as ``record`` does."""
    for number, prompt in enumerate(prompts):
        _print((f"==> {number} <==\n" if len(prompts) > 1 else "") + prompt)


def _print_answers(texts: Sequence[str]) -> None:
    """One line an answer; a line end inside of one is written as \\n."""
    for text in texts:
        _print(text.replace("\n", "\\n") if len(texts) > 1 else text)


def report(
    job: str,
    found: Reported,
    texts: Sequence[str],
    given: Mapping[str, Any],
    otherwise: Callable[[Screen], str] | None = None,
) -> None:
    """What came out, to stdout; the figures, or what is told ``otherwise``, and where the tape is, to stderr. Closes the tape."""
    from tokentape.views.screen import Screen
    from tokentape.views.tasks_text import figures_text

    with found.tape as tape:
        if given["as_json"]:
            where = reported(tape.path, given)
            print_document(document(job, tape=tape.path, state=tape.state, report=where, **found.as_dict()))
            return
        _print_answers(texts)
        if given["quiet"]:
            reported(tape.path, given)
            return
        screen = Screen.of(sys.stderr)
        if found.figures:
            print_lines(figures_text(found.figures, screen), err=True)
        elif otherwise is not None:
            print_lines(otherwise(screen), err=True)
        _print_saved(tape.path, screen)
        reported(tape.path, given)


def _print_saved(path: Path | None, screen: Screen) -> None:
    """Where the tape is, and the next useful command, to stderr; nothing of a tape in memory."""
    from tokentape.views.card import line, shown_path

    if path is None:
        return
    print_lines(line("saved", screen.safe(shown_path(path))), err=True)
    shown = screen.safe(f"tokentape show {shlex.quote(shown_path(path))}")
    print_lines(line("next", screen.paint(shown, "cyan")), err=True)


def _print(text: str) -> None:
    """Exact bytes into a pipe or a file, drawn safely on a terminal."""
    from tokentape.views.drawing import drawn_text
    from tokentape.views.screen import Screen, is_terminal

    if is_terminal(sys.stdout):
        click.echo(Screen.of(sys.stdout).safe(drawn_text(text, keep="\n\t")))
    else:
        click.echo(text.encode())
