"""Reference data from real topics into real tables: memberships, partnerships, staff."""

from collections.abc import AsyncIterator
from uuid import uuid4

import asyncpg
import pytest

from org_events.reference import Partnership, Role, Staff
from org_service.settings import Settings
from tests.integration.worker.reference_feed import ACME, JOINED, Feed, member, reading, roles, until

pytestmark = pytest.mark.integration


@pytest.fixture
async def database(settings: Settings) -> AsyncIterator[asyncpg.Connection]:
    conn = await asyncpg.connect(settings.database.url.get_secret_value())
    yield conn
    await conn.close()


@pytest.fixture
def feed(settings: Settings) -> Feed:
    return Feed(settings)


async def test_facts_arrive_change_and_are_taken_back(
    settings: Settings, database: asyncpg.Connection, feed: Feed
) -> None:
    partner = uuid4()
    served = Partnership(partner_org_id=partner, org_id=ACME)
    await feed.members(member("ann", Role.ADMIN), member("bob"))
    await feed.raw(feed.topics.partnerships, [(served.key(), served.to_body())])
    await feed.raw(
        feed.topics.staff, [(b"sue", Staff(user_id="sue").to_body()), (b"sam", Staff(user_id="sam").to_body())]
    )
    async with reading(settings):
        await until(lambda: database.fetchval("SELECT count(*) FROM staff"), 2)
        await until(lambda: database.fetchval("SELECT count(*) FROM partnership"), 1)
        await until(lambda: roles(database), {"ann": "admin", "bob": "user"})
        row = await database.fetchrow("SELECT * FROM membership WHERE user_id = 'ann'")
        assert row is not None
        assert tuple(row) == ("ann", ACME, "admin", JOINED, True)
        assert tuple(await database.fetchrow("SELECT * FROM partnership")) == (partner, ACME, "cloud_rep")
        await feed.members(member("bob", Role.SUPPORT, active=False))
        await feed.raw(feed.topics.memberships, [(member("ann").key(), None)])
        await feed.raw(feed.topics.partnerships, [(served.key(), None)])
        await feed.raw(feed.topics.staff, [(b"sue", None)])
        await until(lambda: roles(database), {"bob": "support"})
        await until(lambda: database.fetchval("SELECT count(*) FROM partnership"), 0)
        await until(lambda: database.fetchval("SELECT array_agg(user_id) FROM staff"), ["sam"])
    assert await database.fetchval("SELECT active FROM membership") is False
