"""Which families a cache that forgets can be right for, and how each layer's keys hold their positions.

A key that was made at one position is used at another once something before it was dropped. Where attention adds a bias for the
distance (ALiBi) the key holds no position. Where keys are rotated (RoPE, Su et al. 2021) it can be turned back by the angle
between the two. Where a learned vector was added to the token before the first block, no key can be moved.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

from tokentape.errors import UsageError
from tokentape.models.anatomy import inputs_of
from tokentape.models.runtime import quiet

__all__ = ["WINDOWED", "Rotation", "reason_against", "rotations_of"]

WINDOWED = frozenset(
    (
        # a bias for the distance, counted from the keys that are there
        "bloom falcon mpt "
        # rotated keys
        "afmoe apertus arcee aria_text bitnet cohere cohere2 cohere2_moe cwm dbrx diffllama dots1 ernie4_5 ernie4_5_moe exaone4 "
        "exaone_moe flex_olmo gemma gemma2 gemma3_text glm glm4 glm4_moe gpt_neox gpt_neox_japanese gpt_oss granite "
        "granite_swa granitemoe granitemoe_swa granitemoeshared helium hunyuan_v1_dense hunyuan_v1_moe hy_v3 hyperclovax "
        "jais2 jetmoe llama mimo_v2_flash minimax_m2 ministral ministral3 mistral mixtral modernbert-decoder nanochat "
        "nemotron olmo olmo2 olmo3 olmoe persimmon phi qwen2 qwen2_moe qwen3 qwen3_moe seed_oss smollm3 solar_open stablelm "
        "starcoder2 vaultgemma"
    ).split()
)
"""Model types whose windowed logits were found equal to those of a pass without any cache, in which a mask hides what was dropped.
What a model of theirs does with positions is still asked of the model itself."""

_LEARNED = (
    "a learned vector for each position is part of what it keeps, so that nothing kept can be moved to another position"
)
_RECURRENT = "its state has one size at any length: its memory is flat without a window"
_HYBRID = "some of its layers keep a state that nothing can be dropped from"
_LATENT = "what it keeps is a latent vector and a rotated part beside it, which a window has not been tried on"

REASONS: dict[str, str] = {
    **dict.fromkeys(
        "bert bert-generation big_bird biogpt camembert data2vec-text electra ernie gpt2 gpt_bigcode gpt_neo "
        "megatron-bert opt rembert roberta roberta-prelayernorm roc_bert xlm-roberta xlm-roberta-xl xmod trocr".split(),
        _LEARNED,
    ),
    **dict.fromkeys("ctrl xglm".split(), _LEARNED.replace("learned", "fixed")),
    **dict.fromkeys("falcon_mamba mamba mamba2 rwkv xlstm".split(), _RECURRENT),
    **dict.fromkeys(
        "bailing_hybrid bamba falcon_h1 granitemoehybrid inkling2_text inkling_text jamba kimi_linear lfm2 lfm2_moe lfm3 "
        "minimax nemotron_h olmo_hybrid qwen3_5_moe_text qwen3_5_text qwen3_next qwen4_exp_text recurrent_gemma zamba "
        "zamba2 zaya".split(),
        _HYBRID,
    ),
    **dict.fromkeys("axk1 deepseek_v2 deepseek_v3 glm4_moe_lite longcat_flash minicpm3 youtu".split(), _LATENT),
    **dict.fromkeys("openai-gpt reformer xlm".split(), "it keeps no keys: every step reads everything again"),
    **dict.fromkeys(
        "phi3 phimoe".split(),
        "past its original positions transformers reads everything again at each step, window or not, to change the "
        "frequencies of its rotary positions",
    ),
    **dict.fromkeys("codegen gptj".split(), "its rotary positions are a table, which a window has not been tried on"),
    **dict.fromkeys(
        "gemma3n_text gemma4_text gemma4_unified_text".split(), "some of its layers may read the keys of others"
    ),
    "llama4_text": "its attention runs in chunks of absolute positions",
}
"""Why not, by model type."""

_PROBED = 4
"""Tokens that are read alone, spread over the vocabulary, to see what a position does to their keys."""


@dataclass(frozen=True, slots=True, eq=False)
class Rotation:
    """How a layer's keys are rotated: pair i of ``[start, start + 2 * n)`` by the position times frequency i.

    ``interleaved`` says that neighbours make a pair, else the first half pairs with the second. ``frequencies`` is ``[n]``, fp32,
    in radians a position.
    """

    frequencies: torch.Tensor
    start: int
    interleaved: bool

    def angles(self, positions: torch.Tensor) -> torch.Tensor:
        """``[..., L, n]`` radians at ``[..., L]`` positions, with the rounding that fp32 products have in the model."""
        return (positions[..., None].float() * self.frequencies).double()

    def turned(self, keys: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        """``[B, H, L, D]`` keys turned forward by angles of which cosine and sine are given; a copy.

        These are ``[L, n]``, or ``[B, 1, L, n]`` where the rows of a batch differ.
        """
        size = 2 * cos.shape[-1]
        kind = torch.promote_types(keys.dtype, cos.dtype)  # half-precision keys are rounded once, at the end
        part, cos, sin = keys[..., self.start : self.start + size].to(kind), cos.to(kind), sin.to(kind)
        made = torch.empty_like(part)
        (first, second), (to_first, to_second) = self._pairs(part), self._pairs(made)
        torch.mul(first, cos, out=to_first).addcmul_(second, sin, value=-1)
        torch.mul(second, cos, out=to_second).addcmul_(first, sin)
        if size == keys.shape[-1]:
            return made.to(keys.dtype)
        whole = keys.clone()
        whole[..., self.start : self.start + size] = made
        return whole

    def _pairs(self, part: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The first and the second of each pair, ``[..., n]`` views."""
        if self.interleaved:
            return part[..., ::2], part[..., 1::2]
        first, second = part.chunk(2, dim=-1)
        return first, second


