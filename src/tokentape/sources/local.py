"""A model in this process as a source."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Generator, Sequence
from typing import Any

import torch

from tokentape.clock import Clock, HostClock
from tokentape.data.request import Request, Run, TraceHead
from tokentape.data.setting import Setting
from tokentape.errors import PromptError, TokentapeError, UsageError
from tokentape.models.architecture import ignores_padding
from tokentape.models.causal import CausalModel, load
from tokentape.models.facts import setting_of
from tokentape.models.failures import Attempt, memory_told
from tokentape.models.padding import left_padded, pad_id_of
from tokentape.models.pieces import spelling_of
from tokentape.models.window import WindowCache, window_cache, windowed
from tokentape.models.window_positions import reason_against
from tokentape.recorder.tick import LiveRun, Tick
from tokentape.sources.binding import bind_rules
from tokentape.sources.device import aside_of, fence_of
from tokentape.sources.loop import Loop
from tokentape.sources.option_checks import check_options, refuse_unsupported
from tokentape.sources.options import for_the_record, prepare_stop_strings

__all__ = ["LocalSource", "local"]


DEFAULT_NEW_TOKENS = 20
"""What ``generate()`` takes where no length is given, with a warning."""


class LocalSource:
    """Any Hugging Face causal model, driven step by step.

    ``bos`` True puts the beginning-of-text id before each prompt that lacks it. ``lookahead`` is passed to
    :class:`~tokentape.sources.loop.Loop`.
    """

    def __init__(
        self, causal: CausalModel, *, bos: bool | None = None, clock: Clock | None = None, lookahead: int | None = None
    ) -> None:
        self.causal = causal
        self.clock: Clock = clock or HostClock()
        self.bos = bos
        self._lookahead = lookahead
        self._setting: Setting | None = None

    @property
    def name(self) -> str:
        return self.causal.name

    @property
    def samples_by_default(self) -> bool:
        """Whether the model's own generation configuration asks for sampling."""
        return bool(self.causal.model.generation_config.do_sample)

    @property
    def vocab_size(self) -> int:
        """Rows of the model's output, ids below which are valid."""
        return self.causal.vocab_size

    def encode(self, text: str | Sequence[int], *, bos: bool | None = None) -> list[int]:
        """Ids of a prompt, as the model's tokenizer gives them, or the ids given, checked."""
        return self.causal.encode(text, bos=self.bos if bos is None else bos)

    def setting(self) -> Setting:
        """Model, weights, engine, libraries, machine."""
        if self._setting is None:
            self._setting = setting_of(self.causal)
        return self._setting

    def start(self, request: Request, needs: frozenset[str]) -> LiveRun:
        """Prepare a batch by way of ``generate()``; its loop runs when the ticks are drawn."""
        options = dict(request.options)
        refuse_unsupported(options)
        check_options(options, self.causal.model.generation_config)
        rows = [self.encode(prompt) for prompt in request.prompts]
        if not rows:
            raise PromptError(
                "no prompt was given",
                why="the model needs something to continue",
                fix="give a text, a list of texts, or token ids",
            )
        cache = self._take_window(options)
        self._check_lengths(rows, options, cache)
        if request.seed is not None:
            torch.manual_seed(request.seed)
        start = self.clock.mark()
        options, stop_strings = prepare_stop_strings(
            options, self.causal.tokenizer, self.causal.model.generation_config
        )
        loop = self._prepare(rows, bind_rules(options, self.causal), needs)
        prepared = self.clock.mark()
        heads = tuple(self._heads(request.prompts, rows, loop.input_ids.shape[0] // len(rows)))
        return LiveRun(
            run=Run(
                traces=heads,
                options=for_the_record(loop.config, stop_strings, options) | _window_for_the_record(cache),
                seed=request.seed,
                rules=loop.rule_heads(),
            ),
            start=start,
            ticks=self._ticks(loop, cache),
            finish_reasons=loop.finish_reasons,
            spellers=[spelling_of(self.causal.tokenizer, head.prompt_ids) for head in heads],
            prepared=prepared,
            fence=fence_of(self.causal.device),
            aside=aside_of(self.causal.device),
            outcomes=loop.outcomes,
            last_decisions=loop.last_decisions,
            withheld=loop.withholds,
        )

    def _take_window(self, options: dict[str, Any]) -> WindowCache | None:
        """Put the cache of the window that the options ask for in the window's place; None where they ask for none."""
        window, sinks = options.pop("window", None), options.pop("sinks", None)
        if window is None and sinks is None:
            return None
        if options.get("past_key_values") is not None or options.get("use_cache") is False:
            raise UsageError(
                "a window without its own cache",
                why="a window is what a cache keeps, and past_key_values or use_cache asks for another one, or none",
                fix="leave out past_key_values and use_cache, or the window",
            )
        cache = options["past_key_values"] = window_cache(self.causal, window, sinks)
        options["use_cache"] = True
        return cache

    def _check_lengths(self, rows: Sequence[Sequence[int]], options: dict[str, Any], cache: WindowCache | None) -> None:
        """Refuse what does not fit the model's positions; where nothing bounds the length, bound it as ``generate()`` would."""
        longest = max(len(row) for row in rows)
        config = options.get("generation_config") or self.causal.model.generation_config
        wanted = options.get("max_new_tokens") or config.max_new_tokens
        limit = options.get("max_length") or config.max_length
        if wanted is None and limit is None:
            wanted = options["max_new_tokens"] = DEFAULT_NEW_TOKENS
        if cache is None:
            advice = (
                "" if reason_against(self.causal.config) else "; or --window N --sinks K, to read on with a part of it"
            )
            n_new = max(int(limit - longest if wanted is None else wanted), 1)
            self.causal.check_length(longest, n_new, instead=advice)
        elif longest > cache.capacity:
            options.setdefault("prefill_chunk_size", cache.chunk)

    def _prepare(self, rows: Sequence[Sequence[int]], options: dict[str, Any], needs: frozenset[str]) -> Loop:
        model = self.causal.model
        input_ids, mask = left_padded(rows, pad_id_of(self.causal))
        if mask.all():
            mask = torch.ones_like(input_ids)
        elif ignores_padding(model.config):
            raise UsageError(
                f"{type(model).__name__} cannot read a batch of prompts of unequal length",
                why="this family ignores the attention mask, so it would read the padding as text",
                fix="record the prompts one by one, or give prompts of equal length",
            )
        make = functools.partial(
            Loop, clock=self.clock, needs=needs, lookahead=self._lookahead, streamer=options.get("streamer")
        )
        try:
            return model.generate(  # type: ignore[no-any-return]
                input_ids.to(model.device),
                attention_mask=mask.to(model.device),
                custom_generate=lambda model, input_ids, **prepared: make(model, input_ids, **_unwarned(prepared)),
                **options,
            )
        except TokentapeError:
            raise
        except (ValueError, TypeError) as error:
            raise UsageError(
                "generate() refuses these options",
                why=" ".join(str(error).split()),
                fix="see the names and ranges in transformers' GenerationConfig",
            ) from error

    def _heads(self, prompts: Sequence[Any], rows: Sequence[Sequence[int]], n_each: int) -> list[TraceHead]:
        heads: list[TraceHead] = []
        for prompt, row in zip(prompts, rows, strict=True):
            text = prompt if isinstance(prompt, str) else self._decode(row)
            heads += [TraceHead(len(heads) + i, len(row), tuple(row), text) for i in range(n_each)]
        return heads

    def _decode(self, row: Sequence[int]) -> str | None:
        tokenizer = self.causal.tokenizer
        return None if tokenizer is None else str(tokenizer.decode(row))

    def _ticks(self, loop: Loop, cache: WindowCache | None) -> Generator[Tick]:
        seen = contextlib.nullcontext() if cache is None else windowed(self.causal.model, cache)
        with memory_told(Attempt(self.name, doing="generating", device=self.causal.device)), seen:
            yield from loop.ticks()


def _unwarned(prepared: dict[str, Any]) -> dict[str, Any]:
    """Without the reminder that a text is longer than the model's positions, which was refused, or is read through a window."""
    for criterion in prepared["stopping_criteria"]:
        if hasattr(criterion, "max_position_embeddings"):
            criterion.max_position_embeddings = None
    return prepared


def _window_for_the_record(cache: WindowCache | None) -> dict[str, int]:
    return {} if cache is None else {"window": cache.window, "sinks": cache.sinks}


def local(
    name: str,
    *,
    dtype: str = "auto",
    device: str = "auto",
    revision: str | None = None,
    attn_implementation: str | None = None,
    trust_remote_code: bool = False,
    random_weights: int | None = None,
    bos: bool | None = None,
    tp_plan: str | None = None,
) -> LocalSource:
    """A Hugging Face causal model as a source.

    ``name`` is a hub id, ``id@revision``, a local folder, ``"demo"``, or a bare ``config.json`` together with
    ``random_weights``, a seed. ``tp_plan`` ``"auto"`` is this rank's part of the model, in a process that ``torchrun`` started: all
    ranks record the same, and what is random is theirs to agree on.

    Raises :class:`~tokentape.errors.ModelError`, :class:`~tokentape.errors.Unreachable`, :class:`~tokentape.errors.MissingExtra` or
    :class:`~tokentape.errors.UsageError`.
    """
    causal = load(
        name,
        dtype=dtype,
        device=device,
        revision=revision,
        attn_implementation=attn_implementation,
        trust_remote_code=trust_remote_code,
        random_weights=random_weights,
        tp_plan=tp_plan,
    )
    return LocalSource(causal, bos=bos)
