"""A topic read for a run, a step at a time: the next one is read and decoded while Postgres works on the one before."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeVar

from org_service.kafka.client import TopicPartition
from org_service.kafka.ranges import OffsetRange, open_ranges
from org_service.kafka.reader import Record
from org_service.kafka.whole_batches import BatchRecord, Bounds, read_batches
from org_service.settings import KafkaSettings

STEP_RECORDS: Final = 8_000
"""Of a topic in one transaction; three such steps are in memory, some 20 MB each."""

T = TypeVar("T")
Ranges = Mapping[int, OffsetRange]


class Step(NamedTuple):
    """What the records of a step say."""

    rows: list[Any]
    rest: dict[int, OffsetRange]
    """By partition, what is to be read still."""


async def read_own(
    kafka: KafkaSettings,
    topic: str,
    ranges: Ranges,
    decode: Callable[[TopicPartition, Sequence[BatchRecord]], Iterable[Any]],
) -> AsyncGenerator[Step]:
    """Read what the relay wrote, batch by batch.

    Raises:
        KafkaError: Kafka can't be reached.
        StalledError, PartitionUnreadableError: A partition can't be read to the end of its range.
    """
    rest, rows = dict(ranges), list[Any]()
    wanted = {TopicPartition(topic, partition): Bounds(*each) for partition, each in ranges.items()}
    async for at, records in read_batches(kafka, wanted):
        rows += decode(at, records)
        if records:
            rest[at.partition] = OffsetRange(records[-1].offset + 1, ranges[at.partition].end)
        if len(rows) >= STEP_RECORDS:
            yield Step(rows, dict(rest))
            rows = []
    if ranges:
        yield Step(rows, {})


async def read_commands(
    kafka: KafkaSettings, topic: str, ranges: Ranges, decode: Callable[[Sequence[Record]], Iterable[Any]]
) -> AsyncGenerator[Step]:
    """Read what anybody may have written, record by record: only so is it read as workers read it.

    Raises:
        KafkaError: Kafka can't be reached.
        PartitionUnreadableError: A partition can't be read to the end of its range.
    """
    if not ranges:
        return
    rows = list[Any]()
    async with open_ranges(kafka, topic, ranges) as reader:
        while reader.unfinished:
            rows += decode(await reader.read())
            if len(rows) >= STEP_RECORDS or not reader.unfinished:
                rest = {
                    partition: OffsetRange(reader.read_to[partition], ranges[partition].end)
                    for partition in reader.unfinished
                }
                yield Step(rows, rest)
                rows = []


async def ahead(steps: AsyncGenerator[T]) -> AsyncGenerator[T]:
    """Have the next one made while one is worked on."""
    following = asyncio.ensure_future(anext(steps, None))
    try:
        while (step := await following) is not None:
            following = asyncio.ensure_future(anext(steps, None))
            yield step
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await steps.aclose()
