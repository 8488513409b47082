"""A store in the subscriber's own Postgres: what it does with a change and how far it is are one transaction.

Over a pool of asyncpg the session of a change is a connection, over SQLAlchemy an `AsyncSession`:

    store = PostgresStore.over_pool(pool, "billing")
    store = PostgresStore.over_sessions(async_sessionmaker(engine), "billing")

One statement saves everything, so a change costs one round trip more than the subscriber's own work.
"""

# asyncpg is typed only in part.
# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false, reportUnknownArgumentType=false

from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, Generic, cast
from uuid import UUID

from org_events.subscribing.errors import Superseded
from org_events.subscribing.stores import Claim, Mark, Parked, Progress, Session, hash_keys

if TYPE_CHECKING:
    from asyncpg import Connection, Pool
    from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

TABLES: Final = """
CREATE TABLE IF NOT EXISTS orgs_mark (
    subscriber text, partition int, fence bigint NOT NULL, topic_id uuid, "offset" bigint, loading bool, whole bool,
    partitions int, epoch int, epoch_offset bigint, PRIMARY KEY (subscriber, partition)
);
CREATE TABLE IF NOT EXISTS orgs_version (
    subscriber text, org_id uuid, hash int NOT NULL, version bigint NOT NULL, PRIMARY KEY (subscriber, org_id)
);
CREATE TABLE IF NOT EXISTS orgs_parked (
    subscriber text, org_id uuid, version bigint, hash int NOT NULL, content bytea NOT NULL, reason text NOT NULL,
    PRIMARY KEY (subscriber, org_id, version)
);
"""
"""For a migration of the subscriber's own; or let `create_tables` do it."""
_CLAIM: Final = """
INSERT INTO orgs_mark AS mark (subscriber, partition, fence) VALUES ($1::text, $2::int, 1)
ON CONFLICT (subscriber, partition) DO UPDATE SET fence = mark.fence + 1 RETURNING fence
"""
_MARKS: Final = """
SELECT partition, topic_id, "offset", loading, whole, partitions, epoch, epoch_offset FROM orgs_mark
WHERE subscriber = $1::text AND topic_id IS NOT NULL
"""
_PARKED: Final = """
SELECT org_id, version, content, reason FROM orgs_parked
WHERE subscriber = $1::text AND hash % $2::int = $3::int ORDER BY org_id, version
"""
_KNOWN: Final = """
SELECT org_id, version FROM orgs_version WHERE subscriber = $1::text AND org_id = ANY ($2::uuid[])
"""
_ALL_KNOWN: Final = """
SELECT org_id, version FROM orgs_version WHERE subscriber = $1::text AND hash % $2::int = $3::int
"""
_SAVE: Final = """
WITH held AS (
    UPDATE orgs_mark SET fence = fence + 1, topic_id = $4::uuid, "offset" = $5::bigint, loading = $6::bool,
           whole = $7::bool, partitions = $8::int, epoch = $9::int, epoch_offset = $10::bigint
    WHERE subscriber = $1::text AND partition = $2::int AND fence = $3::bigint RETURNING 1
), versions AS (
    INSERT INTO orgs_version
    SELECT $1::text, org_id, hash, version
    FROM held, unnest($11::uuid[], $12::int[], $13::bigint[]) AS each (org_id, hash, version)
    ON CONFLICT (subscriber, org_id) DO UPDATE SET version = excluded.version
), parked AS (
    INSERT INTO orgs_parked
    SELECT $1::text, org_id, version, hash, content, reason
    FROM held, unnest($14::uuid[], $15::int[], $16::bigint[], $17::bytea[], $18::text[])
         AS each (org_id, hash, version, content, reason)
    ON CONFLICT (subscriber, org_id, version) DO UPDATE SET content = excluded.content, reason = excluded.reason
), released AS (
    DELETE FROM orgs_parked USING held, unnest($19::uuid[], $20::bigint[]) AS each (org_id, version)
    WHERE subscriber = $1::text AND orgs_parked.org_id = each.org_id AND orgs_parked.version = each.version
)
SELECT count(*) FROM held
"""

_Rows = Sequence[Sequence[Any]]


