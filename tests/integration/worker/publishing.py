"""Commands for a running worker, and how many of them it has acknowledged."""

import asyncio

from aiokafka import AIOKafkaConsumer, TopicPartition
from confluent_kafka import Producer

from org_service.settings import Settings
from tests.support.records import FakeRecord


async def send(settings: Settings, *records: FakeRecord, codec: str = "none") -> None:
    """Publish as any client might: librdkafka sends whatever bytes it is given."""
    options = {"bootstrap.servers": settings.kafka.bootstrap_servers, "acks": "all", "compression.type": codec}
    producer = Producer(options)
    for record in records:
        producer.produce(settings.kafka.topics.commands, record.value, record.key, headers=list(record.headers))
    assert await asyncio.to_thread(producer.flush, 20) == 0


async def committed(settings: Settings) -> int:
    """How many records the group has acknowledged."""
    async with AIOKafkaConsumer(
        bootstrap_servers=settings.kafka.bootstrap_servers,
        group_id=f"{settings.kafka.topic_prefix}{settings.worker.group_id}",
        enable_auto_commit=False,
    ) as consumer:
        topic = settings.kafka.topics.commands
        offsets = [await consumer.committed(TopicPartition(topic, p)) for p in range(settings.kafka.partitions)]
    return sum(offset or 0 for offset in offsets)
