"""What operators plan and run: one row each, from the plan to its end (guarantee 9).

Whoever runs one has a lease on it: the process's name in the row, and until when. Each step renews it in the
transaction of the step's own effect, and fails where somebody else has the row by now; so a process that was frozen,
or cut off, does nothing on top of what its successor did. Of what works on the same resource one is under way, by a
unique index.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    Float,
    Integer,
    Interval,
    Text,
    Uuid,
    and_,
    bindparam,
    case,
    false,
    func,
    literal_column,
    not_,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import JSONB, insert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlmodel import col

from org_service.domain.reasons import OperationState
from org_service.store.sql import columns, constant
from org_service.store.tables import OperationRow

NEEDS_APPROVAL: Final = "needs_approval"
"""A parameter: true where a second person has to approve, however few the items."""


class NewOperation(NamedTuple):
    """A plan to keep."""

    id: UUID
    kind: str
    parameters: Mapping[str, Any]
    resource: str
    items: int
    digest: str
    facts: Mapping[str, Any]
    sample: Sequence[Mapping[str, Any]]
    notes: Sequence[str]
    reason: str
    requested_by: str
    rate_per_second_max: float | None


class Operation(NamedTuple):
    """An operation as it stands."""

    id: UUID
    kind: str
    parameters: dict[str, Any]
    resource: str
    items: int
    digest: str
    facts: dict[str, Any]
    sample: list[dict[str, Any]]
    notes: list[str]
    """What an operator should know before."""
    reason: str
    requested_by: str
    approved_by: str | None
    state: OperationState
    asked_for: str | None
    detached: bool
    progress: Any
    done: int
    counts: dict[str, int]
    rate_per_second_max: float | None
    runner: str | None
    leased_until: datetime | None
    error: str | None
    created_at: datetime
    expires_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    now: datetime
    """By Postgres' clock, which judges times-to-live and leases."""

    @property
    def expired(self) -> bool:
        """Whether it is a plan whose time is over."""
        return self.state == OperationState.PLANNED and self.expires_at <= self.now

    @property
    def abandoned(self) -> bool:
        """Whether whoever ran it was silent for too long."""
        return self.state == OperationState.RUNNING and (self.leased_until is None or self.leased_until <= self.now)


class Lease(NamedTuple):
    """Who may run an operation, until it was silent for so long."""

    operation_id: UUID
    runner: str
    """The process."""
    lease_s: float


class Wishes(NamedTuple):
    """What others want of a run while it is under way."""

    asked_for: OperationState | None
    rate_per_second_max: float | None


_NOT_WANTED: Final = "'not wanted: cancelled before it ran'"
"""The reason of a plan that is cancelled and had none; SQL."""

_id = bindparam("operation_id", type_=Uuid)
_runner = bindparam("lease_runner", type_=Text)
_until = func.clock_timestamp() + bindparam("lease_s", type_=Interval)
_state = col(OperationRow.state)
_planned = _state == constant(OperationState.PLANNED)
_paused = _state == constant(OperationState.PAUSED)
_running = _state == constant(OperationState.RUNNING)
_valid = col(OperationRow.expires_at) > func.clock_timestamp()
_lapsed = and_(_running, col(OperationRow.leased_until) <= func.clock_timestamp())
_ours = (col(OperationRow.id) == _id, _running, col(OperationRow.runner) == _runner)
_now = func.clock_timestamp().label("now")
_FIELDS: Final = tuple(name for name in Operation._fields if name != "now")

