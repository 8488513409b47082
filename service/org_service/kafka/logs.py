"""What is on the logs of partitions, batch by batch: where they end, what transactions left there, and whether the
transaction was committed. A consumer shows none of that: not who is transactional, nor where a marker is.

For the relay, which knows where its own transactions ended. Cheap where all is well: a request a broker.
"""

# The client comes without types.
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false, reportUnknownMemberType=false

import struct
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping
from typing import Any, Final, NamedTuple

from aiokafka import TopicPartition
from aiokafka.client import ConnectionGroup
from aiokafka.errors import CorruptRecordException, LeaderNotAvailableError, OffsetOutOfRangeError, for_code
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.protocol.offset import OffsetRequest
from aiokafka.record.control_record import COMMIT_MARKER, ControlRecord
from aiokafka.record.default_records import DefaultRecordBatch

_EARLIEST: Final = -2
_LATEST: Final = -1
_ANY_REPLICA: Final = -1
_READ_UNCOMMITTED: Final = 0
_READ_COMMITTED: Final = 1
_HEADER: Final = struct.Struct(">qiibIhiqqqh")
"""Of a batch of format 2 (KIP-98): base offset, bytes that follow, leader epoch, magic, checksum, attributes, last
offset's delta, first and last timestamp, producer id, producer epoch."""
_BEFORE_LENGTH: Final = 12
_TRANSACTIONAL: Final = 0x10
_CONTROL: Final = 0x20
_MARKER_BYTES: Final = 512
"""A marker has 78."""
_FETCH_BYTES: Final = 4 * 1024 * 1024
"""At a time, when a log is read; a batch has 1 MiB at most."""
WINDOW_OFFSETS: Final = 64
WINDOW_GROWTH: Final = 8
WINDOW_OFFSETS_MAX: Final = 4096
"""Some 4 MB are in memory then."""

Record = tuple[bytes | None, Mapping[str, bytes]]
"""Key and headers."""


class Bounds(NamedTuple):
    """Where a partition begins and ends."""

    begin: int
    stable: int
    """What is from here on may belong to an open transaction, and no reader of committed records gets it."""
    end: int


class Batch(NamedTuple):
    """A record batch."""

    first: int
    last: int
    """Its last offset."""
    producer_id: int
    transactional: bool
    control: bool
    """It is a marker, the end of a transaction."""
    aborted: bool
    """Its transaction was taken back, as far as was asked."""
    time_ms: int
    """Of its last record."""
    content: bytes
    whole: bool
    """Or the answer ended within it."""

    @property
    def commits(self) -> bool:
        """Whether it is the marker of a transaction that was committed."""
        if not (self.control and self.whole):
            return False
        return ControlRecord.parse(next(DefaultRecordBatch(self.content)).key or b"") == COMMIT_MARKER

    def records(self) -> Iterator[Record]:
        """Its records, in order.

        Raises:
            CorruptRecordException: It can't be read.
        """
        batch = DefaultRecordBatch(self.content)
        if not batch.validate_crc():
            raise CorruptRecordException(f"the batch at offset {self.first} has a wrong checksum")
        for record in batch:
            yield record.key, {name: value or b"" for name, value in record.headers}


IsOurs = Callable[[str, Batch], bool]
"""Whether the relay wrote a batch of a topic."""


