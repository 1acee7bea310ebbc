"""The live line of a recording, on stderr: drawn over itself on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len

from tokentape.cli.status import PLAIN_SECONDS, Drawing, draws_on
from tokentape.views.drawing import drawn_text
from tokentape.views.screen import Screen
from tokentape.views.sparkline import sparkline
from tokentape.views.text import folded
from tokentape.views.units import duration, rate
from tokentape.words.retold import retold

if TYPE_CHECKING:
    from tokentape.recorder.progress import Progress

__all__ = ["LiveLine"]

TEXT_LINES = 4


@dataclass(frozen=True, slots=True)
class Moment:
    """A copy of the progress: the recorder goes on writing into its own while this one is drawn."""

    text: str
    n_tokens: int
    elapsed_ns: int
    gaps_ns: list[int]
    surprise: list[float | None]


class LiveLine(Drawing):
    """Shows what is going on: first ``waiting_for``, then the run. Gone without a trace when it ends.

    ``observe`` is called on the recorder's thread; it only copies the progress, the drawing is done elsewhere.
    """

    def __init__(self, waiting_for: str, *, quiet: bool = False) -> None:
        self._screen = Screen.of(sys.stderr)
        self._waiting_for = drawn_text(retold(waiting_for, self._screen.lang, "live.doing"))
        self._moment: Moment | None = None
        self._since = time.monotonic()
        self._printed = self._since
        drawn = draws_on()
        self._live: Any = self._make_live() if drawn and not quiet else None
        self._plain = not drawn and not quiet

    def observe(self, progress: Progress) -> None:
        """A transaction was written."""
        tail = progress.text[-TEXT_LINES * self._screen.width :]
        gaps, surprise = list(progress.gaps_ns), list(progress.surprise)
        self._moment = Moment(tail, progress.n_tokens, progress.elapsed_ns, gaps, surprise)
        now = time.monotonic()
        if self._plain and now - self._printed >= PLAIN_SECONDS:
            self._printed = now
            print(self._screen.safe(self._status(self._moment, spark=False)), file=sys.stderr, flush=True)

    def _make_live(self) -> Any:
        from rich.console import Console
        from rich.live import Live
        from rich.text import Text

        console = Console(file=sys.stderr, force_terminal=True, no_color=not self._screen.color)
        return Live(
            console=console,
            transient=True,
            refresh_per_second=8,
            redirect_stdout=False,
            redirect_stderr=False,
            get_renderable=lambda: Text("\n".join(self._lines()), no_wrap=True, overflow="crop"),
        )

    def _lines(self) -> list[str]:
        moment = self._moment
        if moment is None:
            return [self._screen.safe(f"{self._waiting_for} {time.monotonic() - self._since:.0f} s")]
        shown = drawn_text(moment.text, keep="\n").split("\n")
        lines = [part for line in shown for part in folded(line, self._screen.width - 1)]
        return [self._screen.safe(line) for line in (*lines[-TEXT_LINES:], self._status(moment, spark=True))]

    def _status(self, moment: Moment, *, spark: bool) -> str:
        say = self._screen.say
        gaps = moment.gaps_ns[1:] or moment.gaps_ns  # the first is the prefill
        mean = duration(sum(gaps) / len(gaps) if gaps else None)
        parts = [say("live.tokens", n=moment.n_tokens), say("card.a_step", time=mean)]
        if moment.elapsed_ns > 0:
            parts.append(rate(moment.n_tokens / moment.elapsed_ns * 1e9))
        if spark and any(s is not None for s in moment.surprise):
            room = min(32, self._screen.width - sum(cell_len(part) + 2 for part in parts) - 10)
            if room > 4:
                course = sparkline(moment.surprise[-room:], self._screen, room)
                parts.append(say("live.surprise", course=course))
        return "  ".join(parts)