def reason_against(config: Any) -> str | None:
    """Why a model of this configuration cannot forget what lies before a window; None where it can."""
    text = config.get_text_config(decoder=True)
    if text.model_type in WINDOWED:
        return None
    reason = REASONS.get(text.model_type, "a window over this family has not been checked against one without a cache")
    return f"{text.model_type}: {reason}"


_known: weakref.WeakKeyDictionary[Any, dict[int, tuple[Rotation | None, ...]]] = weakref.WeakKeyDictionary()


def rotations_of(model: Any, name: str, capacity: int) -> tuple[Rotation | None, ...]:
    """How each layer's keys hold positions below ``capacity``: None where they hold none. Found by asking the model.

    A few tokens are read alone at three positions: what a lone token gives does not depend on others. Raises UsageError
    where keys differ by anything but a rotation, where what is kept beside them differs, or where the logits do.
    """
    known = _known.setdefault(model, {})
    if capacity not in known:
        known[capacity] = _examine(model, name, capacity)
    return known[capacity]


def _examine(model: Any, name: str, capacity: int) -> tuple[Rotation | None, ...]:
    layers = DynamicCache(config=model.config.get_text_config(decoder=True)).layers
    odd = sorted(
        {type(layer).__name__ for layer in layers} - {DynamicLayer.__name__, DynamicSlidingWindowLayer.__name__}
    )
    if odd:
        raise _refused(name, f"its cache holds more than keys and values: {', '.join(odd)}")
    last = max(capacity - 1, 1)
    with quiet(), torch.no_grad():
        # the far one first: frequencies that follow the length (dynamic NTK, LongRoPE) then differ between the others
        far, origin, near = (_alone(model, position) for position in (last, 0, 1))
    if not _same(far.logits, origin.logits):
        raise _refused(name, "what it says about a lone token depends on the token's position")
    found: list[Rotation | None] = []
    for index, kept in enumerate(zip(origin.layers, near.layers, far.layers, strict=True)):
        keys, values = zip(*kept, strict=True)
        if not all(_same(values[0], other) for other in values):
            raise _refused(name, f"the values of layer {index} depend on their positions")
        if all(_same(keys[0], other) for other in keys):
            found.append(None)
            continue
        where = [torch.tensor([position]) for position in (0, 1, last)]
        fitting = (one for one in _candidates(model, keys[0].shape[-1]) if _fits(one, keys, where))
        rotation = next(fitting, None)
        if rotation is None:
            raise _refused(name, f"the keys of layer {index} are not rotated by one set of frequencies up to {last}")
        found.append(rotation)
    return tuple(found)


@dataclass(frozen=True, slots=True)
class _Lone:
    logits: torch.Tensor
    layers: Sequence[tuple[torch.Tensor, torch.Tensor]]


def _alone(model: Any, position: int) -> _Lone:
    """What lone tokens give at a position: logits, and each layer's keys and values."""
    embedding = model.get_input_embeddings()
    rows = embedding.weight.shape[0]
    ids = torch.arange(_PROBED, device=embedding.weight.device)[:, None] * (rows // _PROBED)
    cache = DynamicCache()
    output = model(**inputs_of(model, ids, position), past_key_values=cache, use_cache=True)
    layers: list[Any] = cache.layers
    return _Lone(output.logits, [(layer.keys, layer.values) for layer in layers])


def _candidates(model: Any, width: int) -> Iterator[Rotation]:
    """Rotations by each of the model's lists of frequencies: in either order of pairs, either way round, at either end."""
    lists: list[torch.Tensor] = []
    for _, buffer in model.named_buffers():
        fits = buffer.ndim == 1 and buffer.is_floating_point() and 0 < 2 * buffer.numel() <= width
        if fits and not any(torch.equal(buffer, other) for other in lists):
            lists.append(buffer)
    for frequencies, interleaved, sign in itertools.product(lists, (False, True), (1, -1)):
        for start in sorted({0, width - 2 * frequencies.numel()}):
            yield Rotation(sign * frequencies.detach().float().cpu(), start, interleaved)


def _fits(rotation: Rotation, keys: Sequence[torch.Tensor], positions: Sequence[torch.Tensor]) -> bool:
    """Whether the first keys, turned to the other positions, are the other keys."""
    for wanted, position in zip(keys[1:], positions[1:], strict=True):
        angles = rotation.angles(position).to(wanted.device)
        turned = rotation.turned(keys[0].float(), angles.cos().float(), angles.sin().float())
        if not _same(turned, wanted):
            return False
    return True


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two tensors agree but for rounding in the coarser of their dtypes."""
    coarse = max(torch.finfo(each.dtype).eps for each in (one, other))
    scale = max(float(other.abs().max()), torch.finfo(torch.float32).tiny)
    return (
        float((one.double() - other.double()).abs().max()) <= 64 * max(coarse, torch.finfo(torch.float32).eps) * scale
    )


def _refused(name: str, why: str) -> UsageError:
    return UsageError(f"{name} cannot forget what lies before a window", why=why, fix="leave --window and --sinks out")
