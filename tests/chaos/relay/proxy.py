"""Proxies between a program and its servers, to cut, stop and delay what they say to each other.

`Proxy` forwards bytes (Postgres). `KafkaProxy` knows Kafka's frames: it sends clients back to itself (it changes the
port in Metadata answers) and can hold requests of one kind back. A request that is held outlives the connection of
its client, as one does that lies in a socket buffer or a broker's queue, and goes to the broker when it is released.
"""

import asyncio
import struct
import time
from collections.abc import AsyncGenerator, Collection
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

PRODUCE, METADATA, INIT_PRODUCER_ID, ADD_PARTITIONS_TO_TXN, END_TXN = 0, 3, 22, 24, 26
"""API keys (Kafka protocol guide)."""

_HOST = "127.0.0.1"


@dataclass(eq=False)
class Link:
    """One client's connection and its own to the server."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    server_reader: asyncio.StreamReader
    server_writer: asyncio.StreamWriter
    asked: dict[int, tuple[int, int]] = field(default_factory=dict[int, tuple[int, int]])
    """API key and version of each request under way, by correlation id."""
    held: int = 0
    used: float = field(default_factory=time.monotonic)
    forgotten: bool = False


@dataclass(eq=False)
class Held:
    """A request that the broker hasn't seen."""

    link: Link
    frame: bytes
    answered: asyncio.Event = field(default_factory=asyncio.Event)

    async def release(self) -> int:
        """Let the broker have it, late; returns the error code of its answer (of EndTxn)."""
        self.link.server_writer.write(self.frame)
        await asyncio.wait_for(self.answered.wait(), 10)
        return self.error_code

    error_code: int = -1


