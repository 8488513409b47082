"""Running services, each on a database and topics of its own."""

import asyncio
import secrets
from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg
from pydantic import SecretStr

from org_service.settings import (
    AuthSettings,
    ConsoleSettings,
    DatabaseSettings,
    KafkaSettings,
    OperateSettings,
    RelaySettings,
    Settings,
    WorkerSettings,
)
from tests.support.edge import People, Site, add_staff, with_edge
from tests.support.topics import create_topics, drop_topics


@contextmanager
def running_site(
    server_url: str,
    bootstrap_servers: str,
    template_database: str,
    people: People,
    *,
    policy_file: str = "",
    console: ConsoleSettings | None = None,
) -> Iterator[Site]:
    """A running service; `root` is staff there. An empty policy file stands for the packaged policy."""
    run = f"e{secrets.token_hex(4)}"
    settings = Settings(
        kafka=KafkaSettings(bootstrap_servers=bootstrap_servers, topic_prefix=f"{run}.", partitions=3),
        database=DatabaseSettings(url=SecretStr(f"{server_url.rpartition('/')[0]}/{run}")),
        worker=WorkerSettings(port=0),
        relay=RelaySettings(port=0),
        operate=OperateSettings(port=0, poll_interval_s=0.2),
        auth=AuthSettings(commands="trusted"),
        console=console or ConsoleSettings(),
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
