"""`orgs undo`: changes are taken back by commands of their own, and later work is never overwritten.

Which changes is a selection of the journal; what taking them back comes to, for each organization, is `domain.undo`.
Both are judged as of one position, so a run that is resumed, long after some of its own commands were applied, makes
the same commands with the same ids. Each is guarded by what the plan saw, and the service has the last word: what
somebody changed in between is a conflict, and stays.

Newest first. An organization that gets a name back comes behind the one that has it now, and not in the same step.
"""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from typing import Any, ClassVar, Final, NamedTuple
from uuid import UUID

import orjson
from pydantic import BaseModel, ConfigDict

from org_events.commands import Command, DeleteOrganization
from org_service.domain.organization import COMPARED_FIELDS, name_key
from org_service.domain.undo import Past, Undoing, undo
from org_service.errors import PreconditionError
from org_service.operate.changes import Selection
from org_service.operate.operation import Execution, Plan, Tally, explain_left_out, open_database
from org_service.operate.sending import Item, open_sender, with_failures
from org_service.settings import Settings
from org_service.store import journal, organizations, relations
from org_service.store.database import Database

CHANGES_MAX: Final = 500_000
ORGANIZATIONS_MAX: Final = 100_000
"""Of one undo: they are in memory, about 3 KB each. More is several undos, by position or time."""
READ_ORGANIZATIONS: Final = 500
"""Whose histories are read in one statement."""
STEP_ORGANIZATIONS_MAX: Final = 1_000


