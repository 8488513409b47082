"""A subscriber as a process of its own, to be killed: `python -m tests.support.subscriber_process CONFIG`.

What it does with a change are two statements in the change's own transaction: a row that says that the change came, and
the organization as it is now. Nothing of it is idempotent: whatever comes twice shows.
"""

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import orjson

from org_events import Topics
from org_events.subscribing import Batch, OrganizationSubscriber
from org_events.subscribing.stores.postgres import PostgresStore
from org_events.subscribing.stores.sqlite import SqliteSession, SqliteStore
from tests.support.subscribing import number_of

SCHEMA = (
    "CREATE TABLE IF NOT EXISTS handled (number INTEGER, version INTEGER, kind TEXT)",
    "CREATE TABLE IF NOT EXISTS organization (number INTEGER PRIMARY KEY, name TEXT)",
)
HANDLED = "INSERT INTO handled VALUES ($1, $2, $3)"
WRITTEN = "INSERT INTO organization VALUES ($1, $2) ON CONFLICT (number) DO UPDATE SET name = excluded.name"
DELETED = "DELETE FROM organization WHERE number = $1"
SESSION_MS = 6_000
"""The least that brokers accept: so long a group waits for a member that was killed."""


async def handle(batch: Batch[Any]) -> None:
    """The subscriber's own work."""
    async with batch.transaction() as session:
        for change in batch:
            number, after = number_of(change), change.after
            await execute(session, HANDLED, (number, change.version, change.kind.value))
            if after is None:
                await execute(session, DELETED, (number,))
            else:
                await execute(session, WRITTEN, (number, after.name))


async def execute(session: Any, sql: str, parameters: Sequence[Any]) -> None:
    """With either kind of session."""
    if isinstance(session, SqliteSession):
        await session.execute(sql.replace("$1", "?1").replace("$2", "?2").replace("$3", "?3"), parameters)
    else:
        await session.execute(sql, *parameters)


@asynccontextmanager
async def opened(config: dict[str, Any]) -> AsyncGenerator[Any]:
    """The store, with the subscriber's own tables."""
    if "sqlite" in config:
        async with SqliteStore(config["sqlite"], "tests") as store:
            async with store.transaction() as session:
                for statement in SCHEMA:
                    await session.execute(statement)
            yield store
        return
    async with asyncpg.create_pool(config["postgres"], min_size=1, max_size=4) as pool:
        yield PostgresStore.over_pool(pool, "tests")


async def main(config: dict[str, Any]) -> None:
    """Run until SIGTERM."""
    async with (
        opened(config) as store,
        OrganizationSubscriber(
            bootstrap_servers=config["bootstrap_servers"],
            topics=Topics(config["prefix"]),
            store=store,
            group=config.get("group"),
            session_timeout_ms=SESSION_MS,
        ) as subscriber,
    ):
        stopping: set[asyncio.Task[None]] = set()
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, lambda: stopping.add(loop.create_task(subscriber.stop())))
        await subscriber.run_batches(handle)


class SubscriberProcess:
    """One that is started, killed, frozen and started again."""

    def __init__(self, config: dict[str, Any]) -> None:
        self._config = orjson.dumps(config).decode()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, unless it runs."""
        if self._process is None:
            self._process = subprocess.Popen([sys.executable, "-m", "tests.support.subscriber_process", self._config])

    def kill(self) -> None:
        """SIGKILL."""
        self._end(signal.SIGKILL, -signal.SIGKILL)

    def end(self) -> None:
        """SIGTERM, and what it says then."""
        self._end(signal.SIGTERM, 0)

    def freeze(self) -> None:
        """SIGSTOP."""
        if self._process is not None:
            self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)

    def _end(self, how: signal.Signals, status: int) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(how)
            assert process.wait(30) in (status, -how)  # by the signal itself where it came before the process listened


if __name__ == "__main__":
    asyncio.run(main(orjson.loads(sys.argv[1])))
