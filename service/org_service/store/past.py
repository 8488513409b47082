"""The journal asked about an earlier moment: when a position was, what changed between two, what there is about one.

Organizations as of a position are `recorded.find_last_changes`.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

from sqlalchemy import BigInteger, Integer, Uuid, bindparam, exists, select
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.orm import aliased
from sqlmodel import col

from org_service.domain.outcomes import NewOutcome
from org_service.store.journal import COLUMNS, PastChange
from org_service.store.recorded import Recorded
from org_service.store.sql import columns
from org_service.store.tables import JournalRow


class Moment(NamedTuple):
    """When the row at a position was recorded, by its worker's clock."""

    position: int
    recorded_at: datetime


_position = bindparam("position", type_=BigInteger)
_through = bindparam("through", type_=BigInteger)
_limit = bindparam("limit", type_=Integer)
_FIND_MOMENT: Final = (
    select(*columns(JournalRow, Moment._fields))
    .where(col(JournalRow.position) >= _position)
    .order_by(col(JournalRow.position))
    .limit(1)
)
_next: Any = aliased(JournalRow)
_SELECT_LAST_CHANGES: Final = (
    select(*columns(JournalRow, PastChange._fields, json=("changed", "before", "after")))
    .where(
        col(JournalRow.position) > _position,
        col(JournalRow.position) <= bindparam("window_end", type_=BigInteger),
        col(JournalRow.event_type).is_not(None),
        ~exists().where(
            _next.org_id == col(JournalRow.org_id),
            _next.version == col(JournalRow.version) + 1,
            _next.event_type.is_not(None),  # the condition of the index
            _next.position <= _through,
        ),
    )
    .order_by(col(JournalRow.position))
    .limit(_limit)
)
_SELECT_LATEST_OF: Final = (
    select(*columns(JournalRow, COLUMNS))
    .where(
        col(JournalRow.org_id) == bindparam("org_id", type_=Uuid),
        col(JournalRow.position) > _position,
    )
    .order_by(col(JournalRow.position).desc())
    .limit(_limit)
)


async def find_moment(conn: AsyncConnection, position: int) -> Moment | None:
    """When the first row at a position or behind it was recorded; None behind the last row."""
    row = (await conn.execute(_FIND_MOMENT, {"position": position})).one_or_none()
    return None if row is None else Moment._make(row)


async def select_last_changes(
    conn: AsyncConnection, after: int, window_end: int, through: int, limit: int
) -> list[PastChange]:
    """Read, of the organizations changed up to a position, the last change of each, in order of position.

    Args:
        conn: Any.
        after: The position before the first one that is looked at.
        window_end: The last one that is looked at: costs as much as the journal has rows up to there.
        through: Changes behind this don't count, so the last one up to there does.
        limit: At most so many.
    """
    given = {"position": after, "window_end": window_end, "through": through, "limit": limit}
    return [PastChange._make(row) for row in await conn.execute(_SELECT_LAST_CHANGES, given)]


async def select_latest_of(conn: AsyncConnection, org_id: UUID, after: int, limit: int) -> Sequence[Recorded]:
    """Read the latest outcomes of an organization's commands behind a position, rejected ones too, latest first.

    No index has rejected commands by organization: it reads the journal behind that position.
    """
    rows = await conn.execute(_SELECT_LATEST_OF, {"org_id": org_id, "position": after, "limit": limit})
    return [Recorded(row[0], NewOutcome._make(row[1:])) for row in rows]
