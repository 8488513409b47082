"""What the journal says of commands that are rehearsed: their outcomes, and what stood before them.

Everything is asked for a batch at a time, as of a position: the journal, not the table `organization`, knows what an
organization was then.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Integer,
    Text,
    Uuid,
    and_,
    bindparam,
    func,
    literal,
    literal_column,
    or_,
    select,
    true,
)
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlmodel import col

from org_events.events import EventType
from org_events.results import PROBLEMS, ProblemType
from org_service.domain.organization import to_json, without_content
from org_service.domain.outcomes import NewOutcome
from org_service.domain.reasons import ParkedState
from org_service.store.journal import COLUMNS
from org_service.store.prepared import Prepared
from org_service.store.sql import columns, constant, unnest
from org_service.store.tables import JournalRow, ParkedRow, PartnershipRow


class Recorded(NamedTuple):
    """A command's row of the journal."""

    position: int
    row: NewOutcome


class LastChange(NamedTuple):
    """The last change of an organization before a position: what it was then."""

    version: int
    event_type: str
    before: str | None
    after: str | None
    recorded_at: datetime


class GivenUp(NamedTuple):
    """A change by which an organization gave up its name."""

    position: int
    org_id: UUID
    before: str


class ParkedThen(NamedTuple):
    """A record that is, or was, parked."""

    partition: int
    offset: int
    broker_time: datetime
    org_id: UUID | None
    command_id: UUID | None
    request_digest: bytes | None
    reason: str
    state: str
    actor: str | None
    authenticated_by: str | None


_DISCARDED: Final = literal_column(str(PROBLEMS[ProblemType.DISCARDED][0]), Integer)
_ids = bindparam("ids", type_=ARRAY(Uuid))
_after = bindparam("after", type_=BigInteger)
_through = bindparam("through", type_=BigInteger)
# Not of organizations that are erased: what is left of an outcome can't be compared. A discarded command may have been
# without a digest before.
_FIND_COMMANDS: Final = Prepared(
    select(*columns(JournalRow, COLUMNS)).where(
        col(JournalRow.command_id) == func.any(_ids),
        or_(func.length(col(JournalRow.request_digest)) > literal_column("0"), col(JournalRow.code) == _DISCARDED),
    )
)
_asked = unnest({"org_id": Uuid, "position": BigInteger}, prefix="asked_")
_last = (
    select(*columns(JournalRow, LastChange._fields))
    .where(
        col(JournalRow.org_id) == _asked.c.org_id,
        col(JournalRow.event_type).is_not(None),
        col(JournalRow.position) < _asked.c.position,
    )
    .order_by(col(JournalRow.version).desc())
    .limit(1)
    .lateral("last")
)
_FIND_LAST_CHANGES: Final = select(_asked.c.org_id, _asked.c.position, *_last.c).join(_last, true())
_FIND_GIVEN_UP: Final = (
    select(col(JournalRow.position), col(JournalRow.org_id), col(JournalRow.before))
    .where(
        col(JournalRow.position) > _after,
        col(JournalRow.position) <= _through,
        col(JournalRow.before).is_not(None),  # else it was erased
        or_(
            col(JournalRow.event_type) == constant(EventType.DELETED),
            and_(
                col(JournalRow.event_type) == constant(EventType.UPDATED),
                col(JournalRow.changed).contains(literal('"name"', Text)),
            ),
        ),
    )
    .order_by(col(JournalRow.position))
)
_FIND_PARTNERS: Final = (
    select(col(PartnershipRow.partner_org_id)).where(col(PartnershipRow.org_id) == func.any(_ids)).distinct()
)
_FIND_CLIENTS: Final = (
    select(col(PartnershipRow.org_id)).where(col(PartnershipRow.partner_org_id) == func.any(_ids)).distinct()
)
_parked = select(*columns(ParkedRow, ParkedThen._fields))
_at = unnest({"partition": Integer, "offset": BigInteger}, prefix="at_")
_FIND_PARKED_RECORDS: Final = _parked.join(
    _at, and_(col(ParkedRow.partition) == _at.c.partition, col(ParkedRow.offset) == _at.c.offset)
).where(col(ParkedRow.topic) == bindparam("topic", type_=Text))
_FIND_PARKED_COMMANDS: Final = _parked.where(col(ParkedRow.command_id) == func.any(_ids))
_FIND_WAITING: Final = _parked.where(
    col(ParkedRow.org_id) == func.any(_ids),
    col(ParkedRow.state) == constant(ParkedState.OPEN),
    col(ParkedRow.command_id).is_not(None),
).order_by(col(ParkedRow.id))
_range = unnest({"partition": Integer, "first": BigInteger, "end": BigInteger}, prefix="range_")
_from_ms = bindparam("from_ms", type_=BigInteger)
_to_ms = bindparam("to_ms", type_=BigInteger)
_orgs = bindparam("org_ids", type_=ARRAY(Uuid))
_commands = bindparam("command_ids", type_=ARRAY(Uuid))
_COUNT_DECIDED: Final = (
    select(func.count())
    .select_from(JournalRow)
    .join(_range, col(JournalRow.command_partition) == _range.c.partition)
    .where(
        col(JournalRow.position) > _after,
        col(JournalRow.position) <= _through,
        col(JournalRow.command_offset) >= _range.c.first,
        col(JournalRow.command_offset) < _range.c.end,
        or_(_from_ms.is_(None), col(JournalRow.command_time_ms) >= _from_ms),
        or_(_to_ms.is_(None), col(JournalRow.command_time_ms) < _to_ms),
        or_(_orgs.is_(None), col(JournalRow.org_id) == func.any(_orgs)),
        or_(_commands.is_(None), col(JournalRow.command_id) == func.any(_commands)),
    )
)


