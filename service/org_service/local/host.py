"""The socket of `orgs up`: whoever works in its folder can ask for its roles, and for an outage of its Kafka.

A Unix socket beside `stack.env`, which its owner alone may use: nothing listens on a network, and a production process
never opens one. It is opened only where Kafka and Postgres were started here. A request and its answer are a line of
JSON each. An outage of Kafka ends with the connection that asked for it, so a program that dies leaves none behind.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final

from org_local import LocalStackError, Stack, ports
from org_service.errors import ServiceError
from org_service.local.roles import CURRENT, ROLES, Roles
from org_service.settings import Settings
from org_service.telemetry.logs import get_logger

log = get_logger(__name__)

_BACKUP: Final = "_backup"
_OWNER_ONLY: Final = 0o600

_Answer = dict[str, Any]


class Host:
    """Answers on the socket. Made and used in the loop of the roles."""

    def __init__(self, settings: Settings, stack: Stack, roles: Roles) -> None:
        self._settings = settings
        self._stack = stack
        self._roles = roles
        self._changing = asyncio.Lock()
        """Two programs don't start and stop the same at once."""
        self._verbs: Mapping[str, Callable[[Mapping[str, Any]], Awaitable[_Answer]]] = {
            "describe": self._describe,
            "start": self._start,
            "stop": self._stop,
            "deploy": self._deploy,
            "stop_kafka": self._stop_kafka,
            "start_kafka": self._start_kafka,
            "back_up": self._back_up,
            "restore": self._restore,
        }

    @contextlib.asynccontextmanager
    async def listening(self, path: Path) -> AsyncGenerator[None]:
        """Listen in this block; a socket that a killed process left is replaced."""
        _remove(path)
        server = await asyncio.start_unix_server(self._serve, str(path))
        _keep_to_owner(path)
        try:
            yield
        finally:
            server.close()
            _remove(path)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        kafka_stopped = False
        try:
            while line := await reader.readline():
                asked: dict[str, Any] = json.loads(line)
                answer = await self._answer(asked)
                # Before the answer is sent: whoever asked may be gone by now.
                kafka_stopped = {"stop_kafka": True, "start_kafka": False}.get(asked["do"], kafka_stopped)
                writer.write(json.dumps(answer).encode() + b"\n")
                await writer.drain()
        except ConnectionError:
            log.info("whoever asked on the socket has gone")
        finally:
            if kafka_stopped:
                await self._answer({"do": "start_kafka"})
            writer.close()

    async def _answer(self, asked: Mapping[str, Any]) -> _Answer:
        async with self._changing:
            try:
                return await self._verbs[asked["do"]](asked)
            except (ServiceError, LocalStackError) as error:
                return {"error": str(error)}

    async def _describe(self, _asked: Mapping[str, Any]) -> _Answer:
        broker = self._stack.kafka.brokers[0]
        return {
            "bootstrap_servers": self._settings.kafka.bootstrap_servers,
            "database_url": self._settings.database.url.get_secret_value(),
            "kafka_logs": str(broker.logs),
            "roles": [each._asdict() for each in self._roles.describe()],
        }

    async def _start(self, asked: Mapping[str, Any]) -> _Answer:
        self._roles.start(_roles(asked))
        return {}

    async def _stop(self, asked: Mapping[str, Any]) -> _Answer:
        await self._roles.stop(_roles(asked))
        return {}

    async def _deploy(self, asked: Mapping[str, Any]) -> _Answer:
        await self._roles.deploy(_roles(asked), asked.get("release", CURRENT))
        return {}

    async def _stop_kafka(self, _asked: Mapping[str, Any]) -> _Answer:
        await asyncio.to_thread(self._stack.kafka.stop)
        return {}

    async def _start_kafka(self, _asked: Mapping[str, Any]) -> _Answer:
        await asyncio.to_thread(self._stack.kafka.start)
        return {}

    async def _back_up(self, _asked: Mapping[str, Any]) -> _Answer:
        await asyncio.to_thread(self._stack.postgres.copy_database, self._database, f"{self._database}{_BACKUP}")
        return {}

    async def _restore(self, _asked: Mapping[str, Any]) -> _Answer:
        await asyncio.to_thread(self._stack.postgres.copy_database, f"{self._database}{_BACKUP}", self._database)
        return {}

    @property
    def _database(self) -> str:
        return self._settings.database.url.get_secret_value().rpartition("/")[2]


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)


def _keep_to_owner(path: Path) -> None:
    path.chmod(_OWNER_ONLY)


def _roles(asked: Mapping[str, Any]) -> list[Any]:
    return [role for role in ROLES if role in asked["roles"]]


def with_ports(settings: Settings) -> Settings:
    """The same settings with a port wherever they leave the choice to the system: others learn these ports."""
    taken: set[int] = set()

    def choose(port: int) -> int:
        return port or ports.pick(None, taken)

    worker = settings.worker.model_copy(update={"port": choose(settings.worker.port)})
    relay = settings.relay.model_copy(update={"port": choose(settings.relay.port)})
    operate = settings.operate.model_copy(update={"port": choose(settings.operate.port)})
    edge = settings.edge.model_copy(
        update={"port": choose(settings.edge.port), "health_port": choose(settings.edge.health_port)}
    )
    return settings.model_copy(update={"worker": worker, "relay": relay, "edge": edge, "operate": operate})
