"""Kafka as a subscriber of the kit sees it, without a broker: two topics with transactions, and rebalances."""

import asyncio
import json
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID, uuid4

from org_events.subscribing.changes import Change
from org_events.subscribing.lane import Fetched
from org_events.subscribing.lives import Log
from org_events.subscribing.sources import Ends, OnRevoked, SourceUnavailable
from org_events.subscribing.stores import Mark
from org_events.topics import partition_for


class FakeRecord(NamedTuple):
    """As a client hands it out."""

    offset: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]] = ()


def org(number: int) -> UUID:
    """The id of an organization of tests."""
    return UUID(int=0x0B000000_0000_4000_8000_000000000000 + number)


def key_of(number: int) -> bytes:
    """Its key."""
    return str(org(number)).encode()


def number_of(change: Change[Any]) -> int:
    """Which organization a change is of."""
    return change.org_id.int & 0xFFFFFFFF


def body(number: int, version: int) -> dict[str, Any]:
    """The organization at a version, by its name."""
    times = dict.fromkeys(("created_at", "updated_at"), "2026-03-01T12:00:00Z")
    rest = {"domain": None, "primary_address": None, "deactivated": False, "deactivated_at": None}
    return {"id": str(org(number)), "name": f"{number} at {version}", "version": version, **times, **rest}


def state(number: int, version: int, *, deleted: bool = False) -> FakeRecord:
    """A record of `orgs.state`."""
    value = None if deleted else json.dumps(body(number, version)).encode()
    return FakeRecord(-1, key_of(number), value, [("ce_orgversion", b"%d" % version), ("ce_position", b"1")])


def event(
    number: int, version: int, *, position: int = 1, event_type: str = "org.updated", created: bool = False, **more: Any
) -> FakeRecord:
    """A record of `orgs.events`."""
    gone = event_type in ("org.deleted", "org.erased")
    content = {
        "org_id": str(org(number)),
        "version": version,
        "position": position,
        "changed": [] if gone else ["name"],
        "before": None if created or version == 1 or event_type == "org.erased" else body(number, version - 1),
        "after": None if gone else body(number, version),
        "command_id": str(uuid4()),
        "actor": "ann",
        "recorded_at": "2026-03-01T12:00:00Z",
    } | more
    headers = [("ce_type", event_type.encode()), ("ce_orgversion", b"%d" % version), ("ce_position", b"%d" % position)]
    return FakeRecord(-1, key_of(number), json.dumps(content).encode(), headers)


@dataclass
class FakeLog:
    """A partition of a topic: records by offset; what has none is a marker, was aborted, or went by compaction."""

    records: dict[int, FakeRecord] = field(default_factory=dict[int, FakeRecord])
    low: int = 0
    stable: int = 0
    end: int = 0

    def append(self, *records: FakeRecord, committed: bool = True, marker: bool = True) -> None:
        """A transaction, with its marker."""
        for record in records:
            self.records[self.end] = record._replace(offset=self.end)
            self.end += 1
        self.end += marker and committed
        if committed:
            self.stable = self.end

    def commit(self) -> None:
        """End what is open."""
        self.end += 1
        self.stable = self.end

    def read(self, offset: int, limit: int) -> tuple[list[FakeRecord], int]:
        """Committed records from an offset on, and where a consumer stands behind them."""
        found = [self.records[at] for at in range(offset, self.stable) if at in self.records][:limit]
        return found, found[-1].offset + 1 if len(found) == limit else max(offset, self.stable)


class FakeSource:
    """See `org_events.subscribing.sources.Source`; the fields are the broker, for a test to change."""

    def __init__(self, partitions: int = 1) -> None:
        self.partitions = self.settled_partitions = partitions
        self.assigned: Collection[int] | None = None
        self.ours: Collection[int] | None = None
        """Dealt out at the start; None deals out all."""
        self.events: defaultdict[int, FakeLog] = defaultdict(FakeLog)
        self.states: defaultdict[int, FakeLog] = defaultdict(FakeLog)
        self.topic_id = uuid4()
        self.cut: set[int] = set()
        self.limit = 1_000
        self.away = False
        self.published = 0
        self.doubt = False
        self.told: dict[int, int] = {}
        self._following: dict[int, int] = {}
        self._loading: dict[int, int] = {}

    def publish(self, number: int, version: int, **more: Any) -> None:
        """A change, on both topics, in one transaction."""
        self.published += 1
        record = event(number, version, position=self.published, **more)
        gone = more.get("event_type") in ("org.deleted", "org.erased")
        partition = partition_for(key_of(number), self.settled_partitions)
        self.events[partition].append(record)
        self.states[partition].append(state(number, version, deleted=gone))

    async def deal(self, partitions: Collection[int]) -> None:
        """A rebalance."""
        self.assigned = ()
        await self._on_revoked()
        self._following.clear()
        self._loading.clear()
        self.assigned = partitions

    async def start(self, on_revoked: OnRevoked) -> None:
        self._on_revoked = on_revoked
        self.assigned = range(self.partitions) if self.ours is None else self.ours

    async def stop(self) -> None:
        self.assigned = None
        self._following.clear()
        self._loading.clear()

    def take_doubt(self) -> bool:
        doubt, self.doubt = self.doubt, False
        return doubt

    async def refresh(self) -> None:
        if self.away:
            raise SourceUnavailable

    async def look(self, marks: Mapping[int, Mark | None]) -> dict[int, Log]:
        await self.refresh()
        logs = {number: self.events[number] for number in marks}
        return {n: Log(self.topic_id, log.low, log.stable, n in self.cut) for n, log in logs.items()}

    async def look_at_states(self, partitions: Sequence[int]) -> dict[int, Ends]:
        await self.refresh()
        return {number: Ends(self.states[number].low, self.states[number].end) for number in partitions}

    async def find_time(self, partition: int, time: datetime) -> int | None:
        return None

    async def find_position(self, partition: int, position: int, log: Log) -> int:
        records = self.events[partition].records
        later = (at for at, record in records.items() if json.loads(record.value or b"{}")["position"] > position)
        return next(later, log.stable)

    async def find_ends(self, partitions: Sequence[int]) -> dict[int, int]:
        return {number: self.events[number].end for number in partitions}

    async def find_published(self) -> int:
        return self.published

    def load(self, partition: int, offset: int) -> None:
        self._loading[partition] = offset

    def follow(self, partition: int, offset: int) -> None:
        self._loading.pop(partition, None)
        self._following[partition] = offset

    async def poll(self) -> list[Fetched]:
        await asyncio.sleep(0.001)
        return [
            *(self._take(number, self._loading, self.states, from_state=True) for number in [*self._loading]),
            *(self._take(number, self._following, self.events, from_state=False) for number in [*self._following]),
        ]

    def _take(self, number: int, reading: dict[int, int], logs: Mapping[int, FakeLog], *, from_state: bool) -> Fetched:
        if reading[number] < logs[number].low:
            self.doubt = True
            return Fetched(number, from_state, (), reading[number])
        records, reading[number] = logs[number].read(reading[number], self.limit)
        return Fetched(number, from_state, records, reading[number], 0)

    async def tell(self, offsets: Mapping[int, int]) -> None:
        self.told.update(offsets)
