"""The applier on a real Postgres: each hazard of the transaction, and what comes back to publishers."""

import asyncio
import dataclasses
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from org_events.commands import CreateOrganization, UpdateOrganization
from org_service.apply.applier import Applier
from org_service.settings import Settings
from org_service.store.leader import JournalSignal
from org_service.telemetry.metrics import BATCH_REPEATS
from tests.integration.apply.applying import created, journal
from tests.support.appliers import applying
from tests.support.probing import probing
from tests.support.records import record_of
from tests.support.topics import read_results
from tests.support.waiting import until

pytestmark = pytest.mark.integration


async def test_a_batch_is_journaled_in_order_with_gapless_positions(
    applier: Applier, database: asyncpg.Connection
) -> None:
    org_id, create = created("Acme")
    rename = record_of(UpdateOrganization(org_id=org_id, name="Acme Norge"))
    missing = record_of(UpdateOrganization(org_id=uuid4(), name="Nobody"))
    await applier.apply([create, rename, missing])
    rows = await journal(database)
    assert [(r["position"], r["outcome"], r["code"], r["version"]) for r in rows] == [
        (1, "applied", 200, 1),
        (2, "applied", 200, 2),
        (3, "rejected", 404, None),
    ]
    assert rows[1]["before"] == rows[0]["after"]
    assert (rows[1]["changed"], rows[1]["actor"], rows[1]["command_offset"]) == ('["name"]', "tester", rename.offset)
    stored = await database.fetchrow("SELECT name, name_key, version FROM organization WHERE id = $1", org_id)
    assert stored is not None
    assert tuple(stored) == ("Acme Norge", "acme norge", 2)


async def test_a_commit_wakes_whoever_listens_to_the_journal(applier: Applier, settings: Settings) -> None:
    """Else the relay would find it by polling, a second later; nothing would be lost, and nobody would know."""
    _, create = created("Acme")
    async with JournalSignal(settings.database) as signal:
        assert await signal.wait(0)  # the first one returns at once
        assert not await signal.wait(0.05)
        await applier.apply([create])
        assert await signal.wait(10)


async def test_a_redelivered_batch_changes_nothing_and_sends_no_answers(
    applier: Applier, database: asyncpg.Connection, settings: Settings
) -> None:
    org_id, create = created("Acme")
    records = [create, record_of(UpdateOrganization(org_id=org_id, domain="acme.com"))]
    await applier.apply(records)
    await applier.apply(records[:1])
    await applier.apply(records)
    assert len(await journal(database)) == 2
    assert await read_results(settings) == []


async def test_a_duplicate_gets_the_first_outcome_and_another_payload_is_rejected(
    applier: Applier, database: asyncpg.Connection, settings: Settings
) -> None:
    command_id = uuid4()
    org_id, create = created("Acme")
    update = UpdateOrganization(org_id=org_id, domain="acme.com")
    await applier.apply([create, record_of(update, command_id)])
    await applier.apply([record_of(UpdateOrganization(org_id=org_id, domain=None))])
    await applier.apply([record_of(update, command_id)])
    await applier.apply([record_of(UpdateOrganization(org_id=org_id, name="Other"), command_id)])
    assert len(await journal(database)) == 3
    duplicate, reused = await read_results(settings)
    assert (duplicate["outcome"], duplicate["version"], duplicate["position"]) == ("applied", 2, 2)
    assert duplicate["organization"]["domain"] == "acme.com"
    assert (reused["outcome"], reused["code"], reused["position"], reused["final"]) == ("rejected", 422, None, True)
    assert reused["problem"]["type"] == "urn:orgs:problem:command-id-reused"


async def test_a_duplicate_is_answered_when_the_outcome_is_committed_and_not_before(
    applier: Applier, database: asyncpg.Connection, settings: Settings
) -> None:
    """An outcome that was sent and then rolled back would be a change that never was."""
    committed: list[int] = []

    async def watched(*_: Any) -> None:
        committed.append(len(await journal(database)))

    _, create = created("Acme")
    with probing("apply.before_replies", watched):
        await applier.apply([create, dataclasses.replace(create, offset=create.offset + 1_000_000)])
    assert committed == [1]
    assert [(r["outcome"], r["position"]) for r in await read_results(settings)] == [("applied", 1)]


