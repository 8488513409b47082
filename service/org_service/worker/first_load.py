"""Commands are judged by reference data, and a rejection is final: a worker takes none before everything that the
reference topics held when it started is applied, by whichever worker.

Offsets alone don't tell: behind the last record of a partition there may be marks of transactions, and what compaction
took away. So where the progress is short of the end, the partition is looked into. And a partition that was not read
for too long is waited for until it is reconciled: the tables may hold rights that were taken back.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Final, cast

from org_events.kafka.consumer import SteadyConsumer
from org_events.kafka.topic_ids import Topic, describe
from org_service import probes
from org_service.apply.reconcile import absence_max_s, is_too_long
from org_service.apply.reference_continuity import find_cut
from org_service.kafka.client import TopicPartition
from org_service.kafka.reader import groupless_consumer, holds_records
from org_service.probes import probe
from org_service.settings import Settings
from org_service.store import reference_progress
from org_service.store.database import Database
from org_service.store.failures import classify_errors
from org_service.store.reference_progress import ReferencePartition
from org_service.telemetry.logs import get_logger
from org_service.waiting import pause
from org_service.wire.facts import map_kinds

log = get_logger(__name__)

_POLL_S: Final = 0.2
_FETCH_BYTES: Final = 65_536
"""Of one partition: a first record is all that is wanted."""


async def wait_until_loaded(settings: Settings, stop: asyncio.Event, beat: Callable[[], None]) -> None:
    """Wait until what the reference topics hold now is in the tables, or until `stop` is set.

    Args:
        settings: Where.
        stop: Ends the waiting.
        beat: Called at each look, as a heartbeat.

    Raises:
        KafkaError: Kafka can't be reached.
        RetryError: Postgres can't be reached.
    """
    database = Database(settings.database, "worker", direct=True)
    try:
        async with groupless_consumer(settings.kafka, max_partition_fetch_bytes=_FETCH_BYTES) as consumer:
            await _wait(settings, consumer, database, stop, beat)
    finally:
        await database.close()


async def _wait(
    settings: Settings,
    consumer: SteadyConsumer,
    database: Database,
    stop: asyncio.Event,
    beat: Callable[[], None],
) -> None:
    topics = sorted(map_kinds(settings.kafka.topics))
    partitions = [TopicPartition(topic, number) for topic in topics for number in range(settings.kafka.partitions)]
    there: Mapping[str, Topic] = {}
    ends: dict[TopicPartition, int] = {}
    absence_s: Mapping[str, float] = {}
    told = False

    async def goes_on() -> bool:
        """Whether the ends are those of the topics that are there now; a heartbeat, and raises in an outage."""
        beat()
        return not stop.is_set() and await describe(consumer, topics) == there

    while not stop.is_set():
        if not await goes_on():  # the first look, or a topic was created again, or has another leader
            there = await describe(consumer, topics)
            ends = cast("dict[TopicPartition, int]", await consumer.end_offsets(partitions))
            absence_s = await absence_max_s(settings, topics)
        if probes.listeners:
            await probe("worker.before_look_at_progress")
        applied, away = await _applied(consumer, database, there, absence_s)
        short = {
            each: applied.get(ReferencePartition(*each), 0)
            for each, end in ends.items()
            if applied.get(ReferencePartition(*each), 0) < end
        }
        if probes.listeners:
            await probe("worker.before_look_for_records")
        if not away and not await holds_records(consumer, short, ends, goes_on):
            return
        if not told:
            log.info(
                "commands wait until the reference data are loaded",
                offsets=sum(ends[each] for each in short),
                away=away,
            )
            told = True
        await pause(_POLL_S, stop)


async def _applied(
    consumer: SteadyConsumer, database: Database, topics: Mapping[str, Topic], absence_s: Mapping[str, float]
) -> tuple[dict[ReferencePartition, int], int]:
    """How far these topics are applied, and how many partitions are to be reconciled first.

    What was applied of former topics, or of what a log has lost, doesn't count.
    """
    with classify_errors():
        async with database.connect() as conn:
            progress = await reference_progress.read(conn)
            ages = await reference_progress.read_ages(conn)
    cut = await find_cut(consumer, topics, progress)
    ours = {
        at: each
        for at, each in progress.items()
        if at.topic in topics and each.topic_id == topics[at.topic].topic_id and at not in cut
    }
    away = sum(is_too_long(ages[at], absence_s[at.topic]) for at in ours)
    return {at: each.next_offset for at, each in ours.items()}, away
