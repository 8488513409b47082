"""Reading a part of a topic: from an offset to an offset in each partition, as fast as the caller takes it."""

from collections.abc import AsyncGenerator, Collection, Mapping
from contextlib import asynccontextmanager
from typing import Final, NamedTuple, cast

from aiokafka import TopicPartition

from org_events.kafka.consumer import SteadyConsumer
from org_events.topics import partition_for
from org_service.kafka.reader import POLL_MS, Record, ends, raise_if_sick, reader
from org_service.kafka.unread import find_times
from org_service.settings import KafkaSettings

POLL_RECORDS_MAX: Final = 2_000
"""Records in one step of a reader."""


class OffsetRange(NamedTuple):
    """Of one partition."""

    first: int
    end: int
    """Behind the last one."""


class Extent(NamedTuple):
    """What a topic holds of what was asked for."""

    partitions: int
    """Of the topic."""
    ranges: dict[int, OffsetRange]
    """By partition; those that are not empty."""
    log_starts: dict[int, int]
    """By partition, its first offset that is still there; of all that may have been asked for."""


async def find_extent(
    kafka: KafkaSettings,
    topic: str,
    *,
    from_offsets: Mapping[int, int],
    end_offsets: Mapping[int, int],
    from_ms: int | None,
    to_ms: int | None,
    keys: Collection[bytes],
) -> Extent:
    """See which offsets are meant and are there now.

    Args:
        kafka: Where.
        topic: Which.
        from_offsets: By partition, the first one. Where any are given, other partitions are not meant.
        end_offsets: By partition, the one behind the last one; likewise.
        from_ms: Taken by the broker at this moment, in milliseconds since 1970, or later.
        to_ms: Taken before this moment.
        keys: Only the partitions of these, if any.

    Raises:
        KafkaError: Kafka can't be reached.
        TopicsMissingError: The topic does not exist.
    """
    async with reader(kafka, topic) as (consumer, assigned):
        last = await ends(consumer, assigned)
        starts = cast("dict[TopicPartition, int]", await consumer.beginning_offsets(assigned))
        since, until = await _at_time(consumer, last, from_ms), await _at_time(consumer, last, to_ms)
    count = len(assigned)
    named = {*from_offsets, *end_offsets} or set(range(count))
    if keys:
        # What is old is where it belonged before the topic grew, each time to a multiple.
        before = [number for number in range(1, count + 1) if count % number == 0]
        named &= {partition_for(key, number) for key in keys for number in before}
    ranges: dict[int, OffsetRange] = {}
    for at in assigned:
        if (partition := at.partition) not in named:
            continue
        first = max(starts[at], from_offsets.get(partition, 0), since.get(at, 0))
        end = min(last[at], end_offsets.get(partition, last[at]), until.get(at, last[at]))
        if first < end:
            ranges[partition] = OffsetRange(first, end)
    return Extent(count, ranges, {at.partition: starts[at] for at in assigned if at.partition in named})


async def _at_time(
    consumer: SteadyConsumer, last: Mapping[TopicPartition, int], moment_ms: int | None
) -> dict[TopicPartition, int]:
    """The first offset at a moment or later, the end where there is none; nothing where no moment is asked for."""
    return {} if moment_ms is None else await find_times(consumer, last, moment_ms, last)


class RangeReader:
    """Reads ranges of a topic, in order within each partition."""

    def __init__(self, consumer: SteadyConsumer, topic: str, ranges: Mapping[int, OffsetRange]) -> None:
        """Begin.

        Args:
            consumer: Assigned to the partitions, at the beginning of their ranges.
            topic: Which.
            ranges: By partition.
        """
        self._consumer = consumer
        self._topic = topic
        self._ends = {partition: each.end for partition, each in ranges.items()}
        self.unfinished = set(ranges)
        """The partitions that were not read to the end of their range."""
        self.read_to = {partition: each.first for partition, each in ranges.items()}
        """By partition, where the reader stands."""

    async def read(self, full: Collection[int] = ()) -> list[Record]:
        """The next records of partitions, perhaps none; of those in `full` none.

        Raises:
            PartitionUnreadableError: One of the others can't be read.
        """
        consumer = self._consumer
        wanted: list[TopicPartition] = []
        for partition in sorted(self.unfinished):
            at = TopicPartition(self._topic, partition)
            if partition in full:
                consumer.pause(at)
            else:
                consumer.resume(at)
                wanted.append(at)
        if not wanted:
            return []
        batches = cast(
            "dict[TopicPartition, list[Record]]",
            await consumer.getmany(*wanted, timeout_ms=POLL_MS, max_records=POLL_RECORDS_MAX),
        )
        records: list[Record] = []
        for at, batch in batches.items():
            end = self._ends[at.partition]
            records += [record for record in batch if record.offset < end]
        for at in wanted:
            # Markers of transactions have offsets too: only the position tells that an end was reached.
            position = self.read_to[at.partition] = min(await consumer.position(at), self._ends[at.partition])
            if position >= self._ends[at.partition]:
                self.unfinished.discard(at.partition)
                consumer.pause(at)
        if not records and any(at in consumer.sick for at in wanted if at.partition in self.unfinished):
            raise_if_sick(consumer)
        return records


@asynccontextmanager
async def open_ranges(
    kafka: KafkaSettings, topic: str, ranges: Mapping[int, OffsetRange]
) -> AsyncGenerator[RangeReader]:
    """A reader at the beginning of ranges.

    Raises:
        KafkaError: Kafka can't be reached.
        TopicsMissingError: The topic does not exist.
    """
    async with reader(kafka, topic) as (consumer, _):
        assigned = [TopicPartition(topic, partition) for partition in ranges]
        consumer.assign(assigned)
        for at in assigned:
            consumer.seek(at, ranges[at.partition].first)
        yield RangeReader(consumer, topic, ranges)


async def find_first_times(kafka: KafkaSettings, topic: str) -> dict[int, int | None]:
    """Since when a topic holds what was published, by partition: 0 for ever, None where it holds nothing any more.

    Milliseconds since 1970, as the first record says that is still there.

    Raises:
        KafkaError: Kafka can't be reached.
        TopicsMissingError: The topic does not exist.
        PartitionUnreadableError: A partition can't be read.
    """
    async with reader(kafka, topic) as (consumer, assigned):
        last = await ends(consumer, assigned)
        starts = cast("dict[TopicPartition, int]", await consumer.beginning_offsets(assigned))
        found: dict[int, int | None] = {at.partition: 0 for at in assigned if not starts[at]}
        waiting = [at for at in assigned if at.partition not in found]
        consumer.pause(*(at for at in assigned if at not in waiting))
        while waiting:
            got = cast(
                "dict[TopicPartition, list[Record]]",
                await consumer.getmany(*waiting, timeout_ms=POLL_MS, max_records=1),
            )
            for at, records in got.items():
                found.setdefault(at.partition, records[0].timestamp)
            for at in waiting:
                if at.partition not in found and await consumer.position(at) >= last[at]:
                    found[at.partition] = None
            if not got:
                raise_if_sick(consumer)
            waiting = [at for at in waiting if at.partition not in found]
            consumer.pause(*(at for at in assigned if at not in waiting))
    return found
