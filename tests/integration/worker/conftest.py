"""A look into the database from beside the worker."""

from collections.abc import AsyncIterator

import asyncpg
import pytest

from org_service.settings import Settings


@pytest.fixture
async def database(settings: Settings) -> AsyncIterator[asyncpg.Connection]:
    """A superuser's connection."""
    conn = await asyncpg.connect(settings.database.url.get_secret_value())
    yield conn
    await conn.close()
