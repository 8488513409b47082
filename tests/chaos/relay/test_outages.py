"""Outages of Kafka and of Postgres delay; they never lose, never repeat, never reorder, and never fail `/livez`."""

import asyncio
import time
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType
from prometheus_client import REGISTRY
from pydantic import SecretStr

from org_events.topics import RECORD_BATCH_BYTES_MAX
from org_service.relay import State
from org_service.serving.health import HANGS_MAX_S, Health
from org_service.settings import Settings
from tests.chaos.relay.proxied import relay_through_proxy
from tests.chaos.relay.proxy import ADD_PARTITIONS_TO_TXN, END_TXN, INIT_PRODUCER_ID, PRODUCE, postgres_proxy
from tests.support.relaying import Running, assert_exactly_once, changes, journal, relay_settings, running, seen
from tests.support.waiting import until

pytestmark = pytest.mark.chaos


async def unready(running: Running, name: str) -> str:
    """What the check of this name says, now that it must fail."""
    with pytest.raises(Exception) as caught:
        await asyncio.wait_for(running.relay.checks()[name](), 1)
    return str(caught.value)


async def test_kafka_goes_away_and_comes_back(settings: Settings) -> None:
    async with relay_through_proxy(settings) as (relay, proxy):
        await relay.published(await journal(settings, changes(20)))
        await proxy.down()
        head = await journal(settings, changes(20, after=20))
        for _ in range(3):
            await relay.until(lambda relay: relay.state is State.UNKNOWN)
            await relay.until(lambda relay: relay.state is State.REBUILDING)
        assert time.monotonic() - relay.relay.heartbeat.at_s < 1
        assert REGISTRY.get_sample_value("orgs_relay_lag_positions") == 20
        assert (REGISTRY.get_sample_value("orgs_relay_lag_seconds") or 0) > 0
        await unready(relay, "kafka")
        assert await relay.relay.checks()["postgres"]() == "answers"

        await proxy.start()
        await relay.published(head)
        assert (await relay.relay.checks()["kafka"]()).startswith("leader")
    assert_exactly_once(await seen(settings), range(1, 41))


@pytest.mark.parametrize("step", [INIT_PRODUCER_ID, ADD_PARTITIONS_TO_TXN, PRODUCE, END_TXN])
async def test_the_connection_breaks_at_a_step_whose_request_arrives_late(settings: Settings, step: int) -> None:
    async with relay_through_proxy(settings, hold=[step]) as (relay, proxy):
        head = await journal(settings, changes(20))
        late = await proxy.wait_held(1)
        proxy.holding.clear()
        proxy.cut()
        await relay.published(head)
        await late.release()
        head = await journal(settings, changes(20, after=20))
        await relay.published(head)
    assert_exactly_once(await seen(settings), range(1, 41))


@pytest.mark.parametrize("step", [ADD_PARTITIONS_TO_TXN, PRODUCE, END_TXN])
async def test_a_step_refused_because_another_has_begun_is_not_taken_for_success(settings: Settings, step: int) -> None:
    """A commit that is refused looks like any other answer: taken for a yes, its rows would wait for later ones."""
    async with relay_through_proxy(settings, hold=[step]) as (relay, proxy):
        head = await journal(settings, changes(20))
        held = await proxy.wait_held(1)
        proxy.holding.clear()
        await seen(settings)  # begins with the relay's transactional id
        await held.release()
        await relay.published(head)  # and nothing comes later that would bring the truth to light
    assert_exactly_once(await seen(settings), range(1, 21))


async def test_a_transaction_of_which_kafka_refuses_one_batch_is_published_whole_or_not_at_all(
    settings: Settings,
) -> None:
    """The other batches are taken, and so would be a commit: results and position without their events."""
    await set_batch_bytes_max(settings, settings.kafka.topics.events, 100)
    async with running(relay_settings(settings, retry_wait_s=0.5, retry_wait_max_s=0.5)) as relay:
        head = await journal(settings, changes(20))
        for _ in range(2):
            await relay.until(lambda relay: relay.state is State.UNKNOWN)
            said = await unready(relay, "kafka")  # though brokers answer
            assert said.startswith("the relay is unknown: Produce: Kafka returned [Error 10] MessageSizeTooLargeError")
            await relay.until(lambda relay: relay.state is State.READY)
        assert relay.relay.position == 0
        assert (await seen(settings, settle=False)).results == []
        await set_batch_bytes_max(settings, settings.kafka.topics.events, RECORD_BATCH_BYTES_MAX)
        await relay.published(head)
    assert_exactly_once(await seen(settings), range(1, 21))