class Parameters(BaseModel):
    """What makes an undo again."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    selection: Selection
    as_of: int
    """The position that organizations are judged as of."""
    skipped: tuple[UUID, ...] = ()
    """Organizations whose commands would be rejected, as was seen when it was planned."""


class _Work(NamedTuple):
    """What an undo comes to, before anybody looked at what others did since."""

    changes: int
    todo: Sequence[Undoing]
    """In the order in which they are done."""
    waits_for: Mapping[UUID, UUID]
    """Who gets a name back, and who has to give it up before."""
    conflicts: Sequence[str]
    done_before: int


class Undo:
    """An undo."""

    kind: ClassVar[str] = "undo"

    def __init__(self, settings: Settings, parameters: Mapping[str, Any]) -> None:
        self._settings = settings
        self._asked = Parameters.model_validate(parameters)
        self._work: _Work | None = None

    @classmethod
    async def make(cls, settings: Settings, selection: Selection) -> "Undo":
        """Make one of what is in the journal now.

        Raises:
            PreconditionError: The selection begins behind its end.
        """
        database = Database(settings.database, "operate", direct=True)
        pinned = await selection.pinned(database)
        async with database.connect() as conn:
            head = await journal.read_head(conn)  # not before the end of the selection
        return cls(settings, Parameters(selection=pinned, as_of=head).model_dump(mode="json"))

    @property
    def resource(self) -> str:
        """One undo is under way at a time: of two the second would stand on what the first one changes."""
        return "undo"

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The selection, and as of when."""
        return self._asked.model_dump(mode="json")

    async def plan(self) -> Plan:
        """See what each organization would become, and what stands in the way."""
        async with open_database(self._settings) as database:
            work = await self._look(database)
            obstacles: dict[UUID, str] = {}
            changed_since = 0
            for start in range(0, len(work.todo), READ_ORGANIZATIONS):
                some = work.todo[start : start + READ_ORGANIZATIONS]
                obstacles |= await _obstacles(database, some, work.waits_for)
                async with database.connect() as conn:
                    versions = await organizations.find_versions(conn, [each.org_id for each in some])
                changed_since += sum(versions.get(each.org_id) != each.version for each in some)
        for each in work.todo:  # in order: whom one waits for comes before
            holder = work.waits_for.get(each.org_id)
            if holder in obstacles:
                obstacles.setdefault(each.org_id, f"its name is taken by {holder}, which keeps it")
        self._asked = self._asked.model_copy(update={"skipped": tuple(obstacles)})
        tally = Tally()
        for each in self._todo(work):
            tally.add(_identity(each), lambda each=each: _shown(each))
        conflicts = [*work.conflicts, *(f"{org_id}: {why}" for org_id, why in obstacles.items())]
        facts = {
            "as of position": self._asked.as_of,
            "changes": work.changes,
            "taken back already": work.done_before,
            "conflict": len(conflicts),
            "organizations that changed since": changed_since,
        }
        return tally.plan(facts, explain_left_out("what can't be undone, and is left as it is", conflicts))

    async def run(self, execution: Execution) -> None:
        """Send what was not sent yet, a step of organizations at a time."""
        async with open_database(self._settings) as database:
            todo = self._todo(work := await self._look(database))
        progress: Mapping[str, Any] = execution.progress or {"next": 0}
        await execution.record(progress, {})  # see whose run this is before anything goes out
        async with open_sender(self._settings, execution) as sender:
            while progress["next"] < len(todo):
                step = _step(todo, progress["next"], execution.step_max(STEP_ORGANIZATIONS_MAX), work.waits_for)
                done = await sender.send([_item(each) for each in step])
                progress = with_failures({**progress, "next": progress["next"] + len(step)}, done.failures)
                await execution.record(progress, done.counts)

    def _todo(self, work: _Work) -> list[Undoing]:
        skipped = set(self._asked.skipped)
        return [each for each in work.todo if each.org_id not in skipped]

    async def _look(self, database: Database) -> _Work:
        """The same each time, whatever happened since: the journal only grows."""
        if self._work is not None:
            return self._work
        chosen = await self._choose(database)
        conflicts: list[str] = []
        undoings: list[Undoing] = []
        done_before = 0
        async for each in _undo_all(database, chosen, self._asked.as_of):
            conflicts += (f"{each.org_id} {why}" for why in each.conflicts)
            done_before += each.done_before
            if each.commands:
                undoings.append(each)
        newest_first = sorted(undoings, key=lambda each: max(chosen[each.org_id].values()), reverse=True)
        todo, waits_for, circles = _order(newest_first)
        conflicts += circles
        changes = sum(map(len, chosen.values()))
        self._work = _Work(changes, todo, waits_for, conflicts, done_before)
        return self._work

    async def _choose(self, database: Database) -> dict[UUID, dict[int, int]]:
        """By organization the versions that are to be taken back, with their positions."""
        chosen: dict[UUID, dict[int, int]] = {}
        changes = 0
        async for rows in self._asked.selection.read_all(database):
            for row in rows:
                assert row.org_id is not None
                assert row.version is not None
                chosen.setdefault(row.org_id, {})[row.version] = row.position
            changes += len(rows)
            if changes > CHANGES_MAX or len(chosen) > ORGANIZATIONS_MAX:
                raise PreconditionError(
                    f"these are more than {CHANGES_MAX:,} changes, or of more than {ORGANIZATIONS_MAX:,} "
                    f"organizations: undo them in parts, the latest first; position {rows[-1].position} is as far as "
                    "one can go."
                )
        return chosen


async def _undo_all(database: Database, chosen: Mapping[UUID, Mapping[int, int]], as_of: int) -> AsyncIterator[Undoing]:
    all_ids = list(chosen)
    for start in range(0, len(all_ids), READ_ORGANIZATIONS):
        org_ids = all_ids[start : start + READ_ORGANIZATIONS]
        async with database.connect() as conn:
            since = {org_id: min(chosen[org_id]) for org_id in org_ids}
            rows = await journal.select_since(conn, since, as_of)
        histories: dict[UUID, list[Past]] = {}
        for row in rows:
            histories.setdefault(row.org_id, []).append(
                Past(
                    version=row.version,
                    event_type=row.event_type,
                    changed=row.changed,
                    before=row.before,
                    after=row.after,
                    actor=row.actor,
                    chosen=row.version in chosen[row.org_id],
                )
            )
        for org_id, history in histories.items():
            yield undo(org_id, history)


