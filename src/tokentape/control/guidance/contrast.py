"""Contrastive experts: a second model adds what it believes, another takes away what it believes.

``log p + strength (log p_expert - log p_amateur)``, either of the two left out where it is not given, among the tokens whose
``p`` is at least ``alpha`` times that of the likeliest.

Sources: A. Liu et al., "DExperts", ACL 2021 (arXiv 2105.03023), equation 2, ``z + a (z_expert - z_anti)``: with
log-probabilities in place of logits every row differs by a constant, and the distribution is the same. X. Li et al.,
"Contrastive Decoding", ACL 2023 (arXiv 2210.15097), section 3.3, ``log p - log p_amateur`` among plausible tokens: an amateur
alone at strength 1 and alpha 0.1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch

from tokentape.control.guidance.guidance import checked_strength
from tokentape.control.guidance.reading import Reading
from tokentape.errors import UsageError
from tokentape.models.causal import CausalModel, load

__all__ = ["Contrast", "Contrasted"]


@dataclass(frozen=True)
class Contrast:
    """Let a second model with the same vocabulary add to what the model believes, or take away, or one of each.

    ``expert`` adds and ``amateur`` takes away: a name as :func:`tokentape.models.causal.load` takes it, loaded once onto the
    model's device, or a loaded model. ``strength`` 0 changes nothing. ``alpha`` keeps the tokens that are at least so likely
    as this part of the likeliest one (what an amateur finds impossible would win else), 0 keeps all.

    Costs a forward pass of each second model at each step. Raises UsageError for a request that contradicts itself.
    """

    expert: str | CausalModel | None = None
    amateur: str | CausalModel | None = None
    strength: float = 1.0
    alpha: float = 0.1
    _loaded: dict[tuple[str, str], CausalModel] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.expert is None and self.amateur is None:
            raise UsageError(
                "a contrast with nothing",
                why="an expert adds to what the model believes, an amateur takes away",
                fix='Contrast(amateur="a smaller model of the same vocabulary")',
            )
        checked_strength(self.strength, "strength", "strength=1.0", least=0.0)
        if not 0 <= checked_strength(self.alpha, "alpha", "alpha=0.1") < 1:
            raise UsageError(f"alpha {self.alpha}", why="it is a part of the likeliest token's p", fix="alpha=0.1")

    def bound(self, causal: CausalModel) -> Contrasted:
        """The rule for one run of ``causal``. Raises what loading raises, and UsageError for another vocabulary."""
        expert, amateur = (self._second(given, causal) for given in (self.expert, self.amateur))
        return Contrasted(expert, amateur, self.strength, self.alpha)

    def _second(self, given: str | CausalModel | None, causal: CausalModel) -> CausalModel | None:
        if given is None or isinstance(given, CausalModel):
            second = given
        else:
            place = (given, str(causal.device))
            if place not in self._loaded:
                self._loaded[place] = load(given, device=place[1])
            second = self._loaded[place]
        if second is not None:
            _refuse_other_vocabulary(second, causal)
        return second


class Contrasted:
    """The rule of a :class:`Contrast`, for one run."""

    name = "contrast"
    believes = True
    masks = False

    def __init__(self, expert: CausalModel | None, amateur: CausalModel | None, strength: float, alpha: float) -> None:
        self.strength = float(strength)
        self.alpha = float(alpha)
        self._seconds = [
            (role, sign, second, Reading(second))
            for role, sign, second in (("expert", 1.0, expert), ("amateur", -1.0, amateur))
            if second is not None
        ]

    def begin(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None) -> None:
        """The prompts and their mask, where they are known before the first call; see :meth:`Reading.begin`."""
        for _, _, _, reading in self._seconds:
            reading.begin(input_ids, attention_mask)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Contrasted log-probabilities ``[B, V]``, not normalised; at strength 0 the scores given."""
        if self.strength == 0:
            return scores
        own = contrasted = scores.log_softmax(-1)
        # what a model rules out, or has no row for, is no choice: a difference of two infinities is no number
        left_out = own == -torch.inf
        for _, sign, _, reading in self._seconds:
            second = _log_probabilities(reading.logits(input_ids), own.shape[-1])
            contrasted = contrasted + self.strength * sign * second
            left_out = left_out | (second == -torch.inf)
        if self.alpha > 0:
            left_out = left_out | (own < own.amax(-1, keepdim=True) + math.log(self.alpha))
        return contrasted.masked_fill(left_out, -torch.inf)

    def describe(self) -> dict[str, Any]:
        names = {role: {"model": second.name, "revision": second.revision} for role, _, second, _ in self._seconds}
        return {"kind": "contrastive experts", "strength": self.strength, "alpha": self.alpha, **names}


def _log_probabilities(logits: torch.Tensor, n_vocab: int) -> torch.Tensor:
    """``[B, n_vocab]`` of a model that may have more rows or fewer: those that go beyond the vocabulary fill up a size."""
    found = logits[:, :n_vocab].log_softmax(-1)
    return torch.nn.functional.pad(found, (0, n_vocab - found.shape[-1]), value=-torch.inf)


def _refuse_other_vocabulary(second: CausalModel, causal: CausalModel) -> None:
    one, other = causal.tokenizer, second.tokenizer
    if one is None or other is None:
        without = causal.name if one is None else second.name
        why = f"{without} has no tokenizer, so nobody knows which tokens its ids are"
    else:
        words, others = one.get_vocab(), other.get_vocab()
        if words == others:
            return
        apart = sum(words.get(word) != others.get(word) for word in {*words, *others})
        why = f"{apart} of their {len(words)} and {len(others)} entries have another id, or are in one of them alone"
    raise UsageError(
        f"{second.name} does not share the vocabulary of {causal.name}",
        why=why,
        fix="take a second model of the same family: a smaller one, an older checkpoint, a fine-tuned one",
    )
