"""A commit request that arrives late, after its client gave it up: in a socket's buffer, in a broker's queue.

In the first-generation transaction protocol, which is all that Python clients speak, EndTxn names a producer and its
epoch but no transaction. The first test shows what that does to aiokafka's own producer; the others that the relay,
which begins with a new epoch after each doubt, publishes everything exactly once all the same.
"""

import asyncio

import pytest
from aiokafka import AIOKafkaProducer

from org_service.relay import State
from org_service.settings import Settings
from tests.chaos.relay.proxied import relay_through_proxy
from tests.chaos.relay.proxy import END_TXN, kafka_proxy
from tests.support.relaying import assert_exactly_once, changes, journal, seen

pytestmark = pytest.mark.chaos

REQUEST_TIMEOUT_MS = 1_000


async def test_aiokafkas_own_producer_commits_half_a_transaction_when_a_commit_arrives_late(settings: Settings) -> None:
    topic = settings.kafka.topics.events
    async with kafka_proxy(settings.kafka.bootstrap_servers) as proxy:
        producer = AIOKafkaProducer(
            bootstrap_servers=f"127.0.0.1:{proxy.port}",
            transactional_id=f"{settings.kafka.topic_prefix}plain",
            request_timeout_ms=REQUEST_TIMEOUT_MS,
        )
        await producer.start()
        await producer.begin_transaction()
        await producer.send_and_wait(topic, b"1", partition=0)
        proxy.holding.add(END_TXN)
        committing = asyncio.create_task(producer.commit_transaction())
        late = await proxy.wait_held(1)
        proxy.holding.clear()
        await committing  # the second request, sent by the client of its own accord, got through

        await producer.begin_transaction()
        await producer.send_and_wait(topic, b"half of 2", partition=0)
        assert await late.release() == 0
        await producer.stop()
    assert [record.value for record in (await seen(settings)).events] == [b"1", b"half of 2"]


async def test_the_relay_publishes_exactly_once_though_a_commit_arrives_in_the_next_transaction(
    settings: Settings,
) -> None:
    async with relay_through_proxy(settings, request_timeout_ms=REQUEST_TIMEOUT_MS) as (relay, proxy):
        await relay.until(lambda relay: relay.state is State.READY)
        proxy.holding.add(END_TXN)
        head = await journal(settings, changes(30))
        late = await proxy.wait_held(1)
        await relay.until(lambda relay: relay.state is State.UNKNOWN)
        second = await proxy.wait_held(2)  # the next transaction is complete but for its commit

        assert await late.release() != 0
        assert (await seen(settings, settle=False)).events == []
        proxy.holding.clear()
        await second.release()
        await relay.published(head)
        head = await journal(settings, changes(30, after=30))
        await relay.published(head)
    assert_exactly_once(await seen(settings), range(1, 61))


async def test_a_commit_whose_answer_is_lost_is_not_published_again(settings: Settings) -> None:
    async with relay_through_proxy(settings, request_timeout_ms=REQUEST_TIMEOUT_MS) as (relay, proxy):
        await relay.until(lambda relay: relay.state is State.READY)
        proxy.muting.add(END_TXN)
        head = await journal(settings, changes(30))
        await proxy.wait_muted(1)
        proxy.muting.clear()
        await relay.published(head)
        head = await journal(settings, changes(30, after=30))
        await relay.published(head)
    assert_exactly_once(await seen(settings), range(1, 61))
