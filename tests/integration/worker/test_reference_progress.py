"""No older data come back and none are skipped: rebalances, restored databases, recreated topics, outages."""

import asyncio
import logging
from uuid import UUID

import asyncpg
import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError
from pydantic import SecretStr

import org_local
from org_events.kafka.topic_ids import fetch_topic_ids
from org_events.reference import Role
from org_service.apply.reference import ReferenceApplier
from org_service.settings import Settings
from org_service.telemetry.metrics import BATCH_REPEATS, REFERENCE_LOSSES, REFERENCE_RECORDS
from org_service.worker import reference
from org_service.worker.reference import ReferenceSubscriber
from org_service.worker.worker import Worker
from tests.integration.worker.running import has_joined, running, said
from tests.support import log_faults
from tests.support.probing import probing
from tests.support.reference_feed import Feed, give, joined, member, progress, reading, roles, user, users
from tests.support.waiting import until

pytestmark = pytest.mark.integration


@pytest.fixture
def feed(settings: Settings) -> Feed:
    return Feed(settings)


@pytest.fixture(autouse=True)
def _hears_soon_of_new_topics(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference, "METADATA_MAX_AGE_MS", 1_000)


async def test_two_workers_share_the_partitions_and_hand_them_over(
    settings: Settings, database: asyncpg.Connection, feed: Feed
) -> None:
    async with joined(settings) as first:
        await feed.members(*(member(name) for name in users(0, 50)))
        await until(lambda: roles(database), users(0, 50))
        async with joined(settings) as second:
            await until(lambda: _placed(first, second), 9)
            await feed.members(*(member(name) for name in users(50, 50)))
            await until(lambda: roles(database), users(0, 100))
        await feed.members(*(member(name) for name in users(100, 50)))
        await until(lambda: roles(database), users(0, 150))
    assert await database.fetchval("SELECT sum(next_offset) FROM reference_progress") == 150


def _placed(*readers: tuple[ReferenceSubscriber, ReferenceApplier]) -> int | None:
    """Partitions in hand, once each has some and has found its place."""
    each = [0 if applier.lost else subscriber.assigned or 0 for subscriber, applier in readers]
    return sum(each) if all(each) else None


async def test_a_database_restored_from_an_older_backup_catches_up_by_itself(
    settings: Settings, database: asyncpg.Connection, feed: Feed
) -> None:
    """The group has committed offsets that are ahead of it: they don't count."""
    await give(feed, 0, 5)
    async with reading(settings):
        await until(lambda: roles(database), users(0, 5))
    await database.execute("UPDATE reference_progress SET next_offset = 2 WHERE next_offset = 5")
    await database.execute("DELETE FROM membership WHERE user_id >= 'user-2'")
    async with reading(settings):
        await until(lambda: roles(database), users(0, 5))


async def test_a_database_that_is_restored_under_a_running_worker_catches_up_at_the_next_record(
    settings: Settings, database: asyncpg.Connection, feed: Feed
) -> None:
    await give(feed, 0, 5)
    async with reading(settings):
        await until(lambda: roles(database), users(0, 5))
        await database.execute("UPDATE reference_progress SET next_offset = 2 WHERE next_offset = 5")
        await database.execute("DELETE FROM membership WHERE user_id >= 'user-2'")
        await give(feed, 5, 1)
        await until(lambda: roles(database), users(0, 6))


