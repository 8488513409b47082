"""A lost database, or the lost end of one, written again from the topics: equal to what it was, table by table."""

import asyncio
import itertools
from uuid import UUID

import pytest

from org_service.domain.reasons import OperationState
from org_service.errors import StopError
from org_service.operate import runs
from org_service.operate.progress import behind
from org_service.operate.restoring.restore import Rebuild, Recover
from org_service.probes import Point
from org_service.settings import Settings
from org_service.store.operations import Operation
from tests.integration.operate.parking import release
from tests.integration.operate.restoring import (
    IDLE_S,
    LEFT,
    RIGHT,
    STUCK,
    command,
    decide,
    keep,
    rebuild,
    recover,
    same,
)
from tests.integration.worker.running import has_joined
from tests.integration.worker.running import running as worker_running
from tests.support import log_faults
from tests.support.database import execute, fetch
from tests.support.idle import wait_until_idle
from tests.support.killing import kill_at, until_abandoned
from tests.support.operating import Orgs, Service
from tests.support.probing import Killed, probing
from tests.support.random_commands import RandomCommands
from tests.support.rehearsing import ends, publish
from tests.support.restoring import back_up, check_independently, read_tables, replace_by
from tests.support.verified import find_differences
from tests.support.waiting import until

pytestmark = pytest.mark.integration

OTHER = "0a000000-0000-4000-8000-00000000000c"
POINTS: list[Point] = ["operate.before_commit", "operate.after_commit"]
SWAP = [
    command(1, "org.create", LEFT, name="Left"),
    command(2, "org.create", RIGHT, name="Right"),
    command(3, "org.update", LEFT, name="Passing"),
    command(4, "org.update", RIGHT, name="Left"),
    command(5, "org.update", LEFT, name="Right"),
]
STUCK_QUEUE = [
    command(10, "org.create", STUCK, name="Stuck"),
    command(11, "org.update", STUCK, name="Stuck, too"),
    command(12, "org.update", STUCK, domain="stuck.example.com"),
]


async def go_on(settings: Settings, service: Service) -> None:
    """New commands, and old ones again, are decided as if nothing had happened."""
    before = await read_tables(settings)
    counted = await ends(settings)
    service.start("worker", "relay")
    await publish(settings, [*SWAP, command(5, "org.update", LEFT, name="Other")])
    await publish(settings, RandomCommands(31, 20).commands(100))
    await wait_until_idle(settings, IDLE_S)
    await service.stop()
    after = await read_tables(settings)
    assert after.journal[: len(before.journal)] == before.journal
    assert sum((await ends(settings)).values()) > sum(counted.values())
    await asyncio.to_thread(check_independently, settings)
    assert await find_differences(settings) == []


async def test_a_rebuilt_database_is_equal(settings: Settings, service: Service, template_database: str) -> None:
    await decide(settings, service, [*SWAP, *RandomCommands(11, 30).commands(600)])
    lost, sent = await read_tables(settings), await ends(settings)
    assert lost.parked
    await replace_by(settings, template_database)
    done = await rebuild(settings)
    assert sum(done.counts.values()) == len(lost.journal)
    same(lost, await read_tables(settings))
    assert await ends(settings) == sent
    await go_on(settings, service)


async def test_a_recovered_backup_is_equal(settings: Settings, service: Service, copies: list[str]) -> None:
    commands = RandomCommands(12, 30)
    await decide(settings, service, [*SWAP, *commands.commands(200)])
    copies.append(await back_up(settings))
    await decide(settings, service, list(commands.commands(300)))
    lost, sent = await read_tables(settings), await ends(settings)
    await replace_by(settings, copies[0])
    done = await runs.run(settings, (await keep(settings, await Recover.make(settings))).id)
    assert done.state == OperationState.DONE, done.error
    same(lost, await read_tables(settings))
    assert await ends(settings) == sent
    await go_on(settings, service)


async def test_parked_commands_are_parked_again_and_can_be_released(
    settings: Settings, service: Service, template_database: str
) -> None:
    await decide(settings, service, [*SWAP, *STUCK_QUEUE, command(13, "org.update", LEFT, domain="left.example.com")])
    lost = await read_tables(settings)
    assert len(lost.parked) == len(STUCK_QUEUE)
    await replace_by(settings, template_database)
    await rebuild(settings)
    same(lost, await read_tables(settings))
    assert [row[0] for row in await fetch(settings, "SELECT reason FROM parked ORDER BY id")] == [
        "handler_raised",
        "queued_behind",
        "queued_behind",
    ]
    done = await release(settings, org_ids=(UUID(STUCK),))
    assert done.counts == {"applied": 3}
    service.start("worker", "relay")
    await wait_until_idle(settings, IDLE_S)
    await service.stop()
    assert await find_differences(settings) == []


