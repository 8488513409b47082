"""What another service does with the reference topics, and a worker's reader of them without the rest of a worker."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from itertools import count
from typing import Any
from uuid import UUID

import asyncpg
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from org_events.reference import Membership, Role
from org_service.apply.reference import ReferenceApplier
from org_service.settings import Settings
from org_service.worker.reference import ReferenceSubscriber
from tests.support.appliers import applying_facts
from tests.support.partitioner import partition_of

JOINED = datetime(2024, 5, 17, 9, 30, tzinfo=UTC)
ACME = UUID("0190c5f0-7d1c-7b7e-9d57-000000000001")


def member(user_id: str, role: Role = Role.USER, org_id: UUID = ACME, **changed: Any) -> Membership:
    return Membership(user_id=user_id, org_id=org_id, role=role, joined_at=JOINED, **changed)


def at_home(name: str, partition: int = 0, partitions: int = 3) -> str:
    """A user's name that begins like this, and whose membership of Acme belongs on a partition."""
    names = (f"{name}.{n}" for n in count())
    return next(each for each in names if partition_of(member(each).key(), partitions) == partition)


class Feed:
    """Publishes to the reference topics as any client might: librdkafka sends whatever bytes it is given."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.topics = settings.kafka.topics
        self._producer = Producer(
            {
                "bootstrap.servers": settings.kafka.bootstrap_servers,
                "acks": "all",
                "enable.idempotence": True,
                "partitioner": "murmur2_random",
            }
        )

    async def members(self, *memberships: Membership) -> None:
        await self.raw(self.topics.memberships, ((each.key(), each.to_body()) for each in memberships))

    async def raw(
        self,
        topic: str,
        records: Iterable[tuple[bytes, bytes | None]],
        *,
        partition: int = -1,
        headers: Iterable[tuple[str, bytes | None]] = (),
    ) -> None:
        refused: list[Any] = []

        def note(error: Any, _: Any) -> None:
            if error is not None:
                refused.append(error)

        for key, value in records:
            self._producer.produce(topic, value, key, partition, note, headers=list(headers))
        assert await asyncio.to_thread(self._producer.flush, 30) == 0
        assert not refused

    async def delete_topic(self, topic: str) -> None:
        admin = AdminClient({"bootstrap.servers": self._settings.kafka.bootstrap_servers})
        await asyncio.to_thread(admin.delete_topics([topic])[topic].result, 20)
        async with asyncio.timeout(20):
            while topic in (await asyncio.to_thread(admin.list_topics)).topics:
                pass

    async def create_topic(self, topic: str) -> None:
        admin = AdminClient({"bootstrap.servers": self._settings.kafka.bootstrap_servers})
        new = NewTopic(topic, self._settings.kafka.partitions, config={"cleanup.policy": "compact"})
        await asyncio.to_thread(admin.create_topics([new])[topic].result, 20)
        async with asyncio.timeout(20):
            while topic not in (await asyncio.to_thread(admin.list_topics)).topics:
                pass


@asynccontextmanager
async def joined(settings: Settings) -> AsyncIterator[tuple[ReferenceSubscriber, ReferenceApplier]]:
    """A worker's reader of reference data, and what it reads them into; ends as at SIGTERM."""
    async with applying_facts(settings) as applier:
        subscriber = ReferenceSubscriber(settings, applier)
        await subscriber.start()
        try:
            yield subscriber, applier
        finally:
            await subscriber.stop()


@asynccontextmanager
async def reading(settings: Settings) -> AsyncIterator[ReferenceApplier]:
    """As `joined`; what it reads them into."""
    async with joined(settings) as (_, applier):
        yield applier


async def roles(database: asyncpg.Connection) -> dict[str, str]:
    """Every membership's role, by user."""
    return dict(await database.fetch("SELECT user_id, role FROM membership"))


def user(number: int) -> str:
    return at_home(f"user-{number}")


def users(first: int, count: int) -> dict[str, str]:
    return {user(n): "user" for n in range(first, first + count)}


async def give(feed: Feed, first: int, count: int, role: Role = Role.USER) -> None:
    """Memberships of some users, all on partition 0, so that offsets can be told."""
    facts = [member(name, role) for name in users(first, count)]
    await feed.raw(feed.topics.memberships, [(each.key(), each.to_body()) for each in facts], partition=0)


async def progress(database: asyncpg.Connection) -> int | None:
    return await database.fetchval(
        "SELECT next_offset FROM reference_progress WHERE topic LIKE '%orgs.memberships' AND partition = 0"
    )
