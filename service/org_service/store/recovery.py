"""The way out when Kafka was fed by more of a journal than the database has, after an older backup was restored.

The rows that the restored database got since then are moved behind what Kafka knows, so that every one of them is
published; in between is a hole, which stands for the rows that were lost and is noted down in `journal_gap`, so that
readers tell it from damage. Nobody but `orgs_owner` may do this: for the service's own roles the journal is
insert-only.
"""

from datetime import datetime
from typing import Final, NamedTuple

from sqlalchemy import BigInteger, bindparam, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlmodel import col

from org_service.errors import PreconditionError
from org_service.store.tables import JournalGapRow, JournalHeadRow, JournalRow


class Advance(NamedTuple):
    """How the journal continues past a position. Positions 1 to `restored` are as they were published."""

    published: int
    """The last position that Kafka knows."""
    restored: int
    """The last position given out or given up when the backup was taken."""
    fresh: int
    """Rows journaled since the backup was restored; none of them was published under its old position."""

    @property
    def lost(self) -> int:
        """Positions that were published and whose rows are gone."""
        return self.published - self.restored

    @property
    def head(self) -> int:
        """The last position afterwards."""
        return self.published + self.fresh


_shift = bindparam("shift", type_=BigInteger)
_LOCK_HEAD: Final = select(col(JournalHeadRow.position)).with_for_update()
_COUNT_FRESH: Final = select(func.count()).where(col(JournalRow.recorded_at) > bindparam("moment"))
# A backup taken after an earlier recovery may end with its gap. GREATEST takes no notice of nulls.
_LAST_RESTORED: Final = select(
    func.greatest(
        0,
        select(func.max(JournalRow.position))
        .where(col(JournalRow.recorded_at) <= bindparam("moment"))
        .scalar_subquery(),
        select(func.max(JournalGapRow.last_position)).scalar_subquery(),
    )
)
# In two steps, through negative positions: a row may not stand on another's place, not even within a statement.
_LIFT: Final = (
    update(JournalRow)
    .where(col(JournalRow.position) > bindparam("restored", type_=BigInteger))
    .values(position=-col(JournalRow.position))
)
_PUT_DOWN: Final = (
    update(JournalRow).where(col(JournalRow.position) < 0).values(position=_shift - col(JournalRow.position))
)
_NOTE_GAP: Final = insert(JournalGapRow).values(
    first_position=bindparam("first", type_=BigInteger),
    last_position=bindparam("last", type_=BigInteger),
    noted_at=func.now(),
)
_SET_HEAD: Final = update(JournalHeadRow).values(position=bindparam("head", type_=BigInteger))


async def plan(conn: AsyncConnection, published: int, moment: datetime) -> Advance:
    """See how the journal would continue past `published`. Locks its head until the transaction ends.

    Args:
        conn: As `orgs_owner`.
        published: The last position that Kafka knows.
        moment: When that was recorded. Rows recorded later came after the restore, because the backup is older.

    Raises:
        PreconditionError: The clocks contradict the positions, so old and fresh rows can't be told apart.
    """
    head = await conn.scalar(_LOCK_HEAD)
    fresh = await conn.scalar(_COUNT_FRESH, {"moment": moment}) or 0
    restored = await conn.scalar(_LAST_RESTORED, {"moment": moment}) or 0
    if head is None or head - fresh != restored or restored >= published:
        raise PreconditionError(
            f"The journal has {fresh} rows recorded after {moment.isoformat()}, when position {published} was "
            f"recorded, but they do not follow position {restored} up to its head {head}. Restore a backup that "
            f"contains position {published}."
        )
    return Advance(published, restored, fresh)


async def carry_out(conn: AsyncConnection, advance: Advance) -> None:
    """Move the fresh rows behind what was published, and the head with them; note down the gap.

    In the transaction of the `plan` that `advance` is from: later the journal may be another.
    """
    await conn.execute(_LIFT, {"restored": advance.restored})
    await conn.execute(_PUT_DOWN, {"shift": advance.lost})
    await conn.execute(_NOTE_GAP, {"first": advance.restored + 1, "last": advance.published})
    await conn.execute(_SET_HEAD, {"head": advance.head})
