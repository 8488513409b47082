"""What the applier parks on a real Postgres, and what waits behind it."""

import asyncio
import dataclasses
import re
from uuid import UUID, uuid4

import asyncpg
import pytest
from structlog.testing import capture_logs
from typer.testing import CliRunner

from org_events.commands import CreateOrganization, UpdateOrganization
from org_service.apply.applier import Applier
from org_service.cli.app import app
from org_service.domain.requests import Request
from org_service.settings import Settings
from tests.integration.apply.applying import created, journal
from tests.support.probing import probing
from tests.support.processes import environment
from tests.support.records import FakeRecord, record_of
from tests.support.topics import read_results

pytestmark = pytest.mark.integration


async def test_data_the_database_refuses_is_parked_alone_and_the_rest_is_applied(
    applier: Applier, settings: Settings, database: asyncpg.Connection
) -> None:
    await database.execute("ALTER TABLE organization ADD CHECK (name <> 'Refused')")
    made = [created(f"Org {n}") for n in range(40)]
    culprit = record_of(CreateOrganization(org_id=uuid4(), name="Refused"))
    behind = record_of(UpdateOrganization(org_id=UUID(culprit.key.decode()), domain="a.example"))  # type: ignore[union-attr] - has a key
    await applier.apply([*(r for _, r in made[:25]), culprit, behind, *(r for _, r in made[25:])])
    assert await database.fetchval("SELECT count(*) FROM journal WHERE code = 200") == 40
    parked = await database.fetch('SELECT "offset", reason, detail, state FROM parked ORDER BY id')
    assert [tuple(row) for row in parked] == [
        (culprit.offset, "data_refused", "SQLSTATE 23514 (CheckViolationError)", "open"),
        (behind.offset, "queued_behind", "An earlier command of this organization is parked.", "open"),
    ]
    results = await read_results(settings)
    assert [(r["outcome"], r["code"], r["final"]) for r in results] == [("parked", 500, False)] * 2


async def test_a_parked_command_holds_back_its_organization_across_batches(
    applier: Applier, database: asyncpg.Connection
) -> None:
    (a, create_a), (b, create_b) = created("Acme"), created("Globex")
    await applier.apply([create_a, create_b])
    with probing("apply.before_decide", lambda _: 1 / 0):
        await applier.apply([record_of(UpdateOrganization(org_id=a, name="Boom"))])
    await applier.apply(
        [record_of(UpdateOrganization(org_id=a, name="Later")), record_of(UpdateOrganization(org_id=b, name="Free"))]
    )
    assert dict(await database.fetch("SELECT id, name FROM organization")) == {a: "Acme", b: "Free"}
    assert [r["reason"] for r in await database.fetch("SELECT reason FROM parked ORDER BY id")] == [
        "handler_raised",
        "queued_behind",
    ]


async def test_a_parked_command_that_comes_again_is_parked_once_and_its_id_is_good_for_no_other(
    applier: Applier, database: asyncpg.Connection, settings: Settings
) -> None:
    command_id = uuid4()
    org_id, create = created("Acme")
    await applier.apply([create])
    boom = UpdateOrganization(org_id=org_id, name="Boom")
    with probing("apply.before_decide", lambda _: 1 / 0):
        await applier.apply([record_of(boom, command_id)])
    await applier.apply([record_of(boom, command_id)])
    await applier.apply([record_of(UpdateOrganization(org_id=org_id, name="Other"), command_id)])
    assert [row["reason"] for row in await database.fetch("SELECT reason FROM parked")] == ["handler_raised"]
    assert len(await journal(database)) == 1
    results = await read_results(settings)
    assert [(r["outcome"], r["code"], r["final"]) for r in results] == [
        ("parked", 500, False),
        ("parked", 500, False),
        ("rejected", 422, True),
    ]


async def test_unreadable_bytes_are_parked_once_with_everything_they_came_with(
    applier: Applier, database: asyncpg.Connection
) -> None:
    record = FakeRecord(b"\xff", b"\x00\xfe", [("h", b"\xff"), ("n", None)])
    await applier.apply([record])
    await applier.apply([record])
    rows = await database.fetch("SELECT key, value, headers, reason, org_id FROM parked")
    assert [tuple(row) for row in rows] == [(b"\xff", b"\x00\xfe", '[["h","/w=="],["n",null]]', "unreadable", None)]


