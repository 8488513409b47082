"""`orgs topics grow` while commands flow: each change once and in order, whatever is killed and when."""

import asyncio
import time
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from threading import Event
from typing import Any

import asyncpg
import pytest
from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition

from org_service.domain.reasons import OperationState
from org_service.errors import PreconditionError
from org_service.operate import grow_topics, runs
from org_service.operate.grow_topics import GrowTopics
from org_service.probes import Point
from org_service.relay import relay
from org_service.settings import Settings
from org_service.store.operations import Operation
from org_service.telemetry.metrics import RELAY_REBUILDS
from org_service.worker import commands
from tests.support import log_faults, relaying
from tests.support.idle import wait_until_idle
from tests.support.killing import until_abandoned
from tests.support.observed import LOG_LEVEL
from tests.support.operating import Orgs, Service
from tests.support.partitioner import partition_of
from tests.support.probing import Killed, kill, probing
from tests.support.relaying import changes, journal
from tests.support.sending import binary
from tests.support.topics import read_topic
from tests.support.verified import find_differences
from tests.support.waiting import until

pytestmark = pytest.mark.integration

ORGS = 60
"""Of each publisher."""
STILL = 30
"""Organizations that are created before the growth, and don't change after it."""
RATE = 2_000
"""Commands a second, of both publishers together."""
SLOW = 400
"""The same where it is about what is killed, and when."""
STEP_S = 0.02


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grow_topics, "CLIENTS_KNOW_S", 1.0)
    monkeypatch.setattr(relay, "PARTITIONS_LOOK_S", 0.3)
    monkeypatch.setattr(commands, "LOOK_S", 0.3)


