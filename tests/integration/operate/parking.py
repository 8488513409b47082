"""What the tests of parked records park, release and look at."""

import dataclasses
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from org_events.commands import Command, CreateOrganization, UpdateOrganization
from org_service.domain.requests import Rejected, Request
from org_service.operate import runs
from org_service.operate.operation import Tool
from org_service.operate.parked import DiscardParked, ReleaseParked
from org_service.operate.parked_selection import ParkedSelection
from org_service.settings import Settings
from org_service.store import outcomes
from org_service.store.database import Database
from org_service.store.operations import Operation
from tests.support.appliers import applying
from tests.support.probing import probing
from tests.support.records import FakeRecord, record_of


@contextmanager
def failing_for(org_ids: Collection[UUID], error: type[Exception] = ZeroDivisionError) -> Iterator[None]:
    """Our code raises on the first command of each of these organizations, each time; what is behind it waits."""
    first: dict[UUID, UUID] = {}

    def strike(request: Request) -> None:
        org_id = request.org_id
        if org_id is None or org_id not in org_ids or isinstance(request.command, Rejected):
            return
        if first.setdefault(org_id, request.command_id) == request.command_id:
            raise error

    with probing("apply.before_decide", strike):
        yield


def record(settings: Settings, command: Command, command_id: UUID | None = None) -> FakeRecord:
    """A record as the worker reads it from this test's own topic."""
    return dataclasses.replace(record_of(command, command_id), topic=settings.kafka.topics.commands)


def renamed(org_id: UUID, *to: str) -> list[Command]:
    """Commands that rename an organization, one after the other."""
    return [UpdateOrganization(org_id=org_id, name=name) for name in to]


async def apply(settings: Settings, *records: FakeRecord) -> None:
    """Apply as a worker does."""
    async with applying(settings) as applier:
        await applier.apply(records)


async def run(settings: Settings, tool: Tool) -> Operation:
    """Plan and run."""
    planned, _ = await runs.keep_plan(settings, tool, requested_by="alice", reason="a test")
    return await runs.run(settings, planned.id)


async def release(settings: Settings, **selection: Any) -> Operation:
    """Release, and return the run."""
    return await run(settings, await ReleaseParked.make(settings, ParkedSelection(**selection)))


async def discard(settings: Settings, **selection: Any) -> Operation:
    """Discard, and return the run."""
    return await run(settings, await DiscardParked.make(settings, ParkedSelection(**selection)))


@pytest.fixture
async def queue(settings: Settings) -> UUID:
    """An organization whose create is parked, and two commands that wait behind it."""
    org_id = uuid4()
    commands = [CreateOrganization(org_id=org_id, name="Acme"), *renamed(org_id, "Acme 2", "Acme 3")]
    with failing_for([org_id]):
        await apply(settings, *(record(settings, each) for each in commands))
    return org_id


async def rows(database: asyncpg.Connection, columns: str = "reason, state, attempts") -> list[tuple[Any, ...]]:
    """What is parked, in order."""
    return [tuple(row) for row in await database.fetch(f"SELECT {columns} FROM parked ORDER BY id")]


async def find_outcome(settings: Settings, command_id: UUID) -> Any:
    """What became of a command, as the edge finds it."""
    async with Database(settings.database, "edge", direct=True).connect() as conn:
        return await outcomes.find(conn, command_id)
