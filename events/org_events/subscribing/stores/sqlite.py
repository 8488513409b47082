"""A store in a SQLite file, by the standard library alone: for indexes and caches of one machine.

The connection lives in a thread of its own, and one transaction is open at a time. Processes may share the file. A
commit is on the disk before it counts (SQLite's default), so whoever handles single changes gets as many a second as
the disk writes; batches share one.
"""

import asyncio
import json
import sqlite3
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, Self, TypeVar
from uuid import UUID

from org_events.subscribing.errors import Superseded
from org_events.subscribing.stores import Claim, Mark, Parked, Progress, hash_keys

_T = TypeVar("_T")

BUSY_S: Final = 30.0
"""For another process to end its transaction."""
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS orgs_mark (
    subscriber TEXT, partition INTEGER, fence INTEGER NOT NULL, topic_id TEXT, offset INTEGER, loading INTEGER,
    whole INTEGER, partitions INTEGER, epoch INTEGER, epoch_offset INTEGER, PRIMARY KEY (subscriber, partition)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS orgs_version (
    subscriber TEXT, org_id TEXT, hash INTEGER NOT NULL, version INTEGER NOT NULL, PRIMARY KEY (subscriber, org_id)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS orgs_parked (
    subscriber TEXT, org_id TEXT, version INTEGER, hash INTEGER NOT NULL, content BLOB NOT NULL, reason TEXT NOT NULL,
    PRIMARY KEY (subscriber, org_id, version)
) WITHOUT ROWID;
"""
_CLAIM: Final = """
INSERT INTO orgs_mark (subscriber, partition, fence) VALUES (?, ?, 1)
ON CONFLICT DO UPDATE SET fence = fence + 1 RETURNING fence
"""
_MARKS: Final = """
SELECT partition, topic_id, offset, loading, whole, partitions, epoch, epoch_offset FROM orgs_mark
WHERE subscriber = ? AND topic_id IS NOT NULL
"""
_PARKED: Final = """
SELECT org_id, version, content, reason FROM orgs_parked WHERE subscriber = ? AND hash % ? = ? ORDER BY org_id, version
"""
_KNOWN: Final = """
SELECT org_id, version FROM orgs_version WHERE subscriber = ? AND org_id IN (SELECT value FROM json_each(?))
"""
_ALL_KNOWN: Final = "SELECT org_id, version FROM orgs_version WHERE subscriber = ? AND hash % ? = ?"
_SAVE_MARK: Final = """
UPDATE orgs_mark SET fence = fence + 1, topic_id = ?, offset = ?, loading = ?, whole = ?, partitions = ?, epoch = ?,
       epoch_offset = ?
WHERE subscriber = ? AND partition = ? AND fence = ?
"""
_SAVE_VERSION: Final = """
INSERT INTO orgs_version VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET version = excluded.version
"""
_PARK: Final = "INSERT OR REPLACE INTO orgs_parked VALUES (?, ?, ?, ?, ?, ?)"
_RELEASE: Final = "DELETE FROM orgs_parked WHERE subscriber = ? AND org_id = ? AND version = ?"


class SqliteSession:
    """The transaction of a change, for the subscriber's own statements."""

    def __init__(self, run: Callable[[Callable[[], Any]], Any], connection: sqlite3.Connection) -> None:
        self._run = run
        self._connection = connection

    async def execute(self, sql: str, parameters: Sequence[Any] = ()) -> list[Any]:
        """Run a statement; its rows."""
        return await self.run(lambda connection: connection.execute(sql, parameters).fetchall())

    async def executemany(self, sql: str, parameters: Sequence[Sequence[Any]]) -> None:
        """Run a statement once for each."""
        await self.run(lambda connection: connection.executemany(sql, parameters))

    async def run(self, function: Callable[[sqlite3.Connection], _T]) -> _T:
        """Call a function with the connection, in its thread. It must not commit."""
        return await self._run(lambda: function(self._connection))


class SqliteStore:
    """Keeps what a subscriber knows in a SQLite file. Use it in `async with`, or call `close` in the end.

    Args:
        path: Of the file; it is made where there is none.
        subscriber: Name of the subscriber; a file may be shared by several.
    """

    def __init__(self, path: str | Path, subscriber: str) -> None:
        self._subscriber = subscriber
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="org-events sqlite")
        self._lock = asyncio.Lock()
        self._closed = False
        self._connection = self._thread.submit(_connect, str(path)).result()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Give the file back. May be called again."""
        async with self._lock:
            if not self._closed:
                self._closed = True
                await self._run(self._connection.close)
                self._thread.shutdown()

    async def claim(self, partition: int, partitions: int) -> Claim:
        """See `Store.claim`."""
        async with self.transaction() as session:
            [[fence]] = await session.execute(_CLAIM, (self._subscriber, partition))
            marks = await session.execute(_MARKS, (self._subscriber,))
            parked = await session.execute(_PARKED, (self._subscriber, partitions, partition))
        found = {number: _mark(row) for number, *row in marks}
        return Claim(fence, found, [Parked(key.encode(), *rest) for key, *rest in parked])

    async def known(self, keys: Collection[bytes] | None, partition: int, partitions: int) -> dict[bytes, int]:
        """See `Store.known`."""
        if keys is None:
            sql, parameters = _ALL_KNOWN, (self._subscriber, partitions, partition)
        else:
            sql, parameters = _KNOWN, (self._subscriber, json.dumps([key.decode() for key in keys]))
        async with self._lock:
            rows = await self._run(lambda: self._connection.execute(sql, parameters).fetchall())
        return {key.encode(): version for key, version in rows}

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[SqliteSession]:
        """See `Store.transaction`."""
        async with self._lock:
            try:  # what is cancelled here may have begun all the same
                await self._run(lambda: self._connection.execute("BEGIN IMMEDIATE"))
                yield SqliteSession(self._run, self._connection)
            except BaseException:
                await self._run(self._connection.rollback)
                raise
            await self._run(self._connection.commit)

    async def save(self, session: SqliteSession, progress: Progress) -> None:
        """See `Store.save`."""
        await session.run(lambda connection: self._save(connection, progress))

    def _save(self, connection: sqlite3.Connection, progress: Progress) -> None:
        name, mark = self._subscriber, progress.mark
        where = (name, progress.partition, progress.fence)
        if connection.execute(_SAVE_MARK, (str(mark.topic_id), *mark[1:], *where)).rowcount != 1:
            raise Superseded(f"partition {progress.partition}")
        hashes = hash_keys([*progress.versions])
        rows = zip(progress.versions.items(), hashes, strict=True)
        connection.executemany(_SAVE_VERSION, [(name, key.decode(), hashed, v) for (key, v), hashed in rows])
        for each in progress.parked:
            [hashed] = hash_keys([each.key])
            connection.execute(_PARK, (name, each.key.decode(), each.version, hashed, each.content, each.reason))
        connection.executemany(_RELEASE, [(name, key.decode(), version) for key, version in progress.released])

    async def _run(self, function: Callable[[], _T]) -> _T:
        """In the connection's thread, to its end: what was begun there can't be taken back by a cancellation."""
        work = asyncio.get_running_loop().run_in_executor(self._thread, function)
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            await asyncio.wait([work])
            raise


def _connect(path: str) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.executescript(_SCHEMA)
    return connection


def _mark(row: Sequence[Any]) -> Mark:
    topic_id, offset, loading, whole, *rest = row
    return Mark(UUID(topic_id), offset, bool(loading), bool(whole), *rest)
