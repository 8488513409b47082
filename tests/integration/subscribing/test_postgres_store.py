"""The store in Postgres, over asyncpg and over SQLAlchemy, by the checks that anybody's store gets."""

from collections.abc import AsyncIterator

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from org_events.subscribing.conformance import CHECKS
from org_events.subscribing.stores.postgres import PostgresStore

pytestmark = pytest.mark.integration


@pytest.fixture
async def pool(own_database_url: str) -> AsyncIterator[asyncpg.Pool]:
    async with asyncpg.create_pool(own_database_url, min_size=1, max_size=3) as pool:
        yield pool


async def test_the_store_over_asyncpg_conforms(pool: asyncpg.Pool) -> None:
    await PostgresStore.over_pool(pool, "any").create_tables()
    for check in CHECKS:
        await check(lambda subscriber: PostgresStore.over_pool(pool, subscriber))


async def test_the_store_over_sqlalchemy_conforms(own_database_url: str) -> None:
    engine = create_async_engine(own_database_url.replace("postgresql://", "postgresql+asyncpg://"))
    sessions = async_sessionmaker(engine)
    await PostgresStore.over_sessions(sessions, "any").create_tables()
    for check in CHECKS:
        await check(lambda subscriber: PostgresStore.over_sessions(sessions, subscriber))
    await engine.dispose()


async def test_what_a_subscriber_does_is_one_transaction_with_how_far_it_is(pool: asyncpg.Pool) -> None:
    """What follows from the checks, once with statements of the subscriber's own."""
    store = PostgresStore.over_pool(pool, "billing")
    await store.create_tables()
    await pool.execute("CREATE TABLE customer (name text)")
    for error in (LookupError, None):
        try:
            async with store.transaction() as connection:
                await connection.execute("INSERT INTO customer VALUES ('Acme')")
                if error is not None:
                    raise error
        except LookupError:
            pass
    assert await pool.fetchval("SELECT count(*) FROM customer") == 1
