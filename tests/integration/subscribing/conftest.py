"""Topics of their own for each test of subscribers, and what publishes on them."""

import asyncio
import secrets
from collections.abc import AsyncIterator

import pytest

from org_events import Topics
from tests.support.subscribing_feed import Feed
from tests.support.topics import create, drop

PARTITIONS = 4


@pytest.fixture
async def topics(bootstrap_servers: str) -> AsyncIterator[Topics]:
    """Every topic of the contract, with four partitions each."""
    topics = Topics(f"s{secrets.token_hex(4)}.")
    specs = topics.specs(partitions=PARTITIONS)
    await create(bootstrap_servers, specs)
    yield topics
    await drop(bootstrap_servers, specs)


@pytest.fixture
async def feed(bootstrap_servers: str, topics: Topics) -> Feed:
    return await asyncio.to_thread(Feed, bootstrap_servers, topics)
