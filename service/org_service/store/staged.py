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


class OutcomeRow(NamedTuple):
    """A change as `orgs.events` has it, or an outcome as `orgs.results` has it: without the type of the event."""

    position: int
    command_id: str
    org_id: str | None
    version: int | None
    event_type: str | None
    outcome: str
    code: int
    actor: str | None
    changed: str | None
    before: str | None
    after: str | None
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


def _of_partitions(*names: str) -> list[Any]:
    return [bindparam(name, type_=ARRAY(BigInteger)) for name in names]


_MAKE: Final = text("""
DO $$
BEGIN
    DROP TABLE IF EXISTS restoring_command, restoring_parked, restoring_lost, restoring_changed, restoring_organization;
    CREATE TABLE restoring_command (
        command_id uuid NOT NULL, org_id uuid, command_type text NOT NULL, actor text, request_digest bytea NOT NULL,
        partition integer NOT NULL, "offset" bigint NOT NULL, time_ms bigint NOT NULL, traceparent text
    );
    CREATE INDEX ON restoring_command (command_id);
    CREATE TABLE restoring_lost (
        LIKE restoring_command, PRIMARY KEY (command_id)
    );
    CREATE TABLE restoring_parked (command_id uuid PRIMARY KEY);
    CREATE TABLE restoring_changed (org_id uuid PRIMARY KEY, version bigint NOT NULL, erased boolean NOT NULL);
    CREATE TABLE restoring_organization (LIKE organization, PRIMARY KEY (id));
END $$
""")
# What a step reads is in no log: it is gone with its transaction, which has put it into the journal.
_MAKE_STEP: Final = text("""
CREATE TEMPORARY TABLE restoring_outcome (
    position bigint NOT NULL, command_id uuid NOT NULL, org_id uuid, version bigint, event_type text,
    outcome text NOT NULL, code smallint NOT NULL, actor text, changed text, before text, after text, problem text,
    traceparent text, recorded_at timestamptz NOT NULL
) ON COMMIT DROP
""")
_DROP: Final = text(
    "DROP TABLE restoring_command, restoring_parked, restoring_lost, restoring_changed, restoring_organization"
)
# Postgres doesn't look at a new table by itself before it is read.
_ANALYZE: Final = text("ANALYZE restoring_command")
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
_versions = bindparam("versions", type_=ARRAY(BigInteger))
_FIND_NEWER: Final = text(
    "SELECT asked.id, max(asked.version) FROM unnest(:ids, :versions) AS asked (id, version) GROUP BY asked.id "
    "HAVING NOT EXISTS (SELECT FROM restoring_organization AS staged "
    "WHERE staged.id = asked.id AND staged.version >= max(asked.version)) "
    "AND NOT EXISTS (SELECT FROM organization AS stored "
    "WHERE stored.id = asked.id AND stored.version >= max(asked.version))"
).bindparams(_ids, _versions)
# As the first of its records has it: the one that was parked.
_FIND_PARKED: Final = text(
    'SELECT DISTINCT ON (each.command_id) each.partition, each."offset" FROM restoring_parked AS asked '
    "JOIN restoring_command AS each USING (command_id) "
    "JOIN unnest(:partitions, :committed) AS read (partition, committed) ON read.partition = each.partition "
    'AND (read.committed < 0 OR each."offset" < read.committed) '
    "WHERE NOT EXISTS (SELECT FROM journal WHERE journal.command_id = asked.command_id) "
    "AND NOT EXISTS (SELECT FROM parked WHERE parked.command_id = asked.command_id) "
    'ORDER BY each.command_id, each.partition, each."offset"'
).bindparams(*_of_partitions("partitions", "committed"))
# Workers read it again, or else nobody knows how it was decided, and guarantee 1: it is never decided again.
_JUDGE: Final = text("""
WITH page AS (
    SELECT * FROM restoring_command WHERE :after_id IS NULL OR command_id > :after_id
    ORDER BY command_id FETCH FIRST (:limit) ROWS WITH TIES
), undecided AS (
    SELECT page.*, page.time_ms > :decided_ms OR page.time_ms >= CASE WHEN page.org_id IS NULL THEN (
        SELECT max(since) FROM unnest(:complete) AS since
    ) ELSE read.complete END AS again
    FROM page JOIN unnest(:partitions, :committed, :complete) AS read (partition, committed, complete)
        ON read.partition = page.partition AND (read.committed < 0 OR page."offset" < read.committed)
    WHERE NOT EXISTS (SELECT FROM journal WHERE journal.command_id = page.command_id)
    AND NOT EXISTS (SELECT FROM parked WHERE parked.command_id = page.command_id)
), lost AS (
    INSERT INTO restoring_lost
    SELECT DISTINCT ON (command_id) command_id, org_id, command_type, actor, request_digest, partition, "offset",
        time_ms, traceparent
    FROM undecided WHERE NOT again ORDER BY command_id, partition, "offset"
    ON CONFLICT DO NOTHING
)
SELECT
    (SELECT command_id FROM page ORDER BY command_id DESC LIMIT 1) AS last_id,
    (SELECT json_object_agg(partition, first) FROM (
        SELECT partition, min("offset") AS first FROM undecided WHERE again GROUP BY partition
    ) AS each) AS back_to
""").bindparams(
    bindparam("after_id", type_=Uuid),
    bindparam("limit", type_=BigInteger),
    bindparam("decided_ms", type_=BigInteger),
    *_of_partitions("partitions", "committed", "complete"),
)
_FIND_ERASED: Final = text("SELECT org_id FROM restoring_changed WHERE erased")
_READ_CHANGED: Final = text("""
SELECT last.org_id, last.version, last.before, last.after, last.recorded_at,
    earlier.version AS earlier_version, earlier.before AS earlier_before, earlier.after AS earlier_after,
    earlier.recorded_at AS earlier_recorded_at
FROM (SELECT * FROM restoring_changed WHERE org_id > :after_id ORDER BY org_id LIMIT :limit) AS page
JOIN journal AS last ON last.org_id = page.org_id AND last.version = page.version AND last.event_type IS NOT NULL
LEFT JOIN LATERAL (
    SELECT * FROM journal AS each
    WHERE each.org_id = page.org_id AND each.version < page.version AND each.event_type IS NOT NULL
    AND (each.before IS NOT NULL OR each.after IS NOT NULL) AND last.before IS NULL AND last.after IS NULL
    ORDER BY each.version DESC LIMIT 1
) AS earlier ON true
ORDER BY page.org_id
""").bindparams(bindparam("after_id", type_=Uuid), bindparam("limit", type_=BigInteger))


