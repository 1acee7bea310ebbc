"""Reading what a device has computed without making it, or the loop that feeds it, wait."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch

__all__ = ["aside_of", "fence_of"]


def fence_of(device: torch.device) -> Callable[[], Any] | None:
    """What records an event in the device's stream; None on the CPU, where a tensor is ready when it is there."""
    if device.type != "cuda":
        return None

    def fence() -> Any:
        event = torch.cuda.Event()
        event.record(torch.cuda.current_stream(device))
        return event

    return fence


def aside_of(device: torch.device) -> Callable[[], AbstractContextManager[Any]] | None:
    """What gives a context in which copies to the host run on a stream of their own.

    On the loop's stream a copy would be enqueued behind the steps launched meanwhile, and wait for them. None on the CPU.
    """
    return None if device.type != "cuda" else lambda: torch.cuda.stream(_side_stream(device))


@functools.cache
def _side_stream(device: torch.device) -> Any:
    return torch.cuda.Stream(device)
