"""``tokentape score``: how likely a model finds texts, or which of two models finds them likelier."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tokentape.cli.completion import complete_tapes
from tokentape.cli.failure import INTERRUPTED
from tokentape.cli.output import document, json_option, print_document, print_lines
from tokentape.cli.preparation import loaded, refuse_taken, tape_place
from tokentape.cli.prompts import one_text
from tokentape.cli.ray_options import RAY_OPTIONS, spread_of
from tokentape.cli.record_options import LOAD_NAMES, MODEL_OPTIONS
from tokentape.cli.sections import SectionedCommand, in_section, with_all
from tokentape.cli.status import StatusLine
from tokentape.errors import UsageError

if TYPE_CHECKING:
    from tokentape.data.tape import Tape
    from tokentape.tasks.score import Asked, Progress
    from tokentape.tasks.score_documents import Document
    from tokentape.tasks.spread.cluster import Spread

__all__ = ["command"]

_FILE = click.Path(path_type=Path)
_COUNT = click.IntRange(min=1)
_text = partial(in_section, "Text")
_scoring = partial(in_section, "Scoring")
_tape = partial(in_section, "Tape")

_OPTIONS = [
    _text(
        "-f",
        "--file",
        "files",
        type=_FILE,
        multiple=True,
        metavar="FILE",
        help="A text file is one document, a .jsonl file has one a line; of a folder all such files (repeatable).",
    ),
    _text("--context", metavar="TEXT", help="Read before each text that has none of its own, and not scored."),
    _text("--compare", is_flag=True, help="Two models on the same texts: tokentape score --compare A B TEXT."),
    _scoring(
        "--first",
        type=click.Choice(["bos", "eos", "skip"]),
        help="What the first token of a text without context follows; skip does not score it. Default: bos, else eos, else skip.",
    ),
    _scoring("--bos/--no-bos", default=None, help="Begin contexts with the beginning-of-text token, or without."),
    _scoring(
        "--window", type=_COUNT, metavar="N", help="Tokens read at a time. Default: the model's positions, else 2048."
    ),
    _scoring(
        "--stride", type=_COUNT, metavar="N", help="Tokens scored in a window. Default: all, so that none overlap."
    ),
    _scoring("--distribution", is_flag=True, help="Keep entropy, rank and the likeliest tokens as well."),
    _scoring("--candidates", type=click.IntRange(min=0), default=5, show_default=True, metavar="K", help="How many."),
    _scoring("--batch-tokens", type=_COUNT, metavar="N", help="Tokens read together. Default: 1024, on CUDA 16384."),
    *MODEL_OPTIONS,
    *RAY_OPTIONS,
    _tape(
        "-o",
        "--output",
        type=_FILE,
        metavar="PATH",
        shell_complete=complete_tapes,
        help="The tape; with --compare a folder for two. Default: MODEL-score-DATE-TIME.tape in $TOKENTAPE_DIR, else here.",
    ),
    _tape("--jsonl", type=_FILE, metavar="FILE", help="Also write one JSON object a document, tokens included."),
    _tape("--resume", is_flag=True, help="Go on with the tape at -o; one that is complete is left as it is."),
    _tape("--overwrite", is_flag=True, help="Replace a tape that is already there."),
    _tape("--text/--no-text", default=True, help="--no-text leaves texts and ids out of the tape."),
    _tape(
        "--rows",
        type=click.IntRange(min=0),
        default=40,
        show_default=True,
        metavar="N",
        help="Documents shown; 0: all.",
    ),
    _tape("--quiet", "-q", is_flag=True, help="No progress on stderr."),
    json_option,
]

EPILOG = """\b
Examples:
  tokentape score demo "The cat sat on the mat."
  tokentape score demo " the park" --context "Story: Tom went to the park. Question: Where is Tom? Answer:"
  tokentape score ./my-model -f corpus.jsonl -o corpus.tape --jsonl scores.jsonl
  tokentape score ./my-model book.txt --stride 256
  tokentape score ./my-model -f corpus.jsonl -o corpus.tape --ray --ray-workers 8
  tokentape score --compare ./model-a ./model-b -f book.txt

