"""The position in Kafka is found wherever it stands on the topic, and never too old a one."""

import asyncio
from contextlib import suppress
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import CorruptRecordException

from org_service.errors import StopError, TopicsMissingError
from org_service.kafka import relay_position
from org_service.kafka.producer import Producer, UnknownFateError
from org_service.operate import progress
from org_service.settings import Settings
from tests.support import raw_batches
from tests.support.raw_batches import CODECS
from tests.support.waiting import until

pytestmark = pytest.mark.integration

OURS, OTHERS = b"orgs", b"another relay"


async def end(settings: Settings) -> int:
    """The offset after everything on the relay's topic, which is new and may have no leader yet."""
    found: list[int] = []

    async def is_found() -> bool:
        producer = Producer(settings.kafka, f"{settings.kafka.topic_prefix}reader", 10_000)
        with suppress(UnknownFateError, TopicsMissingError):
            try:
                await producer.start([settings.kafka.topics.relay])
                found.append(await producer.find_end(TopicPartition(settings.kafka.topics.relay, 0)))
            finally:
                await producer.close()
        return bool(found)

    await until(is_found)
    return found[0]


async def read(settings: Settings) -> int | None:
    async with asyncio.timeout(20):
        until = await end(settings)
        last = await relay_position.read(settings.kafka, settings.kafka.topics.relay, OURS.decode(), until)
    return None if last is None else last.position


async def producer(settings: Settings, name: str, **options: Any) -> AIOKafkaProducer:
    started = AIOKafkaProducer(
        bootstrap_servers=settings.kafka.bootstrap_servers,
        transactional_id=f"{settings.kafka.topic_prefix}{name}",
        **options,
    )
    await started.start()
    return started


async def test_there_is_no_position_before_the_first_transaction(settings: Settings) -> None:
    assert await read(settings) is None


async def test_the_position_is_found_before_thousands_of_other_records(settings: Settings) -> None:
    topic = settings.kafka.topics.relay
    writer = await producer(settings, "writer")
    async with writer.transaction():
        await writer.send(topic, b'{"position": 7}', key=OURS)
        await writer.send(topic, b'{"position": 8, "command_id": null, "of the future": []}', key=OURS)
        for number in range(12_000):
            await writer.send(topic, b'{"position": %d}' % number, key=OTHERS)
    await writer.stop()
    assert await read(settings) == 8


async def test_a_tombstone_says_that_nothing_is_published_until_the_next_record(settings: Settings) -> None:
    """The last record of a name counts: an older one behind a tombstone would let rows be taken for published."""
    topic = settings.kafka.topics.relay
    writer = await producer(settings, "writer")
    async with writer.transaction():
        await writer.send(topic, b'{"position": 7}', key=OURS)
        await writer.send(topic, b'{"position": 70}', key=OTHERS)
        await writer.send(topic, None, key=OURS)
    assert await read(settings) is None
    assert await progress.published(settings) is None
    async with writer.transaction():
        await writer.send(topic, b'{"position": 0}', key=OURS)
        await writer.send(topic, None, key=OTHERS)
    await writer.stop()
    assert await read(settings) == 0
    published = await progress.published(settings)
    assert published is not None
    assert published.position == 0


async def test_the_position_is_found_with_every_codec(settings: Settings) -> None:
    topic = settings.kafka.topics.relay
    for number, codec in enumerate(CODECS):
        writer = await producer(settings, codec, compression_type=codec)
        async with writer.transaction():
            await writer.send(topic, b'{"position": %d}' % number, key=OURS)
        await writer.stop()
        assert await read(settings) == number
    assert await relay_position.is_published(settings.kafka, topic, 1)


async def test_a_batch_that_nobody_can_read_may_hold_it(settings: Settings) -> None:
    """Taken for nothing, an older position would be believed, and rows published twice."""
    topic = settings.kafka.topics.relay
    writer = await producer(settings, "writer")
    async with writer.transaction():
        await writer.send(topic, b'{"position": 7}', key=OURS)
    assert await raw_batches.produce(settings.kafka.bootstrap_servers, topic, 0, raw_batches.unreadable()) == 0
    with pytest.raises(CorruptRecordException, match="it cannot be parsed"):
        await read(settings)
    async with writer.transaction():
        await writer.send(topic, b'{"position": 8}', key=OURS)
    await writer.stop()
    assert await read(settings) == 8


async def test_aborted_records_do_not_count(settings: Settings) -> None:
    topic = settings.kafka.topics.relay
    writer = await producer(settings, "writer")
    async with writer.transaction():
        await writer.send(topic, b'{"position": 7}', key=OURS)
    await writer.begin_transaction()
    await writer.send(topic, b'{"position": 8}', key=OURS)
    await writer.abort_transaction()
    await writer.stop()
    assert await read(settings) == 7


async def test_an_open_transaction_of_another_relay_is_waited_for(settings: Settings) -> None:
    """A subscriber sees nothing behind it; reading only as far would give an old position, and publish twice."""
    topic = settings.kafka.topics.relay
    ours, other = await producer(settings, "ours"), await producer(settings, "other")
    async with ours.transaction():
        await ours.send(topic, b'{"position": 7}', key=OURS)
    await other.begin_transaction()
    await other.send_and_wait(topic, b'{"position": 70}', key=OTHERS)
    async with ours.transaction():
        await ours.send(topic, b'{"position": 8}', key=OURS)
    reading = asyncio.create_task(read(settings))
    _, still_reading = await asyncio.wait({reading}, timeout=1)
    assert still_reading
    await other.commit_transaction()
    assert await reading == 8
    await ours.stop()
    await other.stop()


async def test_an_invalid_position_stops_the_relay(settings: Settings) -> None:
    writer = await producer(settings, "writer")
    async with writer.transaction():
        await writer.send(settings.kafka.topics.relay, b'{"position": "far"}', key=OURS)
    await writer.stop()
    with pytest.raises(StopError, match=r'is not a valid position.*"position": 123'):
        await read(settings)
