"""What Kafka still holds of what was published, when a producer begins; and sending what it lost (guarantee 11).

Kafka acknowledges before it writes to disks, so a machine that loses its power takes ends of logs with it, and of each
partition another one. The last position record says where the relay's last record ended in each partition. A batch of
a committed transaction ends there, and its marker follows. Where it doesn't, the partition is read back to the last
position that it holds, and what follows that is sent again from the journal: same ids, same bytes, in order, before
anything new.

    the log ends before that, or has no such batch        it lost records; what it holds says which
    behind it the relay's records, of later positions     `orgs.relay` lost its last records; these say the position
    behind it a replay's, or what was taken back          nothing is wrong
    behind it anybody else's                              foreign: nothing is published
    another topic of that name                            an operator created it again: it begins empty
    an end that isn't known                               what is there says the position

A marker that was lost with the end leaves its transaction open in that partition alone. Nobody knows how it ended, so
it is taken back, by another marker of the same producer id, and sent again. To commit it would be wrong where it was
aborted: that which first comes upon a loss is, and has later rows than those that are missing before it.

A record that says what is still missing (`behind`) goes with each transaction of that, so whoever begins next
continues there.
"""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from time import time
from typing import Final, NamedTuple
from uuid import UUID

from org_events.kafka.topic_ids import describe
from org_events.topics import Topics
from org_service.domain.outcomes import JournaledOutcome
from org_service.errors import StopError
from org_service.kafka import relay_position
from org_service.kafka.client import TopicPartition
from org_service.kafka.logs import Bounds
from org_service.kafka.producer import Producer, UnknownFateError
from org_service.kafka.record_batches import RecordBatch, TopicBatches
from org_service.kafka.told_ends import find_lost, find_recreated, read_ends, read_looked
from org_service.kafka.traces import Own, find_last, look, of_the_relay_alone
from org_service.relay.chunks import CHUNK_BYTES_MAX, Layout
from org_service.relay.ends import Ends, Known
from org_service.relay.source import Source
from org_service.settings import KafkaSettings
from org_service.telemetry.logs import get_logger
from org_service.telemetry.metrics import RELAY_FOREIGN, RELAY_LOSSES, RELAY_RESENT
from org_service.wire.changes import encode
from org_service.wire.position import PARTITION, Position, Published, by_topic

log = get_logger(__name__)

NO_POSITION: Final = (
    "{topic} has no position of the relay {relay!r}, but one of {others}, and {events} contains events: two relays "
    "would send them twice. If the relay was renamed, restore its old name (ORGS_RELAY__NAME). If these events are "
    "another journal's, use other topics by ORGS_KAFKA__TOPIC_PREFIX."
)
"""What an operator can do when another relay publishes to its topics."""


_NOTHING: Final = Own(0, None, 0)


def show_losses(topics: Topics) -> None:
    """Let the counters begin at 0, so that the first loss raises its alert."""
    for topic in (topics.results, topics.events, topics.state):
        RELAY_RESENT.labels(topic)
        RELAY_FOREIGN.labels(topic)
    for topic in (topics.results, topics.events, topics.state, topics.relay):
        RELAY_LOSSES.labels(topic)


class Audit(NamedTuple):
    """What Kafka holds."""

    position: int
    """The last one of which it holds, or held, anything."""
    command_id: UUID | None
    recorded_at: datetime | None
    behind: Mapping[TopicPartition, int]
    """Partitions that hold all only up to an earlier position."""
    lost: Collection[TopicPartition]
    """Partitions whose end was lost."""
    known: Known
    told: bool
    """Whether the position record tells all the ends that are known: what is lost next must be missed by whoever begins
    then."""

    @property
    def whole(self) -> bool:
        """Whether nothing is to be sent again."""
        return not self.behind and not self.lost


async def see_no_other_relay(kafka: KafkaSettings, name: str, partitions: int) -> None:
    """For a relay without a position: see that it is not another one that publishes here.

    Raises:
        StopError: It is.
        KafkaError, OSError: Nobody knows.
    """
    topic, events = kafka.topics.relay, kafka.topics.events
    others = await relay_position.read_others(kafka, topic, name)
    if others and await relay_position.is_published(kafka, events, partitions):
        shown = ", ".join(map(repr, sorted(others)))
        raise StopError(NO_POSITION.format(topic=topic, relay=name, others=shown, events=events))


