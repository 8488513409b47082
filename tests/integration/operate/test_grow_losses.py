"""`orgs topics grow` where Kafka lost something: what moves must be there before it moves."""

import asyncio

import pytest

import org_local
from org_service.domain.reasons import OperationState
from org_service.operate import grow_topics, runs
from org_service.operate.grow_topics import GrowTopics
from org_service.probes import listeners
from org_service.settings import Settings
from tests.support.log_faults import cut_last
from tests.support.partitioner import partition_of
from tests.support.relaying import changes, journal, running, seen

pytestmark = pytest.mark.integration

ROWS = 35


async def test_a_growth_waits_until_what_kafka_lost_is_sent_again(
    settings: Settings, stack: org_local.Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The relay sends it to where it was; an organization that has moved by then would keep an old state for good.

    What is lost when the growth has looked is missed by the relay, as if there had been none.
    """
    monkeypatch.setattr(grow_topics, "CLIENTS_KNOW_S", 1.0)
    names, looked = settings.kafka.topics, asyncio.Event()

    async def note(*_: object) -> None:
        looked.set()

    async def lose_events(*_: object) -> None:
        await asyncio.to_thread(cut_last, stack, {(names.events, partition): 2 for partition in range(3)})

    monkeypatch.setitem(listeners, "operate.ends_found", note)
    monkeypatch.setitem(listeners, "operate.topics_grown", lose_events)
    head = await journal(settings, changes(ROWS))
    async with running(settings) as run:
        await run.published(head)
    await seen(settings)
    await asyncio.to_thread(cut_last, stack, {(names.state, partition): 2 for partition in range(3)})
    tool = await GrowTopics.make(settings, 6, [])
    planned, _ = await runs.keep_plan(settings, tool, requested_by="ann", reason="test")
    growing = asyncio.create_task(runs.run(settings, planned.id))
    await looked.wait()
    async with running(settings) as run:
        done = await growing
        assert (done.state, done.counts) == (OperationState.DONE, {"grown": 4})
        await run.published(await journal(settings, changes(1, after=head)))
    after = await seen(settings)
    assert after.event_positions() == list(range(1, ROWS + 2))
    found = {
        each.key: int(each.header("ce_position") or 0)
        for each in after.state
        if each.partition == partition_of(each.key or b"", 6)
    }
    assert sorted(found.values()) == list(range(ROWS - 5, ROWS + 2))
