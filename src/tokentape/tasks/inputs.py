"""What jobs are given: one text or a list of them, one reference each or several."""

from __future__ import annotations

from collections.abc import Sequence

from tokentape.errors import PromptError, UsageError

__all__ = ["references_of", "texts_of"]


def texts_of(given: str | Sequence[str], noun: str = "text") -> tuple[str, ...]:
    """The texts, none of them empty. Raises PromptError, and UsageError for something else than texts."""
    texts = (given,) if isinstance(given, str) else tuple(given)
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            raise UsageError(
                f"{noun} {number} is a {type(text).__name__}",
                why="a job is put in words",
                fix="give a str, or a list of str",
            )
    if not texts or any(not text.strip() for text in texts):
        which = (
            f"{noun} {next(i for i, text in enumerate(texts) if not text.strip())} is"
            if len(texts) > 1
            else f"the {noun} is"
        )
        raise PromptError(f"{which} empty", why="there is nothing to work on", fix=f"give some {noun}")
    return texts


def references_of(given: Sequence[str | Sequence[str]] | None, n_inputs: int) -> tuple[tuple[str, ...], ...]:
    """What would be right for each input: one text or several; nothing where none are given.

    Raises UsageError where there are more or fewer than inputs.
    """
    if given is None:
        return ()
    found = tuple((one,) if isinstance(one, str) else tuple(one) for one in given)
    if len(found) != n_inputs:
        raise UsageError(
            f"{len(found)} references for {n_inputs} inputs",
            why="each input is held against the reference at its place",
            fix="give one reference for each input, in the same order",
        )
    empty = next((number for number, one in enumerate(found) if not one), None)
    if empty is not None:
        raise UsageError(f"reference {empty} is empty", why="nothing could be right", fix="give one text or several")
    return found
