"""A journal and its organizations written again from what the topics say (`orgs rebuild`, `orgs recover`).

What is read from each topic goes by COPY into a table of its own, in any order and partition by partition; then the
journal is made of them by position. These tables belong to the run: it makes them, and drops them at its end.

While it runs `journal_head` has no row: whoever would journal something finds no position and waits, and a relay stops
(`journal.take_positions`, `journal.read_head`). So nobody can write on half a journal, even when the run was killed.
Nobody but `orgs_owner` may do any of this.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple, cast
from uuid import UUID

import orjson
from sqlalchemy import ARRAY, BigInteger, DateTime, Integer, LargeBinary, Text, Uuid, bindparam, text
from sqlalchemy.ext.asyncio import AsyncConnection

from org_service.domain.organization import StoredOrganization
from org_service.store.engine import Session

NO_DIGEST: Final = b""
"""Of a command whose record is gone: see `domain.fold.is_same_request`."""
NOWHERE: Final = -1
"""Partition and offset of such a command."""


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


class Joined(NamedTuple):
    """What became of the positions of a window."""

    changed: int
    """Rows of changes."""
    decided: int
    """Rows of outcomes without a change."""


_after = bindparam("after", type_=BigInteger)
_through = bindparam("through", type_=BigInteger)
_ids = bindparam("ids", type_=ARRAY(Uuid))
_after_id = bindparam("after_id", type_=Uuid)
_LOCK_HEAD: Final = text("SELECT position FROM journal_head FOR UPDATE")
_TAKE_HEAD: Final = text("DELETE FROM journal_head")
_SET_HEAD: Final = text("INSERT INTO journal_head (id, position) VALUES (1, :through)").bindparams(_through)
_IS_EMPTY: Final = text(
    "SELECT NOT (EXISTS (SELECT FROM journal) OR EXISTS (SELECT FROM organization) OR EXISTS (SELECT FROM parked) "
    "OR EXISTS (SELECT FROM journal_gap))"
)
_FIND_LAST_MOMENT: Final = text("SELECT recorded_at FROM journal ORDER BY position DESC LIMIT 1")
_FIND_COMMAND_IDS: Final = text("SELECT position, command_id FROM journal WHERE position = ANY(:positions)").bindparams(
    bindparam("positions", type_=ARRAY(BigInteger))
)
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
_ORGANIZATION: Final = ", ".join(StoredOrganization._fields)
_TIMES: Final = ("created_at", "deactivated_at", "deleted_at")


def _newer(table: str) -> str:
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
    f"INSERT INTO restoring_organization ({_ORGANIZATION}) "  # noqa: S608 - constants
    f"SELECT {_AS_STORED} FROM unnest({_GIVEN}) AS given ({_ORGANIZATION}) "
    f"{_newer('restoring_organization')}"
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
# Of several records of one command the first one was decided: that of its organization's partition, and where topics
# grew, of the partition that was there before. Of an event whose result is there too, they say the same.
_JOIN: Final = text("""
WITH event AS (
    SELECT DISTINCT ON (position) * FROM restoring_event
    WHERE position > :after AND position <= :through ORDER BY position
), result AS (
    SELECT DISTINCT ON (position) * FROM restoring_result
    WHERE position > :after AND position <= :through ORDER BY position
), known AS (
    SELECT position, coalesce(event.command_id, result.command_id) AS command_id,
        coalesce(event.org_id, result.org_id) AS org_id, coalesce(event.version, result.version) AS version,
        event.event_type, coalesce(result.outcome, 'applied') AS outcome, coalesce(result.code, 200) AS code,
        event.actor, event.changed, event.before, coalesce(event.after, result.organization) AS after, result.problem,
        coalesce(event.traceparent, result.traceparent) AS traceparent,
        coalesce(event.recorded_at, result.recorded_at) AS recorded_at, event.position IS NULL AS eventless
    FROM event FULL JOIN result USING (position)
), inserted AS (
    INSERT INTO journal (position, command_id, org_id, version, command_type, event_type, outcome, code, actor,
        request_digest, command_partition, command_offset, changed, before, after, problem, traceparent, recorded_at,
        command_time_ms)
    SELECT known.position, known.command_id, known.org_id, known.version,
        coalesce(command.command_type, CASE known.event_type
            WHEN 'org.created' THEN 'org.create' WHEN 'org.updated' THEN 'org.update'
            WHEN 'org.deleted' THEN 'org.delete' WHEN 'org.deactivated' THEN 'org.deactivate'
            WHEN 'org.reactivated' THEN 'org.reactivate' WHEN 'org.restored' THEN 'org.restore' END, ''),
        CASE WHEN known.outcome <> 'applied' THEN NULL ELSE coalesce(known.event_type, CASE command.command_type
            WHEN 'org.create' THEN 'org.created' WHEN 'org.delete' THEN 'org.deleted'
            WHEN 'org.deactivate' THEN 'org.deactivated' WHEN 'org.reactivate' THEN 'org.reactivated'
            WHEN 'org.restore' THEN 'org.restored' ELSE
            CASE WHEN known.version = 1 THEN 'org.created' WHEN known.after IS NULL THEN 'org.deleted'
            ELSE 'org.updated' END END) END,
        known.outcome, known.code,
        CASE WHEN known.eventless AND known.code <> 401 THEN command.actor ELSE known.actor END,
        coalesce(command.request_digest, :no_digest), coalesce(command.partition, :nowhere),
        coalesce(command."offset", :nowhere), known.changed, known.before, known.after, known.problem,
        known.traceparent, known.recorded_at, command.time_ms
    FROM known LEFT JOIN LATERAL (
        SELECT * FROM restoring_command AS each
        WHERE each.command_id = known.command_id
        ORDER BY each.org_id IS NOT DISTINCT FROM known.org_id DESC, each.partition, each."offset" LIMIT 1
    ) AS command ON true
    RETURNING event_type
)
SELECT count(event_type), count(*) FILTER (WHERE event_type IS NULL) FROM inserted
""").bindparams(
    _after,
    _through,
    bindparam("no_digest", value=NO_DIGEST, type_=LargeBinary),
    bindparam("nowhere", value=NOWHERE, type_=BigInteger),
)
# A command whose outcome retention took changed nothing: events are kept longer than commands. So that it never does,
# it gets one of the positions about which nothing is known; the latest command the latest.
_FILL: Final = text("""
WITH hole AS (
    SELECT each.position, row_number() OVER (ORDER BY each.position DESC) AS number
    FROM generate_series(:after + 1, :through) AS each (position)
    WHERE NOT EXISTS (SELECT FROM journal WHERE journal.position = each.position)
), lost AS (
    SELECT each.*, row_number() OVER (ORDER BY time_ms DESC, partition, "offset" DESC) AS number
    FROM restoring_lost AS each
    ORDER BY time_ms DESC, partition, "offset" DESC LIMIT (SELECT count(*) FROM hole)
), filled AS (
    DELETE FROM restoring_lost USING lost WHERE restoring_lost.command_id = lost.command_id
)
INSERT INTO journal (position, command_id, org_id, command_type, outcome, code, actor, request_digest,
    command_partition, command_offset, problem, traceparent, recorded_at, command_time_ms)
