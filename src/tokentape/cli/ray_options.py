"""The options of commands whose work a Ray cluster can share."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from tokentape.cli.sections import in_section
from tokentape.errors import UsageError

if TYPE_CHECKING:
    from tokentape.tasks.spread.cluster import Spread

__all__ = ["RAY_OPTIONS", "spread_of"]

_workers = partial(in_section, "Workers")

RAY_OPTIONS = [
    _workers(
        "--ray", is_flag=True, help="Share the work among Ray workers, with the same result; needs tokentape[ray]."
    ),
    _workers(
        "--ray-address",
        metavar="HOST:PORT",
        help="A cluster that runs already; auto: the one here. Default: one is made here, and ends with the command.",
    ),
    _workers(
        "--ray-workers",
        type=click.IntRange(min=1),
        metavar="N",
        help="How many, each with the model. Default: one a GPU, else two, on a cluster one a node.",
    ),
]


def spread_of(given: Mapping[str, Any], device: str) -> Spread | None:
    """Over what to spread, None where one process does it all. Raises UsageError for what cannot be."""
    if not given["ray"]:
        for name in ("ray_address", "ray_workers"):
            if given[name] is not None:
                flag = f"--{name.replace('_', '-')}"
                raise UsageError(
                    f"{flag} without --ray", why="it says how Ray shares the work", fix=f"--ray {flag} ..."
                )
        return None
    from tokentape.tasks.spread.cluster import Spread

    spread = Spread(given["ray_workers"], given["ray_address"], given.get("threads"))
    spread.check(device)
    return spread
