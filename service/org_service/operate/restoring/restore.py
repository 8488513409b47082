"""`orgs rebuild` and `orgs recover`: a lost database, or the lost end of one, comes back from the topics.

    rebuild   an empty database: from position 0
    recover   one that was restored from a backup: from the backup's last position

Up to the last position that Kafka has, as the relay's position record says. Nothing is decided again and nothing is
sent again: the journal is written as it was published, and the relay goes on behind it. See `steps` for how.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, ClassVar, Final, NamedTuple
from uuid import UUID

from org_service.errors import PreconditionError
from org_service.kafka.offsets import describe_groups
from org_service.kafka.ranges import find_extent, find_first_times, open_ranges
from org_service.operate.operation import Execution, Plan, Tally
from org_service.operate.progress import published
from org_service.operate.restoring.records import is_ours, read_position
from org_service.operate.restoring.steps import Steps
from org_service.settings import Settings
from org_service.store import journal, restoring
from org_service.store.database import Database
from org_service.store.leader import LeaderLock
from org_service.wire.position import Published

COMPARED_FROM: Final = (timedelta(minutes=1), timedelta(hours=1))
"""Before the backup's last row: where its history is compared with the topics'; the second where the first shows
nothing, since clocks differ."""


class Asked(NamedTuple):
    """Which positions come back."""

    restored: int
    """The last one that the database has; 0 for an empty one."""
    published: int
    """The last one that Kafka has."""
    command_id: str | None
    """Of the outcome there."""


class Restoring:
    """What both tools are."""

    kind: ClassVar[str]

    def __init__(self, settings: Settings, parameters: Mapping[str, Any]) -> None:
        self._settings = settings
        self._asked = Asked(**parameters)

    @property
    def resource(self) -> str:
        """All of the journal."""
        return "journal"

    @property
    def parameters(self) -> Mapping[str, Any]:
        """Which positions come back."""
        return self._asked._asdict()

    async def plan(self) -> Plan:
        """See that it can be done, and how far back the topics go."""
        last = await self._see()
        tally = Tally()
        tally.add(repr(self._asked).encode(), dict)
        facts = {
            "last position of the database": self._asked.restored,
            "last position that Kafka has": last.position,
            "command there": None if last.command_id is None else str(last.command_id),
        }
        plan = tally.plan(facts, [*await _explain_retention(self._settings), *_NOTES])
        return plan._replace(items=self._asked.published - self._asked.restored, sample=())

    async def run(self, execution: Execution) -> None:
        """Do it, from `execution.progress` on.

        Raises:
            RetryError: Workers or a relay are in the way.
            PreconditionError: The journal or the topics are others by now; nothing was changed.
        """
        steps = Steps(self._settings, execution, self._asked.restored, self._asked.published)
        await steps.run(self._see)

    async def _see(self) -> Published:
        """See that all is as it was planned, and that nobody writes.

        Raises:
            PreconditionError: It isn't; the message says what to do.
        """
        last = await _see_published(self._settings)
        if last.position != self._asked.published:
            raise PreconditionError(
                f"the relay of another database publishes: Kafka has position {last.position} by now, not "
                f"{self._asked.published}. Stop it, and plan again."
            )
        await see_stopped(self._settings)
        await self._see_database()
        return last

    async def _see_database(self) -> None:
        raise NotImplementedError


class Rebuild(Restoring):
    """All of the database."""

    kind: ClassVar[str] = "rebuild"

    @classmethod
    async def make(cls, settings: Settings) -> "Rebuild":
        """Make one for what Kafka has now.

        Raises:
            TopicsMissingError, PartitionUnreadableError: What Kafka has can't be read.
            PreconditionError: It can't be done.
        """
        last = await _see_published(settings)
        return cls(settings, Asked(0, last.position, _text(last.command_id))._asdict())

    async def _see_database(self) -> None:
        database = Database(self._settings.database, "owner", direct=True)
        async with database.begin() as conn:
            head = await restoring.lock_head(conn)
            if head is None:
                raise PreconditionError(journal.NO_HEAD)
            if head or not await restoring.is_empty(conn):
                raise PreconditionError(
                    f"the database is not empty: its journal goes up to position {head}. One that was restored from a "
                    "backup is brought forward by `orgs recover`. To write all of it again, make another database "
                    "(`orgs migrate` makes its tables), with no worker running."
                )


class Recover(Restoring):
    """What a backup lacks."""

    kind: ClassVar[str] = "recover"

    @classmethod
    async def make(cls, settings: Settings) -> "Recover":
        """Make one for what Kafka and the database have now.

        Raises:
            TopicsMissingError, PartitionUnreadableError: What Kafka has can't be read.
            PreconditionError: There is no need to, or it can't be done.
        """
        last = await _see_published(settings)
        database = Database(settings.database, "owner", direct=True)
        async with database.begin() as conn:
            head = await journal.read_head(conn)
        return cls(settings, Asked(head, last.position, _text(last.command_id))._asdict())

    async def _see_database(self) -> None:
        asked = self._asked
        database = Database(self._settings.database, "owner", direct=True)
        async with database.begin() as conn:
            head = await restoring.lock_head(conn)
            moment = await restoring.find_last_moment(conn)
            known = await journal.find_command_id(conn, asked.published)
            empty = await restoring.is_empty(conn)
        if head is None:
            raise PreconditionError(journal.NO_HEAD)
        if head != asked.restored:
            raise PreconditionError(
                f"workers decide: the journal goes up to {head} by now. Stop them, and restore again."
            )
        if empty:
            raise PreconditionError("the database is empty: `orgs rebuild` writes all of it from the topics.")
        if head >= asked.published and (known is None or asked.command_id in (None, str(known))):
            raise PreconditionError(
                f"nothing to do: Kafka has the journal up to position {asked.published}, and the database up to {head}."
            )
        if moment is not None:
            await self._compare(moment)
        if head >= asked.published:
            raise PreconditionError(_OTHER.format(position=asked.published))

    async def _compare(self, moment: datetime) -> None:
        """See that the end of the backup is what was published."""
        settings, restored = self._settings, self._asked.restored
        said: dict[int, UUID] = {}
        for before in COMPARED_FROM:
            for topic in (settings.kafka.topics.results, settings.kafka.topics.events):
                said |= await _read_positions(settings, topic, moment - before, restored)
            if said:
                break
        database = Database(settings.database, "owner", direct=True)
        async with database.begin() as conn:
            stored = await restoring.find_command_ids(conn, list(said))
        other = sorted(position for position, command_id in said.items() if stored.get(position) != command_id)
        if other:
            raise PreconditionError(_OTHER.format(position=other[0]))


async def _read_positions(settings: Settings, topic: str, since: datetime, through: int) -> dict[int, UUID]:
    """The command ids that a topic has at positions up to one, of what was published since a moment."""
    since_ms = int(since.timestamp() * 1000)
    extent = await find_extent(
        settings.kafka, topic, from_offsets={}, end_offsets={}, from_ms=since_ms, to_ms=None, keys=()
    )
    found: dict[int, UUID] = {}
    full: set[int] = set()
    async with open_ranges(settings.kafka, topic, extent.ranges) as reader:
        while reader.unfinished - full:
            for record in filter(is_ours, await reader.read(full)):
                position, command_id = read_position(record)
                if position is not None and position <= through:
                    found[position] = command_id
                elif position is not None:
                    full.add(record.partition)
    return found


async def _see_published(settings: Settings) -> Published:
    last = await published(settings)
    if last is None:
        raise PreconditionError("the relay has published nothing yet: there is nothing that could come back.")
    return last


async def see_stopped(settings: Settings) -> None:
    """See that no worker and no relay run.

    Raises:
        PreconditionError: One does.
    """
    group = settings.worker_group
    found = (await describe_groups(settings.kafka, [group])).get(group)
    if found is not None and found.active:
        raise PreconditionError(f"{found.members} workers run, as members of the group {group}: stop them first.")
    async with LeaderLock(settings.database, f"{settings.kafka.topic_prefix}{settings.relay.name}", "owner") as lock:
        if not await lock.try_acquire():
            raise PreconditionError("a relay runs on this database: stop it first.")


async def _explain_retention(settings: Settings) -> list[str]:
    """Since when each topic has what was published."""
    notes: list[str] = []
    topics = settings.kafka.topics
    for topic in (topics.events, topics.results, topics.commands):
        times = (await find_first_times(settings.kafka, topic)).values()
        known = [time for time in times if time is not None]
        if None in times:
            notes.append(f"{topic}: of some partitions nothing is left")
        elif since := max(known, default=0):
            notes.append(f"{topic}: complete since {datetime.fromtimestamp(since / 1000).astimezone():%Y-%m-%d %H:%M}")
    return notes


def _text(command_id: UUID | None) -> str | None:
    return None if command_id is None else str(command_id)


_OTHER: Final = (
    "at position {position} the topics have another command than the database. Either the backup is of another "
    "history, or workers decided commands after it was restored: restore it again, with all workers stopped, and plan "
    "again. Where no backup fits, `orgs journal advance` gives up what is lost."
)
_NOTES: Final = (
    "What retention took does not come back: outcomes without a change whose results are gone, and commands that were "
    "parked longer ago than results are kept. Positions about which nothing is known are noted as gaps.",
    "Commands that were accepted over HTTP and not decided are decided, but GET /v1/commands/ID does not know them.",
    "Memberships, partnerships and staff are cleared; the first worker loads them again.",
    "Keep workers, relay and edges stopped until it is done. Nothing is published again.",
)
