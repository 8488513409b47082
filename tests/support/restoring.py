"""Databases that are lost, copied and restored; and what is in them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import asyncpg

from org_service.settings import Settings
from tests.support.checker import judge
from tests.support.database import connected
from tests.support.observed import TopicReader, observe

TABLES = {
    "organization": "SELECT * FROM organization ORDER BY id",
    "journal": "SELECT * FROM journal ORDER BY position",
    "journal_head": "SELECT position FROM journal_head",
    "journal_gap": "SELECT first_position, last_position FROM journal_gap ORDER BY 1",
    "parked": 'SELECT topic, partition, "offset", broker_time, key, value, headers, org_id, command_id, '
    'request_digest, actor, authenticated_by, value_bytes, state FROM parked ORDER BY partition, "offset"',
}


class Tables(NamedTuple):
    """All that a rebuild brings back; of parked records all but why they were parked."""

    organization: list[Any]
    journal: list[Any]
    journal_head: list[Any]
    journal_gap: list[Any]
    parked: list[Any]


async def read_tables(settings: Settings) -> Tables:
    """Read them."""
    async with connected(settings) as connection:
        return Tables(**{name: list(map(tuple, await connection.fetch(query))) for name, query in TABLES.items()})


@asynccontextmanager
async def _server(settings: Settings) -> AsyncIterator[tuple[asyncpg.Connection, str]]:
    """A connection beside the test's database, and the name of that."""
    beside, _, name = settings.database.url.get_secret_value().rpartition("/")
    connection = await asyncpg.connect(f"{beside}/postgres")
    try:
        yield connection, name
    finally:
        await connection.close()


async def replace_by(settings: Settings, template: str) -> None:
    """Drop the database, and make it again as a copy of another one."""
    async with _server(settings) as (server, name):
        await server.execute(f"DROP DATABASE {name} WITH (FORCE)")
        await server.execute(f"CREATE DATABASE {name} TEMPLATE {template}")


async def back_up(settings: Settings) -> str:
    """Copy the database; returns the copy's name."""
    async with _server(settings) as (server, name):
        await server.execute(f"CREATE DATABASE {name}_copy TEMPLATE {name}")
    return f"{name}_copy"


async def drop(settings: Settings, name: str) -> None:
    """Drop a copy."""
    async with _server(settings) as (server, _):
        await server.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


def check_independently(settings: Settings) -> None:
    """Let the independent checker judge the tables and the topics."""
    reader = TopicReader(settings.kafka.bootstrap_servers)
    try:
        observed = observe(reader, settings.database.url.get_secret_value(), settings.kafka.topics)
    finally:
        reader.close()
    findings = judge(observed)
    assert findings.ok, findings.text()
