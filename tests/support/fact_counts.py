"""How many facts there are, on the topics and in the tables."""

from typing import NamedTuple

import asyncpg

from org_service.kafka.reader import read_all
from org_service.settings import DatabaseSettings, KafkaSettings


class Counts(NamedTuple):
    """Of each kind."""

    memberships: int
    partnerships: int
    staff: int


async def facts_on_topics(kafka: KafkaSettings) -> Counts:
    """How many facts the topics hold now: keys whose last record is no tombstone."""
    topics = (kafka.topics.memberships, kafka.topics.partnerships, kafka.topics.staff)
    return Counts(*[await _live_keys(kafka, topic) for topic in topics])


async def facts_in_tables(database: DatabaseSettings) -> Counts:
    """How many facts the service knows."""
    session = await asyncpg.connect(database.url.get_secret_value())
    tables = ("membership", "partnership", "staff")
    counts = [await session.fetchval(f"SELECT count(*) FROM {table}") for table in tables]
    await session.close()
    return Counts(*counts)


async def _live_keys(kafka: KafkaSettings, topic: str) -> int:
    last: dict[bytes | None, bytes | None] = {}
    async for records in read_all(kafka, topic):
        last.update((record.key, record.value) for record in records)
    return sum(value is not None for value in last.values())
