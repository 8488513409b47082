"""What `orgs.commands` lost before a worker read it, noted down for operators and for whoever was answered with 202."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final, NamedTuple
from uuid import UUID

from sqlalchemy import Integer, bindparam, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlmodel import col

from org_service.domain.reasons import LossReason
from org_service.store.sql import columns
from org_service.store.tables import LostRangeRow


class Loss(NamedTuple):
    """Offsets of one partition that nobody will read, or that other records have now."""

    topic: str
    topic_id: UUID
    """Of the topic as it is now."""
    partition: int
    from_offset: int
    to_offset: int | None
    """The first one that isn't lost; None where nobody knows how many there were."""
    why: LossReason
    noticed_at: datetime


_NOTE: Final = (
    insert(LostRangeRow)
    .values({name: bindparam(name) for name in Loss._fields})
    .on_conflict_do_nothing(constraint="lost_range_what_key")
)
_LIST: Final = (
    select(*columns(LostRangeRow, Loss._fields))
    .order_by(col(LostRangeRow.id).desc())
    .limit(bindparam("limit", type_=Integer))
)


async def note(conn: AsyncConnection, losses: Sequence[Loss]) -> None:
    """Note losses down; one that was noted before, by whichever worker, stays as it is."""
    if losses:
        await conn.execute(_NOTE, [loss._asdict() for loss in losses])


async def list_losses(conn: AsyncConnection, limit: int) -> list[Loss]:
    """The latest losses, at most `limit`, latest first."""
    rows = await conn.execute(_LIST, {"limit": limit})
    return [Loss._make(row)._replace(why=LossReason(row.why)) for row in rows]
