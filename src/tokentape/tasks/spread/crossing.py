"""What crosses between the process that keeps a tape and the workers: work, answers, refusals, and moments of another clock."""

from __future__ import annotations

import copyreg
import io
import pickle
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import tokentape.errors as errors
from tokentape.errors import TokentapeError

__all__ = ["Answer", "Maker", "Moment", "Worker", "once", "packed"]

Maker = Callable[[], Callable[[Any], Any]]
"""Makes what does the work; called once in each worker. A value that can be pickled, with all that it needs."""


class _Pickler(pickle.Pickler):
    """Also takes the read-only mappings of frozen values."""

    dispatch_table = copyreg.dispatch_table.copy()
    dispatch_table[MappingProxyType] = lambda proxy: (_read_only, (dict(proxy),))


def _read_only(values: dict[Any, Any]) -> MappingProxyType[Any, Any]:
    """A read-only mapping; its own class has no name that could be found again."""
    return MappingProxyType(values)


def packed(value: Any) -> bytes:
    """A value as bytes, for ``pickle.loads`` on the other side."""
    out = io.BytesIO()
    _Pickler(out, pickle.HIGHEST_PROTOCOL).dump(value)
    return out.getvalue()


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a piece of work: a ``value`` as bytes, the parts of the error that refused it, or what broke.

    Errors cross as plain values: raised in a worker they would be tried again, and come back as Ray's.
    """

    value: bytes = b""
    refusal: tuple[str, str, str, str] | None = None
    failure: tuple[str, str] | None = None

    def found(self) -> Any:
        """The value. Raises what refused it, and RuntimeError for an error that is not one of ours."""
        if self.refusal is not None:
            kind, what, why, fix = self.refusal
            raise getattr(errors, kind, TokentapeError)(what, why=why, fix=fix)
        if self.failure is not None:
            told, where = self.failure
            failure = RuntimeError(f"in a worker: {told}")
            failure.add_note(where)
            raise failure
        return pickle.loads(self.value)


def answered(do: Callable[[], Any]) -> Answer:
    """What a call gives, or why it does not."""
    try:
        return Answer(packed(do()))
    except TokentapeError as error:
        return Answer(refusal=(type(error).__name__, error.what, error.why, error.fix))
    except Exception as error:
        return Answer(failure=(f"{type(error).__name__}: {error}", traceback.format_exc()))


class Worker:
    """The class of Ray Data's map-batches: makes what does the work at its birth, and does a table of work at each call."""

    def __init__(self, make: Maker) -> None:
        self._do: Callable[[Any], Any] | None = None
        self._unmade = answered(lambda: self._make(make))

    def _make(self, make: Maker) -> None:
        self._do = make()

    def __call__(self, table: Any) -> Any:
        import pyarrow as pa

        answers = [packed(self._answer(one)) for one in table["work"].to_pylist()]
        return pa.table({"number": table["number"], "answer": pa.array(answers, pa.large_binary())})

    def _answer(self, work: bytes) -> Answer:
        do = self._do
        return self._unmade if do is None else answered(lambda: do(pickle.loads(work)))


def once(make: Maker, work: Any) -> Answer:
    """One piece of work by what its maker makes, for a task of Ray's."""
    return answered(lambda: make()(work))


@dataclass(frozen=True, slots=True)
class Moment:
    """One moment by two clocks: ``mark_ns`` of ``perf_counter_ns``, and ``unix_ns``; ``boot`` is one start of a machine."""

    boot: str | None
    mark_ns: int
    unix_ns: int

    @staticmethod
    def now() -> Moment:
        return Moment(_boot_id(), time.perf_counter_ns(), time.time_ns())

    def shift_ns(self, here: Moment, *, begun: tuple[int, int], ended: tuple[int, int]) -> int:
        """What makes marks of that process marks of this one: 0 on one machine, whose processes share their clock.

        Between two machines the wall clocks decide, and causality corrects them: the work's first mark, ``begun[0]``, is not
        before it was sent, ``begun[1]`` here; its last, ``ended[0]``, not after its answer came, ``ended[1]`` here.
        """
        if self.boot is not None and self.boot == here.boot:
            return 0
        shift = (self.unix_ns - self.mark_ns) - (here.unix_ns - here.mark_ns)
        return max(min(shift, ended[1] - ended[0]), begun[1] - begun[0])


def _boot_id() -> str | None:
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return None
