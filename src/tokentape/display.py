"""The door through which a value is shown in a notebook.

Tapes, traces and explanations are values of a low floor, laws and comparisons of the next: neither knows of pages.
IPython asks a value for ``_repr_mimebundle_`` all the same. So the ground floor declares that a value can be shown, the
package's facade says by whom (:mod:`tokentape.views.notebook`, imported when something is shown), and no floor imports
one above it. A method of the class rather than an entry in IPython's formatters: it works in every notebook, whichever
was imported first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

__all__ = ["Bundle", "Displayed", "displayed_by"]

Bundle: TypeAlias = dict[str, str]
"""What is shown, by media type: ``text/plain``, and ``text/html`` where that can be seen."""

_display: Callable[[Any], Bundle] | None = None


def displayed_by(display: Callable[[Any], Bundle]) -> None:
    """From now on values are shown by ``display``."""
    global _display
    _display = display


class Displayed:
    """A value that notebooks show as what :func:`displayed_by` was given makes of it."""

    __slots__ = ()

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> Bundle:
        """The protocol of IPython; it leaves out itself what ``include`` and ``exclude`` say."""
        return {} if _display is None else _display(self)
