"""The tapes that are served: one file, several, or a folder. A tape is asked for by its name, which is looked up, never joined."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path

from tokentape.errors import UsageError
from tokentape.server.following import Form, look
from tokentape.views.folder import line_of, tapes_in
from tokentape.views.listing import TapeLine

__all__ = ["Shelf"]


class Shelf:
    """What can be seen: ``folder`` with whatever tapes are in it at the time, or these ``files``.

    A link in a folder that leads out of it is not shown, nor is what is no ordinary file. Raises UsageError where two files have
    one name.
    """

    def __init__(self, *, folder: Path | None = None, files: Sequence[Path] = ()) -> None:
        self.folder = None if folder is None else folder.resolve()
        self._files = {path.name: path for path in files}
        self._lines: dict[str, tuple[Form, TapeLine]] = {}
        if len(self._files) < len(files):
            raise UsageError(
                "two of the tapes have one name",
                why="a page asks for a tape by its name",
                fix="give other names, or view them one at a time",
            )

    @property
    def only(self) -> str | None:
        """The name of the one tape that is served; None where there may be others."""
        return next(iter(self._files)) if self.folder is None and len(self._files) == 1 else None

    @property
    def pair(self) -> tuple[Path, Path] | None:
        """The two tapes that are served to be compared; None where it is not two."""
        files = tuple(self._files.values())
        return (files[0], files[1]) if len(files) == 2 else None

    @property
    def title(self) -> str:
        """What the listing is of."""
        return str(self.folder) if self.folder is not None else ", ".join(self._files)

    def paths(self) -> Mapping[str, Path]:
        """The tapes that are there now by their names, oldest first."""
        if self.folder is None:
            return self._files
        return {path.name: path for path in tapes_in(self.folder) if self._is_inside(path)}

    def path_of(self, name: str | None) -> Path | None:
        """The tape of that name; without a name, the only one. None where there is none."""
        if name is None:
            return None if self.only is None else self._files[self.only]
        return self.paths().get(name)

    def _is_inside(self, path: Path) -> bool:
        try:
            place = path.resolve(strict=True)
            return place.is_relative_to(self.folder or place) and stat.S_ISREG(place.stat().st_mode)
        except (OSError, RuntimeError):  # Python before 3.13 says of a link in a circle that it is the latter
            return False

    def lines(self) -> list[TapeLine]:
        """A line about each tape; what has not changed is not read again. One that is being recorded is."""
        found: dict[str, tuple[Form, TapeLine]] = {}
        for name, path in self.paths().items():
            form, known = look(path), self._lines.get(name)
            if known is not None and known[0] == form and known[1].state != "recording":
                found[name] = known
            else:
                found[name] = (form, line_of(path))
        self._lines = found
        return [line for _, line in found.values()]

    def version(self) -> str:
        """Changes when any tape does."""
        forms = [(name, look(path)) for name, path in self.paths().items()]
        return hashlib.sha256(repr(forms).encode("utf-8", "surrogateescape")).hexdigest()[:16]
