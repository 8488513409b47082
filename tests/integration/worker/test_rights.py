"""What the worker may do on Kafka, by its rules (ACLs): a right that lacks is said, waited for, and ends nothing."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from uuid import uuid4

import asyncpg
import pytest
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from org_events.commands import CreateOrganization
from org_service.settings import Settings
from org_service.worker.worker import Worker
from tests.integration.worker.running import running, said
from tests.support.appliers import applying
from tests.support.records import record_of
from tests.support.topics import read_results
from tests.support.waiting import until, wait_for

pytestmark = pytest.mark.integration

WITHIN_S = 60


@asynccontextmanager
async def denied(settings: Settings, operation: AclOperation = AclOperation.WRITE) -> AsyncIterator[Callable[[], None]]:
    """Forbids something on `orgs.results`, to everybody; may be taken back before the end."""
    admin = AdminClient({"bootstrap.servers": settings.kafka.bootstrap_servers})
    rule = (ResourceType.TOPIC, settings.kafka.topics.results, ResourcePatternType.LITERAL, "User:*", "*", operation)
    # With one rule there is no more "nobody is forbidden anything": the rest is allowed by another.
    allowed = (*rule[:5], AclOperation.ALL, AclPermissionType.ALLOW)

    def change(deny: bool) -> None:
        if deny:
            made = admin.create_acls([AclBinding(*allowed), AclBinding(*rule, AclPermissionType.DENY)])
        else:
            made = admin.delete_acls([AclBindingFilter(*rule, AclPermissionType.DENY)])
        for future in made.values():
            future.result(WITHIN_S)
        # The controller has it; the broker, which judges, hears of it a moment later.
        asked = AclBindingFilter(*rule, AclPermissionType.DENY)
        wait_for(lambda: bool(admin.describe_acls(asked).result(WITHIN_S)) == deny, "word of the rule", WITHIN_S)

    await asyncio.to_thread(change, True)
    try:
        yield lambda: change(False)
    finally:
        await asyncio.to_thread(change, False)


@pytest.mark.parametrize("operation", [AclOperation.WRITE, AclOperation.DESCRIBE])
async def test_a_worker_without_the_right_to_answer_duplicates_reads_no_commands_and_says_why(
    settings: Settings, operation: AclOperation
) -> None:
    quick = settings.worker.model_copy(update={"retry_wait_max_s": 0.5})
    async with denied(settings, operation) as allow, running(settings.model_copy(update={"worker": quick})) as worker:
        await until(lambda: _is_denied(worker))
        await asyncio.to_thread(allow)
        await until(lambda: said(worker, "consumer"), "3 partitions")


async def _is_denied(worker: Worker) -> bool:
    return "grant this login Write on it" in await said(worker, "consumer")


async def test_a_right_revoked_while_running_is_a_reported_outage(
    settings: Settings, database: asyncpg.Connection
) -> None:
    quick = settings.worker.model_copy(update={"retry_wait_max_s": 0.5})
    async with applying(settings.model_copy(update={"worker": quick})) as applier:
        create = record_of(CreateOrganization(org_id=uuid4(), name="Acme"))
        await applier.apply([create])
        async with denied(settings) as allow, asyncio.timeout(WITHIN_S):
            waiting = asyncio.create_task(
                applier.apply([dataclasses.replace(create, offset=create.offset + 1_000_000)])
            )
            await until(lambda: applier.outage)
            assert (applier.outage or "").startswith(f"Kafka denies writing to {settings.kafka.topics.results}")
            await asyncio.to_thread(allow)
            await waiting
        assert applier.outage is None
    assert [(each["outcome"], each["position"]) for each in await read_results(settings)] == [("applied", 1)]
    assert await database.fetchval("SELECT count(*) FROM journal") == 1
