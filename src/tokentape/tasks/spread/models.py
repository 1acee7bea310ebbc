"""The model that each worker loads: what it is called, and how it is to be loaded there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokentape.sources.local import LocalSource

__all__ = ["ModelHere"]


@dataclass(frozen=True, slots=True)
class ModelHere:
    """A model by its name; ``options`` are those of :func:`tokentape.local`. Every node finds it under that name."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    bos: bool | None = None

    @property
    def device(self) -> str:
        """The device as it was asked for."""
        return str(self.options.get("device") or "auto")

    def source(self, threads: int) -> LocalSource:
        """The model, loaded in this process, which then has so many threads of torch."""
        from tokentape.models.runtime import require_torch, require_transformers

        require_transformers()
        from tokentape.sources.local import local

        require_torch().set_num_threads(threads)
        return local(self.name, bos=self.bos, **self.options)
