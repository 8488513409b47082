"""A real standby, which follows a primary and then becomes one; the primary's address may lead to it."""

import os
import re
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg
import pytest
from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

import org_local
from org_local import postgres
from org_local.stack import BOOTSTRAP_SERVERS_VARIABLE, DATABASE_URL_VARIABLE
from org_service.errors import RetryError, UnreachableError
from org_service.settings import DatabaseSettings
from org_service.store import accepted, migrate
from org_service.store.engine import create_engine
from org_service.store.failures import classify_errors
from org_service.store.leader import JournalSignal, LeaderLock
from tests.support.waiting import until

pytestmark = pytest.mark.integration

BASE_BACKUP = postgres._BIN / "pg_basebackup"


@pytest.fixture
def primary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[org_local.Stack]:
    monkeypatch.setenv(BOOTSTRAP_SERVERS_VARIABLE, "127.0.0.1:1")  # nobody asks for Kafka here
    monkeypatch.delenv(DATABASE_URL_VARIABLE, raising=False)
    with org_local.start(tmp_path / "one") as stack:
        yield stack


@pytest.fixture
def standby(primary: org_local.Stack, tmp_path: Path) -> Iterator[org_local.Stack]:
    """Follows the primary."""
    folder = tmp_path / "two" / "postgres"
    port = str(urlsplit(primary.database_url).port)
    to_the_primary = ("-h", "127.0.0.1", "-p", port, "-U", "postgres")
    folder.parent.mkdir()
    subprocess.run([BASE_BACKUP, "-D", folder, "-R", "-c", "fast", *to_the_primary], check=True)
    owner = (tmp_path / "one" / "postgres").stat()
    for each in (folder, *folder.rglob("*")):
        os.chown(each, owner.st_uid, owner.st_gid)
    with org_local.start(tmp_path / "two") as stack:
        yield stack


def _at(*stacks: org_local.Stack) -> DatabaseSettings:
    hosts = ",".join(f"127.0.0.1:{urlsplit(stack.database_url).port}" for stack in stacks)
    return DatabaseSettings(url=SecretStr(f"postgresql://postgres:secret@{hosts}/orgs"), connect_timeout_s=5)


async def _in_recovery(engine: AsyncEngine) -> bool:
    async with engine.connect() as conn:
        return bool(await conn.scalar(text("SELECT pg_is_in_recovery()")))


async def test_all_but_readers_find_the_primary_wherever_it_is_and_wait_for_it(
    primary: org_local.Stack, standby: org_local.Stack
) -> None:
    await migrate.upgrade(_at(primary))
    admin = await asyncpg.connect(standby.database_url)
    both, alone = _at(standby, primary), _at(standby)

    async def followed() -> bool:
        return await admin.fetchval("SELECT to_regclass('schema_version') IS NOT NULL")

    await until(followed)
    for role in ("worker", "relay", "edge"):
        assert not await _in_recovery(create_engine(both, role, direct=True)), role
        with pytest.raises(RetryError, match=f"{re.escape(alone.address)} is a standby"):
            await _in_recovery(create_engine(alone, role, direct=True))
    for session in (JournalSignal(alone), LeaderLock(alone, "orgs")):
        with pytest.raises(RetryError, match="standby"):
            await session.__aenter__()
    assert await _in_recovery(create_engine(alone, "reader", direct=True))

    edge = create_engine(both, "edge").execution_options(isolation_level="AUTOCOMMIT")
    assert not await _in_recovery(edge)
    primary.postgres.stop()
    with pytest.raises(RetryError), classify_errors():
        await _in_recovery(edge)
    await admin.execute("SELECT pg_promote()")
    command_id, org_id = uuid4(), uuid4()
    async with edge.connect() as conn:
        await accepted.remember(conn, command_id, "ann", org_id, datetime.now(UTC))
    assert await admin.fetchval("SELECT org_id FROM accepted_command WHERE command_id = $1", command_id) == org_id
    await admin.close()
    await edge.dispose()


async def test_a_failed_search_for_the_primary_names_the_hosts_and_never_the_password() -> None:
    database = DatabaseSettings(url=SecretStr("postgresql://ann:secret@127.0.0.1:1/orgs?host=/nowhere"))
    assert database.address == "ann@127.0.0.1:1/orgs"
    with pytest.raises(UnreachableError, match=r"^Postgres at ann@127\.0\.0\.1:1/orgs cannot be reached: ") as caught:
        await _in_recovery(create_engine(database, "edge", direct=True))
    assert "secret" not in str(caught.value)
    for url, address in (
        ("postgresql://127.0.0.1:5432,[::1]:5433/orgs?password=secret", "127.0.0.1:5432,[::1]:5433/orgs"),
        ("postgresql:///orgs?host=/run/postgresql&port=5433&user=ann&password=secret", "ann@/run/postgresql:5433/orgs"),
        ("postgresql://a%40b:c%2Fd@db/my%20orgs", "a@b@db/my orgs"),
    ):
        assert DatabaseSettings(url=SecretStr(url)).address == address
