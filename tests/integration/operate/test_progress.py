"""What the relay's own record tells."""

from datetime import UTC, datetime, timedelta

import pytest
from aiokafka import AIOKafkaProducer

from org_service.operate import progress
from org_service.settings import Settings
from org_service.wire.position import Published
from tests.support.relaying import changes, journal, running

pytestmark = pytest.mark.integration

AT = datetime.now(UTC).replace(microsecond=123456) - timedelta(minutes=5)


async def test_the_moment_is_when_the_last_row_was_journaled(settings: Settings) -> None:
    rows = [{**row, "recorded_at": AT} for row in changes(3)]
    head = await journal(settings, rows)
    async with running(settings) as relay:
        await relay.published(head)
    last = await progress.published(settings)
    assert last is not None
    assert (last.position, last.recorded_at) == (3, AT)


@pytest.mark.parametrize("value", [b'{"position": 3}', b'{"position": 3, "command_id": null, "recorded_at": null}'])
async def test_a_record_without_a_moment_was_written_no_later_than_this(settings: Settings, value: bytes) -> None:
    async with AIOKafkaProducer(bootstrap_servers=settings.kafka.bootstrap_servers) as producer:
        await producer.send_and_wait(
            settings.kafka.topics.relay, value, key=settings.relay.name.encode(), timestamp_ms=1_772_000_000_123
        )
    written = datetime.fromtimestamp(1_772_000_000, UTC) + timedelta(milliseconds=124)
    assert await progress.published(settings) == Published(3, None, written)
