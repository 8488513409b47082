"""One connection of a client: its requests, one after the other, and what it may not do.

Nothing is done ahead: the next request is checked when the one before has its answer. A request that can't be read,
or whose body nobody wanted to read, is the last one of its connection, and so is one of somebody unknown with bytes
behind it: what an attacker puts in front of another client's request is never run.
"""

import asyncio
import contextvars
from typing import Final, Protocol, cast

from org_service import probes
from org_service.serving.exchange import CONNECTION, SLICE_BYTES, Exchange, Scope
from org_service.serving.framing import Head, MalformedError, RequestReader
from org_service.serving.registry import ConnectionState

READ_AHEAD_BYTES_MAX: Final = 65_536
"""Of bodies and of requests behind the one that is answered; then the client waits."""
DISCARDED_BYTES_MAX: Final = 262_144
"""Of what comes after the last answer, until the connection is broken."""


class ConnectionOwner(Protocol):
    """The server that a connection belongs to, as the connection needs it."""

    address: tuple[str, int]
    """Host and port."""
    draining: bool
    """Whether answers are the last ones of their connections."""

    def admit(self, connection: "HttpConnection") -> bool:
        """Make room for a connection; False where there is none."""
        ...

    def settle(self, connection: "HttpConnection", state: ConnectionState) -> None:
        """Note what a connection does now."""
        ...

    def forget(self, connection: "HttpConnection") -> None:
        """A connection is gone, or as good as gone."""
        ...

    def limit_slow_unknown(self) -> None:
        """Break the connection that nobody known hasn't read from for longest, where there are too many."""
        ...

    def start(self, exchange: Exchange, context: contextvars.Context) -> None:
        """Let a request be answered."""
        ...

    def answer_malformed(self, status: int, detail: str) -> bytes:
        """A whole answer to what can't be read."""
        ...

    def default_headers(self) -> list[tuple[bytes, bytes]]:
        """Of every answer."""
        ...


