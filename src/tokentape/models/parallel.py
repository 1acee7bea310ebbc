"""Tensor parallelism: one model over the processes of ``torchrun``, each holding a part of every layer (transformers' ``tp_plan``).

All ranks run the same loop over the same tokens and meet inside each layer. So whatever is decided outside of the model (a seed, a
random prompt) has to be decided once, and a rank that stops alone leaves the others waiting: it says why before it goes.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from tokentape.errors import MissingExtra, ModelError, UsageError
from tokentape.models.runtime import require_torch, require_transformers

__all__ = [
    "Party",
    "Ranks",
    "here",
    "is_lost_rank",
    "joined",
    "outlast",
    "ranks_here",
    "sharded",
    "sharded_options",
    "whole",
]

HAVE_PLANS = "Llama, Mistral, Mixtral, Qwen2, Qwen3, Gemma 2 and 3, Phi-3, GPT-OSS, OLMo 2, DeepSeek-V3"
"""Some families for which transformers has a plan; BLOOM, GPT-2, OPT and GPT-NeoX have none."""

JOIN_S = 600.0
"""How long a rank waits for the others to come, and for a message within the group."""

GRACE_S = 5.0
"""How long a rank that ends with an error waits for rank 0 to tell of it; ``torchrun`` ends all as soon as one has ended."""


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process's place among ``size``: ``rank`` of all, ``local_rank`` of those on this machine."""

    rank: int
    size: int
    local_rank: int


