"""The page of a tape as a file: how it is asked for, written, and told of."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from tokentape.cli.preparation import refuse_no_folder
from tokentape.cli.sections import in_section
from tokentape.errors import UsageError

__all__ = ["parse_size", "refuse_report", "report_option", "reported", "tell_report", "write_report"]

_UNITS = {"": 1, "K": 1000, "M": 1000**2, "G": 1000**3, "KI": 1024, "MI": 1024**2, "GI": 1024**3}

report_option = in_section(
    "Recording",
    "--report",
    type=click.Path(path_type=Path),
    metavar="OUT.html",
    help="Write the page of the tape at the end, as `tokentape view TAPE --html OUT.html` does.",
)


def refuse_report(given: Mapping[str, Any]) -> None:
    """Raise for a report that cannot be written, now rather than after a model has been loaded.

    Raises TapeExists, UsageError, MissingExtra.
    """
    if given["report"] is None:
        return
    from tokentape.data.outputs import refuse_place
    from tokentape.views.page.file import PAGE, bundle

    refuse_no_folder(given["report"])
    refuse_place(given["report"], overwrite=given["overwrite"], what=PAGE, fix="another --report PATH, or --overwrite")
    bundle()


def reported(path: Path | None, given: Mapping[str, Any]) -> Path | None:
    """Write the report that was asked for, and tell of it on stderr unless nothing is to be told; returns where it is."""
    out: Path | None = given["report"]
    if out is None or path is None:
        return None
    from tokentape.views.page.budget import DEFAULT_BYTES

    report = write_report([path], out, overwrite=given["overwrite"], max_bytes=DEFAULT_BYTES)
    if not given["quiet"] and not given["as_json"]:
        tell_report(report)
    return out


def parse_size(text: str) -> int | None:
    """Bytes: ``6MB``, ``500k``, ``1.5 GiB``; None for 0, which is no limit. Raises UsageError."""
    word = text.strip().upper().replace(" ", "")
    number = word.rstrip("BKMGI")
    unit = word[len(number) :].removesuffix("B")
    try:
        size = round(float(number) * _UNITS[unit])
        if size < 0:
            raise ValueError("below zero")
    except (KeyError, ValueError, OverflowError) as error:
        raise UsageError(
            f"--max-bytes {text}: no size", why="a number of bytes, kB, MB, GB, KiB, MiB or GiB", fix="--max-bytes 20MB"
        ) from error
    return size or None


def write_report(
    files: Sequence[Path],
    out: Path,
    *,
    overwrite: bool = False,
    traces: Sequence[int] | None = None,
    lang: str | None = None,
    max_bytes: int | None,
    withheld: bool = False,
    across: Sequence[str] = (),
) -> dict[str, Any]:
    """Write the page of one tape, or of two that are compared; returns where, how large, and what was left out.

    Raises TapeExists and UsageError for a file that cannot be written, before a tape is opened.
    """
    from tokentape.data.outputs import refuse_place
    from tokentape.views.page.budget import within
    from tokentape.views.page.file import PAGE, shell_bytes, write_page
    from tokentape.words.language import language_named

    refuse_no_folder(out)
    if any(out.exists() and file.exists() and out.samefile(file) for file in files):
        raise UsageError(f"{out} is the tape itself", why="the page is another file", fix=f"--html {out.stem}.html")
    refuse_place(out, overwrite=overwrite, what=PAGE, fix="another --html OUT, or --overwrite")
    language = language_named(lang)
    if len(files) == 1:
        found = _page_of(files[0], traces, max_bytes, lang=language, withheld=withheld)
    else:
        from tokentape.views.page.compare import compared_document

        found = compared_document(files[0], files[1], across=across, lang=language, withheld=withheld)
        if max_bytes is not None:
            found = within(found, max_bytes, around=shell_bytes)
    n_bytes = write_page(found, out, overwrite=overwrite)
    return {"html": out, "bytes": n_bytes, "max_bytes": max_bytes, "dropped": found["dropped"]}


def _page_of(file: Path, traces: Sequence[int] | None, max_bytes: int | None, **options: Any) -> dict[str, Any]:
    from tokentape.cli.sequences import check_sequences
    from tokentape.data.tape import open_tape
    from tokentape.views.page.budget import page_within
    from tokentape.views.page.file import shell_bytes

    numbers = None if traces is None else list(dict.fromkeys(traces))
    with open_tape(file) as tape:
        check_sequences(tape, file, tuple(numbers or ()))
        return page_within(tape, max_bytes, around=shell_bytes, traces=numbers, **options)


def tell_report(report: Mapping[str, Any]) -> None:
    """How large a page is and what was left out of it, on stderr."""
    from tokentape.views.units import bytes_text
    from tokentape.words.catalogue import Message, said
    from tokentape.words.language import language_of

    lang = language_of()
    click.echo(f"{shlex.quote(str(report['html']))}: {bytes_text(report['bytes'])}", err=True)
    for one in report["dropped"]:
        args = {"what": Message.of(one["what"]), "size": bytes_text(one["bytes"]), "flag": one["flag"]}
        click.echo(f"  {said(Message('page_core.dropped_line', args), lang)}", err=True)
    if report["max_bytes"] is not None and report["bytes"] > report["max_bytes"]:
        larger = Message("page_core.still_larger", {"size": bytes_text(report["max_bytes"])})
        click.echo(f"  {said(larger, lang)}", err=True)
