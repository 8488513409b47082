"""How a run goes through queues of parked commands: some organizations at a time, each to the end of its queue.

Noted with each step, in its transaction: the last organization that was begun, and those whose queue isn't through. So
a run that was killed continues with these, and what failed in it is not tried twice in it.
"""

from collections import Counter
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from org_service.apply.release import Releaser, Settled
from org_service.auth.policy import load_policy
from org_service.domain.outcomes import StoredRecord
from org_service.operate.operation import Execution, open_database
from org_service.settings import Settings
from org_service.store import parked_queues
from org_service.store.database import Database, DatabaseConnection
from org_service.store.parked_queues import ParkedFilter

STEP_RECORDS_MAX: Final = 200
"""In one transaction: some 50 ms, for which a worker with a command of one of these organizations waits."""
PAGE_QUEUES_MAX: Final = 100
"""Organizations that are begun at a time."""
FIRST: Final = UUID(int=0)
"""Before every organization."""


class Progress(BaseModel):
    """How far a run is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    after_org_id: UUID = FIRST
    """Up to this one, organizations were begun."""
    page: tuple[UUID, ...] = ()
    """Those of which something is to be discarded still."""
    going_on: tuple[UUID, ...] = ()
    """Those whose queue is to be released, to its end."""
    after_id: int = 0
    """Of records that are in no queue."""
    sent: bool = False
    """Whether a command that replaces a discarded one was sent."""


class Steps:
    """The steps of one run. `at` is how far it is; change it before a step, and it is noted with that."""

    def __init__(self, settings: Settings, execution: Execution, database: Database) -> None:
        self._execution = execution
        self._database = database
        self._noted = execution.progress, Counter(execution.counts)
        self.at = self._next = Progress.model_validate(execution.progress or {})
        self.releaser = Releaser(
            database,
            load_policy(settings.auth),
            settings.worker,
            execution.run_id,
            trusts=settings.auth.commands == "trusted",
            note=self._note,
            done=self._done,
        )

    @property
    def step_max(self) -> int:
        """How many records the next step may have."""
        return self._execution.step_max(STEP_RECORDS_MAX)

    def move(self, **changes: Any) -> None:
        """Be further, from the next step on."""
        self.at = self.at.model_copy(update=changes)

    async def begin_queues(self, wanted: ParkedFilter, *, stuck: bool) -> Sequence[UUID] | None:
        """Begin the next organizations of a selection; None where there are no more.

        Args:
            wanted: The selection.
            stuck: Also those of which a command was released as often as may be.
        """
        async with self._database.connect() as conn:
            found = await parked_queues.select_queues(conn, wanted, self.at.after_org_id, PAGE_QUEUES_MAX)
        both = [*found[0], *found[1]]
        if not both:
            return None
        self.move(after_org_id=max(both))
        return both if stuck else found[0]

    async def drain(self) -> None:
        """Release the queues that go on, to their ends, including what was queued since."""
        while self.at.going_on:
            limit = self.step_max
            async with self._database.connect() as conn:
                records = await parked_queues.read_queues(conn, self.at.going_on, limit)
            if len(records) < limit:  # of the others nothing is left
                self.move(going_on=tuple({each.org_id for each in records if each.org_id is not None}))
            if records:
                await self.releaser.release(records)

    async def select(self, wanted: ParkedFilter, after_id: int) -> list[StoredRecord]:
        """The next records of a selection, as many as a step may have."""
        async with self._database.connect() as conn:
            return await parked_queues.select_records(conn, wanted, after_id, self.step_max)

    async def note(self) -> None:
        """Note how far it is, with nothing else."""
        async with self._database.begin() as conn:
            await self._advance(conn, self.at, {})
        self._noted = self._execution.progress, self._execution.counts

    async def _note(self, conn: DatabaseConnection, settled: Settled) -> None:
        going_on = {*self.at.going_on, *settled.going_on}.difference(settled.ended)
        self._next = self.at.model_copy(update={"going_on": tuple(sorted(going_on))})
        await self._advance(conn, self._next, settled.counts)

    async def _advance(self, conn: DatabaseConnection, at: Progress, counts: Mapping[str, int]) -> None:
        # From what is committed: the same step may have been tried before, and rolled back.
        self._execution.progress, self._execution.counts = self._noted
        await self._execution.advance(conn, at.model_dump(mode="json"), counts)

    async def _done(self, items: int) -> None:
        self.at = self._next
        self._noted = self._execution.progress, self._execution.counts
        await self._execution.pace(items)


@asynccontextmanager
async def running(settings: Settings, execution: Execution) -> AsyncGenerator[Steps]:
    """The steps of a run, with a database of its own, after a look at whether our code works.

    Raises:
        PreconditionError: It fails on everything: nothing is done.
    """
    async with open_database(settings) as database:
        steps = Steps(settings, execution, database)
        steps.releaser.see_sound()
        yield steps
