"""Who held a name at a position.

The table `organization` says who holds it now. Whoever held it then and no longer does gave it up since, by a rename or
a delete, and was the first to: nobody else could take it before. So of the holder now and the first who gave it up, one
held it then, if anybody did; what each of them was at that position says which. The changes by which names are given
up are gathered once, when a rehearsal first has to know, from its beginning to the end of the journal.
"""

from collections.abc import Sequence
from typing import Final
from uuid import UUID

import orjson

from org_service.domain.organization import StoredOrganization, name_key
from org_service.operate.rehearsing.batches import state_behind
from org_service.store import journal, organizations, recorded, scratch
from org_service.store.database import Database
from org_service.store.scratch import Scratch

WINDOW_POSITIONS: Final = 20_000
"""Of the journal in one statement, each of which may have given up a name."""


class NameHolders:
    """Knows who held names."""

    def __init__(self, database: Database, tables: Scratch) -> None:
        """Make one.

        Args:
            database: Where the journal is.
            tables: Keeps what was gathered: there may be millions of such changes.
        """
        self._database = database
        self._tables = tables
        self._gathered_to: int | None = None

    async def find(self, asked: Sequence[tuple[str, int]], start: int) -> dict[UUID, StoredOrganization]:
        """Whoever held names, as they were then.

        Args:
            asked: Names, by `name_key`, and a position each.
            start: Before all positions that are asked for, now or later.
        """
        keys = {key for key, _ in asked}
        async with self._database.connect() as conn:
            # In this order: who gives one up after the first look is found by the second.
            now = await organizations.find_holders(conn, keys)
            await self._gather(start, await journal.read_head(conn))
        async with self._tables.note() as conn:
            gave_up = await scratch.find_given_up(conn, asked)
        candidates = {
            (holder, position): key
            for key, position in asked
            if (holder := gave_up.get((key, position)) or now.get(key)) is not None
        }
        async with self._database.connect() as conn:
            changes = await recorded.find_last_changes(conn, candidates)
        found: dict[UUID, StoredOrganization] = {}
        for (holder, position), key in candidates.items():
            change = changes.get((holder, position))
            state = None if change is None else state_behind(holder, change)
            if state is not None and state.name_key == key:
                found[holder] = state
        return found

    async def _gather(self, start: int, head: int) -> None:
        after = start if self._gathered_to is None else self._gathered_to
        while after < head:
            through = min(after + WINDOW_POSITIONS, head)
            async with self._database.connect() as conn:
                rows = await recorded.find_given_up(conn, after, through)
            given_up = [(name_key(orjson.loads(row.before)["name"]), row.position, row.org_id) for row in rows]
            async with self._tables.note() as conn:
                await scratch.note_given_up(conn, given_up)
            after = self._gathered_to = through
