"""Topics of one test: made before it, dropped after it."""

import asyncio

from confluent_kafka.admin import AdminClient, NewTopic
from org_service.settings import Settings


async def create_topics(settings: Settings) -> None:
    """Create every topic of the contract under the settings' prefix, and wait until they exist."""
    specs = settings.kafka.topics.specs(partitions=settings.kafka.partitions)
    topics = [
        NewTopic(spec.name, num_partitions=spec.partitions, replication_factor=1, config=spec.config) for spec in specs
    ]
    admin = AdminClient({"bootstrap.servers": settings.kafka.bootstrap_servers})
    await _wait(admin.create_topics(topics))


async def drop_topics(settings: Settings) -> None:
    """Drop what `create_topics` made."""
    names = [spec.name for spec in settings.kafka.topics.specs()]
    admin = AdminClient({"bootstrap.servers": settings.kafka.bootstrap_servers})
    await _wait(admin.delete_topics(names))


async def _wait(futures: dict) -> None:
    for future in futures.values():
        await asyncio.to_thread(future.result, 20)
