"""Rows of unequal length in one batch: padded on the left, and told from their padding again."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile

import torch

from tokentape.models.causal import CausalModel

__all__ = ["left_padded", "pad_id_of", "unpadded"]


def pad_id_of(causal: CausalModel) -> int:
    """The id that fills the left of shorter rows: what the model or its tokenizer names, else an end of text, else 0."""
    config, tokenizer = causal.model.generation_config, causal.tokenizer
    found = (config.pad_token_id, getattr(tokenizer, "pad_token_id", None), config.eos_token_id, 0)
    first = next(value for value in found if value is not None)
    return int(first[0] if isinstance(first, list) else first)


def left_padded(rows: Sequence[Sequence[int]], pad_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    """``[B, T]`` ids padded on the left, and their mask."""
    width = max(len(row) for row in rows)
    ids = torch.full((len(rows), width), pad_id, dtype=torch.long)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    for i, row in enumerate(rows):
        ids[i, width - len(row) :] = torch.tensor(row, dtype=torch.long)
        mask[i, width - len(row) :] = 1
    return ids, mask


def unpadded(ids: torch.Tensor, pad_id: int) -> list[list[int]]:
    """The rows of a left-padded batch ``[B, T]`` without their padding, where no mask tells.

    At least one row of a batch is the longest and has none: what it begins with is text even where it is the id that pads
    (an end of text that also opens one), and so it is in the other rows.
    """
    rows = ids.tolist()
    runs = [sum(1 for _ in takewhile(pad_id.__eq__, row)) for row in rows]
    return [row[run - min(runs) :] for row, run in zip(rows, runs, strict=True)]
