"""The journal as its readers see it: in order of position, and never past a hole that nobody accounts for.

Whoever takes positions from `journal_head` holds its lock until commit, so at any moment the committed rows
are a prefix: a reader in READ COMMITTED needs no more than "after this position". `read_after` proves it each time
all the same, because a row missed would never be published and nobody would know. The holes it may step over are those
that `recovery` made and noted down.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple
from uuid import UUID

from sqlalchemy import BigInteger, Integer, bindparam, select
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlmodel import col

from org_service.domain.outcomes import JournaledOutcome
from org_service.errors import StopError
from org_service.store.tables import Journal, JournalGap, JournalHead


class Gap(NamedTuple):
    """Positions without rows, both ends included, that an operator gave up."""

    first_position: int
    last_position: int

    def holds(self, position: int) -> bool:
        """Whether a position is one of them."""
        return self.first_position <= position <= self.last_position


_READ_AFTER: Final = (
    select(*(getattr(Journal, field) for field in JournaledOutcome._fields))
    .where(col(Journal.position) > bindparam("position", type_=BigInteger))
    .order_by(col(Journal.position))
    .limit(bindparam("limit", type_=Integer))
)
_COMMAND_ID_AT: Final = select(col(Journal.command_id)).where(
    col(Journal.position) == bindparam("position", type_=BigInteger)
)
_HEAD: Final = select(col(JournalHead.position))
_GAPS: Final = select(col(JournalGap.first_position), col(JournalGap.last_position))


async def read_after(conn: AsyncConnection, position: int, limit: int) -> list[JournaledOutcome]:
    """Read the next rows of the journal, in order, without a gap but for known ones (`gaps`).

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
    if rows and rows[-1].position != position + len(rows):
        _refuse_unknown_holes(position, rows, await gaps(conn))
    return rows


def _refuse_unknown_holes(position: int, rows: Sequence[JournaledOutcome], known: Sequence[Gap]) -> None:
    for row in rows:
        while (missing := position + 1) != row.position:
            gap = next((gap for gap in known if gap.holds(missing) and gap.last_position < row.position), None)
            if gap is None:
                raise StopError(
                    f"The journal has no row at position {missing}, though it has later ones: rows were deleted, or "
                    "restored in part. Restore the journal whole; nothing was published past the hole."
                )
            position = gap.last_position
        position = row.position


async def head(conn: AsyncConnection) -> int:
    """The last position given out; 0 before the first command.

    Raises:
        StopError: The row of `journal_head` is gone, so no command can be written and no lag can be told.
    """
    position = await conn.scalar(_HEAD)
    if position is None:
        raise StopError("journal_head has no row: restore it with the highest position of the journal.")
    return position


async def gaps(conn: AsyncConnection) -> list[Gap]:
    """What `orgs journal advance` left out, ever; as a rule nothing. In no order."""
    return [Gap._make(row) for row in await conn.execute(_GAPS)]


async def command_id_at(conn: AsyncConnection, position: int) -> UUID | None:
    """Whose outcome stands at a position; None where there is no row."""
    return await conn.scalar(_COMMAND_ID_AT, {"position": position})
