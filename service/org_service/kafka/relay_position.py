"""How far the journal is published: where the last record on `orgs.relay` is, written inside each transaction.

Kafka alone knows. The record stands or falls with the events of its transaction, so position and events can't part,
and a database restored from a backup can't lie about it. Declined: a "published" mark in Postgres, which a crash
between Kafka's commit and its own leaves wrong.

The topic is compacted only now and then, so the record is looked for from the end backwards. The last record of a
relay's name counts, whoever asks: the relay itself, or an operator's command. A tombstone says that nothing is
published.
"""

# The client comes without types.
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final

from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.errors import CorruptRecordException

from org_events.kafka.batches import UnreadBatch
from org_events.kafka.consumer import SteadyConsumer
from org_service.errors import StopError
from org_service.settings import KafkaSettings
from org_service.wire.position import PARTITION, NotAPosition, Partitioning, Published, read_published

WINDOW_OFFSETS: Final = 1_000
"""The last offsets to read first: a relay alone on the topic finds its record among the last two."""
_WINDOW_GROWTH: Final = 8
_RUNS: Final = (b"replay ", b"repair ")
"""Of the keys of operators' runs, which keep their own positions there."""
_FETCH_WAIT_MS: Final = 50
"""For the broker to gather data: at the end of the topic there is nothing to gather."""
_CLOSE_TIMEOUT_S: Final = 2.0


async def read(kafka: KafkaSettings, topic: str, name: str, end: int) -> Published | None:
    """Read the position of the relay `name` from all that is committed before the offset `end`.

    Args:
        end: The end of the topic (its high watermark), taken *after* InitProducerId: the former leader's transaction
            is finished by then, committed or aborted. Other relays may have open transactions before it; these are
            waited for, because what this relay wrote behind them can't be read earlier.

    Returns:
        None when this relay has published nothing yet.

    Raises:
        StopError: The record is not a position.
        KafkaError, OSError: Nothing was read, or not all of it can be.
    """
    at = TopicPartition(topic, PARTITION)
    async with _consumer(kafka) as consumer:
        consumer.assign([at])
        return await find(consumer, at, name, end)


async def read_partitioning(kafka: KafkaSettings, name: str) -> Partitioning:
    """Read over how many partitions the relay `name` publishes; `ORGS_KAFKA__PARTITIONS` where it hasn't said yet.

    The setting says how many new topics get; how many there must be is Kafka's to know, like the position: every
    process learns of a growth without being configured again, and a database restored from a backup can't lie about it.

    Raises:
        StopError: The record is not a position.
        KafkaError, OSError: Nothing was read, or not all of it can be.
    """
    at = TopicPartition(kafka.topics.relay, PARTITION)
    async with _consumer(kafka) as consumer:
        consumer.assign([at])
        last = await find(consumer, at, name, (await consumer.end_offsets([at]))[at])
    return get_partitioning(kafka, last)


def get_partitioning(kafka: KafkaSettings, last: Published | None) -> Partitioning:
    """What a position says, as `read_partitioning`."""
    said = None if last is None else last.partitioning
    return said or Partitioning(kafka.partitions)


async def find(consumer: SteadyConsumer, at: TopicPartition, name: str, end: int) -> Published | None:
    """As `read`, with a consumer that is assigned to the partition."""
    begin = (await consumer.beginning_offsets([at]))[at]
    start, window = end, WINDOW_OFFSETS
    while start > begin:
        start = max(begin, end - window)
        record = await _last(consumer, at, name.encode(), start, end)
        if record is not None:
            return _published(record)
        window *= _WINDOW_GROWTH
    return None


def _published(record: ConsumerRecord[bytes, bytes]) -> Published | None:
    if record.value is None:
        return None
    try:
        return read_published(record.value, record.timestamp)
    except NotAPosition as error:
        raise StopError(
            f"A record on {record.topic} is not a valid position: {error}. Write the right one with the relay's "
            'name as key, as {{"position": 123, "command_id": null}}, and restart.'
        ) from error


async def read_others(kafka: KafkaSettings, topic: str, name: str) -> set[str]:
    """Read the names of other relays that have a position on the topic.

    Raises:
        KafkaError, OSError: Not all of it could be read.
    """
    at = TopicPartition(topic, PARTITION)
    found: set[str] = set()
    async with _consumer(kafka) as consumer:
        consumer.assign([at])
        end = (await consumer.end_offsets([at]))[at]
        while await consumer.position(at) < end:
            for record in (await consumer.getmany(at, timeout_ms=_FETCH_WAIT_MS)).get(at, ()):
                if record.value is not None and not (record.key or b"").startswith(_RUNS):
                    found.add((record.key or b"").decode("utf-8", "backslashreplace"))
            if (sick := consumer.sick.get(at)) is not None:
                raise CorruptRecordException(f"{at.topic}, partition {at.partition} is {sick}")
    return found - {name}


async def is_published(kafka: KafkaSettings, topic: str, partitions: int) -> bool:
    """Whether a topic holds any committed record.

    Raises:
        KafkaError, OSError: It is not known.
    """
    places = [TopicPartition(topic, number) for number in range(partitions)]
    async with _consumer(kafka) as consumer:
        consumer.assign(places)
        ends = await consumer.end_offsets(places)
        while True:
            if (
                await consumer.getmany(*places, timeout_ms=_FETCH_WAIT_MS) or consumer.sick
            ):  # what can't be read is there
                return True
            if all([await consumer.position(place) >= ends[place] for place in places]):
                return False


async def _last(
    consumer: SteadyConsumer, at: TopicPartition, key: bytes, start: int, end: int
) -> ConsumerRecord[bytes, bytes] | None:
    last: ConsumerRecord[bytes, bytes] | None = None
    unread: UnreadBatch | None = None
    consumer.seek(at, start)
    while await consumer.position(at) < end:
        records = (await consumer.getmany(at, timeout_ms=_FETCH_WAIT_MS)).get(at, ())
        for each in records:
            if each.key == key and each.offset < end:
                last, unread = each, None
            elif isinstance(each.value, UnreadBatch):
                unread = each.value
        if (sick := consumer.sick.get(at)) is not None:
            raise CorruptRecordException(f"{at.topic}, partition {at.partition} is {sick}")
    if unread is not None:  # a newer one may be in it
        raise CorruptRecordException(f"{at.topic}, partition {at.partition}: {unread.why}")
    return last


@asynccontextmanager
async def _consumer(kafka: KafkaSettings) -> AsyncGenerator[SteadyConsumer]:
    consumer = SteadyConsumer(
        **kafka.connection(),
        isolation_level="read_committed",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        fetch_max_wait_ms=_FETCH_WAIT_MS,
    )
    try:
        await consumer.start()
        yield consumer
    finally:
        stopping = asyncio.create_task(consumer.stop())
        await asyncio.wait({stopping}, timeout=_CLOSE_TIMEOUT_S)
        if not stopping.done():
            stopping.cancel()
        await asyncio.gather(stopping, return_exceptions=True)
