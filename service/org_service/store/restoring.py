"""A journal and its organizations written again from what the topics say (`orgs rebuild`, `orgs recover`).

Commands go by COPY into a table of the run (`staged`); changes and outcomes, joined to them, step by step into the
journal, in any order of positions.

While it runs `journal_head` has no row: whoever would journal something finds no position and waits, and a relay stops
(`journal.take_positions`, `journal.read_head`). So nobody can write on half a journal, even when the run was killed.
Nobody but `orgs_owner` may do any of this.
"""

from collections.abc import Collection
from datetime import datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

from sqlalchemy import ARRAY, BigInteger, Integer, LargeBinary, Text, Uuid, bindparam, text
from sqlalchemy.ext.asyncio import AsyncConnection

from org_service.store import staged
from org_service.store.staged import ORGANIZATION, newer

NO_DIGEST: Final = b""
"""Of a command whose record is gone: see `domain.fold.is_same_request`."""
NOWHERE: Final = -1
"""Partition and offset of such a command."""


class Written(NamedTuple):
    """What a step gave the journal."""

    changed: int
    """Rows of changes."""
    decided: int
    """Rows of outcomes without a change."""


_after = bindparam("after", type_=BigInteger)
_through = bindparam("through", type_=BigInteger)
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
# Of several records of one command the first one was decided: that of its organization's partition, and where topics
# grew, of the partition that was there before.
_WRITE: Final = text("""
WITH inserted AS (
    INSERT INTO journal (position, command_id, org_id, version, command_type, event_type, outcome, code, actor,
        request_digest, command_partition, command_offset, changed, before, after, problem, traceparent, recorded_at,
        command_time_ms)
    SELECT known.position, known.command_id, known.org_id, known.version,
        coalesce(command.command_type, CASE known.event_type
            WHEN 'org.created' THEN 'org.create' WHEN 'org.updated' THEN 'org.update'
            WHEN 'org.deleted' THEN 'org.delete' WHEN 'org.deactivated' THEN 'org.deactivate'
            WHEN 'org.reactivated' THEN 'org.reactivate' WHEN 'org.restored' THEN 'org.restore'
            WHEN 'org.erased' THEN 'org.erase' END, ''),
        CASE WHEN known.outcome <> 'applied' THEN NULL ELSE coalesce(known.event_type, CASE command.command_type
            WHEN 'org.create' THEN 'org.created' WHEN 'org.delete' THEN 'org.deleted'
            WHEN 'org.deactivate' THEN 'org.deactivated' WHEN 'org.reactivate' THEN 'org.reactivated'
            WHEN 'org.restore' THEN 'org.restored' ELSE
            CASE WHEN known.version = 1 THEN 'org.created' WHEN known.after IS NULL THEN 'org.deleted'
            ELSE 'org.updated' END END) END,
        known.outcome, known.code,
        CASE WHEN known.event_type IS NULL AND known.code <> 401 THEN command.actor ELSE known.actor END,
        coalesce(command.request_digest, :no_digest), coalesce(command.partition, :nowhere),
        coalesce(command."offset", :nowhere), known.changed, known.before, known.after, known.problem,
        known.traceparent, known.recorded_at, command.time_ms
    FROM restoring_outcome AS known LEFT JOIN LATERAL (
        SELECT * FROM restoring_command AS each
        WHERE each.command_id = known.command_id
        ORDER BY each.org_id IS NOT DISTINCT FROM known.org_id DESC, each.partition, each."offset" LIMIT 1
    ) AS command ON true
    ORDER BY known.position
    ON CONFLICT (position) DO NOTHING
    RETURNING org_id, version, event_type
), changed AS (
    INSERT INTO restoring_changed
    SELECT org_id, max(version), bool_or(event_type = 'org.erased') FROM inserted WHERE event_type IS NOT NULL
    GROUP BY org_id ORDER BY org_id
    ON CONFLICT (org_id) DO UPDATE SET version = greatest(restoring_changed.version, excluded.version),
        erased = restoring_changed.erased OR excluded.erased
)
SELECT count(event_type), count(*) FILTER (WHERE event_type IS NULL) FROM inserted
""").bindparams(
    bindparam("no_digest", value=NO_DIGEST, type_=LargeBinary),
    bindparam("nowhere", value=NOWHERE, type_=BigInteger),
)
_FIND_UNKNOWN: Final = text(
    "SELECT asked.position FROM unnest(:positions) AS asked (position) "
    "WHERE NOT EXISTS (SELECT FROM journal WHERE journal.position = asked.position)"
).bindparams(bindparam("positions", type_=ARRAY(BigInteger)))
_COUNT: Final = text("SELECT count(*) FROM journal WHERE position > :after AND position <= :through").bindparams(
    _after, _through
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
_page: Final = f"SELECT {ORGANIZATION} FROM restoring_organization WHERE id > :after_id ORDER BY id LIMIT :limit"  # noqa: S608
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
    f"INSERT INTO organization ({ORGANIZATION}) SELECT {ORGANIZATION} FROM page "
    f"{newer('organization')}"
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
    await staged.make(conn)


async def end(conn: AsyncConnection, through: int) -> None:
    """Give the journal its head; reference data, of which the topics have the last word, are loaded from there."""
    await conn.execute(_CLEAR_REFERENCE)
    await staged.drop(conn)
    await conn.execute(_SET_HEAD, {"through": through})


async def write(conn: AsyncConnection) -> Written:
    """Write what `staged.stage_outcomes` keeps into the journal, but for positions that are there."""
    return Written._make((await conn.execute(_WRITE)).one())


async def find_unknown(conn: AsyncConnection, positions: Collection[int]) -> set[int]:
    """Which positions have no row."""
    return set(await conn.scalars(_FIND_UNKNOWN, {"positions": list(positions)})) if positions else set()


async def count_empty(conn: AsyncConnection, after: int, through: int) -> int:
    """How many positions of a window have no row."""
    return through - after - int(await conn.scalar(_COUNT, {"after": after, "through": through}) or 0)


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
