"""`assert_survives` for handlers of the kit: with the kit's transaction they survive everything, without it not."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any
from uuid import UUID

import pytest

from org_events import EventType, Organization
from org_events.subscribing import Change, MemoryStore
from org_events.subscribing.stores.sqlite import SqliteSession, SqliteStore
from org_events.testing import Usage, assert_survives, golden_messages, on_topic, survey
from org_events.testing.cases import CASES
from org_events.testing.kit import KitHarness
from org_events.testing.usage import record


class Index:
    """Names in the subscriber's own table, in the kit's transaction."""

    def __init__(self, store: SqliteStore) -> None:
        self.store = store

    def arguments(self) -> dict[str, Any]:
        return {"state": self.read_all, "reset": self.reset, "expect": self.expect, "store": lambda: self.store}

    async def reset(self) -> None:
        async with self.store.transaction() as session:
            for table in ("orgs_mark", "orgs_version", "orgs_parked"):
                await session.execute(f"DELETE FROM {table}")
            await session.execute("CREATE TABLE IF NOT EXISTS name (org_id TEXT, name TEXT, changes INTEGER)")
            await session.execute("DELETE FROM name")

    async def read_all(self) -> object:
        async with self.store.transaction() as session:
            return dict(await session.execute("SELECT org_id, name FROM name"))

    def expect(self, organizations: Mapping[UUID, Organization]) -> object:
        return {str(org_id): organization.name for org_id, organization in organizations.items()}

    async def handle(self, change: Change[SqliteSession]) -> None:
        async with change.transaction() as session:
            await self.apply(session, change)

    async def apply(self, session: SqliteSession, change: Change[SqliteSession]) -> None:
        await session.execute("DELETE FROM name WHERE org_id = ?", [str(change.org_id)])
        if change.after is not None:
            await session.execute("INSERT INTO name VALUES (?, ?, 0)", [str(change.org_id), change.after.name])


class TrustsBefore(Index):
    async def apply(self, session: SqliteSession, change: Change[SqliteSession]) -> None:
        if change.before is not None:
            await session.execute("DELETE FROM name WHERE name = ?", [change.before.name])
        if change.after is not None:
            await session.execute("INSERT INTO name VALUES (?, ?, 0)", [str(change.org_id), change.after.name])


class KnowsAllTypes(Index):
    async def apply(self, session: SqliteSession, change: Change[SqliteSession]) -> None:
        if change.type is not None:
            EventType(change.type)
        await super().apply(session, change)


@pytest.fixture
async def store() -> AsyncIterator[SqliteStore]:
    async with SqliteStore(":memory:", "index") as opened:
        yield opened


async def test_a_handler_in_the_kits_transaction_survives_everything(store: SqliteStore) -> None:
    index = Index(store)
    await assert_survives(index.handle, **index.arguments())


@pytest.mark.parametrize(
    ("mistaken", "cases"), [(KnowsAllTypes, {"unknown types"}), (TrustsBefore, {"load", "re-load"})]
)
async def test_mistakes_that_the_kit_cannot_prevent_are_caught(
    store: SqliteStore, mistaken: type[Index], cases: set[str]
) -> None:
    index = mistaken(store)
    report = await survey(index.handle, **index.arguments())
    assert len(report.tried) == len(CASES)
    assert {failure.case.name for failure in report.failures} == cases


async def test_an_effect_outside_of_the_transaction_does_not_survive_the_end_of_a_process() -> None:
    kept: dict[str, Any] = {}

    def reset() -> None:
        kept.update(store=MemoryStore(), count=0)

    async def handle(change: Change[Any]) -> None:
        kept["count"] += (change.after is not None) - (change.before is not None)
        await asyncio.sleep(0)  # here ends the process, before the kit has saved the change

    report = await survey(handle, state=lambda: kept["count"], reset=reset, expect=len, store=lambda: kept["store"])
    assert {failure.case.name for failure in report.failures} == {"half-done work", "load", "re-load"}


async def test_what_a_handler_of_the_kit_reads_is_recorded() -> None:
    usage = record("search-index") or Usage("")
    memory = MemoryStore()

    async def handle(change: Change[Any]) -> None:
        async with change.transaction():
            if change.type == EventType.UPDATED and change.after is not None:
                assert change.after.name
                assert change.body["version"] == change.version

    await KitHarness(handle, lambda: memory).deliver(on_topic("orgs.events", golden_messages()))
    record(None)
    reads = usage.manifest()["reads"]
    assert reads["org.created"] == {"body": [], "headers": ["ce_type"]}
    assert reads["org.updated"] == {"body": ["after.name", "version"], "headers": ["ce_type"]}
