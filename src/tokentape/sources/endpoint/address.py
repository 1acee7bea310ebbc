"""Where a server is: its URL, taken apart, and the environment variables that hold what must not be written down."""

from __future__ import annotations

import ipaddress
import os
import re
import socket
import ssl
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote, urlsplit

from tokentape.errors import Unreachable, UsageError
from tokentape.sources.endpoint.fitting import SHORTEST_SECRET, without_secrets

__all__ = ["KEY_ENV", "PUBLIC_HEADERS", "Address", "Place", "address_of"]

KEY_ENV = "OPENAI_API_KEY"
"""The environment variable that a key is read from unless another one is named."""

PUBLIC_HEADERS = ("Host", "User-Agent", "Accept-Encoding")
"""Headers that every request begins with; those behind them are secret."""

_OURS = frozenset(
    {
        *("host", "content-length", "transfer-encoding", "connection", "expect", "upgrade", "te", "trailer"),
        *("content-type", "content-encoding", "accept", "accept-encoding", "user-agent"),
    }
)
"""Headers that say how a request is sent, and not what it is."""

_ROUTES = ("/chat/completions", "/completions", "/completion", "/models", "/metrics")
"""What people paste behind the base of a URL."""

_VERSION = re.compile(r"/v\d+$")
_HOST = re.compile(r"[A-Za-z0-9._-]+\Z")
_IN_PATH = "/%:@!$&'()*+,;=?"
"""Characters of a path or a query that stand for themselves, beside letters and digits."""
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")

Place = tuple[int, Any]
"""Family and address of a socket."""


@dataclass(frozen=True, slots=True)
class Address:
    """A server: what its URL says, and how to speak to it.

    ``root`` is the path before the version, ``version`` such as ``/v1``. The key is in the environment variable ``key_env``, and
    further headers are in those that ``header_envs`` names, as ``(header, variable)``: they are read when a request is
    made and never kept. ``ca_file`` holds the certificates to trust instead of the system's; ``insecure`` asks for none.
    """

    scheme: str
    host: str
    port: int
    root: str = ""
    version: str = "/v1"
    query: str = ""
    key_env: str = KEY_ENV
    header_envs: tuple[tuple[str, str], ...] = ()
    ca_file: str | None = None
    insecure: bool = False

    @property
    def url(self) -> str:
        """The URL of the server as it is shown and kept: without its query, and without what is secret."""
        return without_secrets(f"{self.scheme}://{self.netloc}{self.root}{self.version}", self.secrets())

    def secrets(self) -> tuple[str, ...]:
        """What the variables hold, in the forms in which it may be found. The longer first: one may be a part of another."""
        values = [os.environ.get(name, "").strip() for name in (self.key_env, *(name for _, name in self.header_envs))]
        plain = {part for value in values for part in (value, value.removeprefix("Bearer "))}
        found = plain | {quote(one, safe=safe, errors="replace") for one in plain for safe in (_IN_PATH, "")}
        return tuple(sorted((one for one in found if len(one) >= SHORTEST_SECRET), key=lambda one: (-len(one), one)))

    @property
    def netloc(self) -> str:
        """Host and port as a URL and the Host header have them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        usual = {"http": 80, "https": 443}[self.scheme]
        return host if self.port == usual else f"{host}:{self.port}"

    @property
    def tls(self) -> bool:
        return self.scheme == "https"

    def target(self, route: str) -> str:
        """What a request names: ``/completions`` below the version, ``//metrics`` (two strokes) beside it."""
        path = self.root + route[1:] if route.startswith("//") else self.root + self.version + route
        return f"{path}?{self.query}" if self.query else path

    def headers(self) -> list[tuple[str, str]]:
        """The headers that every request has, the key among them. Raises UsageError where a variable holds none."""
        found = list(zip(PUBLIC_HEADERS, (self.netloc, "tokentape", "identity"), strict=True))
        key = os.environ.get(self.key_env)
        if key is None and self.key_env != KEY_ENV:
            raise UsageError(
                f"the environment variable {self.key_env} is not set",
                why="the key is to be taken from it",
                fix=f"export {self.key_env}=...; or leave it unnamed, where the server wants none",
            )
        if key:
            if not key.strip():
                raise UsageError(
                    f"the environment variable {self.key_env} is blank",
                    why="the key is taken from it",
                    fix=f"export {self.key_env}=...; or unset it, where the server wants none",
                )
            found.append(("Authorization", f"Bearer {_checked(key.strip(), self.key_env)}"))
        for header, variable in self.header_envs:
            value = os.environ.get(variable)
            if value is None:
                raise UsageError(
                    f"the environment variable {variable} is not set",
                    why=f"the header {header} is to be taken from it",
                    fix=f"export {variable}=...",
                )
            found.append((header, _checked(value.strip(), variable)))
        return found

    def places(self) -> tuple[Place, ...]:
        """The addresses of the host, to be tried in order; asks the resolver. Raises Unreachable."""
        try:
            found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise Unreachable(
                f"the host {self.host} cannot be found",
                why=str(error),
                fix=f"check the name in {self.url}, and the network",
            ) from error
        return tuple((family, place) for family, _, _, _, place in found)

    def tls_context(self) -> ssl.SSLContext | None:
        """How to speak TLS; None where the scheme is http. Raises UsageError for a file of certificates that is none."""
        if not self.tls:
            return None
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
        except (OSError, ssl.SSLError) as error:
            raise UsageError(
                f"{self.ca_file} cannot be read as certificates",
                why=str(error),
                fix="give a file in PEM form: -----BEGIN CERTIFICATE-----",
            ) from error
        context.set_alpn_protocols(["http/1.1"])
        if self.insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


