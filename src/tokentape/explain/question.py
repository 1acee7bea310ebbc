"""What is asked of a replay: which tokens, what of them, and among which sources the answer is shared out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tokentape.data.explanation import EXPLAINED, Kind
from tokentape.errors import UsageError

__all__ = ["Attribution", "Question", "raised"]

Floats = npt.NDArray[np.float64]


def raised(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor in float32 at least: sums over many numbers need it."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


@dataclass(frozen=True)
class Question:
    """Targets, the quantity that is explained, and the sources it is shared out among.

    ``targets`` are positions in the sequence, ascending; the token there is predicted from the positions before it.
    ``kind`` is ``"logit"``, the logit less the mean logit over the vocabulary (a raw logit has no zero of its own: a
    constant added to all of them changes nothing); ``"foil"``, the logit less that of ``foils``, one id for each target
    ("why mat and not floor"); ``"logprob"``, the log-probability, whose gradient fades where the model is sure.
    ``segments`` are half-open ranges of positions, ascending and disjoint; none means each position by itself.
    ``together`` asks for the sum over all targets: a whole answer, or a span, as one row.
    """

    targets: tuple[int, ...]
    kind: Kind = "logit"
    foils: tuple[int, ...] = ()
    segments: tuple[tuple[int, int], ...] = ()
    together: bool = False

    def __post_init__(self) -> None:
        if not self.targets or any(b <= a for a, b in zip(self.targets, self.targets[1:], strict=False)):
            raise UsageError(
                f"targets {list(self.targets)}",
                why="positions in ascending order, at least one",
                fix="(5,) or (5, 6, 7)",
            )
        if self.targets[0] < 1:
            raise UsageError(
                "the token at position 0 cannot be explained",
                why="nothing stands before the first token of a sequence",
                fix="ask for position 1 or later",
            )
        if self.kind not in EXPLAINED:
            raise UsageError(f"no target {self.kind!r}", why=f"there are {', '.join(EXPLAINED)}", fix="kind='logit'")
        if len(self.foils) != (len(self.targets) if self.kind == "foil" else 0):
            raise UsageError(
                f"{len(self.foils)} foils for {len(self.targets)} targets of kind {self.kind!r}",
                why="a foil is the token that might have stood in a target's place",
                fix="one id for each target, with kind='foil'",
            )
        if not self.segments:
            object.__setattr__(self, "segments", tuple((p, p + 1) for p in range(self.targets[-1])))
        edges = [edge for segment in self.segments for edge in segment]
        if edges != sorted(edges) or edges[0] < 0 or any(a >= b for a, b in self.segments):
            raise UsageError(
                "segments overlap or are not in order",
                why="each is a half-open range of positions, and none shares a position with another",
                fix="((0, 3), (3, 7))",
            )

    @property
    def n_rows(self) -> int:
        """Rows of the answer: one for each target, or one for all of them together."""
        return 1 if self.together else len(self.targets)

    @property
    def n_segments(self) -> int:
        return len(self.segments)

    def values(self, logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """The quantity of each target ``[..., n]`` from the logits before it ``[..., n, V]`` and its id ``[n]``.

        Differentiable; computed in the logits' dtype, half precision raised to float32.
        """
        logits = raised(logits)
        at = ids.view(*[1] * (logits.dim() - 2), -1, 1).expand(*logits.shape[:-1], 1)
        chosen = logits.gather(-1, at).squeeze(-1)
        if self.kind == "logprob":
            return chosen - logits.logsumexp(-1)
        if self.kind == "logit":
            return chosen - logits.mean(-1)
        foils = torch.tensor(self.foils, device=logits.device).view_as(ids)
        return chosen - logits.gather(-1, foils.view(*[1] * (logits.dim() - 2), -1, 1).expand_as(at)).squeeze(-1)

    def fold(self, per_target: Any) -> Any:
        """``[n, ...]`` to ``[n_rows, ...]``, tensors or arrays: summed over the targets where they are asked together."""
        return per_target.sum(0)[None] if self.together else per_target

    def by_segment(self, per_token: Any) -> Floats:
        """Relevance of segments ``[n_rows, S]`` from that of single positions ``[n_rows, T]``: sums within each.

        NaN where no position of the segment lies before the row's (last) target. Positions from the target on are left out.
        """
        values = np.asarray(per_token, np.float64)
        summed = np.full((self.n_rows, self.n_segments), np.nan)
        for row, last in enumerate(self._last_targets()):
            for column, (start, stop) in enumerate(self.segments):
                if start < last:
                    summed[row, column] = values[row, start : min(stop, last)].sum()
        return summed

    def visible(self) -> npt.NDArray[np.bool_]:
        """``[n_rows, S]``: whether some position of the segment lies before the row's (last) target."""
        starts = np.array([start for start, _ in self.segments])
        return starts[None, :] < np.array(self._last_targets())[:, None]

    def _last_targets(self) -> Sequence[int]:
        return self.targets[-1:] if self.together else self.targets


@dataclass
class Attribution:
    """What a method answers.

    ``relevance`` ``[n_rows, S]``, NaN where the target cannot see the source; ``value`` ``[n_rows]``, the quantity that is
    explained as this replay computed it; ``ledger`` is empty, or has ``tokens``, ``biases``, ``positions``, ``leaks`` and
    ``residual``, each ``[n_rows]``, whose sum is ``value``; ``notes`` are JSON-able: options that held, what was found.
    """

    relevance: Floats
    value: Floats
    ledger: dict[str, Floats] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)
