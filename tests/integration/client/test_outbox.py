"""The outbox: sent exactly if the publisher's transaction commits, in order, and every outcome written back once."""

import asyncio
import signal
import sys
from asyncio.subprocess import PIPE
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, TypedDict, Unpack
from uuid import UUID, uuid4

import asyncpg
import pytest
from prometheus_client import REGISTRY
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine

from org_events import DeleteOrganization, Result, Topics, UpdateOrganization
from org_events.publishing import NotConnected, OrganizationClient
from org_events.publishing.outbox import Entry, OnOutcome, Outbox, drain
from tests.integration.client.answering import AnsweringService, Received, result
from tests.support.draining import BOOKED, book, shorten_waits
from tests.support.waiting import until

pytestmark = pytest.mark.integration

OUTBOX = Outbox()
DECIDED = ("org_outbox_decided_seconds_count", {"outcome": "applied"})
ROWS = "SELECT id, org_id, outcome, trouble, tries, decided_at, result->>'code' AS code FROM org_outbox ORDER BY number"

CUT = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
    "WHERE datname = current_database() AND pid <> pg_backend_pid()"
)


def silent(_: Received) -> None:
    return None


def rejected(command: Received) -> dict[str, Any]:
    problem = {"type": "urn:orgs:problem:name-taken", "title": "taken", "status": 409, "detail": "Taken."}
    return result(command, outcome="rejected", code=409, problem=problem)


def parked(command: Received) -> dict[str, Any]:
    problem = {"type": "urn:orgs:problem:parked", "title": "parked", "status": 500, "detail": "An operator decides."}
    return result(command, outcome="parked", code=500, position=None, problem=problem, final=False)


@pytest.fixture(autouse=True)
async def tables(pool: asyncpg.Pool) -> None:
    """The outbox, and a table that the hook writes."""
    for statement in (*OUTBOX.table_statements, BOOKED):
        await pool.execute(statement)


@pytest.fixture
async def engine(own_database_url: str) -> AsyncIterator[AsyncEngine]:
    engine = create_async_engine(own_database_url.replace("postgresql://", "postgresql+asyncpg://"))
    yield engine
    await engine.dispose()


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LEASE_S", "RENEW_S", "RETRY_S", "RETRY_MAX_S"):
        monkeypatch.setattr(drain, name, getattr(drain, name))  # as they were, afterwards
    shorten_waits()


class Options(TypedDict, total=False):
    """Of a drain."""

    on_outcome: OnOutcome
    keep: timedelta


async def enqueue(pool: asyncpg.Pool, *names: str, org_id: UUID) -> list[UUID]:
    """Renames of one organization, in one transaction."""
    async with pool.acquire() as connection, connection.transaction():
        return [await OUTBOX.enqueue(connection, UpdateOrganization(org_id=org_id, name=name)) for name in names]


async def outcomes(pool: asyncpg.Pool) -> list[str | None]:
    return [row["outcome"] for row in await pool.fetch(ROWS)]


async def undecided(pool: asyncpg.Pool) -> int:
    return await pool.fetchval("SELECT count(*) FROM org_outbox WHERE decided_at IS NULL")


@asynccontextmanager
async def draining(
    orgs: OrganizationClient, pool: asyncpg.Pool, **options: Unpack[Options]
) -> AsyncIterator[asyncio.Task[None]]:
    """A drain, for as long as the block lasts."""
    task = asyncio.create_task(OUTBOX.drain(orgs, pool, **options))
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def names_of(service: AnsweringService, org_id: UUID) -> list[str]:
    """What the service got for an organization, the first time each."""
    return list(dict.fromkeys(each.body["name"] for each in service.received if each.body["org_id"] == str(org_id)))


async def test_with_asyncpg_a_command_is_sent_if_its_transaction_commits_and_its_outcome_comes_back(
    service: AnsweringService, orgs: OrganizationClient, pool: asyncpg.Pool
) -> None:
    service.answer = lambda command: rejected(command) if command.body.get("name") == "Taken" else result(command)
    org_id = uuid4()

    async def make_up_for_it(connection: Any, entry: Entry, outcome: Result) -> None:
        await book(connection, entry, outcome)
        if outcome.code == 409:
            await OUTBOX.enqueue(connection, DeleteOrganization(org_id=entry.org_id))

    async with pool.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        await OUTBOX.enqueue(connection, UpdateOrganization(org_id=org_id, name="Never"))
        await transaction.rollback()
    first, second = await enqueue(pool, "Acme", "Taken", org_id=org_id)
    counted = REGISTRY.get_sample_value(*DECIDED) or 0
    await OUTBOX.drain(orgs, pool, on_outcome=make_up_for_it, once=True)
    assert REGISTRY.get_sample_value(*DECIDED) == counted + 2

    assert [(row["outcome"], row["code"], row["trouble"]) for row in await pool.fetch(ROWS)] == [
        ("applied", "200", None),
        ("rejected", "409", None),
        ("applied", "200", None),
    ]
    assert [each.type for each in service.received] == ["org.update", "org.update", "org.delete"]
    booked = await pool.fetch("SELECT command_id, outcome FROM booked")
    assert [tuple(each) for each in booked[:2]] == [(first, "applied"), (second, "rejected")]