async def finish_open(
    producer: Producer, partitions: Mapping[str, int]
) -> tuple[dict[TopicPartition, Bounds], set[TopicPartition]]:
    """Take back what a lost marker left open; returns the bounds of the partitions after that, and where it was.

    Only for a producer that has begun: then nothing of ours is under way. A replay's transaction is none of ours.

    Raises:
        KafkaError, UnknownFateError: Close the producer.
    """
    places = [TopicPartition(topic, number) for topic, count in partitions.items() for number in range(count)]
    bounds = await producer.logs.find_bounds(places)
    if opened := await producer.find_open(bounds):
        log.error("markers of transactions are lost: they are taken back", partitions=sorted(map(tuple, opened)))
        await producer.take_back(opened)
        bounds = await producer.logs.find_bounds(places)
    return bounds, opened


class Auditor:
    """Looks at each partition once."""

    def __init__(
        self,
        producer: Producer,
        topics: Topics,
        source: Source,
        last: Published | None,
        *,
        suspects: Collection[TopicPartition],
        beat: Callable[[], None],
    ) -> None:
        """Make one.

        Args:
            producer: That has begun.
            topics: The names.
            source: The journal.
            last: What the last position record says.
            suspects: Partitions that are known to have lost something.
            beat: Called now and then.
        """
        self._producer = producer
        self._topics = topics
        self._source = source
        self._last = last
        self._suspects = suspects
        self._beat = beat
        self._newest = _NOTHING if last is None else Own(last.position, last.command_id, 0)

    async def run(self, bounds: Mapping[TopicPartition, Bounds]) -> Audit:
        """Look.

        Args:
            bounds: Of all partitions of the data topics and of the relay's.

        Raises:
            KafkaError: Not all could be seen.
            RetryError: Postgres is away.
            UnknownFateError: Somebody else writes there, or an open transaction hides what is there.
        """
        relay = TopicPartition(self._topics.relay, PARTITION)
        data = {at: each for at, each in bounds.items() if at != relay}
        described = await describe(self._producer, sorted({at.topic for at in data}))
        ids = {topic: each.topic_id for topic, each in described.items()}
        recreated = find_recreated(self._last, ids)
        for topic in sorted(recreated):
            log.warning("a topic was created again: what it held is not sent again", topic=topic)
        known = {at: end for at, end in read_ends(self._last, ids).items() if at in data}
        looked = {at: min(offset, data[at].end) for at, offset in read_looked(self._last, known).items()}
        lost = await find_lost(self._producer, self._topics, known, data) | {at for at in data if at in self._suspects}
        lost = {at for at in lost if at.topic not in recreated}
        held: dict[TopicPartition, Own | None] = {}
        for at, each in sorted(data.items()):
            end = None if at in lost else known.get(at)
            held[at] = None if at.topic in recreated else await self._held(at, each, end, looked.get(at, end))
        position = self._newest.position
        base = position if self._last is None else self._last.position
        behind = {at: each for at, each in self._settle(held, lost, base).items() if each < position}
        self._tell(lost, base)
        told = 0 if self._last is None else self._last.position
        own = {at: end for at, end in known.items() if at not in lost}
        # The next record says this position: with the former ends nobody would miss what is lost between the two.
        own |= {
            at: each.end
            for at, each in held.items()
            if each is not None and each.end and (at not in own or each.position > told)
        }
        # What others wrote behind these is known now, and told: an operator may have accepted it.
        seen = {
            at: data[at].end
            for at in known.keys() - lost
            if at.topic in of_the_relay_alone(self._topics) and data[at].end > own[at] + 1
        }
        ends = {at: each.end for at, each in bounds.items()}
        recorded_at = None if self._last is None or position != self._last.position else self._last.recorded_at
        return Audit(
            position,
            self._newest.command_id,
            recorded_at,
            behind,
            lost,
            Known(ids, ends, own, seen),
            own.keys() <= known.keys(),
        )

    async def _held(self, at: TopicPartition, bounds: Bounds, end: int | None, looked: int | None) -> Own | None:
        """The relay's newest record in a partition, as far as was looked for; `_NOTHING` where there never was any."""
        if bounds.stable < bounds.end and (end is None or bounds.end > end + 1):
            raise UnknownFateError(
                f"an open transaction hides what {at.topic}, partition {at.partition} holds from offset "
                f"{bounds.stable} on; the log and the check `transactions` say whose it is",
                "held",
            )
        self._beat()
        if end is None or looked is None:
            found = await find_last(self._producer.logs, self._topics, at, bounds, self._find_following)
        elif looked < end or bounds.end > end + 1:  # more than the marker
            # From the own end on whatever was looked at: rows may stand where what others wrote was lost since.
            span = min(looked, end), bounds.end
            seen = await look(self._producer.logs, self._topics, at, span, self._beat, looked=looked)
            if seen.foreign:
                RELAY_FOREIGN.labels(at.topic).inc()
                raise UnknownFateError(seen.foreign[0].explain(), "foreign")
            found = seen.newest
        else:
            found = None
        if found is not None and found.position > self._newest.position:
            self._newest = found
        return _NOTHING if found is None and end is None and bounds.begin == 0 else found

    async def _find_following(self, position: int) -> datetime | None:
        self._beat()
        return await self._source.find_waiting_since(position)

    def _settle(
        self, held: Mapping[TopicPartition, Own | None], lost: Collection[TopicPartition], base: int
    ) -> dict[TopicPartition, int]:
        """Up to which position each partition holds all."""
        before: Mapping[str, Mapping[int, int]] = {}
        if self._last is not None and self._last.behind is not None:
            before = self._last.behind
        settled: dict[TopicPartition, int] = {}
        for at, found in held.items():
            told = before.get(at.topic, {}).get(at.partition, base)
            if at in lost or self._last is None:
                if found is None and at in lost:
                    log.error(
                        "nothing tells what a partition lost: its records have expired",
                        topic=at.topic,
                        partition=at.partition,
                    )
                settled[at] = base if found is None else found.position
            else:
                settled[at] = told if found is None else max(told, found.position)
        return settled

    def _tell(self, lost: Collection[TopicPartition], base: int) -> None:
        for at in sorted(lost):
            RELAY_LOSSES.labels(at.topic).inc()
            log.error(
                "Kafka lost the end of a partition that it had acknowledged", topic=at.topic, partition=at.partition
            )
        if self._newest.position > base or (self._last is None and base):
            RELAY_LOSSES.labels(self._topics.relay).inc()
            log.error(
                "Kafka lost the last positions of the relay; its other topics say them",
                topic=self._topics.relay,
                found=None if self._last is None else self._last.position,
                position=self._newest.position,
            )


