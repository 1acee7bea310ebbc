"""A direction in a model's residual stream, computed from pairs of prompts, and the file that keeps it.

Source: N. Rimsky et al., "Steering Llama 2 via Contrastive Activation Addition", ACL 2024 (arXiv 2312.06681), section 3: the
mean difference of the residual stream at the last token of two sets of prompts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tokentape.errors import ModelError, UsageError
from tokentape.models.anatomy import anatomy_of, first_of, following, inputs_of
from tokentape.models.causal import CausalModel
from tokentape.models.facts import setting_of

__all__ = ["Direction", "block_of", "steering_direction"]

FORMAT = "tokentape.direction/1"
"""What the file says of itself, so that other tensors are not taken for a direction."""


@dataclass(frozen=True, eq=False)
class Direction:
    """What sets one kind of text apart from another, in the residual stream of one model.

    ``vectors`` has for each layer a float32 vector ``[D]``, the mean state of the positive prompts less that of the negative
    ones, not normalised. Layers are counted as the logit lens counts them: layer l is what block l gives, 1 to ``n_layers``.
    ``model``, ``weights`` (their hash) and ``dtype`` say whose stream it is; ``n_positive`` and ``n_negative`` how many
    prompts it comes from. The prompts themselves are not kept.
    """

    vectors: Mapping[int, torch.Tensor]
    model: str
    weights: str | None
    dtype: str
    n_layers: int
    n_positive: int
    n_negative: int

    @property
    def layers(self) -> tuple[int, ...]:
        return tuple(sorted(self.vectors))

    @property
    def hidden_size(self) -> int:
        return len(self.vectors[self.layers[0]])

    def describe(self) -> dict[str, Any]:
        """Where it comes from and how long it is at each layer, without its values: JSON-able."""
        norms = {str(layer): float(self.vectors[layer].norm()) for layer in self.layers}
        return {**self._origin(), "norms": norms}

    def _origin(self) -> dict[str, Any]:
        names = ("model", "weights", "dtype", "n_layers", "n_positive", "n_negative")
        return {name: getattr(self, name) for name in names}

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write it as a .safetensors file. Raises UsageError where one is there already or none can be made."""
        from safetensors.torch import save_file

        place = Path(path).expanduser()
        if place.exists() and not overwrite:
            raise UsageError(
                f"{place} already exists", why="nothing is overwritten unasked", fix="another path, or overwrite=True"
            )
        origin = {name: str(value) for name, value in self._origin().items() if value is not None}
        tensors = {f"layer.{layer}": self.vectors[layer].contiguous() for layer in self.layers}
        try:
            save_file(tensors, place, metadata={"format": FORMAT, **origin})
        except Exception as error:  # of the library's own kind, whatever the system said
            raise UsageError(f"{place} cannot be written", why=str(error), fix=f"ls -ld {place.parent}") from error
        return place

    @classmethod
    def load(cls, path: str | Path) -> Direction:
        """Read what :meth:`save` wrote. Raises UsageError for any other file."""
        from safetensors import safe_open

        place = Path(path).expanduser()
        try:
            with safe_open(place, framework="pt") as file:
                found = dict(file.metadata() or {})
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  not a dict
        except Exception as error:  # missing, cut off, another kind of file: the library has an error for each
            raise _no_direction(place, str(error)) from error
        try:
            if found.pop("format", None) != FORMAT:
                raise ValueError(f"its metadata does not say {FORMAT!r}")
            counts = {name: int(found[name]) for name in ("n_layers", "n_positive", "n_negative")}
            vectors = {int(name.removeprefix("layer.")): tensor for name, tensor in tensors.items()}
            direction = cls(vectors, found["model"], found.get("weights"), found["dtype"], **counts)
            direction._check()
        except (KeyError, ValueError) as error:
            raise _no_direction(place, f"{error}") from error
        return direction

    def _check(self) -> None:
        if not self.vectors or not all(1 <= layer <= self.n_layers for layer in self.vectors):
            raise ValueError(f"it has vectors for layers {list(self.layers)} of {self.n_layers}")
        for layer, vector in self.vectors.items():
            if vector.shape != (self.hidden_size,) or not vector.is_floating_point() or not vector.isfinite().all():
                raise ValueError(f"layer {layer} has no vector of {self.hidden_size} finite numbers")

    def check_model(self, causal: CausalModel) -> None:
        """Raise UsageError where ``causal`` is not the model that the direction was computed with.

        It is known by the hash of its weights; where they were loaded in another dtype, so that their hash says nothing, or
        cannot be hashed, by its name and shape.
        """
        there = _of(causal)
        width = getattr(causal.config.get_text_config(decoder=True), "hidden_size", self.hidden_size)
        shapes = (self.n_layers, self.hidden_size), (len(anatomy_of(causal.model).blocks), width)
        hashed = self.dtype == there["dtype"] and self.weights is not None and there["weights"] is not None
        if shapes[0] != shapes[1]:
            why = "it has {} layers of width {}, the model has {} of width {}".format(*shapes[0], *shapes[1])
        elif hashed and self.weights != there["weights"]:
            why = f"its model had the weights {self.weights}, this one has {there['weights']}"
        elif not hashed and self.model != there["model"]:
            why = f"it was computed with {self.model} in {self.dtype}, this is {there['model']} in {there['dtype']}"
        else:
            return
        raise UsageError(
            f"the direction is not one of {causal.name}: it was computed with {self.model}",
            why=f"{why}; the axes of one model mean nothing in another",
            fix=f"compute it with this model: steering_direction(causal, positive, negative, layer={self.layers[0]})",
        )


