"""What a configuration says about a model before it is built: is it causal, and how far can it read?"""

from __future__ import annotations

from typing import Any

from tokentape.errors import ModelError
from tokentape.models.runtime import require_transformers

__all__ = ["check_causal", "ignores_padding", "positions_of", "positions_reason"]

POSITION_NAMES = (
    "max_position_embeddings",
    "n_positions",
    "n_ctx",
    "max_seq_len",
    "max_sequence_length",
    "seq_length",
    "max_target_positions",
)
"""Names under which configurations keep the number of positions, the commonest first."""

UNBOUNDED = frozenset(
    {"bloom", "falcon_mamba", "mamba", "mamba2", "recurrent_gemma", "rwkv", "xlstm"},
)
"""Model types that read any length: ALiBi made for the length at hand, or states of a fixed size. A number of positions
in their configuration is the length they were trained on, not one they are bound to."""

IGNORES_PADDING = frozenset({"recurrent_gemma", "rwkv", "xlm", "xlstm"})
"""Model types whose recurrence runs over padding too: their forward takes no attention mask, or does not look at it."""

CAUSAL_REGARDLESS = frozenset({"gpt_neox", "gpt_neox_japanese", "trocr"})
"""Model types whose configuration has a flag ``is_decoder`` that their attention does not look at."""

NOT_CAUSAL = {
    "xlnet": "it predicts words in permuted order, and sees both sides without a mask of permutations",
    "cpmant": "it reads its prompt in both directions",
}
"""Model types offered under the causal head of transformers that do not read from left to right."""

OTHER_HEADS = {
    "MODEL_FOR_MASKED_LM_MAPPING_NAMES": "a masked language model",
    "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES": "a classifier of sequences",
    "MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES": "a classifier of tokens",
    "MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES": "an extractor of answers",
    "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES": "an encoder-decoder",
    "MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES": "a classifier of images",
    "MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES": "a model of images and text",
    "MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES": "a model of speech",
    "MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING_NAMES": "a classifier of audio",
}
"""Tables of transformers that name architectures with some other head, and what that head makes of a model."""


def _kind(architecture: str) -> str | None:
    from transformers.models.auto import modeling_auto

    for table, kind in OTHER_HEADS.items():
        for names in getattr(modeling_auto, table, {}).values():
            if architecture in ([names] if isinstance(names, str) else names):
                return kind
    return None


def _refused(name: str, config: Any, reason: str) -> ModelError:
    declared = ", ".join(getattr(config, "architectures", None) or [str(config.model_type)])
    return ModelError(
        f"{name} is not a causal language model: {declared}",
        why=reason,
        fix="give a causal one (...ForCausalLM or ...LMHeadModel), such as bigscience/bloom-560m, or 'demo'",
    )


def check_causal(config: Any, name: str, *, trusted: bool = False) -> None:
    """Raise ModelError unless ``config`` is of a model that predicts each token from those before it.

    ``trusted`` says that code which comes with the model may define the architecture.
    """
    transformers = require_transformers()
    mapping = transformers.models.auto.modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING
    declared = list(getattr(config, "architectures", None) or [])
    kinds = [kind for kind in map(_kind, declared) if kind is not None]
    if getattr(config, "is_encoder_decoder", False):
        raise _refused(name, config, "it is an encoder-decoder: one half reads a source, the other writes from it")
    if trusted and "AutoModelForCausalLM" in (getattr(config, "auto_map", None) or {}):
        return
    if type(config) not in mapping:
        kind = kinds[0] if kinds else "no language model that continues text"
        raise _refused(name, config, f"{config.model_type!r} is {kind}; transformers has no causal head for it")
    heads = mapping[type(config)]
    heads = {head.__name__ for head in (heads if isinstance(heads, tuple) else (heads,))}
    if config.model_type in NOT_CAUSAL:
        raise _refused(name, config, NOT_CAUSAL[config.model_type])
    text = config.get_text_config(decoder=True)
    both_ways = getattr(text, "is_decoder", None) is False or getattr(text, "causal", None) is False
    if both_ways and config.model_type not in CAUSAL_REGARDLESS:
        raise _refused(
            name, config, f"a {config.model_type!r} reads both sides of a word: its config.json says is_decoder false"
        )
    if kinds and not heads & set(declared):
        raise _refused(
            name, config, f"its weights are those of {kinds[0]}, without the head that predicts the next token"
        )


def ignores_padding(config: Any) -> bool:
    """Whether left padding would be read as text, so that prompts of unequal length cannot share a batch."""
    return config.get_text_config(decoder=True).model_type in IGNORES_PADDING


def positions_of(config: Any) -> int | None:
    """The most positions that a model of this configuration can read; None where nothing bounds them.

    Learned positions end at that number; rotary ones go on, past what the model was trained for. Sliding windows bound
    what attention sees, not what can be read.
    """
    text = config.get_text_config(decoder=True)
    if text.model_type in UNBOUNDED or getattr(text, "alibi", False) is True:
        return None
    found = next((n for n in (getattr(text, a, None) for a in POSITION_NAMES) if isinstance(n, int) and n > 0), None)
    if found is None:
        return None
    return max(found, _stretched(text))


def _stretched(text: Any) -> int:
    """Positions of a rotary embedding scaled past its original length; 0 where the configuration tells of none."""
    rope = getattr(text, "rope_parameters", None) or {}
    original, factor = rope.get("original_max_position_embeddings"), rope.get("factor")
    return int(original * factor) if original and factor else 0


def positions_reason(config: Any, positions: int) -> str:
    """Why a model of this configuration reads no more than ``positions``."""
    if getattr(config.get_text_config(decoder=True), "rope_parameters", None):
        return f"its rotary positions were trained up to {positions}: past them it answers, but not as itself"
    return f"its config.json gives it {positions} positions"
