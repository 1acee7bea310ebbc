"""``with recording(model): model.generate(...)``: someone else's program, recorded."""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tokentape.clock import HostClock
from tokentape.data.request import Run, TraceHead
from tokentape.data.tape import Tape
from tokentape.data.trace import Trace
from tokentape.errors import RecordingError, UsageError
from tokentape.models.architecture import ignores_padding
from tokentape.models.facts import setting_of
from tokentape.models.pieces import spelling_of
from tokentape.models.runtime import quiet
from tokentape.recorder.probes import tier
from tokentape.recorder.progress import Progress
from tokentape.recorder.recorder import Recorder
from tokentape.recorder.tick import LiveRun, Probe
from tokentape.sources.device import aside_of, fence_of
from tokentape.sources.loop import Loop
from tokentape.sources.option_checks import refuse_unsupported
from tokentape.sources.options import for_the_record, prepare_stop_strings

__all__ = ["Recording", "recording"]


class Recording:
    """The tape of a program under way; after the ``with`` block everything that a :class:`Tape` has can be asked of it."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    @property
    def tape(self) -> Tape:
        """The tape, once the ``with`` block has ended."""
        return self._recorder.tape

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # copy, pickle and notebooks ask for such names, and expect to hear that there is none
            raise AttributeError(name)
        return getattr(self.tape, name)

    def __len__(self) -> int:
        return len(self.tape)

    def __iter__(self) -> Iterator[Trace]:
        return iter(self.tape)

    def __repr__(self) -> str:
        try:
            return repr(self.tape)
        except RecordingError:
            return "<Recording under way>"


@contextmanager
def recording(
    model: Any,
    path: str | Path | None = None,
    *,
    tokenizer: Any = None,
    probe: str | Sequence[Probe] = "distribution",
    candidates: int = 5,
    overwrite: bool = False,
    text: bool = True,
    observer: Callable[[Progress], None] | None = None,
) -> Iterator[Recording]:
    """Record every ``model.generate(...)`` inside the block, also those that a ``pipeline(...)`` makes.

    ``model`` is a Hugging Face causal model or a pipeline that has one. What ``generate()`` returns is what it would have
    returned; the model is left as it was. ``tokenizer`` gives the bytes of the tokens; without it the one given to
    ``generate()``, the pipeline's, or one found locally under the model's name is used, else the tape has ids alone. The other
    arguments are those of :func:`tokentape.record`. Beam search and assisted decoding raise
    :class:`~tokentape.errors.UnsupportedDecoding` before they begin.
    """
    if not hasattr(model, "generate") and hasattr(model, "model"):
        model, tokenizer = model.model, tokenizer or getattr(model, "tokenizer", None)
    model = getattr(model, "_orig_mod", model)  # generate() of what torch.compile wraps is the wrapped model's own
    _refuse_what_cannot_be_recorded(model)
    clock = HostClock()
    tokenizer = tokenizer or _tokenizer_found_locally(model)
    probes = tier(probe, candidates) if isinstance(probe, str) else list(probe)
    recorder = Recorder(
        path, setting_of(model, tokenizer), probes, clock, overwrite=overwrite, text=text, observer=observer
    )
    with recorder, _Attached(model, recorder, clock, tokenizer):
        yield Recording(recorder)


def _tokenizer_found_locally(model: Any) -> Any | None:
    """The tokenizer in the folder, or in the hub's cache, that the model was loaded from; None where there is none."""
    name = getattr(model.config, "_name_or_path", "")
    if not name:
        return None
    from transformers import AutoTokenizer

    try:
        with quiet():
            return AutoTokenizer.from_pretrained(name, local_files_only=True)
    except Exception:  # a help that was not asked for: whatever is wrong with it, the tape has ids alone
        return None


def _refuse_what_cannot_be_recorded(model: Any) -> None:
    config = getattr(model, "config", None)
    if config is None or not hasattr(model, "prepare_inputs_for_generation"):
        raise UsageError(
            f"{type(model).__name__} is no model that generates",
            why="recording needs a Hugging Face model with generate(), or a pipeline around one",
            fix="recording(model) with the model that generate() is called on",
        )
    if config.is_encoder_decoder:
        raise UsageError(
            f"{type(model).__name__} is an encoder-decoder model",
            why="only causal (decoder-only) models are recorded so far",
            fix="use a causal model",
        )
    if "generate" in vars(model):
        raise UsageError(
            f"generate() of this {type(model).__name__} has been replaced already",
            why="it is being recorded, or something else wraps it",
            fix="leave the other recording first",
        )


