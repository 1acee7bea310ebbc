"""Parts of models, found by what they do."""

from __future__ import annotations

import pytest
import torch

import every_family
import families
from tokentape.models.anatomy import anatomy_of, keeps_rows, replaced
from tokentape.models.causal import load

PARTS = {
    "bloom": ("transformer.word_embeddings_layernorm", "transformer.h.0", "transformer.ln_f", "lm_head"),
    "gpt2": ("transformer.wte", "transformer.h.0", "transformer.ln_f", "lm_head"),
    "llama": ("model.embed_tokens", "model.layers.0", "model.norm", "lm_head"),
    "gemma2": ("model.embed_tokens", "model.layers.0", "model.norm", "lm_head"),
    "falcon": ("transformer.word_embeddings", "transformer.h.0", "transformer.ln_f", "lm_head"),
    "mpt": ("transformer.wte", "transformer.blocks.0", "transformer.norm_f", "lm_head"),
    "mixtral": ("model.embed_tokens", "model.layers.0", "model.norm", "lm_head"),
    "olmo": ("model.embed_tokens", "model.layers.0", "model.norm", "lm_head"),
    "olmo2": ("model.embed_tokens", "model.layers.0", "model.norm", "lm_head"),
    "phi3": ("model.embed_tokens", "model.layers.0", "model.norm", "lm_head"),
    "opt": ("model.decoder.embed_tokens", "model.decoder.layers.0", "model.decoder.final_layer_norm", "lm_head"),
    "gpt_neox": ("gpt_neox.embed_in", "gpt_neox.layers.0", "gpt_neox.final_layer_norm", "lm_head"),
    "mamba": ("backbone.embeddings", "backbone.layers.0", "backbone.norm_f", "lm_head"),
    "rwkv": ("rwkv.embeddings", "rwkv.blocks.0", "rwkv.ln_out", "head"),
    "openai-gpt": ("transformer.tokens_embed", "transformer.h.0", None, "lm_head"),
    "roberta": ("roberta.embeddings.LayerNorm", "roberta.encoder.layer.0", "lm_head.layer_norm", "lm_head.decoder"),
    "modernbert-decoder": ("model.embeddings.norm", "model.layers.0", "lm_head.norm", "decoder"),
}
"""Entry, first block, last norm and head, by the names that a reader of the model's code would point to."""


@pytest.mark.parametrize("family", PARTS)
def test_parts_are_those_of_the_code(family: str) -> None:
    model = every_family.tiny(family).model
    found = anatomy_of(model)
    names = {id(module): name for name, module in model.named_modules()}
    parts = (found.entry, found.blocks[0], found.final_norm, found.head)
    assert tuple(names.get(id(part)) for part in parts) == PARTS[family]
    assert len(found.blocks) == model.config.num_hidden_layers
    assert anatomy_of(model) is found


def test_a_norm_beside_the_path_is_no_entry() -> None:
    """Inputs that go to every block have a norm of their own, which no token's vector goes through."""
    for family in ("gemma3n_text", "gemma4_text"):
        model = every_family.tiny(family).model
        assert anatomy_of(model).entry is model.get_input_embeddings()


@pytest.mark.parametrize("family", ["xlm", "longcat_flash"])
def test_models_without_one_sequence_of_blocks_have_none(family: str) -> None:
    assert anatomy_of(every_family.tiny(family).model).blocks == ()


def test_the_look_leaves_nothing_behind() -> None:
    model = families.causal("llama").model
    anatomy_of(model)
    hooks = [module for module in model.modules() if module._forward_hooks or module._forward_pre_hooks]
    assert hooks == []


def test_what_a_module_gives_is_replaced_until_the_handle_is_removed() -> None:
    model = load("demo").model
    ids = torch.tensor([[5, 6, 7]])
    before = model(ids).logits
    handle = replaced(anatomy_of(model).entry, lambda given: given * 0)
    assert not torch.equal(model(ids).logits, before)
    handle.remove()
    assert torch.equal(model(ids).logits, before)


def test_the_head_can_be_spared_rows() -> None:
    assert keeps_rows(load("demo").model)
