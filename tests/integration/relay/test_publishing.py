"""The relay against real servers: what stands in the journal is published once, in order, as the contract says."""

import asyncio
import json
import time
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from confluent_kafka import Producer

from org_service.relay import chunks
from org_service.settings import Settings
from org_service.telemetry.metrics import RELAY_REBUILDS
from tests.support.observed import TopicReader
from tests.support.relaying import (
    applied,
    assert_exactly_once,
    changes,
    journal,
    only,
    org,
    organization,
    relay_settings,
    running,
    seen,
)

pytestmark = pytest.mark.integration


async def test_everything_is_published_once_and_in_order(settings: Settings) -> None:
    head = await journal(settings, changes(500))
    async with running(relay_settings(settings, batch_rows_max=37)) as relay:
        await relay.published(head)
        head = await journal(settings, changes(100, after=500))
        await relay.published(head)
    assert_exactly_once(await seen(settings), range(1, 601))


async def test_consecutive_transactions_need_no_pause(settings: Settings) -> None:
    """Markers of one are still being written when the next begins: the broker says "not yet", which is no refusal."""
    async with running(relay_settings(settings, batch_rows_max=1)) as relay:
        await relay.published(await journal(settings, changes(1)))
        before = rebuilds()
        await relay.published(await journal(settings, changes(60, after=1)))
        assert rebuilds() == before
    assert_exactly_once(await seen(settings), range(1, 62))


def rebuilds() -> float:
    """How often a relay of this process threw its producer away, whatever the reason."""
    samples = (sample for metric in RELAY_REBUILDS.collect() for sample in metric.samples)
    return sum(sample.value for sample in samples if sample.name == "orgs_relay_rebuilds_total")


async def test_a_stopped_relay_continues_where_it_ended(settings: Settings) -> None:
    for turn in range(3):
        head = await journal(settings, changes(40, after=turn * 40))
        async with running(settings) as relay:
            await relay.published(head)
            await relay.drained()
    found = await seen(settings)
    assert_exactly_once(found, range(1, 121))
    assert found.relayed() == [40, 80, 120]


async def test_a_row_committed_without_a_signal_is_found_by_polling(settings: Settings) -> None:
    async with running(relay_settings(settings, poll_interval_s=0.2)) as relay:
        await relay.until(lambda relay: relay.position == 0)
        await relay.published(await journal(settings, changes(1), notify=False), timeout_s=5)


async def test_a_row_is_found_by_its_signal_long_before_the_next_poll(settings: Settings) -> None:
    async with running(relay_settings(settings, poll_interval_s=60)) as relay:
        await relay.published(await journal(settings, changes(1)))
        for turn in range(1, 4):
            await relay.published(await journal(settings, changes(1, after=turn)), timeout_s=10)


async def test_a_delete_publishes_the_last_state_in_the_event_and_a_tombstone(settings: Settings) -> None:
    gone = applied(org(1), 2, command_type="org.delete", event_type="org.deleted", after=None)
    head = await journal(settings, [applied(org(1), 1), gone])
    async with running(settings) as relay:
        await relay.published(head)
    found = await seen(settings)
    event = json.loads(found.events[-1].value or b"")
    assert (event["before"]["version"], event["after"]) == (1, None)
    assert [state.value is None for state in found.state] == [False, True]
    assert found.state[-1].headers == (("ce_orgversion", b"2"), ("ce_position", b"2"))
    assert json.loads(found.results[-1].value or b"")["organization"] is None


async def test_a_rejection_is_a_result_and_nothing_else(settings: Settings) -> None:
    rejected = {
        "org_id": org(1),
        "version": 3,
        "command_type": "org.update",
        "outcome": "rejected",
        "code": 409,
        "problem": '{"type":"urn:orgs:problem:name-taken","title":"Tåken","status":409,"detail":"…","errors":[]}',
    }
    async with running(settings) as relay:
        await relay.published(await journal(settings, [rejected]))
    found = await seen(settings)
    result = only(found.results)
    assert (found.events, found.state) == ([], [])
    assert result.key == b"0a000000-0000-4000-8000-000000000001"
    assert json.loads(result.value or b"") == {
        "command_id": "00000005-0000-0000-0000-000000000001",
        "org_id": "0a000000-0000-4000-8000-000000000001",
        "outcome": "rejected",
        "code": 409,
        "version": 3,
        "organization": None,
        "position": 1,
        "problem": {
            "type": "urn:orgs:problem:name-taken",
            "title": "Tåken",
            "status": 409,
            "detail": "…",
            "errors": [],
        },
        "final": True,
    }