class Logs:
    """Reads partitions by the connections of a client. May be used by several tasks at once."""

    def __init__(self, client: Any) -> None:
        self._client = client

    async def find_bounds(self, places: Collection[TopicPartition]) -> dict[TopicPartition, Bounds]:
        """Where partitions begin and end now.

        Raises:
            KafkaError: A leader doesn't answer, or isn't one any more.
        """
        begins = await self._list_offsets(places, _READ_UNCOMMITTED, _EARLIEST)
        stable = await self._list_offsets(places, _READ_COMMITTED, _LATEST)
        ends = await self.find_ends(places)
        return {at: Bounds(begins[at], stable[at], ends[at]) for at in places}

    async def find_ends(self, places: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        """The offsets after all that is written, committed or not; raises as `find_bounds`."""
        return await self._list_offsets(places, _READ_UNCOMMITTED, _LATEST)

    async def find_broken(
        self, ends: Mapping[TopicPartition, int], producer_id: int, is_ours: IsOurs
    ) -> set[TopicPartition]:
        """Which partitions, though long enough, don't have a committed batch of ours that ends before an offset.

        Where the log begins later, or compaction has taken the batch away, nobody knows: these are not named.

        Args:
            ends: The offset after the batch, by partition.
            producer_id: Whose batch it probably is; one request a broker is enough where its marker follows at once.
            is_ours: Whether a batch of another producer is; a former one of ours has another id.
        """
        try:
            return await self._find_broken(ends, producer_id, is_ours)
        except OffsetOutOfRangeError:  # retention took it in one of them
            begins = await self._list_offsets(ends, _READ_UNCOMMITTED, _EARLIEST)
            there = {at: end for at, end in ends.items() if begins[at] < end}
            return await self._find_broken(there, producer_id, is_ours)

    async def _find_broken(
        self, ends: Mapping[TopicPartition, int], producer_id: int, is_ours: IsOurs
    ) -> set[TopicPartition]:
        found = await self._fetch(ends, _READ_UNCOMMITTED, _MARKER_BYTES)
        unclear = {
            at
            for at, batches in found.items()
            if not batches
            or not (batches[0].first == ends[at] and batches[0].producer_id == producer_id and batches[0].commits)
        }
        return {at for at in unclear if not await self._is_committed(at, ends[at], is_ours)}

    async def _is_committed(self, at: TopicPartition, end: int, is_ours: IsOurs) -> bool:
        ours: Batch | None = None
        start = end - 1
        while batches := (await self._fetch({at: start}, _READ_UNCOMMITTED, _FETCH_BYTES))[at]:
            for batch in batches:
                if not batch.whole:
                    break
                start = batch.last + 1
                if ours is not None:
                    if batch.control and batch.producer_id == ours.producer_id:
                        return batch.commits
                elif batch.first >= end:
                    return True
                elif batch.last != end - 1 or batch.control or not (batch.transactional and is_ours(at.topic, batch)):
                    return False
                else:
                    ours = batch
        return False

    async def is_open(self, at: TopicPartition, bounds: Bounds, producer_id: int) -> bool:
        """Whether a producer's last records in a partition are of a transaction without an end; raises as `read`."""
        opened, start, before = False, bounds.stable, -1
        while before < start < bounds.end:
            before = start
            for batch in (await self._fetch({at: start}, _READ_UNCOMMITTED, _FETCH_BYTES))[at]:
                if not batch.whole:
                    break
                start = batch.last + 1
                if batch.transactional and batch.producer_id == producer_id:
                    opened = not batch.control
        return opened

    async def read(self, at: TopicPartition, start: int, end: int) -> AsyncIterator[Batch]:
        """What is committed in a partition between two offsets, in order, whole batches; without markers.

        Args:
            at: Where.
            start: Not before the beginning of the log.
            end: Not after its last stable offset.

        Raises:
            KafkaError: It can't be read.
        """
        while start < end:
            before = start
            for batch in (await self._fetch({at: start}, _READ_COMMITTED, _FETCH_BYTES))[at]:
                if batch.first >= end:
                    return
                if not batch.whole:
                    break
                start = batch.last + 1
                if not (batch.control or batch.aborted):
                    yield batch
            if start == before:
                return  # compacted away up to the end

    async def read_back(self, at: TopicPartition, bounds: Bounds) -> AsyncIterator[list[Batch]]:
        """What is committed in a partition, from its end on back, a stretch before the other; each in order.

        A batch may be in two stretches. Raises as `read`.
        """
        end, window = bounds.stable, WINDOW_OFFSETS
        while end > bounds.begin:
            start = max(bounds.begin, end - window)
            yield [batch async for batch in self.read(at, start, end)]
            end, window = start, min(window * WINDOW_GROWTH, WINDOW_OFFSETS_MAX)

    async def _fetch(
        self, places: Mapping[TopicPartition, int], isolation: int, bytes_max: int
    ) -> dict[TopicPartition, list[Batch]]:
        asked: defaultdict[int, defaultdict[str, list[tuple[int, int, int]]]] = defaultdict(lambda: defaultdict(list))
        for at, offset in places.items():
            asked[self._leader(at)][at.topic].append((at.partition, offset, bytes_max))
        found: dict[TopicPartition, list[Batch]] = {}
        for leader, topics in asked.items():
            request = FetchRequest(0, 0, bytes_max * len(places), isolation, list(topics.items()))
            answer = await self._client.send(leader, request, group=ConnectionGroup.COORDINATION)
            for topic, partitions in answer.topics:
                for partition, code, *others, stretch in partitions:
                    _check(code, topic, partition)
                    # From version 11 on a replica's number is between the two.
                    aborted = next(each for each in reversed(others) if not isinstance(each, int))
                    found[TopicPartition(topic, partition)] = list(_split(stretch or b"", aborted or ()))
        return found

    async def _list_offsets(
        self, places: Collection[TopicPartition], isolation: int, time: int
    ) -> dict[TopicPartition, int]:
        asked: defaultdict[int, defaultdict[str, list[tuple[int, int]]]] = defaultdict(lambda: defaultdict(list))
        for at in places:
            asked[self._leader(at)][at.topic].append((at.partition, time))
        found: dict[TopicPartition, int] = {}
        for leader, topics in asked.items():
            answer = await self._client.send(leader, OffsetRequest(_ANY_REPLICA, isolation, list(topics.items())))
            for topic, partitions in answer.topics:
                for partition, code, _, offset in partitions:
                    _check(code, topic, partition)
                    found[TopicPartition(topic, partition)] = int(offset)
        return found

    def _leader(self, at: TopicPartition) -> int:
        leader = self._client.cluster.leader_for_partition(at)
        if leader is None or leader < 0:
            raise LeaderNotAvailableError(f"{at.topic}, partition {at.partition} has no leader now")
        return int(leader)


def _check(code: int, topic: str, partition: int) -> None:
    if code:
        raise for_code(code)(f"{topic}, partition {partition}")


def _split(stretch: bytes, aborted: Collection[tuple[int, int]]) -> Iterator[Batch]:
    """The batches of an answer; the last one may be cut short."""
    begun = sorted((first, producer) for producer, first in aborted)
    taken_back: set[int] = set()
    at = 0
    while at + _HEADER.size <= len(stretch):
        base, length, *_, attributes, delta, _, time_ms, producer, _ = _HEADER.unpack_from(stretch, at)
        while begun and begun[0][0] <= base:
            taken_back.add(begun.pop(0)[1])
        control = bool(attributes & _CONTROL)
        transactional = bool(attributes & _TRANSACTIONAL)
        after = at + _BEFORE_LENGTH + length
        aborts = transactional and producer in taken_back
        whole = after <= len(stretch)
        yield Batch(base, base + delta, producer, transactional, control, aborts, time_ms, stretch[at:after], whole)
        if control:
            taken_back.discard(producer)
        at = after
