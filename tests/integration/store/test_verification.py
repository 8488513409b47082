"""Postgres digests what the relay sends, byte for byte."""

import uuid
from datetime import UTC, datetime

import pytest
from sqlalchemy import text

from org_service.domain.outcomes import JournaledOutcome
from org_service.operate.verifying.rows import body_of
from org_service.settings import Settings
from org_service.store import verification
from org_service.store.database import Database
from tests.support.relaying import applied, journal, org, organization

pytestmark = pytest.mark.integration

HOSTILE = 'Zo\u00eb "the\\boss"\u2028\t\x01\x7f </script> \U0001f600'
ROWS = (
    applied(org(1), 1, before=None, event_type="org.created", actor="alice"),
    applied(org(1), 2, actor=HOSTILE, recorded_at=datetime(2026, 3, 1, 12, 0, 0, 120000, UTC)),
    applied(org(1), 3, actor="", after=None, event_type="org.deleted", recorded_at=datetime(2026, 3, 1, tzinfo=UTC)),
    applied(org(2), 1, before=None, after=organization(org(2), 1, '\\"position\\":7,').replace("Oslo", "\u00d8")),
    {"org_id": org(2), "version": 1, "command_type": "org.update", "outcome": "unchanged", "code": 200,
     "after": organization(org(2), 1)},
    {"org_id": None, "version": None, "command_type": "org.update", "outcome": "rejected", "code": 400,
     "problem": '{"type":"unreadable","detail":"%s %(x)s :name"}'},
)  # fmt: skip


async def test_bodies_in_sql_are_those_of_the_relay(settings: Settings) -> None:
    head = await journal(settings, ROWS)
    database = Database(settings.database, "reader", direct=True)
    names = f"SELECT {verification.EVENT} AS event, {verification.RESULT} AS result, position FROM journal"
    async with database.connect() as conn:
        there = await verification.read_rows_at(conn, range(head + 1))
        made = {row.position: row for row in await conn.execute(text(names))}
    assert len(there) == len(ROWS)
    for position, row in there.items():
        event = body_of(row, "events")
        assert made[position].result.encode() == body_of(row, "results")
        if event is not None:
            assert made[position].event.encode() == (row.event_type or "").encode() + event


async def test_buckets_are_the_last_ten_bits_of_the_key(settings: Settings) -> None:
    ids = [uuid.UUID(int=bits) for bits in (0, 1023, 1024, (1 << 128) - 1, 0x155)]
    await journal(settings, [applied(each, 1, before=None) for each in ids])
    database = Database(settings.database, "reader", direct=True)
    async with database.connect() as conn:
        window = await verification.read_window(conn, 0, 100, events_from=2, results_from=4)
        rows: list[JournaledOutcome] = await verification.read_rows(conn, 0, 100, [1023])
    assert window.rows == 5
    assert {bucket: each.things for bucket, each in window.chain.items()} == {0: 2, 1023: 2, 0x155: 1}
    assert sum(each.things for each in window.events.values()) == 3
    assert sum(each.things for each in window.results.values()) == 1
    assert {row.org_id for row in rows} == {ids[1], ids[3]}
