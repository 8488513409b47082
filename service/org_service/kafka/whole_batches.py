"""Reading partitions at hundreds of thousands of records a second: batch by batch, for proofs over whole topics.

A client's object for each record costs more than all that a proof does with it. So batches are handed through the
consumer whole, which still does what is hard (leaders, retries, transactions that were aborted).
"""

# The client comes without types.
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false, reportUnknownMemberType=false

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Final, NamedTuple, cast

from aiokafka import TopicPartition

from org_events.kafka.batches import UnreadBatch, WholeBatch
from org_events.kafka.whole import BatchRecord, open_batch
from org_service.errors import RetryError
from org_service.kafka.reader import groupless_consumer, read_until
from org_service.kafka.topics import count_partitions
from org_service.settings import KafkaSettings

FETCH_BYTES: Final = 1024 * 1024
"""Of a partition at once: a batch of ours is not larger, and what is read ahead is in memory."""
FETCHES_BYTES_MAX: Final = 4 * 1024 * 1024
"""Of all partitions of a broker at once; bounds memory."""
_FETCH_WAIT_MS: Final = 50
"""For the broker to gather data: everything that is asked for is there."""
TOGETHER_OFFSETS_MAX: Final = 100_000
"""Of partitions that are read at a time where what is kept of them must be in memory."""
STALL_S: Final = 15.0
"""Without a batch: a transaction is open, or a partition has no leader. Longer than a relay's own time-out, so that its
successor has ended what it left open."""


class StalledError(RetryError):
    """Partitions did not go on in time; the message names them."""


class Bounds(NamedTuple):
    """Of a partition."""

    start: int
    """Its first offset that is still there."""
    end: int
    """Behind all that was written, whether or not it is committed yet."""


async def find_bounds(kafka: KafkaSettings, topics: Sequence[str]) -> dict[TopicPartition, Bounds]:
    """Where all partitions of topics begin and end now.

    Raises:
        KafkaError: Kafka can't be reached.
        TopicsMissingError: A topic does not exist.
    """
    found: list[TopicPartition] = []
    for topic in topics:
        found += [TopicPartition(topic, number) for number in range(await count_partitions(kafka, topic) or 0)]
    async with groupless_consumer(kafka, isolation_level="read_uncommitted") as consumer:
        starts = cast("dict[TopicPartition, int]", await consumer.beginning_offsets(found))
        ends = cast("dict[TopicPartition, int]", await consumer.end_offsets(found))
    return {at: Bounds(starts[at], ends[at]) for at in found}


def group(ranges: Mapping[TopicPartition, Bounds]) -> Iterator[dict[TopicPartition, Bounds]]:
    """Partitions to read at a time: one, or some that are small, because a consumer takes a while to begin."""
    together: dict[TopicPartition, Bounds] = {}
    offsets = 0
    for at, bounds in ranges.items():
        if together and offsets + bounds.end - bounds.start > TOGETHER_OFFSETS_MAX:
            yield together
            together, offsets = {}, 0
        together[at] = bounds
        offsets += bounds.end - bounds.start
    if together:
        yield together


class Unopened(NamedTuple):
    """A batch as it stands in the log."""

    at: TopicPartition
    last_offset: int
    content: WholeBatch | UnreadBatch


async def read_batches(
    kafka: KafkaSettings, ranges: Mapping[TopicPartition, Bounds], *, stall_s: float = STALL_S
) -> AsyncIterator[tuple[TopicPartition, Sequence[BatchRecord]]]:
    """Yield what is committed in ranges of partitions, batch by batch, in order within each partition.

    A batch that nobody can read is one record without key and headers, whose value is an `UnreadBatch`.

    Raises:
        KafkaError: Kafka can't be reached.
        StalledError: A partition did not go on for `stall_s`.
        PartitionUnreadableError: A partition can't be read up to there.
    """
    async for at, _, batch in read_unopened(kafka, ranges, stall_s=stall_s):
        yield at, open_batch(batch, ranges[at].start)


async def read_unopened(
    kafka: KafkaSettings, ranges: Mapping[TopicPartition, Bounds], *, stall_s: float = STALL_S
) -> AsyncIterator[Unopened]:
    """As `read_batches`, for who can tell from a whole batch that it needs none of its records, or reads it as it is.

    It is opened by `open_batch` of `org_events.kafka.whole`. The first one of a range may begin before it.
    """
    if not ranges:
        return
    options = {
        "max_partition_fetch_bytes": FETCH_BYTES,
        "fetch_max_bytes": FETCHES_BYTES_MAX,
        "fetch_max_wait_ms": _FETCH_WAIT_MS,
    }
    async with groupless_consumer(kafka, whole_batches=True, **options) as consumer:
        consumer.assign(list(ranges))
        for at, bounds in ranges.items():
            consumer.seek(at, bounds.start)
        steps = aiter(read_until(consumer, {at: bounds.end for at, bounds in ranges.items()}))
        while True:
            try:
                async with asyncio.timeout(stall_s):
                    batches = await anext(steps)
            except StopAsyncIteration:
                return
            except TimeoutError:
                behind = [at for at, bounds in ranges.items() if await consumer.position(at) < bounds.end]
                names = ", ".join(f"{at.topic}[{at.partition}]" for at in behind[:5])
                raise StalledError(
                    f"{names} did not go on for {stall_s:.0f} s: a transaction is open there (the relay's `/readyz` "
                    "says whose), or it has no leader."
                ) from None
            for batch in batches:
                content = cast("WholeBatch | UnreadBatch", batch.value)
                yield Unopened(TopicPartition(batch.topic, batch.partition), batch.offset, content)
