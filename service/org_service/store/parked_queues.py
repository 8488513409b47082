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
    case,
    exists,
    func,
    literal_column,
    null,
    or_,
    select,
    text,
    union_all,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.orm import aliased
from sqlmodel import col

from org_service.domain.outcomes import RELEASES_MAX, StoredRecord
from org_service.domain.reasons import AuthenticatedBy, ParkedState, ParkReason
from org_service.store.sql import Rows, arrays, columns, constant, unnest
from org_service.store.tables import ParkedRow

GROUPS_MAX: Final = 1_000
"""More kinds of trouble at once nobody reads."""
CAUSES_MAX: Final = 100
"""Rows of the totals of what is parked; a defect is one, so there are never so many."""


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

    @property
    def exhausted(self) -> bool:
        """Whether it is open, and was released as often as a record may be."""
        return self.state == ParkedState.OPEN and self.attempts > RELEASES_MAX


class ParkedCount(NamedTuple):
    """How many records are parked in one state for one reason."""

    state: str
    reason: str
    cause: str | None
    """The place of a defect of ours, or the database's code; None where each record has a detail of its own."""
    records: int


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
    """When the first of them was parked."""
    oldest_sent: datetime
    """When Kafka took the oldest of them: by this its topic's retention takes the original."""
    organizations: int
    """Held up by them."""
    waiting: int
    """Commands that wait behind them."""


class ParkedFilter(NamedTuple):
    """Which records are meant: all conditions hold, None asks for all."""

    state: ParkedState | None = None
    loose: bool | None = None
    """Whether they are in no queue: without a command id, or without an organization."""
    through_id: int | None = None
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
_in_no_queue: Final = or_(col(ParkedRow.command_id).is_(None), col(ParkedRow.org_id).is_(None))
_queued: Final = and_(_open, col(ParkedRow.command_id).is_not(None), col(ParkedRow.org_id).is_not(None))
_exhausted: Final = col(ParkedRow.attempts) > literal_column(str(RELEASES_MAX), Integer)
_ids: Final = bindparam("given_ids", type_=ARRAY(BigInteger))
_org_ids: Final = bindparam("given_org_ids", type_=ARRAY(Uuid))
_limit: Final = bindparam("limit", type_=Integer)


def _among(column: Any, name: str, type_: Any) -> ColumnElement[bool]:
    values = bindparam(name, type_=ARRAY(type_))
    return or_(values.is_(None), column == func.any(values))


def _same(column: Any, name: str, type_: Any = Text) -> ColumnElement[bool]:
    value = bindparam(name, type_=type_)
    return or_(value.is_(None), column == value)


def _matches() -> ColumnElement[bool]:
    """What a `ParkedFilter` says. Planned for each call, so null costs nothing and the partial indexes are found."""
    through = bindparam("through_id", type_=BigInteger)
    since, until = (bindparam(name, type_=DateTime(timezone=True)) for name in ("from_time", "to_time"))
    return and_(
        _same(col(ParkedRow.state), "state"),
        _same(_in_no_queue, "loose", Boolean),
        or_(through.is_(None), col(ParkedRow.id) <= through),
        _among(col(ParkedRow.id), "ids", BigInteger),
        _among(col(ParkedRow.org_id), "org_ids", Uuid),
        _among(col(ParkedRow.command_id), "command_ids", Uuid),
        _same(col(ParkedRow.topic), "topic"),
        _same(col(ParkedRow.reason), "reason"),
        _same(_cause(ParkedRow), "cause"),
        _same(_exhausted, "exhausted", Boolean),
        or_(since.is_(None), col(ParkedRow.recorded_at) >= since),
        or_(until.is_(None), col(ParkedRow.recorded_at) < until),
    )


def _page(fields: Collection[str]) -> Rows:
    """The next records of a selection, in order of id."""
    after = col(ParkedRow.id) > bindparam("after_id", type_=BigInteger)
    return select(*columns(ParkedRow, fields)).where(_matches(), after).order_by(col(ParkedRow.id)).limit(_limit)


def _count() -> Rows:
    state, reason, records = col(ParkedRow.state), col(ParkedRow.reason), func.count().label("records")
    with_cause = (reason == constant(each) for each in (ParkReason.HANDLER_RAISED, ParkReason.DATA_REFUSED))
    cause = case((or_(*with_cause), col(ParkedRow.detail))).label("cause")
    grouped = select(state, reason, cause, records).where(_matches()).group_by(state, reason, text("cause"))
    return grouped.order_by(state, records.desc(), reason, text("cause")).limit(CAUSES_MAX)


