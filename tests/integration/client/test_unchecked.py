"""What a client sends unchecked, and what it knows when no outcome comes."""

from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from org_events import Topics, UncheckedCommand
from org_events.publishing import KafkaUnavailable, NotConnected, OrganizationClient, OutcomeUnknown
from org_service.settings import Settings
from tests.support.topics import read_topic

pytestmark = pytest.mark.integration


@pytest.fixture
async def orgs(settings: Settings) -> AsyncIterator[OrganizationClient]:
    """A client whose commands nobody answers."""
    async with OrganizationClient(
        bootstrap_servers=settings.kafka.bootstrap_servers, source="/tests", topics=settings.kafka.topics
    ) as client:
        yield client


async def test_an_unchecked_command_is_sent_as_it_is(settings: Settings, orgs: OrganizationClient) -> None:
    org_id, command_id = uuid4(), uuid4()
    await orgs.send(UncheckedCommand("org.update", org_id, b'{"domain": 5}'), command_id=command_id)
    (record,) = await read_topic(settings, settings.kafka.topics.commands)
    headers = dict(record.headers() or [])
    assert (record.key(), record.value()) == (str(org_id).encode(), b'{"domain": 5}')
    assert (headers["ce_id"], headers["ce_type"]) == (str(command_id).encode(), b"org.update")


async def test_a_body_that_is_too_large_is_not_sent(settings: Settings, orgs: OrganizationClient) -> None:
    with pytest.raises(ValueError, match="65537 bytes"):
        await orgs.send(UncheckedCommand("org.update", uuid4(), b" " * 65_537))
    assert await read_topic(settings, settings.kafka.topics.commands) == []


async def test_without_an_outcome_it_is_known_that_kafka_has_the_command(orgs: OrganizationClient) -> None:
    with pytest.raises(OutcomeUnknown) as unknown:
        await orgs.execute(UncheckedCommand("org.delete", uuid4(), b"{}"), timeout_s=1)
    assert unknown.value.confirmed


async def test_a_client_is_usable_while_it_is_connected(settings: Settings, orgs: OrganizationClient) -> None:
    assert orgs.is_usable
    await orgs.ping()
    await orgs.stop()
    assert not orgs.is_usable
    with pytest.raises(NotConnected):
        await orgs.ping()


async def test_a_client_that_never_connected_is_not_usable() -> None:
    client = OrganizationClient(bootstrap_servers="127.0.0.1:1", source="/tests", topics=Topics(), timeout_s=0.2)
    with pytest.raises(KafkaUnavailable):
        await client.start()
    assert not client.is_usable
