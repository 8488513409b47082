"""A program that writes where only the relay may: nothing more is published, and it is said who, where, what to do."""

import asyncio
import json
from uuid import UUID

import pytest

from org_service.domain.reasons import OperationState
from org_service.errors import PreconditionError, RetryError
from org_service.operate import runs
from org_service.operate.accept_writes import AcceptWrites
from org_service.operate.changes import Selection
from org_service.operate.operation import Tool
from org_service.operate.replay_events import ReplayEvents
from org_service.probes import Point
from org_service.settings import Settings
from org_service.telemetry.metrics import RELAY_FOREIGN
from tests.support import log_faults
from tests.support.killing import run_killed_at
from tests.support.log_faults import Transaction
from tests.support.relaying import Running, changes, journal, running, seen
from tests.support.waiting import until

pytestmark = pytest.mark.integration

ROWS = 20


async def write(settings: Settings, topic: str, *, transaction: Transaction = None) -> None:
    """One record on each partition."""
    servers, name = settings.kafka.bootstrap_servers, f"{settings.kafka.topic_prefix}stranger"
    await asyncio.to_thread(log_faults.write_as_stranger, servers, topic, range(3), name, transaction)


async def says(run: Running, *texts: str) -> bool:
    try:
        async with asyncio.timeout(1):  # as /readyz: a producer that is closed meanwhile never answers
            await run.relay.checks()["kafka"]()
    except RetryError as error:
        return all(text in str(error) for text in texts)
    except TimeoutError:
        pass
    return False


async def plan(settings: Settings, tool: Tool) -> UUID:
    operation, _ = await runs.keep_plan(settings, tool, requested_by="ann", reason="test")
    return operation.id


async def replay(settings: Settings) -> None:
    """All events once more, in place."""
    tool = await ReplayEvents.make(settings, Selection(), settings.kafka.topics.events, "in_place")
    done = await runs.run(settings, await plan(settings, tool))
    assert done.state == OperationState.DONE


@pytest.mark.parametrize("kind", ["events", "state"])
async def test_a_foreign_record_stops_the_relay_until_it_is_accepted(settings: Settings, kind: str) -> None:
    topic = getattr(settings.kafka.topics, kind)
    head = await journal(settings, changes(ROWS))
    async with running(settings) as run:
        await run.published(head)
        await write(settings, topic)
        head = await journal(settings, changes(5, after=head))
        await until(lambda: says(run, f"{topic}, partition", "'stranger'", "'/elsewhere'", "`orgs topics accept`"))
        assert RELAY_FOREIGN.labels(topic)._value.get() >= 1
    before = (await seen(settings)).relayed()
    head = await journal(settings, changes(5, after=head))
    async with running(settings) as run:  # a restart does not help
        await until(lambda: says(run, f"{topic}, partition"))
        assert (await seen(settings, settle=False)).relayed() == before
        done = await runs.run(settings, await plan(settings, await AcceptWrites.make(settings)))
        assert (done.state, done.counts) == (OperationState.DONE, {"accepted": 3})
        await run.published(head)
    with pytest.raises(PreconditionError, match="nothing to accept"):
        await (await AcceptWrites.make(settings)).plan()
    found = [each for each in getattr(await seen(settings), kind) if each.key != b"stranger"]
    assert sorted(int(each.header("ce_position") or 0) for each in found) == list(range(1, head + 1))


@pytest.mark.parametrize("point", ["operate.before_publish", "operate.after_publish"])
async def test_an_acceptance_that_is_killed_is_resumed(settings: Settings, point: Point) -> None:
    head = await journal(settings, changes(ROWS))
    async with running(settings) as run:
        await run.published(head)
    await write(settings, settings.kafka.topics.events, transaction="committed")
    done = await run_killed_at(settings, await plan(settings, await AcceptWrites.make(settings)), point, 1)
    assert (done.state, done.counts) == (OperationState.DONE, {"accepted": 3})
    async with running(settings) as run:
        await run.published(await journal(settings, changes(5, after=head)))


async def test_what_was_taken_back_is_nobodys(settings: Settings) -> None:
    head = await journal(settings, changes(ROWS))
    async with running(settings) as run:
        await run.published(head)
        await write(settings, settings.kafka.topics.events, transaction="aborted")
        head = await journal(settings, changes(5, after=head))
        await run.published(head)
        await run.drained()
    async with running(settings) as run:
        await run.published(await journal(settings, changes(5, after=head)))


async def test_a_replay_in_place_is_known(settings: Settings) -> None:
    """Under a relay that goes on, and before one that starts."""
    head = await journal(settings, changes(ROWS))
    async with running(settings) as run:
        await run.published(head)
        for _ in range(2):
            await replay(settings)
            head = await journal(settings, changes(5, after=head))
            await run.published(head)
    await replay(settings)
    async with running(settings) as run:
        await run.published(await journal(settings, changes(5, after=head)))
    last = json.loads((await seen(settings)).relay[-1].value or b"")
    assert last["position"] == head + 5
