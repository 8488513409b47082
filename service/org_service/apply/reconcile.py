"""What a reader of a reference topic does that was away for too long: it deletes what the topic no longer holds.

A compacted topic keeps a tombstone for `delete.retention.ms`. Whoever didn't read in all that time never sees it, and
what it took back stays: a database restored from an old backup would let people in who were long shown out. So
`reference_progress.confirmed_at` says when a partition was last known to be applied to its end. It is refreshed every
minute, records or not, by Postgres' clock, and a restored database has it as old as the backup is.

Where it is too old, the partition is read from its beginning to its last stable offset, and of each record only whether
it takes its key back. Rows of this partition whose keys were not seen, or taken back last, are deleted. Nothing is
applied by that: what the tables lack comes as ever, from where the progress stands, so no older data come back even
for a moment. A key that can't be read, or stands on a partition that isn't its own, counts as little as it does there.
Where a whole batch can't be read, nothing is deleted: nobody knows which keys it holds.

Cost: a digest of 16 bytes for each key, some 100 bytes of memory in all, for so many partitions at a time as hold
`KEYS_MAX` offsets, and one pass over the table's keys for each such group. Rejected: a mark in each row of when it was
last seen (reading again would write every row); applying everything again from the beginning (older data would hold
meanwhile); the same for a topic that was created again, which may be empty because nobody has filled it yet.
"""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from hashlib import blake2b
from typing import Any, Final, NamedTuple, cast
from uuid import UUID

from org_events.kafka.batches import UnreadBatch
from org_events.kafka.consumer import SteadyConsumer
from org_events.kafka.topic_ids import fetch_topic_ids
from org_events.reference import Reference
from org_events.topics import partitions_for
from org_service import probes
from org_service.apply.reference_continuity import Positions, is_there, may_continue
from org_service.kafka.client import AIOKafkaConsumer, ConsumerRecord, CorruptRecordException, TopicPartition
from org_service.kafka.reader import groupless_consumer
from org_service.kafka.topics import fetch_tombstones_kept_ms
from org_service.probes import probe
from org_service.settings import Settings
from org_service.store import reference_progress
from org_service.store.database import Database
from org_service.store.facts import FACT_TABLES
from org_service.store.reference_progress import ReferencePartition
from org_service.telemetry.logs import get_logger
from org_service.telemetry.metrics import REFERENCE_RECORDS
from org_service.wire.facts import FACT_KEY_BYTES_MAX, map_kinds

log = get_logger(__name__)

CONFIRM_S: Final = 60.0
"""Between two confirmations: short against any retention of tombstones, and one small statement each time."""
_SHARE: Final = 0.9
"""Of the time tombstones are kept, to be away without harm: the rest is for clocks that differ, and for reading."""
_CONFIRMS_MIN: Final = 5
"""Confirmations that a reader may miss at least: a topic that keeps tombstones for less can't be followed safely."""
KEYS_MAX: Final = 2_000_000
"""Offsets that are read in one go; some 200 MB if each is another key."""
_BATCH_RECORDS: Final = 4_000
_POLL_MS: Final = 200
_DELETE_ROWS: Final = 10_000
"""In one statement."""
_Batches = dict[TopicPartition, list[ConsumerRecord[bytes, bytes]]]


class Group(NamedTuple):
    """Partitions of a topic that are reconciled in one go."""

    topic: str
    topic_id: UUID
    ends: Mapping[ReferencePartition, int]
    """Where each partition ends, which is as many offsets as it holds at most."""

    @property
    def partitions(self) -> list[int]:
        """The numbers of the partitions."""
        return [at.partition for at in self.ends]


