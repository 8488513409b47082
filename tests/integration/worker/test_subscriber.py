"""The worker's end of Kafka, on a real broker: what FastStream and aiokafka would lose, and we don't."""

import asyncio
from collections.abc import Sequence
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import CommitFailedError, UnknownTopicOrPartitionError
from confluent_kafka.admin import AdminClient
from prometheus_client import REGISTRY

from org_events.commands import CreateOrganization, UpdateOrganization
from org_events.kafka import sick
from org_events.topics import partition_for
from org_local.stack import Stack
from org_service.apply.applier import Applier
from org_service.domain.requests import Request
from org_service.errors import RetryError
from org_service.settings import Settings
from org_service.worker.subscriber import Subscriber
from org_service.worker.worker import Worker
from tests.integration.worker.publishing import committed, send
from tests.integration.worker.running import has_joined, running, said
from tests.support import log_faults, raw_batches
from tests.support.probing import probing
from tests.support.raw_batches import CODECS, Raw
from tests.support.records import FakeRecord, record_of
from tests.support.waiting import until

pytestmark = pytest.mark.integration

ONE_ID = UUID("7d5a2b10-4c8e-4a53-9f0f-2f6a3a0b9c11")


@pytest.mark.parametrize("header", [("x-note", b"\xff\xfe"), ("x-note", None), ("reply_to", b"\xff")])
async def test_a_header_that_is_not_utf8_is_accepted(
    settings: Settings, database: asyncpg.Connection, header: tuple[str, bytes | None]
) -> None:
    """FastStream's own parser raises on it, and the next commit passes the whole batch: lost in silence."""
    good = [record_of(CreateOrganization(org_id=uuid4(), name=f"Org {n}")) for n in range(10)]
    odd = record_of(CreateOrganization(org_id=uuid4(), name="Odd"))
    others = [each for each in odd.headers if each[0] != header[0]]
    odd = FakeRecord(odd.key, odd.value, [*others, header])
    await send(settings, *good[:5], odd, *good[5:])
    async with running(settings):
        await until(lambda: database.fetchval("SELECT count(*) FROM journal WHERE code = 200"), 11)
    assert await committed(settings) == 11


@pytest.mark.parametrize("codec", [raw_batches.NONE, raw_batches.GZIP])
async def test_a_header_whose_name_is_not_utf8_does_not_stop_its_partition(
    settings: Settings, database: asyncpg.Connection, codec: int
) -> None:
    """aiokafka raises while it parses the record, at every poll, and never gets past it."""
    records: list[Raw] = []
    for place in range(3):
        record = record_of(CreateOrganization(org_id=uuid4(), name=f"Org {place}"))
        headers = [(name.encode(), content) for name, content in record.headers]
        extra = [(b"\xff\xfe", b"v")] if place == 1 else []
        records.append(Raw(record.value, record.key, [*headers, *extra]))
    servers, batch = settings.kafka.bootstrap_servers, raw_batches.batch(codec, records)
    assert await raw_batches.produce(servers, settings.kafka.topics.commands, 0, batch) == 0
    async with running(settings):
        await until(lambda: database.fetchval("SELECT count(*) FROM journal WHERE code = 200"), 3)
    assert await committed(settings) == 3


async def test_unreadable_records_are_parked_and_the_rest_of_the_batch_is_applied(
    settings: Settings, database: asyncpg.Connection
) -> None:
    good = [record_of(CreateOrganization(org_id=uuid4(), name=f"Org {n}")) for n in range(6)]
    bad = [FakeRecord(b"k", b"\xff\x00", []), FakeRecord(None, None, [("ce_id", b"\xff")])]
    await send(settings, *good[:3], *bad, *good[3:])
    async with running(settings):
        await until(lambda: database.fetchval("SELECT count(*) FROM journal"), 6)
    rows = await database.fetch("SELECT topic, key, value, reason FROM parked ORDER BY value NULLS LAST")
    topic = settings.kafka.topics.commands
    assert [tuple(row) for row in rows] == [
        (topic, b"k", b"\xff\x00", "unreadable"),
        (topic, None, None, "unreadable"),
    ]


async def test_what_was_published_before_the_first_worker_started_is_not_skipped(
    settings: Settings, database: asyncpg.Connection
) -> None:
    """FastStream's default, `latest`, would begin after it."""
    await send(settings, record_of(CreateOrganization(org_id=uuid4(), name="Early")))
    async with running(settings):
        await until(lambda: database.fetchval("SELECT count(*) FROM journal"), 1)


