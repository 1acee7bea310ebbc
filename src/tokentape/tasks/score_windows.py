"""Windows over a long sequence: each token is scored once, with as much before it as the window and the stride leave."""

from __future__ import annotations

from dataclasses import dataclass

from tokentape.errors import UsageError

__all__ = ["Window", "check_window", "windows"]


@dataclass(frozen=True, slots=True)
class Window:
    """One reading: positions ``start`` to ``stop - 1`` go through the model, and those from ``first`` on are scored.

    The token at ``stop - 1`` is scored and not read, since it predicts nothing here.
    """

    start: int
    first: int
    stop: int

    @property
    def n_read(self) -> int:
        return self.stop - 1 - self.start

    @property
    def n_scored(self) -> int:
        return self.stop - self.first


def windows(n: int, first: int, window: int, stride: int) -> list[Window]:
    """The windows of a sequence of ``n`` tokens whose first ``first`` (at least one) are given and not scored.

    At most ``window`` tokens are read at a time. The first window scores all that it can; each other one scores ``stride``
    tokens, the last what is left, and each reaches back as far as it may. With ``stride == window`` these are the windows of
    lm-evaluation-harness (``get_rolling_token_windows(..., context_len=1)``); with a smaller stride those of Hugging Face's
    guide to perplexity at ``max_length = window + 1``, whose last window is shorter.
    """
    stop = min(n, max(window + 1, first + stride))
    found = [Window(max(0, stop - 1 - window), first, stop)]
    while stop < n:
        before, stop = stop, min(n, stop + stride)
        found.append(Window(max(0, stop - 1 - window), before, stop))
    return found


def check_window(window: int | None, stride: int | None) -> None:
    """Raise UsageError for a window or a stride that cannot be, whatever the model."""
    for name, value in (("window", window), ("stride", stride)):
        if value is not None and value < 1:
            raise UsageError(
                f"a {name} of {value} tokens", why="at least one token has to be read", fix=f"--{name} 512"
            )
    if window is not None and stride is not None and stride > window:
        raise UsageError(
            f"a stride of {stride} in a window of {window}",
            why="what lies between two windows would be scored without being read",
            fix=f"--stride {window}, or less",
        )
