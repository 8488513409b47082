"""Where the relay's transactions left each partition, and what the next one finds there (guarantee 11).

Only the relay writes events and state, so the broker's answer to each batch is foretold: its first record stands where
the former transaction ended, its marker included. An offset below that says that the broker lost what it had
acknowledged. The transaction is not committed then, and `audit` sees what is missing. An offset above it says that
somebody else wrote: a replay of ours, an aborted transaction, or a program that has no business there. Results are
written by workers, too; there only what is lost is looked for.

Where somebody else wrote, a loss may hide below it; then our former transaction is looked for before the commit. And
where the connection to a broker was gone meanwhile, in all partitions: others may have written just as much as was
lost, and in those that have no news a lost marker keeps subscribers waiting. What others
wrote is looked at soon after: a replay in place writes fast, and must not wait. Until then the position record
says up to where it was looked at (`looked`), so that a relay that starts looks from there. Declined: to keep the former
end in it instead. What the partition lost of the transaction behind others' records would be missed by nobody then.

Declined: asking for the ends before each transaction, a round trip in which nothing is sent; a check of leader epochs
alone (KIP-320), which calls each election a loss unless records are compared.
"""

import asyncio
import time
from collections.abc import Collection, Iterator, Mapping
from functools import partial
from typing import Final, NamedTuple
from uuid import UUID

from org_service import probes
from org_service.kafka.client import TopicPartition
from org_service.kafka.producer import Batches, Producer, UnknownFateError, Written, unknown_fate
from org_service.kafka.record_batches import RecordBatch
from org_service.kafka.traces import is_of_relay, look, of_the_relay_alone
from org_service.probes import probe
from org_service.relay.chunks import Layout
from org_service.telemetry.metrics import RELAY_FOREIGN
from org_service.wire.position import PARTITION, Position, TopicEnds, by_topic

_LOOK_AGAIN_S: Final = 0.2
"""Where an open transaction hides what follows it."""


class LostError(UnknownFateError):
    """The broker lost what it acknowledged; nothing was committed after it.

    Attributes:
        places: Partitions that lost something.
    """

    def __init__(self, places: Mapping[TopicPartition, str]) -> None:
        shown = "; ".join(f"{at.topic}, partition {at.partition} {why}" for at, why in sorted(places.items()))
        super().__init__(f"Kafka lost records that it had acknowledged: {shown}", "lost")
        self.places = frozenset(places)


class Known(NamedTuple):
    """What is known of the partitions when a producer begins."""

    ids: Mapping[str, UUID]
    """Of the data topics."""
    ends: Mapping[TopicPartition, int]
    """The next offset of each partition, that of the relay's own topic included."""
    own: Mapping[TopicPartition, int]
    """The offset after the relay's last record there, where that is known; its marker follows."""
    looked: Mapping[TopicPartition, int]
    """Up to where it is known what others wrote, where that isn't the relay's own end."""