class Changed(NamedTuple):
    """The last change of an organization."""

    org_id: UUID
    version: int
    before: str | None
    after: str | None
    recorded_at: datetime
    earlier: "Changed | None"
    """Where it says nothing of what the organization was: the last one that does."""


class Judged(NamedTuple):
    """What became of a page of commands."""

    last_id: UUID | None
    """Of the page; None where there was no other."""
    back_to: dict[str, int]
    """By partition, the first command that workers have to decide."""


Versions = dict[UUID, int]
"""Of organizations."""


class Partitions(NamedTuple):
    """Of the topic of commands, one entry a partition."""

    partitions: list[int]
    committed: list[int]
    """Where workers go on; less than 0 where nothing is committed."""
    complete: list[int]
    """Since when every outcome is known, milliseconds since 1970."""


async def make(conn: AsyncConnection) -> None:
    """Make the tables, empty."""
    await conn.execute(_MAKE)


async def drop(conn: AsyncConnection) -> None:
    """Drop them."""
    await conn.execute(_DROP)


async def analyze(conn: AsyncConnection) -> None:
    """Let Postgres know how many commands there are."""
    await conn.execute(_ANALYZE)


async def stage_outcomes(conn: AsyncConnection, rows: Sequence[OutcomeRow]) -> None:
    """Keep changes and outcomes for the rest of the transaction, for `restoring.write`."""
    await conn.execute(_MAKE_STEP)
    await _copy(conn, "restoring_outcome", OutcomeRow._fields, rows)


async def stage_commands(conn: AsyncConnection, rows: Sequence[CommandRow]) -> None:
    """Keep commands. In a transaction that has run a statement before."""
    await _copy(conn, "restoring_command", CommandRow._fields, rows)


async def _copy(conn: AsyncConnection, table: str, columns: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> None:
    session = cast("Session", (await conn.get_raw_connection()).driver_connection)
    await session.copy_records_to_table(table, records=rows, columns=columns)


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


async def find_newer(conn: AsyncConnection, versions: Sequence[tuple[UUID, int]]) -> Versions:
    """The last of these versions of each organization that is neither kept nor in the table, nor is a later one."""
    if not versions:
        return {}
    ids, numbers = zip(*versions, strict=True)
    rows = await conn.execute(_FIND_NEWER, {"ids": list(ids), "versions": list(numbers)})
    return {row[0]: row[1] for row in rows}


async def read_changed(conn: AsyncConnection, after_id: UUID, limit: int) -> list[Changed]:
    """Read the last changes of the next organizations, in order of id."""
    rows = await conn.execute(_READ_CHANGED, {"after_id": after_id, "limit": limit})
    return [_make_changed(*row) for row in rows]


def _make_changed(*row: Any) -> Changed:
    org_id, last, earlier = row[0], row[1:5], row[5:]
    return Changed(org_id, *last, earlier=None if earlier[0] is None else Changed(org_id, *earlier, earlier=None))


async def find_parked(conn: AsyncConnection, at: Partitions) -> list[tuple[int, int]]:
    """Partition and offset of the commands that were parked, and have no final outcome. All in memory."""
    given = {"partitions": at.partitions, "committed": at.committed}
    return [(row[0], row[1]) for row in await conn.execute(_FIND_PARKED, given)]


async def judge(conn: AsyncConnection, after_id: UUID | None, limit: int, decided_ms: int, at: Partitions) -> Judged:
    """Find who of the next commands, in order of id, has no outcome and isn't parked; keep whose outcome is lost.

    Args:
        conn: In a transaction of its own.
        after_id: The last one of the page before; None for the first page. Any id may be one, the nil UUID too.
        limit: Commands.
        decided_ms: What is later than this was not decided, or not published; milliseconds since 1970.
        at: The partitions of commands.
    """
    given = at._asdict() | {"after_id": after_id, "limit": limit, "decided_ms": decided_ms}
    row = (await conn.execute(_JUDGE, given)).one()
    return Judged(row.last_id, row.back_to or {})


async def find_erased(conn: AsyncConnection) -> set[UUID]:
    """The organizations that were erased in what comes back. All in memory."""
    return set(await conn.scalars(_FIND_ERASED))