def ranks_here() -> Ranks:
    """The place that ``torchrun`` gave this process. Raises UsageError for one that it did not start."""
    try:
        found = Ranks(*(int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")))
    except (KeyError, ValueError) as error:
        raise UsageError(
            "--tp-plan in a process by itself",
            why="each part of the model is in a process of its own, and torchrun starts them",
            fix="torchrun --nproc-per-node 2 -m tokentape record MODEL PROMPT --tp-plan auto",
        ) from error
    if found.size < 2:
        raise UsageError(
            "--tp-plan with one process",
            why="torchrun was asked for one, and there is nothing to share out",
            fix="torchrun --nproc-per-node 2 ..., or leave --tp-plan out",
        )
    return found


class Party:
    """The ranks, met; what they tell each other outside of the model."""

    def __init__(self, ranks: Ranks, store: Any) -> None:
        self.ranks = ranks
        self._store = store

    def same(self, value: Any) -> Any:
        """Rank 0's value, for all. Every rank has to call it."""
        import torch.distributed as dist

        found = [value]
        dist.broadcast_object_list(found, src=0)
        return found[0]

    def gathered(self, value: Any) -> list[Any]:
        """The values of all ranks by rank. Every rank has to call it; those but rank 0 get nothing."""
        import torch.distributed as dist

        found: list[Any] | None = [None] * self.ranks.size if self.ranks.rank == 0 else None
        dist.gather_object(value, found, dst=0)
        return found or []

    def tell(self, told: Mapping[str, Any]) -> None:
        """Leave word of why this rank ends, and give rank 0 the time to read it. The first word stands."""
        with contextlib.suppress(
            Exception
        ):  # whoever keeps the store may be gone; the error under way is the one that counts
            if int(self._store.add("ending", 1)) == 1:
                self._store.set("why", json.dumps({**told, "rank": self.ranks.rank}))
            if _accelerator() == "cpu":
                _leave()  # else rank 0 would wait in a layer for as long as this one waits for it
            self._store.wait(["heard"], timedelta(seconds=GRACE_S))

    def told(self) -> Mapping[str, Any] | None:
        """Why a rank ended, in the words that it left; None where it left none."""
        with contextlib.suppress(Exception):
            self._store.wait(["why"], timedelta(seconds=1))
            found: Mapping[str, Any] = json.loads(self._store.get("why"))
            return found
        return None

    def hear(self) -> None:
        """Say that what was told is known, or that there is nothing to be told: the others need not wait."""
        with contextlib.suppress(Exception):
            self._store.set("heard", "1")


def _leave() -> None:
    import torch.distributed as dist

    dist.destroy_process_group()


@contextlib.contextmanager
def joined(ranks: Ranks) -> Iterator[Party]:
    """Meet the other ranks: over NCCL between GPUs, over gloo between processors. Raises ModelError where they do not come."""
    torch = require_torch()
    import torch.distributed as dist

    kind = _accelerator()
    if kind == "cuda":
        torch.cuda.set_device(ranks.local_rank)
    backend = {"cuda": "cpu:gloo,cuda:nccl"}.get(kind, "gloo")
    try:
        store, _, _ = next(dist.rendezvous("env://", timeout=timedelta(seconds=JOIN_S)))
        dist.init_process_group(
            backend,
            store=dist.PrefixStore("ranks", store),
            rank=ranks.rank,
            world_size=ranks.size,
            timeout=timedelta(seconds=JOIN_S),
        )
    except (RuntimeError, ValueError) as error:
        raise ModelError(
            f"rank {ranks.rank} of {ranks.size} did not meet the others",
            why=" ".join(str(error).split())[:300],
            fix="start all of them by one torchrun; between machines see its --rdzv-endpoint",
        ) from error
    yield Party(ranks, dist.PrefixStore("tokentape", store))
    # after an error a rank may be waiting in a layer: then nothing is taken down in order
    _leave()


def _accelerator() -> str:
    """The kind of device that transformers spreads a model over here: it takes the accelerator where there is one."""
    torch = require_torch()
    return "cuda" if torch.cuda.is_available() else "cpu"


def sharded_options(config: Any, name: str, tp_plan: str, device: Any) -> dict[str, Any]:
    """What ``from_pretrained`` wants to be told to load this rank's part alone.

    Raises UsageError for another plan than ``"auto"``, ModelError for a family without one or whose heads cannot be shared out,
    MissingExtra without accelerate.
    """
    ranks = ranks_here()
    if tp_plan != "auto":
        raise UsageError(
            f"no such plan: {tp_plan!r}",
            why="auto is the one that transformers has for the model",
            fix="--tp-plan auto",
        )
    if device.type != _accelerator():
        raise UsageError(
            f"--tp-plan {tp_plan} together with --device {device}",
            why=f"transformers spreads a model over {_accelerator()} here",
            fix="leave --device out",
        )
    text = config.get_text_config(decoder=True)
    if not getattr(text, "base_model_tp_plan", None):
        raise ModelError(
            f"transformers has no tensor-parallel plan for {name}",
            why=f"its family ({text.model_type}) names none; there is one for {HAVE_PLANS}",
            fix="record it in one process, without --tp-plan",
        )
    for what in ("num_attention_heads", "num_key_value_heads"):
        n_heads = getattr(text, what, None)
        if n_heads is not None and n_heads % ranks.size:
            fewer = _divisor(n_heads, ranks.size)
            raise ModelError(
                f"{name} cannot be shared among {ranks.size} ranks",
                why=f"{what} is {n_heads}, and a head stays whole",
                fix="record it in one process, without --tp-plan"
                if fewer == 1
                else f"torchrun --nproc-per-node {fewer}",
            )
    require_transformers()
    from transformers.utils import is_accelerate_available

    if not is_accelerate_available():
        raise MissingExtra(
            "tensor parallelism needs accelerate, which is not installed",
            why="transformers loads the parts of a model with it; it is in the extra [parallel]",
            fix="pip install 'tokentape[parallel]'",
        )
    try:
        from transformers.distributed import DistributedConfig

        return {"distributed_config": DistributedConfig(tp_plan="auto")}
    except (ImportError, TypeError):  # before there was one that takes a plan
        return {"tp_plan": tp_plan}


def _divisor(n: int, most: int) -> int:
    """The largest number of ranks, at least one, among which ``n`` heads can be shared out."""
    return next(size for size in range(min(n, most), 0, -1) if n % size == 0)


def whole(tensor: Any) -> Any:
    """The whole of a tensor of which each rank has a part, which every rank has to ask for; any other tensor as it is."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def here(tensor: Any) -> Any:
    """This rank's part of a tensor; any other tensor as it is."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def sharded(model: Any, config: Any, dtype: Any, options: Mapping[str, Any]) -> Any:
    """This rank's part of a model that is whole in the memory of each of them."""
    return type(model).from_pretrained(None, config=config, state_dict=model.state_dict(), dtype=dtype, **options)


def is_lost_rank(error: Exception) -> bool:
    """Whether an error of a rank says no more than that another one does not answer: gloo and NCCL raise plain RuntimeErrors."""
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(name in text for name in ("gloo", "nccl", "c10d", "by peer"))


def outlast(seconds: float = GRACE_S) -> None:
    """Stay for a while: ``torchrun`` would end rank 0 before it has told of an error that all of them met."""
    time.sleep(seconds)
