"""Workers that want the same at the same time: they wait for each other's commit, and nobody is parked for it."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import orjson
import pytest

from org_events.commands import CreateOrganization, DeactivateOrganization, UpdateOrganization
from org_service.apply.applier import Applier
from org_service.apply.settle import REFOLDS_MAX
from org_service.errors import DataRefusedError, RefoldError, RetryError
from org_service.settings import Settings
from org_service.store.database import Database
from org_service.waiting import Heartbeat
from tests.support.appliers import applying
from tests.support.probing import once, probing
from tests.support.records import record_of
from tests.support.waiting import until

pytestmark = pytest.mark.integration

RIVALS = 5
RIVALRY_S = 3
SESSIONS = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"


@pytest.fixture
async def appliers(settings: Settings) -> AsyncIterator[list[Applier]]:
    quick = settings.worker.model_copy(update={"retry_wait_s": 0.01, "retry_wait_max_s": 0.02})
    async with AsyncExitStack() as stack:
        each = settings.model_copy(update={"worker": quick})
        yield [await stack.enter_async_context(applying(each)) for _ in range(RIVALS)]


async def test_transactions_that_compete_for_one_name_take_turns(
    settings: Settings, database: asyncpg.Connection
) -> None:
    """Each takes the name and gives it up again; three or more that write it at once would wait in a circle."""
    enough = asyncio.Event()

    async def referee() -> None:
        await asyncio.sleep(RIVALRY_S)
        # On a busy machine they may not have met yet.
        await until(lambda: database.fetchval("SELECT EXISTS (SELECT FROM journal WHERE code = 409)"))
        enough.set()

    async def rival(number: int) -> None:
        async with applying(settings) as applier:  # a session reports its deadlocks when it ends, at the latest
            for turn in itertools.takewhile(lambda _: not enough.is_set(), itertools.count()):
                org_id = uuid4()
                for command in (
                    CreateOrganization(org_id=org_id, name="Hot"),
                    UpdateOrganization(org_id=org_id, name=f"Cold {number} {turn}"),
                ):
                    await applier.apply([record_of(command, partition=number)])

    await asyncio.gather(referee(), *map(rival, range(RIVALS)))
    codes = dict(await database.fetch("SELECT code, count(*) FROM journal GROUP BY code"))
    print(f"outcomes {codes}")
    assert await database.fetchval("SELECT count(*) FROM parked") == 0
    assert codes[409] > 0
    await until(lambda: database.fetchval(SESSIONS), 0)
    assert await database.fetchval("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()") == 0


async def test_a_conflict_with_concurrent_transactions_is_never_parked(
    appliers: list[Applier], database: asyncpg.Connection
) -> None:
    tries = itertools.count()

    async def clashing(*_: Any) -> None:
        if next(tries) < REFOLDS_MAX + 5:
            raise RefoldError("deadlock detected")

    with probing("apply.before_transaction", clashing):
        await appliers[0].apply([record_of(CreateOrganization(org_id=uuid4(), name="Acme"))])
    assert [row["code"] for row in await database.fetch("SELECT code FROM journal")] == [200]
    assert appliers[0].outage is None


async def test_an_unknown_error_is_retried_and_parks_nothing(
    appliers: list[Applier], database: asyncpg.Connection
) -> None:
    tries = itertools.count()
    outages: list[str | None] = []

    async def struck(applier: Applier, *_: Any) -> None:
        outages.append(applier.outage)
        if next(tries) < 3:
            raise ZeroDivisionError

    with probing("apply.before_transaction", struck):
        await appliers[0].apply([record_of(CreateOrganization(org_id=uuid4(), name="Acme"))])
    assert await codes(database) == [(200, 1)]
    assert await database.fetchval("SELECT count(*) FROM parked") == 0
    assert outages == [None, "ZeroDivisionError", "ZeroDivisionError", "ZeroDivisionError"]


async def test_a_role_that_does_not_exist_yet_is_waited_for_and_parks_nothing(
    appliers: list[Applier], database: asyncpg.Connection
) -> None:
    """A cluster that was restored without its roles, say: what Postgres refuses is the session, not the command."""
    applier, tries = appliers[0], itertools.count()
    outages: list[str | None] = []

    async def without_role(session: dict[str, str]) -> None:
        outages.append(applier.outage)
        if next(tries) < 3:
            session["role"] = "orgs_nobody"

    with probing("store.before_connect", without_role):
        await applier.apply([record_of(CreateOrganization(org_id=uuid4(), name="Acme"))])
    assert await codes(database) == [(200, 1)]
    assert await database.fetchval("SELECT count(*) FROM parked") == 0
    refused = 'Postgres refuses the session: role "orgs_nobody" does not exist (SQLSTATE 22023)'
    assert outages == [None, refused, refused, refused]


async def test_a_conflict_that_persists_is_in_the_data_and_only_its_culprit_is_parked(
    appliers: list[Applier], database: asyncpg.Connection
) -> None:
    """A rule that only the database knows: folding again can't help, and trying for ever would hold up everybody."""
    await database.execute("CREATE UNIQUE INDEX ON organization (domain)")
    creates = [
        record_of(CreateOrganization(org_id=uuid4(), name=name, domain=domain))
        for name, domain in (("Acme", "acme.com"), ("Globex", "globex.com"), ("Again", "acme.com"))
    ]
    await appliers[0].apply(creates)
    assert await codes(database) == [(200, 1), (200, 1)]
    parked = await database.fetch('SELECT "offset", reason, detail FROM parked')
    assert [tuple(row) for row in parked] == [
        (creates[2].offset, "data_refused", "SQLSTATE 23505 (UniqueViolationError)")
    ]


