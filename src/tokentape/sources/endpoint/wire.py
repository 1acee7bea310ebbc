"""One connection to a server: a non-blocking socket whose every read is stamped, with TLS where it is asked for.

Nothing here waits. Whoever owns a connection selects on it for what it :attr:`~Connection.wants`, and then moves it on.
"""

from __future__ import annotations

import contextlib
import errno
import os
import selectors
import socket
import ssl
import time
from collections.abc import Sequence

import h11

from tokentape.sources.endpoint.address import Address, Place
from tokentape.sources.endpoint.fitting import without_secrets
from tokentape.sources.endpoint.stamps import (
    ANCILLARY_BYTES,
    Stamp,
    WallClock,
    kernel_stamp,
    stamped_by_kernel,
)

__all__ = ["Connection", "Host", "WireError"]

READ_BYTES = 1 << 16
"""The most that one read brings; what it brings together has one stamp."""

_WAIT = (BlockingIOError, InterruptedError)


class WireError(Exception):
    """The connection does not come about, or breaks; ``fault`` is one of :data:`~tokentape.data.exchange.FAULTS`."""

    def __init__(self, fault: str, text: str) -> None:
        super().__init__(text)
        self.fault = fault


class Host:
    """A server as one process sees it: looked up once, with what all connections to it share. Raises Unreachable, UsageError."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.headers = address.headers()
        self.secrets = address.secrets()
        self._tls = address.tls_context()
        self._places = address.places()
        self._clock = WallClock()

    def unsecret(self, text: str) -> str:
        """A text without what is secret: servers like to repeat a key that they refuse."""
        return without_secrets(text, self.secrets)

    def connection(self, tls: ssl.SSLContext | None = None) -> Connection:
        """A connection that has not begun to connect; with ``tls`` where the address asks for none too."""
        return Connection(self._places, self.address.host, tls or self._tls, self._clock)


class Connection:
    """A connection to the first of some ``places`` that answers; ``tls`` is a context, and ``host`` the name to be certified.

    ``connect_ns`` is when connecting began, ``connected_ns`` when it could be written to, TLS included: marks of
    ``time.perf_counter_ns``. ``handed_ns`` is the mark just before that call of the socket which took the last byte that was
    written: what answers it comes later. ``tells_time`` is whether the kernel stamps what comes. A connection outlives the
    requests on it.
    """

    def __init__(
        self, places: Sequence[Place], host: str, tls: ssl.SSLContext | None = None, clock: WallClock | None = None
    ) -> None:
        self._left = list(places)
        self._clock = clock or WallClock()
        self._socket: socket.socket | None = None
        self._out = b""  # bytes for the socket: under TLS, records
        self._seen_ns = 0
        self._tls = _Tls(tls, host) if tls is not None else None
        self._is_connected = False
        self._takes_no_more = False
        self.connect_ns: int | None = None
        self.connected_ns: int | None = None
        self.handed_ns: int | None = None
        self.tells_time = False
        self.http = h11.Connection(h11.CLIENT)

    @property
    def is_open(self) -> bool:
        """Whether it can be written to."""
        return self.connected_ns is not None and self._socket is not None

    @property
    def is_shaking(self) -> bool:
        """Whether it waits for the handshake of TLS."""
        return self._is_connected and self._tls is not None and self.connected_ns is None

    def fileno(self) -> int:
        """The file descriptor, -1 where there is none; another one after a place that did not answer."""
        return -1 if self._socket is None else self._socket.fileno()

    @property
    def wants(self) -> int:
        """What to select for, a mask of ``selectors``."""
        if not self._is_connected:
            return selectors.EVENT_WRITE
        return selectors.EVENT_READ | (selectors.EVENT_WRITE if self._out else 0)

    # -- beginning -----------------------------------------------------------------------------------------------------

    def connect(self) -> None:
        """Begin to connect, to the next place. Raises WireError where none is left."""
        if self.connect_ns is None:
            self.connect_ns = self._seen_ns = time.perf_counter_ns()
        problem = "the host has no address"
        while self._left:
            family, place = self._left.pop(0)
            try:
                self._socket = socket.socket(family, socket.SOCK_STREAM)
                self._socket.setblocking(False)
                self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.tells_time = stamped_by_kernel(self._socket)
                code = self._socket.connect_ex(place)
            except OSError as error:
                code = error.errno or -1
            if code in (0, errno.EINPROGRESS, errno.EWOULDBLOCK):
                return
            problem = os.strerror(code)
            self.close()
        raise WireError("refused", problem)

    def advance(self) -> bool:
        """Go on connecting; whether it can be written to. Raises WireError."""
        if self.connected_ns is not None:
            return True
        if self._socket is None:
            self.connect()
        assert self._socket is not None
        if not self._is_connected and not self._settle():
            return False
        if self._tls is not None and not self._shake():
            return False
        self.connected_ns = time.perf_counter_ns()
        return True

    def _settle(self) -> bool:
        assert self._socket is not None
        code = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self.close()
            if not self._left:
                raise WireError("timeout" if code == errno.ETIMEDOUT else "refused", os.strerror(code))
            self.connect()
            return False
        try:
            self._socket.getpeername()
        except OSError:
            return False  # still under way
        self._is_connected = True
        return True

    def _shake(self) -> bool:
        assert self._tls is not None
        done = self._tls.shake()
        self._out += self._tls.outgoing.read()
        self._flush()
        if done:
            return True
        try:
            data = self._receive()
        except WireError as error:
            if error.fault == "reset":
                raise WireError("tls", "the server broke the connection off during the handshake") from error
            raise
        if data is None:
            return False
        if not data[0]:
            raise WireError("tls", "the server closed the connection during the handshake")
        self._tls.incoming.write(data[0])
        return self._shake()

    # -- writing and reading -------------------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Hand bytes over; what the socket does not take at once waits for the next :meth:`flush`. Raises WireError."""
        if self._tls is not None:
            data = self._tls.sealed(data)
        self._out += data
        self._flush()

    def flush(self) -> bool:
        """Hand over what waits; whether nothing does any more, and nothing was lost. Raises WireError."""
        self._flush()
        return not self._out and not self._takes_no_more

    def _flush(self) -> None:
        assert self._socket is not None
        while self._out:
            self.handed_ns = time.perf_counter_ns()
            try:
                n_sent = self._socket.send(self._out)
            except _WAIT:
                return
            except OSError as error:
                self._out = b""
                if error.errno in (errno.EPIPE, errno.ECONNRESET):
                    self._takes_no_more = True
                    return  # the server may have answered before it closed; reading tells
                raise WireError("reset", os.strerror(error.errno or 0)) from error
            self._out = self._out[n_sent:]

    def read(self) -> tuple[bytes, Stamp] | None:
        """What one read of the socket brings, with its stamp; empty bytes at the end; None where nothing is there.

        Raises WireError, of the fault ``reset`` where the connection was broken off.
        """
        if self._tls is None:
            return self._receive()
        found = self._receive()
        if found is None:
            return None
        data, stamp = found
        plain, ended = self._tls.opened(data)
        if not plain and not ended:
            return None
        return plain, stamp

    def _receive(self) -> tuple[bytes, Stamp] | None:
        assert self._socket is not None
        try:
            if self.tells_time:
                data, ancillary, _, _ = self._socket.recvmsg(READ_BYTES, ANCILLARY_BYTES)
                read_ns = time.perf_counter_ns()
                wall_ns = kernel_stamp(ancillary)
            else:
                data = self._socket.recv(READ_BYTES)
                read_ns = time.perf_counter_ns()
                wall_ns = None
        except _WAIT:
            return None
        except OSError as error:
            fault = "timeout" if error.errno == errno.ETIMEDOUT else "reset"
            raise WireError(fault, os.strerror(error.errno or 0)) from error
        came = None if wall_ns is None else self._clock.monotonic(wall_ns, read_ns, self._seen_ns)
        self._seen_ns = read_ns if came is None else came
        return data, Stamp(self._seen_ns, read_ns, came is not None)

    def has_gone(self) -> bool:
        """Whether an idle connection can no longer be used: the server closed it, or said something unasked."""
        if self._socket is None:
            return True
        try:
            self._socket.recv(1, socket.MSG_PEEK)
        except _WAIT:
            return False
        except OSError:
            return True
        return True

    def close(self) -> None:
        """Close it; again does nothing."""
        found, self._socket = self._socket, None
        if found is not None:
            found.close()


