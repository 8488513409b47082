"""How rows are put into record batches. What they hold is read back by the library's own reader."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from aiokafka import TopicPartition
from aiokafka.record.default_records import DefaultRecordBatch

from org_events.topics import Topics
from org_service.domain.outcomes import JournaledOutcome
from org_service.kafka.producer import Producer
from org_service.kafka.record_batches import RecordBatch
from org_service.relay import chunks
from org_service.relay.chunks import Layout, build
from org_service.relay.ends import make_position_batch
from org_service.settings import KafkaSettings
from org_service.wire.position import Partitioning, read_position

TOPICS = Topics()
LAYOUT = Layout(
    TOPICS, {TOPICS.events: 3, TOPICS.state: 3, TOPICS.results: 3, TOPICS.relay: 1}, "orgs", Partitioning(3)
)
RECORDED_AT = datetime(2026, 3, 1, 12, tzinfo=UTC)


def row(position: int, *, org: int = 1, after: str = "{}") -> JournaledOutcome:
    """An applied row."""
    return JournaledOutcome(
        position=position,
        command_id=UUID(int=position),
        org_id=UUID(int=org),
        version=position,
        event_type="org.updated",
        outcome="applied",
        code=200,
        actor=None,
        changed="[]",
        before=None,
        after=after,
        problem=None,
        traceparent=None,
        recorded_at=RECORDED_AT + timedelta(milliseconds=position),
    )


def read(batch: RecordBatch, producer_id: int = 5, epoch: int = 6, first: int = 7) -> Any:
    """The batch as a broker would read it."""
    return DefaultRecordBatch(bytes(batch.build(producer_id, epoch, first)))


async def test_a_batch_belongs_to_its_producer_and_transaction() -> None:
    chunk = await build([row(1)], LAYOUT, limit=10)
    [batch] = next(iter(chunk.batches.values()))
    found = read(batch)
    assert (found.producer_id, found.producer_epoch, found.base_sequence) == (5, 6, 7)
    assert found.is_transactional
    assert found.validate_crc()


async def test_records_of_a_partition_are_in_order_of_position() -> None:
    chunk = await build([row(1), row(2, org=2), row(3)], LAYOUT, limit=10)
    positions: dict[tuple[str, bytes | None], list[bytes | None]] = {}
    for (topic, _), batches in chunk.batches.items():
        for batch in batches:
            for record in read(batch):
                positions.setdefault((topic, record.key), []).append(dict(record.headers).get("ce_position"))
    first, second = str(UUID(int=1)).encode(), str(UUID(int=2)).encode()
    for topic in (TOPICS.events, TOPICS.state, TOPICS.results):
        assert positions[topic, first] == [b"1", b"3"]
        assert positions[topic, second] == [b"2"]


async def test_records_have_the_time_of_their_publication() -> None:
    chunk = await build([row(1), row(2)], LAYOUT, limit=10, clock=lambda: 1_800_000_000.5)
    times = {record.timestamp for batches in chunk.batches.values() for batch in batches for record in read(batch)}
    assert times == {1_800_000_000_500}


async def test_the_position_record_names_the_last_row() -> None:
    chunk = await build([row(7), row(8)], LAYOUT, limit=10)
    [record] = read(make_position_batch(LAYOUT, chunk.last))
    assert record.key == b"orgs"
    assert record.value == (
        b'{"position":8,"command_id":"00000000-0000-0000-0000-000000000008","recorded_at":"2026-03-01T12:00:00.008000Z",'
        b'"partitions":3}'
    )
    assert read_position(record.value) == chunk.last
    assert (chunk.first, chunk.last.position, chunk.rows) == (7, 8, 2)


@pytest.mark.parametrize(("rows", "limit", "more"), [(2, 3, False), (3, 3, True)])
async def test_a_full_read_means_there_may_be_more(rows: int, limit: int, more: bool) -> None:
    chunk = await build([row(position) for position in range(1, rows + 1)], LAYOUT, limit=limit)
    assert chunk.more is more


async def test_a_chunk_ends_at_its_size_limit_but_has_at_least_one_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "CHUNK_BYTES_MAX", 10_000)
    large = '"' + "x" * 2_000 + '"'
    chunk = await build([row(position, after=large) for position in range(1, 6)], LAYOUT, limit=10)
    assert (chunk.rows, chunk.more) == (2, True)
    huge = '"' + "x" * 20_000 + '"'
    chunk = await build([row(1, after=huge), row(2)], LAYOUT, limit=10)
    assert (chunk.rows, chunk.last.position, chunk.more) == (1, 1, True)


async def test_a_full_batch_is_followed_by_another_of_the_same_partition() -> None:
    large = '"' + "x" * 400_000 + '"'
    chunk = await build([row(position, after=large) for position in range(1, 6)], LAYOUT, limit=10)
    [batches] = [batches for (topic, _), batches in chunk.batches.items() if topic == TOPICS.state]
    assert [batch.records for batch in batches] == [2, 2, 1]
    assert all(len(batch.build(1, 1, 0)) <= 1024 * 1024 for batch in batches)


async def test_a_record_larger_than_a_batch_gets_one_of_its_own() -> None:
    huge = '"' + "x" * 1_500_000 + '"'
    chunk = await build([row(1), row(2, after=huge), row(3)], LAYOUT, limit=10)
    [batches] = [batches for (topic, _), batches in chunk.batches.items() if topic == TOPICS.state]
    assert [batch.records for batch in batches] == [1, 1, 1]


async def test_sequence_numbers_of_a_partition_wrap_where_the_protocol_says() -> None:
    at, producer = TopicPartition(TOPICS.events, 0), Producer(KafkaSettings(), "orgs", 10_000)
    producer._sequences[at] = 2**31 - 2
    batches = [RecordBatch(), RecordBatch()]
    for batch in batches:
        for place in range(3):
            batch.add(place, 0, b"k", b"v", [])
            batch.records += 1
    assert [DefaultRecordBatch(bytes(producer._build(at, batch))).base_sequence for batch in batches] == [2**31 - 2, 1]
    await producer.close()


async def test_other_tasks_run_while_a_large_chunk_is_encoded() -> None:
    """The lock is watched and health is answered by the same loop."""
    building = asyncio.create_task(build([row(position) for position in range(1, 1_001)], LAYOUT, limit=1_000))
    turns = 0
    while not building.done():
        await asyncio.sleep(0)
        turns += 1
    assert turns >= 1_000 / chunks.ROWS_AT_A_STRETCH
