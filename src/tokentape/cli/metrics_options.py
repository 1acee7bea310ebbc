"""What ``tokentape show`` prints for ``--series``, ``--dialect`` and ``--slo``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from tokentape.cli.output import document, print_document, print_lines

if TYPE_CHECKING:
    from tokentape.data.tape import Tape

__all__ = ["print_metrics", "print_series"]


def print_series(tape: Tape, names: str, rows: int | None, traces: Sequence[int] | None, *, as_json: bool) -> None:
    """The series of a comma-separated list of names; ``list`` says what there is."""
    from tokentape.study.series import SERIES, series_named
    from tokentape.study.served import courses_named, courses_of
    from tokentape.views.screen import Screen
    from tokentape.views.series_text import series_document, series_list, series_table

    asked = [name.strip() for name in names.split(",") if name.strip()]
    screen = Screen.of(sys.stdout)
    if asked == ["list"]:
        listed = [{k: v for k, v in asdict(one).items() if k != "of"} for one in SERIES.values()]
        known = courses_of(tape)
        print_document(document("show", series=listed)) if as_json else print_lines(series_list(screen, known))
        return
    courses, rest = courses_named(tape, asked)
    series = series_named(rest or ([] if courses else [names]))
    if as_json:
        print_document(document("show", **series_document(tape, series, traces=traces, courses=courses)))
    else:
        print_lines(series_table(tape, series, screen, rows=rows, traces=traces, courses=courses))


def print_metrics(tape: Tape, dialect: str | None, objectives: str | None, since: str | None, *, as_json: bool) -> None:
    """The metrics of a tape in one dialect, our own, or (``all``) each beside the others; ``since`` is the moment to count from.

    Where it is None, objectives of an open loop are counted from when requests were due.
    """
    from tokentape.study.dialects import OF_SERVERS
    from tokentape.study.metrics import check_since, metrics, since_of
    from tokentape.study.slo import parse_slo
    from tokentape.views.metrics_text import OWN, comparison_text, metrics_text, reading_text
    from tokentape.views.screen import Screen

    screen, slo = Screen.of(sys.stdout), None if objectives is None else parse_slo(objectives)
    own_alone = dialect in (None, OWN)
    since = since_of(tape, since, promised=slo is not None and own_alone)
    check_since(tape, since, None if own_alone else dialect)
    if dialect == "all":
        if as_json:
            found = {OWN: metrics(tape, slo=slo, since="start").as_dict()}
            found |= {name: metrics(tape, dialect=name, slo=slo).as_dict() for name in OF_SERVERS}
            print_document(document("show", dialects=found))
        else:
            print_lines(comparison_text(tape, screen, slo))
        return
    if dialect is None or dialect == OWN:
        own = metrics(tape, slo=slo, since=since)
        print_document(document("show", metrics=own.as_dict())) if as_json else print_lines(metrics_text(own, screen))
    else:
        reading = metrics(tape, dialect=dialect, slo=slo, since=since)
        print_document(document("show", metrics=reading.as_dict())) if as_json else print_lines(
            reading_text(reading, screen)
        )
