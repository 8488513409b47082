"""What a run goes by: how far each topic is to be read, and what was acknowledged and known then."""

from datetime import datetime
from typing import Any, Final

from org_service.kafka.client import TopicPartition
from org_service.kafka.offsets import read_committed
from org_service.kafka.ranges import find_extent, find_first_times
from org_service.kafka.topics import count_partitions
from org_service.settings import Settings
from org_service.wire.position import Published

MARGIN_MS: Final = 3_600_000
"""Before the backup's last row: what was published of later positions is not older than that, whatever clocks say."""
EVER: Final = 2**62
"""Milliseconds: of a partition that holds nothing any more."""

Progress = dict[str, Any]


async def begin(settings: Settings, moment: datetime | None, last: Published) -> Progress:
    """See where the topics begin and end.

    Args:
        settings: Of the servers.
        moment: When the last row of the backup was recorded; None without a backup.
        last: What Kafka has.
    """
    kafka, topics = settings.kafka, settings.kafka.topics
    since_ms = None if moment is None else int(moment.timestamp() * 1000) - MARGIN_MS
    ranges: dict[str, dict[str, tuple[int, int]]] = {}
    for topic, from_ms in (
        (topics.commands, None),
        (topics.events, since_ms),
        (topics.results, since_ms),
        (topics.state, None),
    ):
        extent = await find_extent(kafka, topic, from_offsets={}, end_offsets={}, from_ms=from_ms, to_ms=None, keys=())
        ranges[topic] = {str(partition): (each.first, each.end) for partition, each in extent.ranges.items()}
    return {
        "phase": "commands",
        "ranges": ranges,
        "committed": await _find_committed(settings),
        "complete_from": await _find_complete(settings, last),
        "decided_ms": int(last.recorded_at.timestamp() * 1000),
        "back_to": {},
    }


async def _find_committed(settings: Settings) -> dict[str, int]:
    """Where workers go on, by partition."""
    kafka, topic = settings.kafka, settings.kafka.topics.commands
    at = [TopicPartition(topic, number) for number in range(await count_partitions(kafka, topic) or 0)]
    committed = await read_committed(kafka, settings.worker_group, at, or_none=True)
    return {str(each.partition): committed[each].offset for each in at}


async def _find_complete(settings: Settings, last: Published) -> dict[str, int]:
    """Since when `orgs.results` has every outcome, by partition; where topics grew, of its parent too."""
    times = await find_first_times(settings.kafka, settings.kafka.topics.results)
    known = {partition: EVER if time is None else time for partition, time in times.items()}
    parents = None if last.partitioning is None else last.partitioning.grown_from
    return {
        str(partition): max(time, known[partition % parents] if parents else time) for partition, time in known.items()
    }
