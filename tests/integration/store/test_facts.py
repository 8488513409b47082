"""Reference data in the tables, as the worker writes them."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from org_service.settings import DatabaseSettings
from org_service.store import facts, reference_progress
from org_service.store.engine import Session, create_engine
from org_service.store.facts import MEMBERSHIPS, PARTNERSHIPS, STAFF
from org_service.store.reference_progress import Progress, ReferencePartition, confirm, read_ages
from tests.integration.store.rows import ACME, AT

pytestmark = pytest.mark.integration

GLOBEX = UUID("0195a000-0000-7000-8000-000000000002")
TOPIC_ID = UUID("7d5a2b10-4c8e-4a53-9f0f-2f6a3a0b9c11")
LATER_ID = UUID("8d5a2b10-4c8e-4a53-9f0f-2f6a3a0b9c11")
FIRST, SECOND = ReferencePartition("orgs.memberships", 0), ReferencePartition("orgs.memberships", 1)


@pytest.fixture
async def engine(database: DatabaseSettings) -> AsyncIterator[AsyncEngine]:
    """The worker's, with its rights and no more."""
    made = create_engine(database, "worker")
    yield made
    await made.dispose()


@pytest.fixture
async def conn(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """A transaction that is rolled back."""
    async with engine.connect() as made:
        yield made


async def rows(conn: AsyncConnection, columns: str, table: str) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in await conn.exec_driver_sql(f"SELECT {columns} FROM {table} ORDER BY 1, 2")]


async def counts(conn: AsyncConnection) -> tuple[int, int, int]:
    """How many memberships, partnerships and staff there are."""
    memberships, partnerships, staff = [
        (await conn.exec_driver_sql(f"SELECT count(*) FROM {table}")).scalar_one()
        for table in ("membership", "partnership", "staff")
    ]
    return memberships, partnerships, staff


async def test_facts_are_written_changed_and_removed(conn: AsyncConnection) -> None:
    await MEMBERSHIPS.upsert(conn, [("ann", ACME, "user", AT, True), ("bob", ACME, "admin", AT, True)])
    await MEMBERSHIPS.upsert(conn, [("ann", ACME, "support", AT, False), ("ann", GLOBEX, "user", AT, True)])
    assert await rows(conn, "user_id, org_id, role, joined_at, active", "membership") == [
        ("ann", ACME, "support", AT, False),
        ("ann", GLOBEX, "user", AT, True),
        ("bob", ACME, "admin", AT, True),
    ]
    await PARTNERSHIPS.upsert(conn, [(GLOBEX, ACME, "cloud_rep")])
    await PARTNERSHIPS.upsert(conn, [(GLOBEX, ACME, "support")])
    assert await rows(conn, "partner_org_id, org_id, role", "partnership") == [(GLOBEX, ACME, "support")]
    await STAFF.upsert(conn, [("sue",), ("sam",)])
    await STAFF.upsert(conn, [("sue",)])
    assert await counts(conn) == (3, 1, 2)
    await MEMBERSHIPS.delete(conn, [("ann", ACME), ("nobody", ACME)])
    await PARTNERSHIPS.delete(conn, [(ACME, GLOBEX)])
    await STAFF.delete(conn, [("sam",)])
    assert await counts(conn) == (2, 1, 1)
    assert await rows(conn, "user_id, org_id", "membership") == [("ann", GLOBEX), ("bob", ACME)]


async def test_nothing_to_write_is_no_statement(conn: AsyncConnection) -> None:
    await MEMBERSHIPS.upsert(conn, [])
    await STAFF.delete(conn, [])
    await reference_progress.write(conn, {})
    assert await reference_progress.lock(conn, []) == {}
    assert await counts(conn) == (0, 0, 0)


