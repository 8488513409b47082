"""`orgs erase` and `orgs purge`: what is left of deleted organizations goes, for good (decision 0043).

A step is one transaction: it locks some organizations, empties every row that says something of them, and journals an
`org.erased` for each, which the relay publishes. The journal's head is taken last, so workers wait for a commit and no
more. What is to do is in the tables themselves: a run that was killed finds what it has not done yet.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Final
from uuid import UUID, uuid5

from pydantic import AwareDatetime, BaseModel, ConfigDict

from org_events.events import EventType
from org_events.results import Outcome
from org_service import probes
from org_service.domain.organization import StoredOrganization
from org_service.domain.outcomes import NewOutcome
from org_service.errors import PreconditionError, RetryError
from org_service.operate.forget_notes import Notes
from org_service.operate.operation import Execution, Plan, Tally, explain_left_out, open_database
from org_service.operate.progress import published
from org_service.operate.sending import traceparent
from org_service.probes import probe
from org_service.settings import Settings
from org_service.store import erasing, journal, organizations
from org_service.store.database import Database
from org_service.store.erasing import NIL, Deleted, Rows
from org_service.wire.results import format_rfc3339

COMMAND_TYPE: Final = "org.erase"
"""In the journal; none that anybody can send."""
PAGE_ORGANIZATIONS: Final = 2_000
"""Looked at in one statement."""
STEP_ORGANIZATIONS_MAX: Final = 200
"""Emptied in one transaction."""
NO_RECORD: Final = -1
"""Partition and offset of what no record brought."""


class Parameters(BaseModel):
    """What makes an erasure again."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    org_ids: tuple[UUID, ...] | None
    """None for all."""
    deleted_through: AwareDatetime
    """Those that were deleted by then."""
    needs_approval: bool
    skipped: tuple[UUID, ...] = ()
    """Left out, because something of them is parked."""


class Erase:
    """An erasure, of one organization or of all whose time is over."""

    kind: ClassVar[str] = "erase"

    def __init__(self, settings: Settings, parameters: Mapping[str, Any]) -> None:
        self._settings = settings
        self._asked = Parameters.model_validate(parameters)

    @classmethod
    async def make(cls, settings: Settings, id_or_name: str | None, *, before_grace: bool = False) -> "Erase":
        """Make one for an organization, or for all that were deleted long enough ago.

        Args:
            settings: Of the servers.
            id_or_name: Whose; None for all.
            before_grace: At once, whenever it was deleted; somebody else has to approve it.

        Raises:
            PreconditionError: There is no such organization, or it may not be erased (yet); the message says why.
        """
        through = now = datetime.now(UTC)
        if not before_grace:
            through -= timedelta(days=settings.operate.erase_grace_days)
        org_ids = None
        if id_or_name is not None:
            async with open_database(settings) as database, database.connect() as conn:
                found = await organizations.find_by_id_or_name(conn, id_or_name)
            org_ids = (_choose(id_or_name, found, through, now).id,)
        asked = Parameters(org_ids=org_ids, deleted_through=through, needs_approval=before_grace)
        return cls(settings, asked.model_dump(mode="json"))

    @property
    def resource(self) -> str:
        """One erasure is under way at a time."""
        return "erasure"

    @property
    def parameters(self) -> Mapping[str, Any]:
        """Which organizations."""
        return self._asked.model_dump(mode="json")

    async def plan(self) -> Plan:
        """Count the organizations, and what says something of them."""
        tally, rows, skipped = Tally(), Rows(0, 0, 0), list[UUID]()
        async with open_database(self._settings) as database:
            after = NIL
            while page := await self._page(database, after):
                after, ids = page[-1].id, [each.id for each in page]
                async with database.connect() as conn:
                    held = await erasing.find_held(conn, ids)
                    counted = await erasing.count(conn, [each for each in ids if each not in held])
                rows = Rows(*(a + b for a, b in zip(rows, counted, strict=True)))
                skipped += (each for each in ids if each in held)
                for each in page:
                    if each.id not in held:
                        tally.add(b"%b %d" % (each.id.bytes, each.version), lambda each=each: _shown(each))
        self._asked = self._asked.model_copy(update={"skipped": tuple(skipped)})
        facts = {"deleted by": format_rfc3339(self._asked.deleted_through).decode(), "conflict": len(skipped)}
        notes = [
            f"{rows.journal:,} rows of the journal are emptied and stay, {rows.parked:,} of parked commands too; "
            f"{rows.accepted:,} of accepted commands go.",
            "There is no way back: no restore, no undo. What topics still hold, and until when: `orgs erase --status`.",
            *explain_left_out("something of these is parked: release or discard it first", [*map(str, skipped)]),
        ]
        return tally.plan(facts, notes)

    async def run(self, execution: Execution) -> None:
        """Erase what is not erased yet, a transaction for each step.

        Raises:
            RetryError: The relay has to publish first what is to be emptied.
        """
        async with open_database(self._settings) as database, open_database(self._settings, "owner") as owner:
            erasure = _Erasure(self._settings, self._asked, execution, owner)
            after = NIL
            while page := await self._page(database, after):
                after = page[-1].id
                ids = [each.id for each in page if each.id not in self._asked.skipped]
                while ids:
                    most = execution.step_max(STEP_ORGANIZATIONS_MAX)
                    await erasure.erase(ids[:most])
                    ids = ids[most:]
        if erasure.unpublished:
            raise RetryError(
                f"the relay has not published all that is journaled of {erasure.unpublished:,} organizations: they are "
                "emptied once it has"
            )
        if left := execution.items - execution.done:
            await execution.record(execution.progress, {"conflict": left})

    async def _page(self, database: Database, after: UUID) -> Sequence[Deleted]:
        asked = self._asked
        async with database.connect() as conn:
            return await erasing.list_erasable(conn, asked.deleted_through, asked.org_ids, after, PAGE_ORGANIZATIONS)


