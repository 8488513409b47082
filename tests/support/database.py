"""The database of a test, looked at and changed from beside the service."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from org_service.settings import Settings


@asynccontextmanager
async def connected(settings: Settings) -> AsyncIterator[asyncpg.Connection]:
    """A connection of the superuser."""
    connection = await asyncpg.connect(settings.database.url.get_secret_value())
    try:
        yield connection
    finally:
        await connection.close()


async def execute(settings: Settings, statement: str, *arguments: Any) -> str:
    """Run one statement as the superuser; returns what Postgres says to it."""
    async with connected(settings) as connection:
        return await connection.execute(statement, *arguments)


async def fetch(settings: Settings, query: str, *arguments: Any) -> list[asyncpg.Record]:
    """Run one query as the superuser."""
    async with connected(settings) as connection:
        return await connection.fetch(query, *arguments)


async def restore_older_backup(settings: Settings, position: int) -> None:
    """Leave what a restore does: the commands up to a position, and nothing after them."""
    async with connected(settings) as conn:
        await conn.execute(
            "DELETE FROM organization WHERE id IN (SELECT org_id FROM journal WHERE position > $1)", position
        )
        await conn.execute("DELETE FROM journal WHERE position > $1", position)
        await conn.execute("UPDATE journal_head SET position = $1", position)
