"""Make the demo model: `python tools/train_demo.py`. No arguments, fixed seeds, two cores, under an hour.

Samples text from the grammar, trains the tokenizer and the model, writes the folder, measures it on held-out
documents and writes the model card with the loss curve.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

import torch

from demo_card import Size, write_card
from demo_folder import FOLDER, as_transformers, write_folder
from demo_recipe import Recipe
from demo_report import measure
from demo_tokenizer import train_tokenizer
from demo_training import train
from fast_bloom import FastBloom


def main() -> None:
    recipe, started = Recipe(), time.perf_counter()
    torch.manual_seed(recipe.seed)
    torch.use_deterministic_algorithms(True)
    tokenizer = train_tokenizer(recipe.seed, recipe.n_positions)
    model = FastBloom(len(tokenizer), recipe.width, recipe.n_layers, recipe.n_heads)
    n_parameters = sum(parameter.numel() for parameter in model.parameters())
    print(f"{n_parameters} parameters, {len(tokenizer)} tokens", file=sys.stderr, flush=True)
    curve = list(train(model, tokenizer.backend_tokenizer, recipe))
    write_folder(as_transformers(model, tokenizer, recipe), tokenizer)
    minutes = (time.perf_counter() - started) / 60
    write_card(FOLDER, recipe, measure(FOLDER), curve, Size(n_parameters, len(tokenizer), minutes))


if __name__ == "__main__":
    main()
