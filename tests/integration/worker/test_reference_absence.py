"""A reader that was away for longer than tombstones are kept finds out what the topics no longer hold."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest
from aiokafka.errors import KafkaError

from org_events.cloudevents import command_headers
from org_events.commands import UpdateOrganization
from org_events.reference import Partnership, Role, Staff
from org_local.issuer import Issuer
from org_service.apply import reconcile
from org_service.apply.reconcile import Group
from org_service.probes import listeners
from org_service.settings import AuthSettings, Settings
from org_service.store.database import Database
from org_service.store.reference_progress import ReferencePartition
from org_service.telemetry.metrics import PARKED, REFERENCE_RECORDS
from tests.integration.worker.running import running
from tests.support import log_faults
from tests.support.probing import probing
from tests.support.reference_feed import ACME, JOINED, Feed, at_home, member, reading, roles
from tests.support.waiting import until

pytestmark = pytest.mark.integration

LONG, SHORT = timedelta(days=400), timedelta(hours=1)
"""Tombstones are kept for days, so the one is too long and the other isn't."""


@pytest.fixture
def feed(settings: Settings) -> Feed:
    return Feed(settings)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A confirmation at nearly every poll."""
    monkeypatch.setattr(reconcile, "CONFIRM_S", 0.05)


async def restore(database: asyncpg.Connection, age: timedelta | None) -> None:
    """As an old backup has it: a fact of each kind whose tombstone was compacted away since."""
    await database.execute("INSERT INTO membership VALUES ('revoked', $1, 'admin', $2, true)", ACME, JOINED)
    await database.execute("INSERT INTO partnership VALUES ($1, $1, 'admin')", ACME)
    await database.execute("INSERT INTO staff VALUES ('revoked')")
    await database.execute("UPDATE reference_progress SET confirmed_at = now() - $1::interval", age)


async def revoked(database: asyncpg.Connection) -> int | None:
    return await database.fetchval(
        "SELECT (SELECT count(*) FROM membership WHERE user_id = 'revoked') + (SELECT count(*) FROM partnership "
        "WHERE partner_org_id = org_id) + (SELECT count(*) FROM staff WHERE user_id = 'revoked')"
    )


async def oldest(database: asyncpg.Connection) -> timedelta | None:
    """How long ago the partitions were confirmed; None where one never was, or none is there."""
    return await database.fetchval(
        "SELECT CASE WHEN count(*) = 9 AND count(confirmed_at) = 9 THEN now() - min(confirmed_at) END "
        "FROM reference_progress"
    )


async def is_confirmed(database: asyncpg.Connection) -> bool:
    age = await oldest(database)
    return age is not None and age < timedelta(minutes=5)


@pytest.mark.parametrize("age", [LONG, None, -LONG])
async def test_facts_no_longer_in_the_topics_are_deleted_after_a_long_absence(
    settings: Settings, database: asyncpg.Connection, feed: Feed, age: timedelta | None
) -> None:
    """And nothing else: not what they hold, nor what they hold in a form that can't be read, nor what comes next."""
    topics, partner = feed.topics, Partnership(partner_org_id=uuid4(), org_id=ACME)
    stays = {f"user-{n}": "user" for n in range(50)} | {"odd": "user"}
    await feed.members(*map(member, stays), member("gone"))
    await feed.raw(topics.memberships, [(member("odd").key(), b"{"), (member("gone").key(), None)])
    await feed.raw(topics.partnerships, [(partner.key(), partner.to_body())])
    await feed.raw(topics.staff, [(b"sue", Staff(user_id="sue").to_body())])
    deleted = {topic: REFERENCE_RECORDS.labels(topic, "lacking")._value.get() for topic in topics_of(feed)}
    async with reading(settings):
        await until(lambda: roles(database), stays)
        await until(lambda: database.fetchval("SELECT count(*) FROM partnership, staff"), 1)
    await restore(database, age)
    await database.execute("INSERT INTO membership VALUES ('gone', $1, 'admin', $2, true)", ACME, JOINED)
    await feed.members(member("next"))
    # A transaction that nobody ends is no reason to wait: what it holds counts when it is committed.
    open_one = await asyncio.to_thread(
        log_faults.begin_transaction, settings.kafka.bootstrap_servers, topics.staff, topics.staff, 0
    )
    async with reading(settings):
        await until(lambda: revoked(database), 0)
        await until(lambda: roles(database), stays | {"next": "user"})
    await asyncio.to_thread(open_one.abort_transaction)
    assert await database.fetchval("SELECT count(*) FROM partnership, staff") == 1
    assert await is_confirmed(database)
    more = {
        topic: REFERENCE_RECORDS.labels(topic, "lacking")._value.get() - before for topic, before in deleted.items()
    }
    assert more == {topics.memberships: 2, topics.partnerships: 1, topics.staff: 1}


