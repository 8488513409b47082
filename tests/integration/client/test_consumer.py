"""A consumer on a broker that holds what can't be read: nothing else is lost or late, and it is said.

aiokafka's own consumer fails the tests of this module, each for the reason that its name tells.
"""

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.consumer.fetcher import Fetcher
from aiokafka.errors import (
    KafkaConnectionError,
    KafkaError,
    KafkaStorageError,
    NotLeaderForPartitionError,
    OffsetOutOfRangeError,
    TopicAuthorizationFailedError,
)

from org_events.kafka import consumer as consumer_module
from org_events.kafka import sick as sick_module
from org_events.kafka.brokers import EnduringClient
from org_events.kafka.consumer import SteadyConsumer
from org_events.kafka.sick import OnSick, Sick
from org_local.stack import Stack
from org_service.settings import Settings
from tests.support import log_faults, raw_batches
from tests.support.raw_batches import CODECS, NONE, ZSTD, Raw
from tests.support.waiting import until

pytestmark = pytest.mark.integration

PARTITIONS, BATCHES, RECORDS = 12, 3, 10
SICK = 5
OFFLINE = (2, 5, 7, 8)
"""Partitions whose offsets a broker doesn't tell."""
ALL = {(partition, offset) for partition in range(PARTITIONS) for offset in range(BATCHES * RECORDS)}
BEHIND = {(SICK, offset) for offset in range(RECORDS, BATCHES * RECORDS)}
"""What stands in the bad batch, the second one of its partition, and after it."""


@pytest.fixture
def topic(settings: Settings) -> str:
    """A topic of twelve partitions."""
    name = f"{settings.kafka.topic_prefix}twelve"
    log_faults.create_topic(settings.kafka.bootstrap_servers, name, PARTITIONS, {})
    return name


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sick_module, "RETRY_S", 0.1)
    monkeypatch.setattr(sick_module, "PATIENCE_S", 0.4)


async def fill(settings: Settings, topic: str, *, codec: str | None = None) -> None:
    """So many records in each partition, in batches."""
    async with AIOKafkaProducer(
        bootstrap_servers=settings.kafka.bootstrap_servers, compression_type=cast("Any", codec)
    ) as producer:
        for _ in range(BATCHES):
            for partition in range(PARTITIONS):
                batch = producer.create_batch()
                for number in range(RECORDS):
                    batch.append(key=b"k", value=b"%d" % number, timestamp=None)
                await producer.send_batch(batch, topic, partition=partition)
            await producer.flush()


@asynccontextmanager
async def consuming(
    settings: Settings, topic: str, *, on_sick: OnSick | None = None, **options: Any
) -> AsyncIterator[SteadyConsumer]:
    grouped = "group_id" in options
    consumer = SteadyConsumer(
        on_sick=on_sick,
        bootstrap_servers=settings.kafka.bootstrap_servers,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        **options,
    )
    if grouped:
        consumer.subscribe([topic])
    await consumer.start()
    if not grouped:
        consumer.assign([TopicPartition(topic, partition) for partition in range(PARTITIONS)])
    try:
        yield consumer
    finally:
        await consumer.stop()


async def read(consumer: SteadyConsumer, number: int, **options: Any) -> Counter[tuple[int, int]]:
    """Poll until so many records came."""
    found: Counter[tuple[int, int]] = Counter()
    try:
        async with asyncio.timeout(20):
            while found.total() < number:
                for at, records in (await consumer.getmany(timeout_ms=100, **options)).items():
                    found.update((at.partition, record.offset) for record in records)
    except TimeoutError as error:
        raise TimeoutError(f"{found.total()} of {number} records; {describe(consumer)}") from error
    return found


def describe(consumer: SteadyConsumer) -> str:
    """Where a consumer stands that gets nothing."""
    fetcher, cluster = consumer._fetcher, consumer._client.cluster
    states = {at: fetcher._subscriptions.subscription.assignment.state_value(at) for at in consumer.assignment()}
    partitions = [(at.partition, cluster.leader_for_partition(at), vars(state)) for at, state in states.items()]
    return "\n".join(
        [
            f"partitions: {partitions}",
            f"fetched: {list(fetcher._records)}; asked now: {fetcher._in_flight}, {fetcher._pending_tasks}",
            f"metadata: {consumer._client._md_update_fut}, {consumer._client._sync_task}",
            f"connections: {[(name, vars(each)) for name, each in consumer._client._conns.items()]}",
        ]
    )


