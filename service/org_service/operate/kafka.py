"""Connections to Kafka for operators' work, closed whatever happens."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from aiokafka.admin import AIOKafkaAdminClient

from org_service.settings import Kafka


@asynccontextmanager
async def admin(kafka: Kafka) -> AsyncGenerator[AIOKafkaAdminClient]:
    """An admin client.

    Raises:
        KafkaError: Kafka can't be reached.
    """
    client = AIOKafkaAdminClient(**kafka.connection())
    try:
        await client.start()
        yield client
    finally:
        await client.close()