class Proxy:
    """Forwards bytes to a server on loopback."""

    def __init__(self, server_port: int) -> None:
        self._server_port = server_port
        self._server: asyncio.Server | None = None
        self.links: set[Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._open = asyncio.Event()
        self._open.set()
        self.port = 0

    async def start(self) -> None:
        """Listen, on the same port as before if there was one."""
        self._server = await asyncio.start_server(self._accept, _HOST, self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def down(self) -> None:
        """Refuse new connections and break those that are there."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self.cut()

    def cut(self) -> None:
        """Break every connection, without a word more from either side."""
        for link in list(self.links):
            link.writer.transport.abort()
            if not link.held:
                link.server_writer.transport.abort()

    def idle(self, seconds: float) -> list[Link]:
        """The connections on which nothing was asked for so long, and nothing is waited for."""
        return [link for link in self.links if not link.asked and time.monotonic() - link.used > seconds]

    def forget(self, links: Collection[Link] | None = None) -> None:
        """Forward nothing more on these connections, or all there are, and tell nobody, as load balancers do."""
        for link in self.links if links is None else links:
            link.forgotten = True

    def freeze(self) -> None:
        """Forward nothing, keep everything open: a server that hangs."""
        self._open.clear()

    def thaw(self) -> None:
        """Undo `freeze`; what came meanwhile goes on."""
        self._open.set()

    async def close(self) -> None:
        """End everything."""
        self.thaw()
        for link in self.links:
            link.held = 0
        await self.down()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A task of our own: the one that `start_server` makes of a coroutine complains when it is cancelled.
        task = asyncio.create_task(self._forward(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        # Also where it is cancelled before it has reached the server, or even begun.
        task.add_done_callback(lambda _: writer.transport.abort())

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            server_reader, server_writer = await asyncio.open_connection(_HOST, self._server_port)
        except OSError:
            return
        link = Link(reader, writer, server_reader, server_writer)
        self.links.add(link)
        ends = [asyncio.create_task(self._up(link)), asyncio.create_task(self._down(link))]
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            while link.held and not ends[1].done():
                await asyncio.wait({ends[1]}, timeout=0.05)
        finally:
            for end in ends:
                end.cancel()
            await asyncio.gather(*ends, return_exceptions=True)
            self.links.discard(link)
            for transport in (link.writer.transport, link.server_writer.transport):
                transport.abort()

    async def _up(self, link: Link) -> None:
        with suppress(OSError):
            while data := await link.reader.read(65_536):
                await self._open.wait()
                link.server_writer.write(data)

    async def _down(self, link: Link) -> None:
        with suppress(OSError):
            while data := await link.server_reader.read(65_536):
                await self._open.wait()
                link.writer.write(data)


class KafkaProxy(Proxy):
    """Stands before one broker."""

    def __init__(self, server_port: int) -> None:
        super().__init__(server_port)
        self.holding: set[int] = set()
        """API keys whose requests are held back."""
        self.muting: set[int] = set()
        """API keys whose answers are lost; their requests are carried out."""
        self.advertised_port: int | None = None
        """Where clients are sent; None: here."""
        self.cluster_ids: tuple[bytes, bytes] = (b"", b"")
        """The id that brokers tell, and one of the same length that clients hear of in its place."""
        self.held: list[Held] = []
        self.muted = 0
        self._news = asyncio.Event()

    async def wait_held(self, count: int, timeout_s: float = 20) -> Held:
        """Wait until so many requests were held in all; returns the last of these."""
        async with asyncio.timeout(timeout_s):
            while len(self.held) < count:
                self._news.clear()
                await self._news.wait()
        return self.held[count - 1]

    async def wait_muted(self, count: int, timeout_s: float = 20) -> None:
        """Wait until so many answers were lost in all."""
        async with asyncio.timeout(timeout_s):
            while self.muted < count:
                self._news.clear()
                await self._news.wait()

    async def _up(self, link: Link) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            while True:
                frame = await _frame(link.reader)
                await self._open.wait()
                if link.forgotten:
                    continue
                link.used = time.monotonic()
                api_key, version, correlation = struct.unpack_from(">hhi", frame, 4)
                link.asked[correlation] = (api_key, version)
                if api_key in self.holding:
                    link.held += 1
                    self.held.append(Held(link, frame))
                    self._news.set()
                else:
                    link.server_writer.write(frame)

    async def _down(self, link: Link) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            while True:
                frame = await _frame(link.server_reader)
                await self._open.wait()
                if link.forgotten:
                    continue
                correlation = struct.unpack_from(">i", frame, 4)[0]
                api_key, version = link.asked.pop(correlation)
                for held in self.held:
                    if held.link is link and struct.unpack_from(">i", held.frame, 8)[0] == correlation:
                        held.error_code = struct.unpack_from(">h", frame, 12)[0]
                        held.answered.set()
                        link.held -= 1
                if api_key in self.muting:
                    self.muted += 1
                    self._news.set()
                elif not link.writer.is_closing():
                    port = self.advertised_port or self.port
                    if api_key == METADATA:
                        frame = _to_proxy(frame, version, port).replace(*self.cluster_ids)
                    link.writer.write(frame)


async def _frame(reader: asyncio.StreamReader) -> bytes:
    size = await reader.readexactly(4)
    return size + await reader.readexactly(struct.unpack(">i", size)[0])


def _to_proxy(answer: bytes, version: int, port: int) -> bytes:
    """A Metadata answer whose brokers are all at `port`; ports have a fixed size, so nothing moves."""
    changed = bytearray(answer)
    flexible = version >= 9  # KIP-482: lengths of one byte as long as they are small, and tags
    at = 8 + flexible + (4 if version >= 3 else 0)

    def length() -> int:
        nonlocal at
        (found,) = (changed[at] - 1,) if flexible else struct.unpack_from(">i", changed, at)
        at += 1 if flexible else 4
        return found

    def pass_string() -> None:
        nonlocal at
        (found,) = (changed[at] - 1,) if flexible else struct.unpack_from(">h", changed, at)
        at += (1 if flexible else 2) + max(0, found)

    for _ in range(length()):
        at += 4
        pass_string()
        struct.pack_into(">i", changed, at, port)
        at += 4
        if version >= 1:
            pass_string()
        at += flexible
    return bytes(changed)


@asynccontextmanager
async def kafka_proxy(bootstrap_servers: str) -> AsyncGenerator[KafkaProxy]:
    """A proxy before the broker at `host:port`."""
    proxy = KafkaProxy(int(bootstrap_servers.rpartition(":")[2]))
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.close()


@asynccontextmanager
async def postgres_proxy(database_url: str) -> AsyncGenerator[tuple[Proxy, str]]:
    """A proxy before the server of a URL, and the URL that leads through it."""
    before, _, rest = database_url.rpartition(":")
    port, _, database = rest.partition("/")
    proxy = Proxy(int(port))
    await proxy.start()
    try:
        yield proxy, f"{before}:{proxy.port}/{database}"
    finally:
        await proxy.close()
