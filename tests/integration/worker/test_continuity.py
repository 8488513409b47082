"""Logs that lost something under a worker, or while none ran, on a real broker: read on where it is right, and said."""

import asyncio
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from confluent_kafka import OFFSET_INVALID, Consumer, KafkaException, Producer
from confluent_kafka import TopicPartition as Place

import org_local
from org_events.commands import UpdateOrganization
from org_service.settings import Settings
from org_service.telemetry.metrics import COMMANDS_LOST, RECORDS_SKIPPED
from org_service.worker import commands
from org_service.worker.continuity import Note
from org_service.worker.worker import Worker
from tests.integration.worker.running import running
from tests.support import log_faults
from tests.support.records import record_of
from tests.support.waiting import until

pytestmark = pytest.mark.integration

ORG = UUID("7d5a2b10-4c8e-4a53-9f0f-2f6a3a0b9c11")


@pytest.fixture(autouse=True)
def _looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "LOOK_S", 0.2)


async def send(settings: Settings, number: int, partition: int = 0) -> list[UUID]:
    """So many commands, each in a batch of its own; their ids. What they ask for is rejected: no such organization."""
    producer = Producer({"bootstrap.servers": settings.kafka.bootstrap_servers, "acks": "all", "log_level": 2})
    ids = [uuid4() for _ in range(number)]
    for command_id in ids:
        record = record_of(UpdateOrganization(org_id=ORG, name="New"), command_id)
        topic = settings.kafka.topics.commands
        producer.produce(topic, record.value, record.key, partition, headers=list(record.headers))
        assert await asyncio.to_thread(producer.flush, 20) == 0
    return ids


async def until_decided(database: asyncpg.Connection, ids: list[UUID]) -> None:
    await until(lambda: database.fetchval("SELECT count(*) FROM journal WHERE command_id = ANY($1)", ids), len(ids), 40)


async def until_committed(settings: Settings, offset: int, partition: int = 0) -> None:
    group = f"{settings.kafka.topic_prefix}{settings.worker.group_id}"
    config: dict[str, Any] = {"bootstrap.servers": settings.kafka.bootstrap_servers, "group.id": group, "log_level": 2}
    consumer = Consumer(config)
    at = [Place(settings.kafka.topics.commands, partition)]

    def is_committed() -> bool:
        try:
            return consumer.committed(at, 20)[0].offset == offset
        except KafkaException:  # a broker that has just started coordinates nothing yet
            return False

    await until(lambda: asyncio.to_thread(is_committed))
    consumer.close()


async def lost(database: asyncpg.Connection) -> list[tuple[Any, ...]]:
    rows = await database.fetch("SELECT partition, from_offset, to_offset, why FROM lost_range ORDER BY id")
    return [tuple(row) for row in rows]


def counted(why: str) -> float:
    return COMMANDS_LOST.labels(why)._value.get()


async def test_commands_deleted_before_they_were_read_are_noted_down_and_the_later_ones_decided(
    settings: Settings, database: asyncpg.Connection
) -> None:
    kafka, topic, before = settings.kafka, settings.kafka.topics.commands, counted("expired")
    ids = await send(settings, 3)
    async with running(settings):
        await until_decided(database, ids)
        await until_committed(settings, 3)
    await send(settings, 4)
    await asyncio.to_thread(log_faults.delete_records, kafka.bootstrap_servers, topic, {0: 7})
    later = await send(settings, 1)
    async with running(settings) as worker:
        await until_decided(database, later)
        assert "orgs lost" in await worker.checks()["log"]()
    assert await lost(database) == [(0, 3, 7, "expired")]
    assert counted("expired") == before + 1
    async with running(settings):  # said once
        await until_decided(database, await send(settings, 1))
    assert await lost(database) == [(0, 3, 7, "expired")]


