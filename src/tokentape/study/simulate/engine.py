"""The simulated server, from one event to the next.

Between two events the running batch stays as it is: nothing is admitted, nothing ends, no memory runs out. Its decode steps
are then an arithmetic series, and any number of them is one sum. An event is an arrival that could be admitted, the end of a
sequence, the key-value memory running out, or the end of a line of step times. The result is that of taking each step by
itself, to the last digit.

A sequence that has read its prompt has its first token; each decode step stores its last token and gives it one more. So with
``i`` tokens it holds ``prompt + i - 1`` positions, and the next step attends ``prompt + i``.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable

from tokentape.study.simulate.arrivals import Arrivals
from tokentape.study.simulate.log import Log
from tokentape.study.simulate.scheduler import Scheduler
from tokentape.study.simulate.step_times import FS, Line, StepTimes, steps_until

__all__ = ["Engine"]

NEVER = 1 << 100


class Engine:
    """One run of a server over a stream of requests. ``noise`` gives a factor for the time of each step, by whether it reads
    prompts; None is no noise. With noise every step is an event.
    """

    def __init__(
        self, arrivals: Arrivals, times: StepTimes, scheduler: Scheduler, noise: Callable[[bool], float] | None = None
    ) -> None:
        self.times, self.scheduler, self.noise = times, scheduler, noise
        self.at = [at * FS for at in arrivals.at_ns.tolist()]
        self.n_prompt: list[int] = arrivals.n_prompt.tolist()
        self.n_output: list[int] = arrivals.n_output.tolist()
        n = len(self.at)
        self.log = Log([None] * n)
        self.now = 0
        self.next = 0
        self.waiting: deque[int] = deque()
        self.running: dict[int, None] = {}  # in the order of admission
        self.block = scheduler.block_size
        self.free = NEVER if scheduler.n_blocks is None else scheduler.n_blocks
        self.limited = scheduler.n_blocks is not None
        self.capacity = self.free
        self.spare = int(self.free * scheduler.watermark) if self.limited else 0
        # decoding sequences; ``steps`` counts the decode steps of all, so that what a sequence has follows from when it began
        self.steps = 0
        self.n_decoding = 0
        self.positions = 0
        self.phases = [0] * self.block  # sequences by the steps, modulo a block, at which they need a new one
        self.base = [0] * n  # positions held, minus ``steps``
        self.written = [0] * n  # tokens, as of the last admission
        self.end = [-1] * n  # of ``steps``, at which it has its last token
        self.ending: list[tuple[int, int]] = []
        self.last_tokens: list[list[int]] = []  # [time, sequences] whose last token came then, oldest first
        self.paused: dict[int, int] = {}
        self.partial: int | None = None  # the prompt that is read in part, always admitted last
        self.read = 0  # how much of it
        self.forming = True  # decode-first: the batch is not complete yet

    def run(self) -> Log:
        """Serve every request; the log of it."""
        policies = {"chunked": self._chunked, "decode-first": self._decode_first}
        step = policies.get(self.scheduler.policy, self._prefill_first)
        while True:
            self._arrive()
            if self.running or self.waiting:
                step()
            elif self.next < len(self.at):
                self._note()
                self.now = self.at[self.next]
            else:
                self._note()
                return self.log

    # what comes

    def _arrive(self) -> None:
        while self.next < len(self.at) and self.at[self.next] <= self.now:
            one = self.next
            self.next += 1
            if self._blocks(self.n_prompt[one] + self.n_output[one] - 1) > self.capacity:
                self.log.refused.append(one)
            else:
                self.waiting.append(one)

    def _blocks(self, tokens: int) -> int:
        return -(-tokens // self.block)

    def _to_read(self, one: int) -> int:
        """Tokens that a waiting request has to read: its prompt, and after a preemption what it had written."""
        return self.n_prompt[one] + self.written[one]

    def _admit(self, one: int) -> None:
        self.waiting.popleft()
        self.running[one] = None
        self.log.admitted.append((self.now, one))

    # the policies

    def _prefill_first(self) -> None:
        if not self._prefill():
            self._decode(watching=not self.waiting and len(self.running) < self.scheduler.max_seqs)

    def _decode_first(self) -> None:
        self.forming = self.forming or not self.running
        if self.forming and self._prefill():
            return
        self.forming = False
        if self.running:
            self._decode(watching=False)

    def _prefill(self) -> bool:
        """Read the whole prompts of waiting requests, as many as may run and as the step takes; False where none may."""
        batch: list[int] = []
        tokens = squares = 0
        while self.waiting and len(self.running) < self.scheduler.max_seqs:
            need = self._to_read(self.waiting[0])
            if batch and tokens + need > self.scheduler.max_batched_tokens:
                break
            blocks = self._blocks(need)
            if blocks > self.free - (self.spare if self.running else 0):
                break
            batch.append(self.waiting[0])
            self._admit(self.waiting[0])
            self.free -= blocks
            tokens += need
            squares += need * need
        if not batch:
            return False
        self._pass(self.times.reading(0, 0, tokens, squares, len(batch)), reads=True)
        started = sum(self._begin(one) for one in batch)
        if started:
            self.last_tokens.append([self.now, started])
        return True

    def _chunked(self) -> None:
        preempted = self._make_room()
        budget = self.scheduler.max_batched_tokens - self.n_decoding
        chunks: list[tuple[int, int, int]] = []
        promised = self._growing()  # the decoding sequences take theirs first
        self.free -= promised
        if self.partial is not None:
            preempted = self._continue(budget, chunks) or preempted
            budget -= chunks[0][2] if chunks else 0
        if not preempted:
            self._admit_chunks(budget, chunks)
        self.free += promised
        if chunks:
            self._mixed(chunks)
        else:
            watching = not preempted and not self.waiting and len(self.running) < self.scheduler.max_seqs
            self._decode_run(watching, at_most=1 if preempted else NEVER)

    def _continue(self, budget: int, chunks: list[tuple[int, int, int]]) -> bool:
        """The next chunk of the prompt read in part; True where the memory does not hold it, which preempts it."""
        one = self.partial
        assert one is not None
        size = min(self._to_read(one) - self.read, budget)
        if size == 0:
            return False
        blocks = self._blocks(self.read + size) - self._blocks(self.read)
        if blocks > self.free:
            self._preempt()
            return True
        self.free -= blocks
        chunks.append((one, self.read, size))
        return False

    def _admit_chunks(self, budget: int, chunks: list[tuple[int, int, int]]) -> None:
        while self.waiting and budget > 0 and len(self.running) < self.scheduler.max_seqs:
            one = self.waiting[0]
            size = min(self._to_read(one), budget)
            blocks = self._blocks(size)
            if blocks > self.free - (self.spare if self.running else 0):
                break
            self._admit(one)
            self.free -= blocks
            chunks.append((one, 0, size))
            budget -= size

    def _mixed(self, chunks: list[tuple[int, int, int]]) -> None:
        """A step that reads chunks of prompts beside a token for each decoding sequence."""
        n = self.n_decoding
        if n:
            self._store(1)
        tokens = squares = 0
        for _, begin, size in chunks:
            tokens += size
            squares += size * (2 * begin + size)
        self._pass(self.times.reading(n, self.positions, tokens, squares, len(chunks)), reads=True)
        if n:
            self._gaps(0, 0, 1)
            self._finish()
        started = 0
        for one, begin, size in chunks:
            if begin + size == self._to_read(one):
                self.partial = None
                started += self._begin(one)
            else:
                self.partial, self.read = one, begin + size
        if started:
            self.last_tokens.append([self.now, started])

    # decoding

    def _decode(self, watching: bool) -> None:
        preempted = self._make_room()
        self._decode_run(watching and not preempted, at_most=1 if preempted else NEVER)

    def _decode_run(self, watching: bool, at_most: int) -> None:
        """Decode steps up to the next event; ``watching`` stops at an arrival."""
        n = self.n_decoding
        line = self.times.decode(n, self.positions + n)
        k = 1
        if self.noise is None and at_most > 1:
            k = self._count(n, line, watching)
        growth = line.slope_fs * n
        self._pass(k * line.first_fs + growth * (k * (k - 1) // 2), k)
        self._store(k)
        # with noise the one step took what it took
        self._gaps(line.first_fs if self.noise is None else self.took, growth, k)
        self._finish()

    def _count(self, n: int, line: Line, watching: bool) -> int:
        k = self._until_end() - self.steps
        k = min(k, (line.until - self.positions - n) // n + 1)
        if self.limited:
            k = self._fitting(k)
        if watching and self.next < len(self.at):
            ahead, growth = self.at[self.next] - self.now, line.slope_fs * n
            if k * line.first_fs + growth * (k * (k - 1) // 2) > ahead:
                k = steps_until(ahead, line.first_fs, growth, k)
        return k

    def _until_end(self) -> int:
        while True:
            at, one = self.ending[0]
            if self.end[one] == at:
                return at
            heapq.heappop(self.ending)  # preempted since

    def _store(self, k: int) -> None:
        """Memory for the tokens of ``k`` decode steps."""
        whole, rest = divmod(k, self.block)
        start = self.steps % self.block
        over = start + rest - self.block
        blocks = sum(self.phases[start : start + rest]) + (sum(self.phases[:over]) if over > 0 else 0)
        self.free -= blocks + whole * self.n_decoding
        self.steps += k
        self.positions += k * self.n_decoding

    def _growing(self) -> int:
        """Blocks that the next decode step takes."""
        return self.phases[self.steps % self.block]

    def _fitting(self, k: int) -> int:
        """How many of ``k`` steps the free memory holds, at least one."""
        if (k // self.block + 1) * self.n_decoding <= self.free:
            return k
        left = self.free
        whole = max(0, left // self.n_decoding - 1)  # rounds through all phases that surely fit
        left -= whole * self.n_decoding
        found = whole * self.block
        while found < k:
            left -= self.phases[(self.steps + found) % self.block]
            if left < 0:
                break
            found += 1
        return max(1, min(found, k))

    def _gaps(self, first: int, growth: int, k: int) -> None:
        """The gaps that ``k`` steps, which have just ended, gave; the first one is counted from each sequence's last token."""
        if len(self.last_tokens) == 1 and k > 1 and self.last_tokens[0][0] == self.start:
            self.log.gaps.append((first, growth, k, self.last_tokens[0][1]))
        else:
            ended = self.now if k == 1 else self.start + first
            for at, n in self.last_tokens:
                self.log.gaps.append((ended - at, 0, 1, n))
            if k > 1:
                self.log.gaps.append((first + growth, growth, k - 1, self.n_decoding))
        self.last_tokens = [[self.now, self.n_decoding]]

    def _pass(self, fs: int, k: int = 1, *, reads: bool = False) -> None:
        """``k`` forward passes that take ``fs`` in all."""
        if self.noise is not None:
            fs = max(1, round(fs * self.noise(reads)))
        self._note()
        self.start, self.took = self.now, fs
        self.now += fs
        self.log.n_steps += k
        self.log.busy_fs += fs

    def _note(self) -> None:
        self.log.memory.append(
            (self.now, self.capacity - self.free, self.positions + self.read * (self.partial is not None))
        )

    # sequences begin, end, and are thrown out

    def _begin(self, one: int) -> bool:
        """A prompt has been read, and the sequence has a token more; False where that was its last."""
        if self.log.first[one] is None:
            self.log.first[one] = self.now
        else:
            self.log.gaps.append((self.now - self.paused.pop(one), 0, 1, 1))
        held = self._to_read(one)
        self.written[one] += 1
        if self.written[one] == self.n_output[one]:
            self._leave(one, held)
            return False
        self.base[one] = held - self.steps
        self.phases[-self.base[one] % self.block] += 1
        self.n_decoding += 1
        self.positions += held
        self.end[one] = self.steps + self.n_output[one] - self.written[one]
        heapq.heappush(self.ending, (self.end[one], one))
        return True

    def _finish(self) -> None:
        """Let go of the sequences that have their last token."""
        while self.ending and self.ending[0][0] <= self.steps:
            at, one = heapq.heappop(self.ending)
            if self.end[one] == at:
                self._leave(one, self._stop(one))
        if not self.n_decoding:
            self.last_tokens = []
        else:
            self.last_tokens = [[self.now, self.n_decoding]]

    def _stop(self, one: int) -> int:
        """Take a sequence out of the decoding ones; what it held."""
        held = self.base[one] + self.steps
        self.phases[-self.base[one] % self.block] -= 1
        self.n_decoding -= 1
        self.positions -= held
        self.end[one] = -1
        return held

    def _leave(self, one: int, held: int) -> None:
        del self.running[one]
        self.free += self._blocks(held)
        self.log.ended.append((self.now, one))

    def _make_room(self) -> bool:
        """Preempt until the next token of every decoding sequence has its place; whether any had to go."""
        preempted = False
        while self.limited and self._growing() > self.free:
            self._preempt()
            preempted = True
        return preempted

    def _preempt(self) -> None:
        """Throw out the sequence that was admitted last."""
        one, _ = self.running.popitem()
        if one == self.partial:
            self.free += self._blocks(self.read)
            self.partial, self.read = None, 0
        else:
            self.written[one] = self.n_output[one] - (self.end[one] - self.steps)
            group = self.last_tokens[-1]
            self.paused[one] = group[0]
            group[1] -= 1
            if not group[1]:
                self.last_tokens.pop()
            self.free += self._blocks(self._stop(one))
        self.waiting.appendleft(one)
        self.log.preempted.append((self.now, one))
