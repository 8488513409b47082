"""The subscriber's source: a consumer of `orgs.events`, in a group or of all partitions, and one of `orgs.state`.

The group only deals out the partitions: how far each was read is in the store, and what Kafka remembers of it is for
operators to see. Partition *p* of both topics holds the same organizations, so whoever gets it of one loads it of the
other. Batches come whole: taken apart here they cost a third, and say in which leader's epoch they were written.
"""

# The client comes without types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import asyncio
import logging
from collections.abc import AsyncGenerator, Collection, Generator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime
from typing import Any, Final, cast

from aiokafka import ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import IllegalStateError, KafkaError
from pydantic_core import from_json

from org_events.kafka.batches import UnreadBatch, WholeBatch
from org_events.kafka.consumer import SteadyConsumer
from org_events.kafka.epochs import fetch_epoch_ends
from org_events.kafka.offsets import BEGIN, END, NONE, fetch_offsets
from org_events.kafka.topic_ids import Topic, describe, describe_present
from org_events.kafka.whole import open_batch, read_epoch
from org_events.subscribing.changes import POSITION_HEADER, Record
from org_events.subscribing.lane import Fetched
from org_events.subscribing.lives import Log
from org_events.subscribing.sources import Ends, OnRevoked, SourceUnavailable
from org_events.subscribing.stores import Mark
from org_events.topics import Topics

_log = logging.getLogger(__name__)

POLL_MS: Final = 200
"""The longest wait for records, so also until a subscriber that is stopped ends."""
_LOADING_MS: Final = 50
"""The same while partitions load, and others follow."""
BATCHES_MAX: Final = 500
"""Of one poll; what was fetched, 4 MiB of a broker, is the usual bound."""
_FETCH_BYTES: Final = 1024 * 1024
_FETCHES_BYTES_MAX: Final = 4 * 1024 * 1024
POLL_INTERVAL_MS: Final = 3_600_000
"""How long a handler may take for what one poll gave, before the group gives the partitions to others."""
_TOLD_WITHIN: Final = 100
"""Offsets of `orgs.relay` from its end, in which there is a position; each takes two, one of them for a marker."""
_OF_GROUP: Final = ("session_timeout_ms", "heartbeat_interval_ms", "group_instance_id")
"""Options that only a member of a group has a use for."""
REBALANCE_MS: Final = 30_000
"""For what is being handled to be saved before partitions go to others."""


