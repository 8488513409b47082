"""Organizations as they were: `orgs show --at`, `orgs export --at`, `orgs diff`. From the journal, which only grows.

A moment is a position of the journal, the name of a mark, a time, or `now`. A time means the last position recorded up
to it. Positions follow the order of commits and times the workers' clocks, so among commands of the same second a
time is as exact as these clocks.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, Literal, NamedTuple
from uuid import UUID

from org_service.domain.organization import COMPARED_FIELDS, StoredOrganization
from org_service.errors import BadInputError, PreconditionError
from org_service.operate.changes import READ_ROWS_MAX, WINDOW_POSITIONS
from org_service.operate.rehearsing.batches import state_behind
from org_service.store import journal, marks, past, recorded
from org_service.store.database import DatabaseConnection

NOW: Final = "now"
_NOBODY: Final[Mapping[str, Any]] = {"deactivated": False}

Kind = Literal["created", "changed", "deleted", "restored"]


class Difference(NamedTuple):
    """An organization that is not what it was."""

    kind: Kind
    org_id: UUID
    name: str
    """Now, or at last."""
    position: int
    """Of its last change."""
    from_version: int | None
    """None where it was not there yet."""
    version: int
    changed: Sequence[str]
    before: Mapping[str, Any] | None
    """None where it was not there, or deleted."""
    after: Mapping[str, Any] | None
    """None where it is deleted."""


async def find_position(conn: DatabaseConnection, moment: str) -> int:
    """The position that a moment means: its organizations are those after it.

    Raises:
        PreconditionError: It has not come yet.
        BadInputError: It is none.
    """
    head = await journal.read_head(conn)
    if moment == NOW:
        return head
    if moment.isdecimal():
        if (position := int(moment)) > head:
            raise PreconditionError(f"position {position:,} has not come yet: the journal ends at {head:,}.")
        return position
    mark = await marks.find(conn, moment)
    return mark.position if mark is not None else await _find_last_until(conn, _time(moment), head)


def _time(moment: str) -> datetime:
    try:
        time = datetime.fromisoformat(moment)
    except ValueError:
        raise BadInputError(
            f"{moment[:100]!r} is neither a position, nor the name of a mark (`orgs marks`), nor a time such as "
            "2026-11-28T03:00:00."
        ) from None
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)


async def _find_last_until(conn: DatabaseConnection, time: datetime, head: int) -> int:
    """By halving: some 30 rows of a billion are looked at."""
    low, high = 0, head
    while low < high:
        middle = (low + high + 1) // 2
        found = await past.find_moment(conn, middle)
        if found is not None and found.position <= high and found.recorded_at <= time:
            low = found.position
        else:
            high = middle - 1
    return low


async def find_states(conn: DatabaseConnection, org_ids: Sequence[UUID], position: int) -> list[StoredOrganization]:
    """What organizations were after a position, in the order given; those that were not there yet are left out."""
    asked = [(org_id, position + 1) for org_id in org_ids]
    found = await recorded.find_last_changes(conn, asked)
    return [state_behind(org_id, found[org_id, at]) for org_id, at in asked if (org_id, at) in found]


async def compare(conn: DatabaseConnection, before: int, after: int) -> AsyncIterator[Sequence[Difference]]:
    """What differs between two positions, in steps, by position of the last change of each organization.

    Reads the journal between them; memory doesn't grow. What was changed and changed back is left out, as is what was
    created and deleted in between.
    """
    at = before
    while at < after:
        end = min(at + WINDOW_POSITIONS, after)
        rows = await past.select_last_changes(conn, at, end, after, READ_ROWS_MAX)
        was = await journal.select_states(conn, [row.org_id for row in rows], before)
        found = [_difference(row, was.get(row.org_id)) for row in rows]
        yield [each for each in found if each is not None]
        at = rows[-1].position if len(rows) == READ_ROWS_MAX else end


def _difference(row: journal.PastChange, was: journal.PastState | None) -> Difference | None:
    before, after = None if was is None else was.after, row.after
    changed = [name for name in COMPARED_FIELDS if (before or _NOBODY).get(name) != (after or _NOBODY).get(name)]
    if not changed and (before is None) == (after is None):
        return None
    kind: Kind = "deleted" if after is None else "changed"
    if before is None:
        kind = "created" if was is None else "restored"
    name = (after or before or {}).get("name") or ""
    version = None if was is None else was.version
    return Difference(kind, row.org_id, name, row.position, version, row.version, changed, before, after)
