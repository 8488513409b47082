"""The outcome of commands: the one place that asks.

The journal knows most. What was answered with 202 is remembered beside it (`accepted`), because a command that nobody
has decided has no row anywhere else, and because who may ask must be known.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final, cast
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Text,
    Uuid,
    bindparam,
    case,
    exists,
    func,
    literal_column,
    null,
    or_,
    select,
    union_all,
)
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlmodel import col

from org_service.domain.outcomes import KnownOutcome, Undecided, UndecidedStatus
from org_service.domain.reasons import LossReason, ParkedState
from org_service.store.prepared import Prepared
from org_service.store.sql import Rows, columns, constant
from org_service.store.tables import AcceptedCommandRow, JournalRow, LostRangeRow, ParkedRow

_DECIDED_AFTER: Final = timedelta(seconds=60)
"""A worker that found its log changed has read it again by then."""

_JOURNAL_RANK: Final = 0
"""Of the rows about one command the one to believe has the lowest rank."""

_command_id = bindparam("command_id", type_=Uuid)
_JOURNALED: Final = columns(JournalRow, KnownOutcome._fields)
_FIND_JOURNALED: Final = select(*_JOURNALED).where(
    col(JournalRow.command_id) == func.any(bindparam("ids", type_=ARRAY(Uuid)))
)


def _find() -> Rows:
    """Of one command the first of: its row of the journal, the record that is parked, what was accepted.

    All in the columns of a `KnownOutcome`; where nothing is decided yet, those of an `Undecided` are filled.
    """
    parked: dict[str, Any] = {
        "command_id": ParkedRow.command_id,
        "org_id": ParkedRow.org_id,
        "outcome": literal_column("'parked'", Text),
        "actor": AcceptedCommandRow.actor,
        "request_digest": ParkedRow.request_digest,
        "recorded_at": ParkedRow.recorded_at,
    }
    accepted: dict[str, Any] = {
        "command_id": AcceptedCommandRow.command_id,
        "org_id": AcceptedCommandRow.org_id,
        "outcome": _fate(),
        "actor": AcceptedCommandRow.actor,
        "recorded_at": AcceptedCommandRow.accepted_at,
    }
    ranks: list[Any] = [literal_column(str(rank)).label("rank") for rank in range(_JOURNAL_RANK, 3)]
    found = union_all(
        select(ranks[0], *_JOURNALED).where(col(JournalRow.command_id) == _command_id),
        select(ranks[1], *(parked.get(field, null()) for field in KnownOutcome._fields))
        .outerjoin(AcceptedCommandRow, col(AcceptedCommandRow.command_id) == col(ParkedRow.command_id))
        .where(col(ParkedRow.command_id) == _command_id, col(ParkedRow.state) == constant(ParkedState.OPEN)),
        select(ranks[2], *(accepted.get(field, null()) for field in KnownOutcome._fields)).where(
            col(AcceptedCommandRow.command_id) == _command_id
        ),
    ).subquery("found")
    return select(*found.c).order_by(found.c.rank, found.c.recorded_at).limit(1)


def _fate() -> ColumnElement[str]:
    """Of a command that was accepted and not decided: `expired` where its offset is in a range that was lost.

    Offsets that a log gave out again, or another topic, may be those of commands that are there now and are about to be
    decided: so such a range counts only after a while.
    """
    lost = exists().where(
        col(LostRangeRow.partition) == col(AcceptedCommandRow.partition),
        col(LostRangeRow.from_offset) <= col(AcceptedCommandRow.offset),
        or_(col(LostRangeRow.to_offset).is_(None), col(LostRangeRow.to_offset) > col(AcceptedCommandRow.offset)),
        col(LostRangeRow.noticed_at) >= col(AcceptedCommandRow.accepted_at),
        or_(
            col(LostRangeRow.why) == constant(LossReason.EXPIRED),
            col(LostRangeRow.noticed_at) < func.now() - _DECIDED_AFTER,
        ),
    )
    return case((lost, literal_column("'expired'", Text)), else_=literal_column("'pending'", Text))


_FIND: Final = Prepared(_find())


async def find_journaled(conn: AsyncConnection, command_ids: Sequence[UUID]) -> dict[UUID, KnownOutcome]:
    """Which commands of a batch were decided already. Only after the locks: see `organizations`."""
    rows = await conn.execute(_FIND_JOURNALED, {"ids": command_ids})
    return {row[0]: KnownOutcome._make(row) for row in rows}


async def find(conn: AsyncConnection, command_id: UUID) -> KnownOutcome | Undecided | None:
    """Find the outcome of a command: one statement; None where nothing is known of it.

    Who asks isn't judged here: only the actor and staff may be told.
    """
    rows = await _FIND.fetch(conn, {"command_id": command_id})
    if not rows:
        return None
    rank, *row = rows[0]
    known = KnownOutcome._make(row)
    if rank == _JOURNAL_RANK:
        return known
    return Undecided(
        known.command_id,
        known.org_id,
        cast("UndecidedStatus", known.outcome),
        known.actor,
        known.request_digest,
        known.recorded_at,
    )
