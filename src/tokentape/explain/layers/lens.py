"""The logit lens: what each layer would have said, had the model ended there.

Source: nostalgebraist, "interpreting GPT: the logit lens", LessWrong 2020. The residual stream behind a block is given to
what stands behind the last block; KL divergence and entropy along the layers as in N. Belrose et al., "Eliciting Latent
Predictions from Transformers with the Tuned Lens", 2023, section 2. An early layer need not speak the language of the last:
a rank that is poor there proves no ignorance.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from tokentape.data.layers import Lens
from tokentape.errors import UsageError
from tokentape.explain.layers.tail import ELEMENTS, Stream, Tail, residual_stream, tail_of
from tokentape.explain.question import raised
from tokentape.explain.replay import Progress, Replay

__all__ = ["lens"]


def lens(
    replay: Replay, positions: Sequence[int] | None = None, top_k: int = 3, *, progress: Progress | None = None
) -> Lens:
    """What each layer says at ``positions`` (ascending; the tokens behind the prompt unless given).

    Layer 0 is what the first block reads, layer l what block l gives; the last is the model itself. The tail of the model
    is applied as it is, exactly, whatever it holds; ``top_k`` best tokens are kept of each layer. Never more than a few
    rows of logits are held at once. ``progress`` is told how many positions are done, and of how many. Raises UsageError for
    positions that are not there, ExplainError where the model has no residual stream to read or its last layer does not give
    its own logits, OutOfMemory.
    """
    asked = _positions(replay, positions)
    if top_k < 1:
        raise UsageError(f"the best {top_k} tokens of a layer", why="at least one is kept", fix="top_k=3")
    stream = residual_stream(replay, asked)
    tail = tail_of(replay, stream)
    chosen = torch.tensor([replay.ids[position] for position in asked], device=replay.causal.device)
    parts: list[dict[str, np.ndarray]] = []
    done = 0
    for logits, ids in _chunks(stream, tail, chosen, replay.causal.vocab_size):
        parts.append(_read(logits, ids, top_k))
        done += len(ids)
        if progress is not None:
            progress(done, len(asked))
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    named = {*columns["top_ids"].ravel().tolist(), *chosen.tolist()}
    masked = {name: np.ma.masked_invalid(column) for name, column in columns.items()}
    # ranks and ids are whole numbers even where the logits they come from are none
    for name, source in (("rank", "logprob"), ("final_rank", "entropy"), ("top_ids", "top_logprob")):
        masked[name] = np.ma.MaskedArray(columns[name], np.ma.getmaskarray(masked[source]))
    return Lens(
        positions=np.array(asked),
        ids=chosen.cpu().numpy(),
        **masked,
        pieces=replay.pieces_of(named),
        agreement=tail.agreement,
        check=replay.check,
    )


def _positions(replay: Replay, positions: Sequence[int] | None) -> list[int]:
    asked = list(range(max(1, replay.n_prompt), len(replay.ids))) if positions is None else list(positions)
    if not asked or asked != sorted(set(asked)) or not 1 <= asked[0] <= asked[-1] < len(replay.ids):
        raise UsageError(
            f"positions {asked[:8]} of a sequence of {len(replay.ids)} tokens",
            why="a layer is asked about a token that stands behind another, and each once, in ascending order",
            fix=f"positions of 1 to {len(replay.ids) - 1}",
        )
    return asked


def _chunks(
    stream: Stream, tail: Tail, chosen: torch.Tensor, vocab_size: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Logits ``[c, L + 1, V]`` and chosen ids ``[c]``, a few positions at a time."""
    size = max(1, ELEMENTS // (vocab_size * len(stream.states)))
    for start in range(0, len(chosen), size):
        device = stream.states[-1].device
        states = torch.stack([state[start : start + size].to(device) for state in stream.states], 1)
        with torch.no_grad():
            logits = tail.logits(states.flatten(0, 1))
        yield logits.unflatten(0, (-1, len(stream.states))), chosen[start : start + size]


@torch.no_grad()
def _read(logits: torch.Tensor, chosen: torch.Tensor, top_k: int) -> dict[str, np.ndarray]:
    """The columns of a Lens for logits ``[c, L + 1, V]`` and chosen ids ``[c]``."""
    z = raised(logits)
    logp = z.log_softmax(-1)
    entropy, kl = _compared(logp)
    last = z[:, -1].argmax(-1)
    top = logp.topk(min(top_k, z.shape[-1]), dim=-1)
    of_chosen, of_last = (_at(z, ids) for ids in (chosen, last))
    found = {
        "rank": 1 + (z > of_chosen).sum(-1, dtype=torch.int32),
        "final_rank": 1 + (z > of_last).sum(-1, dtype=torch.int32),
        "logprob": _at(logp, chosen).squeeze(-1),
        "entropy": entropy,
        "kl": kl,
        "top_ids": top.indices,
        "top_logprob": top.values,
    }
    return {
        name: column.cpu().numpy().astype(np.float64 if column.is_floating_point() else np.int64)
        for name, column in found.items()
    }


def _compared(logp: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Entropy, and KL divergence from the last layer, of log-probabilities ``[c, L + 1, V]``: both ``[c, L + 1]``."""
    p = logp.exp()
    if bool(logp.amin() > -torch.inf):  # not so for NaN either
        entropy = -(p * logp).sum(-1)
        crossed = -(logp @ p[:, -1, :, None]).squeeze(-1)
    else:  # what has no probability adds nothing, though its logarithm is infinite
        entropy = -torch.where(p == 0, 0, p * logp).sum(-1)
        crossed = -torch.where(p[:, -1:] == 0, 0, p[:, -1:] * logp).sum(-1)
    kl = (crossed - entropy[:, -1:]).clamp_min(0)
    kl[:, -1] = 0  # which rounding would leave a little above
    return entropy, kl


def _at(values: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """``[c, L + 1, 1]``: the values ``[c, L + 1, V]`` of one id for each position."""
    return values.gather(-1, ids.to(values.device).view(-1, 1, 1).expand(*values.shape[:2], 1))
