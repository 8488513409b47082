"""Reference data into the tables: memberships, partnerships and staff, in batches of thousands.

How far a partition is applied stands in Postgres, in the transaction of the facts, and nowhere else: the offsets that
the group commits only show the lag. Before the first poll after each assignment the consumer is put where Postgres
says (`find_position`). From there each batch says where it continues; a transaction that finds the progress further
back than that has a hole before it, and writes nothing, and what is before the progress was applied by somebody else.
So a worker that lost its partitions can't put older data back, a database restored from a backup catches up by
itself, and a topic that was deleted and created again, or lost what was applied, is noticed and read from its
beginning (`reference_continuity.py`). One that was not read for too long is reconciled first (`reconcile.py`).

The last record of a key in a batch counts, so a batch is one upsert and one delete a table, whatever it holds.
"""

import asyncio
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import NamedTuple, cast

from org_events.kafka.topic_ids import Topic, describe
from org_events.reference import Reference
from org_service import probes
from org_service.apply.reading import read_each
from org_service.apply.reconcile import Marks, absence_max_s, confirm, is_too_long, make_groups, reconcile
from org_service.apply.reference_continuity import Positions, find_cut, is_there, may_continue
from org_service.apply.settle import Settling, count_trouble, wait_reason
from org_service.domain.reasons import ParkReason
from org_service.domain.requests import Record, SetAside, Unreadable
from org_service.errors import RetryError, ServiceError
from org_service.kafka.client import AIOKafkaConsumer, IllegalStateError, KafkaError, TopicPartition
from org_service.kafka.topics import explain_partitions
from org_service.probes import probe
from org_service.settings import Settings
from org_service.store import parked, reference_progress
from org_service.store.database import Database, DatabaseConnection
from org_service.store.facts import FACT_TABLES
from org_service.store.failures import classify
from org_service.store.reference_progress import Progress, ReferencePartition
from org_service.telemetry.logs import get_logger
from org_service.telemetry.metrics import PARKED, REFERENCE_LOSSES, REFERENCE_RECORDS
from org_service.waiting import Heartbeat, Patience, Trouble
from org_service.wire.facts import Fact, map_kinds, read_fact, set_strays_aside
from org_service.wire.parked import keep_record

log = get_logger(__name__)

_Read = Fact | Unreadable


class _Applied(NamedTuple):
    """What became of the records of a transaction."""

    facts: Sequence[_Read]
    """All of them."""
    new: Sequence[_Read]
    """Those that nobody had applied before."""
    parked: Sequence[Unreadable]
    """Of these, those that say nothing."""