class Ends:
    """The ends of the partitions, for one life of a producer."""

    def __init__(self, producer: Producer, layout: Layout, known: Known) -> None:
        self._producer = producer
        self._layout = layout
        self._ids = known.ids
        self._next = dict(known.ends)
        self._own: dict[str, list[int | None]] = {
            topic: [known.own.get(TopicPartition(topic, number)) for number in range(layout.partitions[topic])]
            for topic in known.ids
        }
        self._relay = TopicPartition(layout.topics.relay, PARTITION)
        self._relay_own: int | None = None
        self._looked = dict(known.looked)
        """Up to where it is known what others wrote: less than the own end while nobody has looked at the rest, more
        where it was looked at before."""
        self._unexplained: dict[TopicPartition, int] = {}
        """Up to where somebody else wrote, and nobody has looked yet."""
        self._found = asyncio.Event()

    async def publish(self, batches: Batches, position: Position) -> None:
        """Publish batches and the position record in one transaction.

        Raises:
            LostError: Kafka lost records; nothing was committed.
            UnknownFateError: As `Producer.publish`.
        """
        after = {at: self._next[at] + sum(each.records for each in some) for at, some in batches.items()}
        after[self._relay] = self._next[self._relay] + 1

        async def check(written: Mapping[TopicPartition, Written]) -> Batches:
            more = await self._check(written, after, position)
            if probes.listeners:
                await probe("relay.before_commit")
            return more

        if probes.listeners:
            await probe("relay.before_publish")
        own = self._record(position, after)
        # guarantee 4: the position is part of the transaction, so it and the events stand or fall together.
        await self._producer.publish({**batches, self._relay: [own]}, check)
        if probes.listeners:
            await probe("relay.after_publish")
        self._next.update((at, end + 1) for at, end in after.items())  # the marker
        self._relay_own = after.pop(self._relay)
        for at, end in after.items():
            self._own[at.topic][at.partition] = end
            if at not in self._unexplained:
                self._looked.pop(at, None)

    async def _check(
        self, written: Mapping[TopicPartition, Written], after: dict[TopicPartition, int], position: Position
    ) -> Batches:
        lost: dict[TopicPartition, str] = {}
        others: dict[TopicPartition, int] = {}
        for at, (first, end, records) in written.items():
            expected = self._next[at]
            if first < expected:
                lost[at] = f"from offset {first} to {expected}"
            elif end != expected + records:
                others[at], after[at] = expected, end
        if not lost and (others or self._producer.moved):
            lost = await self._find_hidden({*others, *(self._places() if self._producer.moved else ())})
        if lost:
            raise LostError(lost)
        for at, expected in others.items():
            if at.topic in of_the_relay_alone(self._layout.topics):
                own = self._own[at.topic][at.partition]  # others may have written before its marker
                self._looked.setdefault(at, expected if own is None else own)
                self._unexplained[at] = written[at].first
                self._found.set()
        if not others.keys() - {self._relay}:
            return {}
        after[self._relay] += 1
        return {self._relay: [self._record(position, after)]}

    async def _find_hidden(self, doubtful: Collection[TopicPartition]) -> dict[TopicPartition, str]:
        """Where the end of our former transaction is gone, below what somebody else wrote."""
        ends = {at: self._relay_own if at == self._relay else self._own[at.topic][at.partition] for at in doubtful}
        known = {at: end for at, end in ends.items() if end is not None}
        broken = await self._producer.find_broken(known, partial(is_of_relay, self._layout.topics))
        return {at: f"before offset {ends[at]}" for at in broken}

    def _places(self) -> Iterator[TopicPartition]:
        yield self._relay
        for topic, ends in self._own.items():
            yield from (TopicPartition(topic, number) for number in range(len(ends)))

    def _record(self, position: Position, after: Mapping[TopicPartition, int]) -> RecordBatch:
        own = {topic: list(ends) for topic, ends in self._own.items()}
        for at, end in after.items():
            if at != self._relay:
                own[at.topic][at.partition] = end
        ends = {topic: TopicEnds(self._ids[topic], each) for topic, each in own.items()}
        looked = {at: offset for at, offset in self._looked.items() if at in self._unexplained or at not in after}
        told = {"ends": ends, "looked": by_topic(looked.items())}
        return make_position_batch(self._layout, position.model_copy(update=told))

    async def explain(self) -> None:
        """Look at what others wrote, forever.

        Raises:
            UnknownFateError: Somebody writes who must not.
        """
        while True:
            await self._found.wait()
            self._found.clear()
            for at, end in list(self._unexplained.items()):
                async with unknown_fate("reading the log"):
                    seen = await look(self._producer.logs, self._layout.topics, at, (self._looked[at], end))
                if seen.foreign:
                    RELAY_FOREIGN.labels(at.topic).inc()
                    raise UnknownFateError(seen.foreign[0].explain(), "foreign")
                self._close(at, seen.end, end)
            if self._unexplained:
                self._found.set()
                await asyncio.sleep(_LOOK_AGAIN_S)

    def _close(self, at: TopicPartition, seen: int, end: int) -> None:
        if seen >= end == self._unexplained[at]:
            del self._unexplained[at], self._looked[at]
        else:
            self._looked[at] = seen


def make_position_batch(layout: Layout, position: Position) -> RecordBatch:
    """The batch of a position record."""
    batch = RecordBatch()
    batch.add(0, int(time.time() * 1000), layout.relay.encode(), position.to_value(), [])
    batch.records = 1
    return batch
