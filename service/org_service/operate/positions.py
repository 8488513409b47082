"""Where a position of the journal is on `orgs.events`, by halving: positions grow along a partition.

Each step reads one record. Events that a run sent again are stepped over: they have older positions. `orgs.results` has
copies of older results in between and `orgs.state` loses records to compaction, so there the time of the event tells:
what the relay publishes of a position is one transaction, whose records have one time.
"""

from typing import Final, NamedTuple

from org_events.kafka.consumer import SteadyConsumer
from org_service.kafka.client import TopicPartition
from org_service.kafka.reader import Record
from org_service.kafka.unread import read_from
from org_service.wire.changes import RUN_HEADER

LINEAR_OFFSETS_MAX: Final = 500
"""So many are read one after the other: it is one fetch."""
CLOCKS_MS: Final = 60_000
"""By how much the clocks of two relays may differ."""


class Turn(NamedTuple):
    """Where a partition goes past a position."""

    offset: int
    """Everything before it has positions up to it; the first event behind it is here or later."""
    before: Record | None
    """The last event up to it that was seen; None where it may be that there is none."""
    behind: Record | None
    """The first event behind it, None where there is none yet."""


async def find_turn(consumer: SteadyConsumer, at: TopicPartition, position: int, begin: int, end: int) -> Turn:
    """Find where a partition of `orgs.events` goes past a position.

    Args:
        consumer: Of no group; it is assigned again.
        at: Which partition.
        position: Of the journal.
        begin: The first offset of the partition.
        end: Where it ends.
    """
    low, high = begin, end
    before = behind = None
    while low < high:
        linear = high - low <= LINEAR_OFFSETS_MAX
        middle = low if linear else (low + high) // 2
        passed = False
        async for record in read_from(consumer, at, middle, high):
            found = read_position(record)
            if found is None:
                continue
            if found > position:
                behind, passed = record, True
                break
            before, low = record, record.offset + 1
            if not linear:
                break
        else:
            passed = True  # no event between the middle and the high end
        if linear:
            break
        if passed:
            high = middle
    return Turn(low, before, behind)


def read_position(record: Record) -> int | None:
    """The position of a record that the relay published in its order; None of others."""
    headers = dict(record.headers)
    position = headers.get("ce_position")
    return int(position) if position is not None and RUN_HEADER not in headers else None
