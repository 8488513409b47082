"""A network that goes silent: bytes vanish in both directions, while every connection stays open."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from pydantic import SecretStr

from org_service.settings import Database


class Network:
    """Between a client and Postgres."""

    def __init__(self) -> None:
        self.silent = False

    async def relay(self, server: tuple[str, int], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass bytes on both ways, as long as the network isn't silent."""
        server_reader, server_writer = await asyncio.open_connection(*server)
        ways = ((reader, server_writer), (server_reader, writer))
        await asyncio.gather(*(self._pass_on(*way) for way in ways))

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while content := await reader.read(65_536):
                if not self.silent:
                    writer.write(content)
        except ConnectionError:
            pass
        finally:
            if not self.silent:  # the end of a connection doesn't get through either
                writer.close()


@asynccontextmanager
async def network_to(database: Database) -> AsyncGenerator[tuple[Network, Database]]:
    """The network, and the database as it is reached through it."""
    url = database.url.get_secret_value()
    port = urlsplit(url).port
    assert port is not None
    network = Network()
    tasks: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(network.relay(("127.0.0.1", port), reader, writer))
        tasks.add(task)

    listener = await asyncio.start_server(accept, "127.0.0.1", 0)
    through = url.replace(f":{port}/", f":{listener.sockets[0].getsockname()[1]}/")
    yield network, database.model_copy(update={"url": SecretStr(f"{through}?sslmode=disable")})
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    listener.close()
