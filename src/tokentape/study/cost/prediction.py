"""What a model will cost, told without running it: ``tokentape.predict``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import tokentape.study.cost.timing as timing
from tokentape.errors import UsageError
from tokentape.study.cost.architecture import architecture_of, kinds_text
from tokentape.study.cost.configuration import read_config
from tokentape.study.cost.counting import ModelWork, dtype_named, workload
from tokentape.study.cost.figure import Figure, modelled, unavailable
from tokentape.study.cost.hardware import Hardware, find_hardware
from tokentape.study.cost.memory import EAGER, largest, memory_needed
from tokentape.study.cost.whatif import CHANGES, altered, sizes
from tokentape.study.cost.work import Work, Workload

__all__ = ["Calibration", "Prediction", "predict"]


class Calibration(Protocol):
    """A fitted law, as far as a prediction needs one."""

    def time_of(self, kind: str, workload: Workload, context: float, batch: float) -> tuple[float, float, float]:
        """Nanoseconds of a forward pass of a model, and the two ends of their interval; ``kind`` is ``"decode"`` or
        ``"prefill"``.
        """


@dataclass(frozen=True)
class Prediction:
    """What reading ``context`` tokens of each of ``batch`` sequences and writing ``new_tokens`` to each costs.

    ``figures`` hold every number by its name, each with its unit and where it comes from; times are None in a prediction
    without a machine. ``notes`` are what was assumed.
    """

    model_type: str
    blocks: str
    sizes: Mapping[str, int]
    dtype: str
    context: int
    batch: int
    new_tokens: int
    tensor_parallel: int
    hardware: Hardware | None
    figures: Mapping[str, Figure]
    notes: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> Any:
        """The value of a figure; None where it is unavailable."""
        return self.figures[name].value

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain values."""
        return {
            "model_type": self.model_type,
            "blocks": self.blocks,
            "sizes": dict(self.sizes),
            "dtype": self.dtype,
            "context": self.context,
            "batch": self.batch,
            "new_tokens": self.new_tokens,
            "tensor_parallel": self.tensor_parallel,
            "hardware": None if self.hardware is None else self.hardware.as_dict(),
            "figures": {name: figure.as_dict() for name, figure in self.figures.items()},
            "notes": list(self.notes),
        }