_ADD: Final = (
    insert(OperationRow)
    .values(
        **{name: bindparam(name) for name in NewOperation._fields},
        state=constant(OperationState.PLANNED),
        detached=False,
        done=0,
        counts={},
        created_at=func.clock_timestamp(),
        expires_at=func.clock_timestamp() + bindparam("ttl", type_=Interval),
    )
    .on_conflict_do_nothing(index_elements=[col(OperationRow.id)])
)
_FIND: Final = select(*columns(OperationRow, _FIELDS), _now).where(col(OperationRow.id) == _id)
_LIST: Final = (
    select(*columns(OperationRow, _FIELDS), _now)
    .order_by(col(OperationRow.created_at).desc())
    .limit(bindparam("limit", type_=Integer))
)
_FIND_UNDER_WAY: Final = select(col(OperationRow.id)).where(
    col(OperationRow.resource) == bindparam("resource", type_=Text), or_(_running, _paused)
)
# The oldest first; planned ones only within their time, and none that nobody has approved where that is needed.
_FIND_DETACHED: Final = (
    select(col(OperationRow.id))
    .where(
        col(OperationRow.detached),
        or_(
            and_(
                _planned,
                _valid,
                or_(
                    col(OperationRow.approved_by).is_not(None),
                    and_(
                        col(OperationRow.items) <= bindparam("approval_above", type_=Integer),
                        not_(func.coalesce(col(OperationRow.parameters)[NEEDS_APPROVAL].as_boolean(), false())),
                    ),
                ),
            ),
            _lapsed,
        ),
    )
    .order_by(col(OperationRow.created_at))
    .limit(1)
)
_APPROVE: Final = (
    update(OperationRow)
    .where(col(OperationRow.id) == _id, _planned, _valid)
    # The first one counts.
    .values(approved_by=func.coalesce(col(OperationRow.approved_by), bindparam("approver", type_=Text)))
    .returning(col(OperationRow.id))
)
_TAKE: Final = (
    update(OperationRow)
    .where(col(OperationRow.id) == _id, or_(and_(_planned, _valid), _paused, _lapsed))
    .values(
        state=constant(OperationState.RUNNING),
        runner=_runner,
        leased_until=_until,
        asked_for=None,
        error=None,
        reason=func.coalesce(bindparam("new_reason", type_=Text), col(OperationRow.reason)),
        started_at=func.coalesce(col(OperationRow.started_at), func.clock_timestamp()),
    )
    .returning(col(OperationRow.id))
)
_ADVANCE: Final = (
    update(OperationRow)
    .where(*_ours)
    .values(
        progress=bindparam("new_progress", type_=JSONB(none_as_null=True)),
        done=bindparam("new_done", type_=BigInteger),
        counts=bindparam("new_counts", type_=JSONB),
        leased_until=_until,
    )
    .returning(col(OperationRow.asked_for), col(OperationRow.rate_per_second_max))
)
_RENEW: Final = (
    update(OperationRow)
    .where(*_ours)
    .values(leased_until=_until)
    .returning(col(OperationRow.asked_for), col(OperationRow.rate_per_second_max))
)
_END: Final = (
    update(OperationRow)
    .where(*_ours)
    .values(
        state=bindparam("new_state", type_=Text),
        asked_for=None,
        leased_until=None,
        error=bindparam("new_error", type_=Text),
        ended_at=func.clock_timestamp(),
    )
    .returning(col(OperationRow.id))
)
_RELEASE: Final = (
    update(OperationRow).where(*_ours).values(leased_until=func.clock_timestamp()).returning(col(OperationRow.id))
)
_REJECT: Final = (
    update(OperationRow)
    .where(col(OperationRow.id) == _id, _planned)
    .values(
        state=constant(OperationState.FAILED),
        error=bindparam("new_error", type_=Text),
        ended_at=func.clock_timestamp(),
    )
    .returning(col(OperationRow.id))
)
_ASK: Final = (
    update(OperationRow)
    .where(col(OperationRow.id) == _id, _running, col(OperationRow.leased_until) > func.clock_timestamp())
    .values(asked_for=bindparam("wish", type_=Text))
    .returning(col(OperationRow.id))
)
_CANCEL: Final = (
    update(OperationRow)
    .where(col(OperationRow.id) == _id, or_(_planned, _paused, _lapsed))
    .values(
        state=constant(OperationState.CANCELLED),
        asked_for=None,
        leased_until=None,
        ended_at=func.clock_timestamp(),
        # A plan may have none yet, and the table wants one of whatever isn't a plan.
        reason=func.coalesce(func.nullif(col(OperationRow.reason), literal_column("''")), literal_column(_NOT_WANTED)),
    )
    .returning(col(OperationRow.id))
)
_PAUSE: Final = (
    update(OperationRow)
    .where(col(OperationRow.id) == _id, _lapsed)
    .values(state=constant(OperationState.PAUSED), asked_for=None, leased_until=None)
    .returning(col(OperationRow.id))
)
_SET_RATE: Final = (
    update(OperationRow)
    .where(col(OperationRow.id) == _id, or_(_planned, _running, _paused))
    .values(rate_per_second_max=bindparam("rate", type_=Float))
    .returning(col(OperationRow.id))
)
# A paused one becomes one whose process is gone, which the role `operate` continues.
_DETACH: Final = (
    update(OperationRow)
    .where(col(OperationRow.id) == _id, or_(and_(_planned, _valid), _paused, _lapsed))
    .values(
        detached=True,
        reason=func.coalesce(bindparam("new_reason", type_=Text), col(OperationRow.reason)),
        state=case((_paused, constant(OperationState.RUNNING)), else_=_state),
        leased_until=case((_paused, func.clock_timestamp()), else_=col(OperationRow.leased_until)),
    )
    .returning(col(OperationRow.id))
)


async def add(conn: AsyncConnection, new: NewOperation, ttl_s: float) -> None:
    """Keep a plan, which can be run within `ttl_s` seconds; nothing where its id has one already."""
    ordered = {"facts": _pairs(new.facts), "sample": [_pairs(each) for each in new.sample], "notes": [*new.notes]}
    await conn.execute(_ADD, new._asdict() | ordered | {"ttl": timedelta(seconds=ttl_s)})


