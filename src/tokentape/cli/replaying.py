"""What every command that replays a tape does first: load the model, check the replay, show how far it has come."""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tokentape.cli.record_options import LOAD_NAMES, LOAD_OPTIONS
from tokentape.cli.sections import in_section, with_all
from tokentape.cli.status import StatusLine

if TYPE_CHECKING:
    from tokentape.data.tape import Tape
    from tokentape.data.trace import Trace
    from tokentape.explain.replay import Replay
    from tokentape.models.causal import CausalModel

__all__ = ["checked_replay", "loaded_model", "model_options", "progress_line", "uncollected"]

_MODEL_OPTIONS = [
    in_section(
        "Model",
        "--model",
        metavar="NAME",
        help="A hub id, a folder, `demo`; unless given, the one that the tape names.",
    ),
    in_section("Model", "--dtype", metavar="TYPE", help="auto, float32, bfloat16, float16; unless given, as recorded."),
]


model_options = with_all(*_MODEL_OPTIONS, *LOAD_OPTIONS)
"""The options that say which model a tape is replayed on: the one it names, as it was recorded, unless told otherwise."""


def loaded_model(tape: Tape, given: Mapping[str, Any], *, quiet: bool) -> CausalModel:
    """The model that the tape names, or the one that is given."""
    options = {name: given[name] for name in LOAD_NAMES if given.get(name) not in (None, False)}
    name = given.get("model")
    named = name or tape.setting.facts.get("model") or "the model"
    with StatusLine(f"loading {named}", quiet=quiet), uncollected():
        from tokentape.models.runtime import require_transformers

        require_transformers()  # says how to get it, where importing what replays would only fail
        from tokentape.explain.explaining import model_of

        return model_of(tape, name, **options)


@contextmanager
def uncollected() -> Iterator[None]:
    """Within it, and for what is made within it, the garbage collector does not run: for importing transformers.

    That makes 600,000 objects, which stay to the end of the process; to look through them again and again takes a fifth of
    the time. Where transformers has been imported nothing is changed.
    """
    if "transformers.modeling_utils" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def checked_replay(tape: Tape, trace: Trace, causal: CausalModel, *, unchecked: bool, quiet: bool) -> Replay:
    """The replay of a sequence. Raises ReplayError where it does not agree with the tape, unless that is asked for."""
    from tokentape.explain.explaining import checked

    with progress_line("replaying", "tokens", quiet=quiet) as progress:
        return checked(trace, causal, tape.setting, unchecked=unchecked, progress=progress)


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