async def test_a_truncated_log_that_was_continued_is_read_from_the_truncation(
    settings: Settings, database: asyncpg.Connection, stack: org_local.Stack
) -> None:
    """Committed 12, ends at 9, new commands at 9 to 13: a consumer goes on at 12, and 9, 10 and 11 wait for ever."""
    ids = await send(settings, 12)
    async with running(settings):
        await until_decided(database, ids)
        await until_committed(settings, 12)
    await asyncio.to_thread(log_faults.cut_tail, stack, settings.kafka.topics.commands, 0, 9)
    new = await send(settings, 5)
    async with running(settings):
        await until_decided(database, new)
        await until_committed(settings, 14)
    assert await lost(database) == [(0, 9, 12, "truncated")]
    rows = await database.fetch("SELECT command_offset FROM journal WHERE command_id = ANY($1) ORDER BY position", new)
    assert [row[0] for row in rows] == [9, 10, 11, 12, 13]
    assert await database.fetchval("SELECT count(*) FROM journal") == 17


async def test_a_log_truncated_while_a_worker_runs_is_noticed(
    settings: Settings, database: asyncpg.Connection, stack: org_local.Stack
) -> None:
    """Nothing new yet, so the offset lies beyond the end: it is no reason to read 14 days again.

    In many partitions at once: to look for what isn't there must not take its time for each of them.
    """
    kafka = settings.kafka.model_copy(update={"request_timeout_ms": 12_000})
    topic, partitions = settings.kafka.topics.commands, range(3)
    async with running(settings.model_copy(update={"kafka": kafka})):
        for partition in partitions:
            await until_decided(database, await send(settings, 6, partition))
            await until_committed(settings, 6, partition)
        await asyncio.to_thread(log_faults.cut_tails, stack, {(topic, partition): 4 for partition in partitions})
        for partition in partitions:
            await until_committed(settings, 4, partition)
            await until_decided(database, await send(settings, 3, partition))
    assert sorted(await lost(database)) == [(partition, 4, 6, "truncated") for partition in partitions]


async def test_a_broker_restart_without_loss_has_no_effect(
    settings: Settings, database: asyncpg.Connection, stack: org_local.Stack
) -> None:
    async with running(settings):
        await until_decided(database, await send(settings, 3))
        await until_committed(settings, 3)
        await asyncio.to_thread(stack.kafka.restart)
        await until_decided(database, await send(settings, 3))
        await until_committed(settings, 6)
    assert await lost(database) == []


