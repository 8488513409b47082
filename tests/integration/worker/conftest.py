"""An applier, and a look into the database from beside it."""

from collections.abc import AsyncIterator

import asyncpg
import pytest

from org_service.apply.applier import Applier
from org_service.settings import Settings
from tests.support.appliers import applying


@pytest.fixture
async def database(settings: Settings) -> AsyncIterator[asyncpg.Connection]:
    """A superuser's connection."""
    conn = await asyncpg.connect(settings.database.url.get_secret_value())
    yield conn
    await conn.close()


@pytest.fixture
async def applier(settings: Settings) -> AsyncIterator[Applier]:
    async with applying(settings) as made:
        yield made
