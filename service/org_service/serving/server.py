"""A server of HTTP/1.1 inside a loop that isn't its own.

Start: listen. Drain: stop listening, close what is idle, let requests in flight be answered, close.

Everything a client may hold is bounded, in bytes here, in `framing` and in `connection`, in seconds in `registry`:
when there are too many connections, those go first that nobody would miss.
"""

import asyncio
import contextvars
import email.utils
import resource
import socket
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Self

from org_service.errors import ConfigurationError
from org_service.serving import answers
from org_service.serving.connection import HttpConnection
from org_service.serving.exchange import Asgi, Exchange
from org_service.serving.registry import ConnectionState, Registry
from org_service.telemetry.logs import get_logger
from org_service.telemetry.metrics import HTTP_CLOSED, HTTP_CONNECTIONS

log = get_logger(__name__)

BACKLOG: Final = 4_096
"""Connections that the system keeps until they are accepted: a flood of them must not make others wait for a second,
which is when a client tries again. The system may allow less (`net.core.somaxconn`)."""
_ACCEPTED_AT_ONCE: Final = 8
"""In one turn of the loop. libuv accepts a single one from each listener, so that a flood of connections would keep a
caller's new one waiting for seconds; each takes 0.1 ms, and requests wait meanwhile."""
SOCKET_BUFFER_BYTES: Final = 131_072
"""Of each connection and direction in the system's memory, where it would give 4 MB to a client that doesn't read."""
_FILES_BESIDES: Final = 256
"""Open files of a process besides its clients' connections: Postgres, Kafka, logs, libraries."""
SWEEP_S: Final = 0.5
_CLOSE_S: Final = 1.0
"""At the end, for answers to reach their clients."""

AnswerMalformed = Callable[[int, str], tuple[int, list[tuple[bytes, bytes]], bytes]]
"""Makes an answer, status, headers and body, of a status and of what is wrong with what can't be read."""


@dataclass(frozen=True)
class Bounds:
    """What clients may hold."""

    connections_max: int
    head_bytes_max: int
    address_connections_max: int = 0
    """From one address; 0 sets no bound besides `connections_max`."""