class Flow:
    """Two publishers that hear of new partitions at different times, each with organizations of its own.

    Each sends a command when the broker has the one before of the same organization: else not even Kafka has an order.
    """

    def __init__(self, settings: Settings, rate: int) -> None:
        self._topic = settings.kafka.topics.commands
        self._step = round(rate * STEP_S / 2)
        self.partitions: list[set[int]] = [set(), set()]
        """That each publisher has sent to."""
        self._pending: set[str] = set()
        self._failed: list[KafkaError] = []
        """What Kafka did not take, and why; the publisher has tried again and again by then."""
        config: dict[str, Any] = {
            "bootstrap.servers": settings.kafka.bootstrap_servers,
            "enable.idempotence": True,
            "partitioner": "murmur2_random",
            "linger.ms": 2,
            "log_level": LOG_LEVEL,
        }
        self._publishers = [
            Producer({**config, "topic.metadata.refresh.interval.ms": refresh_ms}) for refresh_ms in (200, 3_000)
        ]
        self._orgs = [[str(uuid.uuid4()) for _ in range(ORGS)] for _ in self._publishers]
        self.places: dict[str, tuple[int | None, int | None]] = {}
        """Of each command that Kafka has taken: partition and offset."""
        self.sent: dict[str, list[str]] = defaultdict(list)
        """Of each organization, the ids of its commands, in order."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        self._task.cancel()
        [ended] = await asyncio.gather(self._task, return_exceptions=True)
        for publisher in self._publishers:
            assert await asyncio.to_thread(publisher.flush, 60) == 0
        assert isinstance(ended, asyncio.CancelledError), ended
        assert self._failed == []

    async def _run(self) -> None:
        for _ in range(STILL):
            self._send(0, str(uuid.uuid4()))
        began_s, step = time.monotonic(), 0
        while True:
            for number, orgs in enumerate(self._orgs):
                for each in range(self._step):
                    self._send(number, orgs[(step * self._step + each) % ORGS])
            step += 1
            await asyncio.sleep(max(0.0, began_s + step * STEP_S - time.monotonic()))

    def _send(self, number: int, org_id: str) -> None:
        publisher = self._publishers[number]
        publisher.poll(0)
        if org_id in self._pending:
            return
        sent, command_id = self.sent[org_id], str(uuid.uuid4())
        command = binary(command_id, "org.update" if sent else "org.create", org_id, name=f"{org_id} {len(sent)}")

        def answered(error: KafkaError | None, message: Message) -> None:
            if error is not None:
                self._failed.append(error)
                return
            self.partitions[number].add(message.partition() or 0)
            self.places[command_id] = (message.partition(), message.offset())
            self._pending.discard(org_id)

        self._pending.add(org_id)
        publisher.produce(self._topic, command.value, command.key, headers=list(command.headers), callback=answered)
        sent.append(command_id)


class Subscriber:
    """A group of one, with another client, that applies events as they come and commits behind them."""

    def __init__(self, settings: Settings) -> None:
        self.versions: dict[str, list[int]] = defaultdict(list)
        self._stop = Event()
        self._topic = settings.kafka.topics.events
        config: dict[str, Any] = {
            "bootstrap.servers": settings.kafka.bootstrap_servers,
            "group.id": f"{settings.kafka.topic_prefix}subscriber",
            "isolation.level": "read_committed",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "topic.metadata.refresh.interval.ms": 500,
            "log_level": LOG_LEVEL,
        }
        self._task = asyncio.create_task(asyncio.to_thread(self._run, config))

    def _run(self, config: dict[str, Any]) -> None:
        consumer = Consumer(config)
        consumer.subscribe([self._topic])
        while not self._stop.is_set():
            messages = consumer.consume(2_000, 0.1)
            for message in messages:
                assert message.error() is None, message.error()
                headers = dict(message.headers() or [])
                self.versions[(message.key() or b"").decode()].append(int(headers["ce_orgversion"] or 0))
            if messages:
                consumer.commit(asynchronous=False)
        consumer.close()

    def is_through(self, wanted: dict[str, int]) -> bool:
        return all(len(self.versions[org_id]) >= versions for org_id, versions in wanted.items())

    async def stop(self) -> None:
        self._stop.set()
        await self._task


@asynccontextmanager
async def flowing(settings: Settings, service: Service, rate: int = SLOW) -> AsyncIterator[tuple[Flow, Subscriber]]:
    service.start("worker", "relay")
    flow, subscriber = Flow(settings, rate), Subscriber(settings)
    try:
        await until(lambda: sum(map(len, subscriber.versions.values())) > rate)
        yield flow, subscriber
    finally:
        await flow.stop()
        await subscriber.stop()


async def planned(settings: Settings, partitions: int = 6) -> Operation:
    tool = await GrowTopics.make(settings, partitions, [])
    operation, _ = await runs.keep_plan(settings, tool, requested_by="alice", reason="a test")
    return operation


def counts(settings: Settings) -> list[int]:
    kafka = settings.kafka
    return [log_faults.count_partitions(kafka.bootstrap_servers, topic) for topic in kafka.topics.data]


async def assert_exact(
    settings: Settings, database: asyncpg.Connection, flow: Flow, subscriber: Subscriber, partitions: int
) -> None:
    """Each command has taken effect once, in the order in which it was sent, and subscribers saw just that."""
    await until(lambda: all(max(each) >= settings.kafka.partitions for each in flow.partitions))
    await flow.stop()
    await wait_until_idle(settings, 60)
    rows = await database.fetch("SELECT org_id, command_id, version FROM journal ORDER BY position")
    decided: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        decided[str(row["org_id"])].append(str(row["command_id"]))
    assert await database.fetch("SELECT * FROM parked") == []
    assert describe(decided, flow) == {}
    wanted = {org_id: len(sent) for org_id, sent in flow.sent.items()}
    await until(lambda: subscriber.is_through(wanted))
    assert subscriber.versions == {org_id: list(range(1, count + 1)) for org_id, count in wanted.items()}
    assert await find_differences(settings) == []
    moved = [each for each in wanted if partition_of(each.encode(), partitions) >= settings.kafka.partitions]
    assert moved
    folded: dict[int, dict[bytes | None, bytes | None]] = defaultdict(dict)
    for message in await read_topic(settings, settings.kafka.topics.state):
        assert {name for name, _ in message.headers() or ()} >= {"ce_orgversion", "ce_position"}
        folded[message.partition() or 0][message.key()] = message.value()
    astray = {
        key
        for partition, organizations in folded.items()
        for key, value in organizations.items()
        if value is not None and partition_of(key or b"", partitions) != partition
    }
    assert astray == set()


def describe(decided: dict[str, list[str]], flow: Flow) -> dict[str, tuple[list[int], list[object]]]:
    """Of each organization whose commands were decided otherwise than sent: which, and where on Kafka others are."""
    return {
        org_id: (
            [flow.sent[org_id].index(each) for each in decided[org_id]],
            [flow.places.get(each) for each in flow.sent[org_id] if each not in decided[org_id]],
        )
        for org_id in decided.keys() | flow.sent.keys()
        if decided[org_id] != flow.sent[org_id]
    }


async def test_topics_grow_while_commands_flow(
    settings: Settings, service: Service, database: asyncpg.Connection
) -> None:
    """The relay, which tries to begin again all the while, doesn't take its transactional id back."""
    operation = await planned(settings)
    publishing = 0

    async def take_long(*_: Any) -> None:
        nonlocal publishing
        publishing += 1
        await until_the_relay_tried(2)

    async with flowing(settings, service, RATE) as (flow, subscriber):
        with probing("operate.before_publish", take_long):
            done = await runs.run(settings, operation.id)
        assert publishing == 1
        assert (done.state, done.counts) == (OperationState.DONE, {"grown": 4})
        await assert_exact(settings, database, flow, subscriber, 6)
        assert await asyncio.to_thread(counts, settings) == [6, 6, 6, 6]
    # Processes that start later, with the former setting, take the number from Kafka.
    await service.stop()
    service.start("worker", "relay")
    await wait_until_idle(settings, 30)


