"""Held-out scores of the demo model: exact-match accuracies, and cross-entropy beside the true entropy."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from random import Random

import torch
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tokentape.world import Document, Kind, next_words, question_program, sample

BATCH = 100
MAX_ANSWER_TOKENS = 24
IGNORED = -100


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Share of greedy answers that equal the right one exactly, end of text included, with a 95 % interval.

    The interval is Wilson's (1927, doi:10.1080/01621459.1927.10502953).
    """

    task: str
    n: int
    n_right: int

    @property
    def share(self) -> float:
        return self.n_right / self.n

    @property
    def interval(self) -> tuple[float, float]:
        z, share = 1.959964, self.share
        centre = share + z * z / (2 * self.n)
        spread = z * math.sqrt(share * (1 - share) / self.n + z * z / (4 * self.n**2))
        return (centre - spread) / (1 + z * z / self.n), (centre + spread) / (1 + z * z / self.n)

    def as_dict(self) -> dict[str, object]:
        return asdict(self) | {"share": self.share, "interval_95": self.interval}


@dataclass(frozen=True, slots=True)
class Entropy:
    """Mean nats a document, its end included, on held-out documents: the model's and the grammar's own."""

    kind: str
    n: int
    n_tokens: int
    model_nats: float
    grammar_nats: float

    @property
    def excess(self) -> float:
        """Relative excess of the model's cross-entropy over the grammar's on the same texts."""
        return self.model_nats / self.grammar_nats - 1.0

    def as_dict(self) -> dict[str, object]:
        return asdict(self) | {"excess": self.excess}


def held_out_tasks(n: int, seed: int) -> dict[str, list[Document]]:
    """`n` different held-out documents for each task, the same ones for the same seed."""
    rng = Random(seed)
    tasks = {
        "translation, English to Chinese": _different(n, rng, "translation", "\nChinese:"),
        "translation, Chinese to English": _different(n, rng, "translation", "\nEnglish:"),
        "review, sentiment": _different(n, rng, "review", "\nSentiment:"),
        "review, topic": _different(n, rng, "review", "\nTopic:"),
    }
    for n_facts in (1, 2, 3, 4):
        program = question_program(n_facts)
        texts: dict[str, Document] = {}
        while len(texts) < n:
            document = sample("question", rng, "held_out", program=program)
            texts.setdefault(document.text, document)
        tasks[f"question, {n_facts} fact{'s' if n_facts > 1 else ''}"] = list(texts.values())
    return tasks


def held_out_stories(n: int, seed: int) -> list[Document]:
    """`n` held-out stories, drawn from the grammar given that their combination is held out."""
    rng = Random(seed)
    return [sample("story", rng, "held_out") for _ in range(n)]


def _different(n: int, rng: Random, kind: Kind, ending: str) -> list[Document]:
    texts: dict[str, Document] = {}
    while len(texts) < n:
        document = sample(kind, rng, "held_out")
        if document.prompt.endswith(ending):
            texts.setdefault(document.text, document)
    return list(texts.values())


@torch.inference_mode()
def accuracy(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, task: str, documents: Sequence[Document]
) -> Accuracy:
    """Greedy generation after each prompt, compared with the answer and the end of text."""
    n_right = 0
    ordered = sorted(documents, key=lambda document: len(document.prompt))
    for start in range(0, len(ordered), BATCH):
        batch = ordered[start : start + BATCH]
        inputs = tokenizer([document.prompt for document in batch], return_tensors="pt", padding=True)
        length = inputs["input_ids"].shape[1]
        output = model.generate(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            max_new_tokens=MAX_ANSWER_TOKENS,
            do_sample=False,
            pad_token_id=tokenizer.pad_token_id,
        )
        for document, ids in zip(batch, output[:, length:].tolist(), strict=True):
            if tokenizer.eos_token_id in ids:
                n_right += tokenizer.decode(ids[: ids.index(tokenizer.eos_token_id)]) == document.answer
    return Accuracy(task, len(documents), n_right)


@torch.inference_mode()
def entropy(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, kind: Kind, documents: Sequence[Document]
) -> Entropy:
    """Cross-entropy of whole documents but for their first token, beside the grammar's.

    A model without a start token cannot predict the first token of a bare text, so on both sides the
    probability is that of the rest given the first token.
    """
    first_words = next_words("", kind)
    opening = re.compile("|".join(map(re.escape, sorted(first_words, key=len, reverse=True))))
    model_nats = grammar_nats = 0.0
    n_tokens = 0
    for start in range(0, len(documents), BATCH):
        texts = [document.text for document in documents[start : start + BATCH]]
        rows = [[*tokenizer(text)["input_ids"], tokenizer.eos_token_id] for text in texts]
        longest = max(map(len, rows))
        ids = torch.tensor([row + [IGNORED] * (longest - len(row)) for row in rows])
        logits = model(input_ids=ids.clamp(min=0)).logits[:, :-1]
        losses = cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), ignore_index=IGNORED, reduction="sum")
        model_nats += float(losses)
        n_tokens += sum(map(len, rows)) - len(rows)
        for document in documents[start : start + BATCH]:
            first = opening.match(document.text)
            if first is None or len(tokenizer(first.group())["input_ids"]) != 1:
                raise ValueError(f"the first word of {document.text!r} is not one token")
            grammar_nats -= document.logprob - math.log(first_words[first.group()])
    return Entropy(kind, len(documents), n_tokens, model_nats / len(documents), grammar_nats / len(documents))
