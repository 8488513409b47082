"""`orgs journal advance`: let the journal continue past Kafka, after an older backup was restored than Kafka knows.

The relay refuses to continue then, since it would publish other rows under positions that subscribers have seen. What
was committed after the backup is lost to the database, though its events are in Kafka; what was committed since is
saved: see `store.recovery`.

Reading the events takes minutes, so no transaction is open meanwhile: Postgres would end it, and workers would wait.
What was planned is compared with what is there in the transaction that carries it out.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

from org_service import probes
from org_service.errors import PreconditionError
from org_service.kafka.reader import read_all
from org_service.operate.operation import Execution, Plan, Tally
from org_service.operate.progress import published
from org_service.probes import probe
from org_service.settings import Settings
from org_service.store import journal, recovery
from org_service.store.database import Database, DatabaseConnection
from org_service.store.recovery import Advance
from org_service.wire.position import Published


class LostChange(NamedTuple):
    """A change that subscribers have seen and the database has not."""

    position: int
    org_id: str
    version: int
    event_type: str


class JournalAdvance:
    """The journal continues past what Kafka knows. Stop the workers first: they would decide on lost data."""

    kind: ClassVar[str] = "journal advance"

    def __init__(self, settings: Settings, parameters: Mapping[str, Any]) -> None:
        self._settings = settings
        self._asked = Advance(**parameters)

    @classmethod
    async def make(cls, settings: Settings) -> "JournalAdvance":
        """Make one for what Kafka and the journal have now.

        Raises:
            TopicsMissingError, PartitionUnreadableError: What Kafka has can't be read.
            PreconditionError: There is no need to, or it can't be done.
        """
        return cls(settings, (await _look(settings))._asdict())

    @property
    def resource(self) -> str:
        """All of the journal."""
        return "journal"

    @property
    def parameters(self) -> Mapping[str, Any]:
        """How the journal continues."""
        return self._asked._asdict()

    async def plan(self) -> Plan:
        """See what moves, and which changes stay lost; those of them that the topic still holds."""
        advance = await _look(self._settings)
        tally = Tally()
        lost = await _lost_changes(self._settings, advance)
        for change in lost:
            tally.add(repr(change).encode(), change._asdict)
        notes = [
            f"Kafka has positions up to {advance.published}, the backup up to {advance.restored}: {advance.lost} "
            f"decided commands are lost to the service, {len(lost)} of them changed something, as seen outside.",
            f"{advance.fresh} commands decided since the restore move to positions {advance.published + 1} and later.",
            "These organizations will publish versions again that subscribers have seen. Stop all workers first.",
        ]
        plan = tally.plan(_facts(advance), notes)
        return plan._replace(items=advance.lost + advance.fresh)

    async def run(self, execution: Execution) -> None:
        """Move the rows, in one transaction.

        Raises:
            PreconditionError: It would by now be something else than was planned. Nothing was changed.
        """
        if execution.progress is not None:
            return
        planned = self._asked
        last = await _last_published(self._settings)
        database = Database(self._settings.database, "owner", direct=True)
        async with database.begin() as conn:
            if await _plan(conn, last) != planned:
                raise PreconditionError(
                    "the journal changed since the plan, so nothing was done: stop all workers and plan again."
                )
            await recovery.carry_out(conn, planned)
            counts = {"given up": planned.lost, "moved": planned.fresh}
            await execution.advance(conn, planned.head, {name: rows for name, rows in counts.items() if rows})
            if probes.listeners:
                await probe("operate.before_commit")
        if probes.listeners:
            await probe("operate.after_commit")


def _facts(advance: Advance) -> Mapping[str, Any]:
    return {
        "last position that Kafka has": advance.published,
        "last position of the backup": advance.restored,
        "commands decided since the restore": advance.fresh,
    }


async def _look(settings: Settings) -> Advance:
    database = Database(settings.database, "owner", direct=True)
    last = await _last_published(settings)
    async with database.begin() as conn:
        return await _plan(conn, last)


async def _last_published(settings: Settings) -> Published:
    last = await published(settings)
    if last is None:
        raise PreconditionError("the relay has published nothing yet, so the journal cannot be behind it.")
    return last


async def _plan(conn: DatabaseConnection, last: Published) -> Advance:
    head, command_id = await journal.read_head(conn), await journal.find_command_id(conn, last.position)
    if head >= last.position and (last.command_id is None or command_id in (None, last.command_id)):
        raise PreconditionError(
            f"nothing to do: Kafka has the journal up to position {last.position}, and the journal, which goes "
            f"up to {head}, has the same row there."
        )
    return await recovery.plan(conn, last.position, last.recorded_at)


async def _lost_changes(settings: Settings, planned: Advance) -> list[LostChange]:
    """The changes that are only in Kafka, in order; those of them that the topic still holds."""
    lost: list[LostChange] = []
    async for records in read_all(settings.kafka, settings.kafka.topics.events):
        for record in records:
            headers = dict(record.headers)
            position = int(headers.get("ce_position", b"0"))
            if planned.restored < position <= planned.published:
                subject, kind = headers["ce_subject"].decode(), headers["ce_type"].decode()
                lost.append(LostChange(position, subject, int(headers["ce_orgversion"]), kind))
    return sorted(lost)
