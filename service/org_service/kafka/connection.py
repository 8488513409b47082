"""Connections to Kafka that are closed whatever happens."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient

from org_events.kafka.brokers import make_enduring
from org_service.settings import KafkaSettings


@asynccontextmanager
async def admin(kafka: KafkaSettings) -> AsyncGenerator[AIOKafkaAdminClient]:
    """An admin client.

    Raises:
        KafkaError: Kafka can't be reached.
    """
    client = make_enduring(AIOKafkaAdminClient(**kafka.connection()))
    try:
        await client.start()
        yield client
    finally:
        await client.close()


def make_producer(kafka: KafkaSettings, *, linger_ms: int = 0) -> AIOKafkaProducer:
    """An idempotent producer, not started: what it acknowledges is on every in-sync replica."""
    return make_enduring(
        AIOKafkaProducer(**kafka.connection(), acks="all", enable_idempotence=True, linger_ms=linger_ms)
    )
