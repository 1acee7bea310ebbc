"""What a config.json says about the cost of a model: its blocks with the sizes of their products, caches and states.

The values here know no family. :mod:`tokentape.study.cost.architecture` reads a configuration into them, and
:mod:`tokentape.study.cost.counting` counts.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Architecture", "Attention", "Block", "Matrix", "State"]


@dataclass(frozen=True, slots=True)
class Matrix:
    """A product with weights, ``n_in`` values to ``n_out``, and ``bias`` further parameters.

    Of ``copies`` of them a token uses ``active``: mixture of experts. ``role`` is ``"attention"``, ``"mlp"``, ``"expert"``,
    ``"shared"``, ``"router"``, ``"mixer"`` (a recurrence's), ``"head"`` or ``"projection"``.
    """

    role: str
    n_in: int
    n_out: int
    bias: int = 0
    copies: int = 1
    active: int = 1

    @property
    def weights(self) -> int:
        """Values of all copies, without biases."""
        return self.n_in * self.n_out * self.copies

    @property
    def parameters(self) -> int:
        """Values of all copies, biases included."""
        return self.weights + self.bias * self.copies

    def touched(self, tokens: float) -> float:
        """The expected number of different copies that ``tokens`` tokens use, where each chooses freely and evenly."""
        if self.active >= self.copies:
            return self.copies
        return float(self.copies * (1.0 - (1.0 - self.active / self.copies) ** tokens))


@dataclass(frozen=True, slots=True)
class Attention:
    """Attention over the past: what each token adds to the cache, and how far back it is read.

    ``key_dim`` and ``value_dim`` are per head. A ``window`` counts the positions that are seen, the own one included;
    None sees all. Where ``latent`` values are cached instead of keys and values, ``expand_flops`` is what making these of one
    cached position takes at each step.
    """

    heads: int
    kv_heads: int
    key_dim: int
    value_dim: int
    window: int | None = None
    latent: int = 0
    expand_flops: int = 0

    @property
    def cached_values(self) -> int:
        """Values that one token adds to the cache of this block."""
        return self.latent or self.kv_heads * (self.key_dim + self.value_dim)

    @property
    def pair_flops(self) -> int:
        """Operations of one query with one key and its value, over all heads."""
        return 2 * self.heads * (self.key_dim + self.value_dim)


@dataclass(frozen=True, slots=True)
class State:
    """What a recurrent block carries from token to token for one sequence, whatever its length.

    ``values`` are kept in the dtype of the activations, ``float32_values`` in float32. ``flops`` are those of one
    token's update and reading, products with weights not counted. ``scanned`` values are written down for each token of a
    prompt where the recurrence runs without a kernel of its own; None where that was not counted.
    """

    values: int
    float32_values: int
    flops: int
    scanned: int | None = None


@dataclass(frozen=True, slots=True)
class Block:
    """One of the blocks that run one after another. ``other_parameters`` are norms, convolutions, sinks and the like.

    ``reduces`` is how often its devices add up their parts under tensor parallelism.
    """

    kind: str
    matrices: tuple[Matrix, ...]
    other_parameters: int
    attention: Attention | None = None
    state: State | None = None
    reduces: int = 2


@dataclass(frozen=True, slots=True)
class Architecture:
    """A causal language model as far as its cost goes.

    ``tables`` are the parameters that are looked up rather than multiplied: the token embedding, which a ``tied`` head
    shares, and learned positions. ``outer`` are products outside of the blocks other than the head. ``positions`` is what
    the configuration gives it, None where it tells none. ``dtype`` is that of the file, None where it says nothing.
    ``quantization`` is the method's name, of which ``bits`` is what a value takes, its scales included.
    """

    model_type: str
    hidden: int
    vocab: int
    blocks: tuple[Block, ...]
    head: Matrix
    tied: bool
    embedding: int
    position_table: int
    other_parameters: int
    outer: tuple[Matrix, ...] = ()
    positions: int | None = None
    dtype: str | None = None
    quantization: str | None = None
    bits: float | None = None
    quantized_roles: frozenset[str] = frozenset()

    @property
    def parameters(self) -> int:
        """Every parameter once: a tied head has none of its own but its bias."""
        blocks = sum(matrix.parameters for matrix in self.matrices) + sum(b.other_parameters for b in self.blocks)
        head = self.head.bias + (0 if self.tied else self.head.weights)
        return self.embedding + self.position_table + self.other_parameters + blocks + head

    @property
    def active_parameters(self) -> int:
        """Parameters without the experts that a token does not use; tables count whole, as they do in ``parameters``."""
        idle = sum((m.copies - m.active) * (m.n_in * m.n_out + m.bias) for m in self.matrices)
        return self.parameters - idle

    @property
    def matrices(self) -> tuple[Matrix, ...]:
        """Every product with weights but the head's."""
        return (*self.outer, *(matrix for block in self.blocks for matrix in block.matrices))

    @property
    def heads(self) -> int:
        """Query heads of the blocks with attention; 0 where there is none."""
        return max((block.attention.heads for block in self.blocks if block.attention is not None), default=0)

    @property
    def kv_heads(self) -> int:
        """Key-value heads of the blocks with attention; 0 where there is none."""
        return max((block.attention.kv_heads for block in self.blocks if block.attention is not None), default=0)
