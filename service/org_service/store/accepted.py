"""Commands that were answered with 202, so that whoever sent one may ask for its outcome (`outcomes`)."""

from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import BigInteger, DateTime, Integer, Text, Uuid, and_, bindparam, delete, func, literal_column, select
from sqlalchemy.dialects.postgresql import Insert, insert
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.types import NullType
from sqlmodel import col

from org_service.store.tables import AcceptedCommandRow

ACCEPTED_DAYS: Final = 14
"""How long an accepted command is remembered: as long as the topic keeps commands."""
DELETED_MAX: Final = 100
"""Old ones deleted with each new one; more than come in, so they can't pile up, and few enough not to be felt."""


def _remember() -> Insert:
    command_id = bindparam("command_id", type_=Uuid)
    row = literal_column("ctid", NullType())
    old = (
        select(row)
        .select_from(AcceptedCommandRow)
        .where(col(AcceptedCommandRow.accepted_at) < bindparam("kept_from", type_=DateTime(timezone=True)))
        .where(col(AcceptedCommandRow.command_id) != command_id)
        .order_by(col(AcceptedCommandRow.accepted_at))
        .limit(DELETED_MAX)
    )
    # By ctid, which is visited in order: two deletions of the same rows can't each hold what the other waits for.
    forgotten = delete(AcceptedCommandRow).where(row == func.any(func.ARRAY(old.scalar_subquery())))
    accepted = insert(AcceptedCommandRow).values(
        command_id=command_id,
        actor=bindparam("actor", type_=Text),
        org_id=bindparam("org_id", type_=Uuid),
        accepted_at=bindparam("now", type_=DateTime(timezone=True)),
        partition=bindparam("partition", type_=Integer),
        offset=bindparam("offset", type_=BigInteger),
    )
    # Sent again, it lies elsewhere: the outcome of the first record no longer matters.
    again = {name: accepted.excluded[name] for name in ("accepted_at", "partition", "offset")}
    elsewhere = and_(
        col(AcceptedCommandRow.actor) == accepted.excluded.actor,
        accepted.excluded.offset.is_not(None),
        accepted.excluded.accepted_at >= col(AcceptedCommandRow.accepted_at),
    )
    return accepted.on_conflict_do_update(index_elements=["command_id"], set_=again, where=elsewhere).add_cte(
        forgotten.cte("forgotten")
    )


# Not prepared: by SQLAlchemy's own way, a server that is read-only by now is left with every connection of the pool.
_REMEMBER: Final = _remember()


async def remember(
    conn: AsyncConnection,
    command_id: UUID,
    actor: str,
    org_id: UUID,
    now: datetime,
    *,
    partition: int | None = None,
    offset: int | None = None,
) -> None:
    """Remember that somebody was promised the outcome of a command, and forget some that are `ACCEPTED_DAYS` old.

    May run twice, and concurrently: the first one stays, but for where Kafka has the command. One statement.

    Args:
        conn: In AUTOCOMMIT.
        command_id: Of the command.
        actor: Who may ask.
        org_id: Of the organization.
        now: When it was accepted.
        partition: Where Kafka has it; None where that isn't known.
        offset: In that partition.
    """
    kept_from = now - timedelta(days=ACCEPTED_DAYS)
    parameters = {"command_id": command_id, "actor": actor, "org_id": org_id, "now": now, "kept_from": kept_from}
    await conn.execute(_REMEMBER, parameters | {"partition": partition, "offset": offset})