async def test_with_sqlalchemy_sessions_and_connections_do_the_same(
    service: AnsweringService, orgs: OrganizationClient, pool: asyncpg.Pool, engine: AsyncEngine
) -> None:
    sessions, org_id = async_sessionmaker(engine), uuid4()
    seen: list[str] = []

    async def note(session: Any, entry: Entry, _: Result) -> None:
        seen.append(type(session).__name__)
        if entry.type == "org.delete":
            await OUTBOX.enqueue(session, UpdateOrganization(org_id=org_id, name="Again"), actor="ann")

    async with sessions() as session:
        await OUTBOX.enqueue(session, UpdateOrganization(org_id=org_id, name="Never"))
        await session.rollback()
    async with sessions.begin() as session:
        await OUTBOX.enqueue(session, UpdateOrganization(org_id=org_id, name="Acme"))
    async with engine.begin() as connection:
        await OUTBOX.enqueue(connection, DeleteOrganization(org_id=org_id))
    await OUTBOX.drain(orgs, sessions, on_outcome=note, once=True)
    await enqueue(pool, "Last", org_id=org_id)
    await OUTBOX.drain(orgs, engine, on_outcome=note, once=True)

    assert [each.body.get("name") for each in service.received] == ["Acme", None, "Again", "Last"]
    assert service.received[2].headers["ce_actor"] == b"ann"
    assert await outcomes(pool) == ["applied"] * 4
    assert seen == ["AsyncSession"] * 3 + ["AsyncConnection"]


