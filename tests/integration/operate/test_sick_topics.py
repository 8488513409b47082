"""Operators' readers of a topic of which one partition can't be read: all of the others, and word of that one."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import CorruptRecordException

from org_events.kafka import sick
from org_local.stack import Stack
from org_service.errors import PartitionUnreadableError
from org_service.kafka import relay_position
from org_service.kafka.reader import Record, read_all
from org_service.operate import progress, tail
from org_service.operate.tail import View
from org_service.settings import Settings
from tests.support import log_faults
from tests.support.fact_counts import facts_on_topics
from tests.support.operating import Orgs

pytestmark = pytest.mark.integration

PARTITIONS, BATCHES, EACH = 3, 4, 5
SICK, BAD = 1, 5
"""The second batch of its partition."""
ALL = Counter((partition, offset) for partition in range(PARTITIONS) for offset in range(BATCHES * EACH))
BEHIND = Counter((SICK, offset) for offset in range(BAD, BATCHES * EACH))


async def fill(settings: Settings, stack: Stack, topic: str, partitions: int = PARTITIONS, sick: int = SICK) -> None:
    """The same in each partition; one batch can't be read afterwards."""
    async with AIOKafkaProducer(bootstrap_servers=settings.kafka.bootstrap_servers) as producer:
        for _ in range(BATCHES):
            for partition in range(partitions):
                batch = producer.create_batch()
                for _ in range(EACH):
                    batch.append(key=b"k", value=b'{"position": 1}', timestamp=None)
                await producer.send_batch(batch, topic, partition=partition)
            await producer.flush()
    await asyncio.to_thread(log_faults.flip_byte, stack, topic, sick, BAD, mask=1)


def places(records: list[Record]) -> Counter[tuple[int, int]]:
    return Counter((record.partition, record.offset) for record in records)


async def take(steps: AsyncIterator[Sequence[Record]], into: list[Record]) -> None:
    async for records in steps:
        into += records


@pytest.mark.parametrize("view", [View(from_start=True), View(last=100)], ids=["from the start", "the last ones"])
async def test_tail_shows_what_can_be_read_and_goes_on_with_the_rest_when_it_can(
    settings: Settings, stack: Stack, view: View, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sick, "RETRY_S", 0.2)
    topic = settings.kafka.topics.events
    await fill(settings, stack, topic)
    shown: list[Record] = []
    with pytest.raises(
        PartitionUnreadableError, match=f"{topic}, partition {SICK} cannot be read from offset {BAD} on"
    ):
        await take(tail.watch(settings.kafka, topic, view._replace(follow=False)), shown)
    assert places(shown) == ALL - BEHIND
    shown.clear()
    async with asyncio.timeout(30):
        async for records in tail.watch(settings.kafka, topic, view):
            shown += records
            if len(shown) == (ALL - BEHIND).total():
                await asyncio.to_thread(log_faults.flip_byte, stack, topic, SICK, BAD, mask=1)
            if len(shown) == ALL.total():
                break
    assert places(shown) == ALL


async def test_the_command_line_says_which_partition_is_missing(settings: Settings, stack: Stack, orgs: Orgs) -> None:
    await fill(settings, stack, settings.kafka.topics.results)
    answer = await orgs("tail", "results", "--from-start", "--no-follow", "--json", code=1)
    assert len(answer.stdout.splitlines()) == (ALL - BEHIND).total()
    said = " ".join(answer.stderr.split())
    assert f"partition {SICK} cannot be read from offset {BAD} on (CorruptRecordException" in said
    assert "everything before it, and all other partitions, was read" in said


async def test_a_partial_read_is_never_reported_as_complete(settings: Settings, stack: Stack) -> None:
    """Accounts, counts and the plan of `orgs journal advance` would be wrong without a word."""
    topics = settings.kafka.topics
    await fill(settings, stack, topics.commands)
    await fill(settings, stack, topics.staff)
    await fill(settings, stack, topics.relay, 1, 0)
    found: list[Record] = []
    with pytest.raises(PartitionUnreadableError, match=f"partition {SICK} cannot be read"):
        await take(read_all(settings.kafka, topics.commands), found)
    assert places(found) == ALL - BEHIND
    with pytest.raises(PartitionUnreadableError, match=f"{topics.staff}, partition {SICK} cannot be read"):
        await facts_on_topics(settings.kafka)
    with pytest.raises(
        PartitionUnreadableError, match=f"{topics.relay}, partition 0 cannot be read from offset {BAD} on"
    ):
        await progress.published(settings)
    # The relay waits, and so tries again.
    with pytest.raises(CorruptRecordException, match=f"{topics.relay}, partition 0 is unreadable from offset {BAD}"):
        await relay_position.read(settings.kafka, topics.relay, settings.relay.name, BATCHES * EACH)
    assert await relay_position.is_published(settings.kafka, topics.relay, 1)
