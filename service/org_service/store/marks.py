"""Moments that operators name: a position of the journal, and where topics and groups stood."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple

from sqlalchemy import Integer, Text, bindparam, delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlmodel import col

from org_service.store.sql import columns
from org_service.store.tables import MarkRow


class Mark(NamedTuple):
    """A moment with a name."""

    name: str
    position: int
    """The last one of the journal then."""
    topics: Mapping[str, Any]
    """By name: `id`, and `ends`: of each partition the first offset that was not stable yet."""
    groups: Mapping[str, Any]
    """By consumer group, by topic: of each partition the next offset that it had committed."""
    marked_at: datetime
    marked_by: str
    reason: str


_name = bindparam("mark_name", type_=Text)
_NEW: Final = tuple(field for field in Mark._fields if field != "marked_at")
_ADD: Final = (
    insert(MarkRow)
    .values(**{name: bindparam(name) for name in _NEW}, marked_at=func.clock_timestamp())
    .on_conflict_do_nothing(constraint="mark_pkey")
    .returning(col(MarkRow.marked_at))
)
_FIND: Final = select(*columns(MarkRow, Mark._fields)).where(col(MarkRow.name) == _name)
_LIST: Final = (
    select(*columns(MarkRow, Mark._fields))
    .order_by(col(MarkRow.marked_at).desc(), col(MarkRow.name))
    .limit(bindparam("limit", type_=Integer))
)
_REMOVE: Final = delete(MarkRow).where(col(MarkRow.name) == _name).returning(*columns(MarkRow, Mark._fields))


async def add(
    conn: AsyncConnection,
    *,
    name: str,
    position: int,
    topics: Mapping[str, Any],
    groups: Mapping[str, Any],
    marked_by: str,
    reason: str,
) -> Mark | None:
    """Keep a mark; None, and nothing is changed, where the name is taken."""
    given = {"name": name, "position": position, "topics": topics, "groups": groups}
    marked_at = await conn.scalar(_ADD, given | {"marked_by": marked_by, "reason": reason})
    return None if marked_at is None else Mark(name, position, topics, groups, marked_at, marked_by, reason)


async def find(conn: AsyncConnection, name: str) -> Mark | None:
    """Read a mark."""
    row = (await conn.execute(_FIND, {"mark_name": name})).one_or_none()
    return None if row is None else Mark._make(row)


async def list_latest(conn: AsyncConnection, limit: int) -> list[Mark]:
    """The latest marks, latest first."""
    return [Mark._make(row) for row in await conn.execute(_LIST, {"limit": limit})]


async def remove(conn: AsyncConnection, name: str) -> Mark | None:
    """Delete a mark, and return it; None where there is none."""
    row = (await conn.execute(_REMOVE, {"mark_name": name})).one_or_none()
    return None if row is None else Mark._make(row)
