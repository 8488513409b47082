"""Watch a topic: from its beginning, from its last records, or from now on."""

from collections.abc import AsyncGenerator, Sequence
from typing import NamedTuple, cast
from uuid import UUID

from org_events.kafka.consumer import SteadyConsumer
from org_service import probes
from org_service.kafka.client import TopicPartition
from org_service.kafka.reader import Record, ends, raise_if_sick, read_until, reader, take
from org_service.probes import probe
from org_service.settings import KafkaSettings


class View(NamedTuple):
    """What to show of a topic."""

    from_start: bool = False
    last: int = 0
    """Records before now to begin with; the ones that the broker took last."""
    follow: bool = True
    """Go on with what comes."""
    org_id: UUID | None = None
    """Only this organization."""


async def watch(kafka: KafkaSettings, topic: str, view: View) -> AsyncGenerator[Sequence[Record]]:
    """Yield records in steps, in order within each partition; without end if the view follows.

    Raises:
        KafkaError: Kafka can't be reached.
        TopicsMissingError: The topic does not exist.
        PartitionUnreadableError: A partition of it can't be read to its end, and all others were. A view that follows
            waits for it instead, and continues with the others.
    """
    key = None if view.org_id is None else str(view.org_id).encode()
    async with reader(kafka, topic, key=key) as (consumer, partitions):
        now = await ends(consumer, partitions)
        if probes.listeners:
            await probe("operate.ends_found")
        if view.from_start:
            async for records in read_until(consumer, now, leave_sick=True):
                yield _of(records, key)
        elif view.last:
            yield await _last(consumer, now, view.last, key)
        if not view.follow:
            raise_if_sick(consumer)
            return
        # A step may reach past the ends, and what lay behind them in it was left out.
        for partition, end in now.items():
            if partition not in consumer.sick:
                consumer.seek(partition, end)
        consumer.resume(*partitions)
        while True:
            yield _of(await take(consumer), key)


def _of(records: Sequence[Record], key: bytes | None) -> Sequence[Record]:
    return records if key is None else [record for record in records if record.key == key]


async def _last(
    consumer: SteadyConsumer, now: dict[TopicPartition, int], wanted: int, key: bytes | None
) -> list[Record]:
    """The last records before the ends, oldest first.

    Every transaction that wrote to a partition leaves one marker there, so the last n records are among the last 2 n
    offsets (but for transactions that were aborted, whose records are not shown). Of one organization they may be
    anywhere.
    """
    if key is None:
        first = cast("dict[TopicPartition, int]", await consumer.beginning_offsets(list(now)))
        for partition, end in now.items():
            consumer.seek(partition, max(first[partition], end - 2 * wanted))
    kept: list[Record] = []
    async for records in read_until(consumer, now, leave_sick=True):
        kept = sorted([*kept, *_of(records, key)], key=lambda each: each.timestamp)[-wanted:]
    return kept