async def test_many_drains_keep_each_organizations_order_and_decide_each_row_once(
    service: AnsweringService,
    orgs: OrganizationClient,
    bootstrap_servers: str,
    topics: Topics,
    pool: asyncpg.Pool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Leases that end at once let each row be taken by all of them, as after a freeze."""
    monkeypatch.setattr(drain, "LEASE_S", 0.0)
    org_ids = [uuid4() for _ in range(20)]
    names = [str(number) for number in range(8)]
    for org_id in org_ids:
        await enqueue(pool, *names[:4], org_id=org_id)
    async with (
        OrganizationClient(bootstrap_servers=bootstrap_servers, source="/tests", topics=topics) as other,
        draining(orgs, pool, on_outcome=book),
        draining(other, pool, on_outcome=book),
        draining(other, pool, on_outcome=book),
    ):
        for org_id in org_ids:
            await enqueue(pool, *names[4:], org_id=org_id)
        await until(lambda: undecided(pool), 0)

    assert all(names_of(service, org_id) == names for org_id in org_ids)
    booked = Counter(row["command_id"] for row in await pool.fetch("SELECT command_id FROM booked"))
    assert (len(booked), set(booked.values())) == (160, {1})
    assert len(service.received) > 160


async def test_a_row_that_is_locked_or_in_flight_holds_back_those_behind_it_and_no_others(
    service: AnsweringService, orgs: OrganizationClient, pool: asyncpg.Pool
) -> None:
    """SKIP LOCKED alone would step over the first row, and send the second."""
    held, free = uuid4(), uuid4()
    [first, _] = await enqueue(pool, "1", "2", org_id=held)
    await enqueue(pool, "1", "2", org_id=free)
    async with pool.acquire() as rival, rival.transaction():
        await rival.execute("SELECT FROM org_outbox WHERE id = $1 FOR UPDATE", first)
        await OUTBOX.drain(orgs, pool, once=True)
        assert (names_of(service, held), names_of(service, free)) == ([], ["1", "2"])
        await rival.execute("UPDATE org_outbox SET due_at = now() + interval '1 h' WHERE id = $1", first)
    await OUTBOX.drain(orgs, pool, once=True)
    assert names_of(service, held) == []
    await pool.execute("UPDATE org_outbox SET due_at = now()")
    await OUTBOX.drain(orgs, pool, once=True)
    assert names_of(service, held) == ["1", "2"]


async def test_wherever_a_drain_is_killed_each_row_gets_its_outcome_once(
    service: AnsweringService,
    orgs: OrganizationClient,
    bootstrap_servers: str,
    topics: Topics,
    own_database_url: str,
    pool: asyncpg.Pool,
) -> None:
    org_ids = [uuid4() for _ in range(5)]
    for point in ("taken", "asked", "hook", "decided"):
        for org_id in org_ids:
            await enqueue(pool, f"{point} 1", f"{point} 2", org_id=org_id)
        module = ("-m", "tests.support.draining", point, bootstrap_servers, topics.prefix, own_database_url)
        killed = await asyncio.create_subprocess_exec(sys.executable, *module, stderr=PIPE)
        _, said = await killed.communicate()
        assert killed.returncode == -signal.SIGKILL, said.decode()
        assert (await undecided(pool) < 10) == (point == "decided")

        async with draining(orgs, pool, on_outcome=book):
            await until(lambda: undecided(pool), 0)
    assert await outcomes(pool) == ["applied"] * 40
    names = [f"{point} {number}" for point in ("taken", "asked", "hook", "decided") for number in (1, 2)]
    assert all(names_of(service, org_id) == names for org_id in org_ids)
    booked = Counter(row["command_id"] for row in await pool.fetch("SELECT command_id FROM booked"))
    assert (len(booked), set(booked.values())) == (40, {1})


async def test_while_the_service_stands_still_rows_wait_and_none_is_lost(
    service: AnsweringService, orgs: OrganizationClient, pool: asyncpg.Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drain, "ASK_S", 0.3)
    answer, service.answer = service.answer, silent
    org_id = uuid4()
    await enqueue(pool, "1", "2", org_id=org_id)
    tried_again = "SELECT trouble LIKE 'OutcomeUnknown%' FROM org_outbox WHERE tries > 1"
    async with draining(orgs, pool, on_outcome=book):
        await until(lambda: pool.fetchval(tried_again), True)
        assert names_of(service, org_id) == ["1"]
        await pool.execute(CUT)
        service.answer = answer
        await until(lambda: undecided(pool), 0)
    assert names_of(service, org_id) == ["1", "2"]
    assert await pool.fetchval("SELECT count(*) FROM booked") == 2


async def test_a_parked_command_holds_back_its_organization_until_its_final_outcome_is_in_the_row(
    service: AnsweringService, orgs: OrganizationClient, pool: asyncpg.Pool
) -> None:
    service.answer = lambda command: parked(command) if command.body["name"] == "1" else result(command)
    org_id = uuid4()
    await enqueue(pool, "1", "2", org_id=org_id)
    await enqueue(pool, "3", org_id=uuid4())
    async with draining(orgs, pool, on_outcome=book):
        await until(lambda: outcomes(pool), ["parked", None, "applied"])
        [row, *_] = await pool.fetch(ROWS)
        assert (row["decided_at"], row["trouble"]) == (None, "parked: An operator decides.")
        command = next(each for each in service.received if each.command_id == str(row["id"]))
        service.answers[command.command_id] = rejected(command)  # as the operator decided
        await until(lambda: outcomes(pool), ["rejected", "applied", "applied"])
        await until(lambda: undecided(pool), 0)
    assert names_of(service, org_id) == ["1", "2"]
    assert await pool.fetchval("SELECT count(*) FROM booked") == 3


async def test_what_a_hook_raises_takes_the_outcome_back_and_holds_up_no_other_organization(
    service: AnsweringService, orgs: OrganizationClient, pool: asyncpg.Pool
) -> None:
    bad, good = uuid4(), uuid4()
    broken = True

    async def book_or_raise(connection: Any, entry: Entry, outcome: Result) -> None:
        await book(connection, entry, outcome)
        if broken and entry.org_id == bad:
            raise LookupError("no such customer")

    await enqueue(pool, "1", "2", org_id=bad)
    await enqueue(pool, "1", "2", org_id=good)
    trouble = "SELECT trouble FROM org_outbox WHERE tries > 1"
    async with draining(orgs, pool, on_outcome=book_or_raise):
        await until(lambda: outcomes(pool), [None, None, "applied", "applied"])
        await until(lambda: pool.fetchval(trouble), "LookupError('no such customer')")
        assert await pool.fetchval("SELECT count(*) FROM booked") == 2
        broken = False
        await until(lambda: undecided(pool), 0)
    assert await pool.fetchval("SELECT count(*) FROM booked") == 4


async def test_a_drain_that_is_stopped_leaves_its_rows_to_the_next_at_once(
    service: AnsweringService, orgs: OrganizationClient, pool: asyncpg.Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drain, "LEASE_S", 3_600.0)
    answer, service.answer = service.answer, silent
    await enqueue(pool, "1", org_id=uuid4())
    async with draining(orgs, pool):
        await service.arrived(1)
    service.answer = answer
    await OUTBOX.drain(orgs, pool, once=True)
    assert await outcomes(pool) == ["applied"]


async def test_only_what_was_decided_long_ago_is_deleted_and_a_drain_ends_with_its_client(
    service: AnsweringService, orgs: OrganizationClient, pool: asyncpg.Pool
) -> None:
    for name in "123":
        await enqueue(pool, name, org_id=uuid4())
    await OUTBOX.drain(orgs, pool, once=True)
    [old, fresh, waiting] = [row["id"] for row in await pool.fetch(ROWS)]
    ago = "UPDATE org_outbox SET decided_at = now() - $2::interval, due_at = now() + interval '1 h' WHERE id = $1"
    for command_id, age in ((old, timedelta(days=4)), (fresh, timedelta(days=2)), (waiting, None)):
        await pool.execute(ago, command_id, age)

    async def left() -> list[UUID]:
        return [row["id"] for row in await pool.fetch(ROWS)]

    async with draining(orgs, pool, keep=timedelta(days=3)) as ended:
        await until(left, [fresh, waiting])
        await orgs.stop()
        with pytest.raises(NotConnected, match="drain again"):
            await ended
