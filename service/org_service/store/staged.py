"""What is read of each topic, kept in a table of its own until the journal is made of it (`restoring`).

The tables belong to the run: it makes them, and drops them at its end.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple, cast
from uuid import UUID

import orjson
from sqlalchemy import ARRAY, BigInteger, DateTime, Text, Uuid, bindparam, text
from sqlalchemy.ext.asyncio import AsyncConnection

from org_service.domain.organization import StoredOrganization
from org_service.store.engine import Session


class EventRow(NamedTuple):
    """A change, as `orgs.events` has it."""

    position: int
    command_id: UUID
    org_id: UUID
    version: int
    event_type: str
    actor: str | None
    changed: str
    before: str | None
    after: str | None
    traceparent: str | None
    recorded_at: datetime


class ResultRow(NamedTuple):
    """A final outcome, as `orgs.results` has it."""

    position: int
    command_id: UUID
    org_id: UUID | None
    version: int | None
    outcome: str
    code: int
    organization: str | None
    problem: str | None
    traceparent: str | None
    recorded_at: datetime


class CommandRow(NamedTuple):
    """A command, as `orgs.commands` has it."""

    command_id: UUID
    org_id: UUID | None
    command_type: str
    actor: str | None
    request_digest: bytes
    partition: int
    offset: int
    time_ms: int
    traceparent: str | None


_ids = bindparam("ids", type_=ARRAY(Uuid))
_MAKE: Final = text("""
DO $$
BEGIN
    DROP TABLE IF EXISTS restoring_event, restoring_result, restoring_command, restoring_parked, restoring_lost,
        restoring_organization;
    CREATE TABLE restoring_event (
        position bigint NOT NULL, command_id uuid NOT NULL, org_id uuid NOT NULL, version bigint NOT NULL,
        event_type text NOT NULL, actor text, changed text NOT NULL, before text, after text, traceparent text,
        recorded_at timestamptz NOT NULL
    );
    CREATE INDEX ON restoring_event (position);
    CREATE INDEX ON restoring_event (command_id);
    CREATE TABLE restoring_result (
        position bigint NOT NULL, command_id uuid NOT NULL, org_id uuid, version bigint, outcome text NOT NULL,
        code smallint NOT NULL, organization text, problem text, traceparent text, recorded_at timestamptz NOT NULL
    );
    CREATE INDEX ON restoring_result (position);
    CREATE INDEX ON restoring_result (command_id);
    CREATE TABLE restoring_command (
        command_id uuid NOT NULL, org_id uuid, command_type text NOT NULL, actor text, request_digest bytea NOT NULL,
        partition integer NOT NULL, "offset" bigint NOT NULL, time_ms bigint NOT NULL, traceparent text
    );
    CREATE INDEX ON restoring_command (command_id);
    CREATE TABLE restoring_lost (
        LIKE restoring_command, PRIMARY KEY (command_id)
    );
    CREATE TABLE restoring_parked (command_id uuid PRIMARY KEY);
    CREATE TABLE restoring_organization (LIKE organization, PRIMARY KEY (id));
