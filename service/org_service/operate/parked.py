"""`orgs parked release` and `orgs parked discard`: what becomes of records that are parked.

A release decides whole queues, each in order (`apply.release`); a discard rejects what was selected, for good, and the
queues behind it go on. Of facts (memberships, partnerships, staff) nothing can be released: what was published since
would be overwritten by what is older. Their publisher sends them again, and here they are discarded.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, ClassVar, Final
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from org_service.domain import details
from org_service.domain.outcomes import RELEASES_MAX
from org_service.errors import PreconditionError
from org_service.operate.operation import Execution, Plan, Tally
from org_service.operate.parked_selection import ParkedSelection, find_open
from org_service.operate.parked_steps import PAGE_QUEUES_MAX, Steps, running
from org_service.settings import Settings
from org_service.store import parked_queues
from org_service.store.database import Database
from org_service.store.parked_queues import ParkedItem
from org_service.wire.results import format_rfc3339

RESOURCE: Final = "parked"
"""Of all of them: two at once would be in each other's way."""
_LIST_ROWS: Final = 5_000
_FIRST: Final = UUID(int=0)


class Parameters(BaseModel):
    """What makes a release or a discard again."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    selection: ParkedSelection


class ReleaseParked:
    """A release: the queues of all organizations that have a record of the selection, and the records in no queue."""

    kind: ClassVar[str] = "parked release"

    def __init__(self, settings: Settings, parameters: Mapping[str, Any]) -> None:
        self._settings = settings
        self._asked = Parameters.model_validate(parameters)

    @classmethod
    async def make(cls, settings: Settings, selection: ParkedSelection, group: str | None = None) -> "ReleaseParked":
        """Make one for what is parked now.

        Args:
            settings: Of the servers.
            selection: Which records.
            group: The name of a group that they are of.

        Raises:
            PreconditionError: There is no such group.
        """
        return cls(settings, await _make_parameters(settings, selection, group))

    @property
    def resource(self) -> str:
        """What is parked."""
        return RESOURCE

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The selection."""
        return self._asked.model_dump(mode="json")

    async def plan(self) -> Plan:
        """Count the records of all queues, and say what is left out and why."""
        wanted = self._asked.selection.as_filter()
        tally, organizations, stuck, facts, cut, spent = Tally(), 0, 0, 0, 0, 0
        database = Database(self._settings.database, "operate")
        try:
            async with database.connect() as conn:
                after = _FIRST
                while any(found := await parked_queues.select_queues(conn, wanted, after, PAGE_QUEUES_MAX)):
                    after = max(found[0] + found[1])
                    organizations, stuck = organizations + len(found[0]), stuck + len(found[1])
                    for item in await parked_queues.list_queues(conn, found[0], wanted.through_id):
                        _add(tally, item)
            async for item in _list(database, self._asked.selection, loose=True):
                if item.topic != self._settings.kafka.topics.commands:
                    facts += 1
                elif item.value_bytes is not None:
                    cut += 1
                elif item.attempts > RELEASES_MAX:
                    spent += 1
                else:
                    _add(tally, item)
        finally:
            await database.close()
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
            wanted = self._asked.selection.as_filter()
            while True:
                await steps.drain()
                found = await steps.begin_queues(wanted, stuck=False)
                if found is None:
                    break
                steps.move(going_on=tuple(found))
            while records := await steps.read_selected(wanted, steps.at.after_id, loose=True):
                steps.move(after_id=records[-1].id)
                topic = self._settings.kafka.topics.commands
                readable = [each for each in records if each.topic == topic and each.value_bytes is None]
                if ready := [each for each in readable if not each.exhausted]:
                    await steps.releaser.release(ready)


class DiscardParked:
    """A discard: each command of the selection is rejected, finally; then the queues behind them go on."""

    kind: ClassVar[str] = "parked discard"

    def __init__(self, settings: Settings, parameters: Mapping[str, Any]) -> None:
        self._settings = settings
        self._asked = Parameters.model_validate(parameters)

    @classmethod
    async def make(cls, settings: Settings, selection: ParkedSelection, group: str | None = None) -> "DiscardParked":
        """Make one for what is parked now. As `ReleaseParked.make`."""
        return cls(settings, await _make_parameters(settings, selection, group))

    @property
    def resource(self) -> str:
        """What is parked."""
        return RESOURCE

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The selection."""
        return self._asked.model_dump(mode="json")

    async def plan(self) -> Plan:
        """Count the records."""
        tally, organizations, commands = Tally(), set[UUID](), 0
        database = Database(self._settings.database, "operate")
        try:
            async for item in _list(database, self._asked.selection):
                _add(tally, item)
                commands += item.command_id is not None
                if item.command_id is not None and item.org_id is not None:
                    organizations.add(item.org_id)
        finally:
            await database.close()
        if not tally.items:
            raise PreconditionError("there is nothing to discard.")
        notes = [
            f"{commands:,} commands are rejected, finally (500 discarded), and their publishers are told; "
            f"{tally.items - commands:,} records are no commands, and nobody can be told.",
            f"Then the queues of {len(organizations):,} organizations go on: what waits behind is decided, in order.",
        ]
        return tally.plan({"organizations": len(organizations)}, notes)

    async def run(self, execution: Execution) -> None:
        """Discard, some organizations at a time, each time followed by the release of what waited behind."""
        async with running(self._settings, execution) as steps:
            wanted = self._asked.selection.as_filter()
            while True:
                if steps.at.page:
                    await self._discard(steps, steps.at.page)
                    steps.move(page=())
                await steps.drain()
                found = await steps.begin_queues(wanted, stuck=True)
                if found is None:
                    break
                steps.move(page=tuple(found))
            while records := await steps.read_selected(wanted, steps.at.after_id, loose=True):
                steps.move(after_id=records[-1].id)
                await steps.releaser.discard(records, details.DISCARDED)

    async def _discard(self, steps: Steps, org_ids: Sequence[UUID]) -> None:
        wanted, after_id = self._asked.selection.as_filter()._replace(org_ids=org_ids), 0
        while records := await steps.read_selected(wanted, after_id, loose=False):
            after_id = records[-1].id
            if in_queues := [each for each in records if each.command_id is not None]:
                await steps.releaser.discard(in_queues, details.DISCARDED)


async def _make_parameters(settings: Settings, selection: ParkedSelection, group: str | None) -> Mapping[str, Any]:
    database = Database(settings.database, "operate", direct=True)
    for parked_id in selection.ids:
        await find_open(database, parked_id)
    if group is not None:
        selection = await selection.of_group(database, group)
    return Parameters(selection=await selection.pinned(database)).model_dump(mode="json")


async def _list(database: Database, selection: ParkedSelection, *, loose: bool = False) -> AsyncIterator[ParkedItem]:
    wanted, after = selection.as_filter(), 0
    async with database.connect() as conn:
        while found := await parked_queues.list_records(conn, wanted, after, _LIST_ROWS, loose=loose):
            after = found[-1].id
            for item in found:
                yield item


def _add(tally: Tally, item: ParkedItem) -> None:
    tally.add(b"%d %d" % (item.id, item.attempts), lambda: _show(item))


def _show(item: ParkedItem) -> Mapping[str, Any]:
    return {
        "id": item.id,
        "org_id": None if item.org_id is None else str(item.org_id),
        "command_id": None if item.command_id is None else str(item.command_id),
        "reason": item.reason,
        "detail": item.detail,
        "parked_at": format_rfc3339(item.recorded_at).decode(),
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