def steering_direction(
    causal: CausalModel,
    positive: Sequence[str | Sequence[int]],
    negative: Sequence[str | Sequence[int]],
    layer: int | Sequence[int] | None = None,
) -> Direction:
    """What sets ``positive`` prompts apart from ``negative`` ones behind a layer, at their last token.

    ``layer`` is one of 1 to the number of blocks, or several, each with a vector of its own; the middle one unless given.
    Prompts come best in pairs that differ in nothing else. Raises UsageError for a layer that is not there, for prompts
    between which nothing differs, ModelError where the model has no blocks that hand on one vector a token.
    """
    n_layers = len(anatomy_of(causal.model).blocks)
    given = max(1, n_layers // 2) if layer is None else layer
    asked = [given] if isinstance(given, int) else sorted(set(given))
    if not asked:
        raise UsageError("no layer", why="a direction lies behind one layer or several", fix="leave layer out")
    if not positive or not negative or isinstance(positive, str) or isinstance(negative, str):
        raise UsageError(
            f"{len(positive)} positive and {len(negative)} negative prompts",
            why="a direction leads from one list of prompts to another",
            fix='positive=["The soup was great"], negative=["The soup was awful"]',
        )
    means = [_mean_states(causal, prompts, asked) for prompts in (positive, negative)]
    vectors = {one: means[0][one] - means[1][one] for one in asked}
    for one, vector in vectors.items():
        if not vector.any() or not vector.isfinite().all():
            raise UsageError(
                f"the prompts give no direction at layer {one}",
                why="their mean states do not differ" if not vector.any() else "their states are no finite numbers",
                fix="prompts that differ in what is to be steered, up to their last token",
            )
    return Direction(vectors, **_of(causal), n_layers=n_layers, n_positive=len(positive), n_negative=len(negative))


def block_of(causal: CausalModel, layer: int) -> nn.Module:
    """The block behind which layer ``layer`` is. Raises UsageError, ModelError."""
    blocks = anatomy_of(causal.model).blocks
    if not blocks:
        raise _no_stream(causal, "its blocks are not one list of modules, as long as the model is deep")
    if isinstance(layer, bool) or not 1 <= layer <= len(blocks):
        raise UsageError(
            f"no layer {layer}",
            why=f"{causal.name} has layers 1 to {len(blocks)}",
            fix=f"layer={max(1, len(blocks) // 2)}",
        )
    if sum(block is blocks[layer - 1] for block in blocks) > 1:
        raise _no_stream(causal, f"block {layer} stands at several places of it")
    return blocks[layer - 1]


def _mean_states(
    causal: CausalModel, prompts: Sequence[str | Sequence[int]], layers: Sequence[int]
) -> dict[int, torch.Tensor]:
    """By layer, the mean over the prompts of the state ``[D]`` at the last token; one prompt at a time, without padding."""
    blocks = [block_of(causal, layer) for layer in layers]
    states: dict[int, list[torch.Tensor]] = {layer: [] for layer in layers}
    for prompt in prompts:
        ids = torch.tensor([causal.encode(prompt)], device=causal.device)

        def leave(index: int, output: Any, n_read: int = ids.shape[1]) -> None:
            state = first_of(output)
            if not isinstance(state, torch.Tensor) or state.dim() != 3 or state.shape[:2] != (1, n_read):
                raise _no_stream(causal, f"block {layers[index]} does not hand on one vector for each token")
            states[layers[index]].append(state[0, -1].float().cpu())

        with torch.no_grad(), following(blocks, lambda *_: None, leave):
            causal.model(**inputs_of(causal.model, ids), use_cache=False)
    return {layer: torch.stack(found).mean(0) for layer, found in states.items()}


def _of(causal: CausalModel) -> dict[str, Any]:
    facts = setting_of(causal).facts
    return {name: facts[name] for name in ("model", "weights", "dtype")}


def _no_stream(causal: CausalModel, why: str) -> ModelError:
    return ModelError(
        f"{causal.name} cannot be steered",
        why=why,
        fix="guidance and contrast need to know nothing of a model's layers",
    )


def _no_direction(place: Path, why: str) -> UsageError:
    return UsageError(
        f"{place} holds no steering direction",
        why=" ".join(why.split())[:200],
        fix="compute one with steering_direction(...).save(path)",
    )