async def test_a_huge_record_is_parked_in_part_and_delays_nothing(
    applier: Applier, database: asyncpg.Connection
) -> None:
    """Base64 of a long header alone would pass the gigabyte that Postgres takes in a row."""
    huge = b"h" * 8_000_000
    await applier.apply([FakeRecord(huge, b"", [("junk", huge), ("ce_id", b"?")]), created("Acme")[1]])
    row = await database.fetchrow("SELECT length(key) AS key, headers, detail FROM parked")
    assert row is not None
    assert (row["key"], row["headers"]) == (1_024, '[["ce_id","Pw=="]]')
    assert "its key has 8000000 bytes, SHA-256 " in row["detail"]
    assert row["detail"].endswith("; 1 of its 2 headers, 8000000 bytes, were too large to store")
    assert [row["code"] for row in await journal(database)] == [200]


async def test_truncated_values_are_identified_by_length_and_digest(
    applier: Applier, database: asyncpg.Connection
) -> None:
    """An operator who may not see what is parked can still tell which are the same."""
    await applier.apply([FakeRecord(b"k", value, []) for value in (bytes(200_000), b"x", None)])
    rows = await database.fetch(
        "SELECT length(value) AS kept, value_bytes, value_sha256, detail FROM parked ORDER BY id"
    )
    zeros = "4cbbd9be0cba685835755f827758705db5a413c5494c34262cd25946a73e7582"
    assert [tuple(row)[:3] for row in rows] == [(65_536, 200_000, zeros), (1, None, None), (None, None, None)]
    assert "SHA-256" not in rows[0]["detail"]


async def test_a_record_at_the_offset_of_a_parked_one_is_parked_too(
    applier: Applier, database: asyncpg.Connection
) -> None:
    """A recreated or truncated topic assigns offsets again."""
    first = FakeRecord(b"\xff", b"first", [])
    later = dataclasses.replace(first, value=b"later", timestamp=first.timestamp + 1)
    for record in (first, later, later):
        await applier.apply([record])
    rows = await database.fetch("SELECT value FROM parked ORDER BY id")
    assert [tuple(row) for row in rows] == [(b"first",), (b"later",)]


async def test_a_record_whose_reading_makes_our_code_raise_is_parked_and_the_rest_is_applied(
    applier: Applier, database: asyncpg.Connection
) -> None:
    (_, first), (_, culprit), (_, last) = (created(name) for name in ("Acme", "Boom", "Globex"))

    def raising(record: FakeRecord) -> None:
        if record is culprit:
            raise ZeroDivisionError("a text that may quote the payload")

    with probing("apply.before_read", raising):
        await applier.apply([first, culprit, last])
    assert [row["command_offset"] for row in await journal(database)] == [first.offset, last.offset]
    rows = await database.fetch('SELECT "offset", reason, detail, value FROM parked')
    assert [(row["offset"], row["reason"], row["value"]) for row in rows] == [
        (culprit.offset, "handler_raised", culprit.value)
    ]
    assert rows[0]["detail"].startswith("ZeroDivisionError in raising, line ")
    assert (await applier.check_parked()).startswith("1 because of a defect of ours: run `orgs parked`")


async def test_a_defect_that_meets_every_command_leaves_one_traceback_and_is_counted(
    applier: Applier, settings: Settings
) -> None:
    def raising(_: Request) -> None:
        raise ZeroDivisionError

    assert await applier.check_parked() == "none because of a defect of ours"
    with probing("apply.before_decide", raising), capture_logs() as logs:
        await applier.apply([created(f"Org {number}")[1] for number in range(1_001)])
    logged = [each for each in logs if each["event"] == "command parked: our code raised"]
    assert [(each.get("times"), "exc_info" in each) for each in logged] == [
        (None, True),
        (10, False),
        (100, False),
        (1_000, False),
    ]
    assert len({each["defect"] for each in logged}) == 1
    assert (await applier.check_parked()).startswith("1001 because of a defect of ours")
    ran = await asyncio.to_thread(CliRunner(env=environment(settings)).invoke, app, ["parked", "list"])
    lines = ran.stdout.splitlines()
    assert ran.exit_code == 0
    assert len([line for line in lines if "  handler raised  orgs.commands[0] offset " in line]) == 100
    assert lines[100] == "1,001 parked, 100 of them shown; --max shows more"
    assert re.fullmatch(r" +1,001  handler raised  ZeroDivisionError in raising, line \d+", lines[101])
    assert len(lines) == 102
