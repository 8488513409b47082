"""Kafka away, topics missing, sends that fail: which error the caller gets, and that the client recovers."""

import asyncio
import socket
from contextlib import suppress
from typing import Any
from uuid import UUID, uuid4

import pytest
from aiokafka.admin import AIOKafkaAdminClient

import org_local
from org_events import Command, Topics, UpdateOrganization, partition_for
from org_events.publishing import (
    KafkaRefused,
    KafkaUnavailable,
    NotConnected,
    OrganizationClient,
    OutcomeUnknown,
    TopicMissing,
    connection,
    publisher,
)
from org_events.publishing.publisher import Publisher
from tests.integration.client.answering import AnsweringService, Received
from tests.integration.client.conftest import configure, grow
from tests.support.waiting import until

pytestmark = pytest.mark.integration

ORG = UUID("0192d3a0-0000-7000-8000-000000000001")


def silent(_: Received) -> None:
    return None


@pytest.mark.parametrize("timeout_s", [3, 30])
async def test_missing_topics_are_named_with_advice(bootstrap_servers: str, timeout_s: float) -> None:
    client = OrganizationClient(
        bootstrap_servers=bootstrap_servers, source="/tests", topics=Topics("nowhere."), timeout_s=timeout_s
    )
    with pytest.raises(TopicMissing, match=r"nowhere\.orgs\.commands.*orgs topics apply"):
        await client.start()


async def test_an_unreachable_kafka_is_reported_after_the_time_out() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        client = OrganizationClient(bootstrap_servers=address, source="/tests", timeout_s=1)
        with pytest.raises(KafkaUnavailable, match=f"{address} within 1 s; nothing was sent"):
            await client.start()


async def test_a_client_that_is_not_running_says_so(bootstrap_servers: str, topics: Topics) -> None:
    client = OrganizationClient(bootstrap_servers=bootstrap_servers, source="/tests", topics=topics)
    with pytest.raises(NotConnected, match="async with"):
        await client.restore(ORG)
    await client.start()
    await client.stop()
    await client.stop()
    with pytest.raises(NotConnected):
        await client.outcome(uuid4())


async def test_a_client_may_be_started_again(service: AnsweringService, orgs: OrganizationClient) -> None:
    await orgs.restore(ORG)
    await orgs.stop()
    await orgs.start()
    assert (await orgs.restore(ORG)).code == 200


async def test_calls_that_wait_while_the_client_stops_fail(service: AnsweringService, orgs: OrganizationClient) -> None:
    service.answer = silent
    waiting = asyncio.create_task(orgs.restore(ORG))
    await service.arrived(1)
    await orgs.stop()
    with pytest.raises(OutcomeUnknown, match="the client was stopped"):
        await waiting


async def test_a_command_that_is_too_large_is_rejected_before_it_is_sent(
    service: AnsweringService, orgs: OrganizationClient
) -> None:
    class Padded(Command):
        """Real commands can't get that large: every field has its bound."""

        type = "org.update"
        padding: str

    with pytest.raises(ValueError, match="has 65600 bytes, the service accepts at most 65536"):
        await orgs.execute(Padded(org_id=ORG, padding="x" * (65_600 - 62)))
    await orgs.restore(ORG)
    assert len(service.received) == 1


async def test_a_send_that_kafka_does_not_confirm_is_unknown_and_safe_to_repeat(
    stack: org_local.Stack, service: AnsweringService, orgs: OrganizationClient
) -> None:
    await orgs.restore(ORG)
    command, command_id = UpdateOrganization(org_id=ORG, name="Acme"), uuid4()
    stack.kafka.pause()
    try:
        with pytest.raises(OutcomeUnknown, match="Kafka did not confirm it in time") as caught:
            await orgs.send(command, command_id=command_id, timeout_s=1)
    finally:
        stack.kafka.resume()
    assert caught.value.command_id == command_id
    assert not caught.value.confirmed
    outcome = await orgs.execute(command, command_id=command_id)
    assert outcome.command_id == command_id
    assert {received.command_id for received in service.received[1:]} == {str(command_id)}


async def test_a_short_outage_only_delays(
    stack: org_local.Stack, service: AnsweringService, orgs: OrganizationClient
) -> None:
    await orgs.restore(ORG)
    stack.kafka.pause()
    try:
        waiting = [asyncio.create_task(orgs.update(ORG, name=str(number))) for number in range(20)]
        done, _ = await asyncio.wait(waiting, timeout=1)
        assert not done
    finally:
        stack.kafka.resume()
    outcomes = await asyncio.gather(*waiting)
    assert {outcome.code for outcome in outcomes} == {200}
    assert [received.body["name"] for received in service.received[1:]] == [str(number) for number in range(20)]