async def test_the_result_of_a_command_for_no_known_organization_has_the_command_id_as_key(settings: Settings) -> None:
    unreadable = {
        "command_id": UUID("0a3e6cbb-8f10-4c0e-b2a9-57d1f23f5f6d"),
        "org_id": None,
        "version": None,
        "command_type": "",
        "outcome": "rejected",
        "code": 400,
        "problem": "{}",
    }
    async with running(settings) as relay:
        await relay.published(await journal(settings, [unreadable]))
    result = only((await seen(settings)).results)
    assert result.key == b"0a3e6cbb-8f10-4c0e-b2a9-57d1f23f5f6d"
    assert result.header("ce_subject") is None
    assert json.loads(result.value or b"")["org_id"] is None


async def test_records_are_in_the_partitions_another_client_chooses_for_their_keys(settings: Settings) -> None:
    rows = [applied(org(number), 1) for number in range(50)]
    async with running(settings) as relay:
        await relay.published(await journal(settings, rows))
    found = await seen(settings)

    def publish() -> dict[bytes | None, int]:
        producer = Producer({"bootstrap.servers": settings.kafka.bootstrap_servers, "partitioner": "murmur2_random"})
        for row in rows:
            producer.produce(settings.kafka.topics.commands, b"", key=str(row["org_id"]))
        producer.flush(10)
        reader = TopicReader(settings.kafka.bootstrap_servers)
        records, _ = reader.read([settings.kafka.topics.commands], {})
        reader.close()
        return {record.key: record.partition for record in records[settings.kafka.topics.commands]}

    partitions = await asyncio.to_thread(publish)
    assert len(set(partitions.values())) == 3
    for records in (found.events, found.state, found.results):
        assert {record.key: record.partition for record in records} == partitions


async def test_records_carry_the_time_of_the_journal_and_are_kept_from_their_publication_on(settings: Settings) -> None:
    began_ms = time.time() * 1000
    async with running(settings) as relay:
        recorded_at = datetime(2026, 3, 1, 12, 0, 0, 250_999, tzinfo=UTC)
        await relay.published(await journal(settings, [applied(org(1), 1, recorded_at=recorded_at)]))
    found = await seen(settings)
    assert json.loads(only(found.events).value or b"")["recorded_at"] == "2026-03-01T12:00:00.250999Z"
    assert only(found.events).header("ce_time") == "2026-03-01T12:00:00.250999Z"
    for records in (found.events, found.state, found.results, found.relay):
        assert began_ms - 1 <= only(records).timestamp <= time.time() * 1000


async def test_a_worker_whose_clock_is_ahead_delays_nothing(settings: Settings) -> None:
    """A broker refuses records that claim to be from more than an hour ahead."""
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    async with running(settings) as relay:
        await relay.published(await journal(settings, [applied(org(1), 1, recorded_at=tomorrow)]))
    assert only((await seen(settings)).events).header("ce_orgversion") == "1"


async def test_the_largest_command_fits_and_so_does_a_record_of_almost_a_mebibyte(settings: Settings) -> None:
    largest = organization(org(1), 1, name="x" * 64 * 1024)
    huge = organization(org(2), 1, name="y" * 480 * 1024)
    rows = [
        applied(org(1), 1),
        applied(org(1), 2, before=largest, after=largest),
        applied(org(2), 2, before=huge, after=huge),
        applied(org(2), 3),
    ]
    async with running(settings) as relay:
        await relay.published(await journal(settings, rows))
    found = await seen(settings)
    assert_exactly_once(found, range(1, 5))
    assert max(len(event.value or b"") for event in found.events) > 960 * 1024


async def test_a_chunk_is_bounded_by_its_bytes(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "CHUNK_BYTES_MAX", 300_000)
    large = organization(org(1), 1, name="x" * 50_000)
    rows = [applied(org(1), version, before=large, after=large) for version in range(1, 11)]
    head = await journal(settings, rows)
    async with running(settings) as relay:
        await relay.published(head)
    found = await seen(settings)
    assert_exactly_once(found, range(1, 11))
    assert found.relayed() == [2, 4, 6, 8, 10]
