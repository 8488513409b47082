"""Reference data into the tables: memberships, partnerships and staff, in batches of thousands.

How far a partition is applied stands in Postgres, in the transaction of the facts, and nowhere else: the offsets that
the group commits only show the lag. Before the first poll after each assignment the consumer is put where Postgres
says (`find_place`). From there each batch says where it continues; a transaction that finds the progress further
back than that has a hole before it, and writes nothing, and what is before the progress was applied by somebody else.
So a worker that lost its partitions can't put older data back, a database restored from a backup catches up by
itself, and a topic that was deleted and created again is noticed by its id and read from its beginning. One that was
not read for too long is reconciled first (`reconcile.py`).

The last record of a key in a batch counts, so a batch is one upsert and one delete a table, whatever it holds.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import cast
from uuid import UUID

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import IllegalStateError, KafkaError

from org_events.reference import Reference
from org_service.apply.applier import waits_for
from org_service.apply.reconcile import Marks, absence_max_s, confirm, grouped, in_place, is_too_long, reconcile
from org_service.domain.fold import where
from org_service.domain.reasons import ParkReason, RepeatReason
from org_service.domain.requests import Record, SetAside, Unreadable
from org_service.errors import DataRefusedError, RefoldError, RetryError, ServiceError, TooSlowError
from org_service.kafka.topic_ids import topic_ids
from org_service.settings import Settings
from org_service.store import parked, reference_progress
from org_service.store.database import Database, DatabaseConnection
from org_service.store.facts import FACT_TABLES
from org_service.store.failures import classify
from org_service.store.reference_progress import Place, Progress
from org_service.telemetry.logs import get_logger, log_defect
from org_service.telemetry.metrics import BATCH_REPEATS, PARKED, REFERENCE_RECORDS
from org_service.waiting import Backoff
from org_service.wire.facts import Fact, kinds, read_fact, set_strays_aside
from org_service.wire.parked import keep

log = get_logger(__name__)

_Read = Fact | Unreadable


class ReferenceApplier:
    """Applies batches of reference records, one after the other; others may do so in other processes."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._kinds = kinds(settings.kafka.topics)
        self._database = Database(settings.database, "worker")
        self._turn = asyncio.Lock()
        self._lost = True
        self._consumer: AIOKafkaConsumer | None = None
        self._topic_ids: Mapping[str, UUID] = {}
        self._reached: dict[Place, int] = {}
        """Where the next batch of each partition continues."""
        self._marks = Marks()
        self._absence_s: Mapping[str, float] = {}
        """How long each topic may go unread."""
        self._finding = self._backoff()
        self.beat = time.monotonic()
        """When it last sent a heartbeat, waits of an outage included."""
        self.outage: str | None = None
        """What is being waited for, None when all is well."""

    @property
    def lost(self) -> bool:
        """Whether the place of its partitions must be found first."""
        return self._lost

    def lose(self) -> None:
        """Release what is in flight, and find the place again before the next poll."""
        self._lost = True

    async def stop(self) -> None:
        """Close; call when no batch is in flight."""
        await self._database.close()

    async def find_place(self, consumer: AIOKafkaConsumer) -> bool:
        """Put the consumer where Postgres says, if that must be; one try, then a wait.

        Call between polls, with no batch in flight.

        Returns:
            Whether the consumer stands right; if not, don't poll, but call again.
        """
        if not self._lost:
            return True
        self.beat = time.monotonic()
        try:
            found = await self._find_place(consumer)
        except Exception as error:  # noqa: BLE001 - told and waited out; nothing is swallowed
            self._lost = True
            await self._wait(self._finding, _trouble(error), error)
            return False
        self._finding.reset()
        self.outage = None
        return found

    async def _find_place(self, consumer: AIOKafkaConsumer) -> bool:
        self._lost = False  # a rebalance from here on sets it again
        self._marks.clear()
        assigned = list(consumer.assignment())
        ids = await topic_ids(consumer, sorted({each.topic for each in assigned}))
        for topic in ids:
            found, wanted = len(consumer.partitions_for_topic(topic) or ()), self._settings.kafka.partitions
            if found != wanted:  # nobody could say then where a key belongs
                raise RetryError(f"{topic} has {found} partitions, ORGS_KAFKA__PARTITIONS is {wanted}")
        self._absence_s = await absence_max_s(self._settings, list(ids)) if ids else {}
        ends = cast("dict[TopicPartition, int]", await consumer.end_offsets(assigned))
        progress, away = await self._begin(ids, {Place(*each): end for each, end in ends.items()})
        if away:  # and then look again
            await reconcile(self._settings, self._database, grouped(ids, away), self._beat)
            self._lost = True
            return False
        try:
            for place, reached in progress.items():
                consumer.seek(TopicPartition(*place), reached.next_offset)
        except IllegalStateError:  # the partition moved on
            self._lost = True
        self._consumer, self._topic_ids = consumer, ids
        self._reached = {place: reached.next_offset for place, reached in progress.items()}
        return not self._lost

    async def _begin(
        self, ids: Mapping[str, UUID], ends: Mapping[Place, int]
    ) -> tuple[dict[Place, Progress], dict[Place, int]]:
        """How far each partition is applied; from the beginning where the topic isn't the one it was.

        Args:
            ids: The topics' ids.
            ends: Where the partitions end now. Returned again for those that weren't read for too long.
        """
        async with self._database.begin() as conn:
            await reference_progress.begin(conn, {place: ids[place.topic] for place in ends})
            progress = await reference_progress.lock(conn, ends)
            anew = {
                place: Progress(ids[place.topic], 0)
                for place, reached in progress.items()
                if reached.topic_id != ids[place.topic] or reached.next_offset > ends[place]
            }
            await reference_progress.write(conn, anew)
            # Nobody knows what it will hold once it is filled: nothing is deleted for what it lacks.
            await reference_progress.confirm(conn, dict.fromkeys(anew, 0.0))
            ages = await reference_progress.read_ages(conn)
        for topic in sorted({place.topic for place in anew}):
            log.warning(
                "a reference topic was recreated, or lost records: it is applied from its beginning, and facts "
                "that it does not contain stay as they were",
                topic=topic,
                partitions=sorted(place.partition for place in anew if place.topic == topic),
            )
        away = {
            place: ends[place]
            for place in progress.keys() - anew
            if is_too_long(ages[place], self._absence_s[place.topic])
        }
        return progress | anew, away

    def _beat(self) -> None:
        self.beat = time.monotonic()

    async def passed(self, consumer: AIOKafkaConsumer) -> Mapping[Place, float]:
        """Which partitions may be confirmed, and as of when, by the monotonic clock. Call between polls."""
        try:
            return await self._marks.passed(consumer)
        except KafkaError:  # it says so itself where records are wanted
            self._marks.clear()
            return {}

    async def confirm(self, consumer: AIOKafkaConsumer, passed: Mapping[Place, float]) -> None:
        """Note that the tables hold all that these partitions held; one try. Call with no batch in flight.

        Notices, records or not, that the database was restored or a topic created again: then the place is lost.
        """
        starts = {place: self._reached[place] for place in passed}
        try:
            ids, absence_s = self._topic_ids, self._absence_s
            if not await confirm(consumer, self._database, ids=ids, absence_s=absence_s, starts=starts, passed=passed):
                self.lose()
        except Exception as error:  # noqa: BLE001 - an outage shows where records wait; another try comes in a minute
            log.warning("could not record that reference data are complete", why=str(_trouble(error) or type(error)))

    async def apply(self, records: Sequence[Record]) -> Sequence[Record]:
        """Apply records in order; returns when all are committed, or released because the place was lost.

        The next batch may be given before this one is through: it is read and waits for its turn. Safe to repeat
        with the same records in any process. Outages are waited out here, so only cancellation leaves this; then the
        batch was committed or not, and comes again.
        """
        starts = self._take(records)
        if starts is None:
            return records
        facts = set_strays_aside([self._read(record) for record in records], self._settings.kafka.partitions)
        async with self._turn:
            await self._settle(facts, starts)
        return records

    def _take(self, records: Sequence[Record]) -> dict[Place, int] | None:
        """Where a batch continues in each of its partitions; None where that is known no more.

        Before anything is awaited: batches come here in order.
        """
        starts: dict[Place, int] = {}
        reached: dict[Place, int] = {}
        for record in records:
            place = Place(record.topic, record.partition)
            if place not in starts:
                start = self._reached.get(place)
                if self._lost or start is None or record.offset < start:  # Kafka went back: it lost what it had
                    self.lose()
                    return None
                starts[place] = start
            reached[place] = record.offset + 1
        self._reached |= reached
        return starts

    def _read(self, record: Record) -> _Read:
        try:
            return read_fact(self._kinds[record.topic], record)
        except Exception as error:  # noqa: BLE001 - a defect of ours must not hold up the other records
            defect, place = where(error), {"partition": record.partition, "offset": record.offset}
            log_defect(log, "record parked: our code raised", defect, error, topic=record.topic, **place)
            return Unreadable(record, defect, ParkReason.HANDLER_RAISED)

    async def _settle(self, facts: Sequence[_Read], starts: Mapping[Place, int]) -> None:
        """Try until committed, or until the place is lost; halve as commands are halved."""
        backoff = self._backoff()
        while not self._lost:
            self.beat = time.monotonic()
            try:
                counts = await self._transact(facts, starts)
            except Exception as error:  # noqa: BLE001 - classified below; nothing is swallowed
                trouble = _trouble(error)
                if isinstance(trouble, DataRefusedError) and (len(facts) > 1 or isinstance(facts[0], Fact)):
                    await self._halve_or_park(facts, starts, trouble)
                    return
                if isinstance(trouble, TooSlowError) and len(facts) > 1:
                    await self._halve(facts, starts, RepeatReason.TOO_SLOW)
                    return
                await self._wait(backoff, trouble, error)
            else:
                self.outage = None
                if counts is None:
                    log.info("the position in the reference topics is lost, and is being determined again")
                    self.lose()
                else:
                    _count(counts)
                return

    async def _halve_or_park(
        self, facts: Sequence[_Read], starts: Mapping[Place, int], refused: DataRefusedError
    ) -> None:
        """Part a batch that can't be written; alone, the culprit is parked."""
        if len(facts) == 1:
            await self._settle([Unreadable(facts[0].record, str(refused), ParkReason.DATA_REFUSED)], starts)
            return
        await self._halve(facts, starts, RepeatReason.HALVED)

    async def _halve(self, facts: Sequence[_Read], starts: Mapping[Place, int], why: RepeatReason) -> None:
        BATCH_REPEATS.labels(why).inc()
        log.warning("the batch of reference data is being halved", why=why, records=len(facts))
        middle = len(facts) // 2
        for half in (facts[:middle], facts[middle:]):  # where the first one loses the place, the second does nothing
            await self._settle(half, {place: starts[place] for place in _ends(half)})

    async def _transact(self, facts: Sequence[_Read], starts: Mapping[Place, int]) -> Counter[tuple[str, str]] | None:
        """One transaction; returns the outcome of the records, by topic, or None where the place is lost."""
        assert self._consumer is not None
        topics = sorted({place.topic for place in starts})
        if await topic_ids(self._consumer, topics) != {topic: self._topic_ids[topic] for topic in topics}:
            return None
        async with self._database.begin() as conn:
            progress = await reference_progress.lock(conn, starts)
            if not in_place(progress, self._topic_ids, starts):
                return None
            new = [each for each in facts if each.record.offset >= progress[_place(each.record)].next_offset]
            await _write(conn, [each for each in new if isinstance(each, Fact)])
            unreadable = [each for each in new if isinstance(each, Unreadable)]
            if unreadable:
                await parked.park(conn, [keep(SetAside(each)) for each in unreadable], datetime.now(UTC))
            await reference_progress.write(
                conn,
                {
                    place: Progress(progress[place].topic_id, max(end, progress[place].next_offset))
                    for place, end in _ends(facts).items()
                },
            )
        for each in unreadable:
            PARKED.labels(each.reason).inc()
            log.error("reference record parked", reason=each.reason, detail=each.detail, at=_coordinates(each.record))
        return (
            Counter((each.record.topic, "parked" if isinstance(each, Unreadable) else "applied") for each in new)
            + Counter((each.record.topic, "skipped") for each in facts)
            - Counter((each.record.topic, "skipped") for each in new)
        )

    def _backoff(self) -> Backoff:
        return Backoff(self._settings.worker.retry_wait_s, self._settings.worker.retry_wait_max_s)

    async def _wait(self, backoff: Backoff, trouble: ServiceError | None, error: Exception) -> None:
        """Sit an outage out, sending heartbeats (guarantee 6): a batch that waits is never parked or dropped."""
        if isinstance(trouble, RefoldError):
            BATCH_REPEATS.labels(RepeatReason.REFOLD).inc()
        else:
            BATCH_REPEATS.labels(RepeatReason.UNKNOWN if trouble is None else RepeatReason.OUTAGE).inc()
            self.outage = waits_for(trouble, error)
        pause_s = backoff.next_s()
        if trouble is not None:
            log.warning("reference data wait", why=waits_for(trouble, error), retry_in_s=round(pause_s, 2))
        else:
            log.error("unknown error, reference data wait", retry_in_s=round(pause_s, 2), exc_info=error)
        await asyncio.sleep(pause_s)


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


def _trouble(error: Exception) -> ServiceError | None:
    if isinstance(error, KafkaError):
        return RetryError(f"Kafka returned an unexpected response: {type(error).__name__}")
    return classify(error)


def _place(record: Record) -> Place:
    return Place(record.topic, record.partition)


def _ends(facts: Sequence[_Read]) -> dict[Place, int]:
    return {_place(each.record): each.record.offset + 1 for each in facts}


def _coordinates(record: Record) -> str:
    return f"{record.topic}[{record.partition}]@{record.offset}"


def _count(counts: Counter[tuple[str, str]]) -> None:
    for (topic, what), records in counts.items():
        REFERENCE_RECORDS.labels(topic, what).inc(records)
