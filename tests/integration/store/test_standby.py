"""A real standby: the address that leads to it was, or will be, that of the primary."""

from pathlib import Path

import pytest
from pydantic import SecretStr
from sqlalchemy import text

import org_local
from org_local.stack import BOOTSTRAP_SERVERS_VARIABLE, DATABASE_URL_VARIABLE
from org_service.errors import RetryError
from org_service.settings import Database
from org_service.store import migrate
from org_service.store.engine import create_engine
from org_service.store.notify import JournalSignal, LeaderLock

pytestmark = pytest.mark.integration


async def test_worker_and_relay_wait_for_the_primary_and_others_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(BOOTSTRAP_SERVERS_VARIABLE, "127.0.0.1:1")  # nobody asks for Kafka here
    monkeypatch.delenv(DATABASE_URL_VARIABLE, raising=False)
    with org_local.start(tmp_path) as stack:
        await migrate.upgrade(Database(url=SecretStr(stack.database_url)))
    (tmp_path / "postgres" / "standby.signal").touch()
    with org_local.start(tmp_path) as stack:
        database = Database(url=SecretStr(stack.database_url))
        for role in ("worker", "relay"):
            with pytest.raises(RetryError, match="standby"):
                async with create_engine(database, role, direct=True).connect():
                    pass
        for session in (JournalSignal(database), LeaderLock(database, "orgs")):
            with pytest.raises(RetryError, match="standby"):
                await session.__aenter__()
        async with create_engine(database, "reader", direct=True).connect() as conn:
            assert await conn.scalar(text("SELECT pg_is_in_recovery()"))
            assert await conn.scalar(text("SELECT position FROM journal_head")) == 0