@pytest.mark.parametrize("count", [3, 20])
async def test_a_topic_recreated_while_no_worker_ran_is_read_from_its_beginning(
    settings: Settings,
    database: asyncpg.Connection,
    feed: Feed,
    count: int,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Also when it has become longer than the old one was, which no offset tells."""
    caplog.set_level(logging.INFO)  # a command in a test before this one may have set up logs for warnings alone
    topic = feed.topics.memberships
    await give(feed, 0, 10)
    async with reading(settings):
        await until(lambda: roles(database), users(0, 10))
    await feed.delete_topic(topic)
    await feed.create_topic(topic)
    await give(feed, 100, count)
    async with reading(settings):
        await until(lambda: roles(database), users(0, 10) | users(100, count))
        assert await progress(database) == count
        await give(feed, 0, 1, Role.ADMIN)
        await until(lambda: roles(database), users(0, 10) | users(100, count) | {user(0): "admin"})
    # Wherever logging was set up for by the tests before this one.
    assert "was recreated" in "".join((*capsys.readouterr(), caplog.text))


@pytest.mark.parametrize("count", [3, 20])
async def test_a_topic_recreated_under_a_running_worker_is_read_from_its_beginning(
    settings: Settings, database: asyncpg.Connection, feed: Feed, count: int
) -> None:
    topic = feed.topics.memberships
    await give(feed, 0, 10)
    async with reading(settings):
        await until(lambda: roles(database), users(0, 10))
        await feed.delete_topic(topic)
        await feed.create_topic(topic)
        await give(feed, 100, count)
        await until(lambda: roles(database), users(0, 10) | users(100, count))
        assert await progress(database) == count


async def test_a_partition_that_lost_its_end_is_read_from_its_beginning(
    settings: Settings, database: asyncpg.Connection, feed: Feed
) -> None:
    """What an unclean election of a leader leaves behind: offsets below the progress are given out again."""
    await give(feed, 0, 5)
    async with reading(settings):
        await until(lambda: roles(database), users(0, 5))
    await database.execute("UPDATE reference_progress SET next_offset = 9 WHERE next_offset = 5")
    await database.execute("DELETE FROM membership")
    async with reading(settings):
        await until(lambda: roles(database), users(0, 5))
    assert await progress(database) == 5


async def lose_and_fill(stack: org_local.Stack, settings: Settings) -> None:
    """Of ten records the last five are lost, and twenty others follow: no offset is too high for the log."""
    await asyncio.to_thread(log_faults.cut_tail, stack, settings.kafka.topics.memberships, 0, 5)
    await give(Feed(settings), 100, 20)  # the former publisher is told that the broker lost its sequence


@pytest.fixture
async def ten_records(feed: Feed) -> None:
    """Each in a batch of its own, so that there is something between to cut at."""
    for number in range(10):
        await give(feed, number, 1)


@pytest.mark.usefixtures("ten_records")
async def test_a_topic_that_lost_its_end_and_was_filled_past_the_progress_is_read_from_its_beginning(
    settings: Settings, stack: org_local.Stack, database: asyncpg.Connection
) -> None:
    async with reading(settings):
        await until(lambda: roles(database), users(0, 10))
    await lose_and_fill(stack, settings)
    async with reading(settings):
        await until(lambda: roles(database), users(0, 10) | users(100, 20))
    assert await progress(database) == 25


@pytest.mark.usefixtures("ten_records")
async def test_a_topic_that_loses_its_end_under_a_reader_is_read_from_its_beginning(
    settings: Settings, stack: org_local.Stack, database: asyncpg.Connection
) -> None:
    """Its consumer reads on behind the records that it never saw."""
    losses = REFERENCE_LOSSES.labels(settings.kafka.topics.memberships)
    async with reading(settings):
        await until(lambda: roles(database), users(0, 10))
        before = losses._value.get()
        await lose_and_fill(stack, settings)
        await until(lambda: roles(database), users(0, 10) | users(100, 20))
    assert await progress(database) == 25
    assert losses._value.get() == before + 1


@pytest.mark.usefixtures("ten_records")
async def test_another_leader_alone_has_nothing_read_again(
    settings: Settings, stack: org_local.Stack, database: asyncpg.Connection, feed: Feed
) -> None:
    applied = REFERENCE_RECORDS.labels(feed.topics.memberships, "applied")
    async with reading(settings) as applier:
        await until(lambda: roles(database), users(0, 10))
        before = applied._value.get()
        await asyncio.to_thread(restart, stack)
        await give(feed, 10, 5)
        await until(lambda: roles(database), users(0, 15))
        assert not applier.lost
    async with reading(settings):
        await give(feed, 15, 5)
        await until(lambda: roles(database), users(0, 20))
    assert applied._value.get() == before + 10


def restart(stack: org_local.Stack) -> None:
    stack.kafka.stop()
    stack.kafka.start()


async def test_the_id_of_a_topic_is_its_own(settings: Settings, feed: Feed) -> None:
    consumer = AIOKafkaConsumer(bootstrap_servers=settings.kafka.bootstrap_servers)
    async with consumer:
        names = [feed.topics.staff, feed.topics.memberships]
        first = await fetch_topic_ids(consumer, names)
        assert len(set(first.values())) == 2
        assert UUID(int=0) not in first.values()
        assert await fetch_topic_ids(consumer, names) == first
        with pytest.raises(KafkaError, match=r"nowhere\.orgs"):
            await fetch_topic_ids(consumer, [feed.topics.staff, "nowhere.orgs"])


async def test_an_outage_of_postgres_is_waited_out_and_reported(
    settings: Settings, database: asyncpg.Connection, feed: Feed
) -> None:
    quick = settings.worker.model_copy(update={"retry_wait_max_s": 0.2})
    async with running(settings.model_copy(update={"worker": quick})) as worker:
        await feed.members(member("ann"))
        await until(lambda: roles(database), {"ann": "user"})
        assert await worker.checks()["reference"]() == "9 partitions"
        await database.execute("ALTER TABLE membership RENAME TO membership_away")
        await feed.members(member("bob"))
        await until(lambda: _waits(worker))
        beat = _oldest(worker)
        await until(lambda: _later(worker, beat), True)
        await database.execute("ALTER TABLE membership_away RENAME TO membership")
        await until(lambda: roles(database), {"ann": "user", "bob": "user"})
        # Heard of some time after the rows are there.
        await until(lambda: said(worker, "reference"), "9 partitions")


async def test_a_batch_that_takes_too_long_is_halved_until_it_gets_through(
    settings: Settings, database: asyncpg.Connection, feed: Feed
) -> None:
    await database.execute(
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.1); RETURN NEW; END $$;"
        "CREATE TRIGGER slow BEFORE INSERT ON membership FOR EACH ROW EXECUTE FUNCTION slow()"
    )
    users = [f"user-{number}" for number in range(16)]
    await feed.members(*(member(user) for user in users))
    quick = settings.database.model_copy(update={"statement_timeout_s": 1})
    async with running(settings.model_copy(update={"database": quick})):
        await until(lambda: roles(database), dict.fromkeys(users, "user"))


async def _waits(worker: Worker) -> bool:
    return (await said(worker, "reference")).startswith("reference data wait: ")


async def _later(worker: Worker, beat: float) -> bool:
    return _oldest(worker) > beat


def _oldest(worker: Worker) -> float:
    """The oldest of the loops' last heartbeats."""
    return min(each.at_s for each in worker.heartbeats)


async def test_a_killed_session_has_no_effect(settings: Settings, database: asyncpg.Connection, feed: Feed) -> None:
    """The backend is killed just before a batch needs it: the batch is applied once, in the end."""
    kills = iter([True])
    outages = BATCH_REPEATS.labels("outage")._value.get()

    async def struck(_: ReferenceApplier) -> None:
        if next(kills, None) is not None:
            killer = await asyncpg.connect(settings.database.url.get_secret_value())
            await killer.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND application_name = 'orgs-worker'"
            )
            await killer.close()

    await give(feed, 0, 5)
    with probing("reference.before_transaction", struck):
        async with reading(settings):
            await until(lambda: roles(database), users(0, 5))
    assert BATCH_REPEATS.labels("outage")._value.get() == outages + 1
    assert await progress(database) == 5


