"""What the worker itself answers, while Kafka is away and comes back."""

import asyncio
from typing import Any
from uuid import uuid4

import pytest

from org_events.commands import UpdateOrganization
from org_service.apply import replies as replies_module
from org_service.apply.replies import Replies
from org_service.domain.fold import Plan, Reply
from org_service.domain.reasons import SkipReason
from org_service.domain.requests import Request
from org_service.settings import Settings
from org_service.waiting import Heartbeat
from org_service.wire.commands import read
from tests.chaos.relay.proxy import PRODUCE, kafka_proxy
from tests.support.records import record_of
from tests.support.topics import read_results

pytestmark = [pytest.mark.chaos, pytest.mark.integration]

ANSWERS = 3
OUTAGE_S = 1.0
WAITS_S = (0.1, 5.0)


class Beats(Heartbeat):
    """Signs of life that a test can wait for."""

    def __init__(self) -> None:
        super().__init__()
        self.given: asyncio.Queue[None] = asyncio.Queue()

    def beat(self) -> None:
        super().beat()
        self.given.put_nowait(None)


def plan() -> Plan:
    requests = [read(record_of(UpdateOrganization(org_id=uuid4(), name="Acme"))) for _ in range(ANSWERS)]
    return Plan(replies=[Reply(SkipReason.PARKED, request) for request in requests if isinstance(request, Request)])


async def test_lanes_that_answer_in_an_outage_all_succeed_after_it(settings: Settings) -> None:
    beats = Beats()
    async with kafka_proxy(settings.kafka.bootstrap_servers) as proxy:
        servers: dict[str, Any] = {"bootstrap_servers": f"127.0.0.1:{proxy.port}", "request_timeout_ms": 2_000}
        through = settings.model_copy(update={"kafka": settings.kafka.model_copy(update=servers)})
        await proxy.down()
        replies = Replies(through.kafka, WAITS_S, beats)
        plans = [plan() for _ in range(2)]
        lanes = [asyncio.create_task(replies.send(each, 0)) for each in plans]
        await asyncio.sleep(OUTAGE_S)
        assert not any(lane.done() for lane in lanes)
        tries = beats.given.qsize()
        await proxy.start()
        async with asyncio.timeout(30):
            await asyncio.gather(*lanes)
        await replies.stop()
    assert tries >= 2 * len(lanes)
    asked = {str(reply.request.command_id) for each in plans for reply in each.replies}
    assert {result["command_id"] for result in await read_results(settings)} == asked


async def test_answers_are_sent_when_kafka_has_them_and_not_before(settings: Settings) -> None:
    """What comes after is the acknowledgement of the batch: then nobody would send them again."""
    async with kafka_proxy(settings.kafka.bootstrap_servers) as proxy:
        servers: dict[str, Any] = {"bootstrap_servers": f"127.0.0.1:{proxy.port}"}
        replies = Replies(settings.kafka.model_copy(update=servers), WAITS_S, Heartbeat())
        proxy.holding.add(PRODUCE)
        sending = asyncio.create_task(replies.send(plan(), 0))
        held = await proxy.wait_held(1)
        _, waiting = await asyncio.wait({sending}, timeout=0.1)
        assert waiting
        proxy.holding.clear()
        await held.release()
        async with asyncio.timeout(30):
            await sending
        await replies.stop()
    assert len(await read_results(settings)) == ANSWERS


async def test_answers_that_kafka_does_not_accept_are_retried_with_heartbeats(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An outage that begins when the producer is there: it tries again by itself, for ever, and tells nobody."""
    monkeypatch.setattr(replies_module, "SILENCE_S", 0.05)
    beats = Beats()
    async with kafka_proxy(settings.kafka.bootstrap_servers) as proxy:
        servers: dict[str, Any] = {"bootstrap_servers": f"127.0.0.1:{proxy.port}"}
        replies = Replies(settings.kafka.model_copy(update=servers), WAITS_S, beats)
        await replies.send(plan(), 0)
        await proxy.down()
        sending = asyncio.create_task(replies.send(plan(), 0))
        async with asyncio.timeout(10):
            for _ in range(5):
                await beats.given.get()
        assert not sending.done()
        await proxy.start()
        async with asyncio.timeout(30):
            await sending
        await replies.stop()
    assert len(await read_results(settings)) == 2 * ANSWERS


async def test_the_first_answers_of_two_lanes_share_a_connection(settings: Settings) -> None:
    replies = Replies(settings.kafka, WAITS_S, Heartbeat())
    async with asyncio.timeout(30):
        await asyncio.gather(replies.send(plan(), 0), replies.send(plan(), 0))
    await replies.stop()
