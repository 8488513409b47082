"""The journal: appended to by the worker; read in order of position, and never past a hole that nobody accounts for.

Whoever takes positions from `journal_head` holds its lock until commit, so at any moment the committed rows
are a prefix: a reader in READ COMMITTED needs no more than "after this position". `read_after` proves it each time
all the same, because a row missed would never be published and nobody would know. The holes it may step over are those
that `recovery` made and noted down.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple, cast
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    DateTime,
    Integer,
    Text,
    Uuid,
    and_,
    bindparam,
    func,
    literal_column,
    not_,
    or_,
    select,
    true,
    type_coerce,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlmodel import col

from org_events.events import EventType
from org_service.domain.outcomes import JournaledOutcome, NewOutcome
from org_service.errors import RetryError, StopError
from org_service.store.engine import Session
from org_service.store.sql import columns, constant, unnest
from org_service.store.tables import JOURNAL_CHANNEL, JournalGapRow, JournalHeadRow, JournalRow


class Gap(NamedTuple):
    """Positions without rows, both ends included, that an operator gave up."""

    first_position: int
    last_position: int

    def holds(self, position: int) -> bool:
        """Whether a position is one of them."""
        return self.first_position <= position <= self.last_position


class EventFilter(NamedTuple):
    """Which changes are meant: all conditions hold. None asks for all."""

    org_ids: Sequence[UUID] | None = None
    types: Sequence[str] | None = None
    """Of events, as `org.updated`."""
    actors: Sequence[str] | None = None
    command_ids: Sequence[UUID] | None = None
    from_time: datetime | None = None
    to_time: datetime | None = None
    """Recorded before this."""
    trace_ids: Sequence[str] | None = None
    """Of their commands' `traceparent`: 32 hex digits. A run's is its id."""


class PastState(NamedTuple):
    """What an organization was as of a position: its last change up to there."""

    org_id: UUID
    position: int
    version: int
    after: dict[str, Any] | None
    """None where it was deleted."""


class PastChange(NamedTuple):
    """One change of an organization, for whoever takes changes back."""

    org_id: UUID
    version: int
    position: int
    event_type: str
    changed: list[str]
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    actor: str | None


class HistoryEntry(NamedTuple):
    """One change of one organization."""

    position: int
    version: int
    event_type: str
    command_type: str
    command_id: UUID
    actor: str | None
    changed: list[str]
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    recorded_at: datetime


NO_HEAD: Final = (
    "journal_head has no row: `orgs rebuild` or `orgs recover` is writing the journal from the topics, or such a run "
    "was interrupted. Stop workers, relay and edges until it is done; `orgs runs` shows it, `orgs runs resume ID` goes "
    "on with it. If there is no such run, the row was deleted: set it to the highest position of the journal."
)
COLUMNS: Final = ("position", *NewOutcome._fields)
"""Of the rows that are appended, in order."""
_rows = bindparam("rows", type_=BigInteger)
_position = bindparam("position", type_=BigInteger)
_TAKE_POSITIONS: Final = (
    update(JournalHeadRow)
    .values(position=col(JournalHeadRow.position) + _rows)
    .returning(col(JournalHeadRow.position) - _rows, func.pg_notify(JOURNAL_CHANNEL, ""))
)
_READ_AFTER: Final = (
    select(*columns(JournalRow, JournaledOutcome._fields))
    .where(col(JournalRow.position) > _position)
    .order_by(col(JournalRow.position))
    .limit(bindparam("limit", type_=Integer))
)
_from_time = bindparam("from_time", type_=DateTime(timezone=True))
_to_time = bindparam("to_time", type_=DateTime(timezone=True))


def _among(column: Any, name: str, type_: Any) -> ColumnElement[bool]:
    """Null asks for all. Planned for each call, so that costs nothing."""
    values = bindparam(name, type_=ARRAY(type_))
    return or_(values.is_(None), column == func.any(values))


# "00-", the id of the trace, "-" …; coerced, because of two functions Python puts the second one to the left of `=`.
_trace_id = type_coerce(func.substr(col(JournalRow.traceparent), literal_column("4"), literal_column("32")), Text)
_is_left = or_(
    col(JournalRow.before).is_not(None),
    col(JournalRow.after).is_not(None),
    col(JournalRow.event_type) == constant(EventType.ERASED),
)
"""Every change has one of both, but where it was erased with its organization; then only the erasure is left."""
_asked_for = (
    col(JournalRow.position) > _position,
    col(JournalRow.position) <= bindparam("through", type_=BigInteger),
    col(JournalRow.event_type).is_not(None),
    _among(col(JournalRow.org_id), "org_ids", Uuid),
    _among(col(JournalRow.event_type), "types", Text),
    _among(col(JournalRow.actor), "actors", Text),
    _among(col(JournalRow.command_id), "command_ids", Uuid),
    or_(_from_time.is_(None), col(JournalRow.recorded_at) >= _from_time),
    or_(_to_time.is_(None), col(JournalRow.recorded_at) < _to_time),
    _among(_trace_id, "trace_ids", Text),
)
_meant = (*_asked_for, _is_left)
_limit = bindparam("limit", type_=Integer)
_SELECT_EVENTS: Final = (
    select(*columns(JournalRow, JournaledOutcome._fields))
    .where(*_meant)
    .order_by(col(JournalRow.position))
    .limit(_limit)
)
_SELECT_EVENT_IDS: Final = (
    select(*columns(JournalRow, ("position", "command_id")))
    .where(*_meant)
    .order_by(col(JournalRow.position))
    .limit(_limit)
)
_COUNT_EMPTIED: Final = select(func.count()).select_from(JournalRow).where(*_asked_for, not_(_is_left))
_through = bindparam("through", type_=BigInteger)
_asked = unnest({"org_id": Uuid}, prefix="asked_")
_last = (
    select(*columns(JournalRow, PastState._fields, json=("after",)))
    .where(
        col(JournalRow.org_id) == _asked.c.org_id,
        col(JournalRow.event_type).is_not(None),  # the condition of the index
        col(JournalRow.position) <= _through,
    )
    .order_by(col(JournalRow.version).desc())
    .limit(1)
    .lateral("last")
)
_SELECT_STATES: Final = select(_last).select_from(_asked).join(_last, true())
_since = unnest({"org_id": Uuid, "version": BigInteger}, prefix="since_")
_SELECT_SINCE: Final = (
    select(*columns(JournalRow, PastChange._fields, json=("changed", "before", "after")))
    .join_from(
        _since,
        JournalRow,
        and_(col(JournalRow.org_id) == _since.c.org_id, col(JournalRow.version) >= _since.c.version),
    )
    .where(col(JournalRow.event_type).is_not(None), col(JournalRow.position) <= _through)
    .order_by(col(JournalRow.org_id), col(JournalRow.version))
)
_FIND_COMMAND_ID: Final = select(col(JournalRow.command_id)).where(col(JournalRow.position) == _position)
_READ_HEAD: Final = select(col(JournalHeadRow.position))
_READ_GAPS: Final = select(col(JournalGapRow.first_position), col(JournalGapRow.last_position))
_READ_HISTORY: Final = (
    select(*columns(JournalRow, HistoryEntry._fields, json=("changed", "before", "after")))
    .where(col(JournalRow.org_id) == bindparam("org_id", type_=Uuid))
    .where(col(JournalRow.event_type).is_not(None))  # the condition of the index
    .where(col(JournalRow.version) > bindparam("after_version", type_=BigInteger))
    .order_by(col(JournalRow.version))
    .limit(bindparam("limit", type_=Integer))
)


async def take_positions(conn: AsyncConnection, rows: int) -> int:
    """Take the next positions, and wake the relay at the commit.

    From here to the commit this transaction holds the head's lock, which every other worker waits for: so last before
    `append`; but before `organizations.write` where a name changes hands. Whoever writes a name waits in its
    unique index for everybody who is writing the same one, and of three such some wait for each other.

    Returns:
        The position before the first row.

    Raises:
        RetryError: The head is taken away while the journal is written from the topics (`restoring`).
    """
    before = (await conn.execute(_TAKE_POSITIONS, {"rows": rows})).scalar_one_or_none()
    if before is None:
        raise RetryError(NO_HEAD)
    return int(before)


async def append(conn: AsyncConnection, start: int, rows: Sequence[NewOutcome]) -> None:
    """Append `rows` in order: row i (from 0) has position start + 1 + i, which were taken before.

    The rows go by COPY: half the processor time of an insert from arrays, here and in Postgres. Past SQLAlchemy, which
    begins a transaction at its own first statement: one must have been run before.

    Raises:
        asyncpg.UniqueViolationError: A command id is in the journal meanwhile; roll back and decide again.
    """
    session = cast("Session", (await conn.get_raw_connection()).driver_connection)
    await session.copy_records_to_table(
        JournalRow.__tablename__,
        records=[(position, *row) for position, row in enumerate(rows, start + 1)],
        columns=COLUMNS,
    )


async def read_after(conn: AsyncConnection, position: int, limit: int) -> list[JournaledOutcome]:
    """Read the next rows of the journal, in order, without a gap but for known ones (`read_gaps`).

    Costs one statement, and another where it meets a gap; on a connection in AUTOCOMMIT it costs no BEGIN and COMMIT
    besides.

    Args:
        conn: In READ COMMITTED or AUTOCOMMIT.
        position: The last one that was read; 0 begins at the beginning.
        limit: Rows at most, at least 1.

    Returns:
        The rows at `position + 1`, `position + 2` …, known gaps stepped over; fewer than `limit` when these are all
        there are.

    Raises:
        StopError: A position is missing, so somebody changed the journal by hand, or it was restored in part.
        sqlalchemy.exc.DBAPIError: Nothing was read; `failures.classify` says what to do.
    """
    result = await conn.execute(_READ_AFTER, {"position": position, "limit": limit})
    rows = [JournaledOutcome._make(row) for row in result]
    # Ordered and unique, so the ends tell whether everything between them is there.
    # guarantee 3: a missing position stops the relay; it never publishes past a committed row that it did not see.
    if rows and rows[-1].position != position + len(rows):
        _raise_if_unknown_holes(position, rows, await read_gaps(conn))
    return rows


async def select_events(
    conn: AsyncConnection, after: int, through: int, wanted: EventFilter, limit: int
) -> list[JournaledOutcome]:
    """Read the next changes of a selection, in order; rows that are not changes are left out.

    So are those of erased organizations, but for the erasure itself: nobody could understand them.

    Costs as much as the journal has rows between the two positions, whatever is wanted; so ask for a window at a time.

    Args:
        conn: Any.
        after: The position before the first one that may be meant.
        through: The last one that may be meant.
        wanted: Which of them.
        limit: At most so many.
    """
    parameters = wanted._asdict() | {"position": after, "through": through, "limit": limit}
    return [JournaledOutcome._make(row) for row in await conn.execute(_SELECT_EVENTS, parameters)]


async def select_event_ids(
    conn: AsyncConnection, after: int, through: int, wanted: EventFilter, limit: int
) -> list[tuple[int, UUID]]:
    """Read which the next changes of a selection are: position and command id. As `select_events`, without the bodies.

    A sixth of its time; enough to count them and to tell whether they are the same ones.
    """
    parameters = wanted._asdict() | {"position": after, "through": through, "limit": limit}
    return [(row.position, row.command_id) for row in await conn.execute(_SELECT_EVENT_IDS, parameters)]


async def count_emptied(conn: AsyncConnection, after: int, through: int, wanted: EventFilter) -> int:
    """Count the changes of a selection that `select_events` leaves out, because their organizations were erased."""
    parameters = wanted._asdict() | {"position": after, "through": through}
    return int(await conn.scalar(_COUNT_EMPTIED, parameters) or 0)


async def select_states(conn: AsyncConnection, org_ids: Collection[UUID], through: int) -> dict[UUID, PastState]:
    """Read what organizations were as of a position; those that were not there yet are left out.

    The same for ever, whatever happens to them later: the journal only grows. An erased one counts as deleted, though.
    """
    rows = await conn.execute(_SELECT_STATES, {"asked_org_id": list(org_ids), "through": through})
    return {row.org_id: PastState._make(row) for row in rows}


async def select_since(conn: AsyncConnection, versions: Mapping[UUID, int], through: int) -> list[PastChange]:
    """Read all changes of organizations from a version of each on, up to a position; by organization, in order."""
    given = {"since_org_id": list(versions), "since_version": list(versions.values()), "through": through}
    return [PastChange._make(row) for row in await conn.execute(_SELECT_SINCE, given)]


def _raise_if_unknown_holes(position: int, rows: Sequence[JournaledOutcome], known: Sequence[Gap]) -> None:
    for row in rows:
        while (missing := position + 1) != row.position:
            gap = next((gap for gap in known if gap.holds(missing) and gap.last_position < row.position), None)
            if gap is None:
                raise StopError(
                    f"The journal has no row at position {missing}, though it has later ones: rows were deleted, "
                    "or restored only in part. Restore the whole journal; nothing was published past the gap."
                )
            position = gap.last_position
        position = row.position


async def read_head(conn: AsyncConnection) -> int:
    """The last position given out; 0 before the first command.

    Raises:
        StopError: The row of `journal_head` is gone, so no command can be written and no lag can be told.
    """
    position = await conn.scalar(_READ_HEAD)
    if position is None:
        raise StopError(NO_HEAD)
    return position


async def read_gaps(conn: AsyncConnection) -> list[Gap]:
    """What `orgs journal advance` left out, ever; as a rule nothing. In no order."""
    return [Gap._make(row) for row in await conn.execute(_READ_GAPS)]


async def find_command_id(conn: AsyncConnection, position: int) -> UUID | None:
    """Whose outcome stands at a position; None where there is no row."""
    return await conn.scalar(_FIND_COMMAND_ID, {"position": position})


async def read_history(conn: AsyncConnection, org_id: UUID, limit: int, after_version: int = 0) -> list[HistoryEntry]:
    """Read the changes of one organization in order: the next `limit` after `after_version`."""
    wanted = {"org_id": org_id, "limit": limit, "after_version": after_version}
    return [HistoryEntry._make(row) for row in await conn.execute(_READ_HISTORY, wanted)]