def topics_of(feed: Feed) -> list[str]:
    return [feed.topics.memberships, feed.topics.partnerships, feed.topics.staff]


async def test_a_short_absence_deletes_nothing(settings: Settings, database: asyncpg.Connection, feed: Feed) -> None:
    """A tombstone would still be there: what the topics don't hold was never taken back."""
    async with reading(settings):
        await until(lambda: is_confirmed(database), True)
    await restore(database, SHORT)
    await feed.members(member("ann"))
    async with reading(settings):
        await until(lambda: roles(database), {"ann": "user", "revoked": "admin"})
    assert await revoked(database) == 3


async def test_a_recreated_topic_deletes_nothing_however_long_the_absence(
    settings: Settings, database: asyncpg.Connection, feed: Feed
) -> None:
    """It may be empty because nobody has filled it yet."""
    async with reading(settings):
        await until(lambda: is_confirmed(database), True)
    await restore(database, LONG)
    servers, partitions = settings.kafka.bootstrap_servers, settings.kafka.partitions
    for topic in topics_of(feed):
        await asyncio.to_thread(log_faults.recreate_topic, servers, topic, partitions, {"cleanup.policy": "compact"})
    await feed.members(member("ann"))
    async with reading(settings):
        await until(lambda: roles(database), {"ann": "user", "revoked": "admin"})
    await feed.members(member("bob"))
    async with reading(settings):  # nor later
        await until(lambda: roles(database), {"ann": "user", "bob": "user", "revoked": "admin"})
    assert await revoked(database) == 3


@pytest.mark.usefixtures("quick")
async def test_a_topic_without_records_is_confirmed_again_and_again(
    settings: Settings, database: asyncpg.Connection, feed: Feed
) -> None:
    """Else it would look as if nobody read it. And a database restored under the reader is noticed without a record."""
    async with reading(settings):
        await until(lambda: is_confirmed(database), True)
        before = await database.fetchval("SELECT min(confirmed_at) FROM reference_progress")
        await until(lambda: database.fetchval("SELECT min(confirmed_at) > $1 FROM reference_progress", before), True)
        await restore(database, LONG)
        await until(lambda: revoked(database), 0)
        await until(lambda: is_confirmed(database), True)
        await restore(database, None)  # as an operator may ask for it
        await until(lambda: revoked(database), 0)


async def test_a_worker_that_is_behind_another_deletes_nothing(
    settings: Settings, database: asyncpg.Connection, feed: Feed
) -> None:
    """Records that were read since may have said again what was not there before."""
    topic = feed.topics.memberships
    await feed.members(member(at_home("ann")))
    async with reading(settings):
        await until(lambda: roles(database), {at_home("ann"): "user"})
    topic_id = await database.fetchval("SELECT topic_id FROM reference_progress WHERE topic = $1 LIMIT 1", topic)
    assert topic_id is not None
    groups = [
        Group(topic, topic_id, {ReferencePartition(topic, 0): 1}),
        Group(topic, uuid4(), {ReferencePartition(topic, 1): 0}),
    ]
    await database.execute("UPDATE reference_progress SET next_offset = 2 WHERE next_offset = 1")
    await restore(database, None)
    async with database_of(settings) as made:
        for group in groups:  # the other one is of a topic that is gone
            await reconcile.reconcile(settings, made, [group], lambda: None)
    assert await revoked(database) == 3
    assert await oldest(database) is None


@asynccontextmanager
async def database_of(settings: Settings) -> AsyncIterator[Database]:
    made = Database(settings.database, "worker")
    yield made
    await made.close()


async def test_an_interrupted_read_is_retried_and_reported(
    settings: Settings, database: asyncpg.Connection, feed: Feed
) -> None:
    outages = iter([KafkaError("away")])

    async def strike() -> None:
        for error in outages:
            raise error

    async with reading(settings):
        await until(lambda: is_confirmed(database), True)
    await restore(database, LONG)
    with probing("reference.keys_read", strike):
        async with reading(settings) as applier:
            await until(lambda: revoked(database), 0)
            await until(lambda: is_confirmed(database), True)
            assert applier.outage is None
    assert next(outages, None) is None


