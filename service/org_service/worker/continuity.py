"""Whether the log of commands continues where this group stopped reading it, and where to continue if it doesn't.

A committed offset is a number; what it stood for may be gone. Records expire or are deleted before they are read; a
log loses its end when a broker loses its power, and gives the offsets out again; a topic is deleted and created again.
A consumer left to itself reads on at the number, or from the beginning, and says nothing. So a commit carries a `Note`
beside its offset, in the metadata that Kafka keeps with it: the topic's id, the leader's epoch, and what the last
record was. At each assignment, and whenever Kafka's metadata show that a partition got another leader or the topic
another id, every partition is put where the notes and the log say, before the next poll:

    another topic                            from its beginning
    the log begins after the offset          from its beginning; the range between is lost
    the epoch of the note ends before it     from there; the offsets up to the commit are given out again
    none of these                            at the offset

To read again is always safe: the journal knows what was decided. So where in doubt, further back. A commit without a
note (an older release's, or an operator's) is believed unless it lies beyond the end; then all is read again.

Declined: asking the journal which command stood at the offset. After a restore of the database it lacks commands that
must stay as they were published, and every worker would decide them again.
"""

import time
import zlib
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final, NamedTuple, cast
from uuid import UUID

from org_events.kafka.consumer import SteadyConsumer
from org_events.kafka.epochs import UNKNOWN, fetch_epoch_ends
from org_events.kafka.topic_ids import Topic, describe_present
from org_service.domain.reasons import LossReason
from org_service.domain.requests import Record
from org_service.errors import RetryError, StopError
from org_service.kafka.client import (
    AIOKafkaConsumer,
    CorruptRecordException,
    IllegalStateError,
    KafkaError,
    TopicAuthorizationFailedError,
    TopicPartition,
    UnknownTopicOrPartitionError,
)
from org_service.kafka.offsets import read_committed
from org_service.kafka.relay_position import read_partitioning
from org_service.kafka.topics import explain_partitions
from org_service.settings import Settings
from org_service.store import losses
from org_service.store.database import Database
from org_service.store.failures import classify_errors
from org_service.store.losses import Loss
from org_service.telemetry.logs import get_logger
from org_service.telemetry.metrics import COMMANDS_LOST
from org_service.wire.facts import map_kinds
from org_service.wire.position import Partitioning

log = get_logger(__name__)

_FORM: Final = "orgs1"
"""First in a note; another form gets another word."""
_RECORDS_WAIT_S: Final = 5.0
"""For records that are there; a broker answers within milliseconds."""


class Note(NamedTuple):
    """What a commit remembers beside its offset."""

    topic_id: UUID
    epoch: int
    """Of the partition's leader, as last heard of before the commit."""
    record: tuple[int, int] | None
    """Broker's time and checksum of the last record; None where the group was put back."""

    def to_text(self) -> str:
        """For the metadata of a commit."""
        time_ms, checksum = self.record or (-1, 0)
        return f"{_FORM} {self.topic_id.hex} {self.epoch} {time_ms} {checksum}"


def parse(text: str | None) -> Note | None:
    """Read the metadata of a commit; None where it isn't ours."""
    match (text or "").split(" "):
        case [form, topic_id, epoch, time_ms, checksum] if form == _FORM:
            try:
                record = (int(time_ms), int(checksum))
                return Note(UUID(hex=topic_id), int(epoch), None if record[0] < 0 else record)
            except ValueError:
                return None
        case _:
            return None


def make_fingerprint(record: Record) -> tuple[int, int]:
    """What tells a record from another one at its offset."""
    return record.timestamp, zlib.crc32(record.value or b"", zlib.crc32(record.key or b""))


class Found(NamedTuple):
    """What Kafka says of one partition."""

    offset: int | None
    """Committed; None where nothing is."""
    note: Note | None
    begin: int
    end: int
    """Of the epoch in the note, or of the log where there is none; `UNKNOWN` where it is not known."""
    same: bool
    """Whether the record before `offset` is the one of the note; asked only where `end` is in doubt."""


class GoOn(NamedTuple):
    """Where to continue, and what is lost."""

    offset: int
    lost: tuple[int, int | None, LossReason] | None = None
    """From, to, why; as in `Loss`."""


