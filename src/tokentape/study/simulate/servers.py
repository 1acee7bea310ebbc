"""What the steps of a simulated server take: by a fitted law, a prediction, coefficients, or the tape of a server itself."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tokentape.data.schema import KINDS
from tokentape.data.tape import Tape, open_tape
from tokentape.errors import UsageError
from tokentape.study.cost.configuration import read_config
from tokentape.study.cost.counting import ModelWork, workload
from tokentape.study.cost.hardware import Hardware, find_hardware
from tokentape.study.cost.memory import memory_needed
from tokentape.study.cost.roofline import roof
from tokentape.study.law.laws import STRANGE, Law, fit
from tokentape.study.law.terms import Loads
from tokentape.study.simulate.arrivals import Arrivals
from tokentape.study.simulate.calibration import Calibration, Noise, calibrate, seen_of
from tokentape.study.simulate.scheduler import Scheduler
from tokentape.study.simulate.step_times import LinearTimes, StepTimes, TabulatedTimes, parse_times

__all__ = ["Server", "server_of"]

Array = npt.NDArray[np.float64]

MEMORY_SHARE = 0.9
"""Of a device's memory, what weights, activations and key-value memory together may take, as vLLM's default has it."""


@dataclass(frozen=True)
class Server:
    """The steps of a server, and what else is known of it.

    ``origin`` is ``"law"``, ``"prediction"``, ``"coefficients"`` or ``"calibration"``. ``kv_tokens`` is what its key-value memory
    holds, where that follows from a machine. ``delay_ns`` passes before a request is in the queue. ``noise`` makes steps vary as
    measured ones did. ``notes`` say what was assumed.
    """

    times: StepTimes = field(repr=False)
    origin: str
    name: str = ""
    kv_tokens: int | None = None
    delay_ns: float = 0.0
    noise: Noise | None = field(default=None, repr=False)
    calibration: Calibration | None = field(default=None, repr=False)
    notes: tuple[str, ...] = ()

    def delayed(self, arrivals: Arrivals) -> Arrivals:
        """The requests as the queue sees them come."""
        if not self.delay_ns:
            return arrivals
        return replace(arrivals, at_ns=arrivals.at_ns + round(self.delay_ns))

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        found = {name: getattr(self, name) for name in ("origin", "name", "kv_tokens", "delay_ns", "notes")}
        found["noise"] = self.noise is not None
        found["coefficients"] = self.times.as_dict() if isinstance(self.times, LinearTimes) else None
        found["calibration"] = None if self.calibration is None else self.calibration.as_dict()
        return found


def server_of(
    source: Any,
    scheduler: Scheduler,
    *,
    hardware: Any = None,
    dtype: str | None = None,
    tensor_parallel: int = 1,
    config: Any = None,
    efficiency: float = 1.0,
    noise: bool = True,
) -> Server:
    """The server that ``source`` tells of.

    A tape that was recorded from an endpoint is calibrated against; of any other the law is fitted. A configuration needs
    ``hardware``, and its roofline's times are divided by ``efficiency``, the share of the peaks that a program reaches. ``config``
    names the model that a law of several is asked for. ``noise=False`` takes calibrated steps without their spread.

    Raises UsageError for what is none of these, StudyError where times cannot be told from it.
    """
    if isinstance(source, Server):
        return source
    if isinstance(source, Law):
        return _of_law(source, scheduler, config)
    if hasattr(source, "decode") and hasattr(source, "reading"):
        return Server(source, "coefficients")
    if isinstance(source, str) and "=" in source and not Path(source).exists():
        return Server(parse_times(source), "coefficients")
    if isinstance(source, Calibration):
        return _of_calibration(source, noise)
    if _is_tape(source) and hardware is None:
        return _of_tape(source, scheduler, config, noise)
    if hardware is None:
        raise UsageError(
            "a model without a machine", why="its steps take as long as some machine needs", fix="--on h100, or a tape"
        )
    return _of_prediction(source, find_hardware(hardware), scheduler, dtype, tensor_parallel, efficiency)


def _is_tape(source: Any) -> bool:
    if isinstance(source, Tape):
        return True
    return isinstance(source, (str, os.PathLike)) and Path(source).suffix == ".tape"


def _of_tape(source: Any, scheduler: Scheduler, config: Any, noise: bool) -> Server:
    tape = source if isinstance(source, Tape) else open_tape(source)
    try:
        kinds = np.asarray(tape.columns("step")["kind"])
        if (kinds == KINDS.index("chunk")).any():
            return _of_calibration(calibrate(seen_of(tape)), noise)
        return _of_law(fit(tape), scheduler, config)
    finally:
        if tape is not source:
            tape.close()


def _of_calibration(found: Calibration, noise: bool) -> Server:
    notes = tuple(f"not known: {what}" for what in found.unknown)
    return Server(
        found.times,
        "calibration",
        delay_ns=found.delay_ns,
        noise=found.noise if noise else None,
        calibration=found,
        notes=notes,
    )


def _of_law(law: Law, scheduler: Scheduler, config: Any) -> Server:
    group, work = 0, law.subjects[0].workload if law.pooled else None
    if config is not None:
        law, work = law.across(), workload(read_config(config))
        group = -1
    elif len(law.subjects) > 1:
        raise UsageError(
            "a law of several models; which is meant?",
            why=f"it was fitted to {', '.join(subject.name for subject in law.subjects)}",
            fix="--config config.json",
        )
    # asked for its refusals: a batch that was never varied, a part that is missing
    law.predict(context=1, batch=scheduler.max_seqs, of=work)
    law.part("prefill")
    notes = list(_beyond(law, scheduler))
    times = TabulatedTimes(partial(_law_decode, law, group, work), partial(_law_ns, law, group, work, "prefill"))
    return Server(times, "law", law.subjects[0].name if group == 0 else "", notes=tuple(notes))


def _law_decode(law: Law, group: int, work: Any, contexts: Array, batch: int) -> Array:
    return _law_ns(law, group, work, "decode", contexts, np.full(len(contexts), float(batch)))


def _law_ns(law: Law, group: int, work: Any, kind: str, contexts: Array, batches: Array) -> Array:
    loads = Loads.of(kind, contexts, batches, None if work is None else [work] * len(contexts))
    groups = np.full(len(contexts), group)
    return law.part(kind).fitted.estimate(loads, groups, strange=STRANGE if group < 0 else 0.0).ns


def _beyond(law: Law, scheduler: Scheduler) -> list[str]:
    notes = []
    most = law.part("decode").batch[1]
    if scheduler.max_seqs > most:
        notes.append(f"decode steps were measured up to a batch of {most}; {scheduler.max_seqs} may run")
    if law.part("prefill").batch[1] == 1 and scheduler.max_seqs > 1:
        notes.append("prompts were measured one at a time; several in one step are told by their tokens and squares")
    return notes


def _of_prediction(
    source: Any, machine: Hardware, scheduler: Scheduler, dtype: str | None, tensor_parallel: int, efficiency: float
) -> Server:
    if not (math.isfinite(efficiency) and 0 < efficiency <= 1):
        raise UsageError(
            f"an efficiency of {efficiency:g}",
            why="it is a share of the machine's peaks, above 0 and at most 1",
            fix="--efficiency 0.6",
        )
    work = replace(workload(read_config(source), dtype, tensor_parallel), pairs="seen")
    notes = (
        []
        if efficiency < 1
        else ["the least times that the machine's peaks allow: real programs take longer (--efficiency)"]
    )
    kv_tokens = scheduler.kv_tokens
    if kv_tokens is None:
        kv_tokens = _kv_tokens(work, machine, scheduler)
        if kv_tokens is None:
            notes.append(f"how much memory {machine.name} has is not known: key-value memory has no limit")
    ns = partial(_roofline_ns, work, machine, efficiency)
    times = TabulatedTimes(_for_batch(partial(ns, "decode")), partial(ns, "prefill"))
    return Server(
        times, "prediction", f"{work.architecture.model_type} on {machine.name}", kv_tokens, notes=tuple(notes)
    )


def _for_batch(of: Callable[[Array, Array], Array]) -> Callable[[Array, int], Array]:
    return lambda contexts, batch: of(contexts, np.full(len(contexts), float(batch)))


def _roofline_ns(
    work: ModelWork, machine: Hardware, efficiency: float, kind: str, contexts: Array, batches: Array
) -> Array:
    found = []
    for context, batch in zip(contexts.tolist(), batches.tolist(), strict=True):
        made = work.decode(context, batch) if kind == "decode" else work.prefill(context, batch)
        rows = batch if kind == "decode" else context * batch
        found.append(roof(made, machine, work.compute_dtype, work.tensor_parallel, rows).ns / efficiency)
    return np.array(found)


def _kv_tokens(work: ModelWork, machine: Hardware, scheduler: Scheduler) -> int | None:
    """Tokens of key-value memory that the machine has beside the weights and what a full step needs."""
    if machine.memory_gb is None or not work.kv_bytes_per_token:
        return None
    needed = memory_needed(work, scheduler.max_batched_tokens, 1)
    # the chunk of a fused kernel writes no scores down; what lives is the products of a step's tokens
    beside = needed.weight_bytes + min(needed.activation_bytes, 0.1 * machine.memory_gb * 1e9)
    room = MEMORY_SHARE * machine.memory_gb * 1e9 - beside
    tokens = int(room * work.tensor_parallel / work.kv_bytes_per_token)
    if tokens < scheduler.block_size:
        raise UsageError(
            f"{work.architecture.model_type} leaves no memory for keys and values on {machine.name}",
            why=f"weights and a step need {beside / 1e9:.1f} GB of {MEMORY_SHARE * machine.memory_gb:.1f} GB",
            fix="--tensor-parallel 2, a smaller --dtype, or another machine",
        )
    return tokens
