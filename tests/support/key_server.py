"""An issuer's web server, on loopback: it answers as the test wants, and counts."""

import asyncio
from types import TracebackType
from typing import Self

from tests.support.issuer import Signer, jwks


class KeyServer:
    """Serves a set of keys at `url`; a context manager."""

    def __init__(self, *keys: Signer) -> None:
        self.body = jwks(*keys)
        self.status = "200 OK"
        self.headers = ""
        self.silent = False
        """Take requests and never answer."""
        self.drips = False
        """Send a byte now and then, never the last."""
        self.requests = 0
        self.last_request = b""
        """Its head."""
        self.port = 0
        self._asked = asyncio.Condition()
        self._server: asyncio.Server | None = None
        self._handlers: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """Where the keys are."""
        return f"http://127.0.0.1:{self.port}/jwks.json"

    def hold(self, *keys: Signer) -> None:
        """Serve these keys from now on."""
        self.body = jwks(*keys)

    async def asked(self, requests: int) -> None:
        """Wait until so many requests came."""
        async with asyncio.timeout(10), self._asked:
            await self._asked.wait_for(lambda: self.requests >= requests)

    async def start(self) -> None:
        """Listen, at the same port as before."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Listen no more, and cut every connection."""
        if self._server is not None:
            self._server.close()
            for handler in self._handlers:
                handler.cancel()
            await asyncio.gather(*self._handlers, return_exceptions=True)
            await self._server.wait_closed()
            self._server = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._handlers.add(task)
        try:
            while head := await _request(reader):
                self.last_request = head
                async with self._asked:
                    self.requests += 1
                    self._asked.notify_all()
                await self._answer(writer)
        except (ConnectionError, asyncio.CancelledError):
            return
        finally:
            self._handlers.discard(task)
            writer.transport.abort()

    async def _answer(self, writer: asyncio.StreamWriter) -> None:
        if self.silent:
            await asyncio.Event().wait()
        head = f"HTTP/1.1 {self.status}\r\ncontent-length: {len(self.body)}\r\n{self.headers}\r\n"
        writer.write(head.encode())
        if self.drips:
            for byte in self.body[:-1]:
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(0.05)
            await asyncio.Event().wait()
        writer.write(self.body)
        await writer.drain()


async def _request(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return b""
