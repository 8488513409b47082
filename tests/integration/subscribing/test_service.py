"""A subscriber behind the service's own relay, while the topics grow."""

import asyncio

import pytest

from org_events.subscribing import Kind, lanes
from org_service.domain.reasons import OperationState
from org_service.operate import grow_topics, runs
from org_service.operate.grow_topics import GrowTopics
from org_service.relay import relay
from org_service.settings import Settings
from tests.integration.subscribing.following import View, subscribing
from tests.support import relaying
from tests.support.relaying import changes, journal

pytestmark = pytest.mark.integration

ORGANIZATIONS = 20


async def test_a_subscriber_follows_the_service_through_a_growth_of_its_topics(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It began with three partitions and ends with six, and each version came once, as an event, in order."""
    monkeypatch.setattr(lanes, "LOOK_S", 0.1)
    monkeypatch.setattr(lanes, "RETRY_S", 0.1)
    monkeypatch.setattr(grow_topics, "CLIENTS_KNOW_S", 1.0)
    monkeypatch.setattr(relay, "PARTITIONS_LOOK_S", 0.3)
    kafka, view = settings.kafka, View()
    async with relaying.running(settings) as run:
        await run.published(await journal(settings, changes(40, orgs=ORGANIZATIONS)))
        async with subscribing(kafka.bootstrap_servers, kafka.topics, view) as subscriber:
            await subscriber.ready()
            tool = await GrowTopics.make(settings, 6, [])
            operation, _ = await runs.keep_plan(settings, tool, requested_by="alice", reason="a test")
            growing = asyncio.create_task(runs.run(settings, operation.id))
            await journal(settings, changes(40, orgs=ORGANIZATIONS, after=40))
            assert (await growing).state == OperationState.DONE
            head = await journal(settings, changes(40, orgs=ORGANIZATIONS, after=80))
            await run.published(head)
            await subscriber.reached(head)
    events = [(number, version) for number, version, kind in view.seen if kind is Kind.EVENT]
    assert sorted(events) == [(number, version) for number in range(ORGANIZATIONS) for version in (3, 4, 5, 6)]
    assert {kind for *_, kind in view.seen} == {Kind.LOADED, Kind.EVENT}
    assert view.names == dict.fromkeys(range(ORGANIZATIONS), "Acme 6")