class ReferenceApplier:
    """Applies batches of reference records, one after the other; others may do so in other processes."""

    def __init__(self, database: Database, settings: Settings, heartbeat: Heartbeat | None = None) -> None:
        """Make one.

        Args:
            database: Where the tables are; with the rights of a worker. Whoever gives it closes it.
            settings: Which topics, and how long outages are waited out.
            heartbeat: Beats at each try, and while an outage is waited out.
        """
        self._settings = settings
        self._kinds = map_kinds(settings.kafka.topics)
        for topic in self._kinds:
            REFERENCE_LOSSES.labels(topic)  # from 0 on, so that the first loss raises its alert
        self._database = database
        self._turn = asyncio.Lock()
        self._lost = True
        self._consumer: AIOKafkaConsumer | None = None
        self._found: Positions = {}
        """Where each partition stood in Postgres when the consumer was put there."""
        self._reached: dict[ReferencePartition, int] = {}
        """Where the next batch of each partition continues."""
        self._marks = Marks()
        self._absence_s: Mapping[str, float] = {}
        """How long each topic may go unread."""
        self._heartbeat = heartbeat or Heartbeat()
        waits_s = settings.worker.retry_waits_s
        self._finding = Patience(
            "reference data wait", waits_s, log=log, judge=_judge, count=count_trouble, heartbeat=self._heartbeat
        )
        self._finds = aiter(self._finding)
        self._settling = Settling(
            "the batch of reference data", classify=_classify, waits_s=waits_s, heartbeat=self._heartbeat, log=log
        )

    @property
    def outage(self) -> str | None:
        """What is being waited for, None when all is well."""
        return self._settling.outage or self._finding.outage

    @property
    def lost(self) -> bool:
        """Whether the position in its partitions must be found first."""
        return self._lost

    def mark_place_lost(self) -> None:
        """Release what is in flight, and find the position again before the next poll."""
        self._lost = True

    async def find_position(self, consumer: AIOKafkaConsumer) -> bool:
        """Put the consumer where Postgres says, if that must be; one try, then a wait.

        Call between polls, with no batch in flight.

        Returns:
            Whether the consumer stands right; if not, don't poll, but call again.
        """
        if not self._lost:
            return True
        self._heartbeat.beat()
        try:
            found = await self._find_position(consumer)
        except Exception as error:  # noqa: BLE001 - told and waited out; nothing is swallowed
            self._lost = True
            await self._finds.wait(error)
            return False
        self._finds.succeed()
        return found

    async def _find_position(self, consumer: AIOKafkaConsumer) -> bool:
        self._lost = False  # a rebalance from here on sets it again
        self._marks.clear()
        assigned = list(consumer.assignment())
        topics = await describe(consumer, sorted({each.topic for each in assigned}))
        counts = {topic: len(consumer.partitions_for_topic(topic) or ()) for topic in topics}
        if (wrong := explain_partitions(counts, dict.fromkeys(counts, self._settings.kafka.partitions))) is not None:
            raise RetryError(wrong)  # nobody could say then where a key belongs
        self._absence_s = await absence_max_s(self._settings, list(topics)) if topics else {}
        ends = cast("dict[TopicPartition, int]", await consumer.end_offsets(assigned))
        async with self._database.connect() as conn:
            seen = await reference_progress.read(conn)
        ours = {ReferencePartition(*each): end for each, end in ends.items()}
        cut = await find_cut(consumer, topics, {at: each for at, each in seen.items() if at in ours})
        progress, away = await self._begin(topics, ours, seen, cut)
        if away:  # and then look again
            ids = {name: topic.topic_id for name, topic in topics.items()}
            await reconcile(self._settings, self._database, make_groups(ids, away), self._heartbeat.beat)
            self._lost = True
            return False
        try:
            for at, reached in progress.items():
                consumer.seek(TopicPartition(*at), reached.next_offset)
        except IllegalStateError:  # the partition moved on
            self._lost = True
        self._consumer, self._found = consumer, progress
        self._reached = {at: reached.next_offset for at, reached in progress.items()}
        return not self._lost

    async def _begin(
        self,
        topics: Mapping[str, Topic],
        ends: Mapping[ReferencePartition, int],
        seen: Positions,
        cut: Collection[ReferencePartition],
    ) -> tuple[dict[ReferencePartition, Progress], dict[ReferencePartition, int]]:
        """How far each partition is applied; from the beginning where it isn't what it was.

        Args:
            topics: As they are now.
            ends: Where the partitions end now. Returned again for those that weren't read for too long.
            seen: How far they were applied a moment ago.
            cut: Those that had lost of it.

        Raises:
            RetryError: Another worker is still applying what it read before a rebalance.
        """
        async with self._database.begin() as conn:
            await reference_progress.begin(conn, {at: topics[at.topic].topic_id for at in ends})
            before = await reference_progress.lock(conn, ends)
            if any(each != seen.get(at, each) for at, each in before.items()):
                raise RetryError("another worker is finishing its batch of reference data")
            anew = {
                at
                for at, each in before.items()
                if at in cut or each.topic_id != topics[at.topic].topic_id or each.next_offset > ends[at]
            }
            progress = {at: _find_start(each, topics[at.topic], at, at in anew) for at, each in before.items()}
            await reference_progress.write(conn, {at: each for at, each in progress.items() if each != before[at]})
            # Nobody knows what it will hold once it is filled: nothing is deleted for what it lacks.
            await reference_progress.confirm(conn, dict.fromkeys(anew, 0.0))
            ages = await reference_progress.read_ages(conn)
        for topic, partitions in Counter(at.topic for at in anew).items():
            REFERENCE_LOSSES.labels(topic).inc(partitions)
            log.warning(
                "a reference topic was recreated, or lost records: it is applied from its beginning, and facts "
                "that it does not contain stay as they were",
                topic=topic,
                partitions=sorted(at.partition for at in anew if at.topic == topic),
            )
        away = {at: ends[at] for at in progress.keys() - anew if is_too_long(ages[at], self._absence_s[at.topic])}
        return progress, away

    async def take_passed(self, consumer: AIOKafkaConsumer) -> Mapping[ReferencePartition, float]:
        """Which partitions may be confirmed, and as of when, by the monotonic clock. Call between polls."""
        try:
            return await self._marks.take_passed(consumer)
        except KafkaError:  # it says so itself where records are wanted
            self._marks.clear()
            return {}

    async def confirm(self, consumer: AIOKafkaConsumer, passed: Mapping[ReferencePartition, float]) -> None:
        """Note that the tables hold all that these partitions held; one try. Call with no batch in flight.

        Notices, records or not, that the database was restored or a topic created again: then the position is lost.
        """
        starts = {at: self._reached[at] for at in passed}
        try:
            found, absence_s = self._found, self._absence_s
            if not await confirm(
                consumer, self._database, found=found, absence_s=absence_s, starts=starts, passed=passed
            ):
                self.mark_place_lost()
        except Exception as error:  # noqa: BLE001 - an outage shows where records wait; another try comes in a minute
            log.warning("could not record that reference data are complete", why=str(_classify(error) or type(error)))

    async def apply(self, records: Sequence[Record]) -> Sequence[Record]:
        """Apply records in order; returns when all are committed, or released because the position was lost.

        The next batch may be given before this one is through: it is read and waits for its turn. Safe to repeat
        with the same records in any process. Outages are waited out here, so only cancellation leaves this; then the
        batch was committed or not, and comes again.
        """
        starts = self._take(records)
        if starts is None:
            return records
        facts = set_strays_aside(list(read_each(self._read, records, log)), self._settings.kafka.partitions)
        async with self._turn:
            await self._settling.settle(facts, partial(self._transact, starts), self._finish)
        return records

    def _take(self, records: Sequence[Record]) -> dict[ReferencePartition, int] | None:
        """Where a batch continues in each of its partitions; None where that is known no more.

        Before anything is awaited: batches come here in order.
        """
        starts: dict[ReferencePartition, int] = {}
        reached: dict[ReferencePartition, int] = {}
        for record in records:
            at = ReferencePartition(record.topic, record.partition)
            if at not in starts:
                start = self._reached.get(at)
                if self._lost or start is None or record.offset < start:  # Kafka went back: it lost what it had
                    self.mark_place_lost()
                    return None
                starts[at] = start
            reached[at] = record.offset + 1
        self._reached |= reached
        return starts

    def _read(self, record: Record) -> _Read:
        return read_fact(self._kinds[record.topic], record)

    async def _transact(
        self, starts: Mapping[ReferencePartition, int], facts: Sequence[_Read], refused: str | None
    ) -> _Applied | None:
        """One transaction; returns what became of the records, or None where the position is lost.

        Args:
            starts: Where the whole batch continues in each partition. Of the second half of one that was halved that is
                before its first record: what lies between was applied with the first half, or the position is lost.
            facts: Of the batch, or of a part of it.
            refused: Why the database refuses the one record of this batch, which is then parked.
        """
        if self._lost:
            return None
        if refused is not None:
            facts = [Unreadable(each.record, refused, ParkReason.DATA_REFUSED) for each in facts]
        if probes.listeners:
            await probe("reference.before_transaction", self)
        assert self._consumer is not None
        ends = _ends(facts)
        if not await is_there(self._consumer, {at: self._found[at] for at in ends}):
            return None
        async with self._database.begin() as conn:
            progress = await reference_progress.lock(conn, ends)
            if not may_continue(progress, self._found, {at: starts[at] for at in ends}):
                return None
            new = [each for each in facts if each.record.offset >= progress[_partition_of(each.record)].next_offset]
            await _write(conn, [each for each in new if isinstance(each, Fact)])
            unreadable = [each for each in new if isinstance(each, Unreadable)]
            if unreadable:
                await parked.park(conn, [keep_record(SetAside(each)) for each in unreadable], datetime.now(UTC))
            reached = {
                at: progress[at]._replace(next_offset=max(end, progress[at].next_offset)) for at, end in ends.items()
            }
            await reference_progress.write(conn, reached)
        return _Applied(facts, new, unreadable)

    async def _finish(self, applied: _Applied | None) -> None:
        """Count what was committed; where nothing was, the position is to be found again."""
        if applied is None:
            if not self._lost:
                log.info("the position in the reference topics is lost, and is being determined again")
                self.mark_place_lost()
            return
        for each in applied.parked:
            PARKED.labels(each.reason).inc()
            log.error("reference record parked", reason=each.reason, detail=each.detail, at=_coordinates(each.record))
        _count(applied)


