"""Who is signed in to the operators' page, and what they did there (decision 0048).

A browser holds a secret, the table its digest. Whether its user is staff is asked each time, together with the session.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final, NamedTuple
from uuid import UUID

from sqlalchemy import Integer, Interval, LargeBinary, Text, Uuid, bindparam, delete, exists, func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlmodel import col

from org_service.domain.reasons import ConsoleAct, TicketKind
from org_service.store.sql import columns, constant
from org_service.store.tables import ConsoleActRow, ConsoleTicketRow, StaffRow


class SignedIn(NamedTuple):
    """Whose session it is."""

    user_id: str
    staff: bool


class Act(NamedTuple):
    """Something that was done on the page."""

    act: str
    user_id: str
    acted_at: datetime


_digest = bindparam("digest", type_=LargeBinary)
_user_id = bindparam("user_id", type_=Text)
_valid = col(ConsoleTicketRow.expires_at) > func.clock_timestamp()
_ADD_TICKET: Final = insert(ConsoleTicketRow).values(
    digest=_digest,
    kind=bindparam("kind", type_=Text),
    user_id=_user_id,
    expires_at=func.clock_timestamp() + bindparam("ttl", type_=Interval),
)
_FIND_SESSION: Final = select(
    col(ConsoleTicketRow.user_id), exists().where(col(StaffRow.user_id) == col(ConsoleTicketRow.user_id))
).where(col(ConsoleTicketRow.digest) == _digest, col(ConsoleTicketRow.kind) == constant(TicketKind.SESSION), _valid)
_USE_LINK: Final = (
    delete(ConsoleTicketRow)
    .where(col(ConsoleTicketRow.digest) == _digest, col(ConsoleTicketRow.kind) == constant(TicketKind.LINK), _valid)
    .returning(col(ConsoleTicketRow.user_id))
)
_END_SESSION: Final = delete(ConsoleTicketRow).where(col(ConsoleTicketRow.digest) == _digest)
_DROP_EXPIRED: Final = delete(ConsoleTicketRow).where(col(ConsoleTicketRow.expires_at) <= func.clock_timestamp())
_NOTE: Final = insert(ConsoleActRow).values(
    user_id=_user_id,
    act=bindparam("act", type_=Text),
    operation_id=bindparam("operation_id", type_=Uuid),
    acted_at=func.clock_timestamp(),
)
_LIST_ACTS: Final = (
    select(*columns(ConsoleActRow, Act._fields))
    .where(col(ConsoleActRow.operation_id) == bindparam("operation_id", type_=Uuid))
    .order_by(col(ConsoleActRow.id).desc())
    .limit(bindparam("limit", type_=Integer))
)


async def add_ticket(conn: AsyncConnection, digest: bytes, kind: TicketKind, user_id: str, ttl_s: float) -> None:
    """Keep the digest of a secret that is worth something for `ttl_s` seconds; and forget those that no longer are."""
    await conn.execute(_DROP_EXPIRED)
    given = {"digest": digest, "kind": kind, "user_id": user_id, "ttl": timedelta(seconds=ttl_s)}
    await conn.execute(_ADD_TICKET, given)


async def find_session(conn: AsyncConnection, digest: bytes) -> SignedIn | None:
    """Whose session it is, and whether they are staff now; None where there is none, or its time is over."""
    row = (await conn.execute(_FIND_SESSION, {"digest": digest})).one_or_none()
    return None if row is None else SignedIn._make(row)


async def use_link(conn: AsyncConnection, digest: bytes) -> str | None:
    """Whom a one-time link signs in; None where it was used, or its time is over. Of two at once, one gets it."""
    return await conn.scalar(_USE_LINK, {"digest": digest})


async def end_session(conn: AsyncConnection, digest: bytes) -> None:
    """End a session; may be called again."""
    await conn.execute(_END_SESSION, {"digest": digest})


async def note(conn: AsyncConnection, user_id: str, act: ConsoleAct, operation_id: UUID | None = None) -> None:
    """Keep what somebody does."""
    await conn.execute(_NOTE, {"user_id": user_id, "act": act, "operation_id": operation_id})


async def list_acts(conn: AsyncConnection, operation_id: UUID, limit: int) -> Sequence[Act]:
    """What was done to an operation on the page, latest first."""
    return [Act._make(row) for row in await conn.execute(_LIST_ACTS, {"operation_id": operation_id, "limit": limit})]