async def test_a_batch_whose_partitions_all_moved_does_not_end_the_worker(
    settings: Settings, database: asyncpg.Connection, feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is nothing to acknowledge then, and aiokafka raises on an empty commit."""
    async with running(settings):
        await feed.members(member("ann"))
        await until(lambda: roles(database), {"ann": "user"})
        monkeypatch.setattr(AIOKafkaConsumer, "assignment", lambda _: set())
        await feed.members(member("bob"))
        await until(lambda: roles(database), {"ann": "user", "bob": "user"})


async def test_a_worker_that_never_found_its_position_stops_when_asked(settings: Settings) -> None:
    nowhere = settings.database.model_copy(update={"url": SecretStr("postgresql://127.0.0.1:1/orgs")})
    async with asyncio.timeout(20), reading(settings.model_copy(update={"database": nowhere})) as applier:
        await until(lambda: "cannot be reached" in (applier.outage or ""))
        assert applier.lost


async def test_the_batch_in_flight_is_finished_before_the_end(
    settings: Settings, database: asyncpg.Connection, feed: Feed
) -> None:
    await give(feed, 0, 5)
    async with reading(settings), database.transaction():
        await database.execute("LOCK TABLE membership IN EXCLUSIVE MODE")
        await until(lambda: database.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"), 1)
    assert await roles(database) == users(0, 5)
    assert await progress(database) == 5


async def test_a_hanging_loop_is_reported_whichever_it_is(settings: Settings) -> None:
    async with running(settings) as worker:
        await until(lambda: has_joined(worker))
        assert len(worker.heartbeats) == 2
        for heartbeat in worker.heartbeats:
            heartbeat.at_s = 1.0
            assert _oldest(worker) == 1.0
            await until(lambda: _later(worker, 1.0), True)
