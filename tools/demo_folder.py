"""Writing the demo model as a plain Hugging Face folder, after checking that transformers computes the same."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from transformers import BloomConfig, BloomForCausalLM, GenerationConfig, PreTrainedModel, PreTrainedTokenizerFast

from demo_recipe import Recipe
from fast_bloom import FastBloom

FOLDER = Path(__file__).resolve().parents[1] / "src" / "tokentape" / "models" / "demo"
TOLERANCE = 1e-3


def as_transformers(model: FastBloom, tokenizer: PreTrainedTokenizerFast, recipe: Recipe) -> BloomForCausalLM:
    """The same model as a `BloomForCausalLM`.

    Raises `ValueError` if the two give logits further apart than `TOLERANCE`.
    """
    config = BloomConfig(
        vocab_size=len(tokenizer),
        hidden_size=recipe.width,
        n_layer=recipe.n_layers,
        n_head=recipe.n_heads,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        hidden_dropout=0.0,
        attention_dropout=0.0,
        seq_length=recipe.n_positions,
    )
    twin = BloomForCausalLM(config)
    weights = dict(model.state_dict()) | {"lm_head.weight": model.transformer.word_embeddings.weight}
    twin.load_state_dict(weights)
    twin.eval()
    twin.tie_weights()
    ids = torch.randint(len(tokenizer), (2, recipe.packed_length), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        gap = float((twin(input_ids=ids).logits - model(ids)[0]).abs().max())
    if gap > TOLERANCE:
        raise ValueError(f"transformers' logits differ from the trained model's by {gap:.2g}")
    twin.generation_config = GenerationConfig(
        bos_token_id=config.bos_token_id,
        eos_token_id=config.eos_token_id,
        pad_token_id=config.pad_token_id,
    )
    return twin


def write_folder(twin: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, folder: Path = FOLDER) -> None:
    """Write configuration, weights and tokenizer; nothing in them needs special code to load."""
    folder.mkdir(parents=True, exist_ok=True)
    twin.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)
    # Neither the library's version of the day nor its name for the tokenizer class is a property of the model.
    _amend(folder / "config.json", drop="transformers_version")
    _amend(folder / "generation_config.json", drop="transformers_version")
    _amend(folder / "tokenizer_config.json", drop="backend", tokenizer_class="PreTrainedTokenizerFast")


def _amend(path: Path, *, drop: str, **changes: str) -> None:
    settings = json.loads(path.read_text(encoding="utf-8")) | changes
    settings.pop(drop, None)
    path.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", encoding="utf-8")
