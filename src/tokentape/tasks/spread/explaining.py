"""Explaining many sequences of a tape, here or over a cluster: each by itself, in the order of their numbers."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokentape.data.tape import Tape, open_tape
from tokentape.tasks.spread.cluster import Spread, cluster

if TYPE_CHECKING:
    from tokentape.data.explanation import Explanation
    from tokentape.explain.explaining import Asked
    from tokentape.models.causal import CausalModel

__all__ = ["Wanted", "explain_each"]

Piece = tuple[int, "Asked"]
"""The number of a sequence, and what is asked about it."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """How sequences are explained: by the model ``name`` (None: the one that the tape names), loaded with ``options``.

    ``unchecked`` explains replays that do not agree with the tape.
    """

    name: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    unchecked: bool = False

    @property
    def device(self) -> str:
        """The device as it was asked for."""
        return str(self.options.get("device") or "auto")

    def model(self, tape: Tape) -> CausalModel:
        """The model, loaded in this process."""
        from tokentape.models.runtime import require_transformers

        require_transformers()
        from tokentape.explain.explaining import model_of

        return model_of(tape, self.name, **self.options)

    def explained(self, tape: Tape, causal: CausalModel, piece: Piece) -> Explanation:
        """The explanation of one sequence. Raises what :func:`tokentape.explain.explaining.explain` raises."""
        from tokentape.explain.explaining import answered, checked

        number, asked = piece
        trace = tape.traces[number]
        return answered(trace, checked(trace, causal, tape.setting, unchecked=self.unchecked), asked)


def explain_each(
    tape: Tape, pieces: Sequence[Piece], wanted: Wanted, spread: Spread | None = None
) -> Iterator[Explanation]:
    """The explanations of ``pieces`` of a tape that is a file, in order, as they are made; nothing is written into the tape.

    With ``spread`` the workers of a Ray cluster make them, each with the model and a copy of the tape, and they are those that
    one process with as many threads makes. Raises what explaining raises, for the first piece that cannot be explained, and
    what :mod:`tokentape.tasks.spread.cluster` raises.
    """
    if spread is None:
        causal = wanted.model(tape)
        for piece in pieces:
            yield wanted.explained(tape, causal, piece)
        return
    assert tape.path is not None
    with cluster(spread, wanted.device) as found:
        make = Explaining(wanted, found.threads, found.shared(Path(tape.path).read_bytes()))
        yield from found.each(make, pieces)


@dataclass(frozen=True, slots=True)
class Explaining:
    """Makes what explains, in a worker: the model, and the tape from its ``content``, a function that gives the file's bytes."""

    wanted: Wanted
    threads: int
    content: Callable[[], bytes]

    def __call__(self) -> Callable[[Piece], Explanation]:
        from tokentape.models.runtime import require_torch

        require_torch().set_num_threads(self.threads)
        # the worker's own, for as long as it lives; its node need not see the folder of the original
        with contextlib.ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="tokentape-", ignore_cleanup_errors=True))
            copy = Path(folder) / "explained.tape"
            copy.write_bytes(self.content())
            tape = stack.enter_context(open_tape(copy))
            causal = self.wanted.model(tape)
            kept = stack.pop_all()

        def explain(piece: Piece) -> Explanation:
            assert kept is not None  # holds the copy
            return self.wanted.explained(tape, causal, piece)

        return explain