async def test_the_consumer_has_every_setting_that_faststream_would_choose_otherwise(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its defaults lose (`latest`, acknowledged first), show what was aborted, or give up a batch after 10 s."""
    make, poll = AIOKafkaConsumer.__init__, AIOKafkaConsumer.getmany
    made: dict[str, dict[str, Any]] = {}
    polled: list[dict[str, Any]] = []

    def noting(self: AIOKafkaConsumer, *topics: str, **options: Any) -> None:
        made[options.get("group_id") or ""] = options
        make(self, *topics, **options)

    async def noting_polls(self: AIOKafkaConsumer, *partitions: TopicPartition, **options: Any) -> Any:
        polled.append(options)
        return await poll(self, *partitions, **options)

    monkeypatch.setattr(AIOKafkaConsumer, "__init__", noting)
    monkeypatch.setattr(AIOKafkaConsumer, "getmany", noting_polls)
    own = {"batch_records_max": 70, "batch_timeout_ms": 11, "fetch_wait_ms": 120, "session_timeout_ms": 9_000}
    more = {"poll_interval_max_ms": 200_000, "partition_fetch_bytes_max": 100_000}
    async with running(settings.model_copy(update={"worker": settings.worker.model_copy(update=own | more)})):
        await until(lambda: _is_there({"timeout_ms": 11, "max_records": 70}, polled), True)
    options = made[f"{settings.kafka.topic_prefix}orgs-worker"]
    wanted = {
        "enable_auto_commit": False,
        "auto_offset_reset": "none",
        "isolation_level": "read_committed",
        "session_timeout_ms": 9_000,
        "heartbeat_interval_ms": 3_000,
        "max_poll_interval_ms": 200_000,
        "rebalance_timeout_ms": 200_000,
        "max_partition_fetch_bytes": 100_000,
        "fetch_max_wait_ms": 120,
        "request_timeout_ms": 20_000,
    }
    assert {name: options.get(name) for name in wanted} == wanted


async def _is_there(wanted: dict[str, Any], options: list[dict[str, Any]]) -> bool:
    return wanted in options


async def test_nothing_is_acknowledged_before_its_commit(settings: Settings, database: asyncpg.Connection) -> None:
    """An outage in the middle of a batch, then the end of the process: the next worker finds the records."""
    await send(settings, record_of(CreateOrganization(org_id=uuid4(), name="Acme")))
    await database.execute("ALTER TABLE journal RENAME TO journal_away")
    impatient = settings.model_copy(update={"drain_timeout_s": 0.5})
    async with running(impatient) as worker:
        await until(lambda: _waits(worker))
    assert await committed(settings) == 0
    await database.execute("ALTER TABLE journal_away RENAME TO journal")
    async with running(settings):
        await until(lambda: database.fetchval("SELECT count(*) FROM journal"), 1)
    assert await committed(settings) == 1


async def _waits(worker: Worker) -> bool:
    return (await said(worker, "consumer")).startswith("the current batch waits: ")


async def test_a_refused_acknowledgement_ends_in_redelivery_not_in_loss_or_doubling(
    settings: Settings, database: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit, refusals = AIOKafkaConsumer.commit, iter([True])

    async def refusing(self: AIOKafkaConsumer, *args: Any) -> None:
        if next(refusals, False):
            raise CommitFailedError
        await commit(self, *args)

    monkeypatch.setattr(AIOKafkaConsumer, "commit", refusing)
    org_id = uuid4()
    await send(settings, record_of(CreateOrganization(org_id=org_id, name="Acme")))
    async with running(settings):
        await until(lambda: database.fetchval("SELECT count(*) FROM journal"), 1)
    async with running(settings):
        await send(settings, record_of(UpdateOrganization(org_id=org_id, domain="acme.com")))
        await until(lambda: database.fetchval("SELECT count(*) FROM journal"), 2)
    assert await committed(settings) == 2


async def test_a_defect_never_leaves_the_handler(settings: Settings, database: asyncpg.Connection) -> None:
    """FastStream would skip (or redeliver for ever, without delay) the whole batch."""

    def raising(request: Request) -> None:
        if getattr(request.command, "name", None) == "Boom":
            raise RuntimeError

    names = ["Acme", "Boom", "Globex"]
    await send(settings, *(record_of(CreateOrganization(org_id=uuid4(), name=name)) for name in names))
    with probing("apply.before_decide", raising):
        async with running(settings):
            await until(lambda: database.fetchval("SELECT count(*) FROM journal WHERE code = 200"), 2)
            await until(lambda: database.fetchval("SELECT count(*) FROM parked WHERE reason = 'handler_raised'"), 1)
    assert await committed(settings) == 3


async def test_a_failed_batch_ends_the_worker_and_neither_it_nor_a_later_one_is_acknowledged(
    settings: Settings, database: asyncpg.Connection
) -> None:
    applied = asyncio.Event()

    async def fail(records: Sequence[Any]) -> None:
        if b"Boom" in records[0].value:
            await applied.wait()
            raise RuntimeError

    async def note(_: Applier) -> None:
        applied.set()

    one_by_one = settings.model_copy(update={"worker": settings.worker.model_copy(update={"batch_records_max": 1})})
    for name in ("Boom", "Acme"):  # in one partition, so in this order
        await send(settings, record_of(CreateOrganization(org_id=ONE_ID, name=name)))
    with probing("worker.before_apply", fail), probing("apply.after_commit", note), pytest.raises(RuntimeError):
        await Worker(one_by_one).run(asyncio.Event())
    assert await database.fetchval("SELECT count(*) FROM journal") == 1
    assert await committed(settings) == 0


async def test_the_batches_in_flight_are_finished_and_acknowledged_before_the_end(
    settings: Settings, database: asyncpg.Connection
) -> None:
    one_by_one = settings.model_copy(update={"worker": settings.worker.model_copy(update={"batch_records_max": 1})})
    await send(settings, *(record_of(CreateOrganization(org_id=uuid4(), name=f"Org {n}")) for n in range(50)))
    async with running(one_by_one), database.transaction():
        await database.execute("UPDATE journal_head SET position = position")
        await until(lambda: database.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"), 1)
    journaled = await database.fetchval("SELECT count(*) FROM journal")
    assert journaled is not None
    assert journaled >= 2
    assert await committed(settings) == journaled


class Through:
    """Batches that are applied at once."""

    outage = None

    async def apply(self, records: Sequence[Any]) -> Sequence[Any]:
        return records


async def test_a_missing_topic_is_not_created(settings: Settings) -> None:
    """FastStream would make it when the subscriber starts, with settings of the broker's own."""
    prefix = f"{settings.kafka.topic_prefix}missing."
    kafka = settings.kafka.model_copy(update={"topic_prefix": prefix, "request_timeout_ms": 1_000})
    elsewhere = settings.model_copy(update={"kafka": kafka})
    subscriber = Subscriber(elsewhere, Through())
    with pytest.raises(UnknownTopicOrPartitionError):
        await subscriber.start()
    there = await asyncio.to_thread(AdminClient({"bootstrap.servers": kafka.bootstrap_servers}).list_topics, timeout=20)
    await subscriber.stop()
    assert [name for name in there.topics if name.startswith(prefix)] == []


async def test_the_worker_waits_for_kafka_and_says_so(settings: Settings) -> None:
    away = settings.model_copy(update={"kafka": settings.kafka.model_copy(update={"bootstrap_servers": "127.0.0.1:1"})})
    async with running(away) as worker:
        await until(lambda: _backing_off(worker), True)
        with pytest.raises(Exception, match="not connected"):
            await worker.checks()["kafka"]()


async def _backing_off(worker: Worker) -> bool:
    return not await has_joined(worker)


async def test_commands_are_read_however_their_publishers_compress_them(
    settings: Settings, stack: Stack, database: asyncpg.Connection
) -> None:
    for codec in CODECS:
        names = (f"{codec} {number}" for number in range(10))
        await send(settings, *(record_of(CreateOrganization(org_id=uuid4(), name=name)) for name in names), codec=codec)
    assert raw_batches.stored_codecs(stack, settings.kafka.topics.commands, 3) == {*CODECS.values()}
    async with running(settings):
        await until(lambda: database.fetchval("SELECT count(*) FROM journal WHERE code = 200"), 40)
    assert await committed(settings) == 40


@pytest.mark.parametrize("codec", ["gzip", "zstd"])
async def test_a_compression_bomb_is_parked_in_part_and_its_partition_continues(
    settings: Settings, database: asyncpg.Connection, codec: str
) -> None:
    """Unpacked, it filled the memory, and then the table."""
    bomb = raw_batches.bomb(raw_batches.CODECS[codec], 200 * 1024 * 1024)
    servers, topic = settings.kafka.bootstrap_servers, settings.kafka.topics.commands
    assert [await raw_batches.produce(servers, topic, partition, bomb) for partition in range(3)] == [0, 0, 0]
    await send(settings, *(record_of(CreateOrganization(org_id=uuid4(), name=f"Org {n}")) for n in range(10)))
    async with running(settings):
        await until(lambda: database.fetchval("SELECT count(*) FROM journal WHERE code = 200"), 10)
        await until(lambda: database.fetchval("SELECT count(*) FROM parked"), 3)
    rows = await database.fetch("SELECT reason, detail, length(value) AS bytes FROM parked")
    assert {row["reason"] for row in rows} == {"unreadable"}
    assert all("a compressed batch of 1 records, offsets 0 to 0" in row["detail"] for row in rows)
    assert all(row["bytes"] <= 131_072 for row in rows)
    assert await committed(settings) == 13


async def test_an_unreadable_batch_that_brokers_accept_is_parked_and_its_partition_continues(
    settings: Settings, database: asyncpg.Connection
) -> None:
    """A hundred bytes stopped a partition for good; what stands before the bad record is applied, what follows too."""
    command = record_of(CreateOrganization(org_id=uuid4(), name="Before"))
    own = [(name.encode(), content) for name, content in command.headers]
    batch = raw_batches.unreadable(raw_batches.Raw(command.value, command.key, own))
    servers, topic = settings.kafka.bootstrap_servers, settings.kafka.topics.commands
    partition = partition_for(command.key or b"", 3)
    assert await raw_batches.produce(servers, topic, partition, batch) == 0
    await send(settings, *(record_of(CreateOrganization(org_id=uuid4(), name=f"Org {n}")) for n in range(10)))
    async with running(settings):
        await until(lambda: database.fetchval("SELECT count(*) FROM journal WHERE code = 200"), 11)
        await until(lambda: database.fetchval("SELECT count(*) FROM parked"), 1)
    (row,) = await database.fetch('SELECT partition, "offset", reason, detail, value, value_bytes FROM parked')
    assert tuple(row)[:3] == (partition, 1, "unreadable")
    assert (
        "offsets 0 to 1: it cannot be parsed although its checksum is correct (the length of a record is wrong)"
        in row[3]
    )
    assert (row["value"], row["value_bytes"]) == (row["value"][:61], len(batch))
    assert await committed(settings) == 12


async def test_an_unreadable_partition_waits_and_is_reported_and_all_others_continue(
    settings: Settings, stack: Stack, database: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One flipped bit lost more than half of the commands of the other partitions, in silence."""
    monkeypatch.setattr(sick, "RETRY_S", 0.2)
    topic = settings.kafka.topics.commands
    for number in range(20):  # batches of their own
        await send(settings, *(record_of(CreateOrganization(org_id=uuid4(), name=f"{number} {n}")) for n in range(30)))
    ends = log_faults.ends(settings.kafka.bootstrap_servers, topic, [0])
    bad = await asyncio.to_thread(log_faults.flip_byte, stack, topic, 0, ends[0] // 2)
    readable = 600 - (ends[0] - bad.first)
    shown = {"topic": topic, "partition": "0"}
    async with running(settings) as worker:
        await until(lambda: database.fetchval("SELECT count(*) FROM journal WHERE code = 200"), readable)
        with pytest.raises(RetryError, match=f"partition 0: unreadable from offset {bad.first}: CorruptRecord"):
            await worker.checks()["consumer"]()
        assert REGISTRY.get_sample_value("orgs_consumer_partition_stuck", shown) == 1
        await send(settings, *(record_of(CreateOrganization(org_id=uuid4(), name=f"late {n}")) for n in range(30)))
        behind = log_faults.ends(settings.kafka.bootstrap_servers, topic, [0])[0] - bad.first
        await until(lambda: database.fetchval("SELECT count(*) FROM journal WHERE code = 200"), 630 - behind)
        await asyncio.to_thread(log_faults.flip_byte, stack, topic, 0, bad.first)
        await until(lambda: database.fetchval("SELECT count(*) FROM journal WHERE code = 200"), 630)
        assert REGISTRY.get_sample_value("orgs_consumer_partition_stuck", shown) is None
    assert await committed(settings) == 630