def decide_place(found: Found, topic_id: UUID) -> GoOn:
    """Where to continue in a partition. Pure: the table of the module's text."""
    offset, note, begin, end, same = found
    if offset is None:
        return GoOn(begin)
    if note is not None and note.topic_id != topic_id:
        return GoOn(begin, (offset, None, LossReason.RECREATED))
    if offset < begin:
        return GoOn(begin, (offset, begin, LossReason.EXPIRED))
    if same or offset <= end or (note is None and end == UNKNOWN):
        return GoOn(offset)
    kept = end if note is not None and end != UNKNOWN else begin
    return GoOn(max(begin, kept), (max(begin, end), offset, LossReason.TRUNCATED))


class Continuity:
    """Puts the consumer of `orgs.commands` where it must continue, and notes down what is lost."""

    def __init__(self, settings: Settings, group: str, topic: str) -> None:
        self._settings = settings
        self._group = group
        self._topic = topic
        self._now: Topic | None = None
        self.partitioning = Partitioning(settings.kafka.partitions)
        """Of the commands, as of the last `settle`."""
        self._noticed = 0
        self._lost = True
        self._judged_by = sorted(map_kinds(settings.kafka.topics))
        """The reference topics: commands wait while a key of theirs may be on two partitions, too."""
        self.absent = False
        """Whether brokers say that there is no such topic."""
        self.wrong: str | None = None
        """Which topics have another number of partitions than they must have, as text."""

    @property
    def lost(self) -> bool:
        """Whether `settle` must be called before the next poll."""
        return self._lost

    def mark_lost(self) -> None:
        """Hear that the offsets may not fit to the log any more."""
        self._lost = True

    @property
    def detail(self) -> str:
        """For `/readyz`."""
        if not self._noticed:
            return "continues where it was read"
        return f"{self._noticed} ranges of commands were lost before they were read: `orgs lost` lists them"

    def commit_of(self, record: Record) -> tuple[int, str]:
        """What to commit behind a record: offset and note."""
        now = self._now
        note = (
            None if now is None else Note(now.topic_id, now.epochs.get(record.partition, -1), make_fingerprint(record))
        )
        return record.offset + 1, "" if note is None else note.to_text()

    async def look_for_changes(self, consumer: AIOKafkaConsumer) -> None:
        """See whether the topic or a partition's leader is another one than before; one small request.

        Where a topic has another number of partitions than it must have, `settle` says it, and nothing is read.

        Raises:
            KafkaError: Nobody knows; `absent` says whether the topic is gone.
        """
        before = self._now
        now = await self._describe(consumer)
        if self.wrong is not None:
            self.mark_lost()
        if before is not None and (now.topic_id != before.topic_id or now.epochs != before.epochs):
            self.mark_lost()

    async def settle(self, consumer: AIOKafkaConsumer) -> bool:
        """Put every assigned partition where it must continue; whether that is done. No batch may be in flight.

        Raises:
            KafkaError, RetryError: Nothing was done, or only the losses noted down; may be called again. So it is
                while a topic has another number of partitions than it must have.
        """
        self._lost = False  # a rebalance from here on sets it again
        try:
            # Where it can't be read, the relay says so; and what was known stays right, as a growth can't go on either.
            with suppress(CorruptRecordException, TopicAuthorizationFailedError, StopError):
                self.partitioning = await read_partitioning(self._settings.kafka, self._settings.relay.name)
            now = self._now = await self._see(consumer)
            assigned = consumer.assignment()
            if assigned:
                places = await self._places(consumer, assigned, now)
                lost = {at: each.lost for at, each in places.items() if each.lost is not None}
                await self._note_down(now, lost)
                for at, each in places.items():
                    consumer.seek(at, each.offset)
                if lost:  # else the next start would believe the former offset
                    back = {at: (places[at].offset, Note(now.topic_id, now.epochs[at.partition], None)) for at in lost}
                    await consumer.commit({at: (offset, note.to_text()) for at, (offset, note) in back.items()})
        except IllegalStateError:  # a partition moved on
            self._lost = True
        except BaseException:
            self._lost = True
            raise
        return not self._lost

    async def _see(self, consumer: AIOKafkaConsumer) -> Topic:
        now = await self._describe(consumer)
        if self.wrong is not None:
            raise RetryError(self.wrong)
        return now

    async def _describe(self, consumer: AIOKafkaConsumer) -> Topic:
        try:
            there = await describe_present(consumer, [self._topic, *self._judged_by])
        except KafkaError:
            self.absent = False
            raise
        self.absent = self._topic not in there
        if self.absent:
            raise UnknownTopicOrPartitionError(self._topic)
        counts = {name: len(each.epochs) for name, each in there.items()}
        wanted = dict.fromkeys(counts, self._settings.kafka.partitions)
        wanted[self._topic] = self.partitioning.partitions
        self.wrong = explain_partitions(counts, wanted)
        return there[self._topic]

    async def _places(
        self, consumer: AIOKafkaConsumer, assigned: set[TopicPartition], now: Topic
    ) -> dict[TopicPartition, GoOn]:
        begins = cast("dict[TopicPartition, int]", await consumer.beginning_offsets(list(assigned)))
        committed = await read_committed(self._settings.kafka, self._group, assigned)
        notes = {at: parse(each.metadata) for at, each in committed.items()}
        asked = {at: _epoch_read(notes.get(at), at, now) for at in assigned}
        ends = await fetch_epoch_ends(consumer, asked, {at: now.leaders[at.partition] for at in assigned})
        found = {
            at: Found(each.offset if each.offset >= 0 else None, notes.get(at), begins[at], ends[at], same=False)
            for at, each in committed.items()
        }
        places = {at: decide_place(each, now.topic_id) for at, each in found.items()}
        # A leader that was elected just before the commit is not in the note: then this is no loss.
        doubted = {
            TopicPartition(*at): (each.offset or 0) - 1
            for at, each in found.items()
            if (lost := places[at].lost) is not None and lost[2] == LossReason.TRUNCATED and _tells_record(each.note)
        }
        for at, record in (await self._find_records(doubted) if doubted else {}).items():
            note = found[at].note
            same = note is not None and note.record == record
            places[at] = decide_place(found[at]._replace(same=same), now.topic_id)
        return places

    async def _find_records(self, places: Mapping[TopicPartition, int]) -> dict[TopicPartition, tuple[int, int]]:
        """The fingerprints of the records at offsets, without those that are gone, or can't be read soon.

        In all within `_RECORDS_WAIT_S`, however many there are: a broker says nothing of an offset beyond its log.
        """
        found: dict[TopicPartition, tuple[int, int]] = {}
        reader = SteadyConsumer(
            **self._settings.kafka.connection(), group_id=None, enable_auto_commit=False, auto_offset_reset="none"
        )
        try:
            await reader.start()
            end_offsets = cast("Callable[..., Awaitable[dict[TopicPartition, int]]]", reader.end_offsets)
            ends, until_s = await end_offsets(list(places)), time.monotonic() + _RECORDS_WAIT_S
            getmany = cast("Callable[..., Awaitable[dict[TopicPartition, list[Record]]]]", reader.getmany)
            for at, offset in places.items():
                if offset >= ends[at]:
                    continue
                reader.assign([at])
                reader.seek(at, offset)
                left_ms = max(0, round((until_s - time.monotonic()) * 1000))
                records = (await getmany(at, timeout_ms=left_ms, max_records=1)).get(at, [])
                if records and records[0].offset == offset:
                    found[at] = make_fingerprint(records[0])
        finally:
            await reader.stop()
        return found

    async def _note_down(self, now: Topic, lost: Mapping[TopicPartition, tuple[int, int | None, LossReason]]) -> None:
        if not lost:
            return
        moment = datetime.now(UTC)
        found = [Loss(at.topic, now.topic_id, at.partition, *what, moment) for at, what in sorted(lost.items())]
        database = Database(self._settings.database, "worker", direct=True)
        try:
            with classify_errors():
                async with database.begin() as conn:
                    await losses.note(conn, found)
        finally:
            await database.close()
        for loss in found:
            COMMANDS_LOST.labels(loss.why).inc()
            log.error(
                "commands were lost before they were read",
                topic=loss.topic,
                partition=loss.partition,
                why=loss.why,
                from_offset=loss.from_offset,
                to_offset=loss.to_offset,
            )
        self._noticed += len(found)


def _tells_record(note: Note | None) -> bool:
    return note is not None and note.record is not None


def _epoch_read(note: Note | None, at: TopicPartition, now: Topic) -> int:
    """The epoch that a partition was read in; today's where no note says it of this topic."""
    return now.epochs[at.partition] if note is None or note.topic_id != now.topic_id else note.epoch
