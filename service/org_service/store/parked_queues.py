"""Parked records as operators handle them: grouped by cause, selected, locked, released and discarded.

The open commands of one organization are its queue, in order of id. Whoever decides one locks the organization first,
as a worker does. Of an organization that isn't there (its create is parked) there is no row to lock: so a release locks
the parked rows, and a worker that is about to queue a command behind them locks the first one (`parked.lock_heads`).
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    ColumnElement,
    DateTime,
    Integer,
    LargeBinary,
    Text,
    Uuid,
    and_,
    bindparam,
    exists,
    func,
    literal_column,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.orm import aliased
from sqlmodel import col

from org_service.domain.outcomes import RELEASES_MAX, StoredRecord
from org_service.domain.reasons import AuthenticatedBy, ParkedState
from org_service.store.sql import Rows, arrays, columns, constant, unnest
from org_service.store.tables import ParkedRow

GROUPS_MAX: Final = 1_000
"""More kinds of trouble at once nobody reads."""


class ParkedGroup(NamedTuple):
    """What is parked for one cause. Of a queue its first command counts here, the others wait behind it."""

    topic: str
    reason: str
    cause: str
    """Type and place of a defect of ours, the database's code, or what can't be read: without notes on one record."""
    exhausted: bool
    """Whether these were released as often as may be."""
    records: int
    oldest: datetime
    organizations: int
    """Held up by them."""
    waiting: int
    """Commands that wait behind them."""


class ParkedFilter(NamedTuple):
    """Which open records are meant: all conditions hold, None asks for all."""

    through_id: int
    """What was parked later is not meant."""
    ids: Sequence[int] | None = None
    org_ids: Sequence[UUID] | None = None
    command_ids: Sequence[UUID] | None = None
    topic: str | None = None
    reason: str | None = None
    cause: str | None = None
    exhausted: bool | None = None
    from_time: datetime | None = None
    """Parked at or after this."""
    to_time: datetime | None = None
    """Parked before this."""


class ParkedItem(NamedTuple):
    """An open record as a plan shows it: without what it holds."""

    id: int
    topic: str
    org_id: UUID | None
    command_id: UUID | None
    reason: str
    detail: str
    attempts: int
    value_bytes: int | None
    recorded_at: datetime


class QueueEnds(NamedTuple):
    """The open commands of one organization."""

    first_id: int
    commands: int


class ReadAgain(NamedTuple):
    """What is known of a record that was read, and tried, again, in the column order of the statement."""

    id: int
    reason: str
    detail: str
    failed: int
    """1 where it was tried in vain; 0 where it was decided, or waits behind another one."""
    org_id: UUID | None
    command_id: UUID | None
    request_digest: bytes | None
    actor: str | None
    authenticated_by: AuthenticatedBy | None


def _cause(row: Any) -> ColumnElement[str]:
    """Without what was added of the one record: that its headers were too long, say."""
    return func.split_part(row.detail, text("'; '"), text("1"))


_open: Final = col(ParkedRow.state) == constant(ParkedState.OPEN)
_queued: Final = and_(_open, col(ParkedRow.command_id).is_not(None), col(ParkedRow.org_id).is_not(None))
_loose: Final = and_(_open, or_(col(ParkedRow.command_id).is_(None), col(ParkedRow.org_id).is_(None)))
_exhausted: Final = col(ParkedRow.attempts) > literal_column(str(RELEASES_MAX), Integer)
_ids: Final = bindparam("given_ids", type_=ARRAY(BigInteger))
_org_ids: Final = bindparam("given_org_ids", type_=ARRAY(Uuid))
_limit: Final = bindparam("limit", type_=Integer)
_after_id: Final = bindparam("after_id", type_=BigInteger)


def _among(column: Any, name: str, type_: Any) -> ColumnElement[bool]:
    values = bindparam(name, type_=ARRAY(type_))
    return or_(values.is_(None), column == func.any(values))


def _same(column: Any, name: str) -> ColumnElement[bool]:
    value = bindparam(name, type_=Text)
    return or_(value.is_(None), column == value)


def _matches() -> ColumnElement[bool]:
    """What a `ParkedFilter` says. Null asks for all; planned for each call, so that costs nothing."""
    spent = bindparam("exhausted", type_=Boolean)
    since, until = (bindparam(name, type_=DateTime(timezone=True)) for name in ("from_time", "to_time"))
    return and_(
        col(ParkedRow.id) <= bindparam("through_id", type_=BigInteger),
        _among(col(ParkedRow.id), "ids", BigInteger),
        _among(col(ParkedRow.org_id), "org_ids", Uuid),
        _among(col(ParkedRow.command_id), "command_ids", Uuid),
        _same(col(ParkedRow.topic), "topic"),
        _same(col(ParkedRow.reason), "reason"),
        _same(_cause(ParkedRow), "cause"),
        or_(spent.is_(None), _exhausted == spent),
        or_(since.is_(None), col(ParkedRow.recorded_at) >= since),
        or_(until.is_(None), col(ParkedRow.recorded_at) < until),
    )


def _groups() -> Rows:
    queues = (
        select(func.min(ParkedRow.id).label("head"), func.count().label("commands"))
        .where(_queued)
        .group_by(col(ParkedRow.org_id))
        .subquery("queues")
    )
    cause = _cause(ParkedRow).label("cause")
    exhausted, records = _exhausted.label("exhausted"), func.count().label("records")
    return (
        select(
            col(ParkedRow.topic),
            col(ParkedRow.reason),
            cause,
            exhausted,
            records,
            func.min(ParkedRow.recorded_at),
            func.count(queues.c.head),
            func.coalesce(func.sum(queues.c.commands - text("1")), text("0")),
        )
        .outerjoin(queues, queues.c.head == col(ParkedRow.id))
        .where(or_(_loose, queues.c.head.is_not(None)), _open)
        .group_by(col(ParkedRow.topic), col(ParkedRow.reason), text("cause"), text("exhausted"))
        .order_by(records.desc(), col(ParkedRow.reason), text("cause"))
        .limit(GROUPS_MAX)
    )


_rival = aliased(ParkedRow)
_stuck: Final = exists().where(
    col(_rival.org_id) == col(ParkedRow.org_id),
    col(_rival.state) == constant(ParkedState.OPEN),
    col(_rival.command_id).is_not(None),
    col(_rival.attempts) > literal_column(str(RELEASES_MAX), Integer),
)
_stored = select(*columns(ParkedRow, StoredRecord._fields))
_READ_LAST_ID: Final = select(func.coalesce(func.max(ParkedRow.id), 0))
_GROUPS: Final = _groups()
_FIND: Final = _stored.where(col(ParkedRow.id) == bindparam("id", type_=BigInteger))
_SELECT: Final = (
    _stored.where(_open, _matches(), col(ParkedRow.id) > _after_id).order_by(col(ParkedRow.id)).limit(_limit)
)
_SELECT_LOOSE: Final = (
    _stored.where(_loose, _matches(), col(ParkedRow.id) > _after_id).order_by(col(ParkedRow.id)).limit(_limit)
)
_SELECT_QUEUES: Final = (
    select(col(ParkedRow.org_id), func.bool_or(_stuck))
    .where(
        _queued,
        _matches(),
        col(ParkedRow.org_id) > bindparam("after_org_id", type_=Uuid),
    )
    .group_by(col(ParkedRow.org_id))
    .order_by(col(ParkedRow.org_id))
    .limit(_limit)
)
_items = select(*columns(ParkedRow, ParkedItem._fields))
_LIST: Final = _items.where(_open, _matches(), col(ParkedRow.id) > _after_id).order_by(col(ParkedRow.id)).limit(_limit)
_LIST_LOOSE: Final = (
    _items.where(_loose, _matches(), col(ParkedRow.id) > _after_id).order_by(col(ParkedRow.id)).limit(_limit)
)
_LIST_QUEUES: Final = _items.where(
    _queued,
    col(ParkedRow.org_id) == func.any(_org_ids),
    col(ParkedRow.id) <= bindparam("through_id", type_=BigInteger),
).order_by(col(ParkedRow.org_id), col(ParkedRow.id))
_READ_QUEUES: Final = (
    _stored.where(_queued, col(ParkedRow.org_id) == func.any(_org_ids))
    .order_by(col(ParkedRow.org_id), col(ParkedRow.id))
    .limit(_limit)
)
_LOCK: Final = (
    select(col(ParkedRow.id))
    .where(_open, col(ParkedRow.id) == func.any(_ids))
    .order_by(col(ParkedRow.id))
    .with_for_update()
)
_READ_ENDS: Final = (
    select(col(ParkedRow.org_id), func.min(ParkedRow.id), func.count())
    .where(_queued, col(ParkedRow.org_id) == func.any(_org_ids))
    .group_by(col(ParkedRow.org_id))
)
_END: Final = (
    update(ParkedRow)
    .where(col(ParkedRow.id) == func.any(_ids))
    .values(
        state=bindparam("new_state", type_=Text),
        operation_id=bindparam("new_operation_id", type_=Uuid),
        ended_at=bindparam("new_ended_at", type_=DateTime(timezone=True)),
    )
)
_tried = unnest(
    {
        "id": BigInteger,
        "reason": Text,
        "detail": Text,
        "failed": Integer,
        "org_id": Uuid,
        "command_id": Uuid,
        "request_digest": LargeBinary,
        "actor": Text,
        "authenticated_by": Text,
    }
)
_DESCRIBE: Final = (
    update(ParkedRow)
    .where(col(ParkedRow.id) == _tried.c.id)
    .values(
        {name: _tried.c[name] for name in ReadAgain._fields if name not in ("id", "failed")}
        | {"attempts": col(ParkedRow.attempts) + _tried.c.failed}
    )
)


async def read_last_id(conn: AsyncConnection) -> int:
    """The last id given out: what is parked from now on has a higher one."""
    return int(await conn.scalar(_READ_LAST_ID) or 0)


async def group(conn: AsyncConnection) -> list[ParkedGroup]:
    """Group what is open by its cause, the most frequent first, at most `GROUPS_MAX`."""
    return [ParkedGroup._make(row)._replace(waiting=int(row[-1])) for row in await conn.execute(_GROUPS)]


async def find(conn: AsyncConnection, parked_id: int) -> StoredRecord | None:
    """Read a record with what it holds: only for those who may see that."""
    row = (await conn.execute(_FIND, {"id": parked_id})).one_or_none()
    return None if row is None else StoredRecord._make(row)


async def select_records(
    conn: AsyncConnection, wanted: ParkedFilter, after_id: int, limit: int, *, loose: bool = False
) -> list[StoredRecord]:
    """Read the next open records of a selection, in order of id.

    Args:
        conn: To read with.
        wanted: Which.
        after_id: The last one before.
        limit: At most so many.
        loose: Only those that are in no queue: without a command id, or without an organization.
    """
    asked = wanted._asdict() | {"after_id": after_id, "limit": limit}
    rows = await (conn.execute(_SELECT_LOOSE, asked) if loose else conn.execute(_SELECT, asked))
    return [StoredRecord._make(row) for row in rows]


async def select_queues(
    conn: AsyncConnection, wanted: ParkedFilter, after: UUID, limit: int
) -> tuple[list[UUID], list[UUID]]:
    """Which organizations have a queue with a record of a selection: the next ones, in order of id.

    Returns:
        Those whose queue may be released; and those it may not, because a command was released as often as may be.
    """
    rows: Any = (await conn.execute(_SELECT_QUEUES, wanted._asdict() | {"after_org_id": after, "limit": limit})).all()
    return [row[0] for row in rows if not row[1]], [row[0] for row in rows if row[1]]


async def list_records(
    conn: AsyncConnection, wanted: ParkedFilter, after_id: int, limit: int, *, loose: bool = False
) -> list[ParkedItem]:
    """As `select_records`, without what they hold."""
    asked = wanted._asdict() | {"after_id": after_id, "limit": limit}
    rows = await (conn.execute(_LIST_LOOSE, asked) if loose else conn.execute(_LIST, asked))
    return [ParkedItem._make(row) for row in rows]


async def list_queues(conn: AsyncConnection, org_ids: Collection[UUID], through_id: int) -> list[ParkedItem]:
    """As `read_queues`, all that were parked up to an id, without what they hold."""
    rows = await conn.execute(_LIST_QUEUES, {"given_org_ids": list(org_ids), "through_id": through_id})
    return [ParkedItem._make(row) for row in rows]


async def read_queues(conn: AsyncConnection, org_ids: Collection[UUID], limit: int) -> list[StoredRecord]:
    """Read the open commands of organizations, one queue after the other, each in order."""
    rows = await conn.execute(_READ_QUEUES, {"given_org_ids": list(org_ids), "limit": limit})
    return [StoredRecord._make(row) for row in rows]


async def lock(conn: AsyncConnection, ids: Collection[int]) -> set[int]:
    """Lock records until the transaction ends; which of them are open still."""
    rows: Any = await conn.execute(_LOCK, {"given_ids": sorted(ids)})
    return {row[0] for row in rows}


async def read_ends(conn: AsyncConnection, org_ids: Collection[UUID]) -> Mapping[UUID, QueueEnds]:
    """Where the queues of organizations begin, and how long they are; only of those that have one."""
    if not org_ids:
        return {}
    rows: Any = await conn.execute(_READ_ENDS, {"given_org_ids": list(org_ids)})
    return {row[0]: QueueEnds(row[1], row[2]) for row in rows}


async def end(
    conn: AsyncConnection, ids: Collection[int], state: ParkedState, operation_id: UUID, ended_at: datetime
) -> None:
    """Note that records are released or discarded, and by which run."""
    if ids:
        noted = {"new_state": state, "new_operation_id": operation_id, "new_ended_at": ended_at}
        await conn.execute(_END, {"given_ids": sorted(ids)} | noted)


async def describe(conn: AsyncConnection, tried: Sequence[ReadAgain]) -> None:
    """Note what is known of records now."""
    if tried:
        await conn.execute(_DESCRIBE, arrays(ReadAgain._fields, tried))
