"""Fixtures for every test: one real Kafka and Postgres for each process that runs tests."""

import asyncio
import os
import secrets
import signal
from collections.abc import AsyncIterator, Iterator

import asyncpg
import hypothesis
import pytest
from pydantic import SecretStr

import org_local
from org_service.settings import (
    AuthSettings,
    DatabaseSettings,
    KafkaSettings,
    OperateSettings,
    RelaySettings,
    Settings,
    WorkerSettings,
)
from org_service.store import migrate
from tests.support.topics import create_topics, drop_topics

# Scripts start what they run in the background with SIGINT ignored, and processes inherit that: ^C would do nothing.
signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes tells about the machine, not about the code.
hypothesis.settings.register_profile(
    "orgs", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow], print_blob=True
)
hypothesis.settings.load_profile("orgs")


@pytest.fixture(scope="session")
def stack() -> Iterator[org_local.Stack]:
    """The servers, with temporary data; or those which the environment names."""
    with org_local.start() as started:
        yield started


@pytest.fixture(scope="session")
def bootstrap_servers(stack: org_local.Stack) -> str:
    """Where Kafka is, as `host:port`."""
    return stack.bootstrap_servers


@pytest.fixture(scope="session")
def server_url(stack: org_local.Stack) -> str:
    """The maintenance database, as superuser: for making and dropping the databases of tests."""
    return stack.database_url.rpartition("/")[0] + "/postgres"


@pytest.fixture(scope="session")
def template_database(server_url: str) -> str:
    """The name of a migrated database, to copy: faster than migrating each test's own.

    Not with STRATEGY FILE_COPY: it and the DROP that follows wait for checkpoints, a second for each test.
    """
    name = f"org_template_{os.environ.get('PYTEST_XDIST_WORKER', 'alone')}"

    async def make() -> None:
        server = await asyncpg.connect(server_url)
        # Where the environment names the servers, several processes of tests share them, and make the same logins.
        await server.execute("SELECT pg_advisory_lock(hashtext('org_template'))")
        await server.execute(f"DROP DATABASE IF EXISTS {name}")
        await server.execute(f"CREATE DATABASE {name}")
        await migrate.upgrade(DatabaseSettings(url=SecretStr(_beside(server_url, name))))
        await server.close()

    asyncio.run(make())
    return name


@pytest.fixture
async def settings(server_url: str, bootstrap_servers: str, template_database: str) -> AsyncIterator[Settings]:
    """Settings with a fresh migrated database and fresh topics of their own; both are dropped at the end."""
    run = f"t{secrets.token_hex(4)}"
    server = await asyncpg.connect(server_url)
    await server.execute(f"CREATE DATABASE {run} TEMPLATE {template_database}")
    settings = Settings(
        kafka=KafkaSettings(bootstrap_servers=bootstrap_servers, topic_prefix=f"{run}.", partitions=3),
        database=DatabaseSettings(url=SecretStr(_beside(server_url, run))),
        worker=WorkerSettings(port=0),
        relay=RelaySettings(port=0),
        operate=OperateSettings(port=0),
        auth=AuthSettings(commands="trusted"),
    )
    await create_topics(settings)
    yield settings
    await drop_topics(settings)
    await server.execute(f"DROP DATABASE {run} WITH (FORCE)")
    await server.close()


@pytest.fixture
async def own_database_url(server_url: str) -> AsyncIterator[str]:
    """An empty database of another program: a publisher's or a subscriber's own."""
    name = f"o{secrets.token_hex(4)}"
    server = await asyncpg.connect(server_url)
    await server.execute(f"CREATE DATABASE {name}")
    yield _beside(server_url, name)
    await server.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await server.close()


def _beside(server_url: str, database: str) -> str:
    return f"{server_url.rpartition('/')[0]}/{database}"
