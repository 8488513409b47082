"""`orgs topics accept`: let the relay go on behind what a foreign program wrote on its topics.

The relay's position record says where its own transactions ended in each partition; behind one of these it found a
record that nobody of us wrote, and publishes nothing since. The run writes the position once more, and up to where each
partition was looked at: the relay looks from there on. It has the relay's transactional id for that, so what it reads
and writes is exact.
"""

import asyncio
import time
from collections.abc import Mapping
from typing import Any, ClassVar, Final

from org_service import probes
from org_service.errors import PreconditionError
from org_service.kafka import relay_position
from org_service.kafka.client import TopicPartition
from org_service.kafka.producer import Producer, UnknownFateError, unknown_fate
from org_service.kafka.record_batches import TopicBatches
from org_service.kafka.traces import Foreign, look, of_the_relay_alone
from org_service.operate.operation import Execution, Plan, Tally
from org_service.probes import probe
from org_service.settings import Settings
from org_service.wire.position import PARTITION, Position, Published, TopicEnds

_TRIES: Final = 10
"""The relay tries again, too, and whoever comes later fences the other."""
_TRY_WAIT_S: Final = 0.3


class AcceptWrites:
    """What is foreign up to some offsets of partitions is accepted."""

    kind: ClassVar[str] = "accept writes"

    def __init__(self, settings: Settings, parameters: Mapping[str, Any]) -> None:
        self._settings = settings
        self._ends: dict[str, int] = dict(parameters["ends"])
        """By `topic/partition`."""

    @classmethod
    async def make(cls, settings: Settings) -> "AcceptWrites":
        """Make one for what is there now.

        Raises:
            TopicsMissingError: A topic does not exist.
            UnknownFateError: Kafka can't be read.
        """
        topics = of_the_relay_alone(settings.kafka.topics)
        producer = _producer(settings, "accept")
        try:
            counts = await producer.connect(topics)
            places = [TopicPartition(topic, number) for topic in topics for number in range(counts[topic])]
            async with unknown_fate("ListOffsets"):
                ends = await producer.logs.find_ends(places)
        finally:
            await producer.close()
        return cls(settings, {"ends": {_name(at): end for at, end in ends.items()}})

    @property
    def resource(self) -> str:
        """The relay's position."""
        return "relay position"

    @property
    def parameters(self) -> Mapping[str, Any]:
        """Up to where in each partition."""
        return {"ends": self._ends}

    async def plan(self) -> Plan:
        """List the foreign records: the first one of each batch."""
        kafka = self._settings.kafka
        producer = _producer(self._settings, "accept")
        try:
            await producer.connect((*of_the_relay_alone(kafka.topics), kafka.topics.relay))
            end = await producer.find_end(TopicPartition(kafka.topics.relay, PARTITION))
            last = await relay_position.read(kafka, kafka.topics.relay, self._settings.relay.name, end)
            found = await self._find(producer, last)
        finally:
            await producer.close()
        if not found:
            raise PreconditionError(
                "there is nothing to accept: behind the relay's own records there are none that it does not know."
            )
        tally = Tally()
        for each in found:
            tally.add(f"{each.topic} {each.partition} {each.offset}".encode(), lambda each=each: _shown(each))
        return tally.plan(
            {},
            [
                "Stop the program that wrote them first, and take its right to write: only the relay's login needs it.",
                "The records stay. Subscribers that follow the contract may have failed on them, or taken them in.",
            ],
        )

    async def run(self, execution: Execution) -> None:
        """Write the position, unless that was done."""
        if execution.progress is not None:
            return
        accepted = await self._try_to_accept(execution)
        if probes.listeners:
            await probe("operate.after_publish")
        await execution.record("accepted", {"accepted": accepted})

    async def _try_to_accept(self, execution: Execution) -> int:
        for _ in range(_TRIES - 1):
            try:
                return await self._accept(execution)
            except UnknownFateError:
                await asyncio.sleep(_TRY_WAIT_S)
        return await self._accept(execution)

    async def _accept(self, execution: Execution) -> int:
        kafka, name = self._settings.kafka, self._settings.relay.name
        producer = _producer(self._settings, name)
        try:
            async with unknown_fate("beginning"), asyncio.timeout(self._settings.relay.publish_timeout_s):
                await producer.start((*of_the_relay_alone(kafka.topics), kafka.topics.relay))
                end = await producer.find_end(TopicPartition(kafka.topics.relay, PARTITION))
                last = await relay_position.read(kafka, kafka.topics.relay, name, end)
            await execution.record(execution.progress, {})  # what was fenced may be a successor: see whose run this is
            found = await self._find(producer, last)
            if found:
                assert last is not None
                if probes.listeners:
                    await probe("operate.before_publish")
                async with unknown_fate("the transaction"), asyncio.timeout(self._settings.relay.publish_timeout_s):
                    await producer.publish(self._accepting(last, found))
            return execution.items
        finally:
            await producer.close()

    def _accepting(self, last: Published, found: list[Foreign]) -> dict[TopicPartition, Any]:
        looked = {topic: dict(each) for topic, each in (last.looked or {}).items()}
        for each in found:
            end = self._ends[_name(TopicPartition(each.topic, each.partition))]
            looked.setdefault(each.topic, {})[each.partition] = end
        now = last.partitioning
        said = Position(
            position=last.position,
            command_id=last.command_id,
            recorded_at=last.recorded_at,
            ends=last.ends,
            looked=looked,
            behind=last.behind,
            **({} if now is None else now._asdict()),
        )
        batches: dict[TopicPartition, Any] = {}
        own = TopicBatches(self._settings.kafka.topics.relay, 1, batches, int(time.time() * 1000))
        own.append(self._settings.relay.name.encode(), PARTITION, said.to_value(), [])
        return batches

    async def _find(self, producer: Producer, last: Published | None) -> list[Foreign]:
        """What is foreign behind the relay's own records, up to what was planned."""
        found: list[Foreign] = []
        topics = self._settings.kafka.topics
        ends: Mapping[str, TopicEnds] = {} if last is None or last.ends is None else last.ends
        looked: Mapping[str, Mapping[int, int]] = {} if last is None or last.looked is None else last.looked
        for topic in of_the_relay_alone(topics):
            for number, own in enumerate(() if topic not in ends else ends[topic].ends):
                at = TopicPartition(topic, number)
                start, end = looked.get(topic, {}).get(number, own), self._ends.get(_name(at), 0)
                if start is not None and start < end:
                    async with unknown_fate("reading the log"):
                        found += (await look(producer.logs, topics, at, (start, end))).foreign
        return found


def _producer(settings: Settings, name: str) -> Producer:
    return Producer(settings.kafka, f"{settings.kafka.topic_prefix}{name}", settings.relay.transaction_timeout_ms)


def _name(at: TopicPartition) -> str:
    return f"{at.topic}/{at.partition}"


def _shown(each: Foreign) -> Mapping[str, Any]:
    return {**each._asdict(), "written_at": each.written_at.isoformat(timespec="milliseconds")}
