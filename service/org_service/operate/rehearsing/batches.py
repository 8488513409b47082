"""Batches of a rehearsal, and what the journal says that their organizations were before them.

An organization is what its own first command of the batch was decided on: that is in the command's row of the journal
(`before` of a change, `after` where nothing changed); where it isn't (a rejection), its last change before that
position says so. A batch ends where that would not be true for a later command of it, because something that is not
rehearsed changed the organization in between.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple
from uuid import UUID

import orjson

from org_events.commands import CreateOrganization, DeleteOrganization, RestoreOrganization, UpdateOrganization
from org_events.events import EventType
from org_events.results import Outcome
from org_service.domain.organization import StoredOrganization, as_deleted, from_published, name_key
from org_service.domain.outcomes import NewOutcome
from org_service.domain.requests import Rejected, Request
from org_service.kafka.ranges import Extent
from org_service.operate.commands import CommandSelection
from org_service.operate.rehearsing.order import Item
from org_service.store import recorded
from org_service.store.database import Database
from org_service.store.recorded import LastChange
from org_service.store.scratch import Waiting

BATCH_ITEMS_MAX: Final = 4_000
"""As large as the worker's; more gains little."""
NOW: Final = 1 << 62
"""A position behind all others."""


class Batch(NamedTuple):
    """Records to be decided together, and the journal's account of what stood before them."""

    items: Sequence[Item]
    organizations: dict[UUID, StoredOrganization | None]
    """Those that the commands are about; None of one that was not there."""
    bystanders: dict[UUID, StoredOrganization]
    """Those that serve them, and that they serve; their names don't matter."""
    journaled: Sequence[NewOutcome]
    """The first outcomes of commands that come again."""
    waiting: Sequence[Waiting]
    """Commands that were parked before what is rehearsed, and still are."""
    names: frozenset[str]
    """All that may be claimed, by `name_key`."""
    contested: Sequence[tuple[str, int]]
    """Those that were not taken as recorded, each with its position: somebody may hold them."""
    read_to: int
    """How far the reader was, in offsets of all partitions."""


class BatchBuilder:
    """Gathers the items of a batch, then looks up what it needs."""

    def __init__(self, *, apart: bool) -> None:
        """Begin.

        Args:
            apart: Whether organizations change between their commands, by others that are not rehearsed: then each
                command is decided on what its organization was then.
        """
        self.items: list[Item] = []
        self._apart = apart
        self._last: int | None = None
        """Position of the last item that has one."""
        self._gap = False
        """Whether something was decided in between that is not rehearsed: other organizations may have changed."""
        self._organizations: dict[UUID, StoredOrganization | None] = {}
        self._asked: dict[UUID, int] = {}
        """Organizations that the journal must be asked about, and as of which position."""
        self._versions: dict[UUID, int | None] = {}
        """As recorded, behind the last item; None where the rows don't say."""
        self._holders: dict[str, UUID] = {}
        self._journaled: dict[UUID, NewOutcome] = {}
        self._command_ids: set[UUID] = set()
        self._clients: set[UUID] = set()
        self._deleted: set[UUID] = set()
        self._names: set[str] = set()
        self._contested: list[tuple[str, int]] = []
        self._restored: list[tuple[UUID, int | None]] = []
        """Organizations that take the name they had; and as of which position that is contested."""

    def add(self, item: Item) -> bool:
        """Add an item, unless the batch has to end before it."""
        if len(self.items) >= BATCH_ITEMS_MAX:
            return False
        request, position = item.request, None if item.own is None else item.own.position
        gap = self._gap or (position is not None and self._last is not None and position != self._last + 1)
        if isinstance(request, Request):
            if gap and self._has_another_holder(item, request):
                return False
            if item.first is not None:
                self._add_known(item.first.row)
            elif request.org_id is not None and not isinstance(request.command, Rejected):
                if not self._add_organization(item, request.org_id, gap=gap):
                    return False
                self._add_names(item, request, request.org_id)
            self._command_ids.add(request.command_id)
        self.items.append(item)
        self._gap, self._last = gap, self._last if position is None else position
        return True

    def _has_another_holder(self, item: Item, request: Request) -> bool:
        """Whether a name may be with somebody else than it was at the beginning of the batch."""
        if item.first is not None:
            return False
        key, restores = _claimed(request), isinstance(request.command, RestoreOrganization)
        if self._apart:
            return key is not None or restores or bool(self._names or self._restored)
        if restores or (key is not None and _is_contested(item)):
            return bool(self.items)
        # What they were called is not known yet.
        others_asked = self._asked.keys() - {request.org_id}
        contested = others_asked or any(key == each for each, _ in self._contested)
        return key is not None and (bool(contested) or self._holders.get(key, request.org_id) != request.org_id)

    def _add_known(self, row: NewOutcome) -> None:
        """Remember the first outcome of a command that comes again: that it has one, not what it did."""
        if row.command_id not in self._command_ids:
            self._journaled[row.command_id] = row._replace(outcome=Outcome.REJECTED, event_type=None)

    def _add_organization(self, item: Item, org_id: UUID, *, gap: bool) -> bool:
        row = None if item.own is None else item.own.row
        if org_id in self._organizations or org_id in self._asked:
            version = self._versions.get(org_id)
            if gap and self._apart:
                return False
            if row is not None and version is not None and not _follows(row, version):
                return False
        elif row is not None and row.outcome != Outcome.REJECTED and row.event_type != EventType.RESTORED:
            text = row.before if row.outcome == Outcome.APPLIED else row.after
            state = None if text is None else from_published(orjson.loads(text))
            name = None if state is None else state.name_key
            if name is not None and self._holders.get(name, org_id) != org_id:
                return False
            if gap and (self._restored or name in self._names):
                return False
            self._organizations[org_id] = state
            if name is not None:
                self._holders[name] = org_id
        elif gap and (self._restored or self._names):
            return False
        else:
            # One with an open parked command was changed by nobody since.
            self._asked[org_id] = NOW if item.own is None else item.own.position
        if row is not None and row.outcome != Outcome.REJECTED:
            self._versions[org_id] = row.version
        return True

    def _add_names(self, item: Item, request: Request, org_id: UUID) -> None:
        command = request.command
        if request.authorization is not None:
            self._clients.add(org_id)
        if isinstance(command, DeleteOrganization):
            self._deleted.add(org_id)
        position = NOW if item.own is None else item.own.position
        key = _claimed(request)
        if key is not None:
            self._names.add(key)
            if _is_contested(item):
                self._contested.append((key, position))
        elif isinstance(command, RestoreOrganization):
            self._restored.append((org_id, position if _is_contested(item) else None))

    async def build(self, database: Database, selection: CommandSelection, extent: Extent, read_to: int) -> Batch:
        """Look up the rest. Several may do so in parallel; nothing is changed."""
        organizations, items = self._organizations, self.items
        async with database.connect() as conn:
            related = await recorded.find_related(conn, self._clients, self._deleted)
            related -= organizations.keys() | self._asked.keys()
            start = next((item.own.position for item in items if item.own is not None), NOW)
            asked = [*self._asked.items(), *((each, start) for each in related)]
            changes = await recorded.find_last_changes(conn, asked)
            waiting = await recorded.find_waiting(conn, {*organizations, *self._asked})
        for org_id, position in self._asked.items():
            change = changes.get((org_id, position))
            organizations[org_id] = None if change is None else state_behind(org_id, change)
        for org_id, position in self._restored:
            state = organizations[org_id]
            if state is not None:
                self._names.add(name_key(state.name))
                if position is not None:
                    self._contested.append((name_key(state.name), position))
        bystanders = {
            org_id: without_name(state_behind(org_id, change))
            for org_id in related
            if (change := changes.get((org_id, start))) is not None
        }
        return Batch(
            items,
            organizations,
            bystanders,
            list(self._journaled.values()),
            _before(waiting, items, selection, extent),
            frozenset(self._names),
            self._contested,
            read_to,
        )


