"""One service for all tests of the edge that don't stop it: worker, relay and edge on a database of their own."""

import asyncio
import secrets
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import asyncpg
import pytest
from pydantic import SecretStr

from org_service.settings import (
    AuthSettings,
    DatabaseSettings,
    KafkaSettings,
    OperateSettings,
    RelaySettings,
    Settings,
    WorkerSettings,
)
from tests.support.edge import People, Site, add_staff, with_edge
from tests.support.topics import create_topics, drop_topics

Apart = Callable[[People, str], AbstractContextManager[Site]]


@pytest.fixture(scope="package")
def site_apart(server_url: str, bootstrap_servers: str, template_database: str) -> Apart:
    """Starts services, each on a database and topics of its own: `with site_apart(people, policy_file) as site`.

    `root` is staff there. An empty policy file stands for the packaged policy.
    """

    @contextmanager
    def start(people: People, policy_file: str) -> Iterator[Site]:
        run = f"e{secrets.token_hex(4)}"
        settings = Settings(
            kafka=KafkaSettings(bootstrap_servers=bootstrap_servers, topic_prefix=f"{run}.", partitions=3),
            database=DatabaseSettings(url=SecretStr(f"{server_url.rpartition('/')[0]}/{run}")),
            worker=WorkerSettings(port=0),
            relay=RelaySettings(port=0),
            operate=OperateSettings(port=0),
            auth=AuthSettings(commands="trusted"),
        )

        async def make() -> None:
            server = await asyncpg.connect(server_url)
            await server.execute(f"CREATE DATABASE {run} TEMPLATE {template_database}")
            await server.close()
            await create_topics(settings)
            await add_staff(settings, "root")

        async def drop() -> None:
            await drop_topics(settings)
            server = await asyncpg.connect(server_url)
            await server.execute(f"DROP DATABASE {run} WITH (FORCE)")
            await server.close()

        asyncio.run(make())
        served = with_edge(settings, people)
        judged = served.auth.model_copy(update={"policy_file": policy_file})
        with Site(served.model_copy(update={"auth": judged}), people) as started:
            yield started
        asyncio.run(drop())

    return start


# Not for the session: its threads draw random numbers, which Hypothesis forbids while it makes its own.
@pytest.fixture(scope="package")
def site(site_apart: Apart, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A running service. `root` is staff there."""
    with site_apart(People(tmp_path_factory.mktemp("issuer")), "") as started:
        yield started
