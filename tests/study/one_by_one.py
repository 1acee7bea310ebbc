"""The simulated server as plainly as it can be written: every step by itself, every sequence an object. The twin of the engine."""

from __future__ import annotations

from dataclasses import dataclass, field

from tokentape.study.simulate.arrivals import Arrivals
from tokentape.study.simulate.scheduler import Scheduler
from tokentape.study.simulate.step_times import FS, StepTimes


@dataclass
class Sequence:
    number: int
    at: int
    n_prompt: int
    n_output: int
    held: int = 0
    decoding: bool = False
    tokens: list[int] = field(default_factory=list)  # when each token came
    n_preempted: int = 0
    admitted: list[int] = field(default_factory=list)

    @property
    def known(self) -> int:
        """Tokens whose keys and values are needed for the next one."""
        return self.n_prompt + len(self.tokens)

    @property
    def done(self) -> bool:
        return len(self.tokens) == self.n_output


@dataclass
class Served:
    sequences: list[Sequence]
    refused: list[int]
    n_steps: int
    busy: int
    gaps: list[int]


def serve(arrivals: Arrivals, times: StepTimes, s: Scheduler) -> Served:
    every = [
        Sequence(i, at * FS, p, o)
        for i, (at, p, o) in enumerate(
            zip(arrivals.at_ns.tolist(), arrivals.n_prompt.tolist(), arrivals.n_output.tolist(), strict=True)
        )
    ]
    coming, waiting, running = list(every), [], []
    now = n_steps = busy = 0
    refused, gaps = [], []
    forming = True

    def blocks(tokens: int) -> int:
        return -(-tokens // s.block_size)

    def used() -> int:
        return sum(blocks(q.held) for q in running)

    def free(extra: int = 0) -> int:
        return 1 << 90 if s.n_blocks is None else s.n_blocks - used() - extra

    def preempt() -> None:
        victim = running.pop()
        victim.held, victim.decoding = 0, False
        victim.n_preempted += 1
        waiting.insert(0, victim)

    spare = 0 if s.n_blocks is None else int(s.n_blocks * s.watermark)
    while coming or waiting or running:
        while coming and coming[0].at <= now:
            q = coming.pop(0)
            if s.n_blocks is not None and blocks(q.n_prompt + q.n_output - 1) > s.n_blocks:
                refused.append(q.number)
            else:
                waiting.append(q)
        if not waiting and not running:
            if coming:
                now = coming[0].at
            continue

        reads: list[tuple[Sequence, int, int]] = []  # whose prompt, from where, how much
        decodes: list[Sequence] = []
        preempted = False

        def growing() -> int:
            return sum(blocks(q.held + 1) - blocks(q.held) for q in running if q.decoding)

        if s.policy == "decode-first" and not running:
            forming = True
        whole = s.policy in ("prefill-first", "one-at-a-time") or (s.policy == "decode-first" and forming)
        if whole:
            taken = 0
            while waiting and len(running) < s.max_seqs:
                q = waiting[0]
                if reads and sum(r[2] for r in reads) + q.known > s.max_batched_tokens:
                    break
                if blocks(q.known) > free(taken) - (spare if running else 0):
                    break
                waiting.pop(0)
                running.append(q)
                q.admitted.append(now)
                taken += blocks(q.known)
                reads.append((q, 0, q.known))
        if s.policy == "chunked":
            while growing() > free():
                preempt()
                preempted = True
            decodes = [q for q in running if q.decoding]
            budget = s.max_batched_tokens - len(decodes)
            taken = growing()
            for q in [q for q in running if not q.decoding]:
                size = min(q.known - q.held, budget)
                if size == 0:
                    continue
                if blocks(q.held + size) - blocks(q.held) > free(taken):
                    preempt()
                    preempted = True
                    continue
                taken += blocks(q.held + size) - blocks(q.held)
                reads.append((q, q.held, size))
                budget -= size
            while not preempted and waiting and budget > 0 and len(running) < s.max_seqs:
                q = waiting[0]
                size = min(q.known, budget)
                if blocks(size) > free(taken) - (spare if running else 0):
                    break
                waiting.pop(0)
                running.append(q)
                q.admitted.append(now)
                taken += blocks(size)
                reads.append((q, 0, size))
                budget -= size
        elif not reads:
            forming = False
            while growing() > free():
                preempt()
            decodes = [q for q in running if q.decoding]

        positions = sum(q.held + 1 for q in decodes)
        if reads:
            tokens = sum(size for _, _, size in reads)
            squares = sum((begin + size) ** 2 - begin**2 for _, begin, size in reads)
            took = times.reading(len(decodes), positions, tokens, squares, len(reads))
        else:
            took = times.decode(len(decodes), positions).first_fs
        now += took
        busy += took
        n_steps += 1
        for q in decodes:
            q.held += 1
        complete = []
        for q, _, size in reads:
            q.held += size
            if q.held == q.known:
                complete.append(q)
                q.decoding = True
        for q in decodes + complete:
            if q.tokens:
                gaps.append(now - q.tokens[-1])
            q.tokens.append(now)
            if q.done:
                running.remove(q)
    return Served(every, refused, n_steps, busy, gaps)