def _claimed(request: Request) -> str | None:
    """The name that a command asks for, by `name_key`; a restored organization asks for the one it had."""
    command = request.command
    if isinstance(command, CreateOrganization) or (
        isinstance(command, UpdateOrganization) and "name" in command.model_fields_set
    ):
        return name_key(command.name)
    return None


def _is_contested(item: Item) -> bool:
    """Whether somebody else may have held the name: what was recorded doesn't say that it was free."""
    return item.own is None or item.own.row.outcome == Outcome.REJECTED


def _follows(row: NewOutcome, version: int) -> bool:
    """Whether a row is decided on the version that the one before it in the batch left."""
    if row.outcome == Outcome.APPLIED:
        return row.version == version + 1
    return row.version == version or (row.outcome == Outcome.REJECTED and row.version is None)


def _before(
    waiting: Sequence[recorded.ParkedThen], items: Sequence[Item], selection: CommandSelection, extent: Extent
) -> list[Waiting]:
    """Of the open parked commands those that are not rehearsed, and were there before those that are."""
    if not waiting:
        return []
    firsts: dict[UUID, int] = {}
    for item in items:
        if isinstance(item.request, Request) and item.request.org_id is not None:
            firsts.setdefault(item.request.org_id, item.record.offset)
    found: list[Waiting] = []
    for each in waiting:
        assert each.org_id is not None
        assert each.command_id is not None
        offsets = extent.ranges.get(each.partition)
        is_rehearsed = offsets is not None and offsets.first <= each.offset < offsets.end
        if selection.command_ids:
            is_rehearsed = each.command_id in selection.command_ids
        if not is_rehearsed and each.offset < firsts.get(each.org_id, 0):
            found.append(Waiting(each.command_id, each.org_id, each.request_digest or b"", each.partition, each.offset))
    return found


def without_name(organization: StoredOrganization) -> StoredOrganization:
    """An organization that leaves its name to others: it has one that nobody can ask for."""
    key = organization.name_key
    return organization if key is None else organization._replace(name_key=f"{key} ({organization.id})")


def state_behind(org_id: UUID, change: LastChange) -> StoredOrganization:
    """What an organization was after its last change, which may be that it was deleted."""
    if change.after is not None:
        return from_published(orjson.loads(change.after))
    assert change.before is not None, org_id
    return as_deleted(from_published(orjson.loads(change.before)), change.version, change.recorded_at)