class _Tls:
    """TLS between two buffers."""

    def __init__(self, context: ssl.SSLContext, host: str) -> None:
        self.incoming = ssl.MemoryBIO()
        self.outgoing = ssl.MemoryBIO()
        self._object = context.wrap_bio(self.incoming, self.outgoing, server_hostname=host.partition("%")[0])

    def shake(self) -> bool:
        """Go on with the handshake; whether it is done. Raises WireError."""
        try:
            self._object.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLCertVerificationError as error:
            raise WireError("tls", f"certificate: {error.verify_message}") from error
        except ssl.SSLError as error:
            raise WireError("tls", error.reason or str(error)) from error
        return True

    def sealed(self, data: bytes) -> bytes:
        """Bytes as records."""
        self._object.write(data)
        return self.outgoing.read()

    def opened(self, records: bytes) -> tuple[bytes, bool]:
        """What records hold, and whether they are the last. Raises WireError: there was TLS, and it broke."""
        if records:
            self.incoming.write(records)
        else:
            self.incoming.write_eof()
        plain = bytearray()
        with contextlib.suppress(ssl.SSLWantReadError):
            try:
                while part := self._object.read(READ_BYTES):
                    plain += part
                return bytes(plain), True
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                return bytes(plain), True
            except ssl.SSLWantReadError:
                raise
            except ssl.SSLError as error:
                raise WireError("reset", f"TLS: {error.reason or error}") from error
        return bytes(plain), False
