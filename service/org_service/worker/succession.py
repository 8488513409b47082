"""Order per organization where `orgs.commands` has grown: a new partition is read after the one its keys come from.

With n partitions grown to a multiple of n, what is on a new partition p now was on p modulo n, its *parent*, before.
Publishers hear of it at different times, within minutes: some still send to the parent what others send to p. Each of
them moves once, from the parent to p. So whatever one of them sent before a record on p lies before the end that the
parent has once that record was read; and the record waits until the group has committed that end. Broker's clocks,
and what publishers wait for, don't matter.

This costs a new partition the latency of a batch of its parent, until every publisher must have moved: a record that
came so long after the first one on its partition waits a last time, and then the partition is free.

Declined: to read no new partition until all must have moved (half of the organizations would wait for a quarter of an
hour); to compare the times of records (brokers' clocks differ); any number that is no multiple (keys would move between
old partitions, and no record would say to which side of the growth it belongs).
"""

import time
from collections.abc import Collection
from typing import Any, Final, NamedTuple, cast

from org_events.kafka.consumer import SteadyConsumer
from org_events.kafka.epochs import UNKNOWN, fetch_epoch_ends
from org_events.kafka.topic_ids import describe
from org_service.kafka.client import KafkaError, TopicPartition
from org_service.kafka.offsets import read_committed
from org_service.kafka.reader import groupless_consumer, holds_records
from org_service.settings import KafkaSettings
from org_service.wire.position import CLIENTS_KNOW_S, Partitioning
from org_service.worker.feed import Batches

LOOK_S: Final = 0.05
"""Between looks at how far a parent is: a few requests each."""
MARKERS_AFTER_S: Final = 1.0
"""When a parent that goes on no further is looked into: the last offsets before its end may be markers alone."""


class _Waiting(NamedTuple):
    """What is not handed out yet of a new partition."""

    until: int
    """Its offset behind the records that wait."""
    end: int
    """Of the parent, after these were read: the group must have committed it."""
    last: bool
    """Whether the partition is free then."""


class Succession:
    """Hands out records of new partitions after those of their parents."""

    def __init__(self, kafka: KafkaSettings, group: str) -> None:
        self._kafka = kafka
        self._group = group
        self._parents = 0
        """Partitions below this have none; 0 where the topic has never grown."""
        self._free: set[TopicPartition] = set()
        self._first_ms: dict[TopicPartition, int] = {}
        """Of each new partition, when its first record came."""
        self._allowed: dict[TopicPartition, int] = {}
        """Of each new partition, up to which offset its records may go."""
        self._waiting: dict[TopicPartition, _Waiting] = {}
        self._since_s = self._looked_s = 0.0

    @property
    def waiting(self) -> bool:
        """Whether a partition waits."""
        return bool(self._waiting)

    def begin(self, partitioning: Partitioning) -> None:
        """Hear how the topic has grown, and that every partition was put where the group has committed."""
        if self._parents != (partitioning.grown_from or 0):
            self._parents = partitioning.grown_from or 0
            self._free.clear()
        self._allowed.clear()
        self._waiting.clear()

    async def admit(self, consumer: SteadyConsumer, batches: Batches) -> Batches:
        """What of a poll may be handed out now; the rest is left where it is, and its partitions pause.

        Raises:
            KafkaError: Nobody knows; nothing was handed out, and the positions must be found again.
        """
        new = [at for at in batches if self._parents and at.partition >= self._parents and at not in self._free]
        held = {at: rest for at in new if (rest := [each for each in batches[at] if self._is_held(at, each.offset)])}
        if not held:
            return batches
        parents = {at: TopicPartition(at.topic, at.partition % self._parents) for at in held}
        ends = await self._ends(consumer, set(parents.values()))
        admitted = dict(batches)
        for at, rest in held.items():
            last = rest[0].timestamp >= await self._first(consumer, at) + CLIENTS_KNOW_S * 1000
            self._waiting[at] = _Waiting(rest[-1].offset + 1, ends[parents[at]], last)
            consumer.pause(at)
            consumer.seek(at, rest[0].offset)
            admitted[at] = batches[at][: len(batches[at]) - len(rest)]
            if not admitted[at]:
                del admitted[at]
        self._since_s = self._looked_s = time.monotonic()
        return admitted

    async def _ends(self, consumer: SteadyConsumer, parents: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        """Where the logs end, whatever is committed: behind an open transaction there may be others' records."""
        topic = next(iter(parents)).topic
        now = (await describe(consumer, [topic]))[topic]
        epochs, leaders = ({at: of[at.partition] for at in parents} for of in (now.epochs, now.leaders))
        ends = await fetch_epoch_ends(consumer, epochs, leaders)
        if UNKNOWN in ends.values():
            raise KafkaError("the end of a partition is not known now")
        return dict(ends)

    def _is_held(self, at: TopicPartition, offset: int) -> bool:
        return offset >= self._allowed.get(at, 0)

    async def _first(self, consumer: SteadyConsumer, at: TopicPartition) -> int:
        if at not in self._first_ms:
            found = cast("dict[TopicPartition, Any]", await consumer.offsets_for_times({at: 0}))
            self._first_ms[at] = int(found[at].timestamp)
        return self._first_ms[at]

    async def look(self) -> Collection[TopicPartition]:
        """The partitions that may go on now.

        Raises:
            KafkaError: Nobody knows; nothing is changed.
        """
        now_s = time.monotonic()
        if not self._waiting or now_s < self._looked_s + LOOK_S:
            return ()
        self._looked_s = now_s
        parents = {at: TopicPartition(at.topic, at.partition % self._parents) for at in self._waiting}
        committed = await read_committed(self._kafka, self._group, set(parents.values()))
        reached = {at: max(0, committed[parent].offset) for at, parent in parents.items()}
        go = {at for at, each in self._waiting.items() if reached[at] >= each.end}
        if not go and now_s > self._since_s + MARKERS_AFTER_S:
            self._since_s = now_s
            until_s = now_s + MARKERS_AFTER_S

            async def goes_on() -> bool:
                return time.monotonic() < until_s

            async with groupless_consumer(self._kafka) as consumer:
                for at, each in self._waiting.items():
                    short, end = {parents[at]: reached[at]}, {parents[at]: each.end}
                    if not await holds_records(consumer, short, end, goes_on):
                        go.add(at)
        for at in go:
            waiting = self._waiting.pop(at)
            self._allowed[at] = waiting.until
            if waiting.last:
                self._free.add(at)
        return go
