"""Commands go out again and change nothing, whatever happens to the run."""

import asyncio
from collections import Counter
from typing import Any, NamedTuple

import pytest

from org_service.domain.reasons import OperationState
from org_service.kafka import topics
from org_service.kafka.ranges import find_extent
from org_service.operate import runs
from org_service.operate.commands import CommandSelection
from org_service.operate.replay_commands import ReplayCommands
from org_service.probes import Point
from org_service.settings import Settings
from org_service.store.operations import Operation
from tests.support.database import connected, execute
from tests.support.idle import wait_until_idle
from tests.support.killing import kill_at, until_abandoned
from tests.support.operating import Orgs, Service
from tests.support.probing import Killed, probing
from tests.support.random_commands import RandomCommands
from tests.support.rehearsing import publish
from tests.support.topics import read_topic
from tests.support.verified import find_differences

pytestmark = pytest.mark.integration

COMMANDS = 800
IDLE_S = 60


class Decided(NamedTuple):
    """What some commands left behind."""

    head: int
    """The journal's."""
    rows: list[Any]
    organizations: list[Any]
    parked: list[Any]


async def planned(settings: Settings, **selection: Any) -> Operation:
    tool = await ReplayCommands.make(settings, CommandSelection(**selection))
    operation, _ = await runs.keep_plan(settings, tool, requested_by="alice", reason="a test")
    return operation


async def look(settings: Settings, head: int, parked_id: int) -> Decided:
    """At what commands up to a position, and a parked record, left behind."""
    of_these = "SELECT * FROM organization WHERE id IN (SELECT org_id FROM journal WHERE position <= $1) ORDER BY id"
    async with connected(settings) as database:
        return Decided(
            head,
            await database.fetch("SELECT * FROM journal WHERE position <= $1 ORDER BY position", head),
            await database.fetch(of_these, head),
            await database.fetch("SELECT * FROM parked WHERE id <= $1 ORDER BY id", parked_id),
        )


@pytest.fixture
async def before(settings: Settings, running: Service) -> Decided:
    """Commands that were decided; the worker and the relay go on."""
    await publish(settings, RandomCommands(7, 30).commands(COMMANDS))
    await wait_until_idle(settings, IDLE_S)
    async with connected(settings) as database:
        head: Any = await database.fetchval("SELECT position FROM journal_head")
        parked_id: Any = await database.fetchval("SELECT max(id) FROM parked")
    return await look(settings, head, parked_id)


async def see_unchanged(settings: Settings, before: Decided) -> None:
    await wait_until_idle(settings, IDLE_S)
    assert await look(settings, before.head, before.parked[-1]["id"]) == before
    assert await find_differences(settings) == []


async def sent(settings: Settings) -> dict[int, list[tuple[Any, ...]]]:
    """What the topic of commands has, by partition."""
    found: dict[int, list[tuple[Any, ...]]] = {}
    for each in await read_topic(settings, settings.kafka.topics.commands):
        found.setdefault(each.partition() or 0, []).append((each.key(), each.value(), tuple(each.headers() or ())))
    return found


def readable(records: list[tuple[Any, ...]], partition: int, before: Decided) -> list[tuple[Any, ...]]:
    """All but what can't be read, and so is not sent again."""
    unreadable = {(row["partition"], row["offset"]) for row in before.parked if row["command_id"] is None}
    return [each for offset, each in enumerate(records) if (partition, offset) not in unreadable]


async def test_everything_again_changes_nothing_while_others_send(settings: Settings, before: Decided) -> None:
    first = await sent(settings)
    operation = await planned(settings)
    meant = {partition: readable(records, partition, before) for partition, records in first.items()}
    assert operation.items == sum(map(len, meant.values())) < COMMANDS
    _, done = await asyncio.gather(
        publish(settings, RandomCommands(8, 20).commands(COMMANDS)), runs.run(settings, operation.id)
    )
    assert (done.state, done.counts) == (OperationState.DONE, {"sent": operation.items})
    await see_unchanged(settings, before)
    for partition, records in (await sent(settings)).items():
        again = records[len(first[partition]) :]
        assert [each for each in again if each in first[partition]] == meant[partition]


@pytest.mark.parametrize("point", ["operate.before_publish", "operate.after_publish"])
async def test_a_run_that_was_killed_is_continued_and_changes_nothing(
    settings: Settings, before: Decided, point: Point
) -> None:
    impatient = settings.model_copy(update={"operate": settings.operate.model_copy(update={"lease_s": 1})})
    offsets = {partition: len(records) for partition, records in (await sent(settings)).items()}
    operation = await planned(impatient)
    await runs.set_rate(impatient, operation.id, 300)  # so that there are several steps
    with probing(point, kill_at(2)), pytest.raises(Killed):
        await runs.run(impatient, operation.id)
    await runs.set_rate(impatient, operation.id, None)
    await until_abandoned(impatient, operation.id)
    done = await runs.run(impatient, operation.id)
    assert (done.state, done.counts) == (OperationState.DONE, {"sent": operation.items})
    await see_unchanged(settings, before)
    for partition, records in (await sent(settings)).items():
        counts = Counter(records)
        assert all(counts[each] >= 2 for each in readable(records[: offsets[partition]], partition, before))


async def test_what_has_no_outcome_is_said_and_decided(settings: Settings, orgs: Orgs) -> None:
    await publish(settings, RandomCommands(8, 5).commands(20))
    plan = (await orgs("replay", "commands", "--plan", "--json")).json
    assert any(f"{plan['items']} of them have no outcome yet" in note for note in plan["notes"])
    ran = (await orgs("run", plan["id"], "--reason", "a test", "--json")).json
    assert ran["counts"] == {"sent": plan["items"]}


async def test_marks_bound_what_is_sent_again(settings: Settings, orgs: Orgs) -> None:
    await publish(settings, RandomCommands(8, 5).commands(20))
    await orgs("mark", "first")
    await publish(settings, RandomCommands(9, 5).commands(20))
    await orgs("mark", "second")
    await publish(settings, RandomCommands(10, 5).commands(20))
    plan = ("replay", "commands", "--plan", "--json")

    async def items(*options: str) -> int:
        return (await orgs(*plan, *options)).json["items"]

    everything, since = await items(), await items("--from-mark", "first")
    between, until_then = await items("--from-mark", "first", "--to-mark", "second"), await items("--to-mark", "second")
    assert 0 < between < since < everything
    assert until_then + since == everything + between
    refused = await orgs(*plan, "--from-mark", "first", "--from-offset", "0:1", code=2)
    assert "exclude each other" in refused.stderr
    await execute(
        settings, "UPDATE mark SET topics = jsonb_set(topics, ARRAY[$1, 'id'], '\"x\"')", settings.kafka.topics.commands
    )
    refused = await orgs(*plan, "--to-mark", "first", code=1)
    assert "is not the one that there was at the mark 'first'" in refused.stderr


async def test_commands_from_before_a_growth_and_since_ever_are_found_by_organization(settings: Settings) -> None:
    await publish(settings, RandomCommands(8, 5).commands(20))
    topic, before = settings.kafka.topics.commands, await sent(settings)
    count = await topics.count_partitions(settings.kafka, topic) or 0
    await topics.add_partitions(settings.kafka, (topic,), 2 * count)
    for partition, records in before.items():
        for key in {record[0] for record in records}:
            extent = await find_extent(
                settings.kafka, topic, from_offsets={}, end_offsets={}, from_ms=-1, to_ms=None, keys={key}
            )
            assert extent.ranges[partition] == (0, len(records))
