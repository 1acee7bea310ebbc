"""The decode loop: transformers' preparation, our generator of ticks.

``model.generate(..., custom_generate=callable)`` prepares processors, stopping criteria, configuration, cache and inputs, and
hands them to the callable. Ours keeps them in a :class:`Loop`, which ``generate()`` returns; whoever holds it drives it. The
order of operations is that of ``GenerationMixin._sample`` (transformers 5), so that tokens and random numbers are the same.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import torch
from transformers.generation.utils import ALL_CACHE_NAMES, GenerateDecoderOnlyOutput

from tokentape.clock import Clock, CudaClock
from tokentape.control.rules import all_masked, apply_rules, is_foreign, reads_each_token, refuse_all_masked
from tokentape.errors import UnsupportedDecoding
from tokentape.recorder.tick import Tick
from tokentape.sources.stopping import StopFlags, finish_reason

__all__ = ["Loop"]

RECORDED_MODES = ("greedy_search", "sample")


class Loop:
    """One call of ``generate()``, prepared by transformers and driven step by step from here.

    ``needs`` is what the probes keep. ``lookahead`` is by how many steps the host may run ahead of the device before it asks
    whether all sequences have ended; 0 asks at every step, as the CPU may. Steps that were run past the end are ticks without
    tokens, and leave no trace in :meth:`result` nor in the random generator.
    """

    def __init__(
        self,
        model: Any,
        input_ids: torch.Tensor,
        logits_processor: Any,
        stopping_criteria: Any,
        generation_config: Any,
        *,
        clock: Clock,
        needs: frozenset[str],
        lookahead: int | None = None,
        streamer: Any = None,
        **model_kwargs: Any,
    ) -> None:
        _refuse_other_modes(generation_config)
        self.model = model
        self.input_ids = input_ids
        self.config = generation_config
        self._processors = logits_processor
        self._criteria = stopping_criteria
        self._kwargs = model_kwargs
        self._clock = clock
        self._streamer = streamer
        self._needs = needs
        self._ids = input_ids
        self._on_cuda = input_ids.device.type == "cuda"
        self._device_clock = CudaClock(input_ids.device) if self._on_cuda and "device_clock" in needs else None
        self._lookahead = self._allowed_lookahead(lookahead)
        self._lives: list[torch.Tensor] = []
        self._kept: dict[str, list[Any]] = {name: [] for name in self._asked_for()}
        self._over = 0
        self._foreign_rules = any(map(is_foreign, self._processors))
        # finished rows are padded only where an end-of-text token is known, as generate() does
        self._pads = any(hasattr(criterion, "eos_token_id") for criterion in stopping_criteria)
        self._masked: torch.Tensor | None = None
        self.finished = False
        self.attention_mask = model_kwargs.get("attention_mask")
        self.has_embeddings = model_kwargs.get("inputs_embeds") is not None
        offset, _ = self._prompt_lengths()
        self.n_prompt = input_ids.shape[1] + offset

    def _asked_for(self) -> list[str]:
        """Names of the per-step outputs that the caller of ``generate()`` wants back."""
        if not self.config.return_dict_in_generate:
            return []
        flags = {
            "scores": self.config.output_scores,
            "logits": self.config.output_logits,
            "attentions": self.config.output_attentions,
            "hidden_states": self.config.output_hidden_states,
        }
        return [name for name, wanted in flags.items() if wanted]

    def _allowed_lookahead(self, asked: int | None) -> int:
        """No running ahead where something reads the tokens at each step, or where the cache outlives the call."""
        cache = self._kwargs.get("past_key_values")
        theirs = getattr(cache, "_is_user_defined", False) and not getattr(cache, "of_one_run", False)
        outlives = self.config.return_dict_in_generate or theirs
        foreign = any(map(is_foreign, self._criteria)) or reads_each_token(self._processors)
        if outlives or foreign or self._streamer is not None:
            return 0
        if asked is not None:
            return asked
        return 2 if self._on_cuda else 0

    # -- the walk of one token -----------------------------------------------------------------------------------------

    @torch.no_grad()
    def ticks(self) -> Generator[Tick]:
        """Prefill, then one step at a time until every sequence has ended."""
        model, clock, kwargs = self.model, self._clock, self._kwargs
        live = torch.ones(self._ids.shape[0], dtype=torch.long, device=self._ids.device)
        flags = StopFlags(self._lookahead, self._ids.device, self.config.do_sample)
        tick = self._new_tick("prefill")
        began = clock.mark()
        outputs = model._prefill(self._ids, self.config, kwargs, is_first_iteration=True)
        tick.forward = (began, clock.mark())
        with model._optimize_model_for_decode():
            forward = self._forward_call()
            while True:
                kwargs = model._update_model_kwargs_for_generation(outputs, kwargs, is_encoder_decoder=False)
                next_live = self._choose(tick, outputs, live)
                outputs = None  # its logits may be large, and the next forward needs the memory
                stop = flags.all_ended(next_live) or self._at_max_length()
                tick.last = stop
                self._finish_tick(tick, kwargs)
                yield tick
                if stop:
                    break
                live = next_live
                tick = self._new_tick("decode")
                inputs = model.prepare_inputs_for_generation(
                    self._ids, next_sequence_length=1 if kwargs["use_cache"] else None, **kwargs
                )
                if (read := inputs.get("input_ids")) is not None:
                    tick.n_in = read.numel()  # some families (OpenAI GPT) have no cache, and read everything again
                began = clock.mark()
                outputs = forward(**inputs, return_dict=True)
                tick.forward = (began, clock.mark())
        self._over = flags.steps_past_the_end()
        self._kwargs = kwargs
        if self._masked is not None and self._masked:
            refuse_all_masked(self._processors)
        self.finished = True
        if self._streamer is not None:
            self._streamer.end()

    def _new_tick(self, kind: str) -> Tick:
        n_rows, length = self._ids.shape
        if kind == "prefill":
            self._offset, n_read = self._prompt_lengths()
        else:
            n_read = 1 if self._kwargs["use_cache"] else length + self._offset
        now = self._clock.mark()
        tick = Tick(kind, n_rows, now, now, context=length + self._offset, n_in=n_rows * n_read)
        if self._device_clock is not None:
            tick.device = (self._device_clock.mark(), None)
        return tick

    def _prompt_lengths(self) -> tuple[int, int]:
        """Positions beyond those of ``input_ids`` (embeddings, an earlier cache), and positions that the prefill reads."""
        embeds, mask, cache = (
            self._kwargs.get(name) for name in ("inputs_embeds", "attention_mask", "past_key_values")
        )
        whole = self._ids.shape[1]
        if embeds is not None:
            whole = embeds.shape[1]  # ids beside them are for the processors; the model reads the embeddings
        elif mask is not None:
            whole = max(whole, mask.shape[1])
        else:
            # generate() drops a mask of ones and keeps its length; with a cache it covers what was read before
            whole = max(whole, getattr(self.config, "_mask_length", 0))
        cached = cache.get_seq_length() if cache is not None and hasattr(cache, "get_seq_length") else 0
        return whole - self._ids.shape[1], whole - int(cached)

    def _forward_call(self) -> Any:
        if self.model._valid_auto_compile_criteria(self._kwargs, self.config):
            return self.model.get_compiled_call(self.config.compile_config)
        return self.model.__call__

    def _choose(self, tick: Tick, outputs: Any, live: torch.Tensor) -> torch.Tensor:
        """Rules, choice, append; fills the tick and returns which rows go on."""
        # a copy, so that the prefill's logits are not held; always fp32, as the rules expect
        logits = outputs.logits[:, -1].to(copy=True, dtype=torch.float32, device=self._ids.device)
        scores = given = logits
        if self._processors:
            # a processor that writes into its argument would destroy the distribution before the rules
            given = logits.clone() if self._foreign_rules else logits
            scores, tick.forced = apply_rules(self._processors, self._ids, given)
            self._watch_masks(all_masked(scores, live))
        if self.config.do_sample:
            chosen = torch.multinomial(torch.softmax(scores, dim=-1), num_samples=1).squeeze(1)
        else:
            chosen = torch.argmax(scores, dim=-1)
        tick.padded = self._pads
        if self._pads:
            pad = self.config._pad_token_tensor.to(chosen.device)
            chosen = chosen * live + pad * (1 - live)
        tick.ids = chosen
        if live.shape[0] > 1 or self._lookahead:
            tick.live = live
            self._lives.append(live)
        if "logits" in self._needs:
            tick.logits, tick.scores = logits, scores if self._processors else None
        # generate() returns as its logits what the processors were given, written into or not
        self._keep_outputs(outputs, given, scores)
        self._ids = torch.cat([self._ids, chosen[:, None]], dim=-1)
        if self._streamer is not None:
            self._streamer.put(chosen.cpu())
        ended: torch.Tensor = self._criteria(self._ids, tuple(self._kept["scores"]) if "scores" in self._kept else None)
        return live & ~ended

    def _watch_masks(self, masked: torch.Tensor) -> None:
        """Refuse a step at which the rules left nothing: at once on the CPU, after the run where asking would mean waiting."""
        if self._on_cuda:
            self._masked = masked if self._masked is None else self._masked | masked
        elif masked:
            refuse_all_masked(self._processors)

    def _keep_outputs(self, outputs: Any, logits: torch.Tensor, scores: torch.Tensor) -> None:
        found = {"scores": scores, "logits": logits}
        for name, steps in self._kept.items():
            steps.append(found[name] if name in found else getattr(outputs, name))

    def _at_max_length(self) -> bool:
        longest = self._criteria.max_length
        return longest is not None and self._ids.shape[1] >= longest

    def _finish_tick(self, tick: Tick, kwargs: dict[str, Any]) -> None:
        if self._device_clock is not None and tick.device is not None:
            tick.device = (tick.device[0], self._device_clock.mark())
        if "cache" in self._needs:
            tick.cache = next((kwargs[name] for name in ALL_CACHE_NAMES if kwargs.get(name) is not None), None)
        tick.end = self._clock.mark()

    # -- afterwards ----------------------------------------------------------------------------------------------------

    def result(self) -> Any:
        """What ``generate()`` returns for this call: ids ``[B, T]``, or the output object with what was asked for."""
        sequences = self._ids[:, : self._ids.shape[1] - self._over]
        if not self.config.return_dict_in_generate:
            return sequences
        cache = next((self._kwargs[name] for name in ALL_CACHE_NAMES if name in self._kwargs), None)
        kept = {name: tuple(steps) for name, steps in self._kept.items()}
        return GenerateDecoderOnlyOutput(sequences=sequences, past_key_values=cache, **kept)  # type: ignore[arg-type]

    def finish_reasons(self) -> list[str | None]:
        """Why each sequence ended, one of :data:`~tokentape.data.request.FINISH_REASONS`; None for all if it did not."""
        n_rows, n_prompt = self.input_ids.shape
        if not self.finished:
            return [None] * n_rows
        n_steps = self._ids.shape[1] - n_prompt - self._over
        counts = [n_steps] * n_rows
        if self._lives:
            counts = torch.stack(self._lives[:n_steps]).sum(0).tolist()
        rows = self._ids.tolist()
        return [
            finish_reason(row[: n_prompt + count], n_prompt, self._criteria)
            for row, count in zip(rows, counts, strict=True)
        ]


def _refuse_other_modes(generation_config: Any) -> None:
    mode = generation_config.get_generation_mode()
    if mode in RECORDED_MODES:
        return
    options = {
        "assisted_generation": "assistant_model, prompt_lookup_num_tokens",
        "contrastive_search": "penalty_alpha",
        "dola_generation": "dola_layers",
    }
    name = str(getattr(mode, "value", mode))
    raise UnsupportedDecoding(
        f"{name.replace('_', ' ')} is not recorded",
        why="a step of it does not yield tokens that stay; only greedy search and sampling do so far",
        fix=f"leave out {options.get(name, 'num_beams')}, or call generate() outside the recording",
    )
