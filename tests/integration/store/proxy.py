"""A network that goes silent: bytes vanish in both directions, and nobody learns that a connection was closed."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from pydantic import SecretStr

from org_service.settings import DatabaseSettings


class Network:
    """Between clients and one server."""

    def __init__(self, host: str, port: int) -> None:
        self.silent = False
        self._server = (host, port)
        self._writers: list[asyncio.StreamWriter] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass the bytes of one client on, both ways."""
        self._writers.append(writer)
        server_reader, server_writer = await asyncio.open_connection(*self._server)
        self._writers.append(server_writer)
        for way in ((reader, server_writer), (server_reader, writer)):
            self._tasks.add(asyncio.create_task(self._pass_on(*way)))

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        content = b"-"
        while content:
            try:
                content = await reader.read(65_536)
            except ConnectionError:
                content = b""
            if not self.silent:
                writer.write(content)
        if not self.silent:
            writer.close()

    async def close(self) -> None:
        """End every connection."""
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.wait(self._tasks)
        await asyncio.gather(*(writer.wait_closed() for writer in self._writers), return_exceptions=True)


@asynccontextmanager
async def network_to(database: DatabaseSettings) -> AsyncGenerator[tuple[Network, DatabaseSettings]]:
    """The network, and the database as it is reached through it."""
    url = database.url.get_secret_value()
    port = urlsplit(url).port
    assert port is not None
    network = Network("127.0.0.1", port)
    async with await asyncio.start_server(network.carry, "127.0.0.1", 0) as listener:
        through = url.replace(f":{port}/", f":{listener.sockets[0].getsockname()[1]}/")
        yield network, database.model_copy(update={"url": SecretStr(f"{through}?sslmode=disable")})
        await network.close()
