"""`orgs topics grow`: more partitions for the four topics of organizations, while commands flow.

A key belongs on another partition then, so what is old on one partition comes before what is new on another. In order:

1. `orgs.results`, `orgs.events` and `orgs.state` grow. The relay sees it within seconds and waits.
2. The run takes the relay's transactional id: the relay is fenced, and what it published ends at a position. Consumer
   groups get a moment to read up to there.
3. Every organization that moves gets its record on `orgs.state` once more, on its new partition.
4. A record of the relay's position says how many partitions there are. It is the moment of the growth: whoever reads it
   (relay, workers, processes that start) takes the new number, without a restart.
5. `orgs.commands` grows. Workers read a new partition behind the one its keys come from (`worker.succession`).
6. When every client must know, tombstones replace the records that organizations left behind on `orgs.state`.

Killed before 4, the topics have a number that nobody takes: the relay waits until the run is resumed, and workers go
on. All of it may be done twice. While the run has the transactional id nothing else publishes, so 3 is exact; where a
relay that was about to begin took it back, 2 begins again.

The number must be a multiple of the present one: then every key stays, or moves to a new partition, and a new partition
has its keys from one old one alone. That is what workers and subscribers order by.
"""

import asyncio
import time
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Final, Literal

from pydantic import BaseModel, ConfigDict

from org_events.kafka.topic_ids import describe
from org_service import probes
from org_service.errors import PreconditionError, RetryError
from org_service.kafka import relay_position, topics
from org_service.kafka.client import TopicPartition
from org_service.kafka.offsets import read_groups
from org_service.kafka.producer import Producer, unknown_fate
from org_service.kafka.reader import ends, groupless_consumer, holds_records, read_until
from org_service.kafka.record_batches import RecordBatch, TopicBatches
from org_service.kafka.told_ends import find_lost, read_ends
from org_service.operate.operation import LOOK_INTERVAL_S, Execution, Plan, Tally
from org_service.probes import probe
from org_service.settings import Settings
from org_service.telemetry.logs import get_logger
from org_service.wire.changes import hash_key
from org_service.wire.position import CLIENTS_KNOW_S, PARTITION, Partitioning, Position, Published

log = get_logger(__name__)

RESOURCE: Final = "topics"
"""Of all of them, and of whatever publishes on one of them with the number of partitions that it began with."""
PARTITIONS_MAX: Final = 1_000
"""As of `ORGS_KAFKA__PARTITIONS`."""
GROUPS_WAIT_S: Final = 30.0
"""For consumer groups to read up to the growth. Nothing is published meanwhile, so one that hangs isn't waited for: it
gets the same records, and keeps their order as the contract says."""
STEP_RECORDS_MAX: Final = 4_000
"""In one transaction of Kafka."""

_Kept = tuple[bytes | None, Sequence[tuple[str, bytes]]]
"""Value and headers of the last record of a key."""


