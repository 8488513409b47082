"""Subscribers with each store, killed, frozen, rebalanced and left behind at random, end with what was published.

What was published is remembered by the one who published it, with another client library; what was handled is read from
the subscribers' own tables.

    SUBSCRIBERS_SEED=7 SUBSCRIBERS_ROUNDS=40 pytest -n 0 tests/integration/subscribing/test_at_random.py --timeout 900
"""

import asyncio
import os
import random
import secrets
import sqlite3
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from org_events import Topics
from org_events.subscribing import Change, Kind, MemoryStore, OrganizationSubscriber
from org_events.subscribing.stores.postgres import PostgresStore
from tests.integration.subscribing.conftest import PARTITIONS
from tests.support import log_faults
from tests.support.subscriber_process import SCHEMA, SubscriberProcess
from tests.support.subscribing import number_of
from tests.support.subscribing_feed import Feed
from tests.support.waiting import until

pytestmark = [pytest.mark.integration, pytest.mark.chaos, pytest.mark.timeout(180)]

ORGANIZATIONS = 60
ROUNDS = int(os.environ.get("SUBSCRIBERS_ROUNDS", "4"))
TRANSACTIONS = 25
"""Of a round."""
SETTLE_S = 60


class InMemory:
    """A subscriber of this process, which forgets all when it is killed."""

    def __init__(self, bootstrap_servers: str, topics: Topics) -> None:
        self._options: dict[str, Any] = {"bootstrap_servers": bootstrap_servers, "topics": topics}
        self.names: dict[int, str] = {}
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self.names = {}
        self._task = asyncio.create_task(self._run())

    async def kill(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        async with OrganizationSubscriber(store=MemoryStore(), **self._options) as subscriber:
            async for change in subscriber:
                self._take(change)

    def _take(self, change: Change[Any]) -> None:
        if change.after is None:
            self.names.pop(number_of(change), None)
        else:
            self.names[number_of(change)] = change.after.name


@pytest.fixture
async def pool(own_database_url: str) -> AsyncIterator[asyncpg.Pool]:
    async with asyncpg.create_pool(own_database_url, min_size=1, max_size=2) as pool:
        for statement in SCHEMA:
            await pool.execute(statement)
        await PostgresStore.over_pool(pool, "tests").create_tables()
        yield pool


@asynccontextmanager
async def running(processes: Iterable[SubscriberProcess]) -> AsyncIterator[None]:
    for process in processes:
        process.start()
    try:
        yield
    finally:
        for process in processes:
            process.thaw()
            await asyncio.to_thread(process.end)


async def test_whatever_happens_to_subscribers_they_end_with_the_state_and_handled_each_version_once(
    bootstrap_servers: str, topics: Topics, feed: Feed, pool: asyncpg.Pool, own_database_url: str, tmp_path: Path
) -> None:
    seed = int(os.environ.get("SUBSCRIBERS_SEED", secrets.randbits(32)))
    print(f"SUBSCRIBERS_SEED={seed}")
    chance, file = random.Random(seed), tmp_path / "kept.sqlite"
    config = {"bootstrap_servers": bootstrap_servers, "prefix": topics.prefix}
    shared = [
        SubscriberProcess(config | {"postgres": own_database_url, "group": f"{topics.prefix}g"}) for _ in range(2)
    ]
    alone = SubscriberProcess(config | {"sqlite": str(file)})
    in_memory = InMemory(bootstrap_servers, topics)
    await in_memory.start()
    async with running([*shared, alone]):
        for number in range(ROUNDS):
            publishing = asyncio.create_task(asyncio.to_thread(publish, feed, random.Random(seed + number)))
            await happen(chance, [*shared, alone], in_memory)
            await publishing
            if number == ROUNDS // 2:
                await leave_behind(bootstrap_servers, topics, alone, feed, chance)
        for process in (*shared, alone):
            process.start()
        await until(lambda: in_memory.names, feed.present, SETTLE_S)
        await until(lambda: asyncio.to_thread(read_file, file, "organization"), sorted(feed.present.items()), SETTLE_S)
        await until(lambda: read(pool, "organization"), sorted(feed.present.items()), SETTLE_S)
    await in_memory.kill()
    check(feed, read_file(file, "handled"))
    check(feed, await read(pool, "handled"))


def publish(feed: Feed, chance: random.Random) -> None:
    for _ in range(TRANSACTIONS):
        feed.publish_at_random(chance, ORGANIZATIONS)


async def happen(chance: random.Random, processes: list[SubscriberProcess], in_memory: InMemory) -> None:
    """Something happens to somebody, while changes are published."""
    process = chance.choice(processes)
    await asyncio.sleep(chance.random())
    match chance.choice(("kill", "kill", "freeze", "end", "forget")):
        case "kill":
            await asyncio.to_thread(process.kill)
        case "end":
            await asyncio.to_thread(process.end)
        case "freeze":
            process.freeze()
            await asyncio.sleep(chance.random())
            process.thaw()
        case _:
            await in_memory.kill()
            await in_memory.start()
    process.start()


async def leave_behind(
    bootstrap_servers: str, topics: Topics, process: SubscriberProcess, feed: Feed, chance: random.Random
) -> None:
    """Retention takes what a process that is away has not read."""
    await asyncio.to_thread(process.kill)
    await asyncio.to_thread(publish, feed, random.Random(chance.random()))
    ends = await asyncio.to_thread(log_faults.ends, bootstrap_servers, topics.events, range(PARTITIONS))
    await asyncio.to_thread(log_faults.delete_records, bootstrap_servers, topics.events, ends)
    process.start()


ORDER = {"organization": "number", "handled": "number, version, kind DESC"}


async def read(pool: asyncpg.Pool, table: str) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in await pool.fetch(f"SELECT * FROM {table} ORDER BY {ORDER[table]}")]


def read_file(path: Path, table: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as connection, suppress(sqlite3.OperationalError):  # it has no tables yet
        return connection.execute(f"SELECT * FROM {table} ORDER BY {ORDER[table]}").fetchall()
    return []


def check(feed: Feed, handled: list[tuple[Any, ...]]) -> None:
    """Each version once and in order; only a load stands for several, and what it has no record of is gone."""
    versions: dict[int, list[tuple[int, str]]] = defaultdict(list)
    for number, version, kind in handled:
        versions[number].append((version, kind))
    for number, found in versions.items():
        before = 0
        for version, kind in found:
            follows = version == before + 1 or (kind == Kind.LOADED and version > before)
            assert follows or (kind == Kind.GONE and version == before), (number, found)
            before = version
        assert before == feed.versions[number] or number not in feed.present, (number, found)
    assert feed.present.keys() <= versions.keys()