def _order(undoings: Sequence[Undoing]) -> tuple[list[Undoing], dict[UUID, UUID], list[str]]:
    """As given, but who gets a name back comes behind who gives it up.

    Returns:
        What can be done, in order; who waits for whom; and those that wait for each other in a circle, as conflicts.
    """
    gives_up = {name_key(each.name): each for each in undoings if each.before and _releases(each)}
    waits_for: dict[UUID, UUID] = {}
    by_id = {each.org_id: each for each in undoings}
    for each in undoings:
        for holder in filter(None, map(gives_up.get, _claims(each))):
            if holder.org_id != each.org_id:
                waits_for.setdefault(each.org_id, holder.org_id)
    placed: dict[UUID, Undoing] = {}
    circles: list[str] = []
    hopeless: set[UUID] = set()
    for each in undoings:
        chain: dict[UUID, Undoing] = {}
        at: UUID | None = each.org_id
        while at is not None and at not in placed and at not in chain and at not in hopeless:
            chain[at] = by_id[at]
            at = waits_for.get(at)
        if at is not None and (at in chain or at in hopeless):
            hopeless |= chain.keys()
            circles += (
                f"{org_id}: it and {waits_for[org_id]} would get each other's names back, perhaps with others between: "
                "rename one of them to something else, and plan again"
                for org_id in chain
            )
        else:
            placed |= reversed(chain.items())
    return list(placed.values()), waits_for, circles


def _claims(undoing: Undoing) -> Collection[str]:
    """The names that it takes, in the form that must be unique; a restored one first takes the last that it had."""
    if undoing.after is None:
        return ()
    had, gets = name_key(undoing.name), name_key(undoing.after["name"])
    if undoing.before is None:
        return dict.fromkeys((gets, had))
    return () if had == gets else (gets,)


def _releases(undoing: Undoing) -> bool:
    return undoing.after is None or bool(_claims(undoing))


async def _obstacles(
    database: Database, undoings: Sequence[Undoing], waits_for: Mapping[UUID, UUID]
) -> dict[UUID, str]:
    """What the service would reject as things are now, and why."""
    claims = [(each.org_id, key) for each in undoings for key in _claims(each)]
    deleted = [each.org_id for each in undoings if isinstance(each.commands[0], DeleteOrganization)]
    async with database.connect() as conn:
        holders = await organizations.find_holders(conn, {key for _, key in claims})
        clients = await relations.find_clients(conn, deleted)
    found: dict[UUID, str] = {}
    for org_id, key in claims:
        holder = holders.get(key)
        if holder is not None and holder not in (org_id, waits_for.get(org_id)):
            found[org_id] = f"its name is taken by {holder} meanwhile"
    for org_id, served in clients.items():
        alive = [str(client) for client, is_there in served if is_there]
        if alive:
            found[org_id] = f"it would be deleted, and is a partner of {', '.join(alive[:3])}"
    return found


def _step(todo: Sequence[Undoing], start: int, most: int, waits_for: Mapping[UUID, UUID]) -> Sequence[Undoing]:
    """The next ones, up to the first that needs the name of one before it: partitions are decided apart."""
    step: dict[UUID, Undoing] = {}
    for each in todo[start : start + most]:
        if waits_for.get(each.org_id) in step:
            break
        step[each.org_id] = each
    return list(step.values())


def _item(undoing: Undoing) -> Item:
    return Item(str(undoing.org_id), "undone", str(undoing.org_id), undoing.commands)


def _identity(undoing: Undoing) -> bytes:
    return b"%b %d %b" % (undoing.org_id.bytes, undoing.version, b" ".join(map(_body, undoing.commands)))


def _body(command: Command) -> bytes:
    return command.type.encode() + command.to_body()


def _shown(undoing: Undoing) -> Mapping[str, Any]:
    return {
        "org_id": str(undoing.org_id),
        "name": undoing.name,
        "changes": undoing.taken_back,
        "does": ", ".join(command.type.removeprefix("org.") for command in undoing.commands),
        "before": _state(undoing.before, undoing.after),
        "after": _state(undoing.after, undoing.before),
    }


def _state(state: Mapping[str, Any] | None, other: Mapping[str, Any] | None) -> str:
    """What of an organization differs from another one; all it has where there is no other."""
    if state is None:
        return "deleted"
    there = [field for field in COMPARED_FIELDS if state[field] not in (None, False)]
    fields = there if other is None else [field for field in COMPARED_FIELDS if state[field] != other[field]]
    return ", ".join(f"{field} {orjson.dumps(state[field]).decode()}" for field in fields)
