"""`orgs parked release` and `orgs parked discard`: what becomes of records that are parked.

A release decides whole queues, each in order (`apply.release`); a discard rejects what was selected, for good, and the
queues behind it go on. Of facts (memberships, partnerships, staff) nothing can be released: what was published since
would be overwritten by what is older. Their publisher sends them again, and here they are discarded.
"""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, ClassVar, Final, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from org_service.domain import details
from org_service.domain.outcomes import RELEASES_MAX
from org_service.errors import PreconditionError
from org_service.operate.operation import Execution, Plan, Tally, open_database
from org_service.operate.parked_selection import ParkedSelection
from org_service.operate.parked_steps import FIRST, PAGE_QUEUES_MAX, Steps, running
from org_service.settings import Settings
from org_service.store import parked_queues
from org_service.store.database import DatabaseConnection
from org_service.store.parked_queues import ParkedFilter, ParkedRecord
from org_service.wire.results import format_rfc3339

RESOURCE: Final = "parked"
"""Of all of them: two at once would be in each other's way."""
_LIST_ROWS: Final = 5_000


class Parameters(BaseModel):
    """What makes a release or a discard again."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    selection: ParkedSelection


class _OnParked(ABC):
    """What both are."""

    kind: ClassVar[str]

    def __init__(self, settings: Settings, parameters: Mapping[str, Any]) -> None:
        self._settings = settings
        self._asked = Parameters.model_validate(parameters)
        self._wanted = self._asked.selection.as_filter()

    @classmethod
    async def make(
        cls,
        settings: Settings,
        selection: ParkedSelection,
        *,
        group: str | None = None,
        from_mark: str | None = None,
        to_mark: str | None = None,
    ) -> Self:
        """Make one for what is parked now.

        Args:
            settings: Of the servers.
            selection: Which records.
            group: As for `ParkedSelection.complete`, as are the marks.
            from_mark: The same.
            to_mark: The same.

        Raises:
            PreconditionError: There is no such group, mark or record.
        """
        async with open_database(settings) as database, database.connect() as conn:
            selection = await selection.complete(conn, group=group, from_mark=from_mark, to_mark=to_mark)
            asked = Parameters(selection=await selection.pinned(conn))
        return cls(settings, asked.model_dump(mode="json"))

    @property
    def resource(self) -> str:
        """What is parked."""
        return RESOURCE

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The selection."""
        return self._asked.model_dump(mode="json")

    async def plan(self) -> Plan:
        """Count the records, and say what becomes of them."""
        async with open_database(self._settings) as database, database.connect() as conn:
            return await self._plan(conn)

    @abstractmethod
    async def _plan(self, conn: DatabaseConnection) -> Plan: ...


class ReleaseParked(_OnParked):
    """A release: the queues of all organizations that have a record of the selection, and the records in no queue."""

    kind: ClassVar[str] = "parked release"

    async def _plan(self, conn: DatabaseConnection) -> Plan:
        tally, organizations, stuck, facts, cut, spent, after = Tally(), 0, 0, 0, 0, 0, FIRST
        while any(found := await parked_queues.select_queues(conn, self._wanted, after, PAGE_QUEUES_MAX)):
            after = max(found[0] + found[1])
            organizations, stuck = organizations + len(found[0]), stuck + len(found[1])
            queues = ParkedFilter(self._wanted.state, False, self._wanted.through_id, org_ids=found[0])
            async for record in _list(conn, queues):
                _add(tally, record)
        async for record in _list(conn, self._wanted._replace(loose=True)):
            if record.topic != self._settings.kafka.topics.commands:
                facts += 1
            elif record.value_bytes is not None:
                cut += 1
            elif record.exhausted:
                spent += 1
            else:
                _add(tally, record)
        left_out = _explain_left_out(stuck=stuck, facts=facts, cut=cut, spent=spent)
        if not tally.items:
            raise PreconditionError(" ".join(["there is nothing to release.", *left_out]))
        notes = [
            f"the queues of {organizations:,} organizations, each in order, with what is queued behind them by then.",
            "Each command is decided on what is there now, as whoever was verified when it was parked. What fails "
            "again stays parked, with the new reason, and its queue behind it.",
        ]
        return tally.plan({"organizations": organizations}, [*notes, *left_out])

    async def run(self, execution: Execution) -> None:
        """Release queue by queue, then what is in none."""
        async with running(self._settings, execution) as steps:
            while True:
                await steps.drain()
                found = await steps.begin_queues(self._wanted, stuck=False)
                if found is None:
                    break
                steps.move(going_on=tuple(found))
            topic = self._settings.kafka.topics.commands
            while records := await steps.select(self._wanted._replace(loose=True), steps.at.after_id):
                steps.move(after_id=records[-1].id)
                readable = [each for each in records if each.topic == topic and each.value_bytes is None]
                if ready := [each for each in readable if not each.exhausted]:
                    await steps.releaser.release(ready)


