"""`orgs export`: all organizations as of one moment, now or earlier, in the format that `orgs apply` reads."""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final, NamedTuple

from org_service.domain.organization import StoredOrganization
from org_service.operate import past
from org_service.settings import Settings
from org_service.store import organizations
from org_service.store.database import Database

PAGE_ROWS: Final = 2_000
"""In memory at a time, some MB."""


class Snapshot(NamedTuple):
    """The organizations as of a position of the journal; deleted ones are left out."""

    position: int
    pages: AsyncIterator[Sequence[StoredOrganization]]
    """In order of id; to be read within the block."""


@asynccontextmanager
async def open_snapshot(settings: Settings, at: str = past.NOW) -> AsyncGenerator[Snapshot]:
    """See all organizations as of a moment, for the length of a block, whatever is changed meanwhile.

    Rows that are dead by then stay in the tables until the end of it.

    Args:
        settings: Of the database.
        at: As `past.find_position`.
    """
    database = Database(settings.database, "reader", direct=True)
    async with database.snapshot() as conn:
        position = await past.find_position(conn, at)

        async def pages() -> AsyncIterator[Sequence[StoredOrganization]]:
            page = await organizations.list_by_id(conn, PAGE_ROWS)
            while page:
                then = page if at == past.NOW else await past.find_states(conn, [each.id for each in page], position)
                yield [each for each in then if each.deleted_at is None]
                page = await organizations.list_by_id(conn, PAGE_ROWS, page[-1].id)

        yield Snapshot(position, pages())
