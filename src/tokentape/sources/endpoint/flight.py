"""One request on its way: moved on by whoever selects on it, and never waiting itself."""

from __future__ import annotations

import selectors
import time
from collections.abc import Callable, Generator
from enum import IntEnum

import h11

from tokentape.data.exchange import Exchange
from tokentape.recorder.tick import LiveRun, Tick
from tokentape.sources.endpoint.body import Body, BodyError, judged
from tokentape.sources.endpoint.call import Call
from tokentape.sources.endpoint.chunks import Chunks
from tokentape.sources.endpoint.concluding import concluded, finish_reasons
from tokentape.sources.endpoint.engines import engine_of, says_done
from tokentape.sources.endpoint.events import Event, EventTooLong
from tokentape.sources.endpoint.messages import Malformed, Message, message_of
from tokentape.sources.endpoint.stamps import Stamp
from tokentape.sources.endpoint.wire import Connection, Host, WireError

__all__ = ["Flight"]

CLOSING_NS = 2_000_000_000
"""How long the end of an answer is waited for when its last message has come: after it the connection can be used again."""

_DONE = b"[DONE]"
_TLS_ALERT = b"\x15\x03"


class _Stage(IntEnum):
    CONNECTING = 0
    ANSWERING = 1
    CLOSING = 2
    DONE = 3


