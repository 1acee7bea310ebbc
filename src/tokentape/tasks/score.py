"""``score``: how likely a model finds a text, token by token and as a whole, by the chain rule."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokentape.data.tape import Tape, open_tape
from tokentape.errors import UsageError
from tokentape.study.scores import NOTE
from tokentape.tasks.score_documents import Document, digest, documents_of
from tokentape.tasks.score_resume import Earlier, earlier
from tokentape.tasks.score_windows import check_window

if TYPE_CHECKING:
    from tokentape.models.causal import CausalModel
    from tokentape.sources.local import LocalSource
    from tokentape.tasks.scoring import Scorer

__all__ = ["Asked", "Progress", "carry_out", "score"]

UNBOUND_WINDOW = 2048
"""Tokens read at a time by a model that neither its positions nor its tokenizer bound, as lm-evaluation-harness has it."""

UNSET_LENGTH = 10**9
"""A tokenizer's ``model_max_length`` from here on means that nobody set it."""

BATCH_TOKENS = {"cpu": 1024, "cuda": 16384}
"""Tokens that go through the model at once unless told: more gain nothing on a processor, and cost memory."""


@dataclass(frozen=True, slots=True)
class Asked:
    """How to score: see :func:`score`."""

    first: str | None = None
    window: int | None = None
    stride: int | None = None
    distribution: bool = False
    candidates: int = 5
    batch_tokens: int | None = None

    def check(self) -> None:
        """Raise UsageError for what cannot be, whatever the model."""
        check_window(self.window, self.stride)
        if self.candidates < 0:
            raise UsageError(
                f"candidates={self.candidates} is negative",
                why="it counts the most likely tokens to keep",
                fix="give 0 or more",
            )
        if self.batch_tokens is not None and self.batch_tokens < 1:
            raise UsageError(
                f"{self.batch_tokens} tokens at once", why="at least one has to be read", fix="--batch-tokens 1024"
            )

    def plan(self, documents: Sequence[Document], bos: bool | None) -> dict[str, Any]:
        """What must be the same for a tape to be gone on with: everything asked for that the figures depend on."""
        kept = {name: value for name, value in asdict(self).items() if name != "batch_tokens"}
        return {**kept, "bos": bos, "n_documents": len(documents), "digest": digest(documents)}


@dataclass(frozen=True, slots=True)
class Progress:
    """How far scoring has come: documents and tokens done, of how many, and what the rest will take, judged by what was done."""

    n_done: int
    n_all: int
    tokens_done: int
    tokens_all: int
    left_s: float | None


def score(
    source: LocalSource,
    texts: Any,
    *,
    context: Any = None,
    first: str | None = None,
    window: int | None = None,
    stride: int | None = None,
    distribution: bool = False,
    candidates: int = 5,
    batch_tokens: int | None = None,
    path: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    text: bool = True,
    observer: Callable[[Progress], None] | None = None,
) -> Tape:
    """The log-probability of each token of ``texts`` under a model, on a tape: a trace a text, its context as the prompt.

    ``texts`` is a text, token ids, a :class:`~tokentape.tasks.score_documents.Document`, or a list of these; ``context`` goes
    before each that has none of its own, is read and not scored. ``first`` says what the first token of a text without
    context is conditioned on: ``"bos"``, ``"eos"``, or ``"skip"`` to read it without scoring it; None is BOS, else EOS, else
    skip. Longer texts are read in windows of ``window`` tokens (None: the model's positions, else 2,048), each of which
    scores ``stride`` (None: ``window``), so that every token is scored once. ``distribution`` keeps entropy, rank and the
    ``candidates`` likeliest tokens as well. A tape at ``path`` with the same texts and options, broken off, is gone on with.

    The figures of whole texts are :func:`~tokentape.study.scores.scores` of the tape. On Ctrl-C the tape is saved, and the
    exception goes on. Raises PromptError, UsageError, TapeExists, OutOfMemory and what recording raises.
    """
    asked = Asked(first, window, stride, distribution, candidates, batch_tokens)
    return carry_out(
        documents_of(texts, context),
        asked,
        lambda: source,
        bos=source.bos,
        path=path,
        resume=resume,
        overwrite=overwrite,
        text=text,
        observer=observer,
    )


