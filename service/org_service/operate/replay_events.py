"""`orgs replay events`: changes go out again as they went out before, from the journal.

Same key, partition, body, headers and `ce_id`; one header more names the run. To a topic made for it, to a named one,
or in place, onto `orgs.events`; never onto `orgs.state`, where an old record would win at the next compaction.

Each step is a Kafka transaction that holds the run's position on `orgs.relay` too, as the relay's own do. So a run that
was killed continues exactly where Kafka stands, whatever Postgres knows of it, and a reader of committed records sees
each event of a run once.
"""

import asyncio
import dataclasses
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from secrets import token_hex
from typing import Any, ClassVar, Final, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

from org_events.topics import TopicSpec
from org_service import probes
from org_service.domain.outcomes import JournaledOutcome
from org_service.errors import PreconditionError
from org_service.kafka import relay_position, topics
from org_service.kafka.client import TopicPartition
from org_service.kafka.producer import Batches, Producer, unknown_fate
from org_service.kafka.record_batches import RecordBatch, TopicBatches
from org_service.operate import grow_topics
from org_service.operate.changes import Selection
from org_service.operate.operation import SAMPLE_MAX, Execution, Plan, Tally, open_database
from org_service.probes import probe
from org_service.settings import Settings
from org_service.store.database import Database
from org_service.wire.changes import RUN_HEADER, encode
from org_service.wire.position import PARTITION, Position
from org_service.wire.results import format_rfc3339

STEP_EVENTS_MAX: Final = 8_000
"""In one transaction of Kafka."""
_GIVE_WAY: Final = 200
"""Events encoded before other tasks get their turn."""

Where = Literal["fresh", "named", "in_place"]


