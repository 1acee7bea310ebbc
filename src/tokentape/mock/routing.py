"""Which request gets which answer."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from tokentape.errors import UsageError
from tokentape.mock.answering import JSON_TYPE, Answer, Received, answer_of, bare_answer, body_of, refusal_of
from tokentape.mock.asked import Refused, asked_of
from tokentape.mock.dialects.choosing import dialect_of
from tokentape.mock.log import Log, Served
from tokentape.mock.metrics import Counts, metrics_text
from tokentape.mock.script import Script
from tokentape.mock.script_file import script_of
from tokentape.mock.settings import Settings

__all__ = ["SCRIPT_HEADER", "UNLOGGED", "Routing"]

SCRIPT_HEADER = "x-mock-script"
"""Header field with a script as JSON."""

UNLOGGED = -1
"""Number of a request that is not in the log: who reads the log does not change it."""

_LOG = "/mock/log"
_OPEN = ("/health", "/metrics", _LOG)
"""Routes that ask for no key."""


class Routing:
    """Answers requests, and counts those for a completion: the n-th of them gets the n-th script."""

    def __init__(self, settings: Settings, log: Log, counts: Counts) -> None:
        self._settings = settings
        self._dialect = dialect_of(settings.dialect)
        self._log = log
        self._counts = counts
        self._n_received = 0
        self._n_scripted = 0
        self._created = int(time.time())

    def hangs_up(self) -> bool:
        """Whether the next connection is closed at once; the script that says so is used up by it."""
        faults = (*self._next().faults, *self._settings.faults)
        hangs_up = any(fault.name == "hang_up" and fault["when"] == "accept" for fault in faults)
        self._n_scripted += hangs_up
        return hangs_up

    def answer(self, received: Received, read_ns: int) -> tuple[Served, Answer]:
        """The answer to a request whose last byte was read at ``read_ns``, and its row of the log."""
        number = UNLOGGED if received.route == _LOG else self._n_received
        served = Served(number, received.method, received.target, read_ns, headers=_shown(received.headers))
        if number != UNLOGGED:
            self._n_received += 1
            self._log.served.append(served)
        try:
            answer = self._answer(received, served)
        except Refused as refused:
            answer = refusal_of(self._dialect, refused)
        except UsageError as error:
            answer = refusal_of(self._dialect, Refused(400, f"mock: {error.what}: {error.why}", "mock"))
        served.stream, served.n_prompt, served.n_completion = answer.stream, answer.n_prompt, answer.n_completion
        return served, answer

    def _answer(self, received: Received, served: Served) -> Answer:
        route = received.route
        key = self._settings.api_key
        if key is not None and route not in _OPEN and received.headers.get("authorization") != f"Bearer {key}":
            raise Refused(401, "Unauthorized")
        if route in self._dialect.routes:
            if received.method != "POST":
                raise Refused(405, "Method Not Allowed")
            return self._completion(received, served)
        found = self._page(received)
        if found is None:
            raise Refused(404, "Not Found")
        return found

    def _completion(self, received: Received, served: Served) -> Answer:
        body = body_of(received)
        served.body = dict(body)
        script, faults = self._script(body, received.headers), self._settings.faults
        body.pop("mock", None)
        return answer_of(
            received, body, script, self._dialect, model=self._settings.model, number=served.request, extra=faults
        )

    def _script(self, body: Mapping[str, Any], headers: Mapping[str, str]) -> Script:
        """The script of a request: that in it, else the server's next."""
        if "mock" in body:
            return script_of(body["mock"])
        if SCRIPT_HEADER in headers:
            try:
                return script_of(json.loads(headers[SCRIPT_HEADER]))
            except (ValueError, RecursionError) as error:
                if isinstance(error, UsageError):
                    raise
                raise Refused(400, f"{SCRIPT_HEADER} is no JSON: {error}", SCRIPT_HEADER) from None
        script = self._next()
        self._n_scripted += 1
        return script

    def _next(self) -> Script:
        return self._settings.scripts[self._n_scripted % len(self._settings.scripts)]

    def _page(self, received: Received) -> Answer | None:
        """The routes beside those of completions; None where there is no such."""
        dialect, settings, route = self._dialect, self._settings, received.route
        if received.method == "POST":
            return self._tokenized(received) if route == "/tokenize" and dialect.name != "transformers" else None
        if received.method not in ("GET", "HEAD"):
            return None
        if route == "/v1/models":
            return bare_answer(dialect, 200, _json(dialect.models(settings.model, self._created)))
        if route == "/health":
            empty = dialect.name in ("vllm", "sglang")
            return bare_answer(dialect, 200, b"" if empty else _json({"status": "ok"}))
        if route == "/metrics":
            text = metrics_text(dialect.name, settings.model, self._counts)
            kind = "text/plain; version=0.0.4; charset=utf-8"
            return None if text is None else bare_answer(dialect, 200, text.encode(), kind)
        if route == _LOG:
            lines = "".join(f"{line}\n" for line in self._log.lines())
            return bare_answer(dialect, 200, lines.encode(), "application/x-ndjson")
        return None

    def _tokenized(self, received: Received) -> Answer:
        body = body_of(received)
        if "content" in body:  # llama.cpp's name for it
            body["prompt"] = body["content"]
        route = "/v1/chat/completions" if "messages" in body else "/v1/completions"
        ids = list(asked_of(route, body, self._settings.model).prompt)
        found: dict[str, Any] = {"tokens": ids}
        if self._dialect.name != "llama.cpp":
            found |= {"count": len(ids), "max_model_len": 32768}
        return bare_answer(self._dialect, 200, _json(found), JSON_TYPE)


def _shown(headers: Mapping[str, str]) -> dict[str, str]:
    """Header fields as the log keeps them: no key."""
    return {
        name: "***" if name in ("authorization", "api-key", "x-api-key") else value for name, value in headers.items()
    }


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
