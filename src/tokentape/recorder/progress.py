"""How far a run has come, for whoever watches it."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from tokentape.recorder.rows import Made

__all__ = ["Progress"]


@dataclass(slots=True)
class Progress:
    """How far a run has come; handed to an observer after each transaction, on the recorder's thread.

    ``text`` is what the first trace has said so far, ``gaps_ns`` and ``surprise`` its last 64 steps (surprise in nats, None
    where unknown), ``n_tokens`` the tokens of all its traces, ``elapsed_ns`` the host time since the run began.
    """

    n_tokens: int = 0
    n_steps: int = 0
    elapsed_ns: int = 0
    data: bytearray = field(default_factory=bytearray)
    gaps_ns: deque[int] = field(default_factory=lambda: deque(maxlen=64))
    surprise: deque[float | None] = field(default_factory=lambda: deque(maxlen=64))
    last_ns: int = 0

    @property
    def text(self) -> str:
        """The text so far, without a character whose last bytes have not come yet."""
        return self.data.decode("utf-8", errors="ignore")

    def take(self, made: Made, start_ns: int) -> None:
        """Some more steps."""
        self.n_steps += len(made.ends_ns)
        self.n_tokens += made.n_tokens
        for end_ns, data, surprise in zip(made.ends_ns, made.first_data, made.first_surprise, strict=True):
            self.gaps_ns.append(end_ns - (self.last_ns or start_ns))
            self.surprise.append(surprise)
            self.data += data
            self.last_ns = end_ns
            self.elapsed_ns = end_ns - start_ns
