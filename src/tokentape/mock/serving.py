"""A mock server for tests: in a thread of this process, or in a process of its own where time has to be exact."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from tokentape.errors import UsageError
from tokentape.mock.faults import Fault, parse_fault
from tokentape.mock.log import Log
from tokentape.mock.loop import Loop
from tokentape.mock.script import Script
from tokentape.mock.settings import Settings

__all__ = ["EXACT_SPIN_US", "MockServer", "listen", "loop_of"]

EXACT_SPIN_US = 200.0
"""Of a server that has a process to itself: longer than a sleep is late, shorter than the time between sends."""


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; raises UsageError where the port is taken or the host is none of this machine's."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listening = socket.create_server((host, port), family=family, backlog=1024)
    except (OSError, UnicodeError, OverflowError) as error:
        raise UsageError(
            f"cannot listen on {host}:{port}",
            why=str(error),
            fix="--port 0 for a free one; leave --host out for this machine alone",
        ) from error
    return listening


def loop_of(settings: Settings) -> tuple[Loop, str]:
    """A loop that listens as the settings say, and its address. Raises UsageError for a port or certificate that is none."""
    context = None
    if settings.tls is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_cert_chain(*settings.tls)
        except (OSError, ValueError) as error:
            raise UsageError(
                f"no certificate and key in {settings.tls[0]} and {settings.tls[1]}",
                why=str(error),
                fix="give two PEM files that belong together",
            ) from error
    listening = listen(settings.host, settings.port)
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    url = f"{'http' if context is None else 'https'}://{host}:{listening.getsockname()[1]}"
    return Loop(listening, settings, context), url


class MockServer:
    """A server on paper: OpenAI-compatible, on the schedule of its scripts.

    ``script`` is one or several; request n gets the n-th, then they begin again. ``faults`` (each a Fault or
    ``name:parameter=value``) are added to all. In a thread by default, where sends are late by up to some tenths of a
    millisecond, more while this process computes; with ``process=True`` in a process of its own.

    >>> with MockServer(Script.steady(4, ttft_us=0, gap_us=0)) as server:
    ...     server.url.startswith("http://127.0.0.1:")
    True
    """

    def __init__(
        self,
        script: Script | Sequence[Script] | None = None,
        *,
        dialect: str = "vllm",
        faults: Sequence[Fault | str] = (),
        process: bool = False,
        **more: Any,
    ) -> None:
        if script is not None:
            more["scripts"] = (script,) if isinstance(script, Script) else tuple(script)
        if process:
            more.setdefault("spin_us", EXACT_SPIN_US)
        told = tuple(parse_fault(fault) if isinstance(fault, str) else fault for fault in faults)
        self.settings = Settings(dialect=dialect, faults=told, **more)
        self._in_process = process
        self._loop: Loop | None = None
        self._thread: threading.Thread | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._failure: BaseException | None = None
        self._kept: Log | None = None
        self.url = ""

    @property
    def log(self) -> Log:
        """What was received and sent until now."""
        if self._kept is not None:
            return self._kept
        if self._loop is not None:
            return self._loop.log
        return self._fetched() if self._child is not None else Log()

    def start(self) -> MockServer:
        """Listen, and serve from now on."""
        if self._in_process:
            self._start_process()
            return self
        self._loop, self.url = loop_of(self.settings)
        self._thread = threading.Thread(target=self._serve, name="tokentape-mock", daemon=True)
        self._thread.start()
        return self

    def stop(self) -> None:
        """Close every connection, and end; raises what went wrong in the server itself."""
        if self._child is not None:
            self._stop_process()
        if self._loop is not None and self._thread is not None:
            self._loop.stop()
            self._thread.join()
            self._kept, self._loop, self._thread = self._loop.log, None, None
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure

    def _serve(self) -> None:
        assert self._loop is not None
        try:
            self._loop.run()
        except BaseException as error:
            self._failure = error

    def _start_process(self) -> None:
        command = [sys.executable, "-m", "tokentape.mock"]
        self._child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._child.stdin is not None and self._child.stdout is not None
        self._child.stdin.write(json.dumps(self.settings.as_json()).encode() + b"\n")
        self._child.stdin.flush()
        line = self._child.stdout.readline()
        told = json.loads(line) if line else {}
        if "url" not in told:
            self._stop_process()
            raise UsageError(
                told.get("what", "the mock server did not start"),
                why=told.get("why", "its process ended"),
                fix=told.get("fix", "process=False"),
            )
        self.url = told["url"]

    def _stop_process(self) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        assert child.stdin is not None and child.stdout is not None
        with contextlib.suppress(OSError):
            child.stdin.close()
        lines = child.stdout.read().decode().splitlines()
        child.stdout.close()
        child.wait()
        self._kept = Log.from_lines(lines)

    def _fetched(self) -> Log:
        from http.client import HTTPConnection, HTTPSConnection
        from urllib.parse import urlsplit

        address = urlsplit(self.url)
        assert address.hostname is not None
        connection: HTTPConnection
        if address.scheme == "https":
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            connection = HTTPSConnection(address.hostname, address.port, context=context)
        else:
            connection = HTTPConnection(address.hostname, address.port)
        try:
            connection.request("GET", "/mock/log")
            return Log.from_lines(connection.getresponse().read().decode().splitlines())
        finally:
            connection.close()

    def __enter__(self) -> MockServer:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
