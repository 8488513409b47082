"""Reference data from real topics into real tables: memberships, partnerships, staff."""

from uuid import uuid4

import asyncpg
import pytest

from org_events.commands import CreateOrganization
from org_events.reference import Partnership, Role, Staff
from org_service.domain.requests import Record
from org_service.settings import Settings
from org_service.telemetry.metrics import PARKED, REFERENCE_RECORDS
from tests.integration.worker.running import running
from tests.support import raw_batches
from tests.support.probing import probing
from tests.support.raw_batches import Raw
from tests.support.reference_feed import ACME, JOINED, Feed, at_home, member, reading, roles
from tests.support.waiting import until

pytestmark = pytest.mark.integration

WAITING = "SELECT count(*) FROM pg_locks WHERE NOT granted"


@pytest.fixture
def feed(settings: Settings) -> Feed:
    return Feed(settings)


async def test_facts_arrive_change_and_are_removed(
    settings: Settings, database: asyncpg.Connection, feed: Feed
) -> None:
    partner = uuid4()
    served = Partnership(partner_org_id=partner, org_id=ACME)
    await feed.members(member("ann", Role.ADMIN), member("bob"))
    await feed.raw(feed.topics.partnerships, [(served.key(), served.to_body())])
    await feed.raw(
        feed.topics.staff, [(b"sue", Staff(user_id="sue").to_body()), (b"sam", Staff(user_id="sam").to_body())]
    )
    async with reading(settings):
        await until(lambda: database.fetchval("SELECT count(*) FROM staff"), 2)
        await until(lambda: database.fetchval("SELECT count(*) FROM partnership"), 1)
        await until(lambda: roles(database), {"ann": "admin", "bob": "user"})
        row = await database.fetchrow("SELECT * FROM membership WHERE user_id = 'ann'")
        assert row is not None
        assert tuple(row) == ("ann", ACME, "admin", JOINED, True)
        assert [tuple(row) for row in await database.fetch("SELECT * FROM partnership")] == [
            (partner, ACME, "cloud_rep")
        ]
        await feed.members(member("bob", Role.SUPPORT, active=False))
        await feed.raw(feed.topics.memberships, [(member("ann").key(), None)])
        await feed.raw(feed.topics.partnerships, [(served.key(), None)])
        await feed.raw(feed.topics.staff, [(b"sue", None)])
        await until(lambda: roles(database), {"bob": "support"})
        await until(lambda: database.fetchval("SELECT count(*) FROM partnership"), 0)
        await until(lambda: database.fetchval("SELECT array_agg(user_id) FROM staff"), ["sam"])
    assert await database.fetchval("SELECT active FROM membership") is False


async def test_of_several_records_of_a_key_the_last_one_counts(
    settings: Settings, database: asyncpg.Connection, feed: Feed
) -> None:
    """In one batch (all are there before the reader starts), and from batch to batch."""
    await feed.members(member("ann"), member("bob"), member("ann", Role.SUPPORT), member("eve"))
    gone = [(member("bob").key(), None), (member("eve").key(), None)]
    await feed.raw(feed.topics.memberships, gone)
    await feed.members(member("eve", Role.ADMIN))
    async with reading(settings):
        await until(lambda: roles(database), {"ann": "support", "eve": "admin"})
        await feed.raw(feed.topics.memberships, gone)
        await feed.members(member("bob", Role.CLOUD_REP))
        await until(lambda: roles(database), {"ann": "support", "bob": "cloud_rep"})


async def test_what_cannot_be_read_is_parked_as_it_came_and_the_rest_is_applied(
    settings: Settings, database: asyncpg.Connection, feed: Feed
) -> None:
    topic = feed.topics.memberships
    good = [member(at_home(f"user-{n}", 1)) for n in range(6)]
    bad = [(b"k", b"\xff\x00"), (b"k", None), (member("ann").key(), member("bob").to_body()), (b"sue\xff", b"{}")]
    parked_before = PARKED.labels("unreadable")._value.get()
    await feed.raw(topic, [(each.key(), each.to_body()) for each in good[:3]], partition=1)
    await feed.raw(topic, bad, partition=1, headers=[("odd", b"\xff\xfe"), ("none", None)])
    await feed.raw(topic, [(each.key(), each.to_body()) for each in good[3:]], partition=1)
    async with reading(settings):
        await until(lambda: database.fetchval("SELECT count(*) FROM membership"), 6)
    rows = await database.fetch(
        'SELECT topic, partition, "offset", key, value, headers, org_id, command_id, reason FROM parked ORDER BY 3'
    )
    headers = '[["odd","//4="],["none",null]]'
    assert [tuple(row) for row in rows] == [
        (topic, 1, 3, b"k", b"\xff\x00", headers, None, None, "unreadable"),
        (topic, 1, 4, b"k", None, headers, None, None, "unreadable"),
        (topic, 1, 5, b"ann:" + str(ACME).encode(), member("bob").to_body(), headers, None, None, "unreadable"),
        (topic, 1, 6, b"sue\xff", b"{}", headers, None, None, "unreadable"),
    ]
    assert PARKED.labels("unreadable")._value.get() - parked_before == 4
    assert REFERENCE_RECORDS.labels(topic, "applied")._value.get() == 6
    assert REFERENCE_RECORDS.labels(topic, "parked")._value.get() == 4


