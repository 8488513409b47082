"""One service for all tests of the edge that don't stop it: worker, relay and edge on a database of their own."""

import asyncio
import secrets
from collections.abc import Iterator

import asyncpg
import pytest
from pydantic import SecretStr

from org_service.settings import Auth, Database, Kafka, Relay, Settings, Worker
from tests.support.edge import People, Site, add_staff, with_edge
from tests.support.topics import create_topics, drop_topics


# Not for the session: its threads draw random numbers, which Hypothesis forbids while it makes its own.
@pytest.fixture(scope="package")
def site(
    server_url: str, bootstrap_servers: str, template_database: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """A running service. `root` is staff there."""
    run = f"e{secrets.token_hex(4)}"
    url = f"{server_url.rpartition('/')[0]}/{run}"
    people = People(tmp_path_factory.mktemp("issuer"))
    settings = Settings(
        kafka=Kafka(bootstrap_servers=bootstrap_servers, topic_prefix=f"{run}.", partitions=3),
        database=Database(url=SecretStr(url)),
        worker=Worker(port=0),
        relay=Relay(port=0),
        auth=Auth(commands="trusted"),
    )

    async def make() -> None:
        server = await asyncpg.connect(server_url)
        await server.execute(f"CREATE DATABASE {run} TEMPLATE {template_database} STRATEGY FILE_COPY")
        await server.close()
        await create_topics(settings)
        await add_staff(settings, "root")

    async def drop() -> None:
        await drop_topics(settings)
        server = await asyncpg.connect(server_url)
        await server.execute(f"DROP DATABASE {run} WITH (FORCE)")
        await server.close()

    asyncio.run(make())
    with Site(with_edge(settings, people), people) as started:
        yield started
    asyncio.run(drop())