async def test_two_organizations_swap_names_in_one_batch(applier: Applier, database: asyncpg.Connection) -> None:
    a, create_a = created("Acme")
    b, create_b = created("Globex")
    await applier.apply([create_a, create_b])
    await applier.apply(
        [
            record_of(UpdateOrganization(org_id=a, name="Between")),
            record_of(UpdateOrganization(org_id=b, name="Acme")),
            record_of(UpdateOrganization(org_id=a, name="Globex")),
        ]
    )
    names = dict(await database.fetch("SELECT id, name FROM organization"))
    assert names == {a: "Globex", b: "Acme"}


async def test_two_workers_with_the_same_records_apply_them_once_and_neither_has_to_try_again(
    applier: Applier, settings: Settings, database: asyncpg.Connection
) -> None:
    """What happens at every rebalance: the former member still writes what its successor has read again.

    Were duplicates looked for before the locks are taken, the second one would run into the unique command id.
    """
    async with applying(settings) as successor:
        made = [created(f"Org {n}") for n in range(100)]
        await applier.apply([record for _, record in made])
        refolds = BATCH_REPEATS.labels("refold")._value.get()
        for round_ in range(20):
            records = [record_of(UpdateOrganization(org_id=org, domain=f"d{round_}.example")) for org, _ in made]
            await asyncio.gather(applier.apply(records), successor.apply(records))
    assert BATCH_REPEATS.labels("refold")._value.get() == refolds
    rows = await journal(database)
    assert [row["position"] for row in rows] == list(range(1, 100 + 20 * 100 + 1))
    assert {row["outcome"] for row in rows} == {"applied"}


async def test_two_workers_that_create_the_same_organizations_create_them_once(
    applier: Applier, settings: Settings, database: asyncpg.Connection
) -> None:
    """There is no row to lock yet: the rivals meet at a unique index, and one of them folds again."""
    async with applying(settings) as successor:
        for round_ in range(10):
            new = [created(f"New {round_} {n}")[1] for n in range(10)]
            await asyncio.gather(applier.apply(new), successor.apply(new[5:]))
    rows = await journal(database)
    assert [row["position"] for row in rows] == list(range(1, 101))
    assert {row["outcome"] for row in rows} == {"applied"}


async def test_of_two_workers_that_race_for_a_name_one_wins_and_one_is_rejected(
    applier: Applier, settings: Settings, database: asyncpg.Connection
) -> None:
    async with applying(settings) as rival:
        for round_ in range(15):
            names = [f"Name {round_} {n}" for n in range(5)]
            ours, theirs = ([created(name)[1] for name in names] for _ in range(2))
            await asyncio.gather(applier.apply(ours), rival.apply(theirs[::-1]))
    counts = dict(await database.fetch("SELECT code, count(*) FROM journal GROUP BY code"))
    assert counts == {200: 75, 409: 75}
    assert await database.fetchval("SELECT count(*) FROM organization") == 75


async def test_a_commit_whose_answer_was_lost_is_recognized(applier: Applier, database: asyncpg.Connection) -> None:
    lost = iter([True, False])

    async def losing(_: Applier) -> None:
        if next(lost):
            raise ConnectionResetError

    _, create = created("Acme")
    with probing("apply.after_commit", losing):
        await applier.apply([create])
    assert next(lost, None) is None
    assert [(r["position"], r["code"]) for r in await journal(database)] == [(1, 200)]


async def test_a_terminated_session_is_retried_as_an_outage(applier: Applier, database: asyncpg.Connection) -> None:
    """The backend is killed in the middle of a batch, again and again: the batch is applied once, in the end."""
    kills = iter(range(3))

    async def struck(*_: Any) -> None:
        if next(kills, None) is not None:
            await database.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND application_name = 'orgs-worker'"
            )

    org_id, create = created("Acme")
    await applier.apply([create])
    with probing("apply.before_transaction", struck):
        await applier.apply([record_of(UpdateOrganization(org_id=org_id, domain="acme.com"))])
    assert [r["version"] for r in await journal(database)] == [1, 2]
    assert await database.fetchval("SELECT count(*) FROM parked") == 0
    assert applier.outage is None


