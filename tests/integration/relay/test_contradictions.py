"""Where Kafka and the journal contradict each other the relay stops, and says why and what an operator can do."""

import asyncio
from uuid import UUID

import pytest
from aiokafka import AIOKafkaProducer

from org_service.errors import RetryError, StopError
from org_service.relay import Relay
from org_service.relay import relay as module
from org_service.settings import Settings
from tests.support import log_faults
from tests.support.database import execute
from tests.support.relaying import Running, assert_exactly_once, changes, journal, running, seen
from tests.support.waiting import until

pytestmark = pytest.mark.integration


async def stopped(settings: Settings) -> str:
    """What a relay says that refuses to go on."""
    with pytest.raises(StopError) as caught:
        async with asyncio.timeout(20):
            await Relay(settings).run(asyncio.Event())
    return str(caught.value)


async def publish(settings: Settings, rows: int) -> None:
    head = await journal(settings, changes(rows))
    async with running(settings) as relay:
        await relay.published(head)


async def restore(settings: Settings, position: int) -> None:
    """Put the database back to where it was at a position."""
    await execute(settings, "DELETE FROM journal WHERE position > $1", position)
    await execute(settings, "UPDATE journal_head SET position = $1", position)


async def test_it_stops_where_kafka_is_ahead_of_the_journal(settings: Settings) -> None:
    await publish(settings, 20)
    await restore(settings, 15)
    said = await stopped(settings)
    assert "positions up to 20 are published, the journal ends at 15" in said
    assert "`orgs journal advance`" in said
    assert "restore a backup that contains position 20" in said


async def test_it_stops_where_a_restored_journal_has_grown_past_kafkas_position(settings: Settings) -> None:
    await publish(settings, 20)
    await restore(settings, 15)
    others = [{**row, "command_id": UUID(int=number)} for number, row in enumerate(changes(10, after=30), 1)]
    await journal(settings, others)
    said = await stopped(settings)
    assert "at position 20 the command 00000005-0000-0000-0000-000000000014 was published" in said
    assert "the journal has 00000000-0000-0000-0000-000000000005 there" in said
    assert "`orgs journal advance`" in said


async def says(run: Running, text: str) -> bool:
    try:
        await run.relay.checks()["kafka"]()
    except RetryError as error:
        return text in str(error)
    return False


async def test_it_waits_where_partitions_were_added_rather_than_split_an_organization(
    settings: Settings,
) -> None:
    """Versions 1 and 2 on one partition, 3 on another: a subscriber would see 3 first, and nothing would say so."""
    await publish(settings, 20)
    kafka = settings.kafka
    await asyncio.to_thread(log_faults.add_partitions, kafka.bootstrap_servers, kafka.topics.events, 6)
    await journal(settings, changes(5, after=20))
    async with running(settings) as run:
        await until(lambda: says(run, f"{kafka.topics.events} has 6 partitions, not 3"))
        await until(lambda: says(run, "`orgs topics apply --dry-run`"))
    assert_exactly_once(await seen(settings), range(1, 21))


@pytest.mark.parametrize("found", [1, 6])
async def test_it_continues_without_a_restart_once_a_topic_has_its_partitions_again(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, found: int
) -> None:
    """Under a relay that leads and is idle: nothing that it sends would tell it."""
    monkeypatch.setattr(module, "PARTITIONS_LOOK_S", 0.1)
    kafka, topic = settings.kafka, settings.kafka.topics.results
    [spec] = [each for each in kafka.topics.specs(partitions=3) if each.name == topic]
    head = await journal(settings, changes(20))
    async with running(settings) as run:
        await run.published(head)
        if found > 3:
            await asyncio.to_thread(log_faults.add_partitions, kafka.bootstrap_servers, topic, found)
        else:
            await asyncio.to_thread(log_faults.recreate_topic, kafka.bootstrap_servers, topic, found, spec.config)
        await until(lambda: says(run, f"{topic} has {found} partitions, not 3"))
        head = await journal(settings, changes(5, after=20))
        await asyncio.to_thread(log_faults.recreate_topic, kafka.bootstrap_servers, topic, 3, spec.config)
        await run.published(head)
        assert await run.relay.checks()["kafka"]() == "leader, ready"
    after = await seen(settings)
    assert sorted(int(each.header("ce_position") or 0) for each in after.results) == [21, 22, 23, 24, 25]
    assert after.event_positions() == list(range(1, 26))


async def test_it_stops_when_the_journal_is_restored_while_it_runs(settings: Settings) -> None:
    head = await journal(settings, changes(20))
    relay = Relay(settings)
    task = asyncio.create_task(relay.run(asyncio.Event()))
    async with asyncio.timeout(20):
        await relay.wait_until(lambda relay: relay.position == head)
        await restore(settings, 15)
        with pytest.raises(StopError, match="the journal ends at 15"):
            await task


async def test_it_continues_after_the_operator_advanced_the_journal(settings: Settings) -> None:
    await publish(settings, 20)
    await restore(settings, 15)
    await execute(settings, "UPDATE journal_head SET position = 20")
    head = await journal(settings, changes(5, after=20))
    async with running(settings) as relay:
        await relay.published(head)
    assert_exactly_once(await seen(settings), range(1, 26))


async def test_it_never_skips_a_hole(settings: Settings) -> None:
    await journal(settings, changes(20))
    await execute(settings, "DELETE FROM journal WHERE position = 11")
    assert "no row at position 11" in await stopped(settings)
    assert (await seen(settings)).events == []


async def test_without_topics_it_says_how_to_create_them(settings: Settings) -> None:
    kafka = settings.kafka.model_copy(update={"topic_prefix": f"{settings.kafka.topic_prefix}not-there."})
    assert "orgs topics apply" in await stopped(settings.model_copy(update={"kafka": kafka}))


async def test_it_stops_where_kafka_has_events_but_no_position_of_this_relay(settings: Settings) -> None:
    await publish(settings, 20)
    renamed = settings.model_copy(update={"relay": settings.relay.model_copy(update={"name": "renamed"})})
    said = await stopped(renamed)
    assert f"{settings.kafka.topics.relay} has no position of the relay 'renamed'" in said
    assert "ORGS_RELAY__NAME" in said
    assert_exactly_once(await seen(settings), range(1, 21))


async def test_an_aborted_transaction_is_not_a_contradiction(settings: Settings) -> None:
    """The first transaction of a new system may be aborted."""
    writer = AIOKafkaProducer(
        bootstrap_servers=settings.kafka.bootstrap_servers, transactional_id=f"{settings.kafka.topic_prefix}orgs"
    )
    await writer.start()
    await writer.begin_transaction()
    await writer.send_and_wait(settings.kafka.topics.events, b"{}", key=b"key")
    await writer.abort_transaction()
    await writer.stop()
    await publish(settings, 20)
    assert_exactly_once(await seen(settings), range(1, 21))
