"""Running the server until it is told to stop."""

from __future__ import annotations

import contextlib
import sys
import threading
from pathlib import Path

import uvicorn

from tokentape.errors import UsageError
from tokentape.server.app import make_app
from tokentape.server.connections import Connection
from tokentape.server.documents import Asked
from tokentape.server.explaining import Explainer
from tokentape.server.folder import Shelf
from tokentape.server.listening import Listening

__all__ = ["Server", "shelf_of"]

LONGEST_HEAD = 16 * 1024
"""Bytes of a request's line and headers; a longer one is refused."""

STOP_SECONDS = 2


def shelf_of(paths: list[Path], *, waiting: bool = False) -> tuple[Shelf, Path]:
    """What is served of the paths given, and the path that tells it from other servings.

    One folder, or any number of tapes. Raises UsageError for what is not there; with ``waiting`` a tape may still come.
    """
    folders = [path for path in paths if path.is_dir()]
    if folders and len(paths) > 1:
        raise UsageError(
            f"{folders[0]} is a folder, and there is more beside it",
            why="one folder is served, or tapes",
            fix=f"tokentape view {folders[0]}",
        )
    if folders:
        return Shelf(folder=folders[0]), folders[0].resolve()
    from tokentape.data.tape import open_tape

    for path in paths:
        if not (waiting and not path.exists()):
            open_tape(path).close()  # says what is wrong before a page is opened
    return Shelf(files=paths), (paths[0] if len(paths) == 1 else paths[0].parent).resolve()


class Server:
    """Serves a shelf where it listens; :meth:`run` returns after Ctrl-C or :meth:`stop`."""

    def __init__(
        self,
        shelf: Shelf,
        listening: Listening,
        *,
        asked: Asked | None = None,
        explainer: Explainer | None = None,
        waiting: bool = False,
    ) -> None:
        app = make_app(
            shelf,
            listening.gate,
            asked=asked,
            explainer=explainer,
            waiting=waiting,
            stopping=lambda: self._uvicorn.should_exit,
        )
        self._socket = listening.socket
        self._uvicorn = uvicorn.Server(
            uvicorn.Config(
                app,
                http=Connection,
                ws="none",
                lifespan="off",
                log_level="warning",
                access_log=False,
                proxy_headers=False,  # nobody may say for another where he comes from
                server_header=False,
                h11_max_incomplete_event_size=LONGEST_HEAD,
                timeout_graceful_shutdown=STOP_SECONDS,
            )
        )

    def run(self) -> None:
        """Serve until told to stop."""
        with contextlib.suppress(KeyboardInterrupt):
            self._uvicorn.run(sockets=[self._socket])

    def stop(self) -> None:
        """Let :meth:`run` return, from any thread; streams of events end at once."""
        self._uvicorn.should_exit = True

    def stop_with_stdin(self) -> None:
        """Stop when stdin is closed, which it is when the process at its other end goes."""

        def wait() -> None:
            with contextlib.suppress(OSError, ValueError):
                while sys.stdin.buffer.read(4096):
                    pass
            self.stop()

        threading.Thread(target=wait, name="tokentape-parent", daemon=True).start()