class _Attached:
    """Stands in for ``model.generate`` while a recording lasts; entered and left with it."""

    def __init__(self, model: Any, recorder: Recorder, clock: HostClock, tokenizer: Any) -> None:
        self._model = model
        self._plain = model.generate
        self._signature = inspect.signature(model.generate)
        self._recorder = recorder
        self._clock = clock
        self._tokenizer = tokenizer
        self._one_at_a_time = threading.RLock()
        self._inside = False
        self._changed = threading.Condition()
        self._n_calls = 0  # that have come and not gone, from whatever thread
        self._n_open = 0  # sequences of the run that is being recorded
        self._left = False

    def __enter__(self) -> None:
        self._model.generate = self._own = self._stand_in()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        """Give the model its ``generate`` back, and wait for calls that other threads have under way.

        A streamer says that it is over before ``generate()`` returns in its thread. Where the block failed, a call goes on
        unrecorded.
        """
        if vars(self._model).get("generate") is self._own:
            del self._model.generate
        with self._changed:
            try:
                if kind is None:
                    self._changed.wait_for(lambda: self._n_calls == 0)
            finally:
                self._left = True
                self._end_run(["interrupted"] * self._n_open)

    def _stand_in(self) -> Callable[..., Any]:
        """A function that looks like the model's own ``generate``, signature included."""

        @functools.wraps(self._plain)
        def generate(*args: Any, **kwargs: Any) -> Any:
            self._count(1)
            try:
                return self._generate(*args, **kwargs)
            finally:
                self._count(-1)

        return generate

    def _count(self, more: int) -> None:
        with self._changed:
            self._n_calls += more
            self._changed.notify_all()

    def _generate(self, *args: Any, **kwargs: Any) -> Any:
        with self._one_at_a_time:
            # a rule that itself generates: its steps belong to the outer call's
            if self._inside or self._left:
                return self._plain(*args, **kwargs)
            self._inside = True
            try:
                return self._recorded(self._by_name(args, kwargs))
            finally:
                self._inside = False

    def _by_name(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """All arguments of ``generate()`` by their names; raises TypeError as the call itself would."""
        if not args:
            return dict(kwargs)
        options = dict(self._signature.bind(*args, **kwargs).arguments)
        for name, parameter in self._signature.parameters.items():
            if parameter.kind is parameter.VAR_KEYWORD:
                options |= options.pop(name, {})
        return options

    def _recorded(self, given: Mapping[str, Any]) -> Any:
        refuse_unsupported(given, ", or call generate() outside the recording")
        start = self._clock.mark()
        tokenizer = given.get("tokenizer") or self._tokenizer
        options, stop_strings = prepare_stop_strings(given, tokenizer, self._model.generation_config)
        make = functools.partial(Loop, clock=self._clock, needs=self._recorder.needs, streamer=given.get("streamer"))
        options["custom_generate"] = lambda model, input_ids, **prepared: make(model, input_ids, **prepared)
        loop: Loop = self._plain(**options)
        self._drive(loop, self._live(loop, start, tokenizer, for_the_record(loop.config, stop_strings, given)))
        return loop.result()

    def _drive(self, loop: Loop, live: LiveRun) -> None:
        """Run the loop to its end, and record it for as long as the recording lasts."""
        n_rows = len(live.run.traces)
        with self._changed:
            if not self._left:
                self._recorder.begin(live)
                self._n_open = n_rows
        try:
            for tick in live.ticks:
                with self._changed:
                    if self._n_open:
                        self._recorder.add(tick)
        except BaseException as error:
            self._end_run(["interrupted" if isinstance(error, KeyboardInterrupt) else "error"] * n_rows)
            raise
        else:
            self._end_run(live.finish_reasons())
        finally:
            live.ticks.close()  # it may have set the model up for decoding

    def _end_run(self, reasons: Sequence[str | None]) -> None:
        with self._changed:
            if self._n_open:  # else the recording was left in the middle of the run
                self._n_open = 0
                self._recorder.end(reasons)

    def _live(self, loop: Loop, start: Any, tokenizer: Any, options: Mapping[str, Any]) -> LiveRun:
        heads = _heads(loop, tokenizer)
        return LiveRun(
            run=Run(traces=heads, options=options, rules=loop.rule_heads()),
            start=start,
            ticks=loop.ticks(),
            finish_reasons=loop.finish_reasons,
            spellers=[spelling_of(tokenizer, head.prompt_ids) for head in heads],
            fence=fence_of(loop.input_ids.device),
            aside=aside_of(loop.input_ids.device),
            outcomes=loop.outcomes,
            last_decisions=loop.last_decisions,
            withheld=loop.withholds,
        )


def _heads(loop: Loop, tokenizer: Any) -> tuple[TraceHead, ...]:
    """The prompts of a batch without their left padding, which the attention mask tells; with it, where the model reads it.

    With an earlier cache the ids may be only those that are new: then the prompt is not known, though its length is.
    """
    mask = None if loop.attention_mask is None or ignores_padding(loop.model.config) else loop.attention_mask.tolist()
    heads = []
    for i, row in enumerate(loop.input_ids.tolist()):
        n_prompt = loop.n_prompt if mask is None else sum(mask[i])
        kept = row if mask is None else [token for token, read in zip(row, mask[i][-len(row) :], strict=False) if read]
        if loop.has_embeddings or len(kept) != n_prompt:
            heads.append(TraceHead(i, n_prompt, None, None))
            continue
        text = None if tokenizer is None else tokenizer.decode(kept)
        heads.append(TraceHead(i, n_prompt, tuple(kept), text))
    return tuple(heads)
