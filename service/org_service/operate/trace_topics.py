"""Finds the records of a command on our topics, without reading them through."""

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Final, NamedTuple, cast
from uuid import UUID

from org_events.kafka.consumer import SteadyConsumer
from org_events.kafka.topic_ids import describe_present
from org_events.topics import partition_for
from org_service.domain.outcomes import KnownOutcome, NewOutcome, Undecided
from org_service.domain.requests import Request
from org_service.kafka import relay_position
from org_service.kafka.client import TopicPartition
from org_service.kafka.offsets import read_committed
from org_service.kafka.ranges import OffsetRange, open_ranges
from org_service.kafka.reader import Record, ends, groupless_consumer
from org_service.kafka.unread import find_times, read_from
from org_service.operate.hops import (
    Hop,
    Trace,
    found,
    is_record_of,
    is_result_of,
    moment,
    record_hop,
    rule,
    timed,
    token_hop,
)
from org_service.operate.positions import CLOCKS_MS, find_turn, read_position
from org_service.settings import Settings
from org_service.store.recorded import ParkedThen, Recorded
from org_service.wire.commands import read

SCAN_RECORDS_MAX: Final = 50_000
"""Of one partition, around the time of a record that has no order of its own."""


class Known(NamedTuple):
    """What the tables know of a command."""

    command_id: UUID
    decided: Recorded | None
    parked: ParkedThen | None
    undecided: Undecided | None
    emptied: KnownOutcome | None
    """What is left of its outcome where its organization was erased."""