class HttpConnection(asyncio.Protocol):
    """A client's connection, as a loop and an `Exchange` see it."""

    def __init__(self, server: ConnectionOwner, head_bytes_max: int) -> None:
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._reader = RequestReader(head_bytes_max)
        self._transport: asyncio.Transport
        self._context = contextvars.copy_context()
        """Of nobody's request: what one binds must not be seen by the next."""
        self._exchange: Exchange | None = None
        self._served = False
        self._closing = False
        self._discarded = 0
        self._drained: asyncio.Future[None] | None = None
        self._paused = False
        self._reading = True
        self.peer = ""
        """The client's address."""
        self.known = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, if there is room."""
        self._transport = cast("asyncio.Transport", transport)
        address = transport.get_extra_info("peername") or ("", 0)
        self.peer, self._port = address[0], address[1]
        if not self._server.admit(self):
            self._transport.abort()
            return
        self._transport.set_write_buffer_limits(high=SLICE_BYTES)
        self._settle()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - why doesn't matter
        """Forget it."""
        self._closing, self._paused = True, False
        self._server.forget(self)
        self._release()
        if self._exchange is not None:
            self._exchange.disconnect()

    def data_received(self, data: bytes) -> None:
        """Take bytes."""
        if self._closing:
            self._discarded += len(data)
            if self._discarded > DISCARDED_BYTES_MAX:
                self._transport.abort()
            return
        self._reader.feed(data)
        if self._exchange is None:
            self._next()
            return
        if probes.listeners:
            probes.notify("serving.read_ahead")
        self._exchange.wake()
        if self._reading and self._reader.waiting > READ_AHEAD_BYTES_MAX:
            self._reading = False
            self._transport.pause_reading()

    def eof_received(self) -> None:
        """The client has no more to say, and is taken for gone: the transport closes."""
        if self._exchange is not None:
            self._exchange.disconnect()
        self._closing = True
        self._settle()

    def pause_writing(self) -> None:
        """The client doesn't read its answer."""
        self._paused = True
        self._settle()
        if not self.known and not self._closing:
            self._server.limit_slow_unknown()

    def resume_writing(self) -> None:
        """It has read most of it; of the last answer, all that was left here."""
        self._paused = False
        self._release()
        self._settle()
        if self._closing:
            self._see_it_sent()

    def expire(self, state: ConnectionState) -> None:
        """Its time in a state is over."""
        if state in (ConnectionState.WRITING, ConnectionState.CLOSING):
            self._transport.abort()
        else:
            self.close()

    def close(self) -> None:
        """Close it, where no request is in flight; else after its answer."""
        if self._exchange is None and not self._closing:
            self._closing = True
            self._settle()
            self._transport.close()

    def write(self, data: bytes) -> None:
        """Send bytes."""
        if not self._transport.is_closing():
            self._transport.write(data)

    async def wait_writable(self) -> None:
        """Wait until the client has read enough; returns where it is gone, too."""
        if self._paused:
            if self._drained is None:
                self._drained = self._loop.create_future()
            await asyncio.shield(self._drained)

    def resume(self) -> None:
        """Read on."""
        if not self._reading:
            self._reading = True
            self._transport.resume_reading()

    def read_body(self) -> bytes | None:
        """What has come of the body; None where it can't be read."""
        try:
            return self._reader.read_body()
        except MalformedError as error:
            self._reject(error)
            return None

    def is_reusable(self) -> bool:
        """Whether another request may follow."""
        self._reader.drop_body()
        return self._reader.whole and not self._server.draining and (self.known or not self._reader.waiting)

    def default_headers(self) -> list[tuple[bytes, bytes]]:
        """Of every answer."""
        return self._server.default_headers()

    def abort(self) -> None:
        """Break it."""
        self._transport.abort()

    def finish_answer(self, *, closes: bool) -> None:
        """Go on with the next request, or end."""
        self._exchange = None
        # The answer may have been long: what was true when it began is checked again.
        if closes or self._server.draining or (self._reader.waiting and not self.known):
            self._finish()
            return
        self.resume()
        if self._reader.waiting:
            # Not at once: others wait as well.
            self._loop.call_soon(self._next, context=self._context)
        self._settle()

    def _next(self) -> None:
        """Look whether a whole head has come; if so, let it be answered.

        Called with every byte that comes between two requests, and soon after an answer, so that either may find a
        request that the other has started: what waits is then that one's body, and no head.
        """
        if self._closing or self._exchange is not None:
            return
        try:
            head = self._reader.next_head()
        except MalformedError as error:
            self._reject(error)
            return
        if head is not None:
            self.known, self._served = False, True
            self._exchange = Exchange(head, self._reader, self, self._scope(head))
            self._server.start(self._exchange, self._context.copy())
        self._settle()

    def _scope(self, head: Head) -> Scope:
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": head.version,
            "server": self._server.address,
            "client": (self.peer, self._port),
            "scheme": "http",
            "method": head.method,
            "root_path": "",
            "path": head.path,
            "raw_path": head.raw_path,
            "query_string": head.query,
            "headers": head.headers,
            CONNECTION: self,
        }

    def _reject(self, error: MalformedError) -> None:
        """Answer what can't be read, and read nothing behind it."""
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.disconnect()
            if exchange.begun:
                self.abort()
                return
        self.write(self._server.answer_malformed(error.status, error.detail))
        self._finish()

    def _finish(self) -> None:
        """Close behind the last answer: at once where nothing more can come, else after what comes is thrown away."""
        self._closing = True
        self._settle()
        self.resume()
        if not self._paused:
            self._see_it_sent()
        if self._reader.whole and not self._reader.waiting:
            self._transport.close()
        elif self._transport.can_write_eof() and not self._transport.is_closing():
            self._transport.write_eof()
        if probes.listeners:
            probes.notify("serving.last_answer_written")

    def _see_it_sent(self) -> None:
        """Have the client count as one that doesn't read its answer as long as any of the last one is still here.

        It has the time for that which it has for any other part; that of who still sends begins when all is sent.
        """
        self._transport.set_write_buffer_limits(high=0)

    def _release(self) -> None:
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)
        self._drained = None

    def _settle(self) -> None:
        if self._paused:
            state = ConnectionState.WRITING
        elif self._closing:
            state = ConnectionState.CLOSING
        elif self._exchange is not None:
            state = ConnectionState.ACTIVE
        elif not self._served:
            state = ConnectionState.NEW
        else:
            state = ConnectionState.HEAD if self._reader.waiting else ConnectionState.IDLE
        self._server.settle(self, state)
