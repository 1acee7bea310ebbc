"""What one forward pass has to do, in counts that no machine enters into.

:mod:`tokentape.study.cost.counting` makes it from a configuration; :mod:`tokentape.study.law.laws` fits how long a machine takes
for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

__all__ = ["Work", "Workload"]


@dataclass(frozen=True, slots=True)
class Work:
    """The counts of one forward pass, all devices together.

    ``layers`` is how many blocks run one after another; ``weight_bytes`` are read at least once; ``kv_bytes`` are read from the
    key-value cache and the recurrent state, ``kv_write_bytes`` written to it; ``flops`` are those of the products with
    weights (a multiply-add counts two), ``attention_flops`` those of queries with keys and of weights with values;
    ``reduce_bytes`` is what each device sends in the all-reduces of tensor parallelism (0 on one device).
    """

    layers: int
    weight_bytes: float
    kv_bytes: float
    kv_write_bytes: float
    flops: float
    attention_flops: float
    reduce_bytes: float = 0.0


class Workload(Protocol):
    """What gives the work of a forward pass: a model's architecture with its dtype, on so many devices."""

    @property
    def tensor_parallel(self) -> int:
        """Devices that share each block."""

    def decode(self, context: float, batch: float) -> Work:
        """One new token for each of ``batch`` sequences; ``context`` positions are attended, the new one included."""

    def prefill(self, length: float, batch: float) -> Work:
        """``length`` tokens for each of ``batch`` sequences, none of which is in the cache; logits of the last one alone."""