class Parameters(BaseModel):
    """What makes a growth again."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    partitions: int
    grown_from: int
    leave_behind: tuple[str, ...] = ()


class GrowTopics:
    """More partitions for the data topics."""

    kind: ClassVar[str] = "grow topics"

    def __init__(self, settings: Settings, parameters: Mapping[str, Any]) -> None:
        self._settings = settings
        self._asked = Parameters.model_validate(parameters)

    @classmethod
    async def make(cls, settings: Settings, partitions: int, leave_behind: Sequence[str]) -> "GrowTopics":
        """Make one that begins with the partitions there are.

        Args:
            settings: Of the servers.
            partitions: That each data topic shall have.
            leave_behind: Consumer groups that are not waited for.
        """
        now = await relay_position.read_partitioning(settings.kafka, settings.relay.name)
        asked = Parameters(partitions=partitions, grown_from=now.partitions, leave_behind=tuple(leave_behind))
        return cls(settings, asked.model_dump(mode="json"))

    @property
    def resource(self) -> str:
        """All of them."""
        return RESOURCE

    @property
    def parameters(self) -> Mapping[str, Any]:
        """From how many to how many."""
        return self._asked.model_dump(mode="json")

    async def plan(self) -> Plan:
        """See how many partitions there are, and who reads the topics."""
        before, after = self._asked.grown_from, self._asked.partitions
        now = await relay_position.read_partitioning(self._settings.kafka, self._settings.relay.name)
        _see_multiple(before, after)
        _see_time(now)
        tally, facts = Tally(), {"partitions in use": now.partitions}
        for topic in self._settings.kafka.topics.data:
            found = await topics.count_partitions(self._settings.kafka, topic)
            if found not in (before, after):
                raise PreconditionError(
                    f"{topic} has {found or 0} partitions, neither {before} nor {after}: `orgs topics apply --dry-run` "
                    "says what can be done."
                )
            facts[topic] = found
            row = {"topic": topic, "partitions": found, "becomes": after}
            tally.add(f"{topic} {found} {after}".encode(), lambda row=row: row)
        return tally.plan(facts, [*_NOTES, *await self._explain_groups()])

    async def run(self, execution: Execution) -> None:
        """Let them grow, from wherever it is."""
        kafka, asked = self._settings.kafka, self._asked
        now = await relay_position.read_partitioning(kafka, self._settings.relay.name)
        if now.partitions != asked.partitions:
            now = await self._switch(execution)
        await self._note(execution, "switched", {"grown": 3})
        await topics.add_partitions(kafka, (kafka.topics.commands,), asked.partitions)
        if probes.listeners:
            await probe("operate.commands_grown")
        await self._note(execution, "grown", {"grown": 1})
        due = (now.grown_at or datetime.now(UTC)) + timedelta(seconds=CLIENTS_KNOW_S)
        while datetime.now(UTC) < due:
            await execution.pace(0)
            await asyncio.sleep(LOOK_INTERVAL_S)
        producer = self._producer(f"grow.{execution.run_id}")
        try:
            async with unknown_fate("beginning"), asyncio.timeout(self._settings.relay.publish_timeout_s):
                await producer.start((kafka.topics.state,))
            await execution.record(execution.progress, {})
            for partition in range(asked.grown_from):
                moved = (await self._read_moved(partition)).items()
                left = [(key, partition, None, _place(headers)) for key, (value, headers) in moved if value is not None]
                await self._publish(execution, producer, left)
        finally:
            await producer.close()

    async def _note(
        self, execution: Execution, reached: Literal["switched", "grown"], counts: Mapping[str, int]
    ) -> None:
        order = (None, "switched", "grown")
        if order.index(execution.progress) < order.index(reached):
            await execution.record(reached, counts)

    async def _switch(self, execution: Execution) -> Partitioning:
        """Publish over the new partitions from here on."""
        kafka, asked, names = self._settings.kafka, self._asked, self._settings.kafka.topics
        grown = (names.results, names.events, names.state)
        await self._see_whole(grown)
        await topics.add_partitions(kafka, grown, asked.partitions)
        if probes.listeners:
            await probe("operate.topics_grown")
        producer = self._producer(self._settings.relay.name)
        try:
            async with unknown_fate("beginning"), asyncio.timeout(self._settings.relay.publish_timeout_s):
                counts = await producer.start((*grown, names.relay))
                if any(counts[topic] != asked.partitions for topic in grown):
                    raise RetryError("the new partitions are not known everywhere yet")
                end = await producer.find_end(TopicPartition(names.relay, PARTITION))
                last = await relay_position.read(kafka, names.relay, self._settings.relay.name, end)
            await execution.record(execution.progress, {})  # what was fenced may be a successor: see whose run this is
            now = relay_position.get_partitioning(kafka, last)
            if now.partitions == asked.partitions:
                return now
            await self._see_position(last)
            await self._wait_for_groups(execution)
            for partition in range(asked.grown_from):
                moved = await self._read_moved(partition)
                await self._publish(execution, producer, [(key, hash_key(key), *kept) for key, kept in moved.items()])
            if probes.listeners:
                await probe("operate.before_publish")
            position = 0 if last is None else last.position
            switched = Partitioning(asked.partitions, asked.grown_from, datetime.now(UTC), position)
            await self._send(producer, self._position(last, switched))
            if probes.listeners:
                await probe("operate.after_publish")
            return switched
        finally:
            await producer.close()

    async def _see_whole(self, grown: Collection[str]) -> None:
        """See that Kafka lost nothing of what moves: the relay sends it again to where it was, not to where it belongs.

        Once a topic has grown it is too late to wait for that: the relay waits, too.

        Raises:
            RetryError: It did, and the relay has not sent it again yet.
        """
        kafka, names = self._settings.kafka, self._settings.kafka.topics
        producer = self._producer("grow")
        try:
            async with unknown_fate("reading"), asyncio.timeout(self._settings.relay.publish_timeout_s):
                counts = await producer.connect((*grown, names.relay))
                end = await producer.find_end(TopicPartition(names.relay, PARTITION))
                last = await relay_position.read(kafka, names.relay, self._settings.relay.name, end)
                ids = {topic: each.topic_id for topic, each in (await describe(producer, [*grown])).items()}
                told = read_ends(last, ids)
                lost = await find_lost(producer, names, told, await producer.logs.find_bounds(told))
        finally:
            await producer.close()
        if probes.listeners:
            await probe("operate.ends_found")
        behind = {} if last is None else last.behind or {}
        if (lost or behind) and all(counts[topic] == self._asked.grown_from for topic in grown):
            raise RetryError(_NOT_WHOLE.format(topics=", ".join(sorted({at.topic for at in lost} | behind.keys()))))

    async def _see_position(self, last: Published | None) -> None:
        kafka = self._settings.kafka
        if last is None and await relay_position.is_published(kafka, kafka.topics.events, self._asked.grown_from):
            raise PreconditionError(
                f"{kafka.topics.relay} has no position of the relay: start the relay, it says more."
            )

    async def _wait_for_groups(self, execution: Execution) -> None:
        """Wait for whoever commits, so that as few as possible see both sides of the growth at once."""
        until_s = time.monotonic() + GROUPS_WAIT_S
        while (lag := await self._measure_lag()) and time.monotonic() < until_s:
            await execution.pace(0)
            await asyncio.sleep(LOOK_INTERVAL_S)
        if lag:
            log.warning("consumer groups have yet to read what was published before the growth", groups=sorted(lag))

    async def _measure_lag(self) -> dict[str, int]:
        """Of each group that is waited for and has not read everything, how many offsets it is behind."""
        kafka, names = self._settings.kafka, self._settings.kafka.topics
        at = [
            TopicPartition(topic, partition)
            for topic in (names.results, names.events, names.state)
            for partition in range(self._asked.grown_from)
        ]
        behind: dict[str, int] = {}
        async with groupless_consumer(kafka) as consumer:
            now = await ends(consumer, at)
            for group, committed in (await read_groups(kafka, at)).items():
                short = {each: offset for each, offset in committed.items() if offset < now[each]}
                if group not in self._asked.leave_behind and await holds_records(consumer, short, now):
                    behind[group] = sum(now[each] - offset for each, offset in short.items())
        return behind

    async def _explain_groups(self) -> list[str]:
        lag = await self._measure_lag()
        return [f"consumer group {group} is {offsets:,} offsets behind" for group, offsets in sorted(lag.items())]

    async def _read_moved(self, partition: int) -> dict[bytes, _Kept]:
        """The last record of each key of an old partition of `orgs.state` that belongs on a new one; all in memory."""
        at = TopicPartition(self._settings.kafka.topics.state, partition)
        found: dict[bytes, _Kept] = {}
        async with groupless_consumer(self._settings.kafka) as consumer:
            consumer.assign([at])
            await consumer.seek_to_beginning(at)
            async for records in read_until(consumer, await ends(consumer, [at])):
                for record in records:
                    hashed = hash_key(record.key or b"")
                    # What an earlier growth left there belongs elsewhere by the former number, too.
                    if hashed % self._asked.grown_from == partition != hashed % self._asked.partitions:
                        found[record.key or b""] = record.value, record.headers
        return found

    async def _publish(
        self,
        execution: Execution,
        producer: Producer,
        records: Sequence[tuple[bytes, int, bytes | None, Sequence[tuple[str, bytes]]]],
    ) -> None:
        """Publish on `orgs.state`: key, what gives its partition, value, headers; in transactions of a bounded size."""
        now_ms = int(time.time() * 1000)
        for first in range(0, len(records), STEP_RECORDS_MAX):
            batches: dict[TopicPartition, list[RecordBatch]] = {}
            state = TopicBatches(self._settings.kafka.topics.state, self._asked.partitions, batches, now_ms)
            for key, number, value, headers in records[first : first + STEP_RECORDS_MAX]:
                state.append(key, number, value, list(headers))
            await self._send(producer, batches)
            await execution.pace(0)

    async def _send(self, producer: Producer, batches: Mapping[TopicPartition, Sequence[RecordBatch]]) -> None:
        async with unknown_fate("the transaction"), asyncio.timeout(self._settings.relay.publish_timeout_s):
            await producer.publish(batches)

    def _position(self, last: Published | None, now: Partitioning) -> dict[TopicPartition, list[RecordBatch]]:
        position, command_id, recorded_at = (0, None, None) if last is None else last[:3]
        said = Position(
            position=position,
            command_id=command_id,
            recorded_at=recorded_at,
            # What Kafka lost before this is still to be missed by the relay. Of the new partitions it finds the ends.
            ends=None if last is None else last.ends,
            looked=None if last is None else last.looked,
            behind=None if last is None else last.behind,
            **now._asdict(),
        )
        batches: dict[TopicPartition, list[RecordBatch]] = {}
        own = TopicBatches(self._settings.kafka.topics.relay, 1, batches, int(time.time() * 1000))
        own.append(self._settings.relay.name.encode(), PARTITION, said.to_value(), [])
        return batches

    def _producer(self, name: str) -> Producer:
        kafka = self._settings.kafka
        return Producer(kafka, f"{kafka.topic_prefix}{name}", self._settings.relay.transaction_timeout_ms)


_NOT_WHOLE: Final = (
    "Kafka lost records of {topics}. The relay sends them again with the next change, or when it is restarted; the "
    "growth waits for that."
)
_NOTES: Final = (
    "The relay waits for some seconds; commands go on being decided. No process has to be restarted, and "
    "ORGS_KAFKA__PARTITIONS stays as it is.",
    "Readers of orgs.state must skip records on another partition than their key's (docs/contract.md, Growth). The run "
    "removes them 15 minutes later.",
    "Kafka cannot take partitions away again.",
)


def _place(headers: Sequence[tuple[str, bytes]]) -> Sequence[tuple[str, bytes]]:
    """Version and position, for a tombstone: no newer than what took the place of the record."""
    return [header for header in headers if header[0] in ("ce_orgversion", "ce_position")]


def _see_multiple(before: int, after: int) -> None:
    if after <= before or after % before or after > PARTITIONS_MAX:
        following = ", ".join(str(before * times) for times in (2, 3, 4) if before * times <= PARTITIONS_MAX)
        raise PreconditionError(
            f"the topics have {before} partitions, and can grow to a multiple of that ({following}, …), at most "
            f"{PARTITIONS_MAX:,}: then each new partition has its keys from one old one."
        )


def _see_time(now: Partitioning) -> None:
    if now.grown_at is not None and (since := datetime.now(UTC) - now.grown_at) < timedelta(seconds=CLIENTS_KNOW_S):
        minutes = since.total_seconds() / 60
        raise PreconditionError(f"the topics grew {minutes:.0f} minutes ago: wait until publishers know of that.")
