"""The edge as a process sees it: start, health, drain.

Start: listen, so that an orchestrator sees a process that waits (until `run` requests get a 503); read the issuer's
keys; connect to Kafka, in the background: reads continue without it. Drain: stop listening, finish the requests in
flight, disconnect.

Health and metrics have a port of their own, and readiness a connection of its own to Postgres: neither is for the
API's clients, and neither may depend on how many there are.
"""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Final, Protocol, Self

from org_service.auth.policy import load_policy
from org_service.auth.tokens import Tokens
from org_service.edge.app import make_app
from org_service.edge.http.commands import Commands
from org_service.edge.http.problems import answer, answer_malformed, unavailable
from org_service.errors import RetryError
from org_service.serving.exchange import Asgi, Receive, Scope, Send
from org_service.serving.health import Check, HealthServer
from org_service.serving.server import Bounds, HttpServer, listen, raise_file_limit
from org_service.settings import Settings
from org_service.store.database import Database
from org_service.telemetry.logs import get_logger
from org_service.waiting import Heartbeat, Patience

log = get_logger(__name__)

_BEAT_S: Final = 1.0
_KEYS_WAIT_S: Final = (0.2, 5.0)


class Mounted(Protocol):
    """An application of its own below a path, which judges its callers by itself."""

    path: str
    """What its paths begin with, as `/console`."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request (ASGI)."""
        ...

    async def close(self) -> None:
        """Let go of what it uses."""
        ...


class Edge:
    """HTTP and MCP, and its own health: `async with Edge(settings) as edge: await edge.run(stop)`."""

    def __init__(self, settings: Settings, mounted: Mounted | None = None) -> None:
        """Make one.

        Args:
            settings: Of the servers.
            mounted: Answers what is below its path; closed with the edge.

        Raises:
            ConfigurationError: The policy has mistakes.
        """
        self._settings = settings
        self._mounted = mounted
        # One statement a request: nothing to begin, nothing to commit.
        self._database = Database(settings.database, "edge", autocommit=True)
        self._tokens = Tokens(settings.auth)
        policy = load_policy(settings.auth)
        self._commands = Commands(settings, self._database, policy)
        self.app = make_app(settings, self._tokens, self._database, policy, self._commands)
        one = settings.database.model_copy(update={"pool_size": 1})
        self._readiness = Database(one, "edge", autocommit=True)
        self._health = HealthServer(
            self,
            host=settings.edge.health_host,
            port=settings.edge.health_port,
            stalled_after_s=settings.edge.stalled_after_s,
        )
        self._open = False
        self._heartbeat = Heartbeat()
        self.port = settings.edge.port
        """The API's, which is listened on once the block is entered."""
        self._server: HttpServer | None = None

    @property
    def health_port(self) -> int:
        """That of the health pages, once the block is entered."""
        return self._health.port

    @property
    def heartbeats(self) -> Collection[Heartbeat]:
        """That of the loop."""
        return (self._heartbeat,)

    async def __aenter__(self) -> Self:
        """Listen.

        Raises:
            ConfigurationError: An address can't be used.
        """
        edge = self._settings.edge
        await self._health.__aenter__()
        try:
            listener = listen(edge.host, self.port, "The HTTP API", "ORGS_EDGE__PORT")
        except BaseException:
            await self._health.__aexit__()
            raise
        self.port = listener.getsockname()[1]
        bounds = Bounds(
            connections_max=raise_file_limit(edge.connections_max),
            head_bytes_max=edge.header_bytes_max,
            address_connections_max=edge.address_connections_max,
        )
        self._server = HttpServer(self._serve, listener, bounds, answer_malformed, drain_timeout_s=edge.drain_timeout_s)
        await self._server.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close everything; `run` has drained before."""
        await self._stop_serving()
        await self._commands.close()
        if self._mounted is not None:
            await self._mounted.close()
        await self._tokens.close()
        await self._database.close()
        await self._health.__aexit__()
        await self._readiness.close()

    async def run(self, stop: asyncio.Event) -> None:
        """Answer requests until `stop` is set; then those in flight are finished.

        Raises:
            ConfigurationError: The issuer's keys can't be used, or none is named.
            Exception: A defect ended the connection to Kafka. Requests in flight were finished.
        """
        async with AsyncExitStack() as stack:
            if not await self._read_keys(stop):
                return
            tasks = [asyncio.create_task(self._commands.run()), asyncio.create_task(self._live())]
            stack.push_async_callback(_end, tasks)
            await stack.enter_async_context(self.app.mcp.run())
            self._open = True
            log.info("serving requests", port=self.port)
            stopping = asyncio.create_task(stop.wait())
            await asyncio.wait((stopping, *tasks), return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            log.info("draining: finishing the requests in flight")
            await self._stop_serving()
            for task in tasks:
                if task.done():
                    task.result()

    def checks(self) -> Mapping[str, Check]:
        """What /readyz asks, by name; a check returns what it saw, or raises."""
        return {
            "edge": self._check_open,
            "postgres": self._check_postgres,
            "kafka": self._commands.describe_kafka,
            "keys": self._tokens.check,
        }

    async def _check_open(self) -> str:
        if not self._open:
            raise RetryError("not started yet")
        return f"serving requests, {0 if self._server is None else len(self._server)} connections"

    async def _check_postgres(self) -> str:
        await self._readiness.ping()
        return "answers"

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI application: the API, once it is open."""
        if self._open:
            await self._choose(scope)(scope, receive, send)
        else:
            status, headers, body = answer(unavailable("The service is starting."))
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": body})

    def _choose(self, scope: Scope) -> Asgi:
        mounted = self._mounted
        if mounted is None or not f"{scope['path']}/".startswith(f"{mounted.path}/"):
            return self.app
        return mounted

    async def _read_keys(self, stop: asyncio.Event) -> bool:
        """Read the issuer's keys, as soon as they can be had; False when `stop` came first."""
        patience = Patience("not ready to serve requests", _KEYS_WAIT_S, log=log, heartbeat=self._heartbeat, stop=stop)
        async for attempt in patience:
            with attempt:
                await self._tokens.start()
                return True
        return False

    async def _live(self) -> None:
        while True:
            self._heartbeat.beat()
            await asyncio.sleep(_BEAT_S)

    async def _stop_serving(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            await server.__aexit__()


async def _end(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