def address_of(url: str, **how: Any) -> tuple[Address, str | None]:
    """The address that a URL gives, and the route behind it where somebody pasted one, such as ``/chat/completions``.

    ``http://`` may be left out of ``host:port``. Without a version in its path ``/v1`` is meant. ``how`` are the other fields of
    :class:`Address`. Raises UsageError for what is no such URL.
    """
    given = url.strip()
    if "://" not in given:
        given = f"http://{given}"
    try:
        parts = urlsplit(given)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise _no_url(url, str(error)) from error
    if parts.scheme not in ("http", "https"):
        raise _no_url(url, f"{parts.scheme} is neither http nor https")
    if parts.username is not None or parts.password is not None:
        raise UsageError(
            "the URL holds a name or a password",
            why="a tape keeps the URL, and secrets are never kept",
            fix=f"put the key into the environment: export {KEY_ENV}=...; --api-key-env names another variable",
        )
    if not host or not (_is_ip(host) or _HOST.match(host)):
        raise _no_url(url, "there is no host in it")
    if port == 0:
        raise _no_url(url, "nothing listens on port 0")
    try:
        path, query = (quote(part, safe=_IN_PATH) for part in (parts.path.rstrip("/"), parts.query))
    except UnicodeEncodeError as error:
        raise _no_url(url, "its path is no Unicode") from error
    route = None
    for pasted in _ROUTES:
        if path.endswith(pasted):
            path, route = path.removesuffix(pasted), pasted
            break
    version = _VERSION.search(path)
    address = Address(
        parts.scheme,
        host,
        port or {"http": 80, "https": 443}[parts.scheme],
        path[: version.start()] if version else path,
        version.group() if version else "/v1",
        query,
    )
    _refuse_unfit(address, **how)
    return replace(address, **how), route


def _refuse_unfit(address: Address, **how: Any) -> None:
    """Raise UsageError for a header that is not to be given, and for certificates where there is no TLS."""
    for header, _ in how.get("header_envs", ()):
        if not _HEADER.match(header):
            raise UsageError(f"{header!r} is no name of a header", why="it has other characters", fix="X-My-Header")
        if header.lower() in _OURS:
            raise UsageError(
                f"the header {header} is set by the recording itself",
                why="it says how the request is sent",
                fix="leave it out; other headers may be given",
            )
    if how.get("ca_file") is not None and not address.tls:
        raise UsageError(
            "a file of certificates for a server without TLS",
            why=f"{address.url} is not encrypted, and has no certificate",
            fix="https:// in the URL; or leave the file out",
        )


def _checked(value: str, variable: str) -> str:
    """A secret that can be sent; the error does not tell it."""
    if not value.isascii() or not value.isprintable():
        raise UsageError(
            f"what {variable} holds cannot be sent in a header",
            why="it has line ends, or characters other than ASCII",
            fix=f"set {variable} again, without quotes and line ends",
        )
    return value


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


def _no_url(url: str, why: str) -> UsageError:
    return UsageError(f"no URL of a server: {url[:100]!a}", why=why, fix="for example http://127.0.0.1:8000/v1")