async def ordered(consumer: SteadyConsumer, sick: TopicPartition, place: int) -> None:
    """Wait until all partitions are fetched, and let the next poll come to one of them at this place."""
    fetched = consumer._fetcher._records
    await until(lambda: len(fetched) >= PARTITIONS)
    others = [at for at in fetched if at != sick]
    for at in [*others[:place], sick, *others[place:]]:
        fetched.move_to_end(at)


def damage(stack: Stack, topic: str, what: str) -> None:
    """Let the second batch of one partition be unreadable, or readable again."""
    if what == "a flipped bit":
        log_faults.flip_byte(stack, topic, SICK, RECORDS, mask=1)
    else:
        before = raw_batches.set_codec(stack, topic, SICK, RECORDS, 6)
        if before == 6:
            raw_batches.set_codec(stack, topic, SICK, RECORDS, NONE)


@pytest.mark.parametrize("place", [0, 6, 11], ids=["first", "in the middle", "last"])
@pytest.mark.parametrize("what", ["a flipped bit", "an unknown codec"])
async def test_an_unreadable_batch_delays_its_partition_and_loses_nothing(
    settings: Settings, stack: Stack, topic: str, what: str, place: int, caplog: pytest.LogCaptureFixture
) -> None:
    await fill(settings, topic)
    damage(stack, topic, what)
    told: list[tuple[TopicPartition, Sick | None]] = []
    at = TopicPartition(topic, SICK)
    async with consuming(settings, topic, on_sick=lambda *of: told.append(of)) as consumer:
        await ordered(consumer, at, place)
        found = await read(consumer, len(ALL) - len(BEHIND))
        assert await read_on(consumer, 0.5) == Counter()
        assert consumer.sick.keys() == {at}
        assert consumer.sick[at].offset == RECORDS
        assert ("CRC" if what == "a flipped bit" else "codec") in consumer.sick[at].reason
        assert await consumer.position(at) == RECORDS
        said = [each.getMessage() for each in caplog.records if each.levelno == logging.ERROR]
        assert len(said) == 1
        assert f"{topic}, partition {SICK} cannot be read from offset {RECORDS} on" in said[0]
        damage(stack, topic, what)
        found += await read(consumer, len(BEHIND))
    assert found == Counter(ALL)
    assert [(each, sick is None) for each, sick in told] == [(at, False), (at, True)]
    assert consumer.sick == {}


async def read_on(consumer: SteadyConsumer, seconds: float) -> Counter[tuple[int, int]]:
    """Whatever comes in so much time."""
    found: Counter[tuple[int, int]] = Counter()
    end = asyncio.get_running_loop().time() + seconds
    while asyncio.get_running_loop().time() < end:
        for at, records in (await consumer.getmany(timeout_ms=50)).items():
            found.update((at.partition, record.offset) for record in records)
    return found


async def test_an_expired_bad_batch_no_longer_blocks_even_if_nothing_follows(
    settings: Settings, stack: Stack, topic: str
) -> None:
    await fill(settings, topic)
    damage(stack, topic, "a flipped bit")
    servers, end = settings.kafka.bootstrap_servers, BATCHES * RECORDS
    async with consuming(settings, topic) as consumer, asyncio.timeout(20):
        await read(consumer, len(ALL) - len(BEHIND))
        while not consumer.sick:
            await consumer.getmany(timeout_ms=50)
        await asyncio.to_thread(log_faults.delete_records, servers, topic, {SICK: end})
        while consumer.sick:
            await consumer.getmany(timeout_ms=50)
        assert await consumer.position(TopicPartition(topic, SICK)) == end


async def test_an_unreadable_batch_is_handled_the_same_with_getone(
    settings: Settings, stack: Stack, topic: str
) -> None:
    await fill(settings, topic)
    damage(stack, topic, "a flipped bit")
    async with consuming(settings, topic) as consumer:
        assert await read(consumer, len(ALL - BEHIND), max_records=1) == Counter(ALL - BEHIND)
    async with consuming(settings, topic) as consumer, asyncio.timeout(20):
        records = [await consumer.getone() for _ in range(len(ALL - BEHIND))]
    assert {(record.partition, record.offset) for record in records} == ALL - BEHIND


