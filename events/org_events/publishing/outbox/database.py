"""Statements on a connection of the publisher's, asyncpg's or SQLAlchemy's; neither is imported for the other.

Statements name their values (`:id`), as SQLAlchemy does for any driver; asyncpg gets them by number. Each value is cast
in the statement, and JSON goes as text, because connections may have codecs of their own for it.
"""

import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import lru_cache
from typing import Any, Final, Protocol, cast

_NAME: Final = re.compile(r"(?<!:):([a-z_]+)")


class AsyncpgConnection(Protocol):
    """A connection of asyncpg."""

    async def fetch(self, query: str, *args: Any) -> list[Any]:
        """Run a statement."""
        ...

    def is_in_transaction(self) -> bool:
        """Whether it is in one."""
        ...


class PooledConnection(Protocol):
    """What a pool of asyncpg gives: it hands everything on to a connection, which type checkers can't see."""

    def __getattr__(self, attr: str, /) -> Any:
        """An attribute of the connection."""
        ...


class SqlalchemyConnection(Protocol):
    """An `AsyncConnection` or `AsyncSession`."""

    async def execute(self, statement: Any, parameters: Any = None, /) -> Any:
        """Run a statement."""
        ...


class AsyncpgPool(Protocol):
    """A pool of asyncpg."""

    def acquire(self) -> Any:
        """Give a connection."""
        ...


class SqlalchemyEngine(Protocol):
    """An `AsyncEngine` or `async_sessionmaker`."""

    def begin(self) -> Any:
        """Give a connection, or a session, in a transaction."""
        ...


Connection = AsyncpgConnection | PooledConnection | SqlalchemyConnection
Database = AsyncpgPool | SqlalchemyEngine


@lru_cache(64)
def _by_number(statement: str) -> tuple[str, tuple[str, ...]]:
    """The statement as asyncpg wants it, and the names of its values in their order."""
    names = tuple(dict.fromkeys(_NAME.findall(statement)))
    return _NAME.sub(lambda found: f"${names.index(found[1]) + 1}", statement), names


async def run(connection: Connection, statement: str, **values: Any) -> Sequence[Mapping[str, Any]]:
    """Run a statement in the connection's transaction; its rows by the names of their columns."""
    if hasattr(connection, "fetch"):
        numbered, names = _by_number(statement)
        asyncpg = cast("AsyncpgConnection", connection)
        return await asyncpg.fetch(numbered, *(values[name] for name in names))
    from sqlalchemy import text  # noqa: PLC0415 - whoever has no connection of SQLAlchemy's need not have it

    result = await cast("SqlalchemyConnection", connection).execute(text(statement), values)
    return result.mappings().all() if result.returns_rows else ()


def check_transaction(connection: Connection) -> None:
    """See that a row that is written now goes with the caller's work; SQLAlchemy begins a transaction by itself.

    Raises:
        ValueError: It would be written at once, whatever becomes of the work.
    """
    if hasattr(connection, "fetch"):
        is_in_transaction = getattr(connection, "is_in_transaction", None)
        if is_in_transaction is None or not is_in_transaction():
            raise ValueError("enqueue on a connection that is in a transaction: `async with connection.transaction():`")


@asynccontextmanager
async def transaction(database: Database) -> AsyncGenerator[Any]:
    """A connection, or a session, in a transaction that commits at the end of the block."""
    if hasattr(database, "acquire"):
        async with cast("AsyncpgPool", database).acquire() as connection, connection.transaction():
            yield connection
    else:
        async with cast("SqlalchemyEngine", database).begin() as connection:
            yield connection