A TEXT that is the path of a file or folder is read from there; TEXT - reads stdin. The same command with the same -o goes on with
scoring that was broken off.
"""


@click.command("score", cls=SectionedCommand, epilog=EPILOG)
@click.argument("model")
@click.argument("words", nargs=-1, metavar="[TEXT|FILE]...")
@with_all(*_OPTIONS)
@click.pass_context
def command(ctx: click.Context, /, **given: Any) -> None:
    """How likely MODEL finds TEXT: log-probability of each token and of the whole, perplexity, bits per byte.

    The figures go to stdout, the rest to stderr. Ctrl-C keeps what was scored.
    """
    from tokentape.cli.record import second_interrupt_quits
    from tokentape.tasks.score import Asked

    models, words = _models(given)
    documents = _documents(words, given)
    names = ("first", "window", "stride", "distribution", "candidates", "batch_tokens")
    asked = Asked(**{name: given[name] for name in names})
    asked.check()
    spread = spread_of(given, given["device"])
    tapes: list[Tape] = []
    paths = _places(models, given)
    with second_interrupt_quits():
        for model, path in zip(models, paths, strict=True):
            tape, interrupted = _scored(model, documents, asked, path, given, spread)
            tapes += [tape] if tape is not None else []
            if interrupted:
                ctx.exit(_broken_off(tapes, path, given))
    if given["compare"]:
        _report_comparison(tapes, given)
    else:
        _report(tapes[0], given, interrupted=False)
    for tape in tapes:
        tape.close()


def _models(given: dict[str, Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The model, or both, and the words that are left for texts."""
    words: tuple[str, ...] = given["words"]
    if not given["compare"]:
        return (given["model"],), words
    if not words:
        raise UsageError("--compare with one model", why="two are compared", fix="tokentape score --compare A B TEXT")
    if given["jsonl"] is not None:
        raise UsageError("--jsonl together with --compare", why="it holds one model's figures", fix="leave one out")
    return (given["model"], words[0]), words[1:]


def _documents(words: Sequence[str], given: dict[str, Any]) -> list[Document]:
    from tokentape.tasks.score_documents import Document, documents_of, read_documents

    if words and given["files"]:
        raise UsageError("TEXT and -f together", why="there is one list of texts", fix="leave one out")
    places = [Path(word) for word in words if _is_path(word)]
    if words and not places:
        text = one_text(
            words, "text", "tokentape score MODEL", why="the shell splits at spaces, and none of them is a file"
        )
        return documents_of(Document(text, given["context"], "stdin" if words[0] == "-" else "text"))
    if len(places) < len(words):
        missing = next(word for word in words if not _is_path(word))
        raise UsageError(
            f"there is no file {missing}", why="the other arguments are files", fix="give files alone, or one text"
        )
    files = [*places, *given["files"]]
    if not files:
        raise UsageError(
            "no text was given",
            why="there is nothing to score",
            fix='tokentape score MODEL "a text"; or -f FILE, - (stdin)',
        )
    return documents_of(read_documents(files), given["context"])


def _is_path(word: str) -> bool:
    try:
        return word not in ("", "-") and Path(word).exists()
    except (OSError, ValueError):  # too long for a name, or with a null byte: a text
        return False


def _places(models: Sequence[str], given: dict[str, Any]) -> list[Path | None]:
    """Where the tapes go; those of a comparison stay in memory unless a folder is named."""
    output: Path | None = given["output"]
    if given["resume"] and (output is None or (output.is_dir() and len(models) == 1)):
        raise UsageError("--resume without a tape", why="it goes on with the one at -o", fix="-o PATH --resume")
    if given["jsonl"] is not None:
        refuse_taken(given["jsonl"], overwrite=given["overwrite"] or given["resume"], other="another --jsonl")
    if len(models) == 1:
        return [tape_place(output, models[0], "score")]
    if output is None:
        return [None, None]
    output.mkdir(parents=True, exist_ok=True)
    return [output / "A.tape", output / "B.tape"]


