"""Records that are set aside, as a worker parks them, and finds them while they are open."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    BigInteger,
    LargeBinary,
    Uuid,
    bindparam,
    exists,
    func,
    literal,
    select,
    true,
    union_all,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlmodel import col

from org_service.domain.outcomes import KeptRecord
from org_service.domain.reasons import ParkedState, ParkReason
from org_service.store.sql import constant, unnest
from org_service.store.tables import ParkedRow

DEFECTS_COUNTED_MAX: Final = 10_000
"""More tell nobody more, and a health check may not take long."""


_open = col(ParkedRow.state) == constant(ParkedState.OPEN)
_open_command = (_open, col(ParkedRow.command_id).is_not(None))
_asked = unnest({"org_id": Uuid}, prefix="asked_")
# One row an organization, however long its queue is.
_FIND: Final = union_all(
    select(_asked.c.org_id, literal(None, LargeBinary)).where(
        exists().where(col(ParkedRow.org_id) == _asked.c.org_id, *_open_command)
    ),
    select(col(ParkedRow.command_id), col(ParkedRow.request_digest)).where(
        col(ParkedRow.command_id) == func.any(bindparam("ids", type_=ARRAY(Uuid))), *_open_command
    ),
)
_waiting = (
    select(col(ParkedRow.id))
    .where(col(ParkedRow.org_id) == _asked.c.org_id, *_open_command)
    .limit(bindparam("rows_max", type_=BigInteger))
    .lateral("waiting")
)
_COUNT_WAITING: Final = select(_asked.c.org_id, func.count()).join(_waiting, true()).group_by(_asked.c.org_id)
_first = (
    select(col(ParkedRow.id))
    .where(col(ParkedRow.org_id) == _asked.c.org_id, *_open_command)
    .order_by(col(ParkedRow.id))
    .limit(1)
    .with_for_update(read=True)
    .lateral("first")
)
_LOCK_HEADS: Final = select(_asked.c.org_id).join(_first, true())
_PARK: Final = (
    insert(ParkedRow)
    .values({name: bindparam(name) for name in (*KeptRecord._fields, "attempts", "state", "recorded_at")})
    .on_conflict_do_nothing(constraint="parked_coordinates_key")
)
_COUNT_DEFECTS: Final = select(func.count()).select_from(
    select(col(ParkedRow.id))
    .where(_open, col(ParkedRow.reason) == constant(ParkReason.HANDLER_RAISED))
    .limit(DEFECTS_COUNTED_MAX)
    .subquery()
)


async def find(
    conn: AsyncConnection, org_ids: Collection[UUID], command_ids: Sequence[UUID], queued_max: int
) -> tuple[dict[UUID, int], dict[UUID, bytes]]:
    """Find the open parked commands of a batch.

    Args:
        conn: In the transaction that decides.
        org_ids: Organizations that may have some.
        command_ids: Which may be some.
        queued_max: How far the commands of one organization are counted.

    Returns:
        Which of these organizations have open parked commands, and how many; which of these commands are such, and
        their digests.
    """
    held: set[UUID] = set()
    parked: dict[UUID, bytes] = {}
    rows: Any = await conn.execute(_FIND, {"asked_org_id": list(org_ids), "ids": command_ids})
    for found, digest in rows:
        if digest is None:
            held.add(found)
        else:
            parked[found] = digest
    counts: dict[UUID, int] = {}
    if held:  # an exception: how many there are isn't asked with the rest
        counted: Any = await conn.execute(_COUNT_WAITING, {"asked_org_id": list(held), "rows_max": queued_max})
        counts = dict.fromkeys(held, 1)
        counts.update((org_id, count) for org_id, count in counted)
    return counts, parked


async def lock_heads(conn: AsyncConnection, org_ids: Collection[UUID]) -> set[UUID]:
    """Keep the first open command of queues from being released until the transaction ends.

    Returns:
        The organizations that have one still.
    """
    return {row[0] for row in await conn.execute(_LOCK_HEADS, {"asked_org_id": sorted(org_ids)})}


async def park(conn: AsyncConnection, rows: Sequence[KeptRecord], recorded_at: datetime) -> None:
    """Set records aside; one that is there already (same coordinates and time) is left as it is."""
    await conn.execute(
        _PARK, [{**row._asdict(), "attempts": 1, "state": ParkedState.OPEN, "recorded_at": recorded_at} for row in rows]
    )


async def count_defects(conn: AsyncConnection) -> int:
    """How many records wait because our own code raised on them, at most `DEFECTS_COUNTED_MAX`."""
    return int(await conn.scalar(_COUNT_DEFECTS) or 0)
