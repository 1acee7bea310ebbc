"""The decode loop: transformers' preparation, our generator of ticks.

``model.generate(..., custom_generate=callable)`` prepares processors, stopping criteria, configuration, cache and inputs, and
hands them to the callable. Ours keeps them in a :class:`Loop`, which ``generate()`` returns; whoever holds it drives it. The
order of operations is that of ``GenerationMixin._sample`` (transformers 5), so that tokens and random numbers are the same.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator
from dataclasses import replace
from typing import Any

import torch
from transformers.generation.utils import ALL_CACHE_NAMES, GenerateDecoderOnlyOutput

from tokentape.clock import Clock, CudaClock
from tokentape.control.rule import Begins, Concludes, Ends, Steers, Vetoes
from tokentape.control.rules import is_foreign, lets_run_ahead, reads_each_token
from tokentape.data.control import Decision, Outcome, RuleHead
from tokentape.errors import UnsupportedDecoding
from tokentape.recorder.tick import Tick
from tokentape.sources.choosing import Choice, Chooser
from tokentape.sources.forcing import ForcedRuns
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
        self._criteria = stopping_criteria
        self._kwargs = model_kwargs
        self._clock = clock
        self._streamer = streamer
        self._needs = needs
        self._ids = input_ids
        self._chooser = Chooser(
            logits_processor, do_sample=generation_config.do_sample, clock=clock, measured="logits" in needs
        )
        self._on_cuda = input_ids.device.type == "cuda"
        self._device_clock = CudaClock(input_ids.device) if self._on_cuda and "device_clock" in needs else None
        self._lookahead = self._allowed_lookahead(lookahead)
        self._lives: list[torch.Tensor] = []
        self._kept: dict[str, list[Any]] = {name: [] for name in self._asked_for()}
        self._over = 0
        # finished rows are padded only where an end-of-text token is known, as generate() does
        self._pads = bool(self._ends_of_text())
        self._ended_by: dict[int, str] = {}
        self.finished = False
        self.attention_mask = model_kwargs.get("attention_mask")
        self.has_embeddings = model_kwargs.get("inputs_embeds") is not None
        offset, _ = self._prompt_lengths()
        self.n_prompt = input_ids.shape[1] + offset
        forcing = self._forcing_rule()
        self._forced = ForcedRuns(forcing, stopping_criteria)
        self._forced_number = 0 if forcing is None else self._chooser.rules.index(forcing)
        self.withholds = any(isinstance(rule, Vetoes) for rule in self._chooser.rules)
        self._enders = [rule for rule in self._chooser.rules if isinstance(rule, Ends)]

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
        foreign = any(map(is_foreign, self._criteria)) or reads_each_token(self._chooser.rules)
        if outlives or foreign or self._streamer is not None:
            return 0
        if asked is not None:
            return asked
        return 2 if self._on_cuda else 0

    # -- the walk of one token -----------------------------------------------------------------------------------------

    @torch.no_grad()
    def ticks(self) -> Generator[Tick]:
        """Prefill, then one step at a time until every sequence has ended."""
        with contextlib.ExitStack() as stack:
            for rule in self._enders:
                rule.eos = self._ends_of_text()
            for rule in self._chooser.rules:
                if isinstance(rule, Begins):
                    rule.begin(self.input_ids, self.attention_mask)
                if isinstance(rule, Steers):
                    stack.enter_context(rule.attached(self.model))
            yield from self._ticks()
        self._chooser.refuse_what_was_masked()
        self.finished = True
        if self._streamer is not None:
            self._streamer.end()

    def _ends_of_text(self) -> frozenset[int]:
        """The ids after which this run stops."""
        criteria = [one for one in self._criteria if hasattr(one, "eos_token_id")]
        return frozenset(token_id for one in criteria for token_id in one.eos_token_id.flatten().tolist())

    def _ticks(self) -> Generator[Tick]:
        model, clock = self.model, self._clock
        live = torch.ones(self._ids.shape[0], dtype=torch.long, device=self._ids.device)
        flags = StopFlags(self._lookahead, self._ids.device, self.config.do_sample)
        self._put(*self._forced.before_the_first(self._ids))
        tick = self._new_tick("prefill")
        began = clock.mark()
        with self._keeping_logits(1 + len(self._forced.waiting)):
            outputs = model._prefill(self._ids, self.config, self._kwargs, is_first_iteration=True)
        tick.forward = (began, clock.mark())
        with model._optimize_model_for_decode():
            forward = self._forward_call()
            while True:
                self._kwargs = model._update_model_kwargs_for_generation(
                    outputs, self._kwargs, is_encoder_decoder=False
                )
                next_live = self._choose(tick, outputs, live)
                outputs = None  # its logits may be large, and the next forward needs the memory
                stop = flags.all_ended(next_live) or self._at_max_length()
                if not stop and self._forced.possible:
                    stop = self._run_ahead(tick)
                tick.last = stop
                self._finish_tick(tick)
                yield tick
                if stop:
                    break
                live = next_live
                tick = self._new_tick("decode")
                inputs = self._next_inputs()
                if (read := inputs.get("input_ids")) is not None:
                    tick.n_in = read.numel()  # some families (OpenAI GPT) have no cache, and read everything again
                began = clock.mark()
                outputs = forward(**inputs, return_dict=True)
                tick.forward = (began, clock.mark())
        self._over = flags.steps_past_the_end()

    def _next_inputs(self) -> dict[str, Any]:
        """What the next forward pass reads: the token chosen last, and what was forced after it."""
        n_read = 1 + len(self._forced.waiting)
        inputs: dict[str, Any] = self.model.prepare_inputs_for_generation(
            self._ids, next_sequence_length=n_read if self._kwargs["use_cache"] else None, **self._kwargs
        )
        if "logits_to_keep" in inputs:
            inputs["logits_to_keep"] = n_read
        return inputs

    @contextlib.contextmanager
    def _keeping_logits(self, n: int) -> Iterator[None]:
        """Let the prefill give the logits of its last ``n`` positions, where the model gives those of the last one alone."""
        before = self._kwargs.get("logits_to_keep")
        if before is not None and n > 1:
            self._kwargs["logits_to_keep"] = n
        yield
        if before is not None:
            self._kwargs["logits_to_keep"] = before

    def _forcing_rule(self) -> Any | None:
        """The rule whose forced tokens are taken without asking the model; None where each token needs a step of its own."""
        alone = self.input_ids.shape[0] == 1 and not self.has_embeddings and not self._kept
        watched = self._streamer is not None or any(map(is_foreign, self._criteria))
        # a recurrent state is advanced by one token at a time, and so is a window, which makes room for what is read together;
        # of a prompt that is read in chunks the last alone has logits
        windowed = getattr(self._kwargs.get("past_key_values"), "dropped", None) is not None
        in_parts = getattr(self.model, "_is_stateful", False) or windowed or self.config.prefill_chunk_size is not None
        if not alone or watched or in_parts:
            return None
        return lets_run_ahead(self._chooser.rules)

    def _put(self, ids: torch.Tensor, n_new: int) -> None:
        """Take the ids with ``n_new`` forced ones at their end; the masks grow with them."""
        self._ids = ids
        if n_new:
            self._kwargs = self.model._update_model_kwargs_for_generation(
                {}, self._kwargs, is_encoder_decoder=False, num_new_tokens=n_new
            )

    def _run_ahead(self, tick: Tick) -> bool:
        """Take what must follow the token just chosen; whether the sequence ends with it, so that no pass has to read it."""
        ids, n_new, ended = self._forced.after(self._ids)
        self._put(ids, n_new)
        if ended:
            tick.trailing, tick.given_by = self._forced.take(), self._forced_number
            if self._forced.complete:
                self._ended_by[0] = "grammar"
        return ended

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
        self._take_given(tick, outputs)
        choice = self._chooser(self._ids, logits, live)
        chosen, tick.forced, tick.rules, tick.decisions = choice.ids, choice.forced, choice.marks, choice.decisions
        if choice.cornered is not None:
            live = live * ~choice.cornered  # there is no token at this step
            self._note_ended(choice.cornered, "cornered")
        tick.padded = self._pads or choice.cornered is not None
        if self._pads:
            pad = self.config._pad_token_tensor.to(chosen.device)
            chosen = chosen * live + pad * (1 - live)
        tick.ids = chosen
        if live.shape[0] > 1 or self._lookahead or choice.cornered is not None:
            tick.live = live
            self._lives.append(live)
        if "logits" in self._needs:
            tick.logits, tick.scores = choice.logits, choice.scores if self._chooser.rules else None
            tick.stages, tick.wanted = choice.stages, choice.wanted
        # generate() returns as its logits what the processors were given, written into or not
        self._keep_outputs(outputs, choice.given, choice.scores)
        self._ids = torch.cat([self._ids, chosen[:, None]], dim=-1)
        if self._streamer is not None:
            self._streamer.put(chosen.cpu())
        ended: torch.Tensor = self._criteria(self._ids, tuple(self._kept["scores"]) if "scores" in self._kept else None)
        return self._going_on(tick, choice, live, ended) if self._chooser.has_own else live & ~ended

    def _going_on(self, tick: Tick, choice: Choice, live: torch.Tensor, ended: torch.Tensor) -> torch.Tensor:
        """``[B]``: the rows that neither a criterion nor a rule ends; guards judge what they held back of the others."""
        goes_on = live & ~(ended | self._ended_by_rules(choice.ended, live, ended))
        if self.withholds:
            over = range(len(goes_on)) if self._at_max_length() else (goes_on == 0).nonzero().flatten().tolist()
            tick.decisions = [*tick.decisions, *self._chooser.closed(over)]
        return goes_on

    def _take_given(self, tick: Tick, outputs: Any) -> None:
        """The tokens that were forced before this step's own, and the logits that its forward pass has for them."""
        tick.given, tick.given_by = self._forced.take(), self._forced_number
        if tick.given and "logits" in self._needs:
            rows = outputs.logits[0, -1 - len(tick.given) : -1]
            tick.given_logits = rows.to(copy=True, dtype=torch.float32, device=self._ids.device)

    def _ended_by_rules(self, by_guard: torch.Tensor | None, live: torch.Tensor, ended: torch.Tensor) -> torch.Tensor:
        """``[B]``: the sequences that a rule ends with the token just chosen, by a guard's decision or a grammar's last word."""
        stopped = torch.zeros_like(ended) if by_guard is None else by_guard
        self._note_ended(stopped & live.bool(), "guard")
        for rule in self._enders:
            complete = torch.tensor(rule.ended(self._ids), device=ended.device)
            self._note_ended(complete & live.bool() & ~ended, "grammar")
            stopped = stopped | complete
        return stopped

    def _note_ended(self, rows: torch.Tensor, reason: str) -> None:
        for row in rows.nonzero().flatten().tolist():
            self._ended_by.setdefault(row, reason)

    def _keep_outputs(self, outputs: Any, logits: torch.Tensor, scores: torch.Tensor) -> None:
        found = {"scores": scores, "logits": logits}
        for name, steps in self._kept.items():
            steps.append(found[name] if name in found else getattr(outputs, name))

    def _at_max_length(self) -> bool:
        longest = self._criteria.max_length
        return longest is not None and self._ids.shape[1] >= longest

    def _finish_tick(self, tick: Tick) -> None:
        if self._device_clock is not None and tick.device is not None:
            tick.device = (tick.device[0], self._device_clock.mark())
        cache = next((self._kwargs[name] for name in ALL_CACHE_NAMES if self._kwargs.get(name) is not None), None)
        tick.dropped = getattr(cache, "dropped", None)
        if "cache" in self._needs:
            tick.cache = cache
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
            self._ended_by.get(place) or finish_reason(row[: n_prompt + count], n_prompt, self._criteria)
            for place, (row, count) in enumerate(zip(rows, counts, strict=True))
        ]

    # -- what the rules were, and how they ended -----------------------------------------------------------------------

    def rule_heads(self) -> tuple[RuleHead, ...]:
        """The rules in the order in which they are applied, where their effects are measured."""
        return self._chooser.heads()

    def last_decisions(self) -> list[tuple[int, Decision]]:
        """Of a run that was cut off: what guards decide about what they held back."""
        return self._chooser.closed(range(self.input_ids.shape[0]))

    def outcomes(self) -> list[list[Outcome]]:
        """For each sequence how the constraints on it ended."""
        found: list[list[Outcome]] = [[] for _ in range(self.input_ids.shape[0])]
        for number, rule in enumerate(self._chooser.rules):
            if isinstance(rule, Concludes):
                for row, one in enumerate(rule.outcomes(self._ids)):
                    found[row].append(replace(one, rule=number))
        return found


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