async def test_what_was_parked_in_the_backup_and_decided_since_is_not_open(
    settings: Settings, service: Service, copies: list[str]
) -> None:
    await decide(settings, service, STUCK_QUEUE)
    copies.append(await back_up(settings))
    await release(settings, org_ids=(UUID(STUCK),))
    await decide(settings, service, [])
    lost = await read_tables(settings)
    await replace_by(settings, copies[0])
    assert (await recover(settings)).counts == {"changes": 3}
    same(lost, await read_tables(settings))


async def test_what_was_decided_and_not_published_is_decided_again(
    settings: Settings, service: Service, template_database: str
) -> None:
    await decide(settings, service, SWAP)
    published = await read_tables(settings)
    unpublished = [command(20, "org.update", LEFT, name="Right, later"), command(21, "org.delete", RIGHT)]
    service.start("worker")
    await publish(settings, unpublished)
    await until_decided(settings)
    await service.stop()
    await replace_by(settings, template_database)
    await rebuild(settings)
    same(published, await read_tables(settings))
    service.start("worker", "relay")
    await wait_until_idle(settings, IDLE_S)
    await service.stop()
    rows = await fetch(settings, "SELECT outcome FROM journal WHERE position > $1", len(published.journal))
    assert [row["outcome"] for row in rows] == ["applied", "applied"]
    await asyncio.to_thread(check_independently, settings)


async def until_decided(settings: Settings) -> None:
    while (await behind(settings)).commands:
        pass


async def test_what_a_foreign_program_wrote_is_passed_over(
    settings: Settings, service: Service, template_database: str, copies: list[str]
) -> None:
    await decide(settings, service, SWAP[:2])
    copies.append(await back_up(settings))
    await decide(settings, service, SWAP[2:])
    lost, kafka = await read_tables(settings), settings.kafka
    for topic in (kafka.topics.events, kafka.topics.results, kafka.topics.state):
        await asyncio.to_thread(log_faults.write_as_stranger, kafka.bootstrap_servers, topic, range(3), "stranger")
    await replace_by(settings, copies[0])
    await recover(settings)
    same(lost, await read_tables(settings))
    await replace_by(settings, template_database)
    await rebuild(settings)
    same(lost, await read_tables(settings))


async def test_killed_in_each_step_and_resumed_it_ends_equal(
    settings: Settings, service: Service, copies: list[str]
) -> None:
    """Before the commit of a step, then behind it, then in the next one."""
    commands = RandomCommands(13, 20)
    await decide(settings, service, [*SWAP, *commands.commands(60)])
    copies.append(await back_up(settings))
    await decide(settings, service, [*STUCK_QUEUE, *commands.commands(120)])
    lost = await read_tables(settings)
    await replace_by(settings, copies[0])
    operation = await keep(settings, await Recover.make(settings))
    impatient = settings.model_copy(update={"operate": settings.operate.model_copy(update={"lease_s": 0.2})})
    phases: list[str | None] = []
    done: Operation | None = None
    points = itertools.cycle(POINTS)
    while done is None:
        try:
            with probing(next(points), kill_at(1)):
                done = await runs.run(impatient, operation.id)
        except Killed:
            await until_abandoned(impatient, operation.id)
            phases.append(((await runs.find(impatient, operation.id)).progress or {}).get("phase"))
    assert done.state == OperationState.DONE, done.error
    assert len(phases) > 2 * len(set(phases)) > 16
    same(lost, await read_tables(settings))


async def cut(settings: Settings, *topics: str) -> None:
    """Let retention take all that topics hold."""
    before: dict[str, dict[int, int]] = {}
    for (topic, partition), offset in (await ends(settings)).items():
        if topic in topics and offset:
            before.setdefault(topic, {})[partition] = offset
    for topic, offsets in before.items():
        await asyncio.to_thread(log_faults.delete_records, settings.kafka.bootstrap_servers, topic, offsets)


async def test_outcomes_that_expired_are_never_decided_again(
    settings: Settings, service: Service, template_database: str
) -> None:
    taken = command(30, "org.create", LEFT, name="Taken")
    await decide(settings, service, [*SWAP, taken, command(31, "org.update", RIGHT, name="Gone")])
    lost = await read_tables(settings)
    await cut(settings, settings.kafka.topics.results)
    await replace_by(settings, template_database)
    assert (await rebuild(settings)).counts == {"changes": 6, "not on the topics any more": 1}
    now = await read_tables(settings)
    assert now.organization == lost.organization
    changes = [row for row in lost.journal if row[5] is not None]
    assert [row for row in now.journal if row[5] is not None] == changes
    [expired] = [row for row in now.journal if row[5] is None]
    assert str(expired[1]) == taken.command_id
    assert "discarded" in expired[15]
    # It is not decided a second time.
    await publish(settings, [taken])
    service.start("worker", "relay")
    await wait_until_idle(settings, IDLE_S)
    await service.stop()
    assert (await read_tables(settings)).journal == now.journal


