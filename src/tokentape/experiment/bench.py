"""The bench of a sweep: makes the runs that its visits are, of a model in this process.

What a decode step costs depends on how long the cache is, not on what is in it. So the cache of a long context is not computed
anew for each visit: it is that of a few hundred random tokens, repeated. Their keys and values are those of the model, hence
no denormal numbers, which would be slow. Caches that cannot be made so (recurrent states) are filled by reading the context.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Protocol

import torch
from transformers import GenerationConfig
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

from tokentape.clock import Clock
from tokentape.data.request import Request
from tokentape.data.setting import Setting
from tokentape.experiment.grid import Footprint
from tokentape.experiment.visits import NOTE, Visit
from tokentape.models.cache import cache_bytes, cache_in
from tokentape.models.causal import CausalModel
from tokentape.models.runtime import memory_bytes
from tokentape.recorder.tick import LiveRun
from tokentape.sources.local import LocalSource

__all__ = ["Bench", "LocalBench"]

PATTERN_TOKENS = 256
"""Tokens whose keys and values fill the caches."""


class Bench(Protocol):
    """What a sweep needs: a model that can be asked for any cell."""

    clock: Clock

    @property
    def name(self) -> str: ...

    @property
    def positions(self) -> int | None:
        """The most positions that can be read; None where nothing bounds them."""

    def setting(self) -> Setting: ...

    def ready(self) -> contextlib.AbstractContextManager[Any]:
        """The bench is used inside of this."""

    def footprint(self) -> Footprint: ...

    def memory_bytes(self) -> int | None:
        """Bytes that are free beside the weights; None where the system does not tell."""

    def start(self, visit: Visit, n_steps: int, needs: frozenset[str]) -> LiveRun:
        """The run of a visit: of a decode cell a first step and ``n_steps`` more, of a prefill cell one step."""


class LocalBench:
    """A model in this process as a bench. ``seed`` chooses the random token ids."""

    def __init__(self, source: LocalSource, seed: int = 0) -> None:
        self._source = source
        self._causal: CausalModel = source.causal
        self.clock: Clock = source.clock
        self._random = torch.Generator().manual_seed(seed)
        self._pattern: Any = None
        self._n_pattern = 0

    @property
    def name(self) -> str:
        return self._causal.name

    @property
    def positions(self) -> int | None:
        return self._causal.positions

    def setting(self) -> Setting:
        return self._source.setting()

    @contextlib.contextmanager
    def ready(self) -> Iterator[None]:
        """The model generates greedily and ends at no token of its own; as it was on leaving."""
        model = self._causal.model
        before = model.generation_config
        model.generation_config = GenerationConfig(pad_token_id=0, do_sample=False)
        try:
            yield
        finally:
            model.generation_config = before
            self._pattern = None

    def memory_bytes(self) -> int | None:
        return memory_bytes(self._causal.device)[0]

    def footprint(self) -> Footprint:
        """From the model's own configuration, and from what the cache of two lengths takes."""
        self._fill(self._n_pattern or min(PATTERN_TOKENS, (self.positions or PATTERN_TOKENS) - 1))
        config = self._causal.config.get_text_config(decoder=True)
        n_bytes = self._causal.dtype.itemsize
        hidden = int(getattr(config, "hidden_size", 0) or getattr(config, "n_embd", 0) or 0)
        heads = int(getattr(config, "num_attention_heads", 0) or 0)
        widest = max(4 * hidden, int(getattr(config, "intermediate_size", 0) or 0))
        eager = getattr(self._causal.config, "_attn_implementation", None) == "eager"
        held = cache_bytes(self._pattern) or 0
        grows = _is_known(self._pattern)
        return Footprint(
            kv_bytes=held / self._n_pattern if grows else 0.0,
            state_bytes=0.0 if grows else float(held),
            logits_bytes=4.0 * self._causal.vocab_size,
            hidden_bytes=float(n_bytes * widest),
            score_bytes=float(max(n_bytes, 4) * heads) if eager else float(n_bytes),
        )

    @torch.no_grad()
    def _fill(self, n: int) -> None:
        """Read ``n`` random tokens once, and keep the cache as the pattern of all others."""
        if self._pattern is not None:
            return
        model = self._causal.model
        few = {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(model.forward).parameters else {}
        ids = torch.tensor([self._ids(n)], device=self._causal.device)
        self._pattern, self._n_pattern = cache_in(model(ids, use_cache=True, return_dict=True, **few)), n

    def _ids(self, n: int) -> tuple[int, ...]:
        ids: list[int] = torch.randint(0, self._causal.vocab_size, (n,), generator=self._random).tolist()
        return tuple(ids)

    def start(self, visit: Visit, n_steps: int, needs: frozenset[str]) -> LiveRun:
        """Prepare a visit: random ids, and of a decode cell the cache of its context."""
        cell = visit.cell
        n_new = n_steps + 1 if cell.kind == "decode" else 1
        options: dict[str, Any] = {"max_new_tokens": n_new, "use_cache": True}
        length = cell.context
        if self.positions is not None:  # at their end, the steps are the last ones
            length = max(min(length, self.positions - n_new), 1)
        filled = False
        if cell.kind == "decode":
            cache = self._cache(length - 1, cell.batch)
            filled = cache is not None
            if filled:
                options["past_key_values"] = cache
        prompts = tuple(self._ids(length) for _ in range(cell.batch))
        live = self._source.start(Request(prompts, options), needs)
        noted = {**visit.as_options(), "filled": filled}
        live.run = replace(live.run, options={**live.run.options, NOTE: noted})
        live.spellers = ()
        return live

    def _cache(self, length: int, batch: int) -> DynamicCache | None:
        """A cache of ``length`` positions for ``batch`` sequences; None where it has to be read."""
        if length < 1 or not _is_known(self._pattern):
            return None
        made = DynamicCache()
        made.layers = [_LAYERS[type(layer)](layer, length, batch) for layer in self._pattern.layers]
        made.of_one_run = True  # type: ignore[attr-defined]  # nobody reads it afterwards: the loop may run ahead
        return made


def _is_known(cache: Any) -> bool:
    layers: Sequence[Any] = cache.layers if isinstance(cache, Cache) else ()
    return len(layers) > 0 and all(type(layer) in _LAYERS and layer.is_initialized for layer in layers)


def _repeated(values: torch.Tensor, length: int, batch: int) -> torch.Tensor:
    """``[1, H, S, D]`` as ``[batch, H, length, D]``: the positions one after another, again and again."""
    n = values.shape[-2]
    made = values.new_empty((batch, values.shape[1], length, values.shape[3]))
    for start in range(0, length, n):
        part = made[:, :, start : start + n]
        part.copy_(values[:, :, : part.shape[-2]].expand_as(part))
    return made


def _full(layer: Any, length: int, batch: int) -> DynamicLayer:
    made = DynamicLayer()
    made.lazy_initialization(layer.keys, layer.values)
    made.keys, made.values = (_repeated(values, length, batch) for values in (layer.keys, layer.values))
    return made


def _sliding(layer: Any, length: int, batch: int) -> DynamicSlidingWindowLayer:
    made = DynamicSlidingWindowLayer(layer.sliding_window)
    made.lazy_initialization(layer.keys, layer.values)
    held = min(length, layer.sliding_window - 1)
    made.keys, made.values = (_repeated(values, held, batch) for values in (layer.keys, layer.values))
    made.cumulative_length = length
    return made


_LAYERS: dict[type, Callable[[Any, int, int], Any]] = {DynamicLayer: _full, DynamicSlidingWindowLayer: _sliding}
"""How a layer of a cache is made of the pattern's, by its class."""
