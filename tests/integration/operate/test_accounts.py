"""The proof of the accounts finds what it is there to find."""

import json

import asyncpg
import pytest
from aiokafka import AIOKafkaProducer
from pydantic import SecretStr

from org_service.errors import StopError
from org_service.operate import accounts, progress
from org_service.settings import Settings
from tests.support.database import execute
from tests.support.idle import wait_until_idle
from tests.support.operating import ORG, OTHER, Orgs, Service

pytestmark = pytest.mark.integration


@pytest.fixture
async def history(orgs: Orgs, service: Service, settings: Settings) -> None:
    """Five commands: two organizations, a change, a rejection, a delete."""
    service.start("worker", "relay")
    await orgs("send", "create", "--id", ORG, "--name", "Acme", "--domain", "acme.example")
    await orgs("send", "create", "--id", OTHER, "--name", "Other")
    await orgs("send", "update", ORG, "--clear", "domain")
    await orgs("send", "update", ORG, "--name", "Other", code=1)
    await orgs("send", "delete", OTHER)
    await wait_until_idle(settings, 20)


async def publish(settings: Settings, topic: str, key: str, value: bytes | None, **headers: bytes) -> None:
    async with AIOKafkaProducer(bootstrap_servers=settings.kafka.bootstrap_servers) as producer:
        await producer.send_and_wait(topic, value, key=key.encode(), headers=list(headers.items()))


def kinds(found: accounts.Accounts) -> set[str]:
    return {difference.partition(":")[0] for difference in found.differences}


@pytest.mark.usefixtures("history")
async def test_a_sound_history_balances(settings: Settings) -> None:
    assert await accounts.check(settings) == (5, 5, 4, 0, [])


TAMPERINGS = (
    (f"UPDATE organization SET domain = 'x.example' WHERE id = '{ORG}'", {"state differs"}),
    (f"DELETE FROM organization WHERE id = '{ORG}'", {"state differs"}),
    ("UPDATE journal SET outcome = 'unchanged' WHERE position = 4", {"not published"}),
    ("UPDATE journal SET changed = '[]' WHERE position = 3", {"a different event than decided"}),
    ("UPDATE journal SET command_id = gen_random_uuid() WHERE position = 1",
     {"no outcome", "never sent", "not published", "published, never decided", "a different event than decided"}),
    ("UPDATE journal_head SET position = 6", {"journal"}),
    ("DELETE FROM journal WHERE position = 5",
     {"journal", "no outcome", "published, never decided", "an event without a change"}),
)  # fmt: skip


@pytest.mark.usefixtures("history")
async def test_a_table_changed_by_hand_is_found(settings: Settings, service: Service, server_url: str) -> None:
    """Each change is made to a copy of the database, beside the same topics."""
    await service.stop()
    url = settings.database.url.get_secret_value()
    run = url.rpartition("/")[2]
    copy = settings.model_copy(update={"database": settings.database.model_copy(update={"url": SecretStr(f"{url}_c")})})
    server = await asyncpg.connect(server_url)
    try:
        for statement, kind in TAMPERINGS:
            await server.execute(f"CREATE DATABASE {run}_c TEMPLATE {run}")
            await execute(copy, statement)
            found = await accounts.check(copy)
            await server.execute(f"DROP DATABASE {run}_c WITH (FORCE)")
            assert kinds(found) == kind, statement
            assert found.differences, statement
    finally:
        await server.execute(f"DROP DATABASE IF EXISTS {run}_c WITH (FORCE)")
        await server.close()


@pytest.mark.usefixtures("history")
async def test_undecided_or_duplicate_events_are_found(settings: Settings) -> None:
    topics = settings.kafka.topics
    again = {
        "org_id": OTHER, "version": 2, "position": 5, "changed": [], "before": None, "after": None,
        "command_id": OTHER, "actor": None,
    }  # fmt: skip
    await publish(settings, topics.events, OTHER, json.dumps(again).encode(), ce_type=b"org.deleted")
    await publish(
        settings, topics.events, ORG, json.dumps(again | {"position": 9, "version": 7}).encode(), ce_type=b"org.updated"
    )
    await publish(settings, topics.state, ORG, None)
    assert kinds(await accounts.check(settings)) == {
        "published 2 times",
        "a different event than decided",
        "an event without a change",
        "out of order",
        "state differs",
    }


@pytest.mark.usefixtures("history")
async def test_events_sent_again_by_an_operator_balance_and_must_say_the_same(settings: Settings, orgs: Orgs) -> None:
    await orgs("replay", "events", "--in-place", "--execute", "--reason", "lost by billing")
    assert await accounts.check(settings) == (5, 5, 4, 0, [])
    other = {
        "org_id": OTHER, "version": 2, "position": 5, "changed": [], "before": None, "after": None,
        "command_id": OTHER, "actor": None,
    }  # fmt: skip
    body = json.dumps(other).encode()
    await publish(settings, settings.kafka.topics.events, OTHER, body, ce_type=b"org.deleted", ce_replayrun=b"run")
    assert kinds(await accounts.check(settings)) == {"a different event than decided"}


@pytest.mark.usefixtures("history")
async def test_unread_commands_are_found(settings: Settings, service: Service) -> None:
    await service.stop()
    topic = settings.kafka.topics.commands
    await publish(settings, topic, ORG, b"{}", ce_id=b"0190c5f0-7d1c-7b7e-9d57-0000000000ff", ce_type=b"org.update")
    await publish(settings, topic, ORG, b"\xff")
    found = await accounts.check(settings)
    assert kinds(found) == {"no outcome", "lost"}
    assert (found.commands, found.outcomes) == (6, 5)
    assert (await progress.behind(settings)).commands == 2


async def test_commands_given_up_by_an_operator_balance_but_their_remains_do_not(
    orgs: Orgs, service: Service, settings: Settings
) -> None:
    update = ("send", "update", ORG, "--clear", "domain", "--command-id", "0190c5f0-7d1c-7b7e-9d57-0000000000aa")
    service.start("worker", "relay")
    await orgs("send", "create", "--id", ORG, "--name", "Acme", "--domain", "acme.example")
    await orgs("send", "create", "--id", OTHER, "--name", "Other")
    await wait_until_idle(settings, 20)
    await execute(settings, "CREATE TABLE backup AS TABLE organization")
    await orgs(*update)
    await orgs("send", "update", ORG, "--name", "Other", code=1)
    await orgs("send", "delete", OTHER)
    await wait_until_idle(settings, 20)
    await service.stop()
    await execute(
        settings,
        "DELETE FROM organization; INSERT INTO organization TABLE backup; DELETE FROM journal WHERE position > 2; "
        "UPDATE journal_head SET position = 2",
    )
    await orgs("journal", "advance", "--execute", "--reason", "a backup was restored")

    found = await accounts.check(settings)
    assert kinds(found) == {"state differs"}
    assert len(found.differences) == 2
    assert found[:4] == (2, 2, 2, 0)

    service.start("worker", "relay")
    await orgs(*update)  # again, as it was lost
    await orgs("send", "update", OTHER, "--domain", "other.example")
    await wait_until_idle(settings, 20)
    assert await accounts.check(settings) == (4, 4, 4, 0, [])

    await execute(settings, "UPDATE journal_gap SET last_position = 4")
    with pytest.raises(StopError, match="no row at position 5,"):
        await accounts.check(settings)