async def test_stopping_is_bounded_while_kafka_is_away(stack: org_local.Stack, orgs: OrganizationClient) -> None:
    await orgs.send(UpdateOrganization(org_id=ORG, name="Acme"))  # from here on its results are read
    stack.kafka.pause()
    try:
        waiting = asyncio.create_task(orgs.send(UpdateOrganization(org_id=ORG, name="Acme")))
        await asyncio.wait({waiting}, timeout=0.1)
        async with asyncio.timeout(15):
            await orgs.stop()
        with pytest.raises(OutcomeUnknown):
            await waiting
    finally:
        stack.kafka.resume()


async def test_stopping_is_bounded_after_a_request_that_timed_out(
    stack: org_local.Stack, topics: Topics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher, "STOP_TIMEOUT_S", 0.2)  # over before the metadata are given up
    client = OrganizationClient(
        bootstrap_servers=stack.bootstrap_servers, source="/tests", topics=topics, request_timeout_ms=2_000
    )
    await client.start()
    await client.send(UpdateOrganization(org_id=ORG, name="Acme"))
    stack.kafka.pause()
    try:
        waiting = asyncio.create_task(client.send(UpdateOrganization(org_id=ORG, name="Acme")))
        await until(lambda: _is_put_back(client))
        async with asyncio.timeout(15):
            await client.stop()
        with pytest.raises(OutcomeUnknown, match="stopped"):
            await waiting
    finally:
        stack.kafka.resume()


def _is_put_back(client: OrganizationClient) -> bool:
    """Whether the producer waits for metadata to send a batch again."""
    producer: Any = client._connection.publisher()._producer
    return any(batch.retry_count for batches in producer._message_accumulator._batches.values() for batch in batches)


async def test_a_stop_finishes_even_if_its_caller_gives_up(stack: org_local.Stack, orgs: OrganizationClient) -> None:
    await orgs.send(UpdateOrganization(org_id=ORG, name="Acme"))  # from here on its results are read
    stack.kafka.pause()
    try:
        waiting = asyncio.create_task(orgs.update(ORG, name="Acme"))
        await asyncio.wait({waiting}, timeout=0.1)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await orgs.stop()
        async with asyncio.timeout(15):
            await orgs.stop()
        assert waiting.done()
        with pytest.raises(OutcomeUnknown, match="stopped"):
            await waiting
    finally:
        stack.kafka.resume()


@pytest.mark.usefixtures("orgs")  # a client that has started: the broker knows the new topics
async def test_no_topic_is_called_missing_before_a_broker_says_so(
    stack: org_local.Stack, topics: Topics, monkeypatch: pytest.MonkeyPatch
) -> None:
    connects = Publisher.start

    async def connect_then_hang(each: Publisher) -> None:
        await connects(each)
        stack.kafka.pause()

    def client(timeout_s: float) -> OrganizationClient:
        address = stack.bootstrap_servers
        return OrganizationClient(bootstrap_servers=address, source="/tests", topics=topics, timeout_s=timeout_s)

    monkeypatch.setattr(Publisher, "start", connect_then_hang)
    monkeypatch.setattr(connection, "TOPIC_WAIT_S", 0.2)
    try:
        with pytest.raises(KafkaUnavailable):
            await client(timeout_s=1).start()
        stack.kafka.resume()
        asyncio.get_running_loop().call_later(1, stack.kafka.resume)
        async with client(timeout_s=20):
            pass
    finally:
        stack.kafka.resume()


async def test_the_client_recovers_from_a_send_that_kafka_refused(
    admin: AIOKafkaAdminClient, topics: Topics, service: AnsweringService, orgs: OrganizationClient
) -> None:
    await orgs.restore(ORG)
    await configure(admin, topics.commands, "max.message.bytes", "400")
    command = UpdateOrganization(org_id=ORG, name="x" * 200, domain="acme.com")
    with pytest.raises(KafkaRefused, match="MessageSizeTooLarge"):
        await _send_until_refused(orgs, command)
    await configure(admin, topics.commands, "max.message.bytes", "100000")
    await _send_until_taken(orgs, command)
    assert (await orgs.update(ORG, name="after")).code == 200


async def _send_until_refused(orgs: OrganizationClient, command: Command) -> None:
    """The broker takes a moment to hear of a new limit."""
    async with asyncio.timeout(20):
        while True:
            await orgs.send(command)


async def _send_until_taken(orgs: OrganizationClient, command: Command) -> None:
    async with asyncio.timeout(20):
        while True:
            with suppress(KafkaRefused):
                await orgs.send(command)
                return


async def test_results_in_partitions_added_later_are_read(
    admin: AIOKafkaAdminClient, bootstrap_servers: str, topics: Topics, service: AnsweringService
) -> None:
    # The default asks for new partitions every five minutes.
    async with OrganizationClient(
        bootstrap_servers=bootstrap_servers, source="/tests", topics=topics, metadata_max_age_ms=200
    ) as orgs:
        await orgs.restore(ORG)
        await grow(admin, topics.results, 24)
        late = next(org for org in iter(uuid4, None) if partition_for(str(org).encode(), 24) >= 3)
        await service.knows_partitions(topics.results, 24)
        assert (await orgs.restore(late)).org_id == late
        assert (await orgs.restore(ORG)).org_id == ORG