class TraceTopics:
    """Finds records on our topics."""

    def __init__(self, settings: Settings, consumer: SteadyConsumer, counts: Mapping[str, int]) -> None:
        self._settings = settings
        self._consumer = consumer
        self._counts = counts
        self.names = settings.kafka.topics

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: Settings) -> "AsyncGenerator[TraceTopics]":
        """Look at which partitions there are."""
        names = settings.kafka.topics
        async with groupless_consumer(settings.kafka, fetch_max_wait_ms=50) as consumer:
            there = await describe_present(consumer, list(names.data))
            yield cls(settings, consumer, {name: len(each.leaders) for name, each in there.items()})

    async def follow(self, known: Known) -> Trace:
        """All hops of a command that the tables know."""
        if known.decided is not None:
            return await self._follow_decided(known.decided, known.parked)
        if known.parked is not None:
            return await self._follow_parked(known.command_id, known.parked)
        if known.emptied is not None:
            return await self._follow_emptied(known.emptied)
        assert known.undecided is not None
        unread = await self.find_unread(known.command_id)
        if unread is not None:
            return unread
        said = known.undecided
        why = {
            "expired": "Kafka lost it before a worker read it (`orgs lost`): nothing was changed, and nothing will be",
            "pending": "it was answered with 202, and no worker has decided it; it is not in the part of the topic "
            "that workers have yet to read",
        }
        return Trace(known.command_id, said.org_id, said.status, [], [why.get(said.status, said.status)])

    async def _follow_emptied(self, row: KnownOutcome) -> Trace:
        """Of an erased organization: also its erasure itself, and what its topics still have."""
        notes = ["its organization was erased: tables have no more than this, and topics only what is shown here"]
        hops = [Hop("journal", f"position {row.position:,}", at=row.recorded_at)]
        hops += await self._published(row.position, row, notes)
        return Trace(row.command_id, row.org_id, row.outcome, timed(hops), notes)

    async def _follow_decided(self, decided: Recorded, parked: ParkedThen | None) -> Trace:
        position, row = decided
        at = TopicPartition(self.names.commands, row.command_partition)
        record = await self.read_at(at, row.command_offset)
        notes: list[str] = []
        if record is None or not is_record_of(row, record):
            record = None
            notes.append("the record is no longer on the topic: retention took it, or the topic is another one now")
        first = None if row.command_time_ms is None else moment(row.command_time_ms)
        hops = [
            Hop("record", "gone", at.topic, at.partition, row.command_offset, first)
            if record is None
            else record_hop(record)
        ]
        if record is not None:
            hops += token_hop(record, row)
        if parked is not None:
            hops.append(
                Hop("parked", f"{parked.reason.replace('_', ' ')}, {parked.state} since", at=parked.broker_time)
            )
        hops.append(Hop("rule", rule(row)))
        version = "" if row.version is None else f", version {row.version}"
        hops.append(Hop("journal", f"position {position:,}{version}", at=row.recorded_at))
        hops += await self._published(position, row, notes)
        return Trace(row.command_id, row.org_id, row.outcome, timed(hops), notes)

    async def _follow_parked(self, command_id: UUID, parked: ParkedThen) -> Trace:
        at = TopicPartition(self.names.commands, parked.partition)
        record = await self.read_at(at, parked.offset)
        notes = [] if record else ["the record is no longer on the topic; the table has it"]
        hops = [
            Hop("record", "gone", at.topic, at.partition, parked.offset, parked.broker_time)
            if record is None
            else record_hop(record),
            Hop("parked", f"{parked.reason.replace('_', ' ')}: {parked.state} (`orgs parked list`)"),
        ]
        if record is not None:
            key = str(parked.org_id or command_id).encode()
            last = await relay_position.read_partitioning(self._settings.kafka, self._settings.relay.name)
            result = await self._scan(
                self.names.results,
                key,
                record.timestamp,
                lambda each: is_result_of(each, command_id),
                last.grown_from,
            )
            hops += [] if result is None else [found("result", "parked, not final", result)]
        return Trace(command_id, parked.org_id, "parked", timed(hops), notes)

    async def _published(self, position: int, row: NewOutcome | KnownOutcome, notes: list[str]) -> list[Hop]:
        """Event, state and result; what isn't there is said in the notes."""
        last = await relay_position.read_partitioning(self._settings.kafka, self._settings.relay.name)
        key = str(row.org_id or row.command_id).encode()
        event: Record | None = None
        since_ms = int(row.recorded_at.timestamp() * 1000) - CLOCKS_MS
        hops: list[Hop] = []
        for partition in self._where(self.names.events, key, last.grown_from):
            at = TopicPartition(self.names.events, partition)
            begin, end = await self._extent(at)
            turn = await find_turn(self._consumer, at, position - 1, begin, end)
            if turn.behind is not None and read_position(turn.behind) == position:
                event, since_ms = turn.behind, turn.behind.timestamp
                break
            if turn.before is not None:
                since_ms = max(since_ms, turn.before.timestamp)
        if row.event_type is not None:
            if event is None:
                notes.append("the event is not on its topic: not published yet, or retention took it")
            else:
                hops.append(found("event", row.event_type, event))
                state = await self._scan(
                    self.names.state, key, since_ms, lambda each: read_position(each) == position, last.grown_from
                )
                if state is None:
                    notes.append("its record on the state topic is gone: compaction keeps the last one of each")
                else:
                    said = "tombstone" if state.value is None else f"version {row.version}"
                    hops.append(found("state", said, state))
        result = await self._scan(
            self.names.results,
            key,
            since_ms,
            lambda each: read_position(each) == position and is_result_of(each, row.command_id),
            last.grown_from,
        )
        if result is None:
            notes.append("the result is not on its topic: not published yet, or retention took it")
        else:
            hops.append(found("result", f"{row.outcome} {row.code}", result))
        return hops

    def _where(self, topic: str, key: bytes, grown_from: int | None) -> list[int]:
        """The partition of a key, and where topics grew, those that it may have had before, the latest first."""
        counts = [self._counts[topic]]
        if grown_from is not None:  # each time to a multiple
            counts += [number for number in range(grown_from, 0, -1) if grown_from % number == 0]
        return list(dict.fromkeys(partition_for(key, number) for number in counts))

    async def _scan(
        self,
        topic: str,
        key: bytes,
        since_ms: int,
        is_meant: Callable[[Record], bool],
        grown_from: int | None = None,
    ) -> Record | None:
        """The first record that is meant, from a time on."""
        for partition in self._where(topic, key, grown_from):
            at = TopicPartition(topic, partition)
            _, end = await self._extent(at)
            start = (await find_times(self._consumer, [at], since_ms, {at: end}))[at]
            async for record in read_from(self._consumer, at, start, min(end, start + SCAN_RECORDS_MAX)):
                if is_meant(record):
                    return record
        return None

    async def read_at(self, at: TopicPartition, offset: int) -> Record | None:
        """The record at an offset; None where there is none (any more)."""
        if at.partition >= self._counts.get(at.topic, 0):
            return None
        begin, end = await self._extent(at)
        if not begin <= offset < end:
            return None
        async for record in read_from(self._consumer, at, offset, offset + 1):
            return record
        return None

    async def _extent(self, at: TopicPartition) -> tuple[int, int]:
        begins = cast("dict[TopicPartition, int]", await self._consumer.beginning_offsets([at]))
        return begins[at], (await ends(self._consumer, [at]))[at]

    async def find_unread(self, command_id: UUID) -> Trace | None:
        """Look for a command in what the workers have not read."""
        topic, kafka = self.names.commands, self._settings.kafka
        partitions = [TopicPartition(topic, number) for number in range(self._counts[topic])]
        now = await ends(self._consumer, partitions)
        begins = cast("dict[TopicPartition, int]", await self._consumer.beginning_offsets(partitions))
        group = self._settings.worker_group
        committed = await read_committed(kafka, group, partitions, or_none=True)
        ranges = {
            at.partition: OffsetRange(first, now[at])
            for at in partitions
            if (first := max(begins[at], committed[at].offset)) < now[at]
        }
        wanted = str(command_id).encode()
        async with open_ranges(kafka, topic, ranges) as reader:
            while reader.unfinished:
                for record in await reader.read():
                    if (dict(record.headers).get("ce_id") or b"").lower() == wanted:
                        request = read(record)
                        if isinstance(request, Request):
                            return await self.wait_for(record, request)
        return None

    async def wait_for(self, record: Record, request: Request) -> Trace:
        """A command that nobody has decided."""
        at = TopicPartition(record.topic, record.partition)
        group = self._settings.worker_group
        committed = (await read_committed(self._settings.kafka, group, [at], or_none=True))[at].offset
        before = record.offset - max(committed, 0)
        note = (
            f"workers have yet to read it: {before:,} offsets of its partition come before it"
            if before >= 0
            else f"workers have read past it (they are at offset {committed}), and no table knows it: `orgs lost`"
        )
        hops = timed([record_hop(record), *token_hop(record, None)])
        return Trace(request.command_id, request.org_id, "unread" if before >= 0 else "unknown", hops, [note])