class PostgresStore(Generic[Session]):
    """Keeps what a subscriber knows in three tables; see `over_pool` and `over_sessions`.

    Args:
        subscriber: Name of the subscriber; a database may be shared by several.
        begin: Gives a transaction.
        fetch: Runs a statement with numbered parameters in it, and gives its rows.
    """

    def __init__(
        self,
        subscriber: str,
        begin: Callable[[], AbstractAsyncContextManager[Session]],
        fetch: Callable[[Session, str, Sequence[Any]], Awaitable[_Rows]],
    ) -> None:
        self._subscriber = subscriber
        self._begin = begin
        self._fetch = fetch

    @staticmethod
    def over_pool(pool: "Pool", subscriber: str) -> "PostgresStore[Connection]":
        """Over a pool of asyncpg; at least 2 connections where changes are handled in transactions."""

        @asynccontextmanager
        async def begin() -> AsyncGenerator["Connection"]:
            async with pool.acquire() as connection, connection.transaction():
                yield cast("Connection", connection)

        async def fetch(connection: "Connection", sql: str, parameters: Sequence[Any]) -> _Rows:
            return await connection.fetch(sql, *parameters)

        return PostgresStore(subscriber, begin, fetch)

    @staticmethod
    def over_sessions(make: "async_sessionmaker[AsyncSession]", subscriber: str) -> "PostgresStore[AsyncSession]":
        """Over sessions of SQLAlchemy, whose engine uses asyncpg."""

        async def fetch(session: "AsyncSession", sql: str, parameters: Sequence[Any]) -> _Rows:
            connection = await session.connection()
            result = await connection.exec_driver_sql(sql, tuple(parameters))
            return [tuple(row) for row in result] if result.returns_rows else []

        return PostgresStore(subscriber, make.begin, fetch)

    async def create_tables(self) -> None:
        """Create what isn't there."""
        async with self._begin() as session:
            for statement in filter(str.strip, TABLES.split(";")):
                await self._fetch(session, statement, ())

    async def claim(self, partition: int, partitions: int) -> Claim:
        """See `Store.claim`."""
        async with self._begin() as session:
            [[fence]] = await self._fetch(session, _CLAIM, (self._subscriber, partition))
            marks = await self._fetch(session, _MARKS, (self._subscriber,))
            parked = await self._fetch(session, _PARKED, (self._subscriber, partitions, partition))
        found = {number: _mark(row) for number, *row in marks}
        return Claim(fence, found, [Parked(str(org_id).encode(), *rest) for org_id, *rest in parked])

    async def known(self, keys: Collection[bytes] | None, partition: int, partitions: int) -> dict[bytes, int]:
        """See `Store.known`."""
        async with self._begin() as session:
            if keys is None:
                rows = await self._fetch(session, _ALL_KNOWN, (self._subscriber, partitions, partition))
            else:
                rows = await self._fetch(session, _KNOWN, (self._subscriber, [key.decode() for key in keys]))
        return {str(org_id).encode(): version for org_id, version in rows}

    def transaction(self) -> AbstractAsyncContextManager[Session]:
        """See `Store.transaction`."""
        return self._begin()

    async def save(self, session: Session, progress: Progress) -> None:
        """See `Store.save`."""
        where = (self._subscriber, progress.partition, progress.fence)
        [[held]] = await self._fetch(session, _SAVE, (*where, *progress.mark, *_columns(progress)))
        if not held:
            raise Superseded(f"partition {progress.partition}")


def _columns(progress: Progress) -> tuple[list[Any], ...]:
    keys, parked, released = [*progress.versions], progress.parked, progress.released
    return (
        [key.decode() for key in keys],
        hash_keys(keys),
        [*progress.versions.values()],
        [each.key.decode() for each in parked],
        hash_keys([each.key for each in parked]),
        [each.version for each in parked],
        [each.content for each in parked],
        [each.reason for each in parked],
        [key.decode() for key, _ in released],
        [version for _, version in released],
    )


def _mark(row: Sequence[Any]) -> Mark:
    topic_id, *rest = row
    return Mark(UUID(str(topic_id)), *rest)