class Flight:
    """Sends a call and makes ticks of what comes back.

    Select on :meth:`fileno` for what it :attr:`wants` until :attr:`deadline_ns` at the latest, call :meth:`advance`, and so on
    until it is :attr:`done`. The descriptor may change until the connection is open. Once it is :attr:`ready`, :meth:`live` gives
    the run. Then ``connection`` is there for the next request, or None. Every mark is of ``time.perf_counter_ns``.

    Errors are no exceptions: :attr:`fault` and :attr:`error` say what went wrong, and what came before is kept.
    """

    def __init__(self, call: Call, host: Host, connection: Connection | None = None) -> None:
        self.call = call
        self.chunks = Chunks(call.n, call.n_top)
        self.connection: Connection | None = connection or host.connection()
        self.fault: str | None = None
        self.error: str | None = None
        self.interrupted = False
        self.begun_ns: int | None = None
        self.started_ns: int | None = None
        self.sent_ns: int | None = None
        self.first_byte_ns: int | None = None
        self.ended_ns: int | None = None
        self.status: int | None = None
        self.headers: dict[str, str] = {}
        self.body: Body | None = None
        self.engine: str | None = None
        self.first: Message | None = None
        self._prompt_ids: tuple[int, ...] | None = None
        self._n_prompt: int | None = None
        self.hear: Callable[[Message], object] | None = None
        self._host = host
        self._stage = _Stage.CONNECTING
        self._marks: tuple[int | None, int | None] = (None, None)
        self._said_done = False
        self._last_ns = 0  # of the byte that came last
        self._tick_ns = 0  # of the chunk that came last
        self._n_bytes = 0
        self._n_messages = 0
        self._by_kernel = True
        self._ticks: list[Tick] = []

    # -- for whoever selects -------------------------------------------------------------------------------------------

    @property
    def done(self) -> bool:
        """Whether it is over, one way or the other."""
        return self._stage is _Stage.DONE

    @property
    def ready(self) -> bool:
        """Whether what is known of the run at its beginning is known: the first tokens have come, or it is over."""
        return self.chunks.n_tokens > 0 or self.done

    @property
    def whole(self) -> bool:
        """Whether the answer came to its end, be it without its last word or without a reason."""
        return self.fault in (None, "no_done") or (self.fault == "cut_short" and self._said_done)

    @property
    def wants(self) -> int:
        """What to select for, a mask of ``selectors``."""
        return selectors.EVENT_READ if self.connection is None else self.connection.wants

    def fileno(self) -> int:
        """The file descriptor to select on; -1 before it has begun, and when it is done."""
        return -1 if self.done or self.connection is None else self.connection.fileno()

    @property
    def deadline_ns(self) -> int | None:
        """The mark at which it gives up unless something happens before; None where it waits for ever."""
        if self.begun_ns is None or self.done:
            return None
        limits = self.call.limits
        if self._stage is _Stage.CONNECTING:
            since, wait = self.begun_ns, limits.connect_ns
        elif self._stage is _Stage.CLOSING:
            since, wait = self._last_ns, CLOSING_NS
        elif self.first_byte_ns is None:
            since, wait = self.started_ns or self.begun_ns, limits.first_ns
        else:
            since, wait = self._last_ns, limits.between_ns
        ends = [since + wait] if wait is not None else []
        if limits.whole_ns is not None:
            ends.append(self.begun_ns + limits.whole_ns)
        return min(ends, default=None)

    def advance(self, now: int | None = None) -> list[Tick]:
        """Go as far as possible without waiting; the chunks that came of it, once it is :attr:`ready`."""
        if self.done:
            ticks, self._ticks = self._ticks, []
            return ticks
        if self.begun_ns is None:
            self.begun_ns = time.perf_counter_ns()
        try:
            self._advance()
        except WireError as error:
            self._broken(error.fault, str(error))
        except h11.RemoteProtocolError as error:
            self._protocol_error(str(error))
        except EventTooLong as error:
            self._end("too_long", str(error))
        except BodyError as error:
            self._end("malformed", str(error))
        deadline = self.deadline_ns
        if deadline is not None and (time.perf_counter_ns() if now is None else now) >= deadline:
            self._late()
        if not self.ready:
            return []
        ticks, self._ticks = self._ticks, []
        return ticks

    def abort(self, error: str = "interrupted") -> None:
        """Give it up: what came is kept, and the traces that have not ended are ``interrupted``."""
        if not self.done:
            self.interrupted = True
            self._end(None, error, reuse=False)

    # -- what is known -------------------------------------------------------------------------------------------------

    def live(self, ticks: Generator[Tick] | None = None) -> LiveRun | None:
        """The run, None before it is :attr:`ready`; ``ticks`` are those that the recorder is to drive, none unless given."""
        if not self.ready:
            return None
        start = self.started_ns if self.started_ns is not None else self.begun_ns
        return LiveRun(
            run=self.call.run(self._prompt_ids, self._n_prompt),
            start=start,
            ticks=_no_ticks() if ticks is None else ticks,
            finish_reasons=self.finish_reasons,
            spellers=[self.chunks.vocabulary] * self.call.n,
            exchange=self.exchange,
        )

    def finish_reasons(self) -> list[str | None]:
        """One reason a trace, of those that a tape may have."""
        otherwise = "interrupted" if self.interrupted else "unsaid" if self.whole else "error"
        return finish_reasons(self.chunks, otherwise=otherwise)

    def exchange(self, origin: int) -> Exchange:
        """What passed, in nanoseconds since the mark ``origin``."""

        def since(mark: int | None) -> int | None:
            return None if mark is None else mark - origin

        first = self.first or Message()
        return Exchange(
            connect_ns=since(self._marks[0]),
            connected_ns=since(self._marks[1]),
            sent_ns=since(self.sent_ns),
            first_byte_ns=since(self.first_byte_ns),
            ended_ns=since(self.ended_ns),
            status=self.status,
            fault=self.fault,
            error=self.error,
            stamps=None if self.first_byte_ns is None else "kernel" if self._by_kernel else "read",
            model=first.model,
            request_id=first.request_id or self.headers.get("x-request-id"),
            **concluded(self.chunks, self._n_prompt, whole_answer=self.fault is None or self.chunks.all_finished),
        )

    # -- moving on -----------------------------------------------------------------------------------------------------

    def _advance(self) -> None:
        assert self.connection is not None
        if self._stage is _Stage.CONNECTING:
            fresh = self.connection.connected_ns is None
            if not self.connection.advance():
                return
            if fresh:
                self._marks = (self.connection.connect_ns, self.connection.connected_ns)
            self._stage = _Stage.ANSWERING
            self._send()
        if self.sent_ns is None and self.connection.flush():
            self.sent_ns = time.perf_counter_ns()
        found = self.connection.read()
        if found is not None:
            self._read(*found)

    def _send(self) -> None:
        assert self.connection is not None
        http, body = self.connection.http, self.call.body
        headers = [
            *self._host.headers,
            ("Content-Type", "application/json"),
            ("Accept", "text/event-stream, application/json"),
            ("Content-Length", str(len(body))),
        ]
        request = h11.Request(method="POST", target=self.call.target, headers=headers)
        data = (http.send(request) or b"") + (http.send(h11.Data(data=body)) or b"")
        data += http.send(h11.EndOfMessage()) or b""
        self.started_ns = self._last_ns = self._tick_ns = time.perf_counter_ns()
        self.connection.write(data)

    def _read(self, data: bytes, stamp: Stamp) -> None:
        assert self.connection is not None
        if data:
            self._last_ns = stamp.ns
            self._by_kernel = self._by_kernel and stamp.by_kernel
            self._n_bytes += len(data)
            if self.first_byte_ns is None:
                self.first_byte_ns = stamp.ns
                if data.startswith(_TLS_ALERT):
                    raise WireError("tls", "the server speaks TLS, and was asked without")
        http = self.connection.http
        http.receive_data(data)
        while not self.done:
            event = http.next_event()
            if event is h11.NEED_DATA or event is h11.PAUSED:
                break
            if isinstance(event, h11.Response):
                self.status = event.status_code
                self.headers = {
                    name.decode("latin-1").lower(): value.decode("latin-1") for name, value in event.headers
                }
                self.body = Body(event.status_code, self.headers)
            elif isinstance(event, h11.Data) and self.body is not None:
                self._take(self.body.feed(bytes(event.data), stamp))
            elif isinstance(event, h11.EndOfMessage) and self.body is not None:
                self._take(self.body.close(stamp))
                self._whole()
            elif isinstance(event, h11.ConnectionClosed):
                raise WireError("cut_short", "the server closed the connection without an answer")
        if self._n_bytes > self.call.limits.most_bytes and not self.done:
            self._end("too_long", f"more than {self.call.limits.most_bytes:,} bytes came")

    def _take(self, events: list[Event]) -> None:
        for event in events:
            if self._stage is not _Stage.ANSWERING:
                return  # behind the last message
            if event.data.strip() == _DONE:
                self._said_done = True
                self._stage = _Stage.CLOSING
                return
            try:
                message = message_of(event.data)
                self._understand(message, event)
            except Malformed as error:
                self._note("malformed", f"{error}: {event.data[:80].decode(errors='replace')}")

    def _understand(self, message: Message, event: Event) -> None:
        if message.error is not None:
            self._note("error_event", message.error)
            self._stage = _Stage.CLOSING
            return
        if not self.ready:
            self._prompt_ids = self._prompt_ids or message.prompt_ids
            self._n_prompt = self._n_prompt or message.n_prompt
        if self.first is None:
            self.first = message
            self.engine = engine_of(message.raw, self.headers.get("server", ""))
        if self.hear is not None:
            self.hear(message)
        tick = self.chunks.tick(message, event.stamp, self._tick_ns)
        if tick is None:
            return
        self._tick_ns = event.stamp.ns
        tick.parsed = time.perf_counter_ns()
        self._ticks.append(tick)
        self._n_messages += 1
        for most, n, noun in (
            (self.call.limits.most_tokens, self.chunks.n_tokens, "tokens"),
            (self.call.most_messages, self._n_messages, "messages"),
        ):
            if most is not None and n > most:
                self._end("too_long", f"more than {most:,} {noun} came")

    # -- the end -------------------------------------------------------------------------------------------------------

    def _whole(self) -> None:
        """The HTTP message has come to its end; whether the answer has is another question."""
        assert self.body is not None
        if self.body.is_stream:
            fault, error = self._missing()
        else:
            fault, error = self._document(self.body.document)
        self._end(fault, error, reuse=True)

    def _missing(self) -> tuple[str | None, str | None]:
        """What is wrong with a stream that has ended: that its last word is missing, or more."""
        if self.fault is not None:
            return None, None
        if not self.chunks.some_finished:
            return "cut_short", "the stream ended without a finish reason"
        if self._said_done:
            return None, None
        says = self.call.says_done if "choices" in (self.first or Message()).raw else False  # llama.cpp's own route
        if says is None:
            says = says_done(self.engine or "")
        return ("no_done", "the stream ended without [DONE]") if says else (None, None)

    def _document(self, document: bytes) -> tuple[str | None, str | None]:
        """What is wrong with an answer that is no stream: an error, or one that came as a whole although a stream was asked for."""
        assert self.status is not None
        fault, error = judged(document, self.status, self.headers)
        if fault is None:
            stamp = Stamp(self._last_ns, self._last_ns, self._by_kernel)
            try:
                self._understand(message_of(document), Event(document, stamp))
            except Malformed as problem:
                return "malformed", str(problem)
        return fault, error

    def _broken(self, fault: str, text: str) -> None:
        """The connection does not come about, or breaks; behind the last message that is its end."""
        if self._stage is _Stage.CLOSING:
            fault_now, error = None, None
        else:
            fault_now, error = fault, text
        self._end(fault_now, error)

    def _protocol_error(self, text: str) -> None:
        if self._stage is _Stage.CLOSING:
            self._end(None, None)
        elif self._n_bytes == 0:
            self._end("cut_short", "the server closed the connection without an answer")
        elif text.startswith("peer closed connection"):
            self._end("cut_short", text)
        else:
            self._end("malformed", f"no HTTP: {text}")

    def _late(self) -> None:
        if self._stage is _Stage.CLOSING:
            self._end(None, None)
            return
        now = time.perf_counter_ns()
        if self._stage is _Stage.CONNECTING:
            what = "no connection"
        elif self.first_byte_ns is None:
            what = "no answer"
        else:
            what = "nothing more"
        since = self._last_ns or self.begun_ns or now
        self._end("timeout", f"{what} within {(now - since) / 1e9:.3g} s")

    def _note(self, fault: str | None, error: str | None) -> None:
        """The first fault is the one to tell."""
        if self.fault is None and fault is not None:
            self.fault, self.error = fault, None if error is None else self._host.unsecret(error)

    def _end(self, fault: str | None, error: str | None, *, reuse: bool = False) -> None:
        self._note(fault, error)
        if self.interrupted and self.error is None:
            self.error = error
        self._stage = _Stage.DONE
        self.ended_ns = self._last_ns if fault is None and self.first_byte_ns is not None else time.perf_counter_ns()
        connection, self.connection = self.connection, None
        if connection is None:
            return
        http = connection.http
        if reuse and http.our_state is h11.DONE and http.their_state is h11.DONE and not http.trailing_data[0]:
            http.start_next_cycle()
            self.connection = connection
        else:
            connection.close()


def _no_ticks() -> Generator[Tick]:
    yield from ()
