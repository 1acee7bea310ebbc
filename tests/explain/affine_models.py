"""The sequence that affine maps are tried on, and models whose vectors are all drawn: a bias that is zero would be booked
rightly by any code.
"""

from __future__ import annotations

from functools import partial

import lively
import torch

from tokentape.explain.replay import Replay

IDS = (5, 9, 30, 41, 77, 80, 99, 3, 17, 60, 2, 200, 13)
N_PROMPT = 6
NOISE = 0.1

drawn = partial(lively.drawn, noise=NOISE)
causal = partial(lively.lively, noise=NOISE)


def replay(family: str, dtype: torch.dtype = torch.float32) -> Replay:
    return Replay(causal(family, dtype), IDS, N_PROMPT)
