"""A publisher that leaves a transaction open holds up whatever lies behind it, and it is said who that is."""

import asyncio
from uuid import uuid4

import asyncpg
import pytest

from org_events.commands import UpdateOrganization
from org_service.kafka import transactions
from org_service.settings import Settings
from org_service.telemetry.metrics import PARTITIONS_HELD
from tests.integration.worker.publishing import send
from tests.integration.worker.running import running
from tests.support import log_faults
from tests.support.records import record_of
from tests.support.waiting import until

pytestmark = pytest.mark.integration


async def test_an_open_transaction_is_reported_with_its_owner_until_it_ends(
    settings: Settings, database: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Commands are answered with 202, and `/readyz` would know nothing of it."""
    monkeypatch.setattr(transactions, "LOOK_S", 0.1)
    monkeypatch.setattr(transactions, "HELD_AFTER_S", 0.5)
    servers, topic = settings.kafka.bootstrap_servers, settings.kafka.topics.commands
    async with running(settings) as worker:
        await until(lambda: _held(topic), 0)
        publisher = f"{settings.kafka.topic_prefix}billing"
        stuck = await asyncio.to_thread(log_faults.begin_transaction, servers, publisher, topic, 0)
        held = f"blocked: {topic}[0] at offset 0 by the transaction of '{publisher}' (producer "

        async def says_so() -> bool:
            return (await worker.checks()["transactions"]()).startswith(held)

        await until(says_so)
        assert (await worker.checks()["transactions"]()).endswith(")")
        assert await _held(topic) == 1
        for _ in range(6):  # on all partitions
            await send(settings, record_of(UpdateOrganization(org_id=uuid4(), name="New")))
        await asyncio.to_thread(stuck.abort_transaction)
        await until(lambda: database.fetchval("SELECT count(*) FROM journal"), 6)
        await until(worker.checks()["transactions"], "none blocks a partition")
        assert await _held(topic) == 0


async def _held(topic: str) -> float:
    return PARTITIONS_HELD.labels(topic)._value.get()