class KafkaSource:
    """See `Source`.

    Args:
        bootstrap_servers: `host:port`, comma-separated.
        topics: Their names.
        group: Of consumers that share the partitions; None reads all.
        options: Passed on to aiokafka's consumers.
    """

    def __init__(self, bootstrap_servers: str, topics: Topics, group: str | None, options: Mapping[str, Any]) -> None:
        self._topics = topics
        self._group = group
        self._of_group = {name: options[name] for name in _OF_GROUP if name in options}
        self._options: dict[str, Any] = {
            "bootstrap_servers": bootstrap_servers,
            "enable_auto_commit": False,
            "auto_offset_reset": "none",
            "isolation_level": "read_committed",
            "max_partition_fetch_bytes": _FETCH_BYTES,
            "fetch_max_bytes": _FETCHES_BYTES_MAX,
            "request_timeout_ms": 20_000,
            "metadata_max_age_ms": 60_000,  # how late a group may notice that the topics grew
            **{name: option for name, option in options.items() if name not in _OF_GROUP},
        }
        self._events: SteadyConsumer
        self._states: SteadyConsumer
        self._assigned: frozenset[int] | None = None
        self._following: dict[int, int] = {}
        """Partitions that are read, and the offset behind what was handed out."""
        self._loading: dict[int, int] = {}
        self._partitions = 0
        self._settled = 0
        self._doubt = False

    @property
    def assigned(self) -> Collection[int] | None:
        """See `Source`."""
        return self._assigned

    @property
    def partitions(self) -> int:
        """See `Source`."""
        return self._partitions

    @property
    def settled_partitions(self) -> int:
        """See `Source`. `orgs.commands` grows last, when all else is there."""
        return self._settled or self.partitions

    async def start(self, on_revoked: OnRevoked) -> None:
        """See `Source`."""
        grouped: dict[str, Any] = (
            {}
            if self._group is None
            else {"max_poll_interval_ms": POLL_INTERVAL_MS, "rebalance_timeout_ms": REBALANCE_MS} | self._of_group
        )
        self._events = self._consumer(group_id=self._group, **grouped)
        self._states = self._consumer()
        try:
            with _translated():
                await self._events.start()
                await self._states.start()
                await self._know_topics()
        except BaseException:
            await self.stop()
            raise
        if self._group is None:
            self._assign_all()
        else:
            self._events.subscribe([self._topics.events], listener=_Listener(self, on_revoked))

    async def stop(self) -> None:
        """See `Source`."""
        await self._events.stop()
        await self._states.stop()

    def take_doubt(self) -> bool:
        """See `Source`."""
        doubt, self._doubt = self._doubt, False
        return doubt

    async def refresh(self) -> None:
        """See `Source`."""
        with _translated():
            await self._know_topics()
        if self._group is None and self._assigned is not None and self.partitions > len(self._assigned):
            self._assign_all()

    async def look(self, marks: Mapping[int, Mark | None]) -> dict[int, Log]:
        """See `Source`."""
        topic = self._topics.events
        with _translated():
            described = (await describe(self._events, [topic]))[topic]
            at = [TopicPartition(topic, number) for number in marks]
            leaders = _leaders(topic, described)
            lows = await fetch_offsets(self._events, dict.fromkeys(at, BEGIN), leaders)
            stable = await fetch_offsets(self._events, dict.fromkeys(at, END), leaders)
            cut = await self._find_cut(marks, described, leaders)
        return {each.partition: Log(described.topic_id, lows[each], stable[each], each.partition in cut) for each in at}

    async def look_at_states(self, partitions: Sequence[int]) -> dict[int, Ends]:
        """See `Source`."""
        with _translated():
            lows = await self._find(self._topics.state, partitions, BEGIN)
            highs = await self._find(self._topics.state, partitions, END, stable=False)
        return {number: Ends(lows[number], highs[number]) for number in partitions}

    async def find_time(self, partition: int, time: datetime) -> int | None:
        """See `Source`."""
        with _translated():
            found = await self._find(self._topics.events, [partition], max(0, round(time.timestamp() * 1000)))
        return None if found[partition] == NONE else found[partition]

    async def find_position(self, partition: int, position: int, log: Log) -> int:
        """See `Source`. Positions grow in a partition, so it is halved again and again."""
        at, low, high = TopicPartition(self._topics.events, partition), log.low, log.stable
        async with self._reader(at) as reader:
            while low < high:
                middle = (low + high) // 2
                record = await _first_record(reader, at, middle, high)
                if record is None or _position_of(record) > position:
                    high = middle
                else:
                    low = record.offset + 1
        return low

    async def find_ends(self, partitions: Sequence[int]) -> dict[int, int]:
        """See `Source`."""
        with _translated():
            return await self._find(self._topics.events, partitions, END, stable=False)

    async def find_published(self) -> int:
        """See `Source`. The relay says it in each of its transactions."""
        topic = self._topics.relay
        with _translated():
            low, end = (await self._find(topic, [0], BEGIN))[0], (await self._find(topic, [0], END))[0]
        at, offset = TopicPartition(topic, 0), max(low, end - _TOLD_WITHIN)
        found = 0
        async with self._reader(at) as reader:
            reader.seek(at, offset)
            while await reader.position(at) < end:
                got = cast("dict[TopicPartition, list[Any]]", await reader.getmany(timeout_ms=POLL_MS))
                records, _ = _open([each.value for each in got.get(at, ())], offset, at)
                found = max([found, *map(_told_position, records)])
        return found

    def load(self, partition: int, offset: int) -> None:
        """See `Source`."""
        self._rest(self._events, self._topics.events, self._following, partition)
        self._begin(self._states, self._topics.state, self._loading, partition, offset)

    def follow(self, partition: int, offset: int) -> None:
        """See `Source`."""
        self._rest(self._states, self._topics.state, self._loading, partition)
        self._begin(self._events, self._topics.events, self._following, partition, offset)

    async def poll(self) -> list[Fetched]:
        """See `Source`."""
        found: list[Fetched] = []
        if self._loading:
            found = await self._take(self._states, self._topics.state, self._loading, _LOADING_MS)
        wait_ms = 0 if self._loading else POLL_MS
        return found + await self._take(self._events, self._topics.events, self._following, wait_ms)

    async def tell(self, offsets: Mapping[int, int]) -> None:
        """See `Source`."""
        if self._group is None or not offsets:
            return
        try:
            await self._events.commit({TopicPartition(self._topics.events, each): at for each, at in offsets.items()})
        except KafkaError as error:  # a rebalance is under way; whoever has the partitions then tells
            _log.debug("the group could not be told how far %s was read: %r", self._topics.events, error)

    def note_assigned(self, partitions: Collection[TopicPartition]) -> None:
        """The group dealt out partitions. Nothing is read of one until it is known from where."""
        for each in partitions:
            self._events.seek(each, 0)
            self._events.pause(each)
        self._assigned = frozenset(each.partition for each in partitions)

    def note_revoked(self) -> None:
        """The group deals out anew. From here on nobody may ask for a position: of what comes back there is none."""
        self._assigned = frozenset()
        self._following.clear()
        for number in [*self._loading]:
            self._rest(self._states, self._topics.state, self._loading, number)

    def _consumer(self, group_id: str | None = None, **options: Any) -> SteadyConsumer:
        options = self._options | {"group_id": group_id} | options
        return SteadyConsumer(whole_batches=True, on_offset_lost=self._note_doubt, **options)

    def _note_doubt(self) -> None:
        self._doubt = True

    @asynccontextmanager
    async def _reader(self, at: TopicPartition) -> AsyncGenerator[SteadyConsumer]:
        consumer = self._consumer()
        try:
            with _translated():
                await consumer.start()
                consumer.assign([at])
                yield consumer
        finally:
            await consumer.stop()

    async def _know_topics(self) -> None:
        commands, events, state = self._topics.commands, self._topics.events, self._topics.state
        found = await describe_present(self._events, [commands, events, state])
        if missing := {events, state} - found.keys():
            raise SourceUnavailable(f"{', '.join(sorted(missing))} does not exist, or this user may not see it")
        self._partitions = len(found[events].leaders)
        self._settled = len(found[commands].leaders) if commands in found else 0
        states = [TopicPartition(state, number) for number in found[state].leaders]
        if len(states) > len(self._states.assignment()):
            self._assign(self._states, states, self._loading)

    def _assign_all(self) -> None:
        numbers = range(self.partitions)
        self._assign(self._events, [TopicPartition(self._topics.events, each) for each in numbers], self._following)
        self._assigned = frozenset(numbers)

    def _assign(self, consumer: SteadyConsumer, at: Sequence[TopicPartition], reading: Mapping[int, int]) -> None:
        """Assign partitions, of which some are read already; each has a position, else the client asks for one."""
        consumer.assign(list(at))
        for each in at:
            consumer.seek(each, reading.get(each.partition, 0))
            if each.partition not in reading:
                consumer.pause(each)

    def _begin(
        self, consumer: SteadyConsumer, topic: str, reading: dict[int, int], partition: int, offset: int
    ) -> None:
        at = TopicPartition(topic, partition)
        if at in consumer.assignment():
            consumer.seek(at, offset)
            consumer.resume(at)
            reading[partition] = offset

    def _rest(self, consumer: SteadyConsumer, topic: str, reading: dict[int, int], partition: int) -> None:
        at = TopicPartition(topic, partition)
        if reading.pop(partition, None) is not None and at in consumer.assignment():
            consumer.pause(at)

    async def _take(self, consumer: SteadyConsumer, topic: str, reading: dict[int, int], wait_ms: int) -> list[Fetched]:
        batches = cast(
            "dict[TopicPartition, list[Any]]", await consumer.getmany(timeout_ms=wait_ms, max_records=BATCHES_MAX)
        )
        found: list[Fetched] = []
        for number, start in list(reading.items()):
            at = TopicPartition(topic, number)
            try:
                position = await consumer.position(at)
            except IllegalStateError:  # it was taken away meanwhile
                continue
            records, epoch = _open([each.value for each in batches.get(at, ())], start, at)
            if number in reading:
                reading[number] = position
                found.append(Fetched(number, topic == self._topics.state, records, position, epoch))
        return found

    async def _find(self, topic: str, partitions: Sequence[int], time: int, *, stable: bool = True) -> dict[int, int]:
        described = (await describe(self._events, [topic]))[topic]
        asked = {TopicPartition(topic, number): time for number in partitions}
        found = await fetch_offsets(self._events, asked, _leaders(topic, described), stable=stable)
        return {at.partition: offset for at, offset in found.items()}

    async def _find_cut(
        self, marks: Mapping[int, Mark | None], described: Topic, leaders: Mapping[TopicPartition, int]
    ) -> set[int]:
        """The partitions whose log no longer has what was read of it: the epoch of that ends before it now."""
        suspect = {
            TopicPartition(self._topics.events, number): mark
            for number, mark in marks.items()
            if mark is not None
            and mark.topic_id == described.topic_id
            and 0 <= mark.epoch < described.epochs.get(number, mark.epoch)
        }
        if not suspect:
            return set()
        ends = await fetch_epoch_ends(self._events, {at: mark.epoch for at, mark in suspect.items()}, leaders)
        return {at.partition for at, mark in suspect.items() if ends[at] < mark.epoch_offset}


