"""Connections to Kafka that are closed whatever happens."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaConnectionError, KafkaError

from org_events.kafka.brokers import make_enduring
from org_service.settings import KafkaSettings
from org_service.waiting import Trouble


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
    except AttributeError as error:
        if error.name != "nodeId" or error.obj is not None:
            raise
        # What aiokafka makes of brokers that know of no controller at the moment, while one starts, say.
        raise KafkaConnectionError("no broker says which one is the controller") from error
    finally:
        await client.close()


def make_producer(kafka: KafkaSettings, *, linger_ms: int = 0) -> AIOKafkaProducer:
    """An idempotent producer, not started: what it acknowledges is on every in-sync replica."""
    return make_enduring(
        AIOKafkaProducer(**kafka.connection(), acks="all", enable_idempotence=True, linger_ms=linger_ms)
    )


def judge_outage(error: Exception) -> Trouble | None:
    """That Kafka is away, for a `Patience`; None for an error that is not of a connection to it."""
    return (
        Trouble(f"Kafka is unavailable ({type(error).__name__})") if isinstance(error, (KafkaError, OSError)) else None
    )
