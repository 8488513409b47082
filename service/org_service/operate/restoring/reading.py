"""A topic read for a run, a step at a time: the next one is read and decoded while Postgres works on the one before."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence, Sized
from typing import Any, Final, NamedTuple, TypeVar

from org_service.kafka.client import TopicPartition
from org_service.kafka.ranges import OffsetRange, open_ranges
from org_service.kafka.reader import Record
from org_service.kafka.whole_batches import Bounds, Unopened, read_unopened
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
    kafka: KafkaSettings, topic: str, ranges: Ranges, decode: Callable[[Unopened], Sized]
) -> AsyncGenerator[Step]:
    """Read what the relay wrote, batch by batch.

    Args:
        kafka: Where.
        topic: Which.
        ranges: What of it.
        decode: Gives what is kept of a batch; each is one of the step's rows.

    Raises:
        KafkaError: Kafka can't be reached.
        StalledError, PartitionUnreadableError: A partition can't be read to the end of its range.
    """
    rest, rows, records = dict(ranges), list[Any](), 0
    async for batch in read_unopened(kafka, {TopicPartition(topic, each): Bounds(*at) for each, at in ranges.items()}):
        decoded = decode(batch)
        rows.append(decoded)
        records += len(decoded)
        rest[batch.at.partition] = OffsetRange(batch.last_offset + 1, ranges[batch.at.partition].end)
        if records >= STEP_RECORDS:
            yield Step(rows, dict(rest))
            rows, records = [], 0
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
