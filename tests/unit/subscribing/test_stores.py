"""The stores that need no server, by the checks that anybody's store gets."""

from contextlib import suppress
from pathlib import Path

import pytest

from org_events.subscribing import MemoryStore
from org_events.subscribing.conformance import CHECKS, Check
from org_events.subscribing.stores.sqlite import SqliteStore


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_the_store_in_memory_conforms(check: Check) -> None:
    stores: dict[str, MemoryStore] = {}
    await check(lambda subscriber: stores.setdefault(subscriber, MemoryStore()))


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_the_store_in_sqlite_conforms(check: Check, tmp_path: Path) -> None:
    opened: list[SqliteStore] = []

    def opens(subscriber: str) -> SqliteStore:
        opened.append(SqliteStore(tmp_path / "kept.sqlite", subscriber))
        return opened[-1]

    await check(opens)
    for store in opened:
        await store.close()


async def test_what_a_subscriber_does_in_sqlite_is_one_transaction_with_how_far_it_is(tmp_path: Path) -> None:
    async with SqliteStore(tmp_path / "kept.sqlite", "index") as store:
        async with store.transaction() as session:
            await session.execute("CREATE TABLE entry (name TEXT)")
        with suppress(LookupError):
            async with store.transaction() as session:
                await session.executemany("INSERT INTO entry VALUES (?)", [("one",), ("two",)])
                assert await session.execute("SELECT count(*) FROM entry") == [(2,)]
                raise LookupError
        async with store.transaction() as session:
            assert await session.execute("SELECT count(*) FROM entry") == [(0,)]