async def until_the_relay_tried(times: int) -> None:
    """Until the relay has found so many times that the topics have another number of partitions."""
    tried = RELAY_REBUILDS.labels("partitions")._value
    before = tried.get()
    await until(lambda: tried.get() >= before + times)


async def test_a_growth_waits_until_groups_have_read_what_is_before_it(settings: Settings) -> None:
    topic, group = settings.kafka.topics.events, f"{settings.kafka.topic_prefix}billing"
    head = await journal(settings, changes(20))
    consumer = Consumer({"bootstrap.servers": settings.kafka.bootstrap_servers, "group.id": group})

    def ends() -> dict[int, int]:
        return log_faults.ends(settings.kafka.bootstrap_servers, topic, [0, 1, 2])

    def commit(offsets: dict[int, int]) -> None:
        at = [TopicPartition(topic, partition, offset) for partition, offset in offsets.items()]
        consumer.commit(offsets=at, asynchronous=False)

    async with relaying.running(settings) as run:
        await run.published(head)
        # The events, and on each partition the mark of their transaction, which comes a moment later.
        await until(lambda: sum(ends().values()), 20 + 3)
        await asyncio.to_thread(commit, dict.fromkeys(ends(), 0))
        tool = await GrowTopics.make(settings, 6, [])
        operation, plan = await runs.keep_plan(settings, tool, requested_by="alice", reason="a test")
        assert f"consumer group {group} is 23 offsets behind" in plan.notes
        reached: list[str] = []

        async def note(*_: Any) -> None:
            reached.append("published")

        with probing("operate.before_publish", note):
            growing = asyncio.create_task(runs.run(settings, operation.id))
            await until_the_relay_tried(4)
            reached.append("read")
            # Behind its last record there is the mark of a transaction.
            await asyncio.to_thread(commit, {partition: max(0, end - 1) for partition, end in ends().items()})
            assert (await growing).state == OperationState.DONE
        assert reached == ["read", "published"]
    consumer.close()


@pytest.mark.parametrize("leave_behind", [True, False])
async def test_a_group_that_reads_nothing_is_not_waited_for(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, leave_behind: bool
) -> None:
    """At once where the operator says so, after a moment otherwise."""
    monkeypatch.setattr(grow_topics, "GROUPS_WAIT_S", 100.0 if leave_behind else 0.1)
    topic, group = settings.kafka.topics.events, f"{settings.kafka.topic_prefix}gone"
    head = await journal(settings, changes(20))
    consumer = Consumer({"bootstrap.servers": settings.kafka.bootstrap_servers, "group.id": group})
    async with relaying.running(settings) as run:
        await run.published(head)
        at = [TopicPartition(topic, partition, 0) for partition in range(3)]
        await asyncio.to_thread(lambda: consumer.commit(offsets=at, asynchronous=False))
        tool = await GrowTopics.make(settings, 6, [group] if leave_behind else [])
        operation, _ = await runs.keep_plan(settings, tool, requested_by="alice", reason="a test")
        assert (await runs.run(settings, operation.id)).state == OperationState.DONE
        await run.published(await journal(settings, changes(5, after=20)))
    consumer.close()


