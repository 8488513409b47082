"""What became of a command, for whoever was promised to be told: decided, parked, pending, or lost.

The journal knows most; what was answered with 202 is remembered beside it, because a command that nobody has decided
has no row anywhere else, and because who may ask must be known.
"""

from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    DateTime,
    Integer,
    Text,
    Uuid,
    and_,
    bindparam,
    case,
    delete,
    exists,
    func,
    literal_column,
    null,
    or_,
    select,
    text,
    union_all,
)
from sqlalchemy.dialects.postgresql import Insert, insert
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.types import NullType
from sqlmodel import col

from org_service.store.lists import Rows
from org_service.store.prepared import Prepared
from org_service.store.tables import AcceptedCommand, Journal, LostRange, Parked

ACCEPTED_DAYS: Final = 14
"""How long an accepted command is remembered: as long as the topic keeps commands."""
ACCEPTED_DELETED_MAX: Final = 100
"""Old ones deleted with each new one; more than come in, so they can't pile up, and few enough not to be felt."""


_DECIDED_AFTER: Final = timedelta(seconds=60)
"""A worker that found its log changed has read it again by then."""


class Answer(NamedTuple):
    """What is known of a command."""

    command_id: UUID
    actor: str | None
    """Of a parked command: whoever was promised an answer, else None."""
    org_id: UUID | None
    outcome: str
    """`applied`, `unchanged`, `rejected`; `parked`; `pending` where it was accepted and nothing else is known yet,
    `expired` where Kafka lost it since."""
    code: int | None
    version: int | None
    position: int | None
    after: str | None
    """JSON of the organization as it was then; None after a delete and when refused."""
    problem: str | None
    """JSON of the problem of a refused command."""
    at: datetime
    changed: str | None = None
    """JSON of the names of the fields that changed; None where none did."""


_org_id = bindparam("org_id", type_=Uuid)
_command_id = bindparam("command_id", type_=Uuid)


def _answer() -> Rows:
    journaled = [getattr(Journal, "recorded_at" if field == "at" else field) for field in Answer._fields[:-1]]
    journaled.append(case((col(Journal.event_type).is_not(None), col(Journal.changed))))
    nothing_yet: list[Any] = [null()] * 5
    parked: list[Any] = [Parked.command_id, AcceptedCommand.actor, Parked.org_id, literal_column("'parked'")]
    parked += [*nothing_yet, Parked.recorded_at, null()]
    pending: list[Any] = [AcceptedCommand.command_id, AcceptedCommand.actor, AcceptedCommand.org_id]
    pending += [_fate(), *nothing_yet, AcceptedCommand.accepted_at, null()]
    ranks: list[Any] = [literal_column(str(rank)).label("rank") for rank in range(3)]
    known = union_all(
        select(ranks[0], *journaled).where(col(Journal.command_id) == _command_id),
        select(ranks[1], *parked)
        .outerjoin(AcceptedCommand, col(AcceptedCommand.command_id) == col(Parked.command_id))
        .where(col(Parked.command_id) == _command_id, col(Parked.state) == text("'open'")),
        select(ranks[2], *pending).where(col(AcceptedCommand.command_id) == _command_id),
    ).subquery("known")
    return select(*known.c[1:]).order_by(known.c.rank, known.c.recorded_at).limit(1)


def _fate() -> ColumnElement[str]:
    """Of a command that was accepted and not decided: `expired` where its offset is in a range that was lost.

    Offsets that a log gave out again, or another topic, may be those of commands that are there now and are about to be
    decided: so such a range counts only after a while.
    """
    lost = exists().where(
        col(LostRange.partition) == col(AcceptedCommand.partition),
        col(LostRange.from_offset) <= col(AcceptedCommand.offset),
        or_(col(LostRange.to_offset).is_(None), col(LostRange.to_offset) > col(AcceptedCommand.offset)),
        col(LostRange.noticed_at) >= col(AcceptedCommand.accepted_at),
        or_(col(LostRange.why) == text("'expired'"), col(LostRange.noticed_at) < func.now() - _DECIDED_AFTER),
    )
    return case((lost, literal_column("'expired'", Text)), else_=literal_column("'pending'", Text))


def _accept() -> Insert:
    place = literal_column("ctid", NullType())
    old = (
        select(place)
        .select_from(AcceptedCommand)
        .where(col(AcceptedCommand.accepted_at) < bindparam("kept_from", type_=DateTime(timezone=True)))
        .where(col(AcceptedCommand.command_id) != _command_id)
        .order_by(col(AcceptedCommand.accepted_at))
        .limit(ACCEPTED_DELETED_MAX)
    )
    # By place, which is visited in order: two deletions of the same rows can't each hold what the other waits for.
    forgotten = delete(AcceptedCommand).where(place == func.any(func.ARRAY(old.scalar_subquery())))
    accepted = insert(AcceptedCommand).values(
        command_id=_command_id,
        actor=bindparam("actor", type_=Text),
        org_id=_org_id,
        accepted_at=bindparam("now", type_=DateTime(timezone=True)),
        partition=bindparam("partition", type_=Integer),
        offset=bindparam("offset", type_=BigInteger),
    )
    # Sent again, it lies elsewhere: what became of the first record no longer matters.
    again = {name: accepted.excluded[name] for name in ("accepted_at", "partition", "offset")}
    elsewhere = and_(
        col(AcceptedCommand.actor) == accepted.excluded.actor,
        accepted.excluded.offset.is_not(None),
        accepted.excluded.accepted_at >= col(AcceptedCommand.accepted_at),
    )
    return accepted.on_conflict_do_update(index_elements=["command_id"], set_=again, where=elsewhere).add_cte(
        forgotten.cte("forgotten")
    )


_ANSWER: Final = Prepared(_answer())
# Not prepared: by SQLAlchemy's own way, a server that is read-only by now is left with every connection of the pool.
_ACCEPT: Final = _accept()


async def answer_to(conn: AsyncConnection, command_id: UUID) -> Answer | None:
    """Find what became of a command: one statement; None where nothing is known of it.

    Who asks isn't judged here: only the actor and staff may be told.
    """
    rows = await _ANSWER.fetch(conn, {"command_id": command_id})
    return Answer._make(rows[0]) if rows else None


async def accept(
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
    await conn.execute(_ACCEPT, parameters | {"partition": partition, "offset": offset})