class HttpServer:
    """Serves an ASGI application: `async with HttpServer(app, listener, bounds, answer_malformed, …): …`.

    Entering listens; the end of the block drains.
    """

    def __init__(
        self,
        app: Asgi,
        listener: socket.socket,
        bounds: Bounds,
        answer_malformed: AnswerMalformed,
        *,
        drain_timeout_s: float,
    ) -> None:
        self._app = app
        self._listener = listener
        self._answer_malformed = answer_malformed
        self._drain_timeout_s = drain_timeout_s
        self._connections: Registry[HttpConnection] = Registry()
        self._by_peer: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()
        self._accepting: list[asyncio.Server | asyncio.AbstractServer] = []
        self._date = (0, [(b"date", b"")])
        self._none_left = asyncio.Event()
        self._bounds = bounds
        self.address: tuple[str, int] = listener.getsockname()[:2]
        """Host and port."""
        self.draining = False
        """Whether answers are the last ones of their connections."""

    def __len__(self) -> int:
        """How many connections there are."""
        return len(self._connections)

    async def __aenter__(self) -> Self:
        """Listen."""
        loop = asyncio.get_running_loop()
        for direction in (socket.SO_SNDBUF, socket.SO_RCVBUF):  # accepted connections inherit them
            self._listener.setsockopt(socket.SOL_SOCKET, direction, SOCKET_BUFFER_BYTES)
        for listener in (self._listener, *(self._listener.dup() for _ in range(_ACCEPTED_AT_ONCE - 1))):
            self._accepting.append(await loop.create_server(self._connect, sock=listener, backlog=1))
        self._listener.listen(BACKLOG)
        self._sweeping = asyncio.create_task(self._sweep())
        return self

    async def __aexit__(self, *_: object) -> None:
        """Drain; what isn't answered in time is released."""
        self.draining = True
        for accepting in self._accepting:
            accepting.close()
        for connection in self._connections:
            connection.close()
        if self._tasks:
            late = (await asyncio.wait(self._tasks, timeout=self._drain_timeout_s))[1]
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        if len(self._connections):
            await asyncio.wait((asyncio.create_task(self._none_left.wait()),), timeout=_CLOSE_S)
        for connection in self._connections:
            connection.abort()
        self._sweeping.cancel()
        await asyncio.gather(self._sweeping, return_exceptions=True)
        await asyncio.gather(*(accepting.wait_closed() for accepting in self._accepting))

    def _connect(self) -> HttpConnection:
        return HttpConnection(self, self._bounds.head_bytes_max)

    def admit(self, connection: HttpConnection) -> bool:
        """Make room for a connection; False where there is none, because every other one has a request in flight.

        One that was accepted as the end began is not let in: nobody would wait for its requests.
        """
        bounds, peer = self._bounds, connection.peer
        if self.draining:
            return False
        if bounds.address_connections_max and self._by_peer[peer] >= bounds.address_connections_max:
            HTTP_CLOSED.labels("address_full").inc()
            return False
        if len(self._connections) >= bounds.connections_max:
            HTTP_CLOSED.labels("full").inc()
            expendable = self._connections.find_expendable()
            if expendable is None:
                return False
            self.forget(expendable)
            expendable.abort()
        self._by_peer[peer] += 1
        self._connections.enter(connection, ConnectionState.NEW, time.monotonic(), known=False)
        return True

    def settle(self, connection: HttpConnection, state: ConnectionState) -> None:
        """Note what a connection does now."""
        if connection in self._connections:
            self._connections.enter(connection, state, time.monotonic(), known=connection.known)

    def forget(self, connection: HttpConnection) -> None:
        """A connection is gone, or as good as gone."""
        if not self._connections.leave(connection):
            return
        self._by_peer[connection.peer] -= 1
        if not self._by_peer[connection.peer]:
            del self._by_peer[connection.peer]
        if not self._connections:
            self._none_left.set()

    def limit_slow_unknown(self) -> None:
        """Break the connection that nobody known hasn't read from for longest, where there are too many."""
        slow = self._connections.find_slow_unknown()
        if slow is not None:
            HTTP_CLOSED.labels("slow").inc()
            slow.abort()
            self.forget(slow)

    def start(self, exchange: Exchange, context: contextvars.Context) -> None:
        """Let a request be answered."""
        task = asyncio.get_running_loop().create_task(exchange.run(self._app), context=context)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def answer_malformed(self, status: int, detail: str) -> bytes:
        """A whole answer to what can't be read."""
        HTTP_CLOSED.labels("malformed").inc()
        status, headers, body = self._answer_malformed(status, detail)
        return answers.encode_head(status, [*self.default_headers(), *headers, (b"connection", b"close")]) + body

    def default_headers(self) -> list[tuple[bytes, bytes]]:
        """The date, which every answer has (RFC 9110, section 6.6.1)."""
        now = int(time.time())
        if self._date[0] != now:
            self._date = (now, [(b"date", email.utils.formatdate(now, usegmt=True).encode())])
        return self._date[1]

    async def _sweep(self) -> None:
        """Close connections whose time is over, as long as the server serves."""
        while True:
            await asyncio.sleep(SWEEP_S)
            for connection, state in self._connections.find_overdue(time.monotonic()):
                HTTP_CLOSED.labels(_LATE[state]).inc()
                connection.expire(state)
                if state in (ConnectionState.WRITING, ConnectionState.CLOSING):
                    self.forget(connection)
            for state in ConnectionState:
                HTTP_CONNECTIONS.labels(state.value).set(self._connections.count(state))


_LATE: Final = {
    ConnectionState.NEW: "late",
    ConnectionState.HEAD: "late",
    ConnectionState.IDLE: "idle",
    ConnectionState.WRITING: "slow",
    ConnectionState.CLOSING: "slow",
}
"""What a connection is said to be closed for, by the state in which its time was over."""


def listen(host: str, port: int, what: str, setting: str) -> socket.socket:
    """A socket that listens.

    Args:
        host: An address of this machine.
        port: 0 takes a free one.
        what: Is served there; for the message.
        setting: Says the port; for the message.

    Raises:
        ConfigurationError: The address can't be used.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise ConfigurationError(
            f"{what} cannot be served on {host}, port {port}: {error.strerror}. Choose another port by "
            f"{setting}, 0 for a free one; …HOST must be an address of this machine."
        ) from error
    # Accepted connections inherit it. asyncio sets it only on sockets that were made for TCP by number, and without it
    # the second packet of an answer waits 40 ms for the first one's acknowledgement.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def raise_file_limit(connections_max: int) -> int:
    """How many connections the limit of open files leaves room for; raises the limit as far as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections_max + _FILES_BESIDES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        raised = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
        soft = raised
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return connections_max
    room = max(soft - _FILES_BESIDES, soft // 2)
    log.warning(
        "the limit of open files (ulimit -Hn) allows fewer connections than ORGS_EDGE__CONNECTIONS_MAX",
        open_files_max=soft,
        connections_max=connections_max,
        connections=room,
    )
    return room
