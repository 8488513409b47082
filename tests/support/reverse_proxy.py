"""A reverse proxy that reuses one connection to the server, as proxies do, for everything that its clients send.

It buffers a request, as nginx does, reads its end by the length or the chunks, and hands on its headers as they came,
`Connection` and `Upgrade` included (nginx with the usual lines for WebSocket). What it can't read it answers itself.
"""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]+)[ \t]*\r\n", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:[ \t]*chunked[ \t]*\r\n", re.IGNORECASE)


class _Proxy:
    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._upstream: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._turn = asyncio.Lock()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                request = await _message(reader)
                async with self._turn:
                    writer.write(await self._ask(request))
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _ask(self, request: bytes) -> bytes:
        if self._upstream is None or self._upstream[0].at_eof():
            self._upstream = await asyncio.open_connection(self._host, self._port)
        reader, writer = self._upstream
        writer.write(request)
        try:
            answer = await _message(reader, answer=True)
        except (asyncio.IncompleteReadError, ConnectionError):
            self.close()
            return b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n"
        if b"connection: close" in answer.partition(b"\r\n\r\n")[0].lower():
            self.close()
        return answer

    def close(self) -> None:
        if self._upstream is not None:
            self._upstream[1].close()
            self._upstream = None


async def _message(reader: asyncio.StreamReader, *, answer: bool = False) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    if _CHUNKED.search(head):
        return head + await reader.readuntil(b"0\r\n\r\n")
    found = _LENGTH.search(head)
    if found is None or (answer and head.split(b" ")[1] in (b"204", b"304")):
        return head
    return head + await reader.readexactly(int(found[1]))


@asynccontextmanager
async def reverse_proxy(host: str, port: int) -> AsyncIterator[int]:
    """Serve on a free port, which is given."""
    proxy = _Proxy(host, port)
    async with await asyncio.start_server(proxy.serve, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]
    proxy.close()
