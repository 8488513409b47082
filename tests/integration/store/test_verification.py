"""Postgres digests what the relay sends, byte for byte."""

import json
import uuid
from datetime import UTC, datetime
from typing import Final

import pytest
from sqlalchemy import text

from org_service.domain.digests import NOTHING, fold
from org_service.domain.organization import StoredOrganization, to_json
from org_service.operate.verifying.rows import body_of, digest_of
from org_service.settings import Settings
from org_service.store import organizations, verification
from org_service.store.database import Database
from tests.support.database import execute
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


async def test_a_part_of_the_journal_is_digested_as_its_rows_say(settings: Settings) -> None:
    head = await journal(settings, ROWS)
    database = Database(settings.database, "reader", direct=True)
    async with database.connect() as conn:
        rows = await verification.read_rows(conn, 0, head)
        window = await verification.read_window(conn, 0, head, events_from=0, results_from=0)
        later = await verification.read_window(conn, 1, head, events_from=2, results_from=4)
        nothing = await verification.read_window(conn, head, head + 1, events_from=0, results_from=0)
    events = {row.position: digest for row in rows if (digest := digest_of(row, "events")) is not None}
    results = {row.position: digest_of(row, "results") or b"" for row in rows}
    assert (window.rows, later.rows) == (len(ROWS), len(ROWS) - 1)
    assert window.events == fold([*events.values()])
    assert window.results == fold([*results.values()])
    assert later.events == fold([digest for position, digest in events.items() if position > 2])
    assert later.results == fold([digest for position, digest in results.items() if position > 4])
    assert nothing == verification.WindowDigest(0, NOTHING, NOTHING, NOTHING)


NOON: Final = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
LATER: Final = datetime(2026, 3, 2, 1, 2, 3, 450000, UTC)
ADDRESS: Final = {"line1": HOSTILE, "line2": None, "city": "Oslo", "region": None, "postal_code": "1", "country": "NO"}
PLAIN: Final = StoredOrganization(org(1), "Acme", "acme", None, ADDRESS, NOON, LATER, None, None, 1)
STORED: Final = (
    PLAIN,
    PLAIN._replace(id=org(2), name=HOSTILE, name_key="a", domain="b.example", primary_address=None, updated_at=NOON),
    PLAIN._replace(id=org(3), name="B", name_key="b", primary_address=dict(sorted(ADDRESS.items())), version=7),
    PLAIN._replace(id=org(4), name="C", name_key="c", deactivated_at=LATER, updated_at=LATER),
)
DAMAGE: Final = (
    "name = 'Acne'", "domain = 'planted.example'", "domain = ''", "primary_address = NULL", "version = version + 1",
    "primary_address = primary_address || '{\"line1\": \"1\"}'", "primary_address = '{}'",
    "created_at = created_at + interval '1 us'", "updated_at = updated_at - interval '1 us'",
    "deactivated_at = updated_at + interval '1 s'", "deleted_at = updated_at, name_key = NULL",
)  # fmt: skip
NOTHING_WITHOUT_ADDRESS: Final = (DAMAGE[3], DAMAGE[5])


async def find_differing(settings: Settings) -> list[uuid.UUID]:
    database = Database(settings.database, "reader", direct=True)
    async with database.snapshot() as conn:
        return (await verification.read_page(conn, None, 100)).differing


async def test_a_row_as_its_last_change_left_it_fits_however_that_is_written_and_no_other_does(
    settings: Settings,
) -> None:
    as_json = [to_json(each) for each in STORED]
    spaced = PLAIN._replace(id=org(5), name="D", name_key="d")
    as_json.append(json.dumps(json.loads(to_json(spaced)), sort_keys=True))
    every = [*STORED, spaced]
    rows = [
        applied(each.id, each.version, after=after, recorded_at=each.updated_at)
        for each, after in zip(every, as_json, strict=True)
    ]
    await journal(settings, rows)
    async with Database(settings.database, "owner", direct=True).begin() as conn:
        for each in every:
            assert await organizations.put_back(conn, each)
    assert await find_differing(settings) == []
    async with Database(settings.database, "reader", direct=True).connect() as conn:
        written = (
            f"SELECT o.id, {verification.AS_WRITTEN} AS same FROM organization AS o JOIN journal AS j ON org_id = id"
        )
        same = {row.id for row in await conn.execute(text(written)) if row.same}
    assert same == {each.id for each in STORED}, "the others are compared value by value"
    for damage in DAMAGE:
        for each in every:
            await execute(settings, f"UPDATE organization SET {damage} WHERE id = '{each.id}'")
            found = await find_differing(settings)
            async with Database(settings.database, "owner", direct=True).begin() as conn:
                await organizations.put_back(conn, each)
            nothing = each.primary_address is None and damage in NOTHING_WITHOUT_ADDRESS
            assert found == ([] if nothing else [each.id]), (damage, each.name)


async def test_buckets_are_the_last_ten_bits_of_the_key(settings: Settings) -> None:
    ids = [uuid.UUID(int=bits) for bits in (0, 1023, 1024, (1 << 128) - 1, 0x155)]
    await journal(settings, [applied(each, 1, before=None) for each in ids])
    database = Database(settings.database, "reader", direct=True)
    async with database.connect() as conn:
        chain = await verification.read_chain(conn, 0, 100)
        window = await verification.read_window(conn, 0, 100, events_from=0, results_from=0)
        states = await verification.read_states(conn, 100, [1023])
    assert {bucket: each.things for bucket, each in chain.items()} == {0: 2, 1023: 2, 0x155: 1}
    assert sum(chain.values(), NOTHING) == window.chain
    assert states.keys() == {ids[1], ids[3]}