async def test_a_sick_partition_is_sick_for_its_next_member_too(settings: Settings, stack: Stack, topic: str) -> None:
    """And comes back: nobody steps over it, and nobody shows what isn't theirs."""
    await fill(settings, topic)
    damage(stack, topic, "a flipped bit")
    group: dict[str, Any] = {"group_id": f"{topic}-group", "session_timeout_ms": 6_000, "heartbeat_interval_ms": 200}
    found: Counter[tuple[int, int]] = Counter()
    async with consuming(settings, topic, **group) as one, consuming(settings, topic, **group) as other:
        async with asyncio.timeout(20):
            while not (
                len(one.assignment()) == len(other.assignment()) == PARTITIONS // 2 and (one.sick or other.sick)
            ):
                for each in (one, other):
                    await each.getmany(timeout_ms=50)
        holder, beside = (one, other) if one.sick else (other, one)
        assert holder.sick.keys() == {TopicPartition(topic, SICK)}
        assert beside.sick == {}
        await holder.stop()
        async with asyncio.timeout(20):
            while not beside.sick:
                for at, records in (await beside.getmany(timeout_ms=50)).items():
                    found.update((at.partition, record.offset) for record in records)
        assert holder.sick == {}
        assert not BEHIND & found.keys()
        damage(stack, topic, "a flipped bit")
        assert (await read(beside, len(BEHIND))).keys() >= BEHIND


@pytest.mark.parametrize("end", ["cancelled", "failed"])
async def test_a_member_that_stops_polling_leaves_its_group_whatever_its_last_poll_did(
    settings: Settings, topic: str, end: str
) -> None:
    """aiokafka counts polls under way, and one that raises or is cancelled as under way for ever."""
    await fill(settings, topic)
    group: dict[str, Any] = {"group_id": f"{topic}-group", "max_poll_interval_ms": 500, "heartbeat_interval_ms": 100}
    async with consuming(settings, topic, **group) as consumer:
        await read(consumer, len(ALL))
        if end == "cancelled":
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(consumer.getmany(timeout_ms=10_000), 0.1)
        else:
            polling = asyncio.create_task(consumer.getmany(timeout_ms=10_000))
            await asyncio.sleep(0)
            consumer._subscription.abort_waiters(KafkaError("as the coordinator does"))
            with pytest.raises(KafkaError):
                await polling
        await until(lambda: cast("Any", consumer._coordinator).generation, -1)


@pytest.mark.parametrize("error", [TopicAuthorizationFailedError("t"), OffsetOutOfRangeError({})])
async def test_errors_that_aiokafka_raises_in_the_next_poll_concern_one_partition(
    settings: Settings, topic: str, error: KafkaError
) -> None:
    await fill(settings, topic)
    at = TopicPartition(topic, SICK)
    async with consuming(settings, topic) as consumer:
        consumer._fetcher._set_error(at, error)
        assert consumer.sick[at].reason.startswith(type(error).__name__)
        assert await read(consumer, len(ALL)) == Counter(ALL)
        assert consumer.sick == {}