class _Listener(ConsumerRebalanceListener):
    def __init__(self, source: KafkaSource, on_revoked: OnRevoked) -> None:
        self._source = source
        self._on_revoked = on_revoked

    # Awaited, though they are declared as plain functions.
    async def on_partitions_revoked(self, revoked: Any) -> None:  # noqa: ARG002 # pyright: ignore[reportIncompatibleMethodOverride]
        self._source.note_revoked()
        await self._on_revoked()

    async def on_partitions_assigned(self, assigned: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        self._source.note_assigned(assigned)


@contextmanager
def _translated() -> Generator[None]:
    try:
        yield
    except (KafkaError, OSError) as error:
        raise SourceUnavailable(repr(error)) from error


def _leaders(topic: str, described: Topic) -> dict[TopicPartition, int]:
    return {TopicPartition(topic, number): leader for number, leader in described.leaders.items()}


def _open(batches: Sequence[WholeBatch | UnreadBatch], start: int, at: TopicPartition) -> tuple[list[Record], int]:
    """The records of batches from an offset on, and the epoch of the last."""
    records: list[Record] = []
    epoch = -1
    for batch in batches:
        if isinstance(batch, UnreadBatch):  # the service writes none
            _log.error("%s, partition %d: records that are not the service's were skipped: %s", *at, batch.why)
            continue
        records += cast("Sequence[Record]", open_batch(batch, start))
        epoch = read_epoch(batch)
    return records, epoch


async def _first_record(reader: SteadyConsumer, at: TopicPartition, offset: int, end: int) -> Record | None:
    """The first record of the service's at an offset or later; None before the end."""
    reader.seek(at, offset)
    while await reader.position(at) < end:
        got = cast("dict[TopicPartition, list[Any]]", await reader.getmany(timeout_ms=POLL_MS, max_records=1))
        records, _ = _open([each.value for each in got.get(at, ())], offset, at)
        if (found := next((each for each in records if _position_of(each) >= 0), None)) is not None:
            return found
        await asyncio.sleep(0)
    return None


def _told_position(record: Record) -> int:
    """What a record of the relay's says; 0 of others there."""
    content: object = from_json(record.value or b"0")
    return cast("dict[str, int]", content).get("position", 0) if isinstance(content, dict) else 0


def _position_of(record: Record) -> int:
    return int(dict(record.headers).get(POSITION_HEADER) or -1)
