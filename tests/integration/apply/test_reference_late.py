"""Reference records of a worker that lost its partitions, or whose database or topic is another one now."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import uuid4

import asyncpg
import pytest

from org_events.reference import Membership, Role
from org_service.apply.reference import ReferenceApplier
from org_service.kafka.client import TopicPartition
from org_service.kafka.reader import groupless_consumer
from org_service.settings import Settings
from org_service.telemetry.metrics import REFERENCE_RECORDS
from tests.support.appliers import applying_facts
from tests.support.records import FakeRecord
from tests.support.reference_feed import Feed, at_home, give, member, progress, reading, roles, user, users
from tests.support.waiting import until

pytestmark = pytest.mark.integration


@pytest.fixture
def feed(settings: Settings) -> Feed:
    return Feed(settings)


@asynccontextmanager
async def placed(settings: Settings) -> AsyncIterator[ReferenceApplier]:
    """An applier that has found its position in partition 0 of the memberships, and hears of no rebalance."""
    async with applying_facts(settings) as applier, groupless_consumer(settings.kafka) as consumer:
        consumer.assign([TopicPartition(settings.kafka.topics.memberships, 0)])
        await until(lambda: applier.find_position(consumer))
        yield applier


def record(feed: Feed, fact: Membership, offset: int, partition: int = 0) -> FakeRecord:
    return FakeRecord(fact.key(), fact.to_body(), [], partition, offset, feed.topics.memberships)


async def test_a_worker_that_lost_its_partitions_cannot_put_older_data_back(
    settings: Settings, database: asyncpg.Connection, feed: Feed
) -> None:
    topic = feed.topics.memberships
    async with placed(settings) as former:
        await give(feed, 0, 2)
        await give(feed, 0, 1, Role.ADMIN)
        await feed.raw(topic, [(member(user(1)).key(), None)], partition=0)
        async with reading(settings):
            await until(lambda: progress(database), 4)
        assert await roles(database) == {user(0): "admin"}
        skipped = REFERENCE_RECORDS.labels(topic, "skipped")._value.get()
        await former.apply([record(feed, fact, offset) for offset, fact in enumerate(map(member, users(0, 2)))])
        assert not former.lost
    assert await roles(database) == {user(0): "admin"}
    assert await progress(database) == 4
    assert REFERENCE_RECORDS.labels(topic, "skipped")._value.get() - skipped == 2


async def test_a_batch_with_a_hole_before_it_writes_nothing(
    settings: Settings, database: asyncpg.Connection, feed: Feed
) -> None:
    """The database was restored, say: were this batch applied, the progress would pass over what is missing."""
    await give(feed, 0, 5)
    async with reading(settings):
        await until(lambda: progress(database), 5)
    async with placed(settings) as ahead:
        await database.execute("UPDATE reference_progress SET next_offset = 2 WHERE next_offset = 5")
        await ahead.apply([record(feed, member(at_home("late")), 5)])
        assert ahead.lost
    assert await roles(database) == users(0, 5)
    assert await progress(database) == 2


async def test_a_batch_of_a_topic_that_is_gone_writes_nothing(
    settings: Settings, database: asyncpg.Connection, feed: Feed
) -> None:
    """The successor knows the new topic already; the former worker still has records of the old one."""
    async with placed(settings) as former:
        await give(feed, 0, 1)
        async with reading(settings):
            await until(lambda: roles(database), users(0, 1))
        await database.execute("UPDATE reference_progress SET topic_id = $1, next_offset = 0", uuid4())
        await former.apply([record(feed, member(at_home("old")), 0)])
        assert former.lost
    assert await roles(database) == users(0, 1)


async def test_a_topic_recreated_between_two_batches_is_noticed_before_anything_is_written(
    settings: Settings, database: asyncpg.Connection, feed: Feed
) -> None:
    """The group need not notice: offsets may go on as if nothing had happened."""
    topic = feed.topics.memberships
    await give(feed, 0, 1)
    async with reading(settings):
        await until(lambda: progress(database), 1)
    async with placed(settings) as unaware:
        await feed.delete_topic(topic)
        await feed.create_topic(topic)
        await unaware.apply([record(feed, member(at_home("new")), 1)])
        assert unaware.lost
    assert await roles(database) == users(0, 1)


@pytest.mark.parametrize("partition", [0, 1])
async def test_records_that_go_back_or_were_not_assigned_are_dropped(
    settings: Settings, database: asyncpg.Connection, feed: Feed, partition: int
) -> None:
    """Kafka lost its end under a running worker; or a rebalance gave a partition whose place isn't known yet."""
    await give(feed, 0, 5)
    async with reading(settings):
        await until(lambda: progress(database), 5)
    async with placed(settings) as one:
        await one.apply([record(feed, member(at_home("new")), 3, partition)])
        assert one.lost
    assert await roles(database) == users(0, 5)