class Parameters(BaseModel):
    """What makes a replay again."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    selection: Selection
    topic: str
    where: Where


class ReplayEvents:
    """A replay of events."""

    kind: ClassVar[str] = "replay events"

    def __init__(self, settings: Settings, parameters: Mapping[str, Any]) -> None:
        self._settings = settings
        self._asked = Parameters.model_validate(parameters)

    @classmethod
    async def make(cls, settings: Settings, selection: Selection, topic: str, where: Where) -> "ReplayEvents":
        """Make one whose selection ends where the journal ends now.

        Args:
            settings: Of the servers.
            selection: Which events.
            topic: Its whole name, prefix included.
            where: `fresh`: the topic is made for it; `named`: it is there; `in_place`: it is `orgs.events`.

        Raises:
            PreconditionError: The topic can't be one for events.
        """
        _see_topic(settings, topic, where)
        database = Database(settings.database, "operate", direct=True)
        pinned = await selection.pinned(database)
        return cls(settings, Parameters(selection=pinned, topic=topic, where=where).model_dump(mode="json"))

    @property
    def resource(self) -> str:
        """The topic: two replays into one would mix. In place it must not grow meanwhile, either."""
        if self._asked.where == "in_place":
            return grow_topics.RESOURCE
        return f"topic {self._asked.topic}"

    @property
    def parameters(self) -> Mapping[str, Any]:
        """Selection and topic."""
        return self._asked.model_dump(mode="json")

    async def plan(self) -> Plan:
        """Count the events, and see that the topic is as it must be."""
        tally, selection = Tally(), self._asked.selection
        async with open_database(self._settings) as database:
            shown: dict[int, Mapping[str, Any]] = {}
            async for found in selection.read_ids(database):
                if len(shown) < SAMPLE_MAX:
                    first, _ = await selection.read(database, found[0][0] - 1, SAMPLE_MAX)
                    shown.update((row.position, _shown(row)) for row in first)
                for position, command_id in found:
                    tally.add(b"%d %b" % (position, command_id.bytes), partial(shown.__getitem__, position))
            emptied = await selection.count_emptied(database)
        partitions = await topics.count_partitions(self._settings.kafka, self._asked.topic)
        now = await self._count()
        expected = None if self._asked.where == "fresh" else now
        if partitions != expected:
            raise PreconditionError(_wrong_topic(self._asked, partitions, now))
        facts = {"topic": self._asked.topic, "partitions of the topic": partitions}
        notes = [f"positions {selection.from_position:,} to {selection.to_position:,}, to {self._asked.topic}"]
        if emptied:
            notes.append(
                f"{emptied:,} changes are left out: their organizations were erased; only org.erased is sent of each."
            )
        if self._asked.where == "in_place":
            notes.append(
                "in place: every subscriber gets them again, with the ids and versions that it has seen; one that "
                "skips versions it has does nothing."
            )
        return tally.plan(facts, notes)

    async def run(self, execution: Execution) -> None:
        """Send what was not sent yet, a transaction a step."""
        kafka = self._settings.kafka
        if self._asked.where == "fresh":
            await topics.create(kafka, [self._spec(await self._count())])
        name = f"{kafka.topic_prefix}replay.{execution.run_id}"
        producer = Producer(kafka, name, self._settings.relay.transaction_timeout_ms)
        sending = _Sending(self._settings, self._asked, execution, producer)
        try:
            async with open_database(self._settings) as database:
                await sending.send_all(database)
        finally:
            await producer.close()

    async def _count(self) -> int:
        """The partitions that `orgs.events` must have now."""
        return (await relay_position.read_partitioning(self._settings.kafka, self._settings.relay.name)).partitions

    def _spec(self, partitions: int) -> TopicSpec:
        kafka = self._settings.kafka
        specs = kafka.topics.specs(partitions=partitions, events_retention_ms=kafka.events_retention_ms)
        events = next(spec for spec in specs if spec.name == kafka.topics.events)
        return dataclasses.replace(events, name=self._asked.topic)


class _Step(NamedTuple):
    """What one transaction publishes."""

    events: int
    batches: Batches
    at: int
    """The last position that it accounts for."""


class _Sending:
    """One life of the producer of a replay."""

    def __init__(self, settings: Settings, asked: Parameters, execution: Execution, producer: Producer) -> None:
        self._settings = settings
        self._asked = asked
        self._execution = execution
        self._producer = producer
        self._key = f"replay {execution.run_id}"
        """Of the run's records on `orgs.relay`."""
        self._header = (RUN_HEADER, str(execution.run_id).encode())

    async def send_all(self, database: Database) -> None:
        asked, execution, topic = self._asked, self._execution, self._settings.kafka.topics.relay
        async with unknown_fate("beginning"), asyncio.timeout(self._settings.relay.publish_timeout_s):
            partitions = (await self._producer.start((asked.topic, topic)))[asked.topic]
            end = await self._producer.find_end(TopicPartition(topic, PARTITION))
            last = await relay_position.read(self._settings.kafka, topic, self._key, end)
        await execution.record(execution.progress, {})  # what was fenced may be a successor: see whose run this is
        at = int(execution.progress or asked.selection.from_position - 1)
        if last is not None and last.position > at:
            # Killed between the two: Kafka has a step that Postgres doesn't know of.
            sent = [len(found) async for found in asked.selection.read_ids(database, at, last.position)]
            at = last.position
            await execution.record(at, {"sent": sum(sent)})
        while at < _end(asked):
            at = await self._send(database, partitions, at)

    async def _send(self, database: Database, partitions: int, at: int) -> int:
        """Send what is behind a position, until a lower rate asks for smaller steps. Returns how far it is."""
        # Two ahead of Kafka: while a step is published the next one is encoded, and the one behind that is read.
        async with aclosing(self._prepare(database, partitions, at)) as steps:
            ahead = asyncio.create_task(anext(steps, None))
            try:
                while (step := await ahead) is not None and step.events <= self._step_max:
                    ahead = asyncio.create_task(anext(steps, None))
                    if step.events:
                        await self._publish(step.batches)
                    at = step.at
                    await self._execution.record(at, {"sent": step.events})
            finally:
                ahead.cancel()
                await asyncio.gather(ahead, return_exceptions=True)
        return at

    async def _publish(self, batches: Batches) -> None:
        if probes.listeners:
            await probe("operate.before_publish")
        async with unknown_fate("the transaction"), asyncio.timeout(self._settings.relay.publish_timeout_s):
            await self._producer.publish(batches)
        if probes.listeners:
            await probe("operate.after_publish")

    @property
    def _step_max(self) -> int:
        return self._execution.step_max(STEP_EVENTS_MAX)

    async def _prepare(self, database: Database, partitions: int, at: int) -> AsyncGenerator[_Step]:
        selection, end = self._asked.selection, _end(self._asked)
        reading = asyncio.create_task(selection.read(database, at, self._step_max))
        try:
            while at < end:
                rows, at = await reading
                if at < end:
                    reading = asyncio.create_task(selection.read(database, at, self._step_max))
                yield _Step(len(rows), await self._encode(rows, partitions, at), at)
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    async def _encode(self, rows: Sequence[JournaledOutcome], partitions: int, at: int) -> Batches:
        now_ms = int(time.time() * 1000)
        batches: dict[TopicPartition, list[RecordBatch]] = {}
        events = TopicBatches(self._asked.topic, partitions, batches, now_ms)
        for number, row in enumerate(rows, 1):
            key, key_hash, _, event, _ = encode(row)
            assert event is not None
            value, headers = event
            events.append(key, key_hash, value, [*headers, self._header])
            if number % _GIVE_WAY == 0:
                await asyncio.sleep(0)
        own = TopicBatches(self._settings.kafka.topics.relay, 1, batches, now_ms)
        own.append(self._key.encode(), PARTITION, Position(position=at).to_value(), [])
        return batches


def fresh_topic(settings: Settings) -> str:
    """A name for a topic that is made for a replay, which no other one has."""
    return f"{settings.kafka.topics.events}.replay-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{token_hex(2)}"


def _end(asked: Parameters) -> int:
    assert asked.selection.to_position is not None
    return asked.selection.to_position


def _shown(row: JournaledOutcome) -> Mapping[str, Any]:
    return {
        "position": row.position,
        "org_id": str(row.org_id),
        "version": row.version,
        "type": row.event_type,
        "recorded_at": format_rfc3339(row.recorded_at).decode(),
    }


def _see_topic(settings: Settings, topic: str, where: Where) -> None:
    ours = {spec.name for spec in settings.kafka.topics.specs()}
    if where == "in_place":
        ours.remove(settings.kafka.topics.events)
    if topic in ours:
        raise PreconditionError(
            f"{topic} is no place for a replay: to send events again on {settings.kafka.topics.events} itself, say "
            "--in-place; otherwise name another topic."
        )


def _wrong_topic(asked: Parameters, found: int | None, wanted: int) -> str:
    if asked.where == "fresh":
        return f"{asked.topic} exists already: name another topic, or say --to {asked.topic} to add to it."
    if found is None:
        return f"{asked.topic} does not exist: leave --to out and a topic is made."
    return f"{asked.topic} has {found} partitions, not {wanted}: the events of an organization would be on another one."
