"""`orgs serve` as a process: what it refuses to start on, what it waits for, and how it ends."""

import asyncio
import json
import signal
import time
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType
from pydantic import SecretStr

from org_events.commands import CreateOrganization
from org_service.settings import Settings
from org_service.store import migrate
from tests.support.processes import Role, ServiceProcess
from tests.support.records import record_of
from tests.support.sending import Publisher, Sending
from tests.support.waiting import until, wait_for

pytestmark = pytest.mark.integration

WITHIN_S = 20


def liveness(process: ServiceProcess) -> str:
    with urllib.request.urlopen(f"{process.url()}/livez", timeout=5) as answer:
        return json.load(answer)["status"]


@pytest.fixture
async def unmigrated(settings: Settings, server_url: str) -> AsyncIterator[Settings]:
    """The same, with a database that is empty."""
    server = await asyncpg.connect(server_url)
    name = f"empty_{uuid4().hex}"
    await server.execute(f"CREATE DATABASE {name}")
    database = settings.database.model_copy(update={"url": SecretStr(f"{server_url.rpartition('/')[0]}/{name}")})
    yield settings.model_copy(update={"database": database})
    await server.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await server.close()


@pytest.mark.parametrize("role", ["worker", "relay"])
def test_it_does_not_start_where_publishers_choose_the_time_that_tokens_are_judged_by(
    settings: Settings, tmp_path: Path, role: Role
) -> None:
    setting = ConfigEntry("message.timestamp.type", "CreateTime", incremental_operation=AlterConfigOpType.SET)
    commands = ConfigResource(ResourceType.TOPIC, settings.kafka.topics.commands, incremental_configs=[setting])
    admin = AdminClient({"bootstrap.servers": settings.kafka.bootstrap_servers})
    admin.incremental_alter_configs([commands])[commands].result(WITHIN_S)
    process = ServiceProcess(role, settings, tmp_path)
    try:
        process.start()
        wait_for(lambda: not process.running, "end", WITHIN_S)
        assert process.status() == 1
        assert (
            f"--topic {commands.name} --add-config message.timestamp.type=LogAppendTime" in process.log_path.read_text()
        )
    finally:
        process.close()


async def test_it_waits_for_the_migration_alive_but_not_ready_and_then_starts(
    unmigrated: Settings, tmp_path: Path
) -> None:
    process = ServiceProcess("relay", unmigrated, tmp_path)
    try:
        process.start()
        await until(lambda: "run `orgs migrate`" in process.log_path.read_text())
        assert not await asyncio.to_thread(process.ready)
        assert await asyncio.to_thread(liveness, process) == "alive"
        await migrate.upgrade(unmigrated.database)
        await asyncio.to_thread(process.wait_until_ready)
        assert await asyncio.to_thread(process.terminate) == 0
    finally:
        process.close()


async def test_a_second_signal_ends_it_at_once_with_a_batch_in_flight(
    settings: Settings, database: asyncpg.Connection, tmp_path: Path
) -> None:
    """What was in flight is neither committed nor acknowledged, so it is redelivered."""
    record = record_of(CreateOrganization(org_id=uuid4(), name="Acme"))
    publisher = Publisher(settings.kafka.bootstrap_servers, settings.kafka.topics.commands)
    process = ServiceProcess("worker", settings, tmp_path)
    try:
        process.start()
        await asyncio.to_thread(process.wait_until_ready)
        async with database.transaction():
            await database.execute("UPDATE journal_head SET position = position")
            publisher.send(Sending(None, "", "", record.key, tuple(record.headers), record.value))
            await until(lambda: database.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"))
            process.ask_to_end()
            await until(lambda: "draining" in process.log_path.read_text())
            began = time.monotonic()
            process.ask_to_end()
            await until(lambda: not process.running)
            assert time.monotonic() - began < 2
        assert process.status() == -signal.SIGTERM
        assert await database.fetchval("SELECT count(*) FROM journal") == 0
    finally:
        process.close()
        publisher.close()
