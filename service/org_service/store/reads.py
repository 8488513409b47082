"""What operators ask: an organization and its history, what became of a command, what is parked.

Every role that may read the tables may ask; nothing here locks or writes.
"""

import unicodedata
from datetime import datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

from sqlalchemy import JSON, ColumnElement, case, cast, func, select, text
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlmodel import SQLModel, col

from org_service.domain.organization import Organization, name_key
from org_service.store.tables import Journal, Parked
from org_service.store.tables import Organization as OrganizationTable

CAUSES_MAX: Final = 100
"""Rows of the totals of what is parked; a defect is one, so there are never so many."""
_WITH_CAUSE: Final = ("handler_raised", "data_refused")
NAMESAKES_MAX: Final = 20
"""Deleted organizations of one name that are shown; more tell an operator nothing."""


class OrganizationCounts(NamedTuple):
    """How many organizations there are; the three add up to all that ever were."""

    active: int
    deactivated: int
    deleted: int


class HistoryEntry(NamedTuple):
    """One change of one organization."""

    position: int
    version: int
    event_type: str
    command_type: str
    command_id: UUID
    actor: str | None
    changed: list[str]
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    recorded_at: datetime


class CommandOutcome(NamedTuple):
    """What was decided about a command, and where it had come from."""

    command_id: UUID
    org_id: UUID | None
    command_type: str
    outcome: str
    code: int
    position: int
    version: int | None
    event_type: str | None
    actor: str | None
    problem: dict[str, Any] | None
    command_partition: int
    command_offset: int
    recorded_at: datetime


class ParkedRecord(NamedTuple):
    """A record set aside: where it came from, whose it is and why; not what it holds, which a reader may not see."""

    id: int
    topic: str
    partition: int
    offset: int
    broker_time: datetime
    org_id: UUID | None
    command_id: UUID | None
    reason: str
    detail: str
    attempts: int
    state: str
    actor: str | None
    authenticated_by: str | None
    value_bytes: int | None
    """How long a value was of which only the beginning is kept; None where all of it is."""
    value_sha256: str | None
    recorded_at: datetime


class ParkedCount(NamedTuple):
    """How many records are parked in one state for one reason."""

    state: str
    reason: str
    cause: str | None
    """The place of a defect of ours, or the database's code; None where each record has a detail of its own."""
    records: int


def _columns(table: type[SQLModel], fields: tuple[str, ...], json: tuple[str, ...] = ()) -> list[Any]:
    """The columns of `fields`; the texts of `json` come back parsed."""
    return [cast(getattr(table, f), JSON).label(f) if f in json else getattr(table, f) for f in fields]


_ORGANIZATION: Final = _columns(OrganizationTable, Organization._fields)
_CHANGE: Final = _columns(Journal, HistoryEntry._fields, json=("changed", "before", "after"))
_OUTCOME: Final = _columns(Journal, CommandOutcome._fields, json=("problem",))
_PARKED: Final = _columns(Parked, ParkedRecord._fields)


async def find_organization(conn: AsyncConnection, id_or_name: str) -> list[Organization]:
    """Find an organization by its id or its exact name, upper and lower case alike; deleted ones too.

    Returns:
        None, or one; of a name the one that has it now, then those deleted under it, the latest first, at most
        `NAMESAKES_MAX`. Finding deleted ones by name reads the whole table.
    """
    try:
        wanted = UUID(id_or_name)
    except ValueError:
        name = unicodedata.normalize("NFKC", id_or_name).strip()
        found = await _organizations(conn, col(OrganizationTable.name_key) == name_key(name))
        deleted = (col(OrganizationTable.deleted_at).is_not(None)) & (
            func.lower(col(OrganizationTable.name)) == func.lower(name)
        )
        return found + await _organizations(conn, deleted)
    return await _organizations(conn, col(OrganizationTable.id) == wanted)


async def _organizations(conn: AsyncConnection, condition: ColumnElement[bool]) -> list[Organization]:
    latest_first = col(OrganizationTable.updated_at).desc()
    statement = select(*_ORGANIZATION).where(condition).order_by(latest_first).limit(NAMESAKES_MAX)
    return [Organization._make(row) for row in await conn.execute(statement)]


async def list_organizations(conn: AsyncConnection, limit: int, after_id: UUID | None = None) -> list[Organization]:
    """Read organizations in order of id, deleted ones included: the next `limit` after `after_id`."""
    statement = select(*_ORGANIZATION).order_by(col(OrganizationTable.id)).limit(limit)
    if after_id is not None:
        statement = statement.where(col(OrganizationTable.id) > after_id)
    return [Organization._make(row) for row in await conn.execute(statement)]


async def count_organizations(conn: AsyncConnection) -> OrganizationCounts:
    """Count all organizations. Reads the whole table."""
    deleted = col(OrganizationTable.deleted_at).is_not(None)
    deactivated = col(OrganizationTable.deactivated_at).is_not(None)
    counted = await conn.execute(
        select(
            func.count().filter(~deleted & ~deactivated),
            func.count().filter(~deleted & deactivated),
            func.count().filter(deleted),
        ).select_from(OrganizationTable)
    )
    return OrganizationCounts(*counted.one())


async def history(conn: AsyncConnection, org_id: UUID, limit: int, after_version: int = 0) -> list[HistoryEntry]:
    """Read the changes of one organization in order: the next `limit` after `after_version`."""
    statement = (
        select(*_CHANGE)
        .where(col(Journal.org_id) == org_id)
        .where(col(Journal.event_type).is_not(None))  # the condition of the index
        .where(col(Journal.version) > after_version)
        .order_by(col(Journal.version))
        .limit(limit)
    )
    return [HistoryEntry._make(row) for row in await conn.execute(statement)]


async def outcome_of(conn: AsyncConnection, command_id: UUID) -> CommandOutcome | None:
    """What was decided about a command; None when it never came, or is parked (`list_parked`)."""
    row = (await conn.execute(select(*_OUTCOME).where(col(Journal.command_id) == command_id))).one_or_none()
    return None if row is None else CommandOutcome._make(row)


async def list_parked(
    conn: AsyncConnection,
    limit: int,
    *,
    after_id: int = 0,
    state: str | None = "open",
    parked_id: int | None = None,
    org_id: UUID | None = None,
    command_id: UUID | None = None,
) -> list[ParkedRecord]:
    """Read parked records in the order they were parked: the next `limit` after `after_id`.

    What is None doesn't count. All of one organization, with `state` "open", is what its queue holds.
    """
    statement = select(*_PARKED).where(col(Parked.id) > after_id).order_by(col(Parked.id)).limit(limit)
    wanted = ((Parked.state, state), (Parked.id, parked_id), (Parked.org_id, org_id), (Parked.command_id, command_id))
    for field, value in wanted:
        if value is not None:
            statement = statement.where(col(field) == value)
    return [ParkedRecord._make(row) for row in await conn.execute(statement)]


async def count_parked(conn: AsyncConnection) -> list[ParkedCount]:
    """Count all parked records by state, reason and cause, the most frequent first. Reads the whole table."""
    state, reason, records = col(Parked.state), col(Parked.reason), func.count().label("records")
    cause = case((reason.in_(_WITH_CAUSE), col(Parked.detail))).label("cause")
    grouped = select(state, reason, cause, records).group_by(state, reason, text("cause"))
    statement = grouped.order_by(state, records.desc(), reason, text("cause")).limit(CAUSES_MAX)
    return [ParkedCount(*row) for row in await conn.execute(statement)]