SLOW_INSERT = """
CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep({}); RETURN NEW; END $$;
CREATE TRIGGER slow BEFORE INSERT ON {} FOR EACH ROW EXECUTE FUNCTION slow()
"""


async def test_a_batch_that_takes_too_long_is_halved_until_it_gets_through(
    settings: Settings, database: asyncpg.Connection
) -> None:
    await database.execute(SLOW_INSERT.format(0.1, "journal"))
    quick = settings.database.model_copy(update={"statement_timeout_s": 1})
    halved = BATCH_REPEATS.labels("too_slow")._value.get()
    async with applying(settings.model_copy(update={"database": quick})) as applier:
        made = [created(f"Org {n}") for n in range(16)]
        async with asyncio.timeout(60):
            await applier.apply([record for _, record in made])
    assert [(row["position"], row["org_id"], row["code"]) for row in await journal(database)] == [
        (position, org_id, 200) for position, (org_id, _) in enumerate(made, 1)
    ]
    assert BATCH_REPEATS.labels("too_slow")._value.get() > halved
    assert await database.fetchval("SELECT count(*) FROM parked") == 0


async def test_one_command_that_takes_too_long_waits_says_so_and_is_not_parked(
    settings: Settings, database: asyncpg.Connection
) -> None:
    await database.execute(SLOW_INSERT.format(10, "journal"))
    async with applying(
        settings.model_copy(
            update={
                "database": settings.database.model_copy(update={"statement_timeout_s": 1}),
                "worker": settings.worker.model_copy(update={"retry_wait_max_s": 0.1}),
            }
        )
    ) as applier:
        waiting = asyncio.create_task(applier.apply([created("Acme")[1]]))
        async with asyncio.timeout(60):
            await until(lambda: (applier.outage or "").startswith("a single record takes too long"))
            assert "ORGS_DATABASE__STATEMENT_TIMEOUT_S" in (applier.outage or "")
            await database.execute("DROP TRIGGER slow ON journal")
            await waiting
    assert [row["code"] for row in await journal(database)] == [200]
    assert await database.fetchval("SELECT count(*) FROM parked") == 0


@pytest.mark.parametrize(("first", "second"), [(400, 400), (20, 400), (400, 20)])
async def test_a_batch_given_early_waits_for_the_one_before_it(
    applier: Applier, database: asyncpg.Connection, first: int, second: int
) -> None:
    """Large batches have a lane for some partitions each, small ones take all lanes."""
    ids = [uuid4() for _ in range(max(first, second))]
    creates = [
        record_of(CreateOrganization(org_id=ids[n], name=f"Org {n}"), partition=n % 12)
        for n in range(min(first, second))
    ]
    others = [record_of(CreateOrganization(org_id=uuid4(), name=f"Other {n}"), partition=n % 12) for n in range(first)]
    updates = [
        record_of(UpdateOrganization(org_id=ids[n], domain=f"org{n}.com"), partition=n % 12)
        for n in range(len(creates))
    ]
    more = [record_of(CreateOrganization(org_id=uuid4(), name=f"More {n}"), partition=n % 12) for n in range(second)]
    async with database.transaction():
        await database.execute("UPDATE journal_head SET position = position")
        works = [
            asyncio.create_task(applier.apply([*others[len(creates) :], *creates])),
            asyncio.create_task(applier.apply([*updates, *more[len(updates) :]])),
        ]
        await _blocked(database)
        assert not any(work.done() for work in works)
    await asyncio.gather(*works)
    assert {row["code"] for row in await journal(database)} == {200}


async def test_what_follows_a_batch_that_was_cancelled_is_not_applied(
    applier: Applier, database: asyncpg.Connection
) -> None:
    org_id, create = created("Acme")
    async with database.transaction():
        await database.execute("UPDATE journal_head SET position = position")
        first = asyncio.create_task(applier.apply([create]))
        second = asyncio.create_task(applier.apply([record_of(UpdateOrganization(org_id=org_id, domain="acme.com"))]))
        await _blocked(database)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
    with pytest.raises(asyncio.CancelledError):
        await second
    assert not await journal(database)


async def _blocked(database: asyncpg.Connection) -> None:
    """Return when a session waits for a lock of ours."""
    await until(lambda: database.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"))
