"""The client and the real service: outcomes from end to end, and records as the AsyncAPI document describes them."""

import asyncio
import os
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID, uuid4

import asyncpg
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord

from org_events import Outcome, Result, Topics, command_headers
from org_events.publishing import OrganizationClient
from org_local.issuer import Issuer
from org_service.settings import Settings
from tests.contract.events import described
from tests.support.database import connected

pytestmark = pytest.mark.integration

ORG = UUID("0192d3a0-0000-7000-8000-000000000001")
BILLING = Path(__file__).parents[3] / "docs/examples/billing/billing.py"


@pytest.fixture
async def served(settings: Settings, tmp_path: Path) -> AsyncIterator[Settings]:
    """The service, all roles in a process of its own, ended the way an orchestrator ends it."""
    issuer = Issuer.open(tmp_path)
    environment = {
        "ORGS_KAFKA__BOOTSTRAP_SERVERS": settings.kafka.bootstrap_servers,
        "ORGS_KAFKA__TOPIC_PREFIX": settings.kafka.topic_prefix,
        "ORGS_KAFKA__PARTITIONS": str(settings.kafka.partitions),
        "ORGS_DATABASE__URL": settings.database.url.get_secret_value(),
        "ORGS_WORKER__PORT": "0",
        "ORGS_RELAY__PORT": "0",
        "ORGS_OPERATE__PORT": "0",
        "ORGS_EDGE__PORT": "0",
        "ORGS_EDGE__HEALTH_PORT": "0",
        "ORGS_AUTH__COMMANDS": "trusted",
        "ORGS_AUTH__ISSUER": issuer.name,
        "ORGS_AUTH__JWKS_FILE": str(issuer.jwks_file),
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "org_service.cli", "serve", env=os.environ | environment
    )
    try:
        yield settings
    finally:
        if process.returncode is None:
            process.terminate()
        assert await asyncio.wait_for(process.wait(), 60) == 0


@pytest.fixture
async def orgs(served: Settings) -> AsyncIterator[OrganizationClient]:
    async with OrganizationClient(
        bootstrap_servers=served.kafka.bootstrap_servers,
        source="/tests",
        topics=served.kafka.topics,
        actor="ada",
        traceparent=lambda: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        timeout_s=60,
    ) as orgs:
        yield orgs


async def run_every_command(orgs: OrganizationClient) -> list[Result]:
    """One organization from its creation to its restoration, with two commands that change nothing."""
    return [
        await orgs.create(ORG, name="Acme"),
        await orgs.update(ORG, domain="acme.com", expected_version=1),
        await orgs.update(ORG, domain="acme.com"),
        await orgs.update(ORG, name="Other", expected_version=1),
        await orgs.deactivate(ORG),
        await orgs.reactivate(ORG),
        await orgs.delete(ORG),
        await orgs.restore(ORG),
    ]


async def publish_raw(settings: Settings, orgs: OrganizationClient, body: bytes) -> Result:
    """What the client itself would not send."""
    command_id = uuid4()
    headers = command_headers(command_id=command_id, command_type="org.update", source="/tests")
    async with AIOKafkaProducer(bootstrap_servers=settings.kafka.bootstrap_servers) as producer:
        waiting = asyncio.create_task(orgs.outcome(command_id))
        await producer.send_and_wait(settings.kafka.topics.commands, body, str(ORG).encode(), headers=headers)
        return await waiting


async def read(settings: Settings, topic: str, count: int) -> list[ConsumerRecord]:
    records: list[ConsumerRecord] = []
    async with (
        asyncio.timeout(30),
        AIOKafkaConsumer(
            topic,
            bootstrap_servers=settings.kafka.bootstrap_servers,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
        ) as consumer,
    ):
        while len(records) < count:
            records.append(await consumer.getone())
    return records


async def test_every_record_of_a_life_is_as_the_document_describes_it(
    served: Settings, orgs: OrganizationClient
) -> None:
    outcomes = await run_every_command(orgs)
    assert [(outcome.outcome, outcome.code, outcome.version) for outcome in outcomes] == [
        (Outcome.APPLIED, 200, 1),
        (Outcome.APPLIED, 200, 2),
        (Outcome.UNCHANGED, 200, 2),
        (Outcome.REJECTED, 409, 2),
        (Outcome.APPLIED, 200, 3),
        (Outcome.APPLIED, 200, 4),
        (Outcome.APPLIED, 200, 5),
        (Outcome.APPLIED, 200, 6),
    ]
    wrong = await publish_raw(served, orgs, b'{"org_id":"%b","domain":"acme"}' % str(ORG).encode())
    unreadable = await publish_raw(served, orgs, b"{")
    assert (wrong.code, unreadable.code) == (422, 400)
    assert wrong.problem is not None
    assert [(error.path, error.code) for error in wrong.problem.errors] == [("domain", "too_few_labels")]

    topics: Topics = served.kafka.topics
    for record in await read(served, topics.commands, 10):
        if record.value != b"{" and b'"acme"' not in (record.value or b""):
            described.check(dict(record.headers)["ce_type"].decode(), record.headers, record.value)
    for record in await read(served, topics.results, 10):
        described.check("org.result", record.headers, record.value)
    events = await read(served, topics.events, 6)
    for record in events:
        described.check(dict(record.headers)["ce_type"].decode(), record.headers, record.value)
    assert [dict(record.headers)["ce_type"] for record in events] == [
        b"org.created",
        b"org.updated",
        b"org.deactivated",
        b"org.reactivated",
        b"org.deleted",
        b"org.restored",
    ]
    states = await read(served, topics.state, 6)
    for record in states:
        name = "organization" if record.value is not None else "organization-deleted"
        described.check(name, record.headers, record.value)
    assert [record.value is None for record in states] == [False, False, False, False, True, False]


async def test_a_command_sent_twice_takes_effect_once(orgs: OrganizationClient) -> None:
    command_id, org_id = uuid4(), uuid4()
    first = await orgs.create(org_id, name="Acme", command_id=command_id)
    again = await orgs.create(org_id, name="Acme", command_id=command_id)
    other = await orgs.create(org_id, name="Another", command_id=command_id)
    assert again == first
    assert (other.outcome, other.code) == (Outcome.REJECTED, 422)
    assert other.problem is not None
    assert other.problem.type == "urn:orgs:problem:command-id-reused"


async def test_billing_books_outcomes_and_takes_back_what_was_rejected(
    served: Settings, own_database_url: str, pool: asyncpg.Pool
) -> None:
    kafka = served.kafka
    where = ("--kafka", kafka.bootstrap_servers, "--prefix", kafka.topic_prefix, "--database", own_database_url)
    billing = await asyncio.create_subprocess_exec(sys.executable, BILLING, *where, stdout=PIPE)
    told, _ = await asyncio.wait_for(billing.communicate(), 90)
    assert billing.returncode == 0
    *accounts, applied, rejected = sorted(told.decode().splitlines(), key=lambda line: line[0].isdigit())
    assert sorted(each.split(";")[0] for each in accounts) == [
        "Acme Works: open",
        "Acme: open",
        "Bolt: closed",
        "Bolt: open",
    ]
    assert (applied, rejected) == ("5 applied", "2 rejected")
    async with connected(served) as service:
        theirs = await service.fetch("SELECT id, name FROM organization ORDER BY id")
    ours = await pool.fetch("SELECT org_id, name FROM account WHERE state = 'open' ORDER BY org_id")
    assert [tuple(each) for each in ours] == [tuple(each) for each in theirs]
