"""The measurement behind the model card: every held-out figure, from the shipped folder alone."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from demo_scores import Accuracy, Entropy, accuracy, entropy, held_out_stories, held_out_tasks

TASK_SEED = 101
STORY_SEED = 202
N_PER_TASK = 500
N_STORIES = 1000
GREEDY_PROMPT = "The cat sat on the"
GREEDY_ANSWER = " mat and looked at the dog."


@dataclass(frozen=True, slots=True)
class Report:
    """Accuracies and entropies on held-out documents, and the greedy continuation of `GREEDY_PROMPT`."""

    accuracies: tuple[Accuracy, ...]
    stories: Entropy
    greedy: str

    def as_dict(self) -> dict[str, object]:
        return {
            "accuracies": [accuracy.as_dict() for accuracy in self.accuracies],
            "stories": self.stories.as_dict(),
            "greedy": {"prompt": GREEDY_PROMPT, "continuation": self.greedy},
            "seeds": {"tasks": TASK_SEED, "stories": STORY_SEED},
        }

    def as_table(self) -> str:
        """The figures as Markdown."""
        lines = ["| held-out task | n | exact match | 95 % interval |", "|---|---:|---:|---:|"]
        for score in self.accuracies:
            low, high = score.interval
            lines.append(f"| {score.task} | {score.n} | {score.share:.1%} | {low:.1%} to {high:.1%} |")
        stories = self.stories
        per_token = stories.n / stories.n_tokens
        lines += [
            "",
            "| held-out stories | nats a story | nats a token |",
            "|---|---:|---:|",
            *(
                f"| {source} | {nats:.3f} | {nats * per_token:.4f} |"
                for source, nats in (("the grammar", stories.grammar_nats), ("the model", stories.model_nats))
            ),
            f"| excess of the model | {stories.excess:.2%} | |",
            "",
            f"n = {stories.n} stories, {stories.n_tokens} predicted tokens.",
            "",
            f"Greedy after `{GREEDY_PROMPT}`: `{self.greedy}`",
        ]
        return "\n".join(lines)


def measure(folder: Path, *, n_per_task: int = N_PER_TASK, n_stories: int = N_STORIES) -> Report:
    """Measure the model in `folder`; progress goes to stderr. Takes a minute or two on two cores."""
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model.eval()
    accuracies = []
    for task, documents in held_out_tasks(n_per_task, TASK_SEED).items():
        accuracies.append(accuracy(model, tokenizer, task, documents))
        print(f"{task}: {accuracies[-1].share:.1%} of {n_per_task}", file=sys.stderr, flush=True)
    stories = entropy(model, tokenizer, "story", held_out_stories(n_stories, STORY_SEED))
    inputs = tokenizer(GREEDY_PROMPT, return_tensors="pt")
    n_expected = len(tokenizer(GREEDY_ANSWER)["input_ids"])
    with torch.inference_mode():
        output = model.generate(**inputs, max_new_tokens=n_expected, do_sample=False)
    greedy = tokenizer.decode(output[0, inputs["input_ids"].shape[1] :])
    return Report(tuple(accuracies), stories, greedy)