async def test_organizations_whose_events_expired_come_from_the_state(
    settings: Settings, service: Service, template_database: str
) -> None:
    deleted = command(40, "org.delete", LEFT)
    await decide(settings, service, [*SWAP, deleted])
    lost = await read_tables(settings)
    topics = settings.kafka.topics
    await cut(settings, topics.events, topics.results, topics.commands)
    await replace_by(settings, template_database)
    assert (await rebuild(settings)).counts == {"not on the topics any more": 6}
    now = await read_tables(settings)
    assert now.journal_gap == [(1, 6)]
    assert [row for row in now.organization if row[8] is None] == [row for row in lost.organization if row[8] is None]
    [gone] = [row for row in now.organization if row[8] is not None]
    assert (str(gone[0]), gone[1], gone[9]) == (LEFT, "", 4)
    service.start("worker", "relay")
    await publish(
        settings, [command(41, "org.create", LEFT, name="Again"), command(42, "org.update", RIGHT, name="On")]
    )
    await wait_until_idle(settings, IDLE_S)
    await service.stop()
    rows = await fetch(settings, "SELECT position, code, version FROM journal ORDER BY command_id")
    assert [(row["code"], row["version"]) for row in rows] == [(409, 4), (200, 3)]
    assert sorted(row["position"] for row in rows) == [7, 8]


async def test_a_deletion_whose_event_expired_is_known_from_its_tombstone(
    settings: Settings, service: Service, copies: list[str]
) -> None:
    """In a backup from before it the organization is alive."""
    await decide(settings, service, SWAP)
    copies.append(await back_up(settings))
    await decide(settings, service, [command(40, "org.delete", LEFT)])
    await cut(settings, settings.kafka.topics.events, settings.kafka.topics.results)
    await replace_by(settings, copies[0])
    await recover(settings)
    rows = await fetch(settings, "SELECT name, name_key, version, deleted_at IS NOT NULL AS deleted FROM organization")
    assert sorted(map(tuple, rows)) == [("", None, 4, True), ("Left", "left", 2, False)]
    # Its name is free, and its id stays taken.
    again = [command(41, "org.create", OTHER, name="Right"), command(42, "org.create", LEFT, name="Again")]
    await decide(settings, service, again)
    codes = await fetch(settings, "SELECT code FROM journal WHERE position > 6 ORDER BY command_id")
    assert [row["code"] for row in codes] == [200, 409]


async def test_what_is_not_as_it_must_be_is_refused(
    settings: Settings, service: Service, orgs: Orgs, template_database: str, copies: list[str]
) -> None:
    assert "has published nothing yet" in (await orgs("rebuild", code=1)).stderr
    await decide(settings, service, SWAP[:2])
    copies.append(await back_up(settings))
    assert "nothing to do" in (await orgs("recover", code=1)).stderr
    assert "not empty" in (await orgs("rebuild", code=1)).stderr
    await decide(settings, service, SWAP[2:])
    await replace_by(settings, copies[0])
    assert "not empty" in (await orgs("rebuild", code=1)).stderr
    async with worker_running(settings) as worker:
        await until(lambda: has_joined(worker))
        assert "stop them first" in (await orgs("recover", code=1)).stderr
    await execute(settings, "UPDATE journal SET command_id = gen_random_uuid() WHERE position = 2")
    assert "at position 2 the topics have another command" in (await orgs("recover", code=1)).stderr
    await replace_by(settings, template_database)
    assert "is empty: `orgs rebuild`" in (await orgs("recover", code=1)).stderr


async def test_who_starts_in_the_middle_waits_or_is_refused(
    settings: Settings, service: Service, template_database: str
) -> None:
    await decide(settings, service, SWAP)
    lost = await read_tables(settings)
    await replace_by(settings, template_database)
    operation = await keep(settings, await Rebuild.make(settings))
    impatient = settings.model_copy(update={"operate": settings.operate.model_copy(update={"lease_s": 0.4})})
    with probing("operate.after_commit", kill_at(1)), pytest.raises(Killed):
        await runs.run(impatient, operation.id)
    service.start("relay")
    trouble = await service.ended("relay")
    assert isinstance(trouble, StopError)
    assert "orgs runs resume" in str(trouble)
    later = command(50, "org.update", LEFT, domain="left.example.com")
    tried: asyncio.Queue[None] = asyncio.Queue()

    async def note(*_: object) -> None:
        tried.put_nowait(None)

    with probing("apply.before_positions", note):
        service.start("worker")
        await publish(settings, [later])
        for _ in range(3):  # it tries again and again
            await asyncio.wait_for(tried.get(), 30)
        await service.stop()
    done = await runs.run(impatient, operation.id)
    assert done.state == OperationState.DONE, done.error
    same(lost, await read_tables(settings))
    await go_on(settings, service)