async def test_a_command_decided_by_another_worker_is_not_parked(
    appliers: list[Applier], database: asyncpg.Connection
) -> None:
    mine, rival, org_id = appliers[0], appliers[1], uuid4()
    update = record_of(UpdateOrganization(org_id=org_id, name="New"))
    await rival.apply([record_of(CreateOrganization(org_id=org_id, name="Acme"))])
    struck = iter([True])

    async def refused_once(applier: Applier, *_: Any) -> None:
        if applier is mine and next(struck, False):
            await rival.apply([update])
            raise DataRefusedError("a value")

    with probing("apply.before_transaction", refused_once):
        await mine.apply([update])
    assert [row["outcome"] for row in await database.fetch("SELECT outcome FROM journal")] == ["applied", "applied"]
    assert await database.fetchval("SELECT count(*) FROM parked") == 0


async def test_an_organization_created_between_locks_and_reads_is_not_taken_for_missing(
    appliers: list[Applier], database: asyncpg.Connection
) -> None:
    """Nothing was there to lock, and then the journal knows the create: what comes behind it would get a 404."""
    mine, rival, org_id = appliers[0], appliers[1], uuid4()
    create = record_of(CreateOrganization(org_id=org_id, name="Acme"))
    with probing("apply.after_lock", once(lambda: rival.apply([create]))):
        await mine.apply([create, update(org_id, "acme.com")])
    assert await codes(database) == [(200, 1), (200, 2)]


async def test_a_name_used_only_within_a_batch_has_no_other_holder_at_that_time(
    appliers: list[Applier], database: asyncpg.Connection
) -> None:
    """No unique index sees a name that is taken and given up within a batch."""
    mine, rival, org_id = appliers[0], appliers[1], uuid4()
    await mine.apply([record_of(CreateOrganization(org_id=org_id, name="Acme"))])
    create = record_of(CreateOrganization(org_id=uuid4(), name="Hot"))
    with probing("apply.before_positions", once(lambda: rival.apply([create]))):
        await mine.apply([record_of(UpdateOrganization(org_id=org_id, name=name)) for name in ("Hot", "Cold")])
    assert await codes(database) == [(200, 1), (200, 1), (409, 1), (200, 2)]


async def codes(database: asyncpg.Connection) -> list[tuple[int, int | None]]:
    """Code and version of every outcome, in order of position."""
    return [tuple(row) for row in await database.fetch("SELECT code, version FROM journal ORDER BY position")]


