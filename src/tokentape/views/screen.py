"""What a stream can show: its width, its characters, its colours."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, Any

from rich.cells import cell_len

from tokentape.words.catalogue import Lang, phrase
from tokentape.words.language import language_of

__all__ = ["Screen", "columns", "fit", "pad"]

_CIVIDIS = ((0, 32, 77), (49, 68, 107), (102, 105, 112), (149, 143, 120), (203, 186, 105), (255, 234, 70))
_CIVIDIS_256 = (17, 60, 242, 101, 179, 227)
"""The same in the 256 colours that nearly every terminal has."""

_STYLES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}
_PLAIN = str.maketrans({"⟨": "<", "⟩": ">", "…": "...", "◌": ""})
PIPE_WIDTH = 120
"""Width of the lines where there is no terminal to ask."""


@dataclass(frozen=True, slots=True)
class Screen:
    """``width`` in cells; ``encoding`` of the stream; ``color`` only on a terminal that wants it; ``lang`` of the reader.

    ``paint`` and ``shade`` put control codes around a text only if ``color`` is set. ``safe`` replaces what ``encoding``
    cannot hold. ``fine_color``: 16 million colours rather than 256.
    """

    width: int = PIPE_WIDTH
    encoding: str = "utf-8"
    color: bool = False
    lang: Lang = "en"
    fine_color: bool = False

    @classmethod
    def of(cls, stream: IO[Any], environ: Mapping[str, str] = os.environ) -> Screen:
        """The screen behind a stream. NO_COLOR, TERM=dumb and everything that is no terminal get plain lines."""
        terminal = is_terminal(stream)
        encoding = getattr(stream, "encoding", None) or "utf-8"
        lang = language_of(environ)
        dumb = environ.get("TERM") == "dumb"
        width = shutil.get_terminal_size((PIPE_WIDTH, 24)).columns if terminal or "COLUMNS" in environ else PIPE_WIDTH
        return cls(
            width=max(40, width),
            encoding=encoding,
            color=terminal and not dumb and not environ.get("NO_COLOR"),
            # where no Chinese can be written, English says more than escapes do
            lang=lang if cls(encoding=encoding).holds("中文") else "en",
            fine_color=environ.get("COLORTERM") in ("truecolor", "24bit"),
        )

    def say(self, key: str, **args: Any) -> str:
        """A phrase of the catalogue in the reader's language."""
        return phrase(key, self.lang, **args)

    def paint(self, text: str, style: str) -> str:
        """``text`` in a style, one of bold, dim, red, green, yellow, cyan."""
        return f"\x1b[{_STYLES[style]}m{text}\x1b[0m" if self.color and text else text

    def shade(self, text: str, share: float) -> str:
        """``text`` on a ground from dark blue (``share`` 0) to yellow (1): cividis, which the colour-blind read too."""
        if not self.color or not text:
            return text
        place = min(max(share, 0.0), 1.0)
        front = 97 if place < 0.5 else 30
        if self.fine_color:
            low = min(int(place * (len(_CIVIDIS) - 1)), len(_CIVIDIS) - 2)
            part = place * (len(_CIVIDIS) - 1) - low
            mixed = (round(a + (b - a) * part) for a, b in zip(_CIVIDIS[low], _CIVIDIS[low + 1], strict=True))
            ground = f"48;2;{';'.join(map(str, mixed))}"
        else:
            ground = f"48;5;{_CIVIDIS_256[round(place * (len(_CIVIDIS_256) - 1))]}"
        return f"\x1b[{front};{ground}m{text}\x1b[0m"

    def holds(self, text: str) -> bool:
        """Whether the encoding has all these characters."""
        try:
            text.encode(self.encoding)
        except (UnicodeEncodeError, LookupError):
            return False
        return True

    def choose(self, fine: str, plain: str) -> str:
        """``fine`` where the encoding can show it, else ``plain``."""
        return fine if self.holds(fine) else plain

    def safe(self, text: str) -> str:
        """``text`` with each character that the encoding lacks written as an escape."""
        if self.holds(text):
            return text
        text = text.translate(_PLAIN)
        return "".join(c if self.holds(c) else c.encode("ascii", "backslashreplace").decode() for c in text)


def is_terminal(stream: IO[Any]) -> bool:
    """Whether a stream is an open terminal."""
    try:
        return stream.isatty()
    except (AttributeError, ValueError):
        return False


def fit(text: str, width: int, mark: str = "…") -> str:
    """``text`` cut to ``width`` cells, with ``mark`` at its end where something is missing."""
    if cell_len(text) <= width:
        return text
    kept, cells = [], cell_len(mark)
    for character in text:
        cells += cell_len(character)
        if cells > width:
            break
        kept.append(character)
    return "".join(kept) + mark


def pad(text: str, width: int, align: str = "<") -> str:
    """``text`` filled with spaces to ``width`` cells; a Chinese character takes two."""
    space = " " * max(0, width - cell_len(text))
    return space + text if align == ">" else text + space


def columns(
    screen: Screen, header: list[str], rows: list[list[str]], align: str, stretch: int | None = None
) -> list[str]:
    """A table as lines. ``align`` has ``<`` or ``>`` for each column; the last one is not padded.

    Where the screen is too narrow, column ``stretch`` is cut to what is left, but not below 8 cells.
    """
    rows = [[screen.safe(cell) for cell in row] for row in rows]
    widths = [max(cell_len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    if stretch is not None:
        over = sum(widths) + 2 * (len(widths) - 1) - screen.width
        widths[stretch] = max(8, widths[stretch] - max(0, over))
    mark = screen.choose("…", "...")
    lines = []
    for row in [header, *rows]:
        cells = [pad(fit(cell, width, mark), width, side) for cell, width, side in zip(row, widths, align, strict=True)]
        lines.append("  ".join(cells).rstrip())
    return [screen.paint(lines[0], "dim"), *lines[1:]]
