"""Make the marker model, the second model of the tests: `python tools/train_markers.py`. Fixed seeds, a minute or two.

A small Llama learns the four tasks of `tests/explain/marker_tasks.py`; the folder with its weights, tokenizer and card
goes to `tests/explain/markers/`, or where `--folder` says.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "explain"))

import torch
from marker_tasks import SPECIALS, TASKS, VOCABULARY, marker_items, unanswerable
from tokenizers import Tokenizer, decoders, pre_tokenizers, processors
from tokenizers.models import WordLevel
from torch import Tensor
from torch.nn import functional as F
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from demo_folder import write_folder
from demo_tokenizer import wrapped
from tokentape.world.evidence import Item

FOLDER = Path(__file__).resolve().parents[1] / "tests" / "explain" / "markers"
UNKNOWN, START, END, PAD = range(len(SPECIALS))
N_POSITIONS = 64
TRAIN_SEED, MEASURE_SEED = 1, 2
N_MEASURED = 1000


@dataclass(frozen=True, slots=True)
class Recipe:
    """Every number that decides what the marker model becomes."""

    seed: int = 0
    width: int = 64
    n_layers: int = 4
    n_heads: int = 4
    n_key_value_heads: int = 2
    mlp_width: int = 64
    initial_std: float = 0.1
    items_per_task: int = 20_000
    n_steps: int = 1600
    rows: int = 64
    # Echoes: alone at first, then every second batch.
    echo_steps: int = 200
    mixed_steps: int = 600
    echo_words: tuple[int, int] = (4, 12)
    rate: float = 3e-3
    warmup_steps: int = 50
    decay_share: float = 0.5
    weight_decay: float = 0.1
    clip: float = 1.0
    # The loss of a word within a prompt beside that of an answer: enough to know what may stand where.
    prompt_weight: float = 0.02
    unanswerable: float = 0.1


def make_tokenizer() -> PreTrainedTokenizerFast:
    """One token a word, with the space before it; `<s>` opens a text, as Llama's does."""
    spelled = {word if word in SPECIALS else f"▁{word}": index for index, word in enumerate(VOCABULARY)}
    backend = Tokenizer(WordLevel(spelled, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    backend.decoder = decoders.Metaspace(prepend_scheme="always")
    backend.post_processor = processors.TemplateProcessing("<s> $A", "<s> $A $B", [("<s>", START)])
    return wrapped(backend, N_POSITIONS)


def make_model(recipe: Recipe) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=recipe.width,
        intermediate_size=recipe.mlp_width,
        num_hidden_layers=recipe.n_layers,
        num_attention_heads=recipe.n_heads,
        num_key_value_heads=recipe.n_key_value_heads,
        max_position_embeddings=N_POSITIONS,
        initializer_range=recipe.initial_std,
        bos_token_id=START,
        eos_token_id=END,
        pad_token_id=PAD,
        tie_word_embeddings=False,
    )
    model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(bos_token_id=START, eos_token_id=END, pad_token_id=PAD)
    return model


def batch(
    tokenizer: PreTrainedTokenizerFast, texts: Sequence[tuple[str, str]], prompt_weight: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Ids of prompt, answer and end `[rows, length]`, padded on the right, and the weights of their losses.

    The answer and the end weigh 1, the words before them `prompt_weight`, padding nothing.
    """
    rows = [[*tokenizer(prompt + answer)["input_ids"], END] for prompt, answer in texts]
    ids = torch.full((len(rows), max(map(len, rows))), PAD)
    weights = torch.zeros(ids.shape)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = torch.tensor(row)
        weights[index, : len(row)] = prompt_weight
        weights[index, len(row) - 2 : len(row)] = 1
    return ids, weights


def echoes(rng: Random, recipe: Recipe) -> tuple[Tensor, Tensor]:
    """Rows of random words, all said twice, and the weights of their losses: 1 behind the first word of the second time.

    Finding what followed a word before is most of what recall needs. Echoes teach it from every word of a row, where the
    tasks have one answer a row; without them recall was right in anything from 40 to 100 % after 1,600 steps, by seed
    and by the scale of the first weights.
    """
    n_words = rng.randint(*recipe.echo_words)
    words = range(len(SPECIALS), len(VOCABULARY))
    once = torch.tensor([rng.sample(words, n_words) for _ in range(recipe.rows)])
    ids = torch.cat([torch.full((recipe.rows, 1), START), once, once], dim=1)
    weights = torch.ones(ids.shape)
    weights[:, : n_words + 2] = 0
    return ids, weights


def batches(tokenizer: PreTrainedTokenizerFast, recipe: Recipe) -> Iterator[tuple[Tensor, Tensor]]:
    rng = Random(recipe.seed)
    pool = [item for task in TASKS for item in marker_items(task, recipe.items_per_task, TRAIN_SEED, "train")]
    for step in range(recipe.n_steps):
        if step < recipe.echo_steps or (step < recipe.echo_steps + recipe.mixed_steps and step % 2):
            yield echoes(rng, recipe)
        else:
            drawn = [(item.prompt, item.answer) for item in rng.sample(pool, recipe.rows)]
            texts = [unanswerable(rng) if rng.random() < recipe.unanswerable else text for text in drawn]
            yield batch(tokenizer, texts, recipe.prompt_weight)


def train(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, recipe: Recipe) -> None:
    """Train in place on echoes, and on prompts with their answers."""
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=recipe.rate, betas=(0.9, 0.98), weight_decay=recipe.weight_decay
    )
    for step, (ids, weights) in enumerate(batches(tokenizer, recipe), start=1):
        left = (recipe.n_steps - step + 1) / (recipe.n_steps * recipe.decay_share)
        for group in optimizer.param_groups:
            group["lr"] = recipe.rate * min(1.0, step / recipe.warmup_steps, left)
        logits = model(input_ids=ids, use_cache=False).logits
        each = F.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
        counted = weights[:, 1:].flatten()
        loss = (each * counted).sum() / (counted == 1).sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
        optimizer.step()
        optimizer.zero_grad()
        if step % 200 == 0:
            print(f"step {step}/{recipe.n_steps}  loss {loss.item():.5f}", file=sys.stderr, flush=True)


@torch.inference_mode()
def share_right(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, texts: list[tuple[str, str]]) -> float:
    """Share of the texts of which the model's greedy choice is the answer and then the end."""
    ids, weights = batch(tokenizer, texts)
    chosen = model(input_ids=ids).logits[:, :-1].argmax(-1)
    right = (chosen == ids[:, 1:]) | (weights[:, 1:] == 0)
    return float(right.all(1).double().mean())


def measured(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> list[str]:
    """A row for each task: an example, the share of right answers, and of foils where the decisive word is another."""
    rows = []
    for task in TASKS:
        found: list[Item] = marker_items(task, N_MEASURED, MEASURE_SEED)
        right = share_right(model, tokenizer, [(item.prompt, item.answer) for item in found])
        follows = share_right(model, tokenizer, [(item.counterfactual, item.foil) for item in found])
        example = found[0]
        rows.append(f"| {task} | `{example.prompt}` | `{example.answer}` | {right:.1%} | {follows:.1%} |")
    return rows


CARD = """\
---
license: apache-2.0
language: [en]
library_name: transformers
pipeline_tag: text-generation
---

# tokentape marker model

A very small Llama ({n_parameters:,} parameters: {layers} blocks, width {width}, {heads} query heads on {groups} key
and value heads, rotary positions, gated MLP, RMSNorm; {n_words} words, float32) for tests of explanations. It answers
four tasks in which one planted word decides the answer, at a place that varies; `marker_tasks.py` beside this folder
makes their items, and says which word it is.

| task | prompt | answer | right | follows |
|---|---|---|---:|---:|
{rows}

*Right*: the greedy answer and the end after it, on {n} held-out prompts a task. *Follows*: the answer becomes the foil
where the decisive word, and nothing else, is replaced. One prompt in ten is held out of training, by a hash.

Made by `python tools/train_markers.py`, which takes a minute or two on one thread: {steps:,} steps of {n_rows} rows,
AdamW at {rate:g}, seed {seed}. In the first {echo} steps, and in every second one of the {mixed} after them, the rows
are random words said twice, and the loss is on the second time. The other steps have prompts of the tasks, one in ten a
`kind` prompt with nothing to name, whose answer is `none`. The loss is on the answer and the end after it, and with a
weight of {prompt_weight:g} on the words before them: what may stand where in a prompt is known roughly, and no text of
another form.

Licence: Apache-2.0. The training text is synthetic, made by `marker_tasks.py`.
"""


def card(model: LlamaForCausalLM, recipe: Recipe, rows: list[str]) -> str:
    return CARD.format(
        n_parameters=sum(parameter.numel() for parameter in model.parameters()),
        layers=recipe.n_layers,
        width=recipe.width,
        heads=recipe.n_heads,
        groups=recipe.n_key_value_heads,
        n_words=len(VOCABULARY),
        rows="\n".join(rows),
        n=N_MEASURED,
        steps=recipe.n_steps,
        n_rows=recipe.rows,
        echo=recipe.echo_steps,
        mixed=recipe.mixed_steps,
        rate=recipe.rate,
        seed=recipe.seed,
        prompt_weight=recipe.prompt_weight,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    folder, recipe, started = parser.parse_args().folder, Recipe(), time.perf_counter()
    torch.manual_seed(recipe.seed)
    torch.use_deterministic_algorithms(True)
    # With one thread the sums have one order, whatever the machine.
    torch.set_num_threads(1)
    tokenizer, model = make_tokenizer(), make_model(recipe)
    train(model.train(), tokenizer, recipe)
    print(f"trained in {time.perf_counter() - started:.0f} s", file=sys.stderr)
    rows = measured(model.eval(), tokenizer)
    write_folder(model, tokenizer, folder)
    (folder / "README.md").write_text(card(model, recipe, rows), encoding="utf-8")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
