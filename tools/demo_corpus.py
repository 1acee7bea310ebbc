"""Token batches of the little world: fresh documents for each chapter of training, none of them held out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from random import Random

import torch
from tokenizers import Tokenizer
from torch import Tensor

from demo_recipe import Recipe
from tokentape.world import Kind, lexicon, question_program, sample

TOKENS_OF = {"story": 57, "translation": 16, "review": 13, "question": 24, "interview": 50, "reminded": 50}
"""Mean tokens a document, to turn shares of tokens into shares of documents."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Token ids `[rows, length]` and the loss weight of each, of the same shape; zero weight where padded."""

    ids: Tensor
    weights: Tensor


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The token ids that loss weights and the auxiliary targets need.

    `name_of` and `noun_of` `[vocabulary]` give, for the token of a name (of a place or thing), with or without
    a space before it, the token that has the space; -1 elsewhere.
    """

    end: int
    pad: int
    question: int
    markers: frozenset[int]
    """Tokens after which an answer begins, unless they open the document."""
    breaks: frozenset[int]
    name_of: Tensor
    noun_of: Tensor

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> Vocabulary:
        ids = tokenizer.get_vocab()
        words = {tokenizer.decode([index]): index for index in ids.values()}

        def table(nouns: tuple[str, ...]) -> Tensor:
            found = torch.full((len(ids),), -1)
            for noun in nouns:
                found[words[f" {noun}"]] = words[f" {noun}"]
                if noun in words:
                    found[words[noun]] = words[f" {noun}"]
            return found

        markers = ("Answer:", "Sentiment:", "Topic:", "English:", "Chinese:")
        breaks = frozenset(index for word, index in words.items() if "\n" in word)
        return cls(
            ids["</s>"],
            ids["<pad>"],
            words["Question:"],
            frozenset(words[marker] for marker in markers),
            breaks,
            table(lexicon.NAMES),
            table(lexicon.PLACES + lexicon.THINGS),
        )


class Corpus:
    """Endless chapters of training batches, the same ones for the same seed."""

    def __init__(self, tokenizer: Tokenizer, recipe: Recipe, seed: int, opening_weight: float = 0.0) -> None:
        self.tokenizer = tokenizer
        self.recipe = recipe
        self.vocabulary = Vocabulary.of(tokenizer)
        self._rng = Random(seed)
        self._opening_weight = opening_weight

    def chapter(self, shares: Mapping[str, float], *, packed: bool) -> Iterator[Batch]:
        """At least `steps_per_chapter` batches of fresh documents in the given shares of tokens."""
        wanted = self.recipe.steps_per_chapter * self.recipe.tokens_per_step * 1.15
        documents: list[tuple[list[int], list[float]]] = []
        for genre, share in shares.items():
            documents += self._documents(genre, int(wanted * share / TOKENS_OF[genre]))
        self._rng.shuffle(documents)
        n_packed = int(len(documents) * self.recipe.packed_share) if packed else 0
        rows = self._pack(documents[:n_packed]) + documents[n_packed:]
        rows.sort(key=lambda row: len(row[0]))
        batches = list(self._batches(rows))
        self._rng.shuffle(batches)
        yield from batches[: self.recipe.steps_per_chapter]

    def _documents(self, genre: str, n: int) -> list[tuple[list[int], list[float]]]:
        texts = [self._text(genre) for _ in range(n)]
        encoded = [[*encoding.ids, self.vocabulary.end] for encoding in self.tokenizer.encode_batch(texts)]
        return [(ids, self._weights(genre, ids)) for ids in encoded]

    def _text(self, genre: str) -> str:
        rng = self._rng
        if genre in ("interview", "reminded"):
            n_facts = rng.choice((2, 3, 3, 4))
            n_reminders = rng.choice((1, 2)) if genre == "reminded" else 0
            program = question_program(n_facts, 1 if genre == "reminded" else n_facts, n_reminders)
            return sample("question", rng, program=program).text
        kind: Kind = genre  # type: ignore[assignment]
        return sample(kind, rng).text

    def _weights(self, genre: str, ids: list[int]) -> list[float]:
        """The loss weight of each token as a target.

        In a row of several questions, whether another one follows says nothing about the single questions of
        the grammar, so the line break after an answer weighs nothing. A fact told again weighs as an answer.
        """
        if genre == "story":
            return [1.0] * len(ids)
        words, recipe = self.vocabulary, self.recipe
        weights, answering, seen = list[float](), False, set[int]()
        nouns = words.noun_of
        for index, token in enumerate(ids):
            ends_answer = answering and token in words.breaks
            weight = 0.0 if ends_answer else recipe.answer_weight if answering else recipe.prompt_weight
            if genre == "reminded" and token in seen and nouns[token] >= 0:
                weight = recipe.answer_weight
            weights.append(weight)
            seen.add(token)
            answering = (answering and not ends_answer) or (index > 0 and token in words.markers)
        return weights

    def _pack(self, documents: list[tuple[list[int], list[float]]]) -> list[tuple[list[int], list[float]]]:
        """Join documents into rows of up to `packed_length`, so that positions past one document are trained."""
        rows: list[tuple[list[int], list[float]]] = []
        for ids, weights in documents:
            if rows and len(rows[-1][0]) + len(ids) <= self.recipe.packed_length:
                rows[-1][0].extend(ids)
                rows[-1][1].extend([self._opening_weight, *weights[1:]])
            else:
                rows.append((list(ids), list(weights)))
        return rows

    def _batches(self, rows: list[tuple[list[int], list[float]]]) -> Iterator[Batch]:
        start = 0
        while start < len(rows):
            n_rows = 1
            while start + n_rows < len(rows) and (n_rows + 1) * len(rows[start + n_rows][0]) <= (
                self.recipe.tokens_per_step
            ):
                n_rows += 1
            chosen = rows[start : start + n_rows]
            longest = max(len(ids) for ids, _ in chosen)
            pad = self.vocabulary.pad
            yield Batch(
                torch.tensor([ids + [pad] * (longest - len(ids)) for ids, _ in chosen]),
                torch.tensor([weights + [0.0] * (longest - len(weights)) for _, weights in chosen]),
            )
            start += n_rows