KILLED_AT: tuple[Point, ...] = (
    "operate.after_take",
    "operate.topics_grown",
    "operate.before_publish",
    "operate.after_publish",
    "operate.commands_grown",
)


async def test_a_growth_that_is_killed_at_each_point_is_finished_as_if_it_had_not_been(
    settings: Settings, service: Service, database: asyncpg.Connection
) -> None:
    impatient = settings.model_copy(update={"operate": settings.operate.model_copy(update={"lease_s": 1})})
    operation = await planned(impatient)
    async with flowing(settings, service) as (flow, subscriber):
        for point in KILLED_AT:
            with probing(point, kill_there), pytest.raises(Killed):
                await runs.run(impatient, operation.id)
            await until_abandoned(impatient, operation.id)
        done = await runs.run(impatient, operation.id)
        assert (done.state, done.counts) == (OperationState.DONE, {"grown": 4})
        await assert_exact(settings, database, flow, subscriber, 6)


async def kill_there(*_: Any) -> None:
    await kill()


async def test_partitions_that_somebody_added_by_hand_are_taken_over(
    settings: Settings, service: Service, database: asyncpg.Connection
) -> None:
    """Workers wait, and publishers send to the new partitions already."""
    kafka = settings.kafka
    async with flowing(settings, service) as (flow, subscriber):
        for topic in (kafka.topics.commands, kafka.topics.events):
            await asyncio.to_thread(log_faults.add_partitions, kafka.bootstrap_servers, topic, 6)
        before = sum(map(len, flow.sent.values()))
        await until(lambda: sum(map(len, flow.sent.values())) > before + SLOW)
        done = await runs.run(settings, (await planned(settings)).id)
        assert done.state == OperationState.DONE
        await assert_exact(settings, database, flow, subscriber, 6)


async def test_the_plan_says_what_grows_and_who_is_behind(orgs: Orgs, settings: Settings) -> None:
    await journal(settings, changes(20))
    said = await orgs("topics", "grow", "--partitions", "6")
    assert "4 items" in said.stdout
    assert "Kafka cannot take partitions away again." in said.stdout
    assert "nothing was changed" in said.stderr
    assert await asyncio.to_thread(counts, settings) == [3, 3, 3, 3]


@pytest.mark.parametrize("partitions", [2, 3, 4, 1_002])
async def test_only_a_multiple_of_the_present_number_can_be_had(
    orgs: Orgs, settings: Settings, partitions: int
) -> None:
    refused = await orgs("topics", "grow", "--partitions", str(partitions), code=1)
    assert "can grow to a multiple of that (6, 9, 12, …)" in " ".join(refused.stderr.split())
    assert await asyncio.to_thread(counts, settings) == [3, 3, 3, 3]


async def test_a_topic_with_yet_another_number_stops_the_plan(settings: Settings) -> None:
    kafka = settings.kafka
    await asyncio.to_thread(log_faults.add_partitions, kafka.bootstrap_servers, kafka.topics.results, 5)
    with pytest.raises(PreconditionError, match="has 5 partitions, neither 3 nor 6"):
        await planned(settings)


async def test_topics_grow_once_at_a_time(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Publishers that have not heard of the first growth would be two steps behind."""
    monkeypatch.setattr(grow_topics, "CLIENTS_KNOW_S", 0.1)
    await runs.run(settings, (await planned(settings)).id)
    monkeypatch.setattr(grow_topics, "CLIENTS_KNOW_S", 60.0)
    with pytest.raises(PreconditionError, match="grew 0 minutes ago"):
        await planned(settings, 12)
