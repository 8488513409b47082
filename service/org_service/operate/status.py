"""`orgs status`: everything on one screen, from whoever answers. What could not be had is said, and the rest is shown.

Each part asks for itself and has a few seconds. Whether a worker's breaker is open, only that worker knows: so the
health pages that the settings name are asked too, which are those of this machine unless told otherwise.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, Generic, NamedTuple, TypeVar

import httpx2

from org_service.domain.reasons import OperationState
from org_service.errors import ServiceError
from org_service.operate import groups, progress
from org_service.operate.groups import Look
from org_service.operate.parked_selection import name_group
from org_service.settings import Settings
from org_service.store import journal, migrate, operations, parked_queues, past, server
from org_service.store.database import Database
from org_service.store.failures import classify
from org_service.store.operations import Operation
from org_service.store.parked_queues import ParkedGroup
from org_service.store.server import Leader
from org_service.wire.position import Published

T = TypeVar("T")

PART_S: Final = 5.0
"""For each part: servers that are well answer within a second."""
_CANCEL_S: Final = 1.0
_RUNS_LOOKED_AT: Final = 200
"""The latest operations; what runs is among them."""
_UNDER_WAY: Final = (OperationState.RUNNING, OperationState.PAUSED)
_JSON: Final = "application/json"


class Part(NamedTuple, Generic[T]):
    """One part of the screen."""

    found: T | None
    trouble: str | None = None
    """Why it could not be had."""


class Stored(NamedTuple):
    """What the database says."""

    version: str
    """Of the server."""
    schema: str | None
    schema_needed: str
    standby: bool
    head: int
    """The last position of the journal."""
    leader: Leader | None
    """The relay that leads."""
    parked: Mapping[str, ParkedGroup]
    """By the name of the group."""
    runs: Sequence[Operation]
    """Those under way, paused ones included."""


class RelayLag(NamedTuple):
    """How far publishing is behind the journal."""

    position: int
    """The last one published."""
    positions: int
    seconds: float
    """Age of the oldest row that is not published; 0 where all are."""


class Health(NamedTuple):
    """What a role's health page says."""

    role: str
    url: str
    ready: bool
    checks: Mapping[str, str]
    """By name what each says; a failed one begins with `not ok: `."""


class Status(NamedTuple):
    """All parts."""

    at: datetime
    stored: Part[Stored]
    look: Part[Look]
    relay: Part[RelayLag]
    health: Mapping[str, Part[Health]]
    """By role."""

    @property
    def troubles(self) -> Mapping[str, str]:
        """What could not be had of the servers, and why. A health page may be elsewhere, so it doesn't count."""
        parts: Mapping[str, Part[Any]] = {"database": self.stored, "kafka": self.look, "relay": self.relay}
        return {name: part.trouble for name, part in parts.items() if part.trouble is not None}


async def see(settings: Settings, part_s: float = PART_S) -> Status:
    """Look at everything; never waits for longer than two parts may take."""
    kafka_ms = max(1_000, round(part_s * 1000))
    hasty = settings.model_copy(
        update={
            "kafka": settings.kafka.model_copy(update={"request_timeout_ms": kafka_ms}),
            "database": settings.database.model_copy(
                update={"connect_timeout_s": part_s, "statement_timeout_s": part_s}
            ),
        }
    )
    pages = _pages(settings)
    health = [
        asyncio.create_task(_part(part_s, lambda role=role, url=url: _see_health(role, url, part_s)))
        for role, url in pages.items()
    ]
    stored, look, published = await asyncio.gather(
        _part(part_s, lambda: _see_database(hasty)),
        _part(part_s, lambda: groups.look(hasty.kafka)),
        _part(part_s, lambda: progress.published(hasty)),
    )
    relay = await _part(part_s, lambda: _see_relay(hasty, stored, published))
    by_role = dict(zip(pages, await asyncio.gather(*health), strict=True))
    return Status(datetime.now(UTC), stored, look, relay, by_role)


async def _part(part_s: float, ask: Callable[[], Awaitable[T]]) -> Part[T]:
    """The answer to a question, or why there is none in time. What ignores being cancelled is waited for no more."""
    task = asyncio.ensure_future(ask())
    done, _ = await asyncio.wait({task}, timeout=part_s)
    if not done:
        task.cancel()
        await asyncio.wait({task}, timeout=_CANCEL_S)
        return Part(None, f"no answer in {part_s:g} s")
    error = task.exception()
    if error is None:
        return Part(task.result())
    if not isinstance(error, Exception):
        raise error
    return Part(None, _explain(error))


def _explain(error: Exception) -> str:
    known = error if isinstance(error, ServiceError) else classify(error)
    return str(known) if known is not None else f"{type(error).__name__}: {error}"


async def _see_database(settings: Settings) -> Stored:
    async with Database(settings.database, "reader", direct=True).connect() as conn:
        state = await server.show_state(conn)
        schema = await migrate.schema_of(conn)
        found = await parked_queues.group(conn)
        latest = await operations.list_latest(conn, _RUNS_LOOKED_AT)
        return Stored(
            version=state.version,
            schema=schema.revision,
            schema_needed=migrate.head(),
            standby=state.standby,
            head=await journal.read_head(conn),
            leader=await server.find_leader(conn, f"{settings.kafka.topic_prefix}{settings.relay.name}"),
            parked={name_group(each): each for each in found},
            runs=[each for each in latest if each.state in _UNDER_WAY],
        )


async def _see_relay(settings: Settings, stored: Part[Stored], published: Part[Published | None]) -> RelayLag:
    if published.trouble is not None:
        raise ServiceError(published.trouble)
    if stored.found is None:
        raise ServiceError(f"not without the database: {stored.trouble}")
    position = 0 if published.found is None else published.found.position
    async with Database(settings.database, "reader", direct=True).connect() as conn:
        first = await past.find_moment(conn, position + 1)
    seconds = 0.0 if first is None else max(0.0, (datetime.now(UTC) - first.recorded_at).total_seconds())
    return RelayLag(position, max(0, stored.found.head - position), seconds)


def _pages(settings: Settings) -> Mapping[str, str]:
    """The health pages that the settings name; a port of 0 is known to nobody."""
    named = {
        "worker": (settings.worker.host, settings.worker.port),
        "relay": (settings.relay.host, settings.relay.port),
        "edge": (settings.edge.health_host, settings.edge.health_port),
        "operate": (settings.operate.host, settings.operate.port),
    }
    return {role: f"http://{host}:{port}/readyz" for role, (host, port) in named.items() if port}


async def _see_health(role: str, url: str, part_s: float) -> Health:
    async with httpx2.AsyncClient(timeout=part_s, trust_env=False) as client:
        try:
            answer = await client.get(url)
        except httpx2.TransportError as error:
            raise ServiceError(f"nobody answers at {url}") from error
    said: dict[str, Any] = {}
    if answer.headers.get("content-type", "").startswith(_JSON):
        with contextlib.suppress(ValueError):
            said = answer.json()
    if "checks" not in said:
        raise ServiceError(f"{url} is no health page of ours")
    checks = {name: ("" if each["ok"] else "not ok: ") + each["detail"] for name, each in said["checks"].items()}
    return Health(role, url, answer.status_code == 200, checks)
