"""A client reads the partitions that may hold an outcome somebody wants, and misses none of them."""

import asyncio
import os
import random
import sys
import time
from collections.abc import AsyncIterator, Callable
from uuid import UUID, uuid4

import psutil
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient

import org_local
from org_events import Topics, UpdateOrganization, partition_for
from org_events.kafka.consumer import SteadyConsumer
from org_events.publishing import KafkaUnavailable, OrganizationClient, OutcomeUnknown
from org_events.publishing import reader as reading_module
from org_events.publishing.outcomes import Expected
from org_events.publishing.reader import OutcomeReader
from tests.integration.client.answering import AnsweringService, Received, result
from tests.integration.client.conftest import grow
from tests.support.waiting import until

pytestmark = pytest.mark.integration

ORGS = {partition_for(str(each).encode(), 3): each for each in (UUID(int=number, version=4) for number in range(50))}
"""An organization of each partition."""


def silent(_: Received) -> None:
    return None


@pytest.fixture
def never_lingers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Partitions fall asleep as soon as nobody wants anything of them."""
    monkeypatch.setattr(reading_module, "LINGER_S", 0.0)


@pytest.fixture
async def reader(bootstrap_servers: str, topics: Topics) -> AsyncIterator[tuple[OutcomeReader, Expected]]:
    """The reader of a client alone."""
    consumer = SteadyConsumer(
        bootstrap_servers=bootstrap_servers, group_id=None, enable_auto_commit=False, offsets_apart=True
    )
    expected = Expected()
    reader = OutcomeReader(topics.results, consumer, expected)
    await reader.start({0, 1, 2})
    yield reader, expected
    await reader.stop()


@pytest.mark.usefixtures("never_lingers")
async def test_only_partitions_in_which_something_is_wanted_are_read(
    reader: tuple[OutcomeReader, Expected], service: AnsweringService
) -> None:
    reading, expected = reader
    assert reading.awake == set()
    expected.expect(UUID(int=7), keys=(str(ORGS[1]).encode(),))
    await reading.watch(str(UUID(int=7)).encode())
    assert reading.awake == {1}
    command = {"command_id": str(UUID(int=7)), "org_id": str(ORGS[1])}
    await service.publish(command | {"outcome": "applied"})
    await until(lambda: reading.awake, set())


@pytest.mark.usefixtures("never_lingers")
async def test_no_outcome_is_missed_while_partitions_fall_asleep_and_are_woken_all_the_time(
    service: AnsweringService, orgs: OrganizationClient
) -> None:
    chance = random.Random(5)

    async def work() -> None:
        for _ in range(60):
            org_id = chance.choice(list(ORGS.values()))
            command = UpdateOrganization(org_id=org_id, name="Acme")
            if chance.random() < 0.5:
                assert (await orgs.execute(command, timeout_s=10)).org_id == org_id
            else:
                sent = await orgs.send(command)
                await asyncio.sleep(chance.choice([0, 0, 0.01, 0.1]))
                assert (await orgs.outcome(sent.command_id, timeout_s=10)).org_id == org_id
            await asyncio.sleep(chance.choice([0, 0, 0.02, 0.08]))

    await asyncio.gather(*(work() for _ in range(4)))


@pytest.mark.usefixtures("never_lingers")
async def test_the_outcome_of_a_command_sent_long_ago_is_there(
    service: AnsweringService, orgs: OrganizationClient
) -> None:
    service.answer = lambda command: None if command.body["name"] == "late" else result(command)
    sent = await orgs.send(UpdateOrganization(org_id=ORGS[0], name="late"))
    for partition in (0, 1, 2):
        await orgs.update(ORGS[partition], name="Acme")
        await asyncio.sleep(0.2)
    await service.publish(result(service.received[0]))
    await orgs.update(ORGS[1], name="Acme")
    assert (await orgs.outcome(sent.command_id)).command_id == sent.command_id


@pytest.mark.usefixtures("never_lingers")
async def test_a_partition_stays_awake_while_a_command_for_it_waits_for_its_turn(
    service: AnsweringService, orgs: OrganizationClient
) -> None:
    """Its id belongs to a command to another organization, which is undecided."""
    command_id = uuid4()
    service.answer = lambda command: None if command.body["name"] == "first" else result(command)
    first = asyncio.create_task(orgs.execute(UpdateOrganization(org_id=ORGS[0], name="first"), command_id=command_id))
    await service.arrived(1)
    second = asyncio.create_task(orgs.execute(UpdateOrganization(org_id=ORGS[1], name="second"), command_id=command_id))
    await asyncio.wait({second}, timeout=2.5)  # longer than a poll
    await service.publish(result(service.received[0]))
    assert [(await each).org_id for each in (first, second)] == [ORGS[0], ORGS[1]]


async def test_the_outcome_of_a_command_of_another_process_may_be_waited_for(
    service: AnsweringService, orgs: OrganizationClient
) -> None:
    command_id = uuid4()
    with pytest.raises(OutcomeUnknown, match="none arrived in time"):
        await orgs.outcome(command_id, timeout_s=0.2)
    answer = {"command_id": str(command_id), "org_id": str(ORGS[2]), "outcome": "applied", "code": 200, "version": 1}
    await service.publish(answer | {"organization": None, "position": 1, "problem": None, "final": True})
    assert (await orgs.outcome(command_id)).org_id == ORGS[2]


async def test_a_result_on_a_partition_that_was_added_while_it_is_waited_for_arrives(
    admin: AIOKafkaAdminClient, bootstrap_servers: str, topics: Topics, service: AnsweringService
) -> None:
    service.answer = silent
    late = next(org for org in iter(uuid4, None) if partition_for(str(org).encode(), 24) >= 3)
    async with OrganizationClient(
        bootstrap_servers=bootstrap_servers, source="/tests", topics=topics, metadata_max_age_ms=200
    ) as orgs:
        waiting = asyncio.create_task(orgs.update(late, name="Acme", timeout_s=30))
        await service.arrived(1)
        await grow(admin, topics.results, 24)
        await service.knows_partitions(topics.results, 24)
        await service.publish(result(service.received[0]))
        assert (await waiting).org_id == late


@pytest.mark.usefixtures("never_lingers")
async def test_while_topics_grow_a_result_on_the_former_partition_arrives_too(
    admin: AIOKafkaAdminClient, bootstrap_servers: str, topics: Topics, service: AnsweringService
) -> None:
    """The relay has the former number until its moment has come, after clients may have heard of the new one."""
    await grow(admin, topics.results, 24)
    late = next(org for org in iter(uuid4, None) if partition_for(str(org).encode(), 24) >= 3)
    await service.knows_partitions(topics.results, 24)
    service.answer = silent
    async with OrganizationClient(bootstrap_servers=bootstrap_servers, source="/tests", topics=topics) as orgs:
        waiting = asyncio.create_task(orgs.update(late, name="Acme", timeout_s=20))
        await service.arrived(1)
        await service.publish_on(partition_for(str(late).encode(), 3), result(service.received[0]))
        assert (await waiting).org_id == late


@pytest.mark.usefixtures("never_lingers")
async def test_a_command_is_not_sent_while_the_end_of_its_results_is_unknown(
    stack: org_local.Stack, service: AnsweringService, orgs: OrganizationClient
) -> None:
    stack.kafka.pause()
    try:
        with pytest.raises(KafkaUnavailable, match="nothing was sent"):
            await orgs.update(ORGS[0], name="Acme", timeout_s=1)
        waiting = asyncio.create_task(orgs.update(ORGS[0], name="later"))
        await asyncio.wait({waiting}, timeout=0.5)
    finally:
        stack.kafka.resume()
    assert (await waiting).org_id == ORGS[0]
    assert [each.body["name"] for each in service.received] == ["later"]


_IDLE = """
import asyncio, sys
from uuid import UUID
from org_events import Topics
from org_events.publishing import OrganizationClient, reader
reader.LINGER_S = 0.2
async def main():
    async with OrganizationClient(bootstrap_servers=sys.argv[1], source="/tests", topics=Topics(sys.argv[2])) as orgs:
        await orgs.restore(UUID(int=5, version=4))
        print("ready", flush=True)
        await asyncio.Event().wait()