def carry_out(
    documents: Sequence[Document],
    asked: Asked,
    load: Callable[[], LocalSource],
    *,
    bos: bool | None = None,
    path: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    text: bool = True,
    observer: Callable[[Progress], None] | None = None,
) -> Tape:
    """:func:`score`, with a source that is loaded once it is known that texts, options and path will do."""
    asked.check()
    place = None if path is None else Path(path)
    plan = asked.plan(documents, bos)
    before = earlier(place, plan, NOTE, resume=resume, overwrite=overwrite)
    source = load()
    if before is not None:
        before.check_setting(source.setting(), "score")
        if before.complete:
            return open_tape(before.path)
    session = _Session(source, documents, asked, bos)
    return session.run(place, plan, before, overwrite=overwrite, text=text, observer=observer)


class _Session:
    """One call of :func:`score`: documents encoded, batches read, a tape."""

    def __init__(self, source: LocalSource, documents: Sequence[Document], asked: Asked, bos: bool | None) -> None:
        from tokentape.tasks.score_encoding import encoded, opening_of
        from tokentape.tasks.scoring import Measure, Scorer

        causal = source.causal
        opening = opening_of(causal, asked.first)
        window = asked.window or _window_of(causal)
        causal.check_length(window, 0)
        check_window(window, asked.stride)
        self.source = source
        self.measure = Measure(
            window=window,
            stride=asked.stride or window,
            candidates=asked.candidates if asked.distribution else None,
            batch_tokens=asked.batch_tokens or BATCH_TOKENS.get(causal.device.type, BATCH_TOKENS["cpu"]),
        )
        self.encoded = [encoded(causal, one, i, opening, bos) for i, one in enumerate(documents)]
        facts = {"first": opening.first, "window": window, "stride": self.measure.stride}
        self.scorer: Scorer = Scorer(source, self.measure, facts)

    def run(
        self,
        path: Path | None,
        plan: dict[str, Any],
        before: Earlier | None,
        *,
        overwrite: bool,
        text: bool,
        observer: Callable[[Progress], None] | None,
    ) -> Tape:
        from tokentape.recorder.probes import tier
        from tokentape.recorder.recorder import Recorder
        from tokentape.recorder.run import drive
        from tokentape.tasks.scoring import batches

        clock = self.source.clock
        origin = clock.mark() if before is None else before.origin(clock)
        done = before.done if before is not None else frozenset()
        recorder = Recorder(
            path,
            self.source.setting(),
            tier("timing"),
            clock,
            origin=origin,
            notes={NOTE: plan},
            overwrite=overwrite,
            text=text,
            writer=None if before is None else before.writer(),
        )
        todo = [one for one in self.encoded if one.index not in done]
        sizes = [len(one.ids) - one.n_given for one in todo]
        told = Progress(len(done), len(self.encoded), 0, sum(sizes), None)
        began = time.monotonic()
        with recorder:
            for batch in batches(todo, self.measure, pads=self.scorer.pads):
                drive(recorder, self.scorer.start(batch))
                n_tokens = told.tokens_done + sum(len(one.ids) - one.n_given for one in batch)
                left_s = (time.monotonic() - began) * (told.tokens_all / n_tokens - 1)
                told = replace(told, n_done=told.n_done + len(batch), tokens_done=n_tokens, left_s=left_s)
                if observer is not None:
                    observer(told)
        return recorder.tape


def _window_of(causal: CausalModel) -> int:
    """Tokens that the model reads at a time unless told: its positions, else what its tokenizer says."""
    if causal.positions is not None:
        return causal.positions
    found = getattr(causal.tokenizer, "model_max_length", None)
    return int(found) if found is not None and found < UNSET_LENGTH else UNBOUND_WINDOW
