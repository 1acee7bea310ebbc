"""Rules that do what a test says, each a few lines: what any rule must look like."""

import contextlib
from dataclasses import dataclass, field

import torch

from tokentape.data.control import Decision, Outcome


class Named:
    name, believes, masks = "on paper", False, False

    def describe(self):
        return {"made": "by hand"}


class AllowAll(Named):
    masks = True

    def __call__(self, ids, scores):
        return scores.masked_fill(torch.zeros_like(scores, dtype=torch.bool), -torch.inf)


@dataclass
class Only(Named):
    """Allows, at the i-th new token of each row, the ids that ``allowed(row, i)`` gives; None for all."""

    allowed: object
    masks = True
    n_prompt: int | None = None

    def __call__(self, ids, scores):
        self.n_prompt = ids.shape[1] if self.n_prompt is None else self.n_prompt
        left = torch.full_like(scores, -torch.inf)
        for row in range(len(scores)):
            chosen = self.allowed(row, ids.shape[1] - self.n_prompt)
            at = slice(None) if chosen is None else torch.tensor(chosen, dtype=torch.long)
            left[row, at] = scores[row, at]
        return left


@dataclass
class Add(Named):
    """Adds to the logits, as guidance does."""

    amounts: torch.Tensor
    believes = True

    def __call__(self, ids, scores):
        return scores + self.amounts


@dataclass
class Spell(Only):
    """Leaves one way for the stretches of new tokens that ``forced_ids`` names by their first index, everything elsewhere."""

    forced_ids: dict = field(default_factory=dict)
    allowed: object = None

    def __post_init__(self):
        self.plan = {first + i: token for first, ids in self.forced_ids.items() for i, token in enumerate(ids)}
        self.allowed = lambda row, i: [self.plan[i]] if i in self.plan else None
        self.ended_at = None

    def forced(self, ids):
        self.n_prompt = ids.shape[1] if self.n_prompt is None else self.n_prompt
        at, found = ids.shape[1] - self.n_prompt, []
        while at in self.plan:
            found.append(self.plan[at])
            at += 1
        return found

    def outcomes(self, ids):
        return [Outcome(-1, "complete", True, f"{ids.shape[1] - self.n_prompt} tokens") for _ in ids]


@dataclass
class Forbid(Named):
    """Vetoes the ids of ``banned``, ends a sequence after one of ``last``."""

    banned: frozenset = frozenset()
    last: frozenset = frozenset()
    masks = True
    found: dict = field(default_factory=dict)
    closed: set = field(default_factory=set)

    def __call__(self, ids, scores):
        return scores

    def veto(self, row, token_id):
        if token_id in self.banned:
            self.found.setdefault(row, []).append(Decision(0, -1, "resample", 0, 0, "phrase 1"))
        return token_id in self.banned

    def accept(self, row, token_id):
        return token_id in self.last

    def close(self, row):
        if row not in self.closed:
            self.closed.add(row)
            self.found.setdefault(row, []).append(Decision(0, -1, "redact", 0, 1, "the end"))

    def decisions(self, row):
        return self.found.pop(row, [])


@dataclass
class Doubled(Named):
    """Doubles the logits by a hook on the model itself; ``inside`` tells whether it is attached."""

    model: object
    inside: bool = False
    quiet: bool = False

    def __call__(self, ids, scores):
        assert self.inside
        return scores

    def baseline(self, ids):
        self.quiet = True
        with torch.no_grad():
            logits = self.model(ids).logits[:, -1].float()
        self.quiet = False
        return logits

    @contextlib.contextmanager
    def attached(self, model):
        def double(module, args, output):
            output.logits = output.logits * (1 if self.quiet else 2)
            return output

        handle, self.inside = model.register_forward_hook(double), True
        try:
            yield
        finally:
            self.inside = False
            handle.remove()
