"""What the model believed at each generated token: entropy, surprise, rank, where the probability lay, what rules took away."""

from __future__ import annotations

import math
import shlex
import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tokentape.study.surprise import mean_surprise_nats, most_surprising, perplexity, surprises_nats
from tokentape.study.times import plain_values
from tokentape.views.page.parts import Part, missing
from tokentape.views.page.rounding import near, out_of, rounded
from tokentape.views.page.symbols import n_prompt_places
from tokentape.views.page.withheld import LetThrough
from tokentape.words.catalogue import Message

if TYPE_CHECKING:
    from tokentape.data.tape import Tape
    from tokentape.data.trace import Trace

__all__ = ["distribution_part"]

Array = npt.NDArray[np.float64]


def distribution_part(trace: Trace, tape: Tape) -> Part:
    """The part Distribution of one trace, as plain values: ``DistributionPart`` of ``web/src/document.ts``, or why there is none.

    What the columns of the tokens hold (entropy, surprise, rank, tokens allowed) is not said again here. ``bands`` are shares of
    the probability that add up to 1 at each token: of the candidates that were kept, by rank, and all the rest.
    """
    logprob, entropy = plain_values(trace.tokens["logprob"]), plain_values(trace.tokens["entropy"])
    if not any(value is not None for value in (*logprob, *entropy)):
        served = tape.setting.facts.get("engine") not in (None, "transformers")
        reason = "none" if not logprob else "no_logprobs" if served else "timing_only"
        run = None if served or not logprob else f"tokentape record {_model(tape)} PROMPT"
        return missing(Message(f"page_distribution.{reason}"), run)
    return {
        "caption": _caption(trace, entropy).as_dict(),
        "mean_entropy": rounded(_mean(entropy)),
        "mean_surprise": rounded(mean_surprise_nats([trace])),
        "rank_caption": _ranks(plain_values(trace.tokens["rank"])).as_dict(),
        "mass": missing(Message("page_distribution.withheld")) if isinstance(trace, LetThrough) else _mass(trace, tape),
        "rules": _rules(plain_values(trace.tokens["removed"]), plain_values(trace.tokens["allowed"])),
    }


def _caption(trace: Trace, entropy: Sequence[float | None]) -> Message:
    surprise = mean_surprise_nats([trace])
    most = most_surprising([trace])
    expected = _mean(entropy)
    known = sum(a is not None or b is not None for a, b in zip(entropy, surprises_nats(trace), strict=True))
    told: dict[str, Any] = {"n": known, "entropy": _nats(expected)}
    if surprise is None or most is None:
        return Message("page_distribution.caption_entropy", told)
    text = perplexity(surprise)
    told |= {
        "surprise": _nats(surprise),
        "perplexity": None if text is None else f"{text:,.3g}",
        "most": _nats(most.surprise_nats),
        "index": most.index,
        "place": str(n_prompt_places(trace) + most.index),
    }
    return Message("page_distribution.caption" if expected is not None else "page_distribution.caption_surprise", told)


def _ranks(ranks: Sequence[int | None]) -> Message:
    known = [rank for rank in ranks if rank is not None]
    if not known:
        return Message("page_distribution.no_ranks")
    best = sum(rank == 1 for rank in known)
    told = {"best": best, "n": len(known), "share": out_of(best, len(known)), "worst": max(known)}
    return Message("page_distribution.ranks", told)


def _model(tape: Tape) -> str:
    return shlex.quote(str(tape.setting.facts.get("model") or "MODEL"))


def _no_candidates(trace: Trace, tape: Tape) -> Part:
    """Why none were kept, and the command that keeps some; of a server it takes its own."""
    if not tape.notes.get("text", True):
        return missing(Message("page_distribution.no_text"))
    if trace.finish_reason == "given":
        return missing(
            Message("page_distribution.no_candidates"), f"tokentape score {_model(tape)} TEXT --distribution"
        )
    return missing(
        Message("page_distribution.no_candidates"), f"tokentape record {_model(tape)} PROMPT --candidates 16"
    )


def _mass(trace: Trace, tape: Tape) -> Part:
    """The probability by rank, in bands that double: the best, 2 to 3, 4 to 8, 9 to 16, ... as far as candidates were kept."""
    candidates = trace.candidates
    k = candidates.ids.shape[1] if candidates.ids.ndim == 2 else 0
    there = ~np.ma.getmaskarray(candidates.ids)
    if k == 0 or not there.any():
        return _no_candidates(trace, tape)
    probability = np.where(there, np.exp(np.ma.filled(candidates.logprob.astype(np.float64), -np.inf)), 0.0)
    known = there.any(axis=1)
    bands = []
    for first, last in _ranges(k):
        shares = np.where(known, probability[:, first - 1 : last].sum(axis=1), np.nan)
        label = {"first": first, "last": last}
        key = "page_distribution.band_one" if first == last else "page_distribution.band"
        bands.append({"label": Message(key, label).as_dict(), "values": near(shares)})
    # float32 logarithms may add up to a little more than 1
    rest = np.where(known, np.clip(1.0 - probability.sum(axis=1), 0.0, 1.0), np.nan)
    bands.append({"label": Message("page_distribution.band_rest").as_dict(), "values": near(rest)})
    best, left = probability[known, 0], rest[known]
    told = {
        "k": k,
        "best": _share(float(np.median(best))),
        "rest": _share(float(np.median(left))),
        "most": _share(left.max()),
    }
    return {"caption": Message("page_distribution.mass", told).as_dict(), "bands": bands, "k": k}


def _ranges(k: int) -> list[tuple[int, int]]:
    found, first, last = [(1, 1)], 2, 3
    while first <= k:
        found.append((first, min(last, k)))
        first, last = last + 1, 8 if last == 3 else 2 * last
    return found


def _rules(removed: Sequence[float | None], allowed: Sequence[int | None]) -> Part | None:
    """The probability that the rules took away at each token; None where no rule was measured."""
    taken = [None if nats is None else -float(np.expm1(-nats)) for nats in removed]
    known = [(share, i) for i, share in enumerate(taken) if share is not None]
    if not known:
        return None
    most, at = max(known, key=lambda one: (one[0], -one[1]))
    if not most:
        return {
            "caption": Message("page_distribution.rules_none", {"n": len(known)}).as_dict(),
            "removed": near(taken, 6),
        }
    told = {
        "n": len(known),
        "median": _share(statistics.median(share for share, _ in known)),
        "most": _share(most),
        "index": at,
        "single": sum(n == 1 for n in allowed),
    }
    return {"caption": Message("page_distribution.rules", told).as_dict(), "removed": near(taken, 6)}


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def _nats(value: float | None) -> str | None:
    return None if value is None else "<0.01" if 0 < value < 0.005 else f"{value:.2f}"


def _share(value: float) -> str:
    """A share in percent, three digits of it, with what is next to nothing or everything told as such."""
    percent = 100 * float(value)
    if 0 < percent < 0.01:
        return "<0.01%"
    if 99.99 < percent < 100:
        return ">99.99%"
    if 99.95 <= percent < 100:
        return f"{math.floor(100 * percent) / 100}%"
    return f"{percent:.3g}%"
