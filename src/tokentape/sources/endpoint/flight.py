"""One request on its way: moved on by whoever selects on it, and never waiting itself."""

from __future__ import annotations

import selectors
import time
from collections.abc import Callable, Generator

import h11

from tokentape.data.exchange import Exchange
from tokentape.recorder.tick import LiveRun, Tick
from tokentape.sources.endpoint.body import Body, BodyError, judged
from tokentape.sources.endpoint.call import Call
from tokentape.sources.endpoint.chunks import Chunks
from tokentape.sources.endpoint.concluding import concluded, finish_reasons, missing
from tokentape.sources.endpoint.engines import engine_of, says_done
from tokentape.sources.endpoint.events import Event, EventTooLong
from tokentape.sources.endpoint.fitting import LONGEST_ERROR, name_of
from tokentape.sources.endpoint.messages import Malformed, Message, message_of
from tokentape.sources.endpoint.patience import Patience, Stage
from tokentape.sources.endpoint.stamps import Stamp
from tokentape.sources.endpoint.wire import Connection, Host, WireError

__all__ = ["Flight"]

_DONE = b"[DONE]"
_TLS_ALERT = b"\x15\x03"
_MOST_QUOTED = 80
"""Characters of what cannot be read, in an error."""


class Flight:
    """Sends a call and makes ticks of what comes back.

    Select on :meth:`fileno` for what it :attr:`wants` until :attr:`deadline_ns` at the latest, call :meth:`advance`, and so on
    until it is :attr:`done`. The descriptor may change until the connection is open. Once it is :attr:`ready`, :meth:`live` gives
    the run. Then ``connection`` is there for the next request, or None. Every mark is of ``time.perf_counter_ns``.

    Errors are no exceptions: :attr:`fault` and :attr:`error` say what went wrong, and what came before is kept.
    """

    def __init__(self, call: Call, host: Host, connection: Connection | None = None) -> None:
        self.call = call
        self.chunks = Chunks(call.n, call.n_top, call.limits.most_tokens)
        self.connection: Connection | None = connection or host.connection()
        self.fault: str | None = None
        self.error: str | None = None
        self.interrupted = False
        self.started_ns: int | None = None
        self.sent_ns: int | None = None
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
        self._stage = Stage.CONNECTING
        self._marks: tuple[int | None, int | None] = (None, None)
        self._said_done = False
        self._patience = Patience(call.limits)
        self._tick_ns = 0  # of the chunk that came last
        self._n_bytes = 0
        self._n_messages = 0
        self._by_kernel = True
        self._ticks: list[Tick] = []

    # -- for whoever selects -------------------------------------------------------------------------------------------

    @property
    def done(self) -> bool:
        """Whether it is over, one way or the other."""
        return self._stage is Stage.DONE

    @property
    def ready(self) -> bool:
        """Whether what is known of the run at its beginning is known: the first tokens have come, or it is over."""
        return self.chunks.n_tokens > 0 or self.done

    @property
    def whole(self) -> bool:
        """Whether the answer came to its end, be it without its last word or without a reason."""
        return self.fault in (None, "no_done")

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
        return None if self.done else self._patience.deadline_ns

    @property
    def begun_ns(self) -> int | None:
        """When it began to be connected, or to be sent where it was."""
        return self._patience.begun_ns

    @property
    def first_byte_ns(self) -> int | None:
        """When the first byte of the answer came."""
        return self._patience.first_byte_ns

    def advance(self, now: int | None = None) -> list[Tick]:
        """Go as far as possible without waiting; the chunks that came of it, once it is :attr:`ready`."""
        if self.done:
            ticks, self._ticks = self._ticks, []
            return ticks
        if self._patience.begun_ns is None:
            self._patience.begun_ns = time.perf_counter_ns()
        brought = False
        try:
            brought = self._advance()
        except WireError as error:
            self._broken(error.fault, str(error))
        except h11.RemoteProtocolError as error:
            self._protocol_error(str(error))
        except EventTooLong as error:
            self._end("too_long", str(error))
        except BodyError as error:
            self._end("malformed", str(error))
        if not self.done:
            self._give_up(time.perf_counter_ns() if now is None else now, brought=brought)
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
        start = next((mark for mark in (self.started_ns, self._marks[1]) if mark is not None), self.begun_ns)
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

        first, unsecret = self.first or Message(), self._host.unsecret
        whole = self.fault is None or self.chunks.all_finished
        streamed = self._n_messages == 0 or (self.body is not None and self.body.is_stream)
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
            model=name_of(first.model, unsecret),
            request_id=name_of(first.request_id or self.headers.get("x-request-id"), unsecret),
            **concluded(self.chunks, self._n_prompt, unsecret, whole_answer=whole, streamed=streamed),
        )

    # -- moving on -----------------------------------------------------------------------------------------------------

    def _advance(self) -> bool:
        """Move on; whether something came."""
        assert self.connection is not None
        if self._stage is Stage.CONNECTING:
            fresh = self.connection.connected_ns is None
            if not self.connection.advance():
                return False
            if fresh:
                self._marks = (self.connection.connect_ns, self.connection.connected_ns)
            self._stage = Stage.ANSWERING
            self._send()
        if self.sent_ns is None and self.connection.flush():
            self.sent_ns = self.connection.handed_ns
        found = self.connection.read()
        if found is not None:
            self._read(*found)
        return found is not None

    def _send(self) -> None:
        assert self.connection is not None
        http = self.connection.http
        data = b"".join(http.send(part) or b"" for part in self.call.request(self._host.headers))
        self._patience.connected = True
        if (early := self.connection.read()) is not None:
            if early[0]:
                raise WireError("malformed", f"it was answered before it was asked: {self._quoted(early[0])}")
            raise WireError("cut_short", "the server closed the connection without an answer")
        self.started_ns = self._patience.last_ns = self._tick_ns = time.perf_counter_ns()
        self.connection.write(data)

    def _read(self, data: bytes, stamp: Stamp) -> None:
        assert self.connection is not None
        assert self.started_ns is not None
        if data:
            if stamp.ns < self.started_ns:  # the clocks are not that exact
                stamp = Stamp(stamp.read_ns, stamp.read_ns, False)
            self._patience.last_ns = stamp.ns
            self._by_kernel = self._by_kernel and stamp.by_kernel
            self._n_bytes += len(data)
            if self.first_byte_ns is None:
                self._patience.first_byte_ns = stamp.ns
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
                if self.body.is_full and not self.done:
                    self._end(*self._document(self.body.document))
            elif isinstance(event, h11.EndOfMessage) and self.body is not None:
                self._take(self.body.close(stamp))
                self._whole()
            elif isinstance(event, h11.ConnectionClosed):
                raise WireError("cut_short", "the server closed the connection without an answer")
        n_bytes = max(self._n_bytes, 0 if self.body is None else self.body.n_bytes)
        if n_bytes > self.call.limits.most_bytes and not self.done:
            self._end("too_long", f"more than {self.call.limits.most_bytes:,} bytes came")

    def _take(self, events: list[Event]) -> None:
        for event in events:
            if self._stage is not Stage.ANSWERING:
                return  # behind the last message
            if event.data.strip() == _DONE:
                self._said_done = True
                self._close()
                return
            try:
                message = message_of(event.data)
                self._understand(message, event)
            except Malformed as error:
                self._note("malformed", f"{error}: {self._quoted(event.data)}")

    def _understand(self, message: Message, event: Event) -> None:
        if message.error is not None:
            self._note("error_event", message.error)
            self._close()
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
        if message.problems:
            self._note("malformed", f"{message.problems[0]}: {self._quoted(event.data)}")
        if tick is None:
            return
        if tick.said or tick.last:
            self._patience.said_ns = event.stamp.ns
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
        """What is wrong with a stream that has ended."""
        if self.fault is not None:
            return None, None
        says = self.call.says_done if "choices" in (self.first or Message()).raw else False  # llama.cpp's own route
        says = says_done(self.engine or "") if says is None else says
        return missing(self.chunks, said_done=self._said_done, says=says)

    def _document(self, document: bytes) -> tuple[str | None, str | None]:
        """What is wrong with an answer that is no stream: an error, or one that came as a whole although a stream was asked for."""
        assert self.status is not None
        fault, error = judged(document, self.status, self.headers, self._host.unsecret)
        if fault is None:
            stamp = Stamp(self._patience.last_ns, self._patience.last_ns, self._by_kernel)
            try:
                self._understand(message_of(document), Event(document, stamp))
            except Malformed as problem:
                return "malformed", str(problem)
        return fault, error

    def _broken(self, fault: str, text: str) -> None:
        """The connection does not come about, or breaks; behind the last message that is its end."""
        if self._stage is Stage.CLOSING:
            fault_now, error = None, None
        else:
            fault_now, error = fault, text
        self._end(fault_now, error)

    def _protocol_error(self, text: str) -> None:
        if self._stage is Stage.CLOSING:
            self._end(None, None)
        elif self._n_bytes == 0:
            self._end("cut_short", "the server closed the connection without an answer")
        elif text.startswith("peer closed connection"):
            self._end("cut_short", text)
        else:
            self._end("malformed", f"no HTTP: {text}")

    def _close(self) -> None:
        """The last message has come; what is left is the end of the body."""
        self._stage = Stage.CLOSING
        self._patience.closing_ns = time.perf_counter_ns()

    def _give_up(self, now: int, *, brought: bool) -> None:
        """End it if it has been waited for long enough; not for silence where something came just now, perhaps late read."""
        silence, end = self._patience.silence_ns, self._patience.end_ns
        if (end is None or now < end) and (brought or silence is None or now < silence):
            return
        if self._stage is Stage.CLOSING:
            self._end(None, None)
        else:
            shaking = self.connection is not None and self.connection.is_shaking
            self._end("tls" if shaking else "timeout", self._patience.why(now, shaking=shaking))

    def _quoted(self, data: bytes) -> str:
        """The beginning of what cannot be read."""
        return self._host.unsecret(data[:4096].decode(errors="replace"))[:_MOST_QUOTED]

    def _note(self, fault: str | None, error: str | None) -> None:
        """The first fault is the one to tell."""
        if self.fault is None and fault is not None:
            self.fault, self.error = fault, name_of(error, self._host.unsecret, LONGEST_ERROR)

    def _end(self, fault: str | None, error: str | None, *, reuse: bool = False) -> None:
        self._note(fault, error)
        if self.interrupted and self.error is None:
            self.error = error
        self._stage = Stage.DONE
        answered = fault is None and self.first_byte_ns is not None
        # an answer may be over before the request is
        self.ended_ns = max(self._patience.last_ns, self.sent_ns or 0) if answered else time.perf_counter_ns()
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
