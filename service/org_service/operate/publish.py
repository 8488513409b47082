"""Commands from operators."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from org_events.publishing.client import OrganizationClient
from org_service.kafka.connection import admin
from org_service.settings import KafkaSettings

SOURCE = "/orgs/cli"
"""The `ce_source` of operators' commands."""


@asynccontextmanager
async def connect(
    kafka: KafkaSettings,
    *,
    actor: str | None = None,
    token: str | None = None,
    traceparent: str | None = None,
    timeout_s: float,
) -> AsyncGenerator[OrganizationClient]:
    """A client, started, for commands on behalf of `actor`, or of whoever the token names; all in one trace.

    Raises:
        KafkaError: Kafka can't be reached. A service waits for that, an operator wants to know at once.
        ClientError: As `OrganizationClient.start`.
    """
    async with admin(kafka):
        options: dict[str, Any] = kafka.connection()
    async with OrganizationClient(
        source=SOURCE,
        topics=kafka.topics,
        actor=actor,
        token=token,
        traceparent=lambda: traceparent,
        timeout_s=timeout_s,
        **options,
    ) as client:
        yield client
