"""The most bytes of tensors that live at once while something runs: exact, and independent of the allocator and the system."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveTensors(TorchDispatchMode):
    """Counts each storage from the operation that makes it until it dies; ``roots`` live from the start."""

    def __init__(self, roots: Iterable[torch.Tensor]) -> None:
        super().__init__()
        self._live: dict[int, int] = {}
        self.now_bytes = 0
        self.peak_bytes = 0
        for tensor in roots:
            self._see(tensor)

    def _see(self, tensor: Any) -> None:
        if not isinstance(tensor, torch.Tensor):
            return
        storage = tensor.untyped_storage()
        if storage._cdata in self._live:
            return
        self._live[storage._cdata] = storage.nbytes()
        self.now_bytes += storage.nbytes()
        self.peak_bytes = max(self.peak_bytes, self.now_bytes)
        weakref.finalize(storage, self._gone, storage._cdata)

    def _gone(self, key: int) -> None:
        self.now_bytes -= self._live.pop(key)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            self._see(leaf)
        return out