class DiscardParked(_OnParked):
    """A discard: each command of the selection is rejected, finally; then the queues behind them go on."""

    kind: ClassVar[str] = "parked discard"

    async def _plan(self, conn: DatabaseConnection) -> Plan:
        tally, organizations, commands = Tally(), set[UUID](), 0
        async for record in _list(conn, self._wanted):
            _add(tally, record)
            commands += record.command_id is not None
            if record.command_id is not None and record.org_id is not None:
                organizations.add(record.org_id)
        if not tally.items:
            raise PreconditionError("there is nothing to discard.")
        notes = [
            f"{commands:,} commands are rejected, finally (500 discarded), and their publishers are told; "
            f"{tally.items - commands:,} records are no commands, and nobody can be told.",
            f"Then the queues that begin with one of them go on, of {len(organizations):,} organizations at most: what "
            "waits behind is decided, in order.",
        ]
        return tally.plan({"organizations": len(organizations)}, notes)

    async def run(self, execution: Execution) -> None:
        """Discard, some organizations at a time, each time followed by the release of what waited behind."""
        async with running(self._settings, execution) as steps:
            while True:
                if steps.at.page:
                    await self._discard(steps, steps.at.page)
                    steps.move(page=())
                await steps.drain()
                found = await steps.begin_queues(self._wanted, stuck=True)
                if found is None:
                    break
                steps.move(page=tuple(found))
            while records := await steps.select(self._wanted._replace(loose=True), steps.at.after_id):
                steps.move(after_id=records[-1].id)
                await steps.releaser.discard(records, details.DISCARDED)

    async def _discard(self, steps: Steps, org_ids: Sequence[UUID]) -> None:
        wanted, after_id = self._wanted._replace(loose=False, org_ids=org_ids), 0
        while records := await steps.select(wanted, after_id):
            after_id = records[-1].id
            await steps.releaser.discard(records, details.DISCARDED)


async def _list(conn: DatabaseConnection, wanted: ParkedFilter) -> AsyncIterator[ParkedRecord]:
    after = 0
    while found := await parked_queues.list_records(conn, wanted, after, _LIST_ROWS):
        after = found[-1].id
        for record in found:
            yield record


def _add(tally: Tally, record: ParkedRecord) -> None:
    tally.add(b"%d %d" % (record.id, record.attempts), lambda: _show(record))


def _show(record: ParkedRecord) -> Mapping[str, Any]:
    return {
        "id": record.id,
        "org_id": None if record.org_id is None else str(record.org_id),
        "command_id": None if record.command_id is None else str(record.command_id),
        "reason": record.reason,
        "detail": record.detail,
        "parked_at": format_rfc3339(record.recorded_at).decode(),
    }


def _explain_left_out(*, stuck: int, facts: int, cut: int, spent: int) -> list[str]:
    after = f"released {RELEASES_MAX} times, and failed each time (exhausted): discard or edit"
    told = [
        (stuck, f"organizations are left out, because a command of theirs was {after} it."),
        (spent, f"records are left out, because they were {after} them."),
        (
            facts,
            "records of reference data are left out: an old fact would overwrite newer ones. Have their publisher "
            "send them again, and discard them here.",
        ),
        (cut, "records are left out, because only their beginning is kept: they can only be discarded."),
    ]
    return [f"{count:,} {text}" for count, text in told if count]
