"""A look into the database from beside the service."""

from collections.abc import AsyncIterator

import asyncpg
import pytest

from org_service.settings import Settings
from tests.support.database import connected


@pytest.fixture
async def database(settings: Settings) -> AsyncIterator[asyncpg.Connection]:
    """A superuser's connection."""
    async with connected(settings) as connection:
        yield connection
