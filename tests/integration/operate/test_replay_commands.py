"""Commands go out again and change nothing, whatever happens to the run."""

import asyncio
from collections import Counter
from typing import Any

import pytest
from confluent_kafka import Message

from org_service.domain.reasons import OperationState
from org_service.operate import runs
from org_service.operate.commands import CommandSelection
from org_service.operate.replay_commands import ReplayCommands
from org_service.probes import Point
from org_service.settings import Settings
from org_service.store.operations import Operation
from tests.integration.worker.publishing import committed
from tests.integration.worker.running import running
from tests.support.database import connected, execute
from tests.support.operating import Orgs
from tests.support.probing import probing
from tests.support.random_commands import RandomCommands
from tests.support.rehearsing import checksums, decided, end_of, publish
from tests.support.topics import read_topic
from tests.support.waiting import until

pytestmark = pytest.mark.integration

COMMANDS = 800


class Killed(BaseException):
    """What no handler of the service catches, as SIGKILL."""


async def kill() -> None:
    raise Killed


async def planned(settings: Settings, **selection: Any) -> Operation:
    tool = await ReplayCommands.make(settings, CommandSelection(**selection))
    operation, _ = await runs.keep_plan(settings, tool, requested_by="alice", reason="a test")
    return operation


async def state(settings: Settings) -> dict[str, str]:
    """What commands change."""
    found = await checksums(settings)
    return {name: found[name] for name in ("organization", "journal", "journal_head", "parked", "accepted_command")}


@pytest.fixture
async def unreadable(settings: Settings) -> set[tuple[int, int]]:
    """Commands that were decided; partitions and offsets of the records that could not be read."""
    await decided(settings, RandomCommands(7, 30).commands(COMMANDS))
    async with connected(settings) as database:
        rows = await database.fetch('SELECT partition, "offset" FROM parked WHERE command_id IS NULL')
    return {(partition, offset) for partition, offset in rows}


async def test_everything_again_changes_nothing(settings: Settings, unreadable: set[tuple[int, int]]) -> None:
    before = await state(settings)
    messages = await read_topic(settings, settings.kafka.topics.commands)
    ends = Counter(each.partition() for each in messages)
    left_out = [content(each) for each in messages if (each.partition(), each.offset()) in unreadable]
    operation = await planned(settings)
    assert operation.items == COMMANDS - len(unreadable)
    done = await runs.run(settings, operation.id)
    assert (done.state, done.counts) == (OperationState.DONE, {"sent": operation.items})
    async with running(settings):
        await until(lambda: committed(settings), await end_of(settings))
    assert await state(settings) == before
    messages = await read_topic(settings, settings.kafka.topics.commands)
    for partition in range(settings.kafka.partitions):
        mine = [each for each in messages if each.partition() == partition]
        first, again = mine[: ends[partition]], mine[ends[partition] :]
        assert [content(each) for each in again] == [content(each) for each in first if content(each) not in left_out]


def content(message: Message) -> tuple[Any, ...]:
    return message.key(), message.value(), tuple(message.headers() or ())


@pytest.mark.parametrize("point", ["operate.before_publish", "operate.after_publish"])
async def test_a_run_that_was_killed_is_continued_and_changes_nothing(
    settings: Settings, unreadable: set[tuple[int, int]], point: Point
) -> None:
    before = await state(settings)
    impatient = settings.model_copy(update={"operate": settings.operate.model_copy(update={"lease_s": 1})})
    operation = await planned(impatient)
    await runs.set_rate(impatient, operation.id, 300)  # so that there are several steps
    steps = iter(range(10))

    async def kill_later(*_: Any) -> None:
        if next(steps) == 1:
            raise Killed

    with probing(point, kill_later), pytest.raises(Killed):
        await runs.run(impatient, operation.id)
    await runs.set_rate(impatient, operation.id, None)
    while not (await runs.find(impatient, operation.id)).abandoned:
        await asyncio.sleep(0.05)
    done = await runs.run(impatient, operation.id)
    assert (done.state, done.counts) == (OperationState.DONE, {"sent": operation.items})
    async with running(settings):
        await until(lambda: committed(settings), await end_of(settings))
    assert await state(settings) == before


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
