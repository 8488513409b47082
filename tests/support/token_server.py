"""An issuer's token endpoint, on loopback: it answers as the test wants, and keeps what it was asked."""

import asyncio
import json
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import parse_qs

_REASON: Final = "Whatever"


class TokenServer:
    """Gives token 1, 2, 3 …; a context manager."""

    def __init__(self) -> None:
        self.status = 200
        self.members: dict[str, Any] = {"token_type": "Bearer", "expires_in": 300}
        """Of an answer, beside the token; or the whole of one that isn't 200."""
        self.headers = ""
        self.body: bytes | None = None
        """The whole answer, whatever it is."""
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.requests: list[tuple[dict[str, str], dict[str, list[str]]]] = []
        """Headers by their lower-case names, and the form."""
        self._arrival = asyncio.Condition()
        self._server: asyncio.Server | None = None
        self._handlers: set[asyncio.Task[None]] = set()
        self.port = 0

    @property
    def url(self) -> str:
        """The endpoint."""
        return f"http://127.0.0.1:{self.port}/token"

    async def arrived(self, count: int) -> None:
        """Wait until so many requests came."""
        async with asyncio.timeout(10), self._arrival:
            await self._arrival.wait_for(lambda: len(self.requests) >= count)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for handler in self._handlers:
            handler.cancel()
        await asyncio.gather(*self._handlers, return_exceptions=True)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._handlers.add(task)
        task.add_done_callback(self._handlers.discard)
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                await self._answer(reader, writer)
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().splitlines()
        assert head == "POST /token HTTP/1.1"
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines if line)}
        form = parse_qs((await reader.readexactly(int(headers["content-length"]))).decode(), strict_parsing=True)
        number = len(self.requests) + 1
        async with self._arrival:
            self.requests.append((headers, form))
            self._arrival.notify_all()
        await self.may_answer.wait()
        body = self.body
        if body is None:
            token = {"access_token": f"token-{number}"} if self.status == 200 else {}
            body = json.dumps(token | self.members).encode()
        writer.write(f"HTTP/1.1 {self.status} {_REASON}\r\n{self.headers}content-length: {len(body)}\r\n\r\n".encode())
        writer.write(body)
        await writer.drain()
