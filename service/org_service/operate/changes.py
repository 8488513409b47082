"""Which changes an operator means, and reading them from the journal: so Kafka's retention doesn't matter."""

from collections.abc import AsyncIterator, Sequence
from typing import Final
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from org_service.domain.outcomes import JournaledOutcome
from org_service.errors import PreconditionError
from org_service.operate import marks
from org_service.operate.sending import trace_id
from org_service.store import journal
from org_service.store.database import Database
from org_service.store.journal import EventFilter

WINDOW_POSITIONS: Final = 200_000
"""Of the journal in one statement: a tenth of a second, whatever is looked for."""
READ_ROWS_MAX: Final = 5_000
"""Rows in memory at a time, some MB."""
READ_IDS_MAX: Final = 20_000
"""The same of ids alone."""


class Selection(BaseModel):
    """Changes: all conditions hold, and what is empty is not asked for. Positions count from 1, both ends included."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    from_position: int = Field(default=1, ge=1)
    to_position: int | None = Field(default=None, ge=1)
    from_time: AwareDatetime | None = None
    to_time: AwareDatetime | None = None
    org_ids: tuple[UUID, ...] = ()
    types: tuple[str, ...] = ()
    actors: tuple[str, ...] = ()
    command_ids: tuple[UUID, ...] = ()
    run_ids: tuple[UUID, ...] = ()
    """Made by commands of these operations."""

    @property
    def asks_for_all(self) -> bool:
        """Whether every change there is, is meant."""
        return self == Selection()

    async def between_marks(self, database: Database, from_mark: str | None, to_mark: str | None) -> "Selection":
        """The same, behind the position of one mark and up to that of another.

        Raises:
            PreconditionError: There is no such mark.
        """
        bounds: dict[str, int] = {}
        async with database.connect() as conn:
            if from_mark is not None:
                bounds["from_position"] = (await marks.find(conn, from_mark)).position + 1
            if to_mark is not None:
                bounds["to_position"] = (await marks.find(conn, to_mark)).position
        if bounds.get("to_position") == 0:
            raise PreconditionError(f"there are no changes up to the mark {to_mark!r}: the journal was empty then.")
        return self.model_copy(update=bounds)

    async def pinned(self, database: Database) -> "Selection":
        """The same with an end: where the journal ends now, if none is named.

        Raises:
            PreconditionError: It begins behind its end.
        """
        async with database.connect() as conn:
            head = await journal.read_head(conn)
        end = head if self.to_position is None else min(self.to_position, head)
        if end < self.from_position:
            raise PreconditionError(
                f"there are no changes from position {self.from_position} to {end}: the journal ends at {head}."
            )
        return self.model_copy(update={"to_position": end})

    async def read(self, database: Database, after: int, rows_max: int) -> tuple[Sequence[JournaledOutcome], int]:
        """Read the next changes behind a position.

        Args:
            database: Where the journal is.
            after: The last position that was looked at.
            rows_max: At most so many.

        Returns:
            In order, perhaps none; and the last position that was looked at.
        """
        through = self._window_end(after)
        async with database.connect() as conn:
            rows = await journal.select_events(conn, after, through, self._filter(), rows_max)
        return rows, rows[-1].position if len(rows) == rows_max else through

    async def read_ids(
        self, database: Database, after: int | None = None, through: int | None = None
    ) -> AsyncIterator[Sequence[tuple[int, UUID]]]:
        """Read which changes they are, behind a position and up to another: position and command id, in steps."""
        at = self.from_position - 1 if after is None else after
        end = self.to_position if through is None else through
        assert end is not None
        while at < end:
            last = min(self._window_end(at), end)
            async with database.connect() as conn:
                found = await journal.select_event_ids(conn, at, last, self._filter(), READ_IDS_MAX)
            at = found[-1][0] if len(found) == READ_IDS_MAX else last
            if found:
                yield found

    async def count_emptied(self, database: Database) -> int:
        """How many more there were, of organizations that are erased: nobody can read these any more."""
        emptied, at = 0, self.from_position - 1
        assert self.to_position is not None
        while at < self.to_position:
            through = self._window_end(at)
            async with database.connect() as conn:
                emptied += await journal.count_emptied(conn, at, through, self._filter())
            at = through
        return emptied

    async def read_all(self, database: Database) -> AsyncIterator[Sequence[JournaledOutcome]]:
        """Read all changes, in steps."""
        at = self.from_position - 1
        assert self.to_position is not None
        while at < self.to_position:
            rows, at = await self.read(database, at, READ_ROWS_MAX)
            if rows:
                yield rows

    def _window_end(self, after: int) -> int:
        assert self.to_position is not None
        return min(after + WINDOW_POSITIONS, self.to_position)

    def _filter(self) -> EventFilter:
        return EventFilter(
            org_ids=self.org_ids or None,
            types=self.types or None,
            actors=self.actors or None,
            command_ids=self.command_ids or None,
            from_time=self.from_time,
            to_time=self.to_time,
            trace_ids=[trace_id(run_id) for run_id in self.run_ids] or None,
        )