class Marks:
    """Where partitions ended some time ago: who has got there since held all of them then."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._marks: dict[TopicPartition, tuple[int, float]] = {}
        self._marked = clock()

    def clear(self) -> None:
        """Forget them; the consumer is put elsewhere."""
        self._marks.clear()

    async def take_passed(self, consumer: AIOKafkaConsumer) -> dict[ReferencePartition, float]:
        """Take out the marks that the consumer has passed; returns when each was made, by the monotonic clock.

        Makes new ones every minute, for partitions that have none. To be called between polls; costs nothing as a rule.

        Raises:
            KafkaError: Kafka can't be asked.
        """
        now = self._clock()
        assigned = consumer.assignment()
        if now - self._marked >= CONFIRM_S:
            self._marked = now
            unmarked = [each for each in assigned if each not in self._marks]
            ends = cast("dict[TopicPartition, int]", await consumer.end_offsets(unmarked))
            self._marks |= {each: (end, now) for each, end in ends.items()}
        passed = [
            each for each, (end, _) in self._marks.items() if each in assigned and await consumer.position(each) >= end
        ]
        return {ReferencePartition(*each): self._marks.pop(each)[1] for each in passed}


async def confirm(
    consumer: AIOKafkaConsumer,
    database: Database,
    *,
    found: Positions,
    absence_s: Mapping[str, float],
    starts: Mapping[ReferencePartition, int],
    passed: Mapping[ReferencePartition, float],
) -> bool:
    """Note that the tables hold all that partitions held at some moment, by the monotonic clock.

    Args:
        consumer: To ask for the topics.
        database: The worker's.
        found: Where the partitions stood when they were found.
        absence_s: How long they may go unread.
        starts: Where their reader continues.
        passed: The moments.

    Returns:
        Whether it was noted; if not, a topic was created again, or has another leader, or the database was restored:
        the position is lost.

    Raises:
        KafkaError: Kafka can't be asked.
        DBAPIError: As the driver has it.
    """
    if not await is_there(consumer, {at: found[at] for at in passed}):
        return False
    async with database.begin() as conn:
        progress = await reference_progress.lock(conn, passed)
        ages = await reference_progress.read_ages(conn)
        if any(is_too_long(ages.get(at), absence_s[at.topic]) for at in passed):
            return False
        if not may_continue(progress, found, starts):
            return False
        now = time.monotonic()
        await reference_progress.confirm(conn, {at: now - marked for at, marked in passed.items()})
    return True


async def absence_max_s(settings: Settings, topics: Collection[str]) -> dict[str, float]:
    """How many seconds a reader of each topic may be away and still see every tombstone.

    Raises:
        KafkaError: No broker answers, or a topic does not exist.
    """
    kept_ms = await fetch_tombstones_kept_ms(settings.kafka, topics)
    return {topic: max(kept / 1000 * _SHARE, _CONFIRMS_MIN * CONFIRM_S) for topic, kept in kept_ms.items()}


def is_too_long(age_s: float | None, absence_s: float) -> bool:
    """Whether a partition that was confirmed so long ago must be reconciled; None is: nobody knows when.

    Also where it is to be confirmed in the future only: then a clock can't be believed.
    """
    return age_s is None or abs(age_s) > absence_s


def make_groups(ids: Mapping[str, UUID], ends: Mapping[ReferencePartition, int]) -> list[Group]:
    """Part what must be reconciled into groups of a bounded number of keys.

    Args:
        ids: The topics' ids.
        ends: Where the partitions end.
    """
    groups: list[Group] = []
    for topic in sorted({at.topic for at in ends}):
        group: dict[ReferencePartition, int] = {}
        for at in sorted(at for at in ends if at.topic == topic):
            if group and sum(group.values()) + ends[at] > KEYS_MAX:
                groups.append(Group(topic, ids[topic], group))
                group = {}
            group[at] = ends[at]
        groups.append(Group(topic, ids[topic], group))
    return groups


async def reconcile(settings: Settings, database: Database, groups: Sequence[Group], beat: Callable[[], None]) -> None:
    """Delete the rows of these partitions that their topics don't hold, and confirm the partitions.

    One transaction a group; safe to repeat, and beside other workers. A group is left as it is where its topic is
    another one now, or somebody else has got ahead: find the position again, which shows it.

    Args:
        settings: Where.
        database: The worker's.
        groups: The partitions; their progress is not ahead of the topics.
        beat: Called at each step, as a heartbeat.

    Raises:
        KafkaError: Kafka can't be reached, or doesn't give a record out.
        DBAPIError: As the driver has it; `failures.classify` says what to do.
    """
    for group in groups:
        said = {"topic": group.topic, "partitions": group.partitions}
        log.warning(
            "reference data were not read for too long: looking for facts that the topic no longer contains", **said
        )
        deleted = await _reconcile(settings, database, map_kinds(settings.kafka.topics)[group.topic], group, beat)
        if deleted is None:
            return
        REFERENCE_RECORDS.labels(group.topic, "lacking").inc(deleted)
        log.warning("facts that the topic no longer contains are deleted", facts=deleted, **said)


async def _reconcile(
    settings: Settings, database: Database, kind: type[Reference], group: Group, beat: Callable[[], None]
) -> int | None:
    """How many rows of a group were deleted; None where none was, because the position is lost."""
    began = time.monotonic()
    fetch_bytes_max = settings.worker.partition_fetch_bytes_max
    async with groupless_consumer(settings.kafka, max_partition_fetch_bytes=fetch_bytes_max) as consumer:
        held, ends = await _read_keys(consumer, group, settings.kafka.partitions, beat)
        if probes.listeners:
            await probe("reference.keys_read")
        if (await fetch_topic_ids(consumer, [group.topic]))[group.topic] != group.topic_id:
            return None
    table, lacking = FACT_TABLES[kind], list[tuple[Any, ...]]()
    async with database.connect() as conn:
        async for page in table.read_keys(conn):
            beat()
            lacking += _find_lacking(page, held, set(group.partitions), settings.kafka.partitions)
    async with database.begin() as conn:
        progress = await reference_progress.lock(conn, group.ends)
        if any(
            at not in progress
            or progress[at].topic_id != group.topic_id
            or progress[at].next_offset > ends[at.partition]
            for at in group.ends
        ):
            return None
        for first in range(0, len(lacking), _DELETE_ROWS):
            beat()
            await table.delete(conn, lacking[first : first + _DELETE_ROWS])
        await reference_progress.confirm(conn, dict.fromkeys(group.ends, time.monotonic() - began))
    return len(lacking)


async def _read_keys(
    consumer: SteadyConsumer, group: Group, partitions: int, beat: Callable[[], None]
) -> tuple[set[bytes], dict[int, int]]:
    """The digests of the keys that partitions hold, and where the partitions ended."""
    assigned = [TopicPartition(*at) for at in group.ends]
    consumer.assign(assigned)
    ends = cast("dict[TopicPartition, int]", await consumer.end_offsets(assigned))
    held: set[bytes] = set()
    while not all([await consumer.position(each) >= ends[each] for each in assigned]):
        beat()
        batches = cast("_Batches", await consumer.getmany(timeout_ms=_POLL_MS, max_records=_BATCH_RECORDS))
        for each, sick in consumer.sick.items():  # what it holds behind this isn't lacking
            raise CorruptRecordException(f"{each.topic}, partition {each.partition} is {sick}")
        if not batches:
            await fetch_topic_ids(consumer, [group.topic])  # raises in an outage; a consumer alone says nothing
        for each, records in batches.items():
            for record in records:
                if isinstance(record.value, UnreadBatch):  # nor is what may be in this
                    raise CorruptRecordException(f"{each.topic}, partition {each.partition}: {record.value.why}")
            keyed = [
                (record.key, record.value is None)
                for record in records
                if record.key is not None and len(record.key) <= FACT_KEY_BYTES_MAX and record.offset < ends[each]
            ]
            homes = partitions_for([key for key, _ in keyed], partitions)
            for (key, taken_back), home in zip(keyed, homes, strict=True):
                if home != each.partition:
                    continue
                if taken_back:
                    held.discard(_digest(key))
                else:
                    held.add(_digest(key))
    return held, {each.partition: end for each, end in ends.items()}


def _find_lacking(
    rows: Sequence[tuple[Any, ...]], held: Collection[bytes], ours: Collection[int], partitions: int
) -> list[tuple[Any, ...]]:
    """Those rows that belong on our partitions, and whose keys these don't hold."""
    unseen = [
        (row, key) for row, key in ((row, ":".join(map(str, row)).encode()) for row in rows) if _digest(key) not in held
    ]
    homes = partitions_for([key for _, key in unseen], partitions)
    return [row for (row, _), home in zip(unseen, homes, strict=True) if home in ours]


def _digest(key: bytes) -> bytes:
    """128 bits: two keys with the same would keep a right that was taken back."""
    return blake2b(key, digest_size=16).digest()