def predict(
    config: Any,
    *,
    hardware: Any = None,
    context: int,
    batch: int = 1,
    new_tokens: int = 1,
    dtype: str | None = None,
    tensor_parallel: int = 1,
    law: Calibration | None = None,
    measured_on: Any = None,
    **what_if: int | None,
) -> Prediction:
    """What a model costs, counted from its configuration; nothing is run, and no torch is needed.

    ``config`` is a config.json, a folder with one, its fields, ``"demo"``, or a tape of the model. ``hardware`` is a name in the
    catalogue, a JSON file, ``"this"`` or None for counts alone. A prompt of ``context`` tokens is read for each of ``batch``
    sequences, and ``new_tokens`` are written. ``law`` tells the times instead of the roofline; where it was ``measured_on``
    another machine than ``hardware``, they are carried over. ``what_if`` changes sizes: layers, hidden, heads, kv_heads,
    intermediate, vocab.

    Times of the roofline are the least possible; those of a law have an interval. Raises UsageError for what cannot be,
    StudyError for a tape without its model's configuration.
    """
    for name, value in (("context", context), ("batch", batch), ("new_tokens", new_tokens)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            flag = f"--{name.replace('_', '-')}"
            raise UsageError(
                f"{name.replace('_', ' ')} is {value!r}", why="it is a whole number, 1 or more", fix=f"{flag} 1 or more"
            )
    if unknown := set(what_if) - set(CHANGES):
        raise UsageError(
            f"no size {min(unknown)!r} to change", why=f"there are {', '.join(CHANGES)}", fix="layers=12, for example"
        )
    machine = None if hardware is None else find_hardware(hardware)
    origin = _origin(measured_on, law is not None and machine is not None)
    architecture = architecture_of(altered(read_config(config), **what_if))
    work = workload(architecture, dtype, tensor_parallel)
    figures = {**_counts(work, context, batch, new_tokens)}
    if machine is not None:
        figures |= _fitting(work, machine, context, batch, new_tokens)
    figures |= timing.times(work, machine, context, batch, new_tokens, law, origin)
    return Prediction(
        model_type=architecture.model_type,
        blocks=kinds_text(architecture),
        sizes=sizes(architecture),
        dtype=work.dtype_text,
        context=context,
        batch=batch,
        new_tokens=new_tokens,
        tensor_parallel=tensor_parallel,
        hardware=machine,
        figures=figures,
        notes=tuple(_notes(work, machine, context, new_tokens, dtype)),
    )


def _origin(measured_on: Any, can_be_carried: bool) -> Hardware | None:
    """The machine that a law was measured on, where it is another one."""
    if measured_on is None:
        return None
    if not can_be_carried:
        raise UsageError(
            "a machine that was measured on, without a law or without a machine to carry it to",
            why="measurements are carried from one machine to another",
            fix="--law sweep.tape --measured-on a100 --on h100",
        )
    return find_hardware(measured_on)


def _counts(work: ModelWork, context: int, batch: int, new_tokens: int) -> dict[str, Figure]:
    a, counted = work.architecture, "counted from the configuration"
    seen = replace(work, pairs="seen")
    read, step = seen.prefill(context, batch), seen.decode(context + 1, batch)
    rest = timing.over_steps(lambda at: _flops(seen.decode(at, batch)), context, new_tokens)
    memory = memory_needed(work, context, batch, new_tokens)
    per_device = "on one device" if work.tensor_parallel > 1 else ""
    figures = {
        "parameters": modelled(a.parameters, "parameters", counted),
        "active_parameters": modelled(a.active_parameters, "parameters", "all but the experts that a token leaves out"),
        "weight_bytes": modelled(work.weight_bytes, "bytes", f"{counted}; all devices together"),
        "kv_bytes_per_token": modelled(
            work.kv_bytes_per_token, "bytes", "one more token of one sequence, before a window is full"
        ),
        "state_bytes": modelled(work.state_bytes, "bytes", "recurrent states of one sequence, whatever its length"),
        "cache_bytes": modelled(
            work.cache_bytes(context + new_tokens - 1, batch), "bytes", "at the end, all sequences"
        ),
        "activation_bytes": modelled(
            memory.activation_bytes, "bytes", f"beside weights and cache, in the {memory.phase}"
        ),
        "peak_bytes": modelled(
            memory.peak_bytes,
            "bytes",
            f"weights, cache and activations, in the {memory.phase}; {per_device}".rstrip("; "),
        ),
        "prefill_flops": modelled(_flops(read), "operations", "the whole prompt, logits of its last position"),
        "prefill_bytes": modelled(
            read.weight_bytes + read.kv_write_bytes, "bytes", "weights read once, the cache written"
        ),
        "decode_flops": modelled(_flops(step), "operations", "the first step after the prompt, all sequences"),
        "decode_bytes": modelled(
            step.weight_bytes + step.kv_bytes + step.kv_write_bytes, "bytes", "weights and cache read once"
        ),
        "request_flops": modelled(_flops(read) + rest, "operations", "prompt and new tokens, all sequences"),
    }
    if work.tensor_parallel > 1:
        figures["device_weight_bytes"] = modelled(work.weight_bytes / work.tensor_parallel, "bytes", "on one device")
        figures["reduce_bytes"] = modelled(step.reduce_bytes, "bytes", "sent by each device in a step")
    return figures


def _flops(work: Work) -> float:
    return work.flops + work.attention_flops


def _fitting(work: ModelWork, machine: Hardware, context: int, batch: int, new_tokens: int) -> dict[str, Figure]:
    names = ("memory_bytes", "fits", "largest_batch", "largest_context")
    if machine.memory_gb is None:
        why = f"how much memory a machine with {machine.name} has is not in the catalogue"
        return {name: unavailable("bytes" if name == "memory_bytes" else "", why) for name in names}
    room = machine.memory_gb * 1e9

    def fits(at: int, n: int) -> bool:
        return memory_needed(work, at, n, new_tokens).peak_bytes <= room

    at_most = largest(lambda n: n == 0 or fits(context, n))
    longest = largest(lambda n: n == 0 or fits(n, batch))
    return {
        "memory_bytes": Figure(room, "bytes", "measured" if machine.measured else "modelled", machine.source),
        "fits": modelled(fits(context, batch), "", "peak against the memory of one device"),
        "largest_batch": _bound(at_most, "sequences", f"with {context:,} tokens of prompt each"),
        "largest_context": _bound(
            longest, "tokens", f"of prompt, {'one sequence' if batch == 1 else f'{batch:,} sequences'} at once"
        ),
    }


def _bound(value: int | None, unit: str, why: str) -> Figure:
    return unavailable(unit, "memory does not bound it") if value is None else modelled(value, unit, why)


def _notes(work: ModelWork, machine: Hardware | None, context: int, new_tokens: int, dtype: str | None) -> list[str]:
    a = work.architecture
    notes = []
    if dtype is None and a.dtype is None:
        notes.append(f"the configuration names no dtype: {work.dtype} is taken; --dtype chooses another")
    if dtype is not None and a.bits is not None:
        notes.append(f"the configuration quantises by {a.quantization}; {dtype_named(dtype)} was asked for instead")
    if a.positions is not None and context + new_tokens > a.positions:
        notes.append(
            f"{context + new_tokens:,} positions are more than the {a.positions:,} that the configuration gives the model"
        )
    if machine is not None:
        found = machine.peak(work.compute_dtype)[1]
        if found != work.compute_dtype:
            notes.append(f"{machine.name} has no rate for {work.compute_dtype}: that of {found} is taken")
        if work.tensor_parallel > 1 and machine.link_gb_s is None:
            notes.append(f"the link of {machine.name} is not known: the time of the all-reduces is left out")
    if a.model_type in EAGER:
        notes.append("attention writes its scores down, as in transformers; a fused kernel would need far less memory")
    if any(b.state is not None and b.state.scanned is None for b in a.blocks):
        notes.append("what its recurrence keeps while it reads a prompt is not known: the peak memory is a lower bound")
    if any(b.state is not None and b.state.scanned for b in a.blocks):
        notes.append("its recurrence writes every state of a prompt down, as in transformers without its own kernels")
    if any(m.copies > m.active for m in a.matrices):
        notes.append("which experts a token chooses is modelled as even chance")
    return notes