async def test_an_unchanged_fact_is_not_written_again(engine: AsyncEngine) -> None:
    """A topic that is read again would otherwise write a million rows again, for nothing."""
    same, other = ("ann", ACME, "user", AT, True), ("bob", ACME, "user", AT, True)
    async with engine.begin() as conn:
        await MEMBERSHIPS.upsert(conn, [same, other])
    async with engine.begin() as conn:
        before = await rows(conn, "user_id, xmin::text", "membership")
        await MEMBERSHIPS.upsert(conn, [same, ("bob", ACME, "admin", AT, True)])
        after = await rows(conn, "user_id, xmin::text", "membership")
    assert after[0] == before[0]
    assert after[1] != before[1]


async def test_thousands_of_facts_are_one_statement(conn: AsyncConnection) -> None:
    await MEMBERSHIPS.upsert(conn, [(f"user-{n}", ACME, "user", AT, True) for n in range(10_000)])
    assert (await counts(conn))[0] == 10_000
    await MEMBERSHIPS.delete(conn, [(f"user-{n}", ACME) for n in range(0, 10_000, 2)])
    assert (await counts(conn))[0] == 5_000


async def test_the_keys_of_all_facts_come_in_order_page_by_page(
    conn: AsyncConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(facts, "PAGE_ROWS", 2)
    assert [page async for page in STAFF.read_keys(conn)] == []
    written = [(user, org, "user", AT, True) for user in ("ann", "bob") for org in (GLOBEX, ACME)]
    await MEMBERSHIPS.upsert(conn, written)
    assert [page async for page in MEMBERSHIPS.read_keys(conn)] == [
        [("ann", ACME), ("ann", GLOBEX)],
        [("bob", ACME), ("bob", GLOBEX)],
    ]
    await STAFF.upsert(conn, [("sue",), ("sam",), ("ann",)])
    assert [page async for page in STAFF.read_keys(conn)] == [[("ann",), ("sam",)], [("sue",)]]


async def test_a_partition_is_confirmed_by_the_servers_clock(conn: AsyncConnection) -> None:
    await reference_progress.begin(conn, {FIRST: TOPIC_ID, SECOND: TOPIC_ID})
    ages = await read_ages(conn)
    assert all(age is not None and 0 <= age < 60 for age in ages.values())
    await confirm(conn, {SECOND: 1_000.5})
    await conn.exec_driver_sql("UPDATE reference_progress SET confirmed_at = NULL WHERE partition = 0")
    ages = await read_ages(conn)
    assert ages[FIRST] is None
    assert 1_000.5 <= (ages[SECOND] or 0) < 1_060


async def test_progress_begins_at_0_and_is_kept(conn: AsyncConnection) -> None:
    await reference_progress.begin(conn, {SECOND: TOPIC_ID, FIRST: TOPIC_ID})
    await reference_progress.write(conn, {FIRST: Progress(TOPIC_ID, 17)})
    await reference_progress.begin(conn, {FIRST: LATER_ID})
    missing = ReferencePartition("orgs.staff", 0)
    assert await reference_progress.lock(conn, [SECOND, FIRST, missing]) == {
        FIRST: Progress(TOPIC_ID, 17),
        SECOND: Progress(TOPIC_ID, 0),
    }


async def test_the_second_transaction_waits_and_then_sees_the_first(engine: AsyncEngine, admin: Session) -> None:
    async with engine.begin() as conn:
        await reference_progress.begin(conn, {FIRST: TOPIC_ID, SECOND: TOPIC_ID})

    async def second() -> dict[ReferencePartition, Progress]:
        async with engine.begin() as conn:
            return await reference_progress.lock(conn, [SECOND, FIRST])

    async with engine.begin() as conn:
        await reference_progress.lock(conn, [FIRST])
        waiting = asyncio.create_task(second())
        async with asyncio.timeout(10):
            while not await admin.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
                assert not waiting.done()
        # It waits for the first and has not locked the second yet, however the places were given.
        await admin.execute("SELECT 1 FROM reference_progress WHERE partition = 1 FOR UPDATE NOWAIT")
        await reference_progress.write(conn, {FIRST: Progress(TOPIC_ID, 5)})
    assert await waiting == {FIRST: Progress(TOPIC_ID, 5), SECOND: Progress(TOPIC_ID, 0)}
