"""How a continuous-batching server decides what the next forward pass reads.

Three policies, by the names that the literature gives them:

* ``prefill-first``: whole prompts of waiting requests go before any decode step, as many as the token budget takes; running
  sequences wait for them. Orca and the first scheduler of vLLM.
* ``chunked``: every running sequence gets its token in every step, and what is left of the token budget reads prompts, in
  chunks. Sarathi-Serve's stall-free batching; vLLM since its second engine; ``transformers serve --continuous-batching``.
* ``decode-first``: a batch is formed, read, and decoded to its last token before the next one is begun. Request-level
  batching, as in FasterTransformer.

With ``max_seqs=1`` the policies are one: first come, first served, one request at a time. That is what ``transformers serve``
does unless it is told otherwise: one thread runs one ``generate()`` after another.

When the key-value memory cannot hold the next step, the sequence that was admitted last is preempted: its memory is freed, it
goes to the head of the queue, and when it is admitted again its prompt and what it had written are read once more (recompute).

Sources: G.-I. Yu et al., "Orca", OSDI 2022; W. Kwon et al., "Efficient Memory Management for Large Language Model Serving with
PagedAttention", SOSP 2023, section 4.5; A. Agrawal et al., "Taming Throughput-Latency Tradeoff in LLM Inference with
Sarathi-Serve", OSDI 2024, sections 3 and 4; vllm-project/vllm, ``vllm/v1/core/sched/scheduler.py``; huggingface/transformers,
``src/transformers/cli/serving/utils.py`` and ``generation/continuous_batching/scheduler.py``.
"""

from __future__ import annotations

import difflib
from dataclasses import asdict, dataclass
from typing import Any

from tokentape.errors import UsageError

__all__ = ["POLICIES", "Scheduler"]

POLICIES = ("chunked", "prefill-first", "decode-first", "one-at-a-time")

MAX_SEQS = 256
MAX_BATCHED_TOKENS = 8192
BLOCK_SIZE = 16


@dataclass(frozen=True, slots=True)
class Scheduler:
    """The limits of a server, and its policy, one of :data:`POLICIES`.

    At most ``max_seqs`` sequences run at once. A step reads at most ``max_batched_tokens`` tokens; with whole prompts a longer
    one goes alone. ``kv_tokens`` is what the key-value memory holds, in blocks of ``block_size`` tokens; None is no limit.
    ``watermark`` is the share of it that stays free when a request is admitted beside others. A request that the memory could
    not hold alone is refused. ``one-at-a-time`` is any policy with one sequence. Raises UsageError for what cannot be.
    """

    policy: str = "chunked"
    max_seqs: int = MAX_SEQS
    max_batched_tokens: int = MAX_BATCHED_TOKENS
    kv_tokens: int | None = None
    block_size: int = BLOCK_SIZE
    watermark: float = 0.0

    def __post_init__(self) -> None:
        if self.policy not in POLICIES:
            near = difflib.get_close_matches(self.policy, POLICIES, n=1)
            raise UsageError(
                f"no policy {self.policy!r}",
                why=f"there are {', '.join(POLICIES)}",
                fix=f"--policy {(near or POLICIES)[0]}",
            )
        if self.policy == "one-at-a-time":
            object.__setattr__(self, "max_seqs", 1)
        sizes = {name: getattr(self, name) for name in ("max_seqs", "max_batched_tokens", "block_size")}
        if self.kv_tokens is not None:
            sizes["kv_tokens"] = self.kv_tokens
        for name, value in sizes.items():
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                flag = f"--{name.replace('_', '-')}"
                raise UsageError(
                    f"{name.replace('_', ' ')} is {value!r}",
                    why="it is a whole number, 1 or more",
                    fix=f"{flag} 1 or more",
                )
        if not 0 <= self.watermark < 1:
            raise UsageError(
                f"a watermark of {self.watermark:g}",
                why="it is a share of the memory, at least 0 and below 1",
                fix="0.01",
            )
        if self.policy == "chunked" and self.max_batched_tokens < self.max_seqs:
            raise UsageError(
                f"{self.max_batched_tokens} tokens a step for {self.max_seqs} sequences",
                why="with chunked prefill every running sequence gets a token in every step",
                fix=f"--max-batched-tokens {self.max_seqs} or more, or fewer --max-seqs",
            )
        if self.n_blocks == 0:
            raise UsageError(
                f"{self.kv_tokens} tokens of key-value memory in blocks of {self.block_size}",
                why="not one block fits",
                fix=f"--kv-tokens {self.block_size} or more",
            )

    @property
    def n_blocks(self) -> int | None:
        """Whole blocks of key-value memory, None without a limit."""
        return None if self.kv_tokens is None else self.kv_tokens // self.block_size

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)
