"""Topics of their own for each test of the client, and a stand-in for the service."""

import secrets
from collections.abc import AsyncIterator

import asyncpg
import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from org_events import Topics
from org_events.publishing import OrganizationClient
from tests.integration.client.answering import AnsweringService
from tests.support.topics import create, drop


@pytest.fixture
async def admin(bootstrap_servers: str) -> AsyncIterator[AIOKafkaAdminClient]:
    client = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers)
    await client.start()
    yield client
    await client.close()


@pytest.fixture
async def topics(bootstrap_servers: str) -> AsyncIterator[Topics]:
    """Every topic of the contract, with three partitions each."""
    topics = Topics(f"c{secrets.token_hex(4)}.")
    specs = topics.specs(partitions=3)
    await create(bootstrap_servers, specs)
    yield topics
    await drop(bootstrap_servers, specs)


async def configure(admin: AIOKafkaAdminClient, topic: str, option: str, value: str) -> None:
    """Set one option of a topic; the others go back to the broker's defaults."""
    await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, {option: value})])


async def grow(admin: AIOKafkaAdminClient, topic: str, partitions: int) -> None:
    """Give a topic more partitions."""
    await admin.create_partitions({topic: NewPartitions(partitions)})


@pytest.fixture
async def service(bootstrap_servers: str, topics: Topics) -> AsyncIterator[AnsweringService]:
    async with AnsweringService(bootstrap_servers, topics) as service:
        yield service


@pytest.fixture
async def orgs(bootstrap_servers: str, topics: Topics) -> AsyncIterator[OrganizationClient]:
    async with OrganizationClient(
        bootstrap_servers=bootstrap_servers, source="/tests", topics=topics, timeout_s=20
    ) as orgs:
        yield orgs


@pytest.fixture
async def pool(own_database_url: str) -> AsyncIterator[asyncpg.Pool]:
    async with asyncpg.create_pool(own_database_url, min_size=1) as pool:
        yield pool