async def test_a_fact_on_the_wrong_partition_is_parked_whoever_reads_first(
    settings: Settings, database: asyncpg.Connection, feed: Feed
) -> None:
    """Another partitioner: the order of such records and those on the right partition is not defined."""
    topic, ann, bob = feed.topics.memberships, at_home("ann"), at_home("bob")
    parked = PARKED.labels("wrong_partition")._value.get()
    stray = member(ann, Role.ADMIN)
    await feed.raw(topic, [(stray.key(), stray.to_body()), (member(bob).key(), None)], partition=2)
    await feed.members(member(ann), member(bob))
    await feed.raw(topic, [(stray.key(), stray.to_body()), (member(bob).key(), None)], partition=1)
    async with reading(settings):
        await until(lambda: database.fetchval("SELECT count(*) FROM parked"), 4)
        await until(lambda: roles(database), {ann: "user", bob: "user"})
    rows = await database.fetch("SELECT DISTINCT reason, detail FROM parked")
    assert [row["reason"] for row in rows] == ["wrong_partition"]
    assert rows[0]["detail"].startswith("the key belongs on partition 0 by murmur2")
    assert PARKED.labels("wrong_partition")._value.get() - parked == 4
    await database.execute("UPDATE reference_progress SET confirmed_at = NULL")
    await database.execute("INSERT INTO membership VALUES ($1, $2, 'admin', $3, true)", at_home("eve"), ACME, JOINED)
    await feed.raw(topic, [(member(at_home("eve")).key(), member(at_home("eve")).to_body())], partition=1)
    async with reading(settings):  # nor does it count as held
        await until(lambda: roles(database), {ann: "user", bob: "user"})


async def test_nothing_is_applied_if_the_right_partition_is_unknown(
    settings: Settings, database: asyncpg.Connection, feed: Feed
) -> None:
    """A wrong setting would park good facts, and delete what was applied by the right one."""
    wrong = settings.model_copy(update={"kafka": settings.kafka.model_copy(update={"partitions": 4})})
    await feed.members(member("ann"))

    async with reading(wrong) as applier:
        await until(lambda: f"{feed.topics.memberships} has 3 partitions, not 4" in (applier.outage or ""))
    assert await roles(database) == {}
    assert await database.fetchval("SELECT count(*) FROM parked") == 0


async def test_a_revoked_admin_can_do_nothing_after_a_restore(
    settings: Settings, database: asyncpg.Connection, feed: Feed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guarantee 8: the command is there before the worker is, and waits until the absence is made good."""
    issuer = Issuer.open(tmp_path)
    auth = AuthSettings(commands="tokens", issuer=issuer.name, jwks_file=str(issuer.jwks_file))
    guarded = settings.model_copy(update={"auth": auth})
    async with reading(settings):
        await until(lambda: is_confirmed(database), True)
    await restore(database, LONG)
    await database.execute("DELETE FROM partnership")
    await database.execute("DELETE FROM staff")
    await database.execute(
        "INSERT INTO organization VALUES ($1, 'Acme', 'acme', NULL, NULL, now(), now(), NULL, NULL, 1)", ACME
    )
    headers = command_headers(
        command_id=uuid4(),
        command_type="org.update",
        source="/tests",
        authorization=f"Bearer {issuer.token('revoked')}",
    )
    body = UpdateOrganization(org_id=ACME, name="Mine").to_body()
    await feed.raw(feed.topics.commands, [(str(ACME).encode(), body)], headers=headers)
    looks: list[None] = []

    async def looking() -> None:
        looks.append(None)

    async def looked_again() -> bool:
        return len(looks) > 2

    monkeypatch.setitem(listeners, "worker.before_look_at_progress", looking)
    holding = database.transaction()
    await holding.start()
    await database.execute("LOCK TABLE membership IN EXCLUSIVE MODE")
    async with running(guarded) as worker:
        await until(looked_again, True)
        with pytest.raises(Exception, match="commands wait until the reference data are loaded"):
            await worker.checks()["consumer"]()
        await holding.commit()
        await until(lambda: database.fetchval("SELECT code FROM journal"), 404)