async def find(conn: AsyncConnection, operation_id: UUID) -> Operation | None:
    """Read an operation as it stands."""
    row = (await conn.execute(_FIND, {"operation_id": operation_id})).one_or_none()
    return None if row is None else _operation(row)


async def list_latest(conn: AsyncConnection, limit: int) -> list[Operation]:
    """The latest operations, latest first."""
    return [_operation(row) for row in await conn.execute(_LIST, {"limit": limit})]


async def find_under_way(conn: AsyncConnection, resource: str) -> UUID | None:
    """The operation on a resource that is running or paused."""
    return await conn.scalar(_FIND_UNDER_WAY, {"resource": resource})


async def find_detached(conn: AsyncConnection, approval_above: int) -> UUID | None:
    """The oldest operation that is left to a process of the role `operate`, and that nobody runs."""
    return await conn.scalar(_FIND_DETACHED, {"approval_above": approval_above})


async def approve(conn: AsyncConnection, operation_id: UUID, approved_by: str) -> bool:
    """Note who approved a plan; False where it is none any more."""
    return await conn.scalar(_APPROVE, {"operation_id": operation_id, "approver": approved_by}) is not None


async def take(conn: AsyncConnection, lease: Lease, reason: str | None) -> bool:
    """Begin a plan, or continue what is paused or was left behind.

    Returns:
        False where somebody else runs it, something else is under way on its resource, or it is over.
    """
    try:
        async with conn.begin_nested():
            return await conn.scalar(_TAKE, _asks(lease) | {"new_reason": reason}) is not None
    except IntegrityError:  # the unique index of resources
        return False


async def advance(conn: AsyncConnection, lease: Lease, progress: Any, counts: Mapping[str, int]) -> Wishes | None:
    """Note a step, in the transaction of its effect; None where the run is somebody else's by now: roll back then."""
    noted = {"new_progress": progress, "new_counts": counts, "new_done": sum(counts.values())}
    return _wishes((await conn.execute(_ADVANCE, _asks(lease) | noted)).one_or_none())


async def renew(conn: AsyncConnection, lease: Lease) -> Wishes | None:
    """Keep the lease during a long step; None where the run is somebody else's by now."""
    return _wishes((await conn.execute(_RENEW, _asks(lease))).one_or_none())


async def end(conn: AsyncConnection, lease: Lease, state: OperationState, error: str | None = None) -> bool:
    """End or pause a run; False where it is somebody else's by now."""
    ended = {"operation_id": lease.operation_id, "lease_runner": lease.runner, "new_state": state, "new_error": error}
    return await conn.scalar(_END, ended) is not None


async def release(conn: AsyncConnection, lease: Lease) -> bool:
    """Leave a run to any other process; False where it is somebody else's by now."""
    given_up = {"operation_id": lease.operation_id, "lease_runner": lease.runner}
    return await conn.scalar(_RELEASE, given_up) is not None


async def reject(conn: AsyncConnection, operation_id: UUID, error: str) -> bool:
    """End a plan that can't be begun; False where it is none any more."""
    return await conn.scalar(_REJECT, {"operation_id": operation_id, "new_error": error}) is not None


async def ask(conn: AsyncConnection, operation_id: UUID, wish: OperationState) -> bool:
    """Pause or cancel an operation: at once where nobody runs it; else its process does it after the step in flight.

    Returns:
        False where it is over, or is a plan that can't be paused.
    """
    this = {"operation_id": operation_id}
    if await conn.scalar(_ASK, this | {"wish": wish}) is not None:
        return True
    if wish == OperationState.CANCELLED:
        return await conn.scalar(_CANCEL, this) is not None
    return await conn.scalar(_PAUSE, this) is not None


async def set_rate(conn: AsyncConnection, operation_id: UUID, rate_per_second_max: float | None) -> bool:
    """Bound the rate of a plan or run from now on; False where it is over."""
    return await conn.scalar(_SET_RATE, {"operation_id": operation_id, "rate": rate_per_second_max}) is not None


async def detach(conn: AsyncConnection, operation_id: UUID, reason: str | None) -> bool:
    """Leave an operation that nobody runs to a process of the role `operate`; False where that can't be."""
    return await conn.scalar(_DETACH, {"operation_id": operation_id, "new_reason": reason}) is not None


def _asks(lease: Lease) -> dict[str, Any]:
    return {
        "operation_id": lease.operation_id,
        "lease_runner": lease.runner,
        "lease_s": timedelta(seconds=lease.lease_s),
    }


def _wishes(row: Any) -> Wishes | None:
    return None if row is None else Wishes(None if row[0] is None else OperationState(row[0]), row[1])


def _operation(row: Any) -> Operation:
    sample = [dict(each) for each in row.sample]
    return Operation._make(row)._replace(state=OperationState(row.state), facts=dict(row.facts), sample=sample)


def _pairs(shown: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """What people look at, in the order that it has; an object of JSONB has the order of Postgres."""
    return list(shown.items())