async def find_commands(conn: AsyncConnection, command_ids: Collection[UUID]) -> dict[UUID, Recorded]:
    """The journal's rows of commands; of those that have none, nothing.

    Args:
        conn: In AUTOCOMMIT.
        command_ids: Thousands at once: fetched by the driver itself, for half the time.
    """
    rows = await _FIND_COMMANDS.fetch(conn, {"ids": list(command_ids)})
    return {row[1]: Recorded(row[0], NewOutcome._make(row[1:])) for row in rows}


async def find_last_changes(
    conn: AsyncConnection, asked: Collection[tuple[UUID, int]]
) -> dict[tuple[UUID, int], LastChange]:
    """The last change of each organization before its position; none where it had not been made by then."""
    if not asked:
        return {}
    ids, positions = zip(*asked, strict=True)
    rows: Any = await conn.execute(_FIND_LAST_CHANGES, {"asked_org_id": list(ids), "asked_position": list(positions)})
    return {(org_id, position): _before_erasure(org_id, LastChange._make(change)) for org_id, position, *change in rows}


def _before_erasure(org_id: UUID, change: LastChange) -> LastChange:
    """Of an erased organization all that is known: it had an id, and is deleted."""
    if change.before is not None or change.after is not None:
        return change
    return change._replace(before=to_json(without_content(org_id, 1, change.recorded_at)))


async def find_given_up(conn: AsyncConnection, after: int, through: int) -> list[GivenUp]:
    """The changes that gave up a name, behind a position up to another, in order. Reads all rows between them."""
    rows = await conn.execute(_FIND_GIVEN_UP, {"after": after, "through": through})
    return [GivenUp._make(row) for row in rows]


async def find_related(conn: AsyncConnection, clients: Collection[UUID], partners: Collection[UUID]) -> set[UUID]:
    """Who serves these clients, and whom these partners serve, as of now."""
    found: set[UUID] = set()
    if clients:
        found.update(await conn.scalars(_FIND_PARTNERS, {"ids": list(clients)}))
    if partners:
        found.update(await conn.scalars(_FIND_CLIENTS, {"ids": list(partners)}))
    return found


async def find_parked_records(
    conn: AsyncConnection, topic: str, at: Sequence[tuple[int, int]]
) -> dict[tuple[int, int], list[ParkedThen]]:
    """What is or was parked at partitions and offsets of a topic; several where offsets were given out again."""
    if not at:
        return {}
    partitions, offsets = zip(*at, strict=True)
    rows = await conn.execute(
        _FIND_PARKED_RECORDS, {"topic": topic, "at_partition": list(partitions), "at_offset": list(offsets)}
    )
    found: dict[tuple[int, int], list[ParkedThen]] = {}
    for row in rows:
        record = ParkedThen._make(row)
        found.setdefault((record.partition, record.offset), []).append(record)
    return found


async def find_parked_commands(conn: AsyncConnection, command_ids: Collection[UUID]) -> dict[UUID, ParkedThen]:
    """What is or was parked of commands."""
    if not command_ids:
        return {}
    rows = await conn.execute(_FIND_PARKED_COMMANDS, {"ids": list(command_ids)})
    return {parked.command_id: parked for row in rows if (parked := ParkedThen._make(row)).command_id is not None}


async def find_waiting(conn: AsyncConnection, org_ids: Collection[UUID]) -> list[ParkedThen]:
    """The commands of organizations that are parked now, in the order they were."""
    if not org_ids:
        return []
    return [ParkedThen._make(row) for row in await conn.execute(_FIND_WAITING, {"ids": list(org_ids)})]


async def count_decided(
    conn: AsyncConnection, after: int, through: int, ranges: Mapping[int, tuple[int, int]], **wanted: Any
) -> int:
    """Count the rows of commands at offsets of the topic, behind a position up to another. Reads all rows between them.

    Args:
        conn: Any.
        after: The position before the first row that counts.
        through: The last one.
        ranges: By partition, the first offset and the one behind the last.
        wanted: `from_ms`, `to_ms`, `org_ids`, `command_ids`: None for all.
    """
    parameters: dict[str, Any] = {"from_ms": None, "to_ms": None, "org_ids": None, "command_ids": None} | wanted
    bounds = {
        "range_partition": list(ranges),
        "range_first": [first for first, _ in ranges.values()],
        "range_end": [end for _, end in ranges.values()],
    }
    return int(await conn.scalar(_COUNT_DECIDED, parameters | bounds | {"after": after, "through": through}) or 0)