END $$
""")
_DROP: Final = text(
    "DROP TABLE restoring_event, restoring_result, restoring_command, restoring_parked, restoring_lost, "
    "restoring_organization"
)
_STAGE_PARKED: Final = text(
    "INSERT INTO restoring_parked SELECT DISTINCT unnest(:ids) ON CONFLICT DO NOTHING"
).bindparams(_ids)
ORGANIZATION: Final = ", ".join(StoredOrganization._fields)
_TIMES: Final = ("created_at", "deactivated_at", "deleted_at")


def newer(table: str) -> str:
    """Takes the place of an earlier version. Of an organization without content the former times are kept."""
    kept = (
        f"{name} = CASE WHEN excluded.name = '' THEN coalesce({table}.{name}, excluded.{name}) ELSE excluded.{name} END"
        if name in _TIMES
        else f"{name} = excluded.{name}"
        for name in StoredOrganization._fields
        if name != "id"
    )
    return f"ON CONFLICT (id) DO UPDATE SET {', '.join(kept)} WHERE {table}.version < excluded.version"


_TYPES: Final[Mapping[str, Any]] = {
    "id": Uuid,
    "name": Text,
    "name_key": Text,
    "domain": Text,
    "primary_address": Text,
    "created_at": DateTime(timezone=True),
    "updated_at": DateTime(timezone=True),
    "deactivated_at": DateTime(timezone=True),
    "deleted_at": DateTime(timezone=True),
    "version": BigInteger,
}
_GIVEN: Final = ", ".join(f":given_{name}" for name in _TYPES)
_AS_STORED: Final = ", ".join(
    "CAST(primary_address AS jsonb)" if name == "primary_address" else name for name in StoredOrganization._fields
)
_STAGE_ORGANIZATIONS: Final = text(
    f"INSERT INTO restoring_organization ({ORGANIZATION}) "  # noqa: S608 - constants
    f"SELECT {_AS_STORED} FROM unnest({_GIVEN}) AS given ({ORGANIZATION}) "
    f"{newer('restoring_organization')}"
).bindparams(*(bindparam(f"given_{name}", type_=ARRAY(of)) for name, of in _TYPES.items()))
_FIND_UNKNOWN: Final = text(
    "SELECT asked.id FROM unnest(:ids) AS asked (id) "
    "WHERE NOT EXISTS (SELECT FROM restoring_organization AS staged WHERE staged.id = asked.id) "
    "AND NOT EXISTS (SELECT FROM organization AS stored WHERE stored.id = asked.id)"
).bindparams(_ids)
_FIND_PARKED: Final = text(
    "SELECT command_id FROM restoring_parked AS asked "
    "WHERE NOT EXISTS (SELECT FROM restoring_result AS each WHERE each.command_id = asked.command_id) "
    "AND NOT EXISTS (SELECT FROM restoring_event AS each WHERE each.command_id = asked.command_id) "
    "AND NOT EXISTS (SELECT FROM journal AS each WHERE each.command_id = asked.command_id) "
    "AND NOT EXISTS (SELECT FROM parked AS each WHERE each.command_id = asked.command_id)"
)
_FIND_UNDECIDED: Final = text(
    "SELECT asked.id FROM unnest(:ids) AS asked (id) "
    "WHERE NOT EXISTS (SELECT FROM restoring_result AS each WHERE each.command_id = asked.id) "
    "AND NOT EXISTS (SELECT FROM restoring_event AS each WHERE each.command_id = asked.id) "
    "AND NOT EXISTS (SELECT FROM journal AS each WHERE each.command_id = asked.id) "
    "AND NOT EXISTS (SELECT FROM parked AS each WHERE each.command_id = asked.id)"
).bindparams(_ids)
_STAGE_LOST: Final = text(
    "INSERT INTO restoring_lost SELECT DISTINCT ON (command_id) * FROM restoring_command WHERE command_id = ANY(:ids) "
    'ORDER BY command_id, partition, "offset" ON CONFLICT DO NOTHING'
).bindparams(_ids)
_FIND_ERASED: Final = text("SELECT DISTINCT org_id FROM restoring_event WHERE event_type = 'org.erased'")


async def make(conn: AsyncConnection) -> None:
    """Make the tables, empty."""
    await conn.execute(_MAKE)


async def drop(conn: AsyncConnection) -> None:
    """Drop them."""
    await conn.execute(_DROP)


async def stage(conn: AsyncConnection, rows: Sequence[EventRow] | Sequence[ResultRow] | Sequence[CommandRow]) -> None:
    """Keep what was read of a topic, of one kind. In a transaction that has run a statement before."""
    if not rows:
        return
    table = _TABLES[type(rows[0])]
    session = cast("Session", (await conn.get_raw_connection()).driver_connection)
    await session.copy_records_to_table(table, records=rows, columns=rows[0]._fields)


_TABLES: Final[Mapping[type[Any], str]] = {
    EventRow: "restoring_event",
    ResultRow: "restoring_result",
    CommandRow: "restoring_command",
}


async def stage_parked(conn: AsyncConnection, command_ids: Collection[UUID]) -> None:
    """Keep which commands were said to be parked."""
    if command_ids:
        await conn.execute(_STAGE_PARKED, {"ids": list(command_ids)})


async def stage_organizations(conn: AsyncConnection, rows: Sequence[StoredOrganization]) -> None:
    """Keep organizations, each once, where no later version of one is kept."""
    if not rows:
        return
    given = {f"given_{name}": list(each) for name, each in zip(_TYPES, zip(*rows, strict=True), strict=True)}
    addresses = given["given_primary_address"]
    given["given_primary_address"] = [None if each is None else orjson.dumps(each).decode() for each in addresses]
    await conn.execute(_STAGE_ORGANIZATIONS, given)


async def find_unknown(conn: AsyncConnection, org_ids: Collection[UUID]) -> set[UUID]:
    """Which organizations are neither kept nor in the table."""
    return set(await conn.scalars(_FIND_UNKNOWN, {"ids": list(org_ids)})) if org_ids else set()


async def find_parked(conn: AsyncConnection) -> set[UUID]:
    """The commands that were parked, and have no final outcome. All in memory."""
    return set(await conn.scalars(_FIND_PARKED))


async def find_undecided(conn: AsyncConnection, command_ids: Collection[UUID]) -> set[UUID]:
    """Which commands have no outcome that is known, and are not parked."""
    return set(await conn.scalars(_FIND_UNDECIDED, {"ids": list(command_ids)})) if command_ids else set()


async def stage_lost(conn: AsyncConnection, command_ids: Collection[UUID]) -> None:
    """Keep which of the kept commands were decided, though nobody knows how."""
    if command_ids:
        await conn.execute(_STAGE_LOST, {"ids": list(command_ids)})


async def find_erased(conn: AsyncConnection) -> set[UUID]:
    """The organizations that were erased in what comes back. All in memory."""
    return set(await conn.scalars(_FIND_ERASED))