async def test_a_lasting_refusal_is_reported_and_does_not_spin(
    settings: Settings, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broker that can't read its own disk answers at once, for ever; leaders that change do so for a moment."""
    await fill(settings, topic)
    at, asked = TopicPartition(topic, SICK), 0
    look_at = consumer_module._ConsumerClient._look_at

    def refusing(self: Any, request: Any, response: Any) -> None:
        nonlocal asked
        topics: list[Any] = []
        for name, partitions in response.topics:
            mine = [part for part in partitions if part[0] == SICK]
            asked += len(mine)
            refused = [(part[0], NotLeaderForPartitionError.errno, -1, *part[3:-1], b"") for part in mine]
            topics.append((name, [*(part for part in partitions if part[0] != SICK), *refused]))
        response.topics[:] = topics
        look_at(self, request, response)

    async with consuming(settings, topic, fetch_max_wait_ms=50) as consumer:
        with monkeypatch.context() as patch:
            patch.setattr(consumer_module._ConsumerClient, "_look_at", refusing)
            found = await read(consumer, len(ALL) - BATCHES * RECORDS)
            found += await read_on(consumer, 1.0)
            assert consumer.sick.keys() == {at}
            assert asked <= 12
        found += await read(consumer, BATCHES * RECORDS)
        assert consumer.sick == {}
    assert found == Counter(ALL)


async def test_a_partition_whose_first_offset_is_refused_does_not_keep_the_others_from_beginning(
    settings: Settings, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a log directory failed, or another broker leads: aiokafka sets none then, and asks nobody who leads."""
    await fill(settings, topic)
    asked_who_leads = 0
    force, look_at = EnduringClient.force_metadata_update, consumer_module._ConsumerClient._look_at_offsets

    def counting(client: EnduringClient) -> asyncio.Future[bool]:
        nonlocal asked_who_leads
        asked_who_leads += 1
        return force(client)

    def refusing(self: Any, response: Any) -> None:
        for _, partitions in response.topics:
            refused = [(number, KafkaStorageError.errno, -1, -1) for number, *_ in partitions if number in OFFLINE]
            partitions[:] = [*refused, *(each for each in partitions if each[0] not in OFFLINE)]
        look_at(self, response)

    offline = [TopicPartition(topic, number) for number in OFFLINE]
    async with consuming(settings, topic) as consumer:
        with monkeypatch.context() as patch:
            patch.setattr(consumer_module._ConsumerClient, "_look_at_offsets", refusing)
            patch.setattr(EnduringClient, "force_metadata_update", counting)
            found = await read(consumer, len(ALL) - len(OFFLINE) * BATCHES * RECORDS)
            while sorted(consumer.sick) != offline:
                found += await read_on(consumer, 0.1)
            assert asked_who_leads
        found += await read(consumer, len(OFFLINE) * BATCHES * RECORDS)
        assert consumer.sick == {}
    assert found == Counter(ALL)


async def test_a_deleted_topic_is_reported_and_asked_for_with_pauses(settings: Settings, topic: str) -> None:
    await fill(settings, topic)
    async with consuming(settings, topic) as consumer:
        await read(consumer, len(ALL))
        await asyncio.to_thread(log_faults.delete_topic, settings.kafka.bootstrap_servers, topic)
        async with asyncio.timeout(20):
            while len(consumer.sick) < PARTITIONS:
                await consumer.getmany(timeout_ms=50)
        assert "UnknownTopicOrPartition" in consumer.sick[TopicPartition(topic, 0)].reason
        rounds, actions = 0, consumer._fetcher._get_actions_per_node

        def counting(assignment: Any) -> Any:
            nonlocal rounds
            rounds += 1
            return actions(assignment)

        consumer._fetcher._get_actions_per_node = counting
        await read_on(consumer, 1.0)
        assert rounds <= 12


async def test_an_unexpected_error_does_not_end_fetching(
    settings: Settings, topic: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await fill(settings, topic)
    raised = iter([True])
    look_at = consumer_module._ConsumerClient._look_at

    def failing(self: Any, request: Any, response: Any) -> None:
        if next(raised, False):
            raise ZeroDivisionError
        look_at(self, request, response)

    monkeypatch.setattr(consumer_module._ConsumerClient, "_look_at", failing)
    async with consuming(settings, topic) as consumer:
        assert await read(consumer, len(ALL)) == Counter(ALL)
    assert "a fetch failed and is retried" in caplog.text


async def test_an_unexpected_error_that_stays_makes_partitions_sick(
    settings: Settings, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(settings, topic)
    look_at, broken = consumer_module._ConsumerClient._look_at, True

    def failing(self: Any, request: Any, response: Any) -> None:
        if broken:
            raise ZeroDivisionError
        look_at(self, request, response)

    monkeypatch.setattr(consumer_module._ConsumerClient, "_look_at", failing)
    monkeypatch.setattr(sick_module, "PATIENCE_S", 0.2)
    async with consuming(settings, topic) as consumer:
        async with asyncio.timeout(30):
            while len(consumer.sick) < PARTITIONS:
                assert not await consumer.getmany(timeout_ms=50)
        assert "ZeroDivisionError" in consumer.sick[TopicPartition(topic, 0)].reason
        broken = False
        assert await read(consumer, len(ALL)) == Counter(ALL)
        assert not consumer.sick


async def test_a_backlog_in_one_partition_does_not_keep_the_others_waiting(settings: Settings, topic: str) -> None:
    """aiokafka drains one after the other: what compresses well in one place holds up what is behind it."""
    payload = raw_batches.packed(ZSTD, (raw_batches.record(Raw(b"x", b"k"), place) for place in range(50_000)))
    servers = settings.kafka.bootstrap_servers
    assert await raw_batches.produce(servers, topic, SICK, raw_batches.framed(ZSTD, payload, 50_000)) == 0
    async with consuming(settings, topic) as consumer:
        await read(consumer, 1, max_records=100)
        others = [partition for partition in range(PARTITIONS) if partition != SICK]
        for partition in others:
            one = raw_batches.batch(NONE, [Raw(b"x", b"k")])
            assert await raw_batches.produce(servers, topic, partition, one) == 0
        missing, polls = set(others), 0
        async with asyncio.timeout(20):
            while missing:
                missing -= {at.partition for at in await consumer.getmany(timeout_ms=100, max_records=100)}
                polls += 1
                await asyncio.sleep(0.01)
        assert (await consumer.position(TopicPartition(topic, SICK))) < 50_000


@pytest.mark.parametrize("codec", CODECS)
async def test_every_codec_is_read(settings: Settings, topic: str, codec: str) -> None:
    await fill(settings, topic, codec=codec)
    async with consuming(settings, topic) as consumer:
        assert await read(consumer, len(ALL)) == Counter(ALL)


async def test_other_consumers_of_the_process_are_unchanged(settings: Settings, topic: str) -> None:
    async with consuming(settings, topic):
        plain = AIOKafkaConsumer(topic, bootstrap_servers=settings.kafka.bootstrap_servers)
        await plain.start()
        fetcher = plain._fetcher
        await plain.stop()
    assert type(fetcher) is Fetcher
    assert fetcher._proc_fetch_request.__func__ is Fetcher._proc_fetch_request


async def test_one_poll_returns_no_more_than_it_may_unpack_and_the_next_one_continues(
    settings: Settings, topic: str
) -> None:
    """12 partitions with a record of 20 MiB each, 2 KB as it comes, handed out 240 MiB at once."""
    bomb = raw_batches.bomb(ZSTD, 20 * 1024 * 1024)
    for partition in range(PARTITIONS):
        assert await raw_batches.produce(settings.kafka.bootstrap_servers, topic, partition, bomb) == 0
    async with consuming(settings, topic) as consumer:
        await ordered(consumer, TopicPartition(topic, SICK), 0)
        found: list[int] = []
        sizes: list[int] = []
        for _ in range(6):
            handed_out = await consumer.getmany(timeout_ms=10_000)
            found += [at.partition for at in handed_out]
            sizes.append(len(handed_out))
    assert sizes == [2] * 6  # the second exceeds the 32 MiB
    assert sorted(found) == [*range(PARTITIONS)]


async def test_a_consumer_stops_even_if_its_task_takes_the_cancellation_for_that_of_a_fetch(
    settings: Settings, topic: str
) -> None:
    """aiokafka's does while it waits for the end of its former fetches, just after an assignment."""

    async def suppressing() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        await asyncio.Event().wait()

    async with consuming(settings, topic) as consumer:
        fetcher: Any = consumer._fetcher
        fetcher._fetch_task.cancel()
        fetcher._fetch_task = asyncio.create_task(suppressing())
        await asyncio.sleep(0)
        async with asyncio.timeout(10):
            await consumer.stop()


async def test_a_consumer_stops_quietly_while_a_failed_fetch_waits_to_be_tried_again(
    settings: Settings, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """aiokafka lets the cancellation of that wait out: whoever stops a consumer would end, as if cancelled itself."""
    failed = asyncio.Event()

    async def send(*_: Any, **__: Any) -> None:
        failed.set()
        raise KafkaConnectionError

    async with consuming(settings, topic, retry_backoff_ms=60_000) as consumer:
        for partition in range(PARTITIONS):
            await consumer.position(TopicPartition(topic, partition))  # from here on it fetches, and asks nothing else
        monkeypatch.setattr(EnduringClient, "send", send)
        await failed.wait()
        await consumer.stop()


async def test_a_consumer_that_is_stopped_at_once_stops_quietly(settings: Settings) -> None:
    """A task of aiokafka's that has not begun would let its cancellation out."""
    consumer = SteadyConsumer(**settings.kafka.connection(), group_id=None)
    await consumer.start()
    await consumer.stop()
    assert not [each for each in asyncio.all_tasks() if "aiokafka" in str(each)]
