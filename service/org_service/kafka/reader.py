"""Connections to Kafka for operators' work, closed whatever happens, and reading a topic up to where it ends now.

Readers belong to no group and commit nothing, so they may run beside anything. They are `read_committed`: what a
transaction of the relay wrote and took back is not there for them, nor is what it has not committed yet.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, cast

from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.structs import OffsetAndTimestamp

from org_events.kafka.consumer import SteadyConsumer
from org_events.topics import partition_for
from org_service import probes
from org_service.errors import PartitionUnreadableError, TopicsMissingError
from org_service.kafka.topics import count_partitions
from org_service.probes import probe
from org_service.settings import KafkaSettings

Record = ConsumerRecord[bytes, bytes]

POLL_MS: Final = 500
"""The longest wait for records, so also for ^C and for a reader's own deadline to be looked at."""
_FETCH_WAIT_MS: Final = 100
"""How long a broker may wait for records before it answers that there are none. Requests on a connection are answered
in turn, so whoever asks where an empty partition ends waits as long; it was half a second for each topic."""
_LOOK_MS: Final = 200
POLL_RECORDS_MAX: Final = 5_000
"""Records in one step of a reader; bounds memory, some MB at usual sizes."""


@asynccontextmanager
async def reader(
    kafka: KafkaSettings, topic: str, *, key: bytes | None = None
) -> AsyncGenerator[tuple[SteadyConsumer, list[TopicPartition]]]:
    """A consumer assigned to a topic's partitions, at their beginning.

    Args:
        kafka: Where.
        topic: One topic.
        key: Only the partition that holds this key, if given.

    Raises:
        KafkaError: Kafka can't be reached.
        TopicsMissingError: The topic does not exist.
    """
    partitions = await count_partitions(kafka, topic)
    if partitions is None:
        raise TopicsMissingError(
            f"topic {topic} does not exist on Kafka at {kafka.bootstrap_servers}: run `orgs topics apply`."
        )
    wanted = range(partitions) if key is None else [partition_for(key, partitions)]
    assigned = [TopicPartition(topic, partition) for partition in wanted]
    async with groupless_consumer(kafka, fetch_max_wait_ms=_FETCH_WAIT_MS) as consumer:
        consumer.assign(assigned)
        await consumer.seek_to_beginning(*assigned)
        yield consumer, assigned


@asynccontextmanager
async def groupless_consumer(kafka: KafkaSettings, **options: Any) -> AsyncGenerator[SteadyConsumer]:
    """A consumer that belongs to no group and commits nothing, of committed records, from the beginning on.

    Args:
        kafka: Where.
        options: More of them, as `SteadyConsumer` takes them.

    Raises:
        KafkaError: Kafka can't be reached.
    """
    usual: dict[str, Any] = {"auto_offset_reset": "earliest", "isolation_level": "read_committed"}
    consumer = SteadyConsumer(**kafka.connection(), group_id=None, enable_auto_commit=False, **usual | options)
    try:
        await consumer.start()
        yield consumer
    finally:
        await consumer.stop()


async def ends(consumer: SteadyConsumer, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
    """Where each partition ends now, for a reader of committed records."""
    return cast("dict[TopicPartition, int]", await consumer.end_offsets(partitions))


async def read_until(
    consumer: SteadyConsumer, until: Mapping[TopicPartition, int], *, leave_sick: bool = False
) -> AsyncIterator[Sequence[Record]]:
    """Yield records in steps, from where the consumer stands up to given offsets, in order within each partition.

    Args:
        consumer: Assigned to the partitions.
        until: Where to end in each.
        leave_sick: End all the same where a partition can't be read; it stays where it is.

    Raises:
        PartitionUnreadableError: A partition can't be read up to there. What is before it, and in others, was given.
    """
    waiting = dict(until)
    while True:
        for partition in list(waiting):
            # Markers of transactions have offsets too: only the position tells that an end was reached.
            if await consumer.position(partition) >= waiting[partition]:
                del waiting[partition]
                consumer.pause(partition)
        if not waiting.keys() - consumer.sick.keys():
            if not leave_sick:
                raise_if_sick(consumer)
            return
        batch = await take(consumer)
        records = [record for record in batch if record.offset < until[TopicPartition(record.topic, record.partition)]]
        if records:
            yield records


def raise_if_sick(consumer: SteadyConsumer) -> None:
    """Nobody shall take for the whole what isn't.

    Raises:
        PartitionUnreadableError: A partition can't be read.
    """
    for at, sick in sorted(consumer.sick.items()):
        raise PartitionUnreadableError(
            f"{at.topic}, partition {at.partition} cannot be read from offset {sick.offset} on ({sick.reason}); "
            "everything before it, and all other partitions, was read. See 'A partition cannot be read' in "
            "docs/operating.md."
        )


async def _always() -> bool:
    return True


async def holds_records(
    consumer: SteadyConsumer,
    short: Mapping[TopicPartition, int],
    ends: Mapping[TopicPartition, int],
    goes_on: Callable[[], Awaitable[bool]] = _always,
) -> bool:
    """Whether there is a record between where partitions were read to and where they end, for all that is known.

    Offsets don't tell: there may be marks of transactions, and what compaction took away.

    Args:
        consumer: Of no group; it is assigned anew.
        short: How far each partition was read.
        ends: Where each ends.
        goes_on: Asked now and then; where it says no, the answer is that there may be.
    """
    if not short:
        return False
    consumer.assign(list(short))
    for each, offset in short.items():
        consumer.seek(each, offset)
    while await goes_on():
        batches = cast("dict[TopicPartition, list[Any]]", await consumer.getmany(timeout_ms=_LOOK_MS))
        if any(records[0].offset < ends[each] for each, records in batches.items() if records):
            return True
        if consumer.sick:  # there are records, and nobody could read them
            return True
        if all([await consumer.position(each) >= ends[each] for each in short]):
            return False
    return True


async def take(consumer: SteadyConsumer) -> list[Record]:
    """The next records available, none after `POLL_MS`; in order of broker time as far as partitions allow."""
    batches = cast(
        "dict[TopicPartition, list[Record]]",
        await consumer.getmany(timeout_ms=POLL_MS, max_records=POLL_RECORDS_MAX),
    )
    records = [record for batch in batches.values() for record in batch]
    # Sorting is stable, so records of one partition with equal times stay in order; times never decrease in it but
    # for a publisher whose clock went back, and there the offset is right.
    return records if len(batches) == 1 else sorted(records, key=lambda each: each.timestamp)


async def read_all(kafka: KafkaSettings, topic: str) -> AsyncIterator[Sequence[Record]]:
    """Yield everything that a topic holds now, in steps, in order within each partition.

    Raises:
        KafkaError: Kafka can't be reached.
        TopicsMissingError: The topic does not exist.
        PartitionUnreadableError: As `read_until`.
    """
    if probes.listeners:
        await probe("kafka.before_read_all", topic)
    async with reader(kafka, topic) as (consumer, partitions):
        async for records in read_until(consumer, await ends(consumer, partitions)):
            yield records


async def seek_to_time(consumer: SteadyConsumer, partitions: Sequence[TopicPartition], time_ms: int) -> None:
    """Let a consumer continue at the first records that brokers took at a time or later, in milliseconds since 1970."""
    asked = dict.fromkeys(partitions, max(time_ms, 0))
    found = cast("dict[TopicPartition, OffsetAndTimestamp | None]", await consumer.offsets_for_times(asked))
    for partition in partitions:
        at = found[partition]
        if at is None:
            await consumer.seek_to_end(partition)
        else:
            consumer.seek(partition, at.offset)