@pytest.mark.parametrize("wanted", ["the organization", "its name"])
async def test_rows_are_locked_in_order_of_id_so_that_no_deadlock_occurs(
    appliers: list[Applier], database: asyncpg.Connection, wanted: str
) -> None:
    """In the order in which they lie in the table, the second one would be locked first."""
    low, high = UUID(int=1, version=4), UUID(int=2, version=4)
    await appliers[0].apply([record_of(CreateOrganization(org_id=high, name="High"))])
    await appliers[0].apply([record_of(CreateOrganization(org_id=low, name="Low"))])
    name = record_of(CreateOrganization(org_id=uuid4(), name="Low"))
    batch = [update(high, "high.com"), update(low, "low.com") if wanted == "the organization" else name]
    async with asyncio.timeout(20):
        async with database.transaction():
            await database.execute("SELECT FROM organization WHERE id = $1 FOR UPDATE", high)
            applying = asyncio.create_task(appliers[0].apply(batch))
            await until(lambda: database.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"))
            assert await database.fetch("SELECT id FROM organization WHERE id = $1 FOR UPDATE SKIP LOCKED", low) == []
        await applying


@pytest.mark.parametrize("trouble", [RetryError("away"), DataRefusedError("away")])
async def test_parking_waits_an_outage_out_and_reports_it(
    settings: Settings, database: asyncpg.Connection, trouble: Exception
) -> None:
    """Also where the database rejects even that; to halve and park it again would be the same, without a pause."""
    tries, heartbeat = itertools.count(), Heartbeat()
    quick = settings.worker.model_copy(update={"retry_wait_s": 0.01, "retry_wait_max_s": 0.02})
    seen: list[tuple[str | None, float]] = []

    async def struck(applier: Applier, _: Sequence[Any], rejected: str | None) -> None:
        seen.append((applier.outage, heartbeat.at_s))
        if rejected is None:
            raise DataRefusedError("a value")
        if next(tries) < 3:
            raise trouble

    quickly = applying(settings.model_copy(update={"worker": quick}), heartbeat=heartbeat)
    async with quickly as applier:
        with probing("apply.before_transaction", struck):
            await applier.apply([record_of(CreateOrganization(org_id=uuid4(), name="Acme"))])
    assert [row["reason"] for row in await database.fetch("SELECT reason FROM parked")] == ["data_refused"]
    assert [outage for outage, _ in seen] == [None, None, "away", "away", "away"]
    assert applier.outage is None
    beats = [beat for _, beat in seen]
    assert beats == sorted(set(beats))


async def test_the_times_of_an_organization_never_go_back(
    appliers: list[Applier], settings: Settings, database: asyncpg.Connection
) -> None:
    """A batch that waits for a lock is recorded when it has it, not when it began to wait."""
    x, y = uuid4(), uuid4()
    await appliers[0].apply([record_of(CreateOrganization(org_id=each, name=f"{each}")) for each in (x, y)])
    async with asyncio.timeout(20):
        async with database.transaction():
            await database.execute("SELECT FROM organization WHERE id = $1 FOR UPDATE", x)
            waiting = asyncio.create_task(appliers[0].apply([update(x, "x1.com"), update(y, "y1.com")]))
            await until(lambda: database.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"))
            freed = datetime.now(UTC)
        await waiting
    recorded = await database.fetch("SELECT recorded_at FROM journal WHERE version = 2")
    assert all(row["recorded_at"] >= freed for row in recorded)


async def test_an_organizations_times_never_go_back_where_clocks_differ_and_others_keep_theirs(
    settings: Settings, database: asyncpg.Connection
) -> None:
    now = datetime(2026, 3, 1, 12, tzinfo=UTC)
    later = now + timedelta(hours=1)
    x, y = uuid4(), uuid4()
    async with applying(settings, clock=lambda: later) as ahead:
        await ahead.apply([record_of(CreateOrganization(org_id=x, name="Acme"))])
    records = [
        update(x, "acme.com"),
        record_of(CreateOrganization(org_id=y, name="Other")),
        record_of(DeactivateOrganization(org_id=x)),
        record_of(UpdateOrganization(org_id=x, name="Other", expected_version=9)),
    ]
    async with applying(settings, clock=lambda: now) as behind:
        await behind.apply(records)
    rows = await database.fetch("SELECT org_id, code, recorded_at, after FROM journal ORDER BY position")
    assert [(row["org_id"], row["code"], row["recorded_at"]) for row in rows] == [
        (x, 200, later),
        (x, 200, later),
        (y, 200, now),
        (x, 200, later),
        (x, 409, later),
    ]
    stored = await database.fetchrow("SELECT created_at, updated_at, deactivated_at FROM organization WHERE id = $1", x)
    assert tuple(stored or ()) == (later, later, later)
    assert {orjson.loads(row["after"])["updated_at"] for row in rows if row["org_id"] == x and row["after"]} == {
        "2026-03-01T13:00:00Z"
    }
    assert await database.fetchval("SELECT updated_at FROM organization WHERE id = $1", y) == now


def update(org_id: UUID, domain: str) -> Any:
    return record_of(UpdateOrganization(org_id=org_id, domain=domain))


async def test_a_long_queue_behind_a_parked_command_does_not_slow_others(
    appliers: list[Applier], database: asyncpg.Connection
) -> None:
    held, org_id = uuid4(), uuid4()
    await database.execute(
        'INSERT INTO parked (topic, partition, "offset", broker_time, headers, org_id, command_id, request_digest, '
        "reason, detail, attempts, state, recorded_at) SELECT 't', 0, n, now(), '[]', $1, gen_random_uuid(), '', "
        "'queued_behind', '', 1, 'open', now() FROM generate_series(1, 100000) n",
        held,
    )
    await appliers[0].apply([record_of(CreateOrganization(org_id=org_id, name="Acme"))])
    began = time.monotonic()
    await appliers[0].apply([update(held, "held.com"), update(org_id, "acme.com")])
    assert time.monotonic() - began < 0.3
    assert await database.fetchval("SELECT count(*) FROM parked WHERE reason = 'queued_behind'") == 100_000
    rejected = await database.fetch("SELECT code, problem::json->>'type' FROM journal WHERE org_id = $1", held)
    assert [tuple(row) for row in rejected] == [(409, "urn:orgs:problem:queue-full")]
    assert await database.fetchval("SELECT domain FROM organization") == "acme.com"


@pytest.mark.parametrize(
    ("setting", "value"), [("default_transaction_isolation", "repeatable read"), ("synchronous_commit", "off")]
)
async def test_the_order_of_locks_and_reads_does_not_depend_on_database_defaults(
    settings: Settings, database: asyncpg.Connection, setting: str, value: str
) -> None:
    name = await database.fetchval("SELECT current_database()")
    await database.execute(f"ALTER DATABASE {name} SET {setting} = '{value}'")
    applied_to = Database(settings.database, "worker")
    async with applied_to.connect() as conn:
        shown = await conn.exec_driver_sql("SHOW transaction_isolation")
        assert shown.scalar_one() == "read committed"
        assert (await conn.exec_driver_sql("SHOW synchronous_commit")).scalar_one() == "on"
    await applied_to.close()
