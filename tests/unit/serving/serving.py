"""A server with a small application, and clients that send bytes."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvloop

from org_service.edge.http.problems import answer_malformed
from org_service.serving.exchange import CONNECTION, Asgi
from org_service.serving.server import Bounds, HttpServer, listen

WAIT_S = 10
Run = Callable[[Coroutine[Any, Any, None]], None]

on_both_loops = pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])


class Echo:
    """Says which requests it was given, whole: method, path, body. `known` callers send `authorization`."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, bytes]] = []
        self.headers: list[dict[bytes, bytes]] = []
        self.hold: asyncio.Event | None = None
        self.in_flight = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        headers = dict(scope["headers"])
        if b"authorization" in headers:
            scope[CONNECTION].known = True
        body = b""
        if scope["path"] != "/unread":
            more = True
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    return
                body += message["body"]
                more = message["more_body"]
        self.seen.append((scope["method"], scope["path"], body))
        self.headers.append(headers)
        self.in_flight += 1
        if self.hold is not None:
            await self.hold.wait()
        self.in_flight -= 1
        answer = b"x" * 2_000_000 if scope["path"] == "/large" else b"%b %b" % (scope["path"].encode(), body)
        length = [(b"content-length", b"%d" % len(answer))] if scope["path"] != "/streamed" else []
        await send({"type": "http.response.start", "status": 200, "headers": length})
        if scope["path"] == "/streamed":
            await send({"type": "http.response.body", "body": answer[:3], "more_body": True})
            answer = answer[3:]
        await send({"type": "http.response.body", "body": answer})


class Client:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def answer(self) -> bytes:
        """One answer with a content-length."""
        async with asyncio.timeout(WAIT_S):
            head = await self.reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            return head + await self.reader.readexactly(length)

    async def rest(self) -> bytes:
        """All that comes until the server closes; b"" where it resets."""
        async with asyncio.timeout(WAIT_S):
            try:
                return await self.reader.read()
            except ConnectionError:
                return b""

    async def is_closed(self) -> bool:
        return await self.rest() == b""


@asynccontextmanager
async def serving(
    app: Asgi, *, connections_max: int = 100, head_bytes_max: int = 16_384, address_connections_max: int = 0
) -> AsyncIterator[HttpServer]:
    bounds = Bounds(connections_max, head_bytes_max, address_connections_max)
    listener = listen("127.0.0.1", 0, "The test", "ORGS_TEST__PORT")
    async with HttpServer(app, listener, bounds, answer_malformed, drain_timeout_s=5) as server:
        yield server


@asynccontextmanager
async def connected(server: HttpServer) -> AsyncIterator[Client]:
    reader, writer = await asyncio.open_connection(*server.address)
    try:
        yield Client(reader, writer)
    finally:
        writer.close()
