"""Memberships, partnerships and staff: are the tables what their topics say, as far as they are applied?

How far each partition is applied is in the tables, so the topics are folded to exactly there. Records that are parked
count for nothing, as for the worker. A key that has a later record, which is not applied yet, is left out on both
sides: compaction may have taken the record before.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import md5
from typing import Any, Final, NamedTuple
from uuid import UUID

from org_events.kafka.batches import UnreadBatch
from org_events.kafka.topic_ids import fetch_topic_ids
from org_events.kafka.whole import BatchRecord
from org_events.reference import Membership, Partnership, Reference, read_key
from org_events.topics import partition_for
from org_service.domain.digests import BUCKETS, NOTHING, Digest, Digests, find_dirty
from org_service.kafka.client import TopicPartition
from org_service.kafka.reader import groupless_consumer
from org_service.kafka.whole_batches import Bounds, find_bounds, group, read_batches
from org_service.operate.verifying.found import Found
from org_service.operate.verifying.report import Comparison, Difference, Kind, Report, Verdict
from org_service.settings import KafkaSettings, Settings
from org_service.store import reference_progress, verification
from org_service.store.database import Database, DatabaseConnection
from org_service.store.facts import FACT_TABLES
from org_service.store.reference_progress import ReferencePartition
from org_service.wire.facts import Fact, map_kinds, read_fact, set_strays_aside

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NAMES: Final = ("memberships", "partnerships", "staff")


def bucket_of_fact(key: str) -> int:
    """As Postgres has it."""
    return int(md5(key.encode()).hexdigest()[:3], 16) & (BUCKETS - 1)  # noqa: S324 - see `store.verification`


def content_of(kind: type[Reference], row: tuple[Any, ...]) -> str:
    """What a fact says, as `store.verification` writes it."""
    if kind is Membership:
        _, _, role, joined_at, active = row
        microseconds = (joined_at - _EPOCH) // timedelta(microseconds=1)
        return f"{role} {microseconds} {'t' if active else 'f'}"
    return str(row[2]) if kind is Partnership else ""


class ComparingFacts:
    """Compares the reference tables with their topics."""

    def __init__(self, report: Report, found: Found, settings: Settings, database: Database) -> None:
        self._report = report
        self._found = found
        self._kafka = settings.kafka
        self._database = database

    async def run(self) -> None:
        """Compare all three."""
        names = self._kafka.topics
        topics = dict(zip(_NAMES, (names.memberships, names.partnerships, names.staff), strict=True))
        bounds = await find_bounds(self._kafka, [*topics.values()])
        async with groupless_consumer(self._kafka) as consumer:
            ids = await fetch_topic_ids(consumer, [*topics.values()])
        for name, topic in topics.items():
            comparison = self._report.comparison(f"{name} = {topic}")
            ranges = {at: each for at, each in bounds.items() if at.topic == topic}
            await self._compare(comparison, name, topic, ranges, ids[topic])

    async def _compare(
        self, comparison: Comparison, name: str, topic: str, ranges: Mapping[TopicPartition, Bounds], topic_id: UUID
    ) -> None:
        applied: dict[TopicPartition, int] = {}
        for at, bounds in ranges.items():
            reached = self._found.facts_as_of.get(ReferencePartition(topic, at.partition))
            if reached is None and bounds.end == bounds.start:
                continue
            if reached is None or reached.topic_id != topic_id or reached.next_offset > bounds.end:
                comparison.lower_to(Verdict.INCONCLUSIVE, "no worker has applied all partitions of this topic yet")
                return
            applied[at] = reached.next_offset
        fold = await self._fold(topic, ranges, applied)
        comparison.checked = fold.facts
        dirty = find_dirty(fold.digests, self._found.facts.get(name, {})) | {*map(bucket_of_fact, fold.unapplied)}
        if not dirty:
            return
        must_be = (await self._fold(topic, ranges, applied, dirty)).kept
        async with self._database.connect() as conn:
            rows = await verification.read_fact_rows(conn, name, dirty)
        self._report.add(
            comparison,
            [
                Difference(Kind.FACT_DIFFERS, key, topic, name, "", must_be.get(key), rows.get(key))
                for key in sorted(must_be.keys() | rows.keys())
                if must_be.get(key) != rows.get(key) and key not in fold.unapplied
            ],
        )

    async def _fold(
        self,
        topic: str,
        ranges: Mapping[TopicPartition, Bounds],
        applied: Mapping[TopicPartition, int],
        buckets: Collection[int] = (),
    ) -> "_Fold":
        """Fold a topic as far as it is applied; the facts of `buckets` are kept."""
        fold, kind = _Fold(), map_kinds(self._kafka.topics)[topic]
        for together in group({at: ranges[at] for at in applied}):
            kept: dict[str, str] = {}
            async for at, records in read_batches(self._kafka, together):
                whole = [each for each in records if not isinstance(each.value, UnreadBatch)]
                read = [read_fact(kind, _as_record(at, each)) for each in whole]
                for fact in set_strays_aside(read, len(ranges)):
                    if not isinstance(fact, Fact):
                        continue
                    key = (fact.record.key or b"").decode()
                    if fact.record.offset >= applied[at]:
                        fold.unapplied.add(key)
                    elif fact.row is None:
                        kept.pop(key, None)
                    else:
                        kept[key] = content_of(kind, fact.row)
            for key, content in kept.items():
                bucket = bucket_of_fact(key)
                digest = int.from_bytes(md5(f"{key} {content}".encode()).digest(), "big")  # noqa: S324 - as above
                fold.digests[bucket] = fold.digests.get(bucket, NOTHING) + Digest(1, digest)
                if bucket in buckets:
                    fold.kept[key] = content
            fold.facts += len(kept)
        return fold


@dataclass(slots=True)
class _Fold:
    """What a reference topic says."""

    digests: Digests = field(default_factory=dict[int, Digest])
    facts: int = 0
    unapplied: set[str] = field(default_factory=set[str])
    """Keys of records that are not applied yet."""
    kept: dict[str, str] = field(default_factory=dict[str, str])


async def put_back(conn: DatabaseConnection, kafka: KafkaSettings, topic: str, key: str) -> bool:
    """Write a fact as its topic has it, as far as it is applied; the worker's progress is locked until the commit.

    Returns:
        False where the topic was created again meanwhile, or nobody has applied it: then nothing is known.
    """
    bounds = await find_bounds(kafka, [topic])
    at = TopicPartition(topic, partition_for(key.encode(), len(bounds)))
    place = ReferencePartition(topic, at.partition)
    applied = (await reference_progress.lock(conn, [place])).get(place)
    if applied is None or applied.next_offset > bounds[at].end:
        return False
    kind, row, names = map_kinds(kafka.topics)[topic], None, None
    async for _, records in read_batches(kafka, {at: bounds[at]}):
        same = [each for each in records if each.key == key.encode() and each.offset < applied.next_offset]
        for fact in (read_fact(kind, _as_record(at, each)) for each in same):
            if isinstance(fact, Fact):
                row, names = fact.row, fact.key
    table = FACT_TABLES[kind]
    if row is not None:
        await table.upsert(conn, [row])
        return True
    if names is None:
        names = tuple(
            text if field == "user_id" else UUID(text) for field, text in read_key(kind, key.encode()).items()
        )
    await table.delete(conn, [names])
    return True


class _FactRecord(NamedTuple):
    topic: str
    partition: int
    offset: int
    timestamp: int
    timestamp_type: int
    key: bytes | None
    value: bytes | None
    headers: tuple[()] = ()


def _as_record(at: TopicPartition, record: BatchRecord) -> _FactRecord:
    return _FactRecord(at.topic, at.partition, record.offset, record.timestamp, 0, record.key, record.value)
