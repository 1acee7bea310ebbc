"""Where the server listens: the port that was asked for, the one of the last time, or any that is free."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

from tokentape.errors import UsageError
from tokentape.server.gatekeeping import LOOPBACK_NAMES, Gate
from tokentape.server.remembering import Remembered, fresh_token, recall, remember

__all__ = ["DEFAULT_PORT", "TOKEN_VARIABLE", "Listening", "listen"]

DEFAULT_PORT = 8765

TOKEN_VARIABLE = "TOKENTAPE_TOKEN"
"""Environment variable with a token of one's own."""

_SHORTEST_TOKEN = 16


@dataclass(frozen=True, slots=True)
class Listening:
    """A socket that listens, who is let in there, and the address to open."""

    socket: socket.socket
    gate: Gate
    url: str
    """With the token."""

    def ticket_url(self) -> str:
        """An address that lets in once, for a command line that others can see."""
        return f"{self.url.partition('?')[0]}?ticket={self.gate.ticket()}"


def listen(served: Path, *, host: str = "127.0.0.1", port: int | None = None, allow_remote: bool = False) -> Listening:
    """Listen for whoever wants to see the file or folder ``served``.

    Without a ``port``: that of the last time for the same path, else 8765, else one that is free. The token is that of the last
    time too, so that a page which is still open goes on. Raises UsageError where the port is taken, the host is none of this
    machine's, or is not a loopback address and ``allow_remote`` is False.
    """
    address = _address(host, allow_remote=allow_remote)
    known = recall(served)
    token = _given_token() or (known.token if known is not None else fresh_token())
    wanted = [port] if port is not None else [*([known.port] if known is not None else []), DEFAULT_PORT, 0]
    bound = _bound(address, wanted)
    chosen = int(bound.getsockname()[1])
    if chosen == wanted[0] or known is None:  # a second server beside the first leaves it its port
        remember(served, Remembered(chosen, token))
    name = _as_host(host)
    # who asked for a name of his own is called by it; on all addresses, by any of them and the machine's name
    everywhere = ipaddress.ip_address(address).is_unspecified
    names = LOOPBACK_NAMES | ({socket.gethostname().lower()} if everywhere else {name})
    gate = Gate(token=token, port=chosen, names=names, any_address=everywhere)
    shown = _as_host(socket.gethostname()) if everywhere else name
    return Listening(bound, gate, f"http://{shown}:{chosen}/?token={token}")


def _as_host(host: str) -> str:
    return f"[{host.lower()}]" if ":" in host else host.lower()


def _address(host: str, *, allow_remote: bool) -> str:
    """The IP address that a host name means; loopback, unless more is allowed."""
    try:
        address = str(socket.getaddrinfo(host.strip("[]"), None, type=socket.SOCK_STREAM)[0][4][0]).partition("%")[0]
    except (OSError, UnicodeError) as error:
        raise UsageError(f"there is no host {host!r}", why=str(error), fix="leave --host out") from error
    if not ipaddress.ip_address(address).is_loopback and not allow_remote:
        raise UsageError(
            f"--host {host} is open to other machines",
            why="whoever has the address reads prompts, texts and settings, and it travels unencrypted over the network",
            fix=f"ssh -L {DEFAULT_PORT}:127.0.0.1:{DEFAULT_PORT} THIS_MACHINE   or add --allow-remote",
        )
    return address


def _given_token() -> str | None:
    given = os.environ.get(TOKEN_VARIABLE)
    if not given:
        return None
    if len(given) < _SHORTEST_TOKEN or not given.isascii() or not given.replace("-", "").replace("_", "").isalnum():
        raise UsageError(
            f"{TOKEN_VARIABLE} is no token",
            why=f"it takes {_SHORTEST_TOKEN} or more letters, digits, - and _",
            fix=f"export {TOKEN_VARIABLE}=$(python -c 'import secrets; print(secrets.token_urlsafe(32))')",
        )
    return given


def _bound(address: str, ports: list[int]) -> socket.socket:
    """A socket that listens on the first of the ports that can be had."""
    for place, port in enumerate(ports):
        opened = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
        try:
            if sys.platform == "win32":
                opened.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
            else:
                # so that a server can be started again at once; a port that is being listened on stays refused
                opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            opened.bind((address, port))
            opened.listen(128)
        except OSError as error:
            opened.close()
            taken = error.errno in (errno.EADDRINUSE, errno.EACCES)
            if taken and place + 1 < len(ports):
                continue
            raise _unavailable(address, port, error) from error
        return opened
    raise AssertionError("no port was asked for")


def _unavailable(address: str, port: int, error: OSError) -> UsageError:
    if error.errno == errno.EADDRINUSE:
        return UsageError(
            f"port {port} is taken",
            why=f"another program listens on {address}:{port}",
            fix="leave --port out for a free one, or give another",
        )
    if error.errno == errno.EACCES:
        return UsageError(f"port {port} is not for us", why=str(error), fix="give a port from 1024 on")
    return UsageError(f"cannot listen on {address}:{port}", why=str(error), fix="leave --host out")
