"""Whose mistake it is that something could not be computed: the tape's, if it does not stand up to a check, or else ours."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from tokentape.data.tape import Tape
from tokentape.errors import DamagedTape, TokentapeError

__all__ = ["in_doubt"]

_ODD = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, AssertionError)


@contextlib.contextmanager
def in_doubt(*tapes: Tape) -> Iterator[None]:
    """Around what is computed of tapes: what it raises without having been written to, of a tape that :meth:`Tape.verify` finds
    fault with, becomes DamagedTape. Where no fault is found it goes on as it is.
    """
    try:
        yield
    except TokentapeError:
        raise
    except _ODD as error:
        for tape in tapes:
            name = str(tape.path or "the tape in memory")
            for problem in tape.verify():
                raise DamagedTape(
                    f"{name} is damaged", why=f"{problem.where}: {problem.what}", fix=f"tokentape verify {name}"
                ) from error
        raise