class Healer:
    """Sends what was lost, from the journal."""

    def __init__(self, source: Source, ends: Ends, layout: Layout, audit: Audit) -> None:
        self._source = source
        self._ends = ends
        self._layout = layout
        self._audit = audit

    async def run(self, rows_max: int, beat: Callable[[], None]) -> None:
        """Send it, a transaction for so many rows at most; may be killed, the next one continues.

        Raises:
            UnknownFateError: As `Producer.publish`.
            RetryError: Postgres is away.
            StopError: As `Source.read`.
        """
        audit, sent = self._audit, Counter[str]()
        at, recorded_at = min(audit.behind.values(), default=audit.position), audit.recorded_at
        if recorded_at is None:
            recorded_at = next((row.recorded_at for row in await self._source.read(audit.position - 1, 1)), None)
        while True:
            beat()
            rows = [] if at >= audit.position else await self._source.read(at, min(rows_max, audit.position - at))
            rows = [row for row in rows if row.position <= audit.position]
            batches, taken = self._missing(rows)
            at = rows[taken - 1].position if rows else audit.position
            behind = {place: max(held, at) for place, held in audit.behind.items()} if at < audit.position else {}
            sent.update({topic: sum(each.records for each in some) for (topic, _), some in batches.items()})
            if batches or not behind:
                await self._ends.publish(batches, self._position(behind, recorded_at))
            if not behind:
                break
        for topic, records in sent.items():
            RELAY_RESENT.labels(topic).inc(records)
        if not audit.whole:
            log.warning("what Kafka lost was sent again", records=dict(sent), position=audit.position)

    def _position(self, behind: Mapping[TopicPartition, int], recorded_at: datetime | None) -> Position:
        return Position(
            position=self._audit.position,
            command_id=self._audit.command_id,
            recorded_at=recorded_at,
            behind=by_topic(behind.items()),
            **self._layout.partitioning._asdict(),
        )

    def _missing(self, rows: Sequence[JournaledOutcome]) -> tuple[dict[TopicPartition, list[RecordBatch]], int]:
        """The records of rows that partitions lack, and how many rows they are of."""
        topics, behind, now_ms = self._layout.topics, self._audit.behind, int(time() * 1000)
        batches: dict[TopicPartition, list[RecordBatch]] = {}
        of_topic = {
            name: TopicBatches(name, self._layout.partitions[name], batches, now_ms)
            for name in (topics.results, topics.events, topics.state)
        }
        size = 0
        for taken, row in enumerate(rows, 1):
            records = encode(row)
            number = records.key_hash % self._count_at(row.position)
            for name, record in zip(of_topic, (records.result, records.event, records.state), strict=True):
                if record is not None and behind.get(TopicPartition(name, number), row.position) < row.position:
                    size += of_topic[name].append(records.key, number, *record)
            if size >= CHUNK_BYTES_MAX:
                return batches, taken
        return batches, len(rows)

    def _count_at(self, position: int) -> int:
        """How many partitions there were when a position was published."""
        now = self._layout.partitioning
        if now.grown_from is not None and now.grown_after is not None and position <= now.grown_after:
            return now.grown_from
        return now.partitions
