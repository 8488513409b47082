"""A database restored from an older backup than Kafka knows, and the way out."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from org_service.domain.reasons import OperationState
from org_service.errors import PreconditionError, StopError
from org_service.operate import progress, runs
from org_service.operate.journal import JournalAdvance
from org_service.operate.operation import PlanMovedError
from org_service.probes import Point
from org_service.settings import Settings
from org_service.store.operations import Operation
from tests.support import relaying
from tests.support.database import connected, execute, restore_older_backup
from tests.support.idle import wait_until_idle
from tests.support.killing import run_killed_at
from tests.support.operating import Orgs, Service
from tests.support.probing import probing
from tests.support.relaying import RECORDED_AT, changes, running

pytestmark = pytest.mark.integration

BACKED_UP = 2


def name(number: int) -> str:
    return f"Org {number}"


async def create(orgs: Orgs, *numbers: int) -> None:
    for number in numbers:
        await orgs("send", "create", "--name", name(number))


async def positions(settings: Settings) -> tuple[list[int], int | None]:
    async with connected(settings) as conn:
        rows = await conn.fetch("SELECT position FROM journal ORDER BY position")
        head = await conn.fetchval("SELECT position FROM journal_head")
    return [row["position"] for row in rows], head


async def gaps(settings: Settings) -> list[tuple[int, int]]:
    async with connected(settings) as conn:
        rows = await conn.fetch("SELECT first_position, last_position FROM journal_gap ORDER BY 1")
    return [tuple(row) for row in rows]


async def published_positions(orgs: Orgs) -> list[int]:
    events = (await orgs("tail", "events", "--from-start", "--no-follow", "--json")).json_lines
    return sorted(event["value"]["position"] for event in events)


async def test_a_healthy_journal_is_left_unchanged(orgs: Orgs, service: Service, settings: Settings) -> None:
    never = await orgs("journal", "advance", code=1)
    assert "has published nothing yet" in never.stderr
    service.start("worker", "relay")
    await create(orgs, 1)
    await wait_until_idle(settings, 20)
    needless = await orgs("journal", "advance", code=1)
    assert "nothing to do" in needless.stderr
    assert await positions(settings) == ([1], 1)


@pytest.mark.parametrize("fresh", [0, 1, 5])
async def test_after_an_older_backup_nothing_decided_since_is_lost(
    orgs: Orgs, service: Service, settings: Settings, fresh: int
) -> None:
    """Five commands published, two in the backup; then fewer than the three lost ones, or more."""
    service.start("worker", "relay")
    await create(orgs, 1, 2, 3, 4, 5)
    await wait_until_idle(settings, 20)
    await service.stop()
    await restore_older_backup(settings, BACKED_UP)

    service.start("worker")
    for number in range(fresh):
        await orgs("send", "create", "--name", f"Fresh {number}", "--no-wait")
    await wait_until_decided(settings)
    await service.stop()
    service.start("relay")
    trouble = await service.ended("relay")
    assert isinstance(trouble, StopError)
    assert "orgs journal advance" in str(trouble)

    untouched = await positions(settings)
    asked = await orgs("journal", "advance")
    assert await positions(settings) == untouched
    assert "3 decided commands are lost" in asked.stdout
    assert asked.stdout.count("org.created") == 3

    done = (await orgs("journal", "advance", "--execute", "--reason", "restored", "--json")).json
    assert done["counts"] == {"given up": 3} | ({"moved": fresh} if fresh else {})
    assert await positions(settings) == ([1, 2, *range(6, 6 + fresh)], 5 + fresh)
    assert await gaps(settings) == [(3, 5)]

    service.start("worker", "relay")
    await create(orgs, 6)
    await wait_until_idle(settings, 20)
    assert await published_positions(orgs) == list(range(1, 5 + fresh + 2))
    assert "nothing to do" in (await orgs("journal", "advance", code=1)).stderr


async def test_indistinguishable_rows_are_left_unchanged(orgs: Orgs, service: Service, settings: Settings) -> None:
    service.start("worker", "relay")
    await create(orgs, 1, 2, 3, 4, 5)
    await wait_until_idle(settings, 20)
    await service.stop()
    await restore_older_backup(settings, BACKED_UP)
    await execute(settings, "UPDATE journal SET recorded_at = recorded_at + interval '1 day' WHERE position = 1")
    rejected = await orgs("journal", "advance", code=1)
    assert "Restore a backup that contains position 5" in rejected.stderr
    assert await positions(settings) == ([1, 2], 2)


def decided_since(count: int, first: int) -> list[dict[str, Any]]:
    """Rows decided since a restore, of commands nobody has seen."""
    return [
        {**row, "command_id": UUID(int=number), "recorded_at": RECORDED_AT + timedelta(hours=1)}
        for number, row in enumerate(changes(count, after=100 + first), first)
    ]


async def publish(settings: Settings, rows: list[dict[str, Any]]) -> None:
    head = await relaying.journal(settings, rows)
    async with running(settings) as relay:
        await relay.published(head)


async def restore(settings: Settings, position: int, head: int | None = None) -> None:
    await execute(settings, "DELETE FROM journal WHERE position > $1", position)
    await execute(settings, "UPDATE journal_head SET position = $1", head or position)


async def planned(settings: Settings) -> Operation:
    operation, _ = await runs.keep_plan(
        settings, await JournalAdvance.make(settings), requested_by="alice", reason="a backup was restored"
    )
    return operation


async def advance(settings: Settings) -> Operation:
    return await runs.run(settings, (await planned(settings)).id)


async def test_no_transaction_is_open_while_kafka_is_read(settings: Settings) -> None:
    """It takes as long as it takes, and Postgres ends a session that sits idle in a transaction."""
    await publish(settings, changes(20))
    await restore(settings, 15)
    seen: list[int | None] = []

    async def look(_: str) -> None:
        async with connected(settings) as conn:
            seen.append(await conn.fetchval(
                "SELECT count(*) FROM pg_stat_activity "
                "WHERE datname = current_database() AND application_name = 'orgs-owner' AND xact_start IS NOT NULL"
            ))  # fmt: skip

    with probing("kafka.before_read_all", look):
        assert (await advance(settings)).counts == {"given up": 5}
    assert set(seen) == {0}
    assert await positions(settings) == ([*range(1, 16)], 20)


async def test_what_was_journaled_after_the_plan_is_not_moved_unasked(settings: Settings) -> None:
    await publish(settings, changes(20))
    await restore(settings, 15)
    operation = await planned(settings)
    await relaying.journal(settings, decided_since(1, first=1))
    with pytest.raises(PlanMovedError, match="commands decided since the restore: 0 when it was planned, 1 now"):
        await runs.run(settings, operation.id)
    assert await positions(settings) == ([*range(1, 17)], 16)
    assert await gaps(settings) == []
    assert (await advance(settings)).counts == {"given up": 5, "moved": 1}
    assert await positions(settings) == ([*range(1, 16), 21], 21)


async def test_what_was_published_after_the_plan_is_not_overlooked(settings: Settings) -> None:
    """By a relay of the old database, which nobody stopped."""
    await publish(settings, changes(20))
    await restore(settings, 15)
    operation = await planned(settings)
    await restore(settings, 15, head=20)
    await publish(settings, decided_since(2, first=1))
    await restore(settings, 15)
    with pytest.raises(PlanMovedError, match="last position that Kafka has: 20 when it was planned, 22 now"):
        await runs.run(settings, operation.id)
    assert await positions(settings) == ([*range(1, 16)], 15)
    assert (await advance(settings)).counts == {"given up": 7}
    assert await positions(settings) == ([*range(1, 16)], 22)


async def test_what_is_journaled_in_the_last_moment_fails_the_run(settings: Settings) -> None:
    """Between the look of the run and its transaction."""
    await publish(settings, changes(20))
    await restore(settings, 15)
    operation = await planned(settings)

    async def journal_more(*_: Any) -> None:
        await relaying.journal(settings, decided_since(1, first=1))

    with probing("operate.after_take", journal_more):
        failed = await runs.run(settings, operation.id)
    assert failed.state == OperationState.FAILED
    assert "the journal changed since the plan" in (failed.error or "")
    assert await positions(settings) == ([*range(1, 17)], 16)


@pytest.mark.parametrize("point", ["operate.before_commit", "operate.after_commit"])
async def test_killed_and_resumed_it_ends_as_if_it_had_not_been(settings: Settings, point: Point) -> None:
    await publish(settings, changes(20))
    await restore(settings, 15)
    await relaying.journal(settings, decided_since(2, first=1))

    operation = await planned(settings)
    done = await run_killed_at(settings, operation.id, point, 1)
    assert (done.state, done.counts) == (OperationState.DONE, {"given up": 5, "moved": 2})
    assert await positions(settings) == ([*range(1, 16), 21, 22], 22)
    assert await gaps(settings) == [(16, 20)]


@pytest.mark.parametrize("kept", [2, 0])
async def test_a_second_recovery_continues_from_the_first(settings: Settings, kept: int) -> None:
    """From a backup taken after the first one, with some of the commands decided since, or right behind it."""
    await publish(settings, changes(20))
    await restore(settings, 15)
    await advance(settings)
    await publish(settings, decided_since(5, first=1))
    await restore(settings, 20 + kept, head=20 + kept)
    done = await advance(settings)
    assert (done.counts, len(done.sample)) == ({"given up": 5 - kept}, 5 - kept)
    assert await gaps(settings) == [(16, 20), (21 + kept, 25)]
    await publish(settings, decided_since(1, first=6))
    assert await positions(settings) == ([*range(1, 16), *range(21, 21 + kept), 26], 26)


async def test_another_row_not_newer_than_the_published_one_is_left_unchanged(settings: Settings) -> None:
    await publish(settings, changes(20))
    await restore(settings, 15)
    await relaying.journal(settings, [{**row, "recorded_at": RECORDED_AT} for row in decided_since(5, first=1)])
    with pytest.raises(PreconditionError, match="Restore a backup that contains position 20"):
        await advance(settings)
    assert await positions(settings) == ([*range(1, 21)], 20)


async def wait_until_decided(settings: Settings) -> None:
    while (await progress.behind(settings)).commands:
        pass
