"""Who may ask the server anything: its own page, on this machine, with the token that the command printed.

Three things are checked before a request reaches a route. ``Host`` must name this server: a page elsewhere whose name was made
to lead here (DNS rebinding) sends its own name. ``Origin``, and what browsers say of where a request comes from, must be the
server's own page. And the token must be there: once in the address, after which the browser keeps it as a cookie that no script
can read and no other site can make it send. A browser that is opened from here is not given the token, since other users of the
machine see the command lines of all programs, but a ticket that lets in once.
"""

from __future__ import annotations

import hashlib
import hmac
import html
import ipaddress
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, quote, urlencode

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["LOOPBACK_NAMES", "PROOF_HEADER", "SECURITY_HEADERS", "Gate", "Gatekeeper"]

LOOPBACK_NAMES = frozenset({"127.0.0.1", "localhost", "[::1]"})
"""What the machine calls itself, as a Host header writes it."""

PROOF_HEADER = "x-tokentape-proof"
"""Header of requests that change something; a form or an image of another site cannot send it."""

TICKET_SECONDS = 120.0
"""So long a ticket lets in: one that no browser came with must not lie about in the list of processes."""

SECURITY_HEADERS: Mapping[str, str] = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


@dataclass(frozen=True, slots=True)
class Gate:
    """What is let through: ``token``, and requests for ``port`` of one of the ``names`` (lower case, IPv6 in brackets).

    ``any_address`` adds every bare IP address, for a server that listens on all of them: only a name can be rebound.
    ``posts`` are the paths that may be posted to.
    """

    token: str = field(repr=False)
    port: int
    names: frozenset[str] = LOOPBACK_NAMES
    any_address: bool = False
    posts: frozenset[str] = frozenset({"/explain"})
    tickets: dict[str, float] = field(default_factory=dict, repr=False)

    @property
    def cookie(self) -> str:
        """Name of the cookie; browsers keep those of all ports together."""
        return f"tokentape-{self.port}"

    @property
    def proof(self) -> str:
        """What a request that changes something must say besides: known to the page, of no use without the cookie."""
        return hmac.new(self.token.encode(), b"tokentape page", hashlib.sha256).hexdigest()

    def ticket(self) -> str:
        """Lets in once, and soon, in the place of the token in an address."""
        made = secrets.token_urlsafe(32)
        self.tickets[made] = time.monotonic() + TICKET_SECONDS
        return made

    def knows_host(self, host: str) -> bool:
        """Whether a Host header means this server."""
        name, colon, port = host.lower().rpartition(":")
        if not colon or port.endswith("]"):  # no port: the address has that of the protocol
            name, port = host.lower(), "80"
        return port == str(self.port) and (name in self.names or (self.any_address and _is_address(name)))

    def knows_token(self, given: str) -> bool:
        """Compared in a time that does not tell how much of it was right."""
        return secrets.compare_digest(given.encode("utf-8", "replace"), self.token.encode())


def _is_address(name: str) -> bool:
    bracketed = name.startswith("[") and name.endswith("]")
    try:
        return ipaddress.ip_address(name[1:-1] if bracketed else name).version == (6 if bracketed else 4)
    except ValueError:
        return False


class Gatekeeper:
    """ASGI middleware: refuses what the gate does not let through, and puts the security headers on every answer."""

    def __init__(self, app: ASGIApp, gate: Gate) -> None:
        self._app = app
        self._gate = gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # no web sockets here: closed before they are accepted
            await send({"type": "websocket.close", "code": 1008})
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers[name] = value
            await send(message)

        answer = self._refusal(scope) or self._entered(scope)
        await (answer or self._app)(scope, receive, guarded)

    def _refusal(self, scope: Scope) -> Response | None:
        """The answer to a request that is no business of ours; None for one that may be."""
        headers = Headers(scope=scope)
        hosts, origins = headers.getlist("host"), headers.getlist("origin")
        if len(hosts) != 1 or not self._gate.knows_host(hosts[0]):
            return _refused("this server is not called that", "open the address that the command printed")
        if any(origin.lower() != f"http://{hosts[0].lower()}" for origin in origins):
            return _refused("another page asked", "open the address that the command printed")
        reads = scope["method"] in ("GET", "HEAD")
        # a link elsewhere may be followed to here; nothing else may come from another page
        navigates = reads and (headers.get("sec-fetch-mode"), headers.get("sec-fetch-dest")) == ("navigate", "document")
        if headers.get("sec-fetch-site", "none") not in ("same-origin", "none") and not navigates:
            return _refused("another page asked", "open the address that the command printed")
        if reads:
            return None
        if scope["method"] != "POST" or scope["path"] not in self._gate.posts:
            return _refused("nothing can be changed here", "GET and HEAD are answered", status=405, allow="GET, HEAD")
        proof = headers.get(PROOF_HEADER, "")
        if not secrets.compare_digest(proof.encode("utf-8", "replace"), self._gate.proof.encode()):
            return _refused("the request does not come from the page", "reload the page, and ask again there")
        return None

    def _entered(self, scope: Scope) -> Response | None:
        """The answer to a request without the token, or with it in its address; None for one that is in already."""
        headers = Headers(scope=scope)
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        keys = [(name, value) for name, value in query if name in ("token", "ticket")]
        if keys and scope["method"] in ("GET", "HEAD"):
            if not any(self._opens(name, value) for name, value in keys):
                return _no_token()
            rest = urlencode([pair for pair in query if pair not in keys])
            # a path that begins with two slashes would lead to another server
            clean = "/" + quote(scope["path"].lstrip("/\\"))
            return self._welcome(f"{clean}?{rest}" if rest else clean, headers)
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        kept = cookie_parser(headers.get("cookie", "")).get(self._gate.cookie, "")
        given = bearer if scheme.lower() == "bearer" else kept
        return None if given and self._gate.knows_token(given) else _no_token()

    def _opens(self, name: str, value: str) -> bool:
        if name == "token":
            return self._gate.knows_token(value)
        return self._gate.tickets.pop(value, 0.0) > time.monotonic()

    def _welcome(self, address: str, headers: Headers) -> Response:
        """Give the cookie, and lead to the address without the token."""
        answer: Response
        if headers.get("sec-fetch-site", "none") in ("same-origin", "none"):
            answer = RedirectResponse(address, status_code=303)
        else:
            # After a link elsewhere was followed, a browser would not send the cookie on a redirect; from a page of ours it does.
            answer = HTMLResponse(
                '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>tokentape</title>'
                f'<meta http-equiv="refresh" content="0;url={html.escape(address)}"></head></html>'
            )
        answer.set_cookie(self._gate.cookie, self._gate.token, path="/", httponly=True, samesite="strict")
        return answer


def _refused(why: str, fix: str, *, status: int = 403, allow: str | None = None) -> Response:
    text = f"error: refused\nwhy: {why}\nfix: {fix}\n"
    return PlainTextResponse(text, status_code=status, headers=None if allow is None else {"allow": allow})


def _no_token() -> Response:
    return _refused(
        "the token is missing, or another", "open the whole address that the command printed, token included"
    )
