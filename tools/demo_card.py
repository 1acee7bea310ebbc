"""The model card, written from measurements and from the recipe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from demo_recipe import Cycle, Recipe
from demo_report import STORY_SEED, TASK_SEED, Report
from demo_training import Point

CARD = """---
license: apache-2.0
language: [en, zh]
library_name: transformers
pipeline_tag: text-generation
---

# tokentape demo model

A very small BLOOM ({n_parameters:,} parameters, {n_layers} blocks, width {width}, {n_heads} heads, vocabulary
{vocabulary}, float32) that tells little stories, translates English and Chinese sentences, labels reviews and
answers questions about stories, all in one small world. It ships with tokentape so that everything can be tried,
tested and measured offline, and because its world has known probabilities (`tokentape.world`) a measured
cross-entropy can be held against the true one.

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("src/tokentape/models/demo")
tokenizer = AutoTokenizer.from_pretrained("src/tokentape/models/demo")
```

## Prompts

| task | prompt | answer |
|---|---|---|
| story | `The cat sat on the` | ` mat and looked at the dog. ...` |
| translation | `English: The cat sat on the mat.\\nChinese:` | ` 猫坐在垫子上。` |
| translation | `Chinese: 猫坐在垫子上。\\nEnglish:` | ` The cat sat on the mat.` |
| sentiment | `Review: The soup was really excellent.\\nSentiment:` | ` positive` |
| topic | `Review: The soup was really excellent.\\nTopic:` | ` food` |
| question | `Story: Tom went to the park. Anna has a kite.\\nQuestion: Where is Tom?\\nAnswer:` | ` the park` |

Documents end with `</s>`; nothing precedes one, so a bare prompt at position 0 is what the model was trained on.

## Measured on held-out documents

`python tools/evaluate_demo.py` prints these figures again from this folder. Greedy decoding; an answer is right
when it and the end of text after it match exactly. Every document contains a combination of words that no
training text contains: subject, verb and object of a translated sentence; noun and adjective of a review; name
and place or thing of the asked fact; the animals and places or the people and things of a story. One combination
in ten is held out, by a hash. Seeds: {task_seed} for the tasks, {story_seed} for the stories.

{table}

The entropies are of whole stories, their end included, given their first word (nothing precedes a bare text, so
its first token has no probability under the model). The grammar's own figure is the mean of its exact -ln p on
these very texts. That p is the whole grammar's; the training text follows it given that no held-out combination
occurs, a difference of at most ln(1 / 0.9) = 0.105 nats a story, and one that no model can use without knowing
which combinations are held out.

## How it was made

`python tools/train_demo.py`, no arguments, seed {seed}.
{machine}
Training took {minutes:.0f} minutes.

- Text: {n_steps:,} steps of about {tokens:,} tokens of freshly sampled documents. At first only stories and
  questions, some with every fact told again or with a question for every fact; then the whole world,
  {packed:.0%} of the documents packed into rows of up to {packed_length} tokens. Only the last cycle also teaches how the
  next document in a row opens.
- Loss: cross-entropy, answers weighing {answer_weight:g}, prompts {prompt_weight:g}, stories 1. At first an auxiliary
  loss (weight {auxiliary_weight:g}) asks the output of the first block for the latest name and the latest place or
  thing of the story or of the question, through two linear readers that are thrown away. It does not look at
  attention. Without it, questions about two facts and more were still answered at chance after 1,200 steps,
  the longest that was tried; with it, they were above 90 % right after 500.
- Optimisers: Muon for the matrices of the blocks, AdamW for the rest, afresh for each cycle of the table below;
  {warmup_steps} steps of warm-up, then a plateau, then linear decay to zero. Mimetic initialisation
  (arXiv:2305.09828).
- Tokenizer: byte-level BPE with BLOOM's pre-tokenisation, trained on the list of the world's words.

| cycle | seed | steps | questions and stories only | auxiliary loss | Muon rate | AdamW rate | decay | stories |
|---:|---:|---:|---:|---:|---:|---:|---:|---:|
{cycles}

### Loss curve

Weighted training loss in nats a token, a mean over the steps since the point before.

| step | minutes | loss | auxiliary loss |
|---:|---:|---:|---:|
{curve}

```text
{chart}
```

## Limits

It knows a few hundred words and some dozens of sentence patterns, and nothing of the real world: outside its
grammar its answers mean nothing. Questions have one to four facts. It was trained on rows of up to {packed_length}
tokens; its positions (ALiBi) reach further, its sense does not. Do not use it for anything but trying tools.

Licence: Apache-2.0. The training text is synthetic and made by the grammar in this repository.
"""
MACHINE = "Machine: two cores of an x86-64 server processor with AVX2, no GPU, shared with other work at the time."
N_CURVE_ROWS = 16
CHART_ROWS = 10


@dataclass(frozen=True, slots=True)
class Size:
    """What a run came to: parameters, vocabulary, and minutes of training."""

    n_parameters: int
    n_tokens: int
    minutes: float


def write_card(folder: Path, recipe: Recipe, report: Report, curve: Sequence[Point], size: Size) -> None:
    """Write `README.md` into the model's folder."""
    stride = max(1, len(curve) // N_CURVE_ROWS)
    chosen = [*curve[:-1:stride], curve[-1]]
    rows = [f"| {p.step} | {p.seconds / 60:.1f} | {p.loss:.4f} | {_auxiliary(p)} |" for p in chosen]
    text = CARD.format(
        n_parameters=size.n_parameters,
        n_layers=recipe.n_layers,
        width=recipe.width,
        n_heads=recipe.n_heads,
        vocabulary=size.n_tokens,
        task_seed=TASK_SEED,
        story_seed=STORY_SEED,
        table=report.as_table(),
        seed=recipe.seed,
        machine=MACHINE,
        minutes=size.minutes,
        n_steps=sum(cycle.n_steps for cycle in recipe.cycles),
        tokens=recipe.tokens_per_step,
        packed=recipe.packed_share,
        packed_length=recipe.packed_length,
        answer_weight=recipe.answer_weight,
        prompt_weight=recipe.prompt_weight,
        auxiliary_weight=recipe.auxiliary_weight,
        warmup_steps=recipe.warmup_steps,
        cycles="\n".join(_cycle_row(number, cycle) for number, cycle in enumerate(recipe.cycles, start=1)),
        curve="\n".join(rows),
        chart=chart([point.loss for point in curve[::2]]),
    )
    (folder / "README.md").write_text(text, encoding="utf-8")


def _auxiliary(point: Point) -> str:
    return f"{point.auxiliary_loss:.3f}" if point.auxiliary_loss else "off"


def _cycle_row(number: int, cycle: Cycle) -> str:
    return (
        f"| {number} | {cycle.seed} | {cycle.n_steps} | {cycle.binding_steps} | {cycle.auxiliary_steps} "
        f"| {cycle.muon_rate:g} | {cycle.adam_rate:g} | last {cycle.decay_share:.0%} "
        f"| {cycle.shares['story']:.0%} |"
    )


def chart(losses: Sequence[float]) -> str:
    """The losses over time as columns of characters, `CHART_ROWS` high, from zero to the largest loss."""
    top = max(losses)
    heights = [round(loss / top * CHART_ROWS) for loss in losses]
    lines = []
    for row in range(CHART_ROWS, 0, -1):
        label = f"{top * row / CHART_ROWS:6.2f} |"
        lines.append(label + "".join("#" if height >= row else " " for height in heights).rstrip())
    return "\n".join([*lines, f"{0:6.2f} +" + "-" * len(losses)])
