"""One request and its answer, as an ASGI application sees them (ASGI 3.0, HTTP)."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final, Protocol

from org_service.serving.answers import Answer
from org_service.serving.framing import Head, RequestReader
from org_service.telemetry.logs import get_logger

log = get_logger(__name__)

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Asgi = Callable[[Scope, Receive, Send], Awaitable[None]]

CONNECTION: Final = "orgs.connection"
"""Where a scope keeps the `Peer` that a request came from."""
SLICE_BYTES: Final = 65_536
"""Of an answer that is written at once: no client makes us keep more of it than this and what is in flight."""

_CLOSE: Final = (b"connection", b"close")
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class Peer(Protocol):
    """The connection that a request came from, as its exchange and the application need it."""

    known: bool
    """Whether the request comes from somebody with a good token: set by the application that looked."""

    def write(self, data: bytes) -> None:
        """Send bytes."""
        ...

    async def wait_writable(self) -> None:
        """Wait until the peer has read enough of what was sent; returns where it is gone, too."""
        ...

    def read_body(self) -> bytes | None:
        """What has come of the body since the last time; None where it can't be read: then the peer is answered."""
        ...

    def resume(self) -> None:
        """Read on."""
        ...

    def is_reusable(self) -> bool:
        """Whether another request may follow the one in flight; asked as its answer begins."""
        ...

    def default_headers(self) -> list[tuple[bytes, bytes]]:
        """Of every answer."""
        ...

    def finish_answer(self, *, closes: bool) -> None:
        """The answer was written."""
        ...

    def abort(self) -> None:
        """Break the connection: what was sent of the answer must not pass for one."""
        ...


class Exchange:
    """One request and its answer."""

    def __init__(self, head: Head, reader: RequestReader, peer: Peer, scope: Scope) -> None:
        self._head = head
        self._reader = reader
        self._peer = peer
        self._scope = scope
        self._start: Message | None = None
        self._answer: Answer | None = None
        self._waits_to_continue = head.expects_continue
        self._finished = False
        self._closes = False
        self._body_given = False
        self._gone = False
        self._waiter: asyncio.Future[None] | None = None

    async def run(self, app: Asgi) -> None:
        """Let the application answer."""
        try:
            await app(self._scope, self.receive, self.send)
        except Exception as error:
            log.exception("a response was aborted", exc_info=error)
        finally:
            if not self._finished and not self._gone:
                self._finished = True
                self._peer.abort()

    def wake(self) -> None:
        """Something came, or nothing will."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def disconnect(self) -> None:
        """The client is gone, or can't be understood any more."""
        self._gone = True
        self.wake()

    @property
    def begun(self) -> bool:
        """Whether some of the answer was sent."""
        return self._answer is not None

    async def receive(self) -> Message:
        """A part of the body, or that the client is gone."""
        while not self._gone and not self._finished:
            content = self._peer.read_body()
            if content is None:
                break
            whole = self._reader.whole
            if content or (whole and not self._body_given):
                self._body_given = whole
                return {"type": "http.request", "body": content, "more_body": not whole}
            if self._waits_to_continue:
                self._waits_to_continue = False
                self._peer.write(_CONTINUE)
            self._peer.resume()
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """Send a part of the answer.

        Raises:
            RuntimeError: It comes out of turn.
            ValueError: It isn't what the headers say.
        """
        if self._gone:
            return
        kind = message["type"]
        if kind == "http.response.start" and self._start is None:
            self._start = message
            return
        if kind != "http.response.body" or self._start is None or self._finished:
            raise RuntimeError(f"{kind} is out of order")
        content, more = message.get("body", b""), message.get("more_body", False)
        parts: list[bytes | memoryview] = []
        if self._answer is None:
            self._answer = self._begin(self._start)
            parts.append(self._answer.begin(close=self._closes))
        rest = memoryview(content)
        while len(rest) > SLICE_BYTES and not self._gone:
            await self._write([*parts, *self._answer.encode_part(rest[:SLICE_BYTES])])
            rest, parts = rest[SLICE_BYTES:], []
        parts += self._answer.encode_part(rest)
        if not more:
            parts.append(self._answer.encode_end())
        await self._write(parts)
        if not more and not self._gone:
            self._finished = True
            self._peer.finish_answer(closes=self._closes)

    def _begin(self, start: Message) -> Answer:
        headers = [*self._peer.default_headers(), *start.get("headers", ())]
        answer = Answer(self._head.method, self._head.version, start["status"], headers)
        self._waits_to_continue = False
        self._closes = not self._head.keep_alive or answer.closes or _CLOSE in headers or not self._peer.is_reusable()
        return answer

    async def _write(self, parts: list[bytes | memoryview]) -> None:
        await self._peer.wait_writable()
        if not self._gone:
            self._peer.write(b"".join(parts))