async def test_a_coordinator_that_is_still_loading_is_waited_for(
    settings: Settings, database: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It answers for no partition, which is not "nothing was committed": all of the topic would be read again."""
    async with running(settings):
        await until_decided(database, await send(settings, 3))
        await until_committed(settings, 3)
    ask, loading = AIOKafkaAdminClient.list_consumer_group_offsets, iter([{}, {}])

    async def asked(self: AIOKafkaAdminClient, *args: Any, **options: Any) -> Any:
        answer = next(loading, None)
        return await ask(self, *args, **options) if answer is None else answer

    monkeypatch.setattr(AIOKafkaAdminClient, "list_consumer_group_offsets", asked)
    before = RECORDS_SKIPPED.labels("redelivered")._value.get()
    async with running(settings):
        await until_decided(database, await send(settings, 1))
    assert RECORDS_SKIPPED.labels("redelivered")._value.get() == before


async def test_a_topic_that_is_deleted_and_created_again_under_a_worker_is_read_from_its_beginning(
    settings: Settings, database: asyncpg.Connection
) -> None:
    """The new one is longer than the old one at once: a consumer would go on in its middle."""
    kafka, topic = settings.kafka, settings.kafka.topics.commands
    [spec] = [each for each in kafka.topics.specs(partitions=3) if each.name == topic]
    async with running(settings) as worker:
        await until_decided(database, await send(settings, 2))
        await until_committed(settings, 2)
        await asyncio.to_thread(log_faults.delete_topic, kafka.bootstrap_servers, topic)
        await until(lambda: _fails(worker, "log", "does not exist"))
        await asyncio.to_thread(log_faults.create_topic, kafka.bootstrap_servers, topic, 3, spec.config)
        async with asyncio.timeout(30):
            await until_decided(database, await send(settings, 4))
        assert "where it was read" in await worker.checks()["log"]() or await lost(database)


async def _fails(worker: Worker, check: str, message: str) -> bool:
    try:
        await worker.checks()[check]()
    except Exception as error:
        return message in str(error)
    return False


async def test_a_commit_for_a_recreated_topic_is_not_trusted(settings: Settings, database: asyncpg.Connection) -> None:
    """Kafka forgets commits with their topic, but a worker that hung commits once more when it wakes up."""
    kafka, topic = settings.kafka, settings.kafka.topics.commands
    [spec] = [each for each in kafka.topics.specs(partitions=3) if each.name == topic]
    group = f"{kafka.topic_prefix}{settings.worker.group_id}"
    servers = kafka.bootstrap_servers
    async with AIOKafkaConsumer(bootstrap_servers=servers, group_id=group, enable_auto_commit=False) as late:
        late.assign([at := TopicPartition(topic, 0)])
        await late.commit({at: 1})
        await asyncio.to_thread(log_faults.recreate_topic, kafka.bootstrap_servers, topic, 3, spec.config)
        await until_committed(settings, OFFSET_INVALID)  # forgotten some time after the topic
        await late.commit({at: (2, Note(uuid4(), 0, (1_700_000_000_000, 7)).to_text())})
    ids = await send(settings, 4)
    async with running(settings):
        await until_decided(database, ids)
    assert await lost(database) == [(0, 2, None, "recreated")]


@pytest.mark.parametrize("found", [1, 6])
async def test_commands_wait_without_a_restart_until_their_topic_has_its_partitions_again(
    settings: Settings, database: asyncpg.Connection, found: int
) -> None:
    kafka, topic = settings.kafka, settings.kafka.topics.commands
    [spec] = [each for each in kafka.topics.specs(partitions=3) if each.name == topic]
    servers = kafka.bootstrap_servers
    async with running(settings) as worker:
        await until_decided(database, await send(settings, 1))
        if found > 3:
            await asyncio.to_thread(log_faults.add_partitions, servers, topic, found)
        else:
            await asyncio.to_thread(log_faults.recreate_topic, servers, topic, found, spec.config)
        await until(lambda: _fails(worker, "log", f"{topic} has {found} partitions, not 3"))
        waiting = await send(settings, 3) + await send(settings, 3, found - 1)
        await until(lambda: _fails(worker, "log", "`orgs topics apply --dry-run`"))
        assert await database.fetchval("SELECT count(*) FROM journal") == 1
        await asyncio.to_thread(log_faults.recreate_topic, servers, topic, 3, spec.config)
        await until_decided(database, await send(settings, 2, 2))
    assert await database.fetchval("SELECT count(*) FROM journal WHERE command_id = ANY($1)", waiting) == 0


async def test_commands_wait_while_a_reference_topic_has_more_partitions(
    settings: Settings, database: asyncpg.Connection
) -> None:
    """Guarantee 8: a right that is revoked now is on a partition that nobody reads."""
    kafka, topic = settings.kafka, settings.kafka.topics.staff
    [spec] = [each for each in kafka.topics.specs(partitions=3) if each.name == topic]
    async with running(settings) as worker:
        await until_decided(database, await send(settings, 1))
        await asyncio.to_thread(log_faults.add_partitions, kafka.bootstrap_servers, topic, 6)
        await until(lambda: _fails(worker, "log", f"{topic} has 6 partitions, not 3"))
        ids = await send(settings, 3)
        await until(lambda: _fails(worker, "reference", f"{topic} has 6 partitions, not 3"))
        assert await database.fetchval("SELECT count(*) FROM journal") == 1
        await asyncio.to_thread(log_faults.recreate_topic, kafka.bootstrap_servers, topic, 3, spec.config)
        await until_decided(database, ids)
        await until(lambda: _answers(worker, "reference"), "9 partitions")


async def _answers(worker: Worker, check: str) -> str:
    try:
        return await worker.checks()[check]()
    except Exception as error:
        return str(error)
