"""The terms that a law of latency is made of, and the forms that are tried: a form is a list of terms.

A term has a physical reading and one coefficient, which is never negative. Two kinds of load give it its value:

* of one Setting, counts alone: positions, sequences, tokens. What one model has in common at every step (reading its weights,
  launching its kernels) is one constant there, which no measurement of that model can take apart;
* of several Settings whose architectures are known, the bytes and operations of :class:`~tokentape.study.cost.work.Work`: these
  tell weights, key-value cache, compute, attention and reductions apart, and hold for a model that was never measured.

``max(compute, bandwidth)`` is a knee: ``max(w, f x) = w + f max(0, x - w / f)``, so a term beyond a knee together with a
constant is exactly that shape, and stays linear in its coefficients once the knee is named.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from tokentape.study.cost.work import Workload

__all__ = ["Form", "Loads", "Term", "forms_of"]

Array = npt.NDArray[np.float64]

MAX_KNEES = 7
"""So many places for a knee are tried on an axis."""


@dataclass(frozen=True)
class Loads:
    """What ``n`` passes had to do: ``context`` and ``batch`` ``[n]``, and ``work``, arrays ``[n]`` by field of Work, or None.

    ``context`` counts the positions of each sequence after the pass: for a prefill, its length.
    """

    kind: str
    context: Array
    batch: Array
    work: dict[str, Array] | None = None

    @classmethod
    def of(
        cls,
        kind: str,
        context: Sequence[float] | Array,
        batch: Sequence[float] | Array,
        workloads: Sequence[Workload] | None = None,
    ) -> Loads:
        """Loads of one kind; ``workloads`` has the architecture of each pass. Devices share its bytes and operations."""
        contexts, batches = np.asarray(context, float), np.asarray(batch, float)
        work = None
        if workloads is not None:
            works = [
                (one.decode if kind == "decode" else one.prefill)(float(c), float(b))
                for one, c, b in zip(workloads, contexts, batches, strict=True)
            ]
            shares = np.array([one.tensor_parallel for one in workloads], float)
            work = {name: np.array([float(getattr(w, name)) for w in works]) for name in ("layers", "reduce_bytes")}
            for name in ("weight_bytes", "kv_bytes", "flops", "attention_flops"):
                work[name] = np.array([float(getattr(w, name)) for w in works]) / shares
        return cls(kind, contexts, batches, work)

    def __len__(self) -> int:
        return len(self.context)

    def take(self, rows: Any) -> Loads:
        """The loads of some rows (a mask or indexes)."""
        work = None if self.work is None else {name: values[rows] for name, values in self.work.items()}
        return Loads(self.kind, self.context[rows], self.batch[rows], work)

    @property
    def tokens(self) -> Array:
        """Tokens that the pass reads, all sequences together."""
        return self.batch * (1.0 if self.kind == "decode" else self.context)

    @property
    def where(self) -> Array:
        """Octaves ``[n, 2]`` in which nearness is told: of context (of a prefill, of all its tokens), and of the batch."""
        first = self.context if self.kind == "decode" else self.tokens
        return np.stack([np.log2(first), np.log2(self.batch)], axis=1)


@dataclass(frozen=True)
class Term:
    """One term: ``value(loads)`` gives ``[n]``; its coefficient is nanoseconds for each ``per`` (empty: for each step)."""

    name: str
    per: str
    meaning: str
    value: Callable[[Loads], Array]
    knee: float | None = None


@dataclass(frozen=True)
class Form:
    """A sum of terms."""

    terms: tuple[Term, ...]

    @property
    def name(self) -> str:
        return " + ".join(term.name for term in self.terms)

    def matrix(self, loads: Loads) -> Array:
        """``[n, terms]``."""
        return np.stack([np.broadcast_to(term.value(loads), len(loads)) for term in self.terms], axis=1).astype(float)


def _one(loads: Loads) -> Array:
    return np.ones(len(loads))


def _worked(name: str, loads: Loads) -> Array:
    if loads.work is None:
        raise ValueError(f"{name} needs the architecture of every load")
    return loads.work[name]


def _beyond(value: Callable[[Loads], Array], knee: float, loads: Loads) -> Array:
    return np.maximum(0.0, value(loads) - knee)


def _before(value: Callable[[Loads], Array], knee: float, loads: Loads) -> Array:
    return np.minimum(value(loads), knee)


def _intense(knee: float, loads: Loads) -> Array:
    """Operations beyond ``knee`` for each byte of weights."""
    return np.maximum(0.0, _worked("flops", loads) - knee * _worked("weight_bytes", loads))


def _sparse(knee: float, loads: Loads) -> Array:
    """Operations up to ``knee`` for each byte of weights."""
    return np.minimum(_worked("flops", loads), knee * _worked("weight_bytes", loads))


def _large_passes(knee: float, loads: Loads) -> Array:
    """Operations of the part of a pass that lies beyond ``knee`` tokens."""
    return _worked("flops", loads) * np.maximum(0.0, 1 - knee / np.maximum(loads.tokens, 1e-9))


def _large_messages(knee: float, loads: Loads) -> Array:
    """Bytes reduced by messages larger than ``knee``: a layer sends two, each of them two bytes a value."""
    sent = _worked("reduce_bytes", loads)
    message = sent / np.maximum(2 * _worked("layers", loads), 1)
    return sent * np.maximum(0.0, 1 - knee / np.maximum(message, 1e-9))


CONSTANT = Term("constant", "", "each pass whatever it reads: launching its kernels, reading the weights", _one)
SEQUENCES = Term("sequences", "sequence", "each sequence of the batch", lambda loads: loads.batch)
CONTEXT = Term(
    "positions", "position", "each position of context, whatever the batch: masks, biases", lambda x: x.context
)
KEY_VALUE = Term(
    "key-value", "position of a sequence", "reading the key-value cache: batch x context", lambda x: x.batch * x.context
)
TOKENS = Term("tokens", "token", "each token read: the products with the weights", lambda loads: loads.tokens)
SQUARE = Term(
    "attention", "pair of positions", "attention's square: batch x length x length", lambda x: x.batch * x.context**2
)

LAYERS = Term("layers", "layer", "each block whatever it reads: launching its kernels", partial(_worked, "layers"))
WEIGHTS = Term("weights", "byte of weights", "reading the weights", partial(_worked, "weight_bytes"))
CACHE = Term("cache", "byte of cache", "reading keys, values and states", partial(_worked, "kv_bytes"))
COMPUTE = Term("compute", "operation", "the products with the weights", partial(_worked, "flops"))
ATTENTION = Term(
    "attention compute", "operation", "queries with keys, weights with values", partial(_worked, "attention_flops")
)
REDUCE = Term("reductions", "byte reduced", "all-reduces between devices", partial(_worked, "reduce_bytes"))
PER_LAYER_SEQUENCE = Term(
    "sequences", "sequence and layer", "each sequence in each block", lambda x: x.batch * _worked("layers", x)
)


_BENDS = {"beyond": _beyond, "up to": _before}
"""The parts of a term on either side of a knee: more of the same costs nothing before it, or nothing after it."""


def _bent(term: Term, side: str, at: float, unit: str) -> Term:
    """The part of a term ``"beyond"`` a knee, or ``"up to"`` it."""
    where = f"{side} {_number(at)}"
    value = partial(_BENDS[side], term.value, at)
    return Term(f"{term.name} {where}", term.per, f"{term.meaning}, {where} {unit}", value, at)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _places(values: Array) -> list[float]:
    """Where a knee may lie: at the values measured, but for the outermost two on each side; at most MAX_KNEES of them."""
    levels = np.unique(np.round(values, 9))[1:-1]
    if len(levels) > MAX_KNEES:
        levels = levels[np.unique(np.linspace(0, len(levels) - 1, MAX_KNEES).round().astype(int))]
    return [float(level) for level in levels]


def _pairs(knees: Sequence[Term]) -> Iterable[tuple[Term, Term]]:
    """Two knees of one axis that lie at least a factor of three apart."""
    return ((a, b) for a, b in itertools.combinations(knees, 2) if (b.knee or 0) > 3 * (a.knee or 0))


def forms_of(loads: Loads) -> list[Form]:
    """The forms that are tried for loads of one kind, the plainest first.

    A term of an axis that the loads do not vary along is left out: it could not be told from the constant.
    """
    if loads.work is not None:
        found = _decode_works(loads) if loads.kind == "decode" else _prefill_works(loads)
    else:
        found = _decode_counts(loads) if loads.kind == "decode" else _prefill_counts(loads)
    kept: dict[tuple[str, ...], Form] = {}
    for terms in found:
        terms = [term for term in terms if _tells(term, loads)]
        kept.setdefault(tuple(sorted(term.name for term in terms)), Form(tuple(terms)))
    return sorted(kept.values(), key=lambda form: len(form.terms))


def _tells(term: Term, loads: Loads) -> bool:
    values = term.value(loads)
    return bool(np.any(values > 0)) and (term in (CONSTANT, LAYERS, WEIGHTS) or float(np.ptp(values)) > 0)


def _decode_counts(loads: Loads) -> list[list[Term]]:
    plain = [CONSTANT, SEQUENCES, KEY_VALUE]
    found = [[CONSTANT, KEY_VALUE], plain, [*plain, CONTEXT]]
    batches = [_bent(SEQUENCES, "beyond", at, "sequences") for at in _places(loads.batch)]
    reads = [
        _bent(KEY_VALUE, "beyond", at, "positions of all sequences") for at in _places(loads.batch * loads.context)
    ]
    for knee in batches:
        found += [[CONSTANT, KEY_VALUE, knee], [*plain, knee], [*plain, CONTEXT, knee]]
    # a library that takes another routine for several rows than for one: dear at first, then cheap
    first = [_bent(SEQUENCES, "up to", at, "sequences") for at in _places(loads.batch)]
    for knee in first:
        found += [[*plain, knee], [*plain, CONTEXT, knee], [CONSTANT, KEY_VALUE, knee]]
        found += [[*plain, knee, bend] for bend in (*reads, *batches) if bend.knee != knee.knee]
    found += [[*plain, knee] for knee in reads]
    found += [[*plain, batch, read] for batch in batches for read in reads]
    return found


def _prefill_counts(loads: Loads) -> list[list[Term]]:
    plain = [CONSTANT, TOKENS, SQUARE]
    found = [[CONSTANT, TOKENS]]
    knees = [_bent(TOKENS, "beyond", at, "tokens") for at in _places(loads.tokens)]
    for more in ([], [SEQUENCES]):
        found.append([*plain, *more])
        # without the plain tokens the first knee is max(floor, compute)
        for some in [[knee] for knee in knees] + [list(pair) for pair in _pairs(knees)]:
            found += [[*plain, *more, *some], [CONSTANT, SQUARE, *more, *some]]
    return found


def _decode_works(loads: Loads) -> list[list[Term]]:
    found = []
    intensity = _worked("flops", loads) / np.maximum(_worked("weight_bytes", loads), 1)
    bound: list[list[Term]] = [[], [COMPUTE]]
    bound += [
        [
            Term(
                f"compute beyond {_number(at)}/byte",
                "operation",
                f"the products with the weights, beyond {_number(at)} operations for each byte of them",
                partial(_intense, at),
                at,
            )
        ]
        for at in _places(intensity)
    ]
    bound += [
        [
            COMPUTE,
            Term(
                f"compute up to {_number(at)}/byte",
                "operation",
                f"the products with the weights, up to {_number(at)} operations for each byte of them",
                partial(_sparse, at),
                at,
            ),
        ]
        for at in _places(intensity)
    ]
    for floor in ([LAYERS], [CONSTANT], [LAYERS, WEIGHTS], [CONSTANT, WEIGHTS], [WEIGHTS]):
        for compute in bound:
            for more in ([], [PER_LAYER_SEQUENCE], [REDUCE]):
                found.append([*floor, CACHE, *compute, *more])
    return found


def _prefill_works(loads: Loads) -> list[list[Term]]:
    found = []
    messages = _worked("reduce_bytes", loads) / np.maximum(2 * _worked("layers", loads), 1)
    large = [
        Term(
            f"reductions beyond {_number(at / 1e6)} MB",
            "byte reduced",
            f"all-reduces of messages beyond {_number(at / 1e6)} MB",
            partial(_large_messages, at),
            at,
        )
        for at in _places(messages)
    ]
    tokens = [
        Term(
            f"compute beyond {_number(at)} tokens",
            "operation",
            f"the products with the weights, beyond {_number(at)} tokens",
            partial(_large_passes, at),
            at,
        )
        for at in _places(loads.tokens)
    ]
    for floor in ([LAYERS], [CONSTANT], [WEIGHTS], [LAYERS, WEIGHTS]):
        for more in ([], [PER_LAYER_SEQUENCE]):
            for knee in [None, *large, *(() if large else tokens)]:
                reduce = [REDUCE, *([] if knee is None else [knee])]
                found.append([*floor, COMPUTE, ATTENTION, *more, *reduce])
    return found