asyncio.run(main())
"""


async def test_an_idle_client_costs_nearly_nothing_while_others_get_their_results(
    service: AnsweringService,
    bootstrap_servers: str,
    topics: Topics,
    record_property: Callable[[str, object], None],
) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _IDLE, bootstrap_servers, topics.prefix, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        assert await asyncio.wait_for(process.stdout.readline(), 30) == b"ready\n"
        async with AIOKafkaProducer(bootstrap_servers=bootstrap_servers) as producer:
            await flood(producer, topics.results, 2.5)  # until it has fallen asleep: it looks after each poll
            watched = psutil.Process(process.pid)
            before, began = sum(watched.cpu_times()[:2]), time.monotonic()
            sent = await flood(producer, topics.results, 3.0)
            share = (sum(watched.cpu_times()[:2]) - before) / (time.monotonic() - began)
    finally:
        process.kill()
        await process.wait()
    record_property("results_per_second", round(sent / 3.0))
    record_property("cpu_of_a_core", share)
    print(f"{sent / 3.0:.0f} results/s, {share:.3f} of a core")
    assert share <= 0.02


async def flood(producer: AIOKafkaProducer, topic: str, seconds: float) -> int:
    """Results of somebody else, as fast as they go."""
    end, sent = time.monotonic() + seconds, 0
    value = b'{"command_id":"%b"}' % os.urandom(250).hex().encode()
    while time.monotonic() < end:
        for partition in range(3):
            batch = producer.create_batch()
            while batch.append(key=None, value=value, timestamp=None, headers=[("ce_commandid", b"x" * 36)]):
                sent += 1
            batch.close()
            await producer.send_batch(batch, topic, partition=partition)
        await asyncio.sleep(0)
    await producer.flush()
    return sent