class _Erasure:
    """One process' part of a run."""

    def __init__(self, settings: Settings, asked: Parameters, execution: Execution, owner: Database) -> None:
        self._settings = settings
        self._asked = asked
        self._execution = execution
        self._owner = owner
        self._notes = Notes()
        self._published = 0
        self.unpublished = 0
        """Organizations that have to wait for the relay."""

    async def erase(self, org_ids: Sequence[UUID]) -> None:
        """Erase those of them that still are as they were planned."""
        execution = self._execution
        async with self._owner.begin() as conn:
            locked = await erasing.lock(conn, org_ids, self._asked.deleted_through)
            held = await erasing.find_held(conn, [each.id for each in locked])
            # Whoever decides a command of theirs waits for our locks: nothing follows these rows but ours.
            last = await erasing.find_last_positions(conn, [each.id for each in locked])
            if max(last.values(), default=0) > self._published:
                at = await published(self._settings)
                self._published = 0 if at is None else at.position
            ready = [each for each in locked if each.id not in held]
            todo = [each for each in ready if last.get(each.id, 0) <= self._published]
            self.unpublished += len(ready) - len(todo)
            if not todo:
                return
            now = datetime.now(UTC)
            moments = {each.id: max(now, each.updated_at) for each in todo}
            await self._notes.forget(conn, moments.keys(), await erasing.find_values(conn, moments.keys()))
            await erasing.empty(conn, moments)
            await execution.advance(conn, execution.done + len(todo), {"erased": len(todo)})
            # Last: from here on every worker waits for our commit.
            start = await journal.take_positions(conn, len(todo))
            await journal.append(conn, start, [_row(each, moments[each.id], execution.run_id) for each in todo])
            if probes.listeners:
                await probe("operate.before_commit")
        if probes.listeners:
            await probe("operate.after_commit")
        await execution.pace(len(todo))


def _row(deleted: Deleted, moment: datetime, run_id: UUID) -> NewOutcome:
    return NewOutcome(
        command_id=uuid5(run_id, str(deleted.id)),
        org_id=deleted.id,
        version=deleted.version + 1,
        command_type=COMMAND_TYPE,
        event_type=EventType.ERASED,
        outcome=Outcome.APPLIED,
        code=200,
        actor=None,
        request_digest=b"",
        command_partition=NO_RECORD,
        command_offset=NO_RECORD,
        changed="[]",
        before=None,
        after=None,
        problem=None,
        traceparent=traceparent(run_id),
        recorded_at=moment,
        command_time_ms=None,
    )


def _shown(deleted: Deleted) -> Mapping[str, Any]:
    """Not its name: the plan is kept."""
    return {
        "org_id": str(deleted.id),
        "version": deleted.version,
        "deleted_at": format_rfc3339(deleted.deleted_at).decode(),
    }


def _choose(
    id_or_name: str, found: Sequence[StoredOrganization], through: datetime, now: datetime
) -> StoredOrganization:
    if not found:
        raise PreconditionError(f"no organization has, or had when it was deleted, the id or name {id_or_name!r}.")
    if len(found) > 1:
        ids = ", ".join(str(each.id) for each in found)
        raise PreconditionError(f"several organizations have, or had, the name {id_or_name!r}: say which id: {ids}.")
    org = found[0]
    if org.erased:
        raise PreconditionError(f"{org.id} is erased already; `orgs erase --status {org.id}` says what is left of it.")
    if org.deleted_at is None:
        raise PreconditionError(f"{org.id} is not deleted: delete it first (`orgs send delete {org.id}`).")
    if org.deleted_at > through:
        due = org.deleted_at + (now - through)
        raise PreconditionError(
            f"{org.id} was deleted at {org.deleted_at:%Y-%m-%d %H:%M:%S}Z, and its grace lasts until "
            f"{due:%Y-%m-%d %H:%M:%S}Z (ORGS_OPERATE__ERASE_GRACE_DAYS). Where the law demands it now: --before-grace."
        )
    return org
