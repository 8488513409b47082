"""What the edge asks about a caller and about a command that they sent before."""

from typing import Final
from uuid import UUID

from sqlalchemy import Text, Uuid, bindparam, exists, select
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlmodel import col

from org_service.store.tables import Journal, Parked, Staff

_DIGEST: Final = (
    select(col(Journal.request_digest))
    .where(col(Journal.command_id) == bindparam("command_id", type_=Uuid))
    .union_all(
        select(col(Parked.request_digest)).where(
            col(Parked.command_id) == bindparam("command_id", type_=Uuid), col(Parked.state) == "open"
        )
    )
    .limit(1)
)
_IS_STAFF: Final = select(exists().where(col(Staff.user_id) == bindparam("user_id", type_=Text)))


async def digest_of(conn: AsyncConnection, command_id: UUID) -> bytes | None:
    """The digest of the request that a command id belongs to; None while the worker has not decided about it."""
    return await conn.scalar(_DIGEST, {"command_id": command_id})


async def is_staff(conn: AsyncConnection, user_id: str) -> bool:
    """Whether a user works for whoever runs the platform."""
    return bool(await conn.scalar(_IS_STAFF, {"user_id": user_id}))
