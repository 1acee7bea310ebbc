"""When a loop stops, and why a sequence ended."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

import torch

__all__ = ["StopFlags", "finish_reason"]


class StopFlags:
    """Tells whether all sequences have ended, without making the host wait for the device.

    Each step's flag is copied to the host asynchronously and read ``lookahead`` steps later; with 0 it is read at once. The
    random generator's state is kept beside each flag, so that steps past the end can be undone in it too.
    """

    def __init__(self, lookahead: int, device: torch.device, do_sample: bool) -> None:
        self._lookahead = lookahead
        self._device = device
        self._do_sample = do_sample
        self._pending: deque[tuple[torch.Tensor, Any, Any]] = deque()
        self._state: Any = None
        self._ended = False

    def all_ended(self, live: torch.Tensor) -> bool:
        """Note ``live`` ``[B]`` after a step; whether all had ended ``lookahead`` steps ago."""
        if self._lookahead == 0:
            return not bool(live.any())
        flag, event = live.amax() == 0, None
        if self._device.type == "cuda":
            flag = torch.empty((), dtype=torch.bool, pin_memory=True).copy_(flag, non_blocking=True)
            event = torch.cuda.Event()
            event.record()
        self._pending.append((flag, event, _rng_state(self._device) if self._do_sample else None))
        if len(self._pending) <= self._lookahead:
            return False
        return self._read()

    def _read(self) -> bool:
        """Read the oldest flag that is still out."""
        flag, event, self._state = self._pending.popleft()
        if event is not None:
            event.synchronize()
        self._ended = bool(flag)
        return self._ended

    def steps_past_the_end(self) -> int:
        """After the loop: how many of its last steps came after all had ended. Puts the random generator back by as many."""
        while self._pending and not self._ended:
            self._read()
        over = len(self._pending)
        if over and self._do_sample:
            _set_rng_state(self._device, self._state)
        return over


def _rng_state(device: torch.device) -> Any:
    if device.type == "cuda":
        index = device.index if device.index is not None else torch.cuda.current_device()
        return torch.cuda.default_generators[index].get_offset()
    return torch.get_rng_state()


def _set_rng_state(device: torch.device, state: Any) -> None:
    if device.type == "cuda":
        index = device.index if device.index is not None else torch.cuda.current_device()
        torch.cuda.default_generators[index].set_offset(state)
    else:
        torch.set_rng_state(state)


def finish_reason(ids: Sequence[int], n_prompt: int, criteria: Sequence[Any]) -> str:
    """Why a sequence ended whose ids, those of the prompt included, are ``ids``.

    An end-of-text token counts before the length limit, and both before stop strings and other criteria.
    """
    kinds = {type(criterion).__name__: criterion for criterion in criteria}
    ends = kinds.get("EosTokenCriteria")
    if ends is not None and len(ids) > n_prompt and ids[-1] in ends.eos_token_id.flatten().tolist():
        return "stop"
    limit = kinds.get("MaxLengthCriteria")
    if limit is not None and len(ids) >= limit.max_length:
        return "length"
    strings = kinds.get("StopStringCriteria")
    if strings is not None and bool(strings(torch.tensor([ids]), None).any()):
        return "stop_string"
    return "criteria"
