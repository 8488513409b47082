"""The hostile clients of `hostile`: a process that holds connections for nothing, and opens those again that it loses.

Protocol: arguments are the edge's port, how many connections, how many a second it may open, and a good token of
somebody who may see nothing; a line on standard output says that each was opened once; the end of input is the end.
"""

import asyncio
import collections
import random
import sys
from itertools import cycle
from typing import Any, NamedTuple

import uvloop

from tests.support.waiting import until

DRIP_S = 1.0
OPEN_TIMEOUT_S = 600.0
"""Ten thousand connections, at the rate that an edge with small bounds allows."""


class Kind(NamedTuple):
    """One way to be hostile."""

    name: str
    share: int
    """Of a hundred connections."""
    opens: bytes
    """Sent at once."""
    drips: bytes = b""
    """Sent again and again."""
    reads: bool = True


def kinds(token: str) -> list[Kind]:
    """Those that hold a connection for as long as they may, and those that try something and are sent away."""
    host = b"host: 127.0.0.1\r\n"
    known = host + f"authorization: Bearer {token}\r\n".encode()
    forged = host + b"authorization: Bearer x.y.z\r\n"
    json = b"content-type: application/json\r\n"
    long = json + b"content-length: 60000\r\n\r\n{"
    chunked = json + b"transfer-encoding: chunked\r\n\r\n"
    post = b"POST /v1/orgs HTTP/1.1\r\n"
    small = b"GET /v1/orgs HTTP/1.1\r\n" + host + b"\r\n"
    return [
        Kind("idle", 50, b""),
        Kind("idle after an answer", 6, b"GET /docs HTTP/1.1\r\n" + host + b"\r\n"),
        Kind("slow head", 14, b"GET /v1/orgs HTTP/1.1\r\n" + host + b"x-slow: ", b"y"),
        Kind("slow reader", 4, b"GET /docs/swagger-ui-bundle.js HTTP/1.1\r\n" + host + b"\r\n", reads=False),
        Kind("slow body of somebody known", 10, post + known + long, b" "),
        Kind("slow chunks of somebody known", 4, post + known + chunked, b"1\r\n \r\n"),
        Kind("slow body of nobody", 3, post + forged + long, b" "),
        Kind("slow body for nothing", 2, b"POST /nothing HTTP/1.1\r\n" + host + long, b" "),
        Kind("pipelining", 2, small * 500),
        Kind("upgrade", 2, post + forged + b"connection: upgrade\r\nupgrade: h2c\r\n" + long + b"x" * 60_000 + small),
        Kind("endless trailers", 1, post + known + chunked + b"0\r\n" + b"x: y\r\n" * 2_000, b"x: y\r\n"),
        Kind("small chunks", 1, post + known + chunked + b"1\r\n \r\n" * 10_000),
        Kind("nonsense", 1, b"\x16\x03\x01\x02\0" + b"\0" * 200),
    ]  # fmt: skip


class _Hostile(asyncio.Protocol):
    def __init__(self, clients: "_HostileClients", kind: Kind) -> None:
        self.clients = clients
        self.kind = kind
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.clients.open.add(self)
        self.clients.opened += 1
        if not self.kind.reads:
            transport.pause_reading()
        if self.kind.opens:
            transport.write(self.kind.opens)

    def connection_lost(self, exc: Exception | None) -> None:
        self.clients.open.discard(self)
        self.clients.wanted.append(self.kind)


class _HostileClients:
    def __init__(self, port: int, rate: float) -> None:
        self.open: set[_Hostile] = set()
        self.opened = 0
        self.wanted: collections.deque[Kind] = collections.deque()
        self._port = port
        self._rate = rate
        self._sources = cycle(f"127.0.0.{number}" for number in range(2, 12))

    async def gather(self) -> None:
        """Open what is wanted, at most so many a second."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            due = max(due + 1 / self._rate, loop.time() - 0.1)
            await asyncio.sleep(max(0.0, due - loop.time()))
            if not self.wanted:
                continue
            kind = self.wanted.popleft()
            try:
                await loop.create_connection(
                    lambda kind=kind: _Hostile(self, kind), "127.0.0.1", self._port, local_addr=(next(self._sources), 0)
                )
            except OSError:
                self.wanted.append(kind)

    async def drip(self) -> None:
        """Send what keeps slow requests going."""
        while True:
            await asyncio.sleep(DRIP_S)
            for hostile in list(self.open):
                if hostile.kind.drips and not hostile.transport.is_closing():
                    hostile.transport.write(hostile.kind.drips)


async def main(port: int, connections: int, rate: float, token: str) -> None:
    clients = _HostileClients(port, rate)
    wanted = [kind for kind in kinds(token) for _ in range(max(1, connections * kind.share // 100))]
    random.Random(1).shuffle(wanted)
    clients.wanted.extend(wanted)
    tasks = [asyncio.create_task(clients.gather()), asyncio.create_task(clients.drip())]
    await until(lambda: clients.opened >= len(wanted), timeout_s=OPEN_TIMEOUT_S)
    print("open", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    print(len(clients.open), flush=True)
    for task in tasks:
        task.cancel()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), sys.argv[4]))
