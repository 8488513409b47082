"""Let the journal continue past Kafka, after a database was restored from an older backup than Kafka knows.

The relay refuses to continue then, since it would publish other rows under positions that subscribers have seen. What
was committed after the backup is lost to the database, though its events are in Kafka; what was committed since is
saved: see `store.recovery`.

Reading the events takes minutes, and a person reads slower still, so no transaction is open meanwhile: Postgres would
end it, and workers would wait. What was confirmed is compared with what is there when it is carried out.
"""

from collections.abc import Callable
from typing import NamedTuple

from org_service.errors import PreconditionError
from org_service.kafka.reader import read_all
from org_service.operate.progress import published
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


class Recovery(NamedTuple):
    """What is to be done, and what stays lost."""

    advance: Advance
    lost_changes: list[LostChange]


async def advance(settings: Settings, confirm: Callable[[Recovery], bool]) -> Recovery | None:
    """Let the journal continue past what Kafka knows, if `confirm` agrees to what that means.

    Stop the workers first, because of what they would decide on lost data. `confirm` may take its time: nothing is
    locked meanwhile. May be run again: the second time there is nothing to do.

    Returns:
        What was done; None when `confirm` did not agree, and nothing was changed.

    Raises:
        TopicsMissingError, PartitionUnreadableError: What Kafka has can't be read.
        PreconditionError: There is no need to, it can't be done, or it would by now be something else than was
            confirmed. Nothing was changed.
    """
    database = Database(settings.database, "owner", direct=True)
    last = await _last_published(settings)
    async with database.begin() as conn:
        planned = await _plan(conn, last)
    found = Recovery(planned, await _lost_changes(settings, planned))
    if not confirm(found):
        return None
    last = await _last_published(settings)
    async with database.begin() as conn:
        if await _plan(conn, last) != planned:
            raise PreconditionError(
                "the journal changed after you were asked, so nothing was done: stop all workers and run this again."
            )
        await recovery.carry_out(conn, planned)
    return found


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
