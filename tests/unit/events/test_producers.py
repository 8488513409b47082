"""How records are sent: durable on every in-sync replica, in order, and once however often the client tries."""

from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any, cast
from uuid import uuid4

import pytest
from aiokafka import AIOKafkaProducer

from org_events.commands import UpdateOrganization
from org_events.publishing import OrganizationClient
from org_events.publishing.publisher import Publisher
from org_service.apply.replies import Replies
from org_service.domain.fold import Plan, Reply
from org_service.domain.reasons import SkipReason
from org_service.domain.requests import Request
from org_service.settings import Settings
from org_service.waiting import Heartbeat
from org_service.wire.commands import read
from tests.support.records import record_of


async def send_a_command() -> None:
    await OrganizationClient(bootstrap_servers="127.0.0.1:1", source="/tests").start()


async def send_an_answer() -> None:
    request = read(record_of(UpdateOrganization(org_id=uuid4(), name="Acme")))
    assert isinstance(request, Request)
    replies = Replies(Settings().kafka, (0.1, 5), Heartbeat())
    await replies.send(Plan(replies=[Reply(SkipReason.PARKED, request)]), 0)


class Noted(BaseException):
    """Enough was seen."""


@pytest.mark.parametrize("send", [send_a_command, send_an_answer])
async def test_commands_and_answers_are_sent_in_order_and_are_durable(
    monkeypatch: pytest.MonkeyPatch, send: Callable[[], Awaitable[None]]
) -> None:
    """aiokafka's defaults repeat and reorder what it sends again, and lose what only one replica has."""
    made: list[dict[str, Any]] = []

    def note(_: AIOKafkaProducer, **options: Any) -> None:
        made.append(options)
        raise Noted

    monkeypatch.setattr(AIOKafkaProducer, "__init__", note)
    with pytest.raises(Noted):
        await send()
    [options] = made
    assert (options["acks"], options["enable_idempotence"]) == ("all", True)


class _Started:
    """A producer that has heard of three partitions."""

    def __init__(self) -> None:
        leaders = {0: 1, 1: -1, 2: None}
        cluster = SimpleNamespace(
            partitions_for_topic=lambda topic: set(leaders) if topic == "orgs.results" else None,
            leader_for_partition=lambda at: leaders[at.partition],
        )
        self.client = SimpleNamespace(cluster=cluster)

    async def start(self) -> None: ...


async def test_partitions_that_no_broker_leads_are_known_from_what_brokers_said_last() -> None:
    publisher = Publisher("orgs.commands", lambda: cast("AIOKafkaProducer", _Started()))
    assert publisher.find_leaderless("orgs.results") == []
    await publisher.start()
    assert publisher.find_leaderless("orgs.results") == [1, 2]
    assert publisher.find_leaderless("orgs.unknown") == []
