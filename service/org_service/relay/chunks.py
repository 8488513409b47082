"""A chunk: the rows of one Kafka transaction, encoded as record batches by topic and partition.

The relay builds record batches itself, because `send` costs a future and a lock a record. Within a partition the
records stand in order of position; all of a chunk becomes visible at once.
"""

from asyncio import sleep
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from time import time
from typing import Final

from org_events.topics import Topics
from org_service.domain.outcomes import JournaledOutcome
from org_service.kafka.client import TopicPartition
from org_service.kafka.record_batches import RecordBatch, TopicBatches
from org_service.wire.changes import encode
from org_service.wire.position import Partitioning, Position

CHUNK_BYTES_MAX: Final = 32 * 1024 * 1024
"""All of a chunk may be for one broker, whose `socket.request.max.bytes` is 100 MiB by default. Also bounds memory: two
chunks are held, one on its way and the next."""
ROWS_AT_A_STRETCH: Final = 100
"""Rows encoded before other tasks get their turn: some 2 ms, while the chunk before is on its way."""


@dataclass(slots=True)
class Chunk:
    """What one transaction publishes, beside the position record."""

    rows: int
    last: Position
    oldest: datetime
    """When the first row was recorded."""
    more: bool
    """The journal probably has more rows: those left out here, or those beyond the limit of the read."""
    batches: dict[TopicPartition, list[RecordBatch]] = field(default_factory=dict[TopicPartition, list[RecordBatch]])
    sampled: list[JournaledOutcome] = field(default_factory=list[JournaledOutcome])
    """Rows that get a span once they are published."""

    @property
    def first(self) -> int:
        """The position of the first row."""
        return self.last.position - self.rows + 1


@dataclass(frozen=True, slots=True)
class Layout:
    """Where records go. Partition counts are a producer's; a chunk built for one isn't sent by another."""

    topics: Topics
    partitions: Mapping[str, int]
    relay: str
    """Key of the position record."""
    partitioning: Partitioning
    """What the position record says of the data topics."""


async def build(
    rows: Sequence[JournaledOutcome], layout: Layout, *, limit: int, clock: Callable[[], float] = time
) -> Chunk:
    """Encode rows, as many as fit into `CHUNK_BYTES_MAX` (at least one).

    Args:
        rows: Of the journal, in order, at least one.
        limit: Of the read that brought them: as many rows as that mean there may be more.
        clock: Tells when they are published.

    Gives way to other tasks now and then; safe to cancel.
    """
    # When it is published, not when it was recorded (that is in `ce_time`): topics keep their records for a time from
    # here on, however long an outage was, and a worker's clock that is ahead makes none that a broker refuses.
    now_ms = int(clock() * 1000)
    batches: dict[TopicPartition, list[RecordBatch]] = {}
    results, events, state = (
        TopicBatches(name, layout.partitions[name], batches, now_ms)
        for name in (layout.topics.results, layout.topics.events, layout.topics.state)
    )
    size = taken = 0
    for row in rows:
        key, key_hash, result, event, new_state = encode(row)
        size += results.append(key, key_hash, *result)
        if event is not None:
            size += events.append(key, key_hash, *event)
        # guarantee 5: the state is published in the transaction of its event.
        if new_state is not None:
            size += state.append(key, key_hash, *new_state)
        taken += 1
        if size >= CHUNK_BYTES_MAX:
            break
        if taken % ROWS_AT_A_STRETCH == 0:
            await sleep(0)
    last = rows[taken - 1]
    position = Position(
        position=last.position,
        command_id=last.command_id,
        recorded_at=last.recorded_at,
        **layout.partitioning._asdict(),
    )
    return Chunk(taken, position, rows[0].recorded_at, taken < len(rows) or len(rows) >= limit, batches)
