"""A program that writes where only the relay may: nothing more is published, and it is said who, where, what to do."""

import asyncio
import json
from uuid import UUID

import pytest

import org_local
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
from tests.support.observed import Record
from tests.support.relaying import Running, assert_exactly_once, changes, journal, running, seen
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
        await accept(settings)
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


async def accept(settings: Settings) -> None:
    done = await runs.run(settings, await plan(settings, await AcceptWrites.make(settings)))
    assert (done.state, done.counts) == (OperationState.DONE, {"accepted": 3})


async def test_what_was_accepted_stays_so_where_nothing_is_published_behind_it(settings: Settings) -> None:
    """A row at a time, on one partition: the others still end with what is foreign."""
    head = await journal(settings, changes(ROWS))
    async with running(settings) as run:
        await run.published(head)
    await write(settings, settings.kafka.topics.events)
    await accept(settings)
    for _ in range(2):
        head = await journal(settings, changes(1, after=head))
        async with running(settings) as run:
            await run.published(head)
    await write(settings, settings.kafka.topics.events)  # and what comes later is seen
    async with running(settings) as run:
        await until(lambda: says(run, "'stranger'", "`orgs topics accept`"))


async def lose_last(settings: Settings, stack: org_local.Stack) -> None:
    """The relay's last transaction on a partition of the events."""
    last = (await own_events(settings))[-1]
    await asyncio.to_thread(log_faults.cut_last, stack, {(last.topic, last.partition): 2})


async def own_events(settings: Settings) -> list[Record]:
    """Those that no replay wrote."""
    return [each for each in (await seen(settings)).events if each.header("ce_replayrun") is None]


@pytest.mark.parametrize("lost", ["before", "behind"])
async def test_what_is_lost_next_to_a_replay_in_place_is_sent_again(
    settings: Settings, stack: org_local.Stack, lost: str
) -> None:
    """A replay that filled the gap; or one that came between two transactions, the second of which is lost."""
    head = await journal(settings, changes(ROWS))
    async with running(settings) as run:
        await run.published(head)
        if lost == "behind":
            await replay(settings)
            head = await journal(settings, changes(5, after=head))
            await run.published(head)
    await lose_last(settings, stack)
    if lost == "before":
        await replay(settings)
    async with running(settings) as run:
        await run.published(await journal(settings, changes(5, after=head)))
    found = [int(each.header("ce_position") or 0) for each in await own_events(settings)]
    assert sorted(found) == list(range(1, head + 6))


async def test_nothing_is_published_while_an_open_transaction_hides_how_far_the_relay_was(
    settings: Settings, stack: org_local.Stack
) -> None:
    """What it wrote behind that can't be seen, and its position is lost: it would go out twice."""
    servers, names = settings.kafka.bootstrap_servers, settings.kafka.topics
    head = await journal(settings, changes(ROWS))
    async with running(settings) as run:
        await run.published(head)
        name = f"{settings.kafka.topic_prefix}stranger"
        opened = [
            await asyncio.to_thread(log_faults.begin_transaction, servers, f"{name}.{topic}.{number}", topic, number)
            for topic in (names.events, names.state, names.results)
            for number in range(3)
        ]
        head = await journal(settings, changes(5, after=head))
        await run.published(head)
    await asyncio.to_thread(log_faults.cut_last, stack, {(names.relay, 0): 2})
    async with running(settings) as run:
        await until(lambda: says(run, "an open transaction hides"))
        for each in opened:
            await asyncio.to_thread(each.abort_transaction, 20)
        await run.published(await journal(settings, changes(5, after=head)))
    assert_exactly_once(await seen(settings), range(1, head + 6))


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
