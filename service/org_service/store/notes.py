"""What operators' tools wrote down about organizations, for whoever has to blank it out (`domain.forgetting`)."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

from sqlalchemy import DateTime, Text, Uuid, and_, bindparam, func, or_, select, update
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlmodel import col

from org_service.domain.reasons import OperationState
from org_service.store.sql import columns, constant
from org_service.store.tables import MarkRow, OperationRow


class OperationNote(NamedTuple):
    """The texts of an operation."""

    id: UUID
    parameters: dict[str, Any]
    facts: Any
    sample: list[Any]
    notes: list[Any]
    progress: Any
    reason: str
    error: str | None
    items: int
    over: bool
    """Whether it is ended, or a plan whose time is over; if not, a run still needs parameters, facts and progress."""
    changed_at: datetime


class MarkNote(NamedTuple):
    """Why a mark was made."""

    name: str
    reason: str


_over = or_(
    col(OperationRow.ended_at).is_not(None),
    and_(
        col(OperationRow.state) == constant(OperationState.PLANNED),
        col(OperationRow.expires_at) <= func.clock_timestamp(),
    ),
)
_changed_at = func.greatest(
    col(OperationRow.created_at), col(OperationRow.ended_at), col(OperationRow.started_at)
).label("changed_at")
_TEXTS: Final = OperationNote._fields[1:-3]
_LIST_OPERATIONS: Final = select(
    *columns(OperationRow, ("id", *_TEXTS, "items")), _over.label("over"), _changed_at
).where(_changed_at.element >= bindparam("since", type_=DateTime(timezone=True)))
_LIST_MARKS: Final = select(*columns(MarkRow, MarkNote._fields))
_id = bindparam("operation_id", type_=Uuid)
_shown: dict[str, Any] = {
    "sample": bindparam("new_sample", type_=JSONB),
    "notes": bindparam("new_notes", type_=JSONB),
    "reason": bindparam("new_reason", type_=Text),
}
_BLANK_OPERATION: Final = (
    update(OperationRow)
    .where(col(OperationRow.id) == _id)
    .values(
        _shown
        | {
            "parameters": bindparam("new_parameters", type_=JSONB),
            "facts": bindparam("new_facts", type_=JSONB),
            "progress": bindparam("new_progress", type_=JSONB(none_as_null=True)),
            "error": bindparam("new_error", type_=Text),
        }
    )
)
_BLANK_SHOWN: Final = update(OperationRow).where(col(OperationRow.id) == _id).values(_shown)
_BLANK_MARK: Final = (
    update(MarkRow)
    .where(col(MarkRow.name) == bindparam("mark_name", type_=Text))
    .values(reason=bindparam("new_reason", type_=Text))
)


async def list_operations(conn: AsyncConnection, since: datetime) -> list[OperationNote]:
    """Operations that began, or ended, since a moment; all of them in memory."""
    return [OperationNote._make(row) for row in await conn.execute(_LIST_OPERATIONS, {"since": since})]


async def list_marks(conn: AsyncConnection) -> list[MarkNote]:
    """All marks."""
    return [MarkNote._make(row) for row in await conn.execute(_LIST_MARKS)]


async def blank_operations(conn: AsyncConnection, operations: Sequence[OperationNote]) -> None:
    """Write the texts of operations; of one that is not over only what nothing depends on."""
    for each in operations:
        given = {"operation_id": each.id, **{f"new_{name}": getattr(each, name) for name in _TEXTS}}
        if each.over:
            await conn.execute(_BLANK_OPERATION, given)
        else:
            shown = ("operation_id", *(f"new_{name}" for name in _shown))
            await conn.execute(_BLANK_SHOWN, {name: given[name] for name in shown})


async def blank_marks(conn: AsyncConnection, marks: Sequence[MarkNote]) -> None:
    """Write the reasons of marks."""
    for each in marks:
        await conn.execute(_BLANK_MARK, {"mark_name": each.name, "new_reason": each.reason})