def _groups() -> Rows:
    """From the first command of each queue, which the index alone gives: those that wait are most, and are not read."""
    queues = (
        select(func.min(ParkedRow.id).label("id"), func.count().label("commands"))
        .where(_queued)
        .group_by(col(ParkedRow.org_id))
    )
    loose = select(col(ParkedRow.id), null()).where(_open, _in_no_queue)
    heads = union_all(queues, loose).subquery("heads")
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
            func.min(ParkedRow.broker_time),
            func.count(heads.c.commands),
            func.coalesce(func.sum(heads.c.commands - text("1")), text("0")),
        )
        .join_from(heads, ParkedRow, col(ParkedRow.id) == heads.c.id)
        .group_by(col(ParkedRow.topic), col(ParkedRow.reason), text("cause"), text("exhausted"))
        .order_by(records.desc(), col(ParkedRow.reason), text("cause"))
        .limit(GROUPS_MAX)
    )


def _select_queues() -> Rows:
    """Whether a queue may be released is asked once of each: a queue may be long."""
    page = (
        select(col(ParkedRow.org_id))
        .where(_queued, _matches(), col(ParkedRow.org_id) > bindparam("after_org_id", type_=Uuid))
        .group_by(col(ParkedRow.org_id))
        .order_by(col(ParkedRow.org_id))
        .limit(_limit)
        .subquery("page")
    )
    rival = aliased(ParkedRow)
    stuck = exists().where(
        col(rival.org_id) == page.c.org_id,
        col(rival.state) == constant(ParkedState.OPEN),
        col(rival.command_id).is_not(None),
        col(rival.attempts) > literal_column(str(RELEASES_MAX), Integer),
    )
    return select(page.c.org_id, stuck).order_by(page.c.org_id)


_READ_LAST_ID: Final = select(func.coalesce(func.max(ParkedRow.id), 0))
_COUNT: Final = _count()
_GROUPS: Final = _groups()
_LIST: Final = _page(ParkedRecord._fields)
_SELECT: Final = _page(StoredRecord._fields)
_SELECT_QUEUES: Final = _select_queues()
_READ_QUEUES: Final = (
    select(*columns(ParkedRow, StoredRecord._fields))
    .where(_queued, col(ParkedRow.org_id) == func.any(_org_ids))
    .order_by(col(ParkedRow.org_id), col(ParkedRow.id))
    .limit(_limit)
)
_LOCK: Final = (
    select(col(ParkedRow.id), col(ParkedRow.attempts))
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


async def count(conn: AsyncConnection, wanted: ParkedFilter) -> list[ParkedCount]:
    """Count records by state, reason and cause, the most frequent first. Reads the whole table."""
    return [ParkedCount(*row) for row in await conn.execute(_COUNT, wanted._asdict())]


async def group(conn: AsyncConnection) -> list[ParkedGroup]:
    """Group what is open by its cause, the most frequent first, at most `GROUPS_MAX`."""
    return [ParkedGroup._make(row)._replace(waiting=int(row[-1])) for row in await conn.execute(_GROUPS)]


async def list_records(conn: AsyncConnection, wanted: ParkedFilter, after_id: int, limit: int) -> list[ParkedRecord]:
    """Read the next records of a selection, in the order they were parked; of a queue, its order."""
    rows = await conn.execute(_LIST, wanted._asdict() | {"after_id": after_id, "limit": limit})
    return [ParkedRecord._make(row) for row in rows]


async def select_records(conn: AsyncConnection, wanted: ParkedFilter, after_id: int, limit: int) -> list[StoredRecord]:
    """As `list_records`, with what they hold: only for those who may see that."""
    rows = await conn.execute(_SELECT, wanted._asdict() | {"after_id": after_id, "limit": limit})
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


async def read_queues(conn: AsyncConnection, org_ids: Collection[UUID], limit: int) -> list[StoredRecord]:
    """Read the open commands of organizations, one queue after the other, each in order."""
    rows = await conn.execute(_READ_QUEUES, {"given_org_ids": list(org_ids), "limit": limit})
    return [StoredRecord._make(row) for row in rows]


async def lock(conn: AsyncConnection, ids: Collection[int]) -> Mapping[int, int]:
    """Lock records until the transaction ends; of those that are open still, how often each was tried."""
    rows: Any = await conn.execute(_LOCK, {"given_ids": sorted(ids)})
    return {row[0]: row[1] for row in rows}


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
