"""Training of the demo model: cycles of data and rate, Muon and AdamW, one auxiliary loss that is dropped midway."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional as F

from demo_corpus import Batch, Corpus, Vocabulary
from demo_recipe import BINDING_SHARES, Cycle, Recipe
from fast_bloom import FastBloom

REPORT_EVERY = 50


@dataclass(frozen=True, slots=True)
class Point:
    """A point of the loss curve, each loss a mean over the steps since the last one, in nats a token."""

    step: int
    seconds: float
    loss: float
    auxiliary_loss: float


class LatestNoun(nn.Module):
    """The auxiliary task: from the first block's output, name the latest name and the latest place or thing.

    Binding a name to its fact takes two blocks: one brings the name to the fact's last word and to the end of
    the question, a later one matches the two. Neither pays without the other, so plain training waits long for
    both by chance; this loss asks for the first directly. It says nothing about the attention of any head.
    """

    def __init__(self, width: int, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.vocabulary = vocabulary
        self.readers = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(2))

    def forward(self, ids: Tensor, first: Tensor, embeddings: Tensor) -> Tensor:
        width, loss = first.shape[-1], torch.zeros(())
        for reader, table in zip(self.readers, (self.vocabulary.name_of, self.vocabulary.noun_of), strict=True):
            wanted = self._latest(ids, table[ids])
            chosen = wanted >= 0
            if not bool(chosen.any()):
                continue
            read = F.layer_norm(reader(F.layer_norm(first[chosen], (width,))), (width,))
            nouns = table[table >= 0].unique()
            loss = loss + F.cross_entropy(F.linear(read, embeddings[nouns]), torch.searchsorted(nouns, wanted[chosen]))
        return loss

    def _latest(self, ids: Tensor, nouns: Tensor) -> Tensor:
        """At each position the latest noun of its story or of its question, -1 where there is none so far."""
        positions = torch.arange(ids.shape[1]).expand_as(ids)
        opens = (ids == self.vocabulary.question) | (ids == self.vocabulary.end)
        opened = torch.where(opens, positions, -1).cummax(1).values
        named = torch.where(nouns >= 0, positions, -1).cummax(1).values
        found = torch.where(named > opened, nouns.gather(1, named.clamp(min=0)), -1)
        return torch.where(ids == self.vocabulary.pad, -1, found)


def train(model: FastBloom, tokenizer: Tokenizer, recipe: Recipe) -> Iterator[Point]:
    """Train in place, cycle by cycle; yields a point of the loss curve every `REPORT_EVERY` steps."""
    torch.set_num_threads(recipe.n_threads)
    started, n_steps, done = time.perf_counter(), sum(cycle.n_steps for cycle in recipe.cycles), 0
    for cycle in recipe.cycles:
        corpus = Corpus(tokenizer, recipe, cycle.seed, cycle.opening_weight)
        for step, loss, extra in _train_cycle(model, corpus, recipe, cycle):
            seconds = time.perf_counter() - started
            left = seconds / (done + step) * (n_steps - done - step) / 60
            print(
                f"step {done + step}/{n_steps}  loss {loss:.4f}  auxiliary {extra:.3f}  "
                f"{seconds / 60:.1f} min, {left:.0f} min left",
                file=sys.stderr,
                flush=True,
            )
            yield Point(done + step, seconds, loss, extra)
        done += cycle.n_steps


def _train_cycle(model: FastBloom, corpus: Corpus, recipe: Recipe, cycle: Cycle) -> Iterator[tuple[int, float, float]]:
    """Step, mean loss and mean auxiliary loss, every `REPORT_EVERY` steps."""
    auxiliary = LatestNoun(recipe.width, corpus.vocabulary)
    optimizers = _optimizers(model, auxiliary, recipe, cycle)
    rates = [[group["lr"] for group in optimizer.param_groups] for optimizer in optimizers]
    losses = auxiliary_losses = 0.0
    for step, batch in enumerate(_batches(corpus, recipe, cycle), start=1):
        for optimizer, own in zip(optimizers, rates, strict=True):
            for group, rate in zip(optimizer.param_groups, own, strict=True):
                group["lr"] = rate * _schedule(step, recipe, cycle)
        loss, extra = _losses(model, auxiliary, batch, active=step <= cycle.auxiliary_steps)
        (loss + recipe.auxiliary_weight * extra).backward()
        nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        losses += loss.item()
        auxiliary_losses += extra.item()
        if step % REPORT_EVERY == 0:
            yield step, losses / REPORT_EVERY, auxiliary_losses / REPORT_EVERY
            losses = auxiliary_losses = 0.0


def _batches(corpus: Corpus, recipe: Recipe, cycle: Cycle) -> Iterator[Batch]:
    for start in range(0, cycle.n_steps, recipe.steps_per_chapter):
        binding = start < cycle.binding_steps
        batches = corpus.chapter(BINDING_SHARES if binding else cycle.shares, packed=not binding)
        for _, batch in zip(range(min(recipe.steps_per_chapter, cycle.n_steps - start)), batches, strict=False):
            yield batch


def _losses(model: FastBloom, auxiliary: LatestNoun, batch: Batch, *, active: bool) -> tuple[Tensor, Tensor]:
    logits, first = model(batch.ids)
    weights = batch.weights[:, 1:].flatten()
    losses = F.cross_entropy(logits[:, :-1].flatten(0, 1), batch.ids[:, 1:].flatten(), reduction="none")
    extra = auxiliary(batch.ids, first, model.transformer.word_embeddings.weight) if active else torch.zeros(())
    return (losses * weights).sum() / weights.sum(), extra


def _optimizers(model: FastBloom, auxiliary: LatestNoun, recipe: Recipe, cycle: Cycle) -> list[torch.optim.Optimizer]:
    """Muon (Jordan et al. 2024) for the matrices of the blocks, AdamW for embeddings, norms, biases and readers."""
    matrices = [parameter for parameter in model.transformer.h.parameters() if parameter.dim() == 2]
    chosen = {id(parameter) for parameter in matrices}
    others = [parameter for parameter in model.parameters() if id(parameter) not in chosen]
    return [
        torch.optim.Muon(matrices, lr=cycle.muon_rate, momentum=0.95, weight_decay=recipe.weight_decay),
        torch.optim.AdamW([*others, *auxiliary.parameters()], lr=cycle.adam_rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def _schedule(step: int, recipe: Recipe, cycle: Cycle) -> float:
    """Linear warm-up, a plateau, then a linear decay to zero over the last `decay_share` of the cycle."""
    left = (cycle.n_steps - step) / (cycle.n_steps * cycle.decay_share)
    return min(1.0, step / recipe.warmup_steps, left)
