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