@pytest.mark.parametrize("header", [("x-note", b"\xff\xfe"), ("x-note", None), ("content-type", b"\xff")])
async def test_a_header_that_is_not_utf8_is_accepted(
    settings: Settings, database: asyncpg.Connection, feed: Feed, header: tuple[str, bytes | None]
) -> None:
    await feed.raw(feed.topics.staff, [(b"sue", b'{"user_id": "sue"}')], headers=[header])
    async with reading(settings):
        await until(lambda: database.fetchval("SELECT count(*) FROM staff"), 1)
    assert await database.fetchval("SELECT count(*) FROM parked") == 0


async def test_a_header_whose_name_is_not_utf8_does_not_stop_its_partition(
    settings: Settings, database: asyncpg.Connection, feed: Feed
) -> None:
    """aiokafka raises while it parses the record, at every poll, and never gets past it."""
    users = (b"ann", b"eve", b"sue")
    records = [Raw(b'{"user_id": "%b"}' % user, user, [(b"\xff\xfe", b"v")]) for user in users]
    servers, batch = settings.kafka.bootstrap_servers, raw_batches.batch(raw_batches.NONE, records)
    assert await raw_batches.produce(servers, feed.topics.staff, 2, batch) == 0  # where these three belong
    async with reading(settings):
        await until(lambda: database.fetchval("SELECT count(*) FROM staff"), 3)


async def test_data_the_database_refuses_are_parked_alone_and_the_rest_is_applied(
    settings: Settings, database: asyncpg.Connection, feed: Feed
) -> None:
    """One by a constraint, one that the driver can't even encode: in UTC it is before the year 1."""
    await database.execute("ALTER TABLE membership ADD CHECK (user_id <> 'refused')")
    early = b'{"user_id":"early","org_id":"%b","role":"user","joined_at":"0001-01-01T00:00:00+14:00"}'
    odd = [(member("refused").key(), member("refused").to_body()), (member("early").key(), early % str(ACME).encode())]
    await feed.members(*(member(f"a-{n}") for n in range(20)))
    await feed.raw(feed.topics.memberships, odd)
    await feed.members(*(member(f"b-{n}") for n in range(20)))
    async with reading(settings):
        await until(lambda: database.fetchval("SELECT count(*) FROM membership"), 40)
        await until(lambda: database.fetchval("SELECT count(*) FROM parked"), 2)
    rows = await database.fetch("SELECT key, reason, detail FROM parked ORDER BY key")
    assert [(row["key"], row["reason"]) for row in rows] == [
        (member("early").key(), "data_refused"),
        (member("refused").key(), "data_refused"),
    ]
    assert "SQLSTATE 23514" in rows[1]["detail"]


async def test_a_defect_of_ours_parks_one_record(settings: Settings, database: asyncpg.Connection, feed: Feed) -> None:
    def raising(record: Record) -> None:
        if record.key == b"sue":
            raise RuntimeError

    await feed.raw(feed.topics.staff, [(user, b'{"user_id": "%b"}' % user) for user in (b"ann", b"sue", b"bob")])
    staff = "SELECT array_agg(user_id ORDER BY user_id) FROM staff"
    with probing("apply.before_read", raising):
        async with reading(settings):
            await until(lambda: database.fetchval(staff), ["ann", "bob"])
            await until(lambda: database.fetchval("SELECT reason FROM parked"), "handler_raised")


async def test_reference_data_do_not_wait_for_a_worker_that_is_busy_with_commands(
    settings: Settings, database: asyncpg.Connection, feed: Feed
) -> None:
    """They have a consumer group and transactions of their own, in the same process."""
    await feed.raw(
        feed.topics.commands,
        [(str(ACME).encode(), CreateOrganization(org_id=ACME, name="Acme").to_body())],
        headers=[("ce_id", str(uuid4()).encode()), ("ce_type", b"org.create"), ("ce_actor", b"ann")],
    )
    holding = database.transaction()
    await holding.start()
    await database.execute("UPDATE journal_head SET position = position")
    async with running(settings) as worker:
        await until(lambda: database.fetchval(WAITING), 1)  # for the head, with the command's batch
        await feed.members(member("ann"))
        await until(lambda: roles(database), {"ann": "user"})
        assert await worker.checks()["reference"]() == "9 partitions"
        await holding.commit()
    assert await database.fetchval("SELECT count(*) FROM journal") == 1
