"""What every command that replays a tape does first: choose sequences, load the model, show how far it has come."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokentape.cli.model_options import MODEL_NAMES
from tokentape.cli.status import StatusLine
from tokentape.errors import UsageError

if TYPE_CHECKING:
    from tokentape.data.tape import Tape
    from tokentape.data.trace import Trace
    from tokentape.models.causal import CausalModel

__all__ = ["chosen_traces", "loaded_model", "progress_line"]


def chosen_traces(tape: Tape, file: Path, numbers: tuple[int, ...]) -> list[Trace]:
    """The sequences asked for, all of them where none was. Raises UsageError for one that is not there."""
    for number in numbers:
        if not 0 <= number < len(tape.traces):
            raise UsageError(
                f"no sequence {number}",
                why=f"{file} has {len(tape.traces)}, counted from 0",
                fix=f"tokentape show {file}",
            )
    found = [tape.traces[number] for number in (numbers or range(len(tape.traces)))]
    if not found:
        raise UsageError(f"{file} has no sequence", why="nothing was recorded into it", fix="give another tape")
    return found


def loaded_model(tape: Tape, given: Mapping[str, Any], *, quiet: bool) -> CausalModel:
    """The model that the tape names, or the one that is given."""
    from tokentape.models.runtime import require_transformers

    require_transformers()  # says how to get it, where importing what replays would only fail
    from tokentape.explain.explaining import model_of

    options = {name: given[name] for name in MODEL_NAMES if given.get(name) not in (None, False)}
    name = given.get("model")
    with StatusLine(f"loading {name or tape.setting.facts.get('model') or 'the model'}", quiet=quiet):
        return model_of(tape, name, **options)


@contextmanager
def progress_line(doing: str, noun: str, *, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """A function ``(done, total)`` that says so on stderr, with the time left once it can be told."""
    from tokentape.views.units import duration

    began = time.monotonic_ns()
    with StatusLine(doing, quiet=quiet) as line:

        def progress(done: int, total: int) -> None:
            spent = time.monotonic_ns() - began
            left = f", {duration(spent * (total - done) / done)} left" if done and spent > 1e9 else ""
            line.say(f"{doing}: {done:,} of {total:,} {noun}{left}")

        yield progress
