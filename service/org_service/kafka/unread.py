"""The first record at offsets: how old what somebody has yet to read is, and what can be found without a scan.

Offsets tell neither: behind one there may be only marks of transactions, and what compaction took.
"""

from collections.abc import AsyncIterator, Collection, Mapping
from typing import Any, Final, cast

from aiokafka import TopicPartition

from org_events.kafka.consumer import SteadyConsumer
from org_service.kafka.reader import Record

FETCH_OPTIONS: Final[Mapping[str, Any]] = {"max_partition_fetch_bytes": 4_096, "fetch_max_wait_ms": 50}
"""For a consumer that is asked for one record here and one there: a broker returns a whole batch at least."""
_POLL_MS: Final = 200


async def find_first(
    consumer: SteadyConsumer, offsets: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int]
) -> dict[TopicPartition, Record]:
    """Read the first record at an offset of each partition, or behind it; none where there is none before its end.

    What can't be read is left out, too.

    Args:
        consumer: Of no group; it is assigned again.
        offsets: Where to begin; before the log's beginning stands for that.
        ends: Where each partition ends.
    """
    waiting = {at for at, offset in offsets.items() if offset < ends[at]}
    found: dict[TopicPartition, Record] = {}
    consumer.assign(sorted(waiting))
    for at in waiting:
        consumer.seek(at, offsets[at])
    while waiting:
        batches = cast(
            "dict[TopicPartition, list[Record]]", await consumer.getmany(*sorted(waiting), timeout_ms=_POLL_MS)
        )
        for at in list(waiting):
            records = batches.get(at, [])
            if records and records[0].offset < ends[at]:
                found[at] = records[0]
            if records or at in consumer.sick or await consumer.position(at) >= ends[at]:
                waiting.discard(at)
                consumer.pause(at)
    return found


async def read_from(consumer: SteadyConsumer, at: TopicPartition, offset: int, end: int) -> AsyncIterator[Record]:
    """Yield the records of one partition from an offset up to another, as far as the caller goes.

    It ends where the partition can't be read.

    Args:
        consumer: Of no group; it is assigned again.
        at: Which.
        offset: The first one.
        end: The one behind the last.
    """
    consumer.assign([at])
    consumer.seek(at, offset)
    while at not in consumer.sick and await consumer.position(at) < end:
        batches = cast("dict[TopicPartition, list[Record]]", await consumer.getmany(at, timeout_ms=_POLL_MS))
        for record in batches.get(at, ()):
            if record.offset >= end:
                return
            yield record


async def find_times(
    consumer: SteadyConsumer, partitions: Collection[TopicPartition], time_ms: int, ends: Mapping[TopicPartition, int]
) -> dict[TopicPartition, int]:
    """The first offset at a time, in milliseconds since 1970, or later; the end where there is none. By the index."""
    found = cast(
        "dict[TopicPartition, Any]", await consumer.offsets_for_times(dict.fromkeys(partitions, max(0, time_ms)))
    )
    return {at: ends[at] if (said := found.get(at)) is None else int(said.offset) for at in partitions}