def _scored(
    model: str,
    documents: Sequence[Document],
    asked: Asked,
    path: Path | None,
    given: dict[str, Any],
    spread: Spread | None,
) -> tuple[Tape | None, bool]:
    """The tape, and whether Ctrl-C ended it; no tape where that came before the first document."""
    from tokentape.data.tape import open_tape
    from tokentape.views.score_text import progress_text
    from tokentape.views.screen import Screen

    quiet = given["quiet"] or given["as_json"]
    screen = Screen.of(sys.stderr)
    with StatusLine(f"loading {model}", quiet=quiet) as line:

        def observe(made: Progress) -> None:
            line.say(progress_text(made.n_done, made.n_all, made.tokens_done, made.left_s, screen))

        keep: dict[str, Any] = {
            "path": path,
            "resume": given["resume"] and (path is None or path.exists()),
            "overwrite": given["overwrite"],
            "text": given["text"],
            "observer": observe,
        }
        try:
            tape = _carried_out(model, documents, asked, given, spread, keep)
        except KeyboardInterrupt:
            return (open_tape(path) if path is not None and path.exists() else None), True
    return tape, False


def _carried_out(
    model: str,
    documents: Sequence[Document],
    asked: Asked,
    given: dict[str, Any],
    spread: Spread | None,
    keep: dict[str, Any],
) -> Tape:
    """The scores, by one process or by many."""
    load = {name: given[name] for name in LOAD_NAMES}
    if spread is None:
        from tokentape.tasks.score import carry_out

        load["bos"] = given["bos"]
        return carry_out(documents, asked, lambda: loaded(model, load, given["threads"]), bos=given["bos"], **keep)
    from tokentape.tasks.spread.models import ModelHere
    from tokentape.tasks.spread.scoring import score_spread

    return score_spread(documents, asked, ModelHere(model, load, given["bos"]), spread, **keep)


def _broken_off(tapes: Sequence[Tape], path: Path | None, given: dict[str, Any]) -> int:
    """What is told after a Ctrl-C; the exit code."""
    if path is None or not path.exists():
        click.echo("interrupted; nothing was kept", err=True)
    else:
        click.echo(f"interrupted; to go on, the same command with -o {given['output'] or path} --resume", err=True)
    if given["as_json"]:
        kept = [str(tape.path) for tape in tapes if tape.path is not None]
        print_document(document("score", tape=kept[-1] if kept else None, interrupted=True))
    return INTERRUPTED


def _report(tape: Tape, given: dict[str, Any], *, interrupted: bool) -> None:
    from tokentape.study.scores import scores, total
    from tokentape.views.card import shown_path
    from tokentape.views.score_document import score_documents
    from tokentape.views.score_text import score_text
    from tokentape.views.screen import Screen

    found = scores(tape)
    if given["jsonl"] is not None:
        lines = (json.dumps(one, ensure_ascii=False, allow_nan=False) for one in score_documents(found, tape))
        given["jsonl"].write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    if given["as_json"]:
        facts = {"tape": tape.path, "state": tape.state, "interrupted": interrupted, "setting": tape.setting.facts}
        print_document(
            document("score", **facts, total=total(found).as_dict(), documents=list(score_documents(found, tape)))
        )
        return
    print_lines(score_text(found, tape, Screen.of(sys.stdout), rows=given["rows"] or None))
    if tape.path is not None and not given["quiet"]:
        click.echo(f"saved {shown_path(tape.path)}; next: tokentape show {shown_path(tape.path)}", err=True)


def _report_comparison(tapes: Sequence[Tape], given: dict[str, Any]) -> None:
    from tokentape.study.paired_scores import compare_scores
    from tokentape.views.score_text import comparison_text
    from tokentape.views.screen import Screen

    found = compare_scores(*tapes)
    if given["as_json"]:
        print_document(document("score", tapes=[tape.path for tape in tapes], comparison=found.as_dict()))
    else:
        print_lines(comparison_text(found, Screen.of(sys.stdout)))