async def set_batch_bytes_max(settings: Settings, topic: str, limit: int) -> None:
    """Set what a topic takes at most, and wait until the broker says so."""
    entry = ConfigEntry("max.message.bytes", str(limit), incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    admin = AdminClient({"bootstrap.servers": settings.kafka.bootstrap_servers})
    await asyncio.to_thread(admin.incremental_alter_configs([resource])[resource].result, 20)

    async def said() -> str:
        described = await asyncio.to_thread(admin.describe_configs([resource])[resource].result, 20)
        return described["max.message.bytes"].value

    await until(said, str(limit))


@pytest.mark.parametrize("step", [ADD_PARTITIONS_TO_TXN, PRODUCE])
async def test_an_answer_is_lost(settings: Settings, step: int) -> None:
    async with relay_through_proxy(settings, mute=[step], request_timeout_ms=1_000) as (relay, proxy):
        head = await journal(settings, changes(20))
        await proxy.wait_muted(1)
        proxy.muting.clear()
        await relay.published(head)
    assert_exactly_once(await seen(settings), range(1, 21))


async def test_a_hanging_broker_is_given_up_after_the_publish_timeout(settings: Settings) -> None:
    async with relay_through_proxy(settings, request_timeout_ms=60_000, publish_timeout_s=1) as (relay, proxy):
        await relay.published(await journal(settings, changes(20)))
        proxy.freeze()
        head = await journal(settings, changes(20, after=20))
        began = time.monotonic()
        await relay.until(lambda relay: relay.state is State.UNKNOWN)
        assert time.monotonic() - began < 5
        proxy.thaw()
        await relay.published(head)
    assert_exactly_once(await seen(settings), range(1, 41))


async def test_a_broker_that_hangs_at_the_start_of_the_relay_is_given_up_too(settings: Settings) -> None:
    async with relay_through_proxy(
        settings, request_timeout_ms=60_000, mute=[INIT_PRODUCER_ID], publish_timeout_s=1
    ) as (relay, proxy):
        head = await journal(settings, changes(20))
        await proxy.wait_muted(1)
        await relay.until(lambda relay: relay.state is State.UNKNOWN, timeout_s=5)
        proxy.muting.clear()
        await relay.published(head)
    assert_exactly_once(await seen(settings), range(1, 21))


async def test_a_leader_that_is_killed_in_a_transaction_leaves_nothing_behind(settings: Settings) -> None:
    async with relay_through_proxy(settings) as (killed, proxy):
        await killed.published(await journal(settings, changes(20)))
        proxy.holding.add(END_TXN)
        await journal(settings, changes(20, after=20))
        late = await proxy.wait_held(1)
        await killed.killed()
        async with running(settings) as successor:
            await successor.published(40)
            assert await late.release() != 0
            await successor.published(await journal(settings, changes(20, after=40)))
    assert_exactly_once(await seen(settings), range(1, 61))


async def test_postgres_goes_away_and_comes_back(settings: Settings) -> None:
    async with postgres_proxy(settings.database.url.get_secret_value()) as (proxy, url):
        quick = relay_settings(settings, database_url=url, retry_wait_s=0.05, retry_wait_max_s=0.2)
        async with running(quick) as relay:
            await relay.published(await journal(settings, changes(20)))
            await proxy.down()
            head = await journal(settings, changes(20, after=20))
            await relay.until(lambda relay: not relay.leading)
            await unready(relay, "postgres")
            assert time.monotonic() - relay.relay.heartbeat.at_s < 1
            await proxy.start()
            await relay.published(head)
    assert_exactly_once(await seen(settings), range(1, 41))


async def test_a_leader_gives_up_when_postgres_hangs(settings: Settings) -> None:
    async with postgres_proxy(settings.database.url.get_secret_value()) as (proxy, url):
        quick = relay_settings(settings, database_url=url, retry_wait_max_s=0.2)
        async with running(quick) as relay:
            await relay.published(await journal(settings, changes(20)))
            proxy.freeze()
            head = await journal(settings, changes(20, after=20))
            await relay.until(lambda relay: not relay.leading)
            proxy.thaw()
            await relay.published(head, timeout_s=60)
    assert_exactly_once(await seen(settings), range(1, 41))


async def test_the_lag_grows_where_kafka_was_away_from_the_beginning(settings: Settings) -> None:
    async with relay_through_proxy(settings, request_timeout_ms=1_000, mute=[INIT_PRODUCER_ID]) as (relay, _):
        for _ in range(2):
            await relay.until(lambda relay: relay.state is State.UNKNOWN)
            await relay.until(lambda relay: relay.state is State.REBUILDING)
        assert (REGISTRY.get_sample_value("orgs_relay_lag_seconds") or 0) > 0.5


async def test_a_relay_that_steps_down_leaves_the_lag_to_the_new_leader(settings: Settings) -> None:
    async with postgres_proxy(settings.database.url.get_secret_value()) as (postgres, url):
        behind = settings.model_copy(update={"database": settings.database.model_copy(update={"url": SecretStr(url)})})
        async with relay_through_proxy(behind, publish_timeout_s=60) as (relay, kafka):
            await relay.published(await journal(settings, changes(20)))
            kafka.freeze()
            await journal(settings, changes(20, after=20))
            await relay.until(lambda relay: relay.state is State.IN_TRANSACTION)
            assert (REGISTRY.get_sample_value("orgs_relay_lag_seconds") or 0) > 0
            assert REGISTRY.get_sample_value("orgs_relay_lag_positions") == 20
            await postgres.down()
            await relay.until(lambda relay: not relay.leading)
            assert REGISTRY.get_sample_value("orgs_relay_lag_seconds") == 0
            assert REGISTRY.get_sample_value("orgs_relay_lag_positions") == 0
            kafka.thaw()


async def test_readiness_comes_back_after_a_broker_that_hung(settings: Settings) -> None:
    async with relay_through_proxy(settings, request_timeout_ms=3_000, publish_timeout_s=1) as (relay, proxy):
        await relay.published(await journal(settings, changes(20)))
        health = Health(relay.relay, 120)
        proxy.freeze()
        head = await journal(settings, changes(20, after=20))
        await relay.until(lambda relay: relay.state is State.IN_TRANSACTION)
        assert await readiness(health) == 503
        await relay.until(lambda relay: relay.state is State.UNKNOWN)
        proxy.thaw()
        await relay.published(head)
        await until(lambda: readiness(health), 200, HANGS_MAX_S + 5)
        await health.close()


async def readiness(health: Health) -> int:
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await health({"type": "http", "path": "/readyz", "method": "GET"}, None, send)
    return sent[0]["status"]
