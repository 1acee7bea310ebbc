"""Small models of many families with random weights, and a byte-level tokenizer that fits them all."""

from __future__ import annotations

import functools
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from tokentape.models.architecture import positions_of
from tokentape.models.causal import CausalModel

VOCAB = 264
SPECIALS = ("<unk>", "<s>", "</s>", "<pad>")

_COMMON = {"vocab_size": VOCAB, "bos_token_id": 257, "eos_token_id": 258, "pad_token_id": 259}
_DECODER = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
}

CONFIGS: dict[str, dict[str, Any]] = {
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128},
    "llama": {**_DECODER, "num_key_value_heads": 2},
    "mistral": {**_DECODER, "num_key_value_heads": 2, "sliding_window": 16},
    "gpt_neox": {**_DECODER},
    "rwkv": {"hidden_size": 32, "attention_hidden_size": 32, "num_hidden_layers": 2, "context_length": 128},
    "mamba": {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 8},
}


@functools.cache
def tokenizer() -> PreTrainedTokenizerFast:
    """Every byte is a token; four specials follow."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {character: i for i, character in enumerate(alphabet)}
    vocabulary |= {name: 256 + i for i, name in enumerate(SPECIALS)}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    names = dict(zip(("unk_token", "bos_token", "eos_token", "pad_token"), SPECIALS, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=backend, clean_up_tokenization_spaces=False, **names)


@functools.cache
def model(family: str) -> Any:
    """A model of the family, random under a fixed seed, with weights large enough that its choices vary."""
    torch.manual_seed(1)
    made = AutoModelForCausalLM.from_config(CONFIG_MAPPING[family](**_COMMON, **CONFIGS[family])).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4)
    return made


@functools.cache
def causal(family: str) -> CausalModel:
    """The same model as :func:`tokentape.models.causal.load` would give it."""
    made = model(family)
    return CausalModel(made, tokenizer(), family, None, None, positions_of(made.config), VOCAB)