async def _write(conn: DatabaseConnection, facts: Collection[Fact]) -> None:
    """Write what the last record of each key says, in order of the keys."""
    latest: dict[type[Reference], dict[bytes | None, Fact]] = {}
    for fact in facts:
        latest.setdefault(fact.kind, {})[fact.record.key] = fact
    for kind, by_key in latest.items():
        table = FACT_TABLES[kind]
        in_order = [fact for _, fact in sorted(by_key.items())]
        await table.upsert(conn, [fact.row for fact in in_order if fact.row is not None])
        await table.delete(conn, [fact.key for fact in in_order if fact.row is None])


def _find_start(before: Progress, topic: Topic, at: ReferencePartition, anew: bool) -> Progress:
    epoch = topic.epochs[at.partition]
    if anew:
        return Progress(topic.topic_id, 0, epoch)
    # Never less than before: a broker that we ask next may not have heard of the last election.
    return before._replace(leader_epoch=max(epoch, before.leader_epoch or 0))


def _classify(error: Exception) -> ServiceError | None:
    if isinstance(error, KafkaError):
        return RetryError(f"Kafka returned an unexpected response: {type(error).__name__}")
    return classify(error)


def _judge(error: Exception) -> Trouble:
    trouble = _classify(error)
    return Trouble(wait_reason(trouble, error), foreseen=trouble is not None)


def _partition_of(record: Record) -> ReferencePartition:
    return ReferencePartition(record.topic, record.partition)


def _ends(facts: Sequence[_Read]) -> dict[ReferencePartition, int]:
    return {_partition_of(each.record): each.record.offset + 1 for each in facts}


def _coordinates(record: Record) -> str:
    return f"{record.topic}[{record.partition}]@{record.offset}"


def _count(applied: _Applied) -> None:
    counts = Counter(
        (each.record.topic, "parked" if isinstance(each, Unreadable) else "applied") for each in applied.new
    )
    counts += Counter((each.record.topic, "skipped") for each in applied.facts)
    counts -= Counter((each.record.topic, "skipped") for each in applied.new)
    for (topic, what), records in counts.items():
        REFERENCE_RECORDS.labels(topic, what).inc(records)