SELECT hole.position, lost.command_id, lost.org_id, lost.command_type, 'rejected', 500, lost.actor,
    lost.request_digest, lost.partition, lost."offset", :problem, lost.traceparent,
    to_timestamp(lost.time_ms / 1000.0), lost.time_ms
FROM hole JOIN lost USING (number)
""").bindparams(_after, _through, bindparam("problem", type_=Text))
_NOTE_GAPS: Final = text("""
INSERT INTO journal_gap (first_position, last_position, noted_at)
SELECT before + 1, position - 1, now() FROM (
    SELECT position, lag(position, 1, :after) OVER (ORDER BY position) AS before FROM (
        SELECT position FROM journal WHERE position > :after AND position <= :through
        UNION ALL SELECT :through + 1
    ) AS each
) AS pair WHERE position > before + 1
""").bindparams(_after, _through)
_page: Final = f"SELECT {_ORGANIZATION} FROM restoring_organization WHERE id > :after_id ORDER BY id LIMIT :limit"  # noqa: S608
_limit = bindparam("limit", type_=Integer)
# Names change hands between the backup and now, and each step is checked at its commit: so all who change let go first.
_LET_GO_OF_NAMES: Final = text(
    f"WITH page AS ({_page}), freed AS ("  # noqa: S608 - constants
    "UPDATE organization SET name_key = 'restoring ' || organization.id FROM page "
    "WHERE organization.id = page.id AND organization.version < page.version AND organization.name_key IS NOT NULL"
    ") SELECT id FROM page ORDER BY id DESC LIMIT 1"
).bindparams(_after_id, _limit)
_WRITE_ORGANIZATIONS: Final = text(
    f"WITH page AS ({_page}), written AS ("  # noqa: S608 - constants
    f"INSERT INTO organization ({_ORGANIZATION}) SELECT {_ORGANIZATION} FROM page "
    f"{_newer('organization')}"
    ") SELECT id FROM page ORDER BY id DESC LIMIT 1"
).bindparams(_after_id, _limit)
_END_PARKED: Final = text(
    "UPDATE parked SET state = CASE WHEN journal.problem LIKE '%urn:orgs:problem:discarded%' THEN 'discarded' "
    "ELSE 'released' END, ended_at = journal.recorded_at FROM journal "
    "WHERE parked.state = 'open' AND journal.command_id = parked.command_id AND journal.position > :after"
).bindparams(_after)
_CLEAR_REFERENCE: Final = text("TRUNCATE membership, partnership, staff, reference_progress")


async def lock_head(conn: AsyncConnection) -> int | None:
    """The last position given out; nobody gives out another until the transaction ends. None where there is no row."""
    return await conn.scalar(_LOCK_HEAD)


async def is_empty(conn: AsyncConnection) -> bool:
    """Whether nothing was ever decided or parked here."""
    return bool(await conn.scalar(_IS_EMPTY))


async def find_last_moment(conn: AsyncConnection) -> datetime | None:
    """When the last row of the journal was recorded; None where there is none."""
    return await conn.scalar(_FIND_LAST_MOMENT)


async def find_command_ids(conn: AsyncConnection, positions: Collection[int]) -> dict[int, UUID]:
    """Whose outcomes stand at positions; those without a row are left out."""
    rows: Any = await conn.execute(_FIND_COMMAND_IDS, {"positions": list(positions)})
    return dict(rows.all())


async def begin(conn: AsyncConnection) -> None:
    """Take the head of the journal away, so that nobody writes; make the tables that the topics are read into."""
    await conn.execute(_TAKE_HEAD)
    await conn.execute(_MAKE)


async def end(conn: AsyncConnection, through: int) -> None:
    """Give the journal its head; reference data, of which the topics have the last word, are loaded from there."""
    await conn.execute(_CLEAR_REFERENCE)
    await conn.execute(_DROP)
    await conn.execute(_SET_HEAD, {"through": through})


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


async def join(conn: AsyncConnection, after: int, through: int) -> Joined:
    """Write the journal of the positions behind one, up to another, as far as anything is known of them."""
    return Joined._make((await conn.execute(_JOIN, {"after": after, "through": through})).one())


async def fill(conn: AsyncConnection, after: int, through: int, problem: str) -> int:
    """Give commands of lost outcomes positions of a window about which nothing is known, then note down the others.

    Returns:
        How many commands got one.
    """
    window = {"after": after, "through": through}
    filled = await conn.execute(_FILL, window | {"problem": problem})
    await conn.execute(_NOTE_GAPS, window)
    return filled.rowcount


async def let_go_of_names(conn: AsyncConnection, after_id: UUID, limit: int) -> UUID | None:
    """Let the next organizations that change give up their names; returns the last one, None where there is none."""
    return await conn.scalar(_LET_GO_OF_NAMES, {"after_id": after_id, "limit": limit})


async def write_organizations(conn: AsyncConnection, after_id: UUID, limit: int) -> UUID | None:
    """Write the next organizations as they are kept; returns the last one, None where there is none."""
    return await conn.scalar(_WRITE_ORGANIZATIONS, {"after_id": after_id, "limit": limit})


async def end_parked(conn: AsyncConnection, after: int) -> int:
    """Note of parked commands that were decided behind a position that they are not open any more; how many."""
    return (await conn.execute(_END_PARKED, {"after": after})).rowcount
