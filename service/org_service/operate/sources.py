"""Which commands a publisher sent, by the `ce_source` of their records.

The journal doesn't keep it, so `orgs.commands` is read, which holds as much as its retention leaves: what a publisher
sent before that can't be found this way.
"""

import time
from collections.abc import Collection
from datetime import datetime
from typing import Final
from uuid import UUID

from org_events.cloudevents import NotACloudEvent, read
from org_service.errors import PreconditionError
from org_service.kafka.reader import Record, ends, read_until, reader, seek_to_time
from org_service.settings import KafkaSettings
from org_service.wire.ids import read_uuid

COMMANDS_MAX: Final = 100_000
"""Kept with a plan, 40 B each."""
SLACK_S: Final = 3_600.0
"""A command was on the topic for this long, at most, before its change was recorded; longer where workers were away."""


async def find_commands(kafka: KafkaSettings, sources: Collection[str], from_time: datetime | None) -> list[UUID]:
    """Find the commands of publishers.

    Args:
        kafka: Where.
        sources: Each as it was sent, as `/billing`.
        from_time: Of changes; commands that are an hour older are looked at, too. None begins at the beginning.

    Raises:
        PreconditionError: There are none, or too many.
        KafkaError: Kafka can't be reached.
        PartitionUnreadableError: Not all can be read.
    """
    found: dict[UUID, None] = {}
    oldest_ms: int | None = None
    async with reader(kafka, kafka.topics.commands) as (consumer, partitions):
        until = await ends(consumer, partitions)
        if from_time is not None:
            await seek_to_time(consumer, partitions, int((from_time.timestamp() - SLACK_S) * 1000))
        async for records in read_until(consumer, until):
            for record in records:
                oldest_ms = record.timestamp if oldest_ms is None else min(oldest_ms, record.timestamp)
                command_id = _sent_by(record, sources)
                if command_id is not None:
                    found[command_id] = None
            if len(found) > COMMANDS_MAX:
                raise PreconditionError(
                    f"{', '.join(sources)} sent more than {COMMANDS_MAX:,} commands: bound them with --from-time, or "
                    "choose by actor."
                )
    if not found:
        since = "" if oldest_ms is None else time.strftime(" since %Y-%m-%d %H:%M:%SZ", time.gmtime(oldest_ms / 1000))
        raise PreconditionError(
            f"{kafka.topics.commands} has no commands of {', '.join(sources)}{since}. Older ones can't be found by "
            "their source: choose by actor, time or mark."
        )
    return list(found)


def _sent_by(record: Record, sources: Collection[str]) -> UUID | None:
    """The id of a command that one of these sent; None of all others, and of what isn't a command."""
    try:
        event = read(record.headers, record.value)
    except NotACloudEvent:
        return None
    return read_uuid(event.id.encode(errors="replace")) if event.source in sources else None
