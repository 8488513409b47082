"""Let the journal go on past Kafka, after a database was restored from an older backup than Kafka knows.

The relay refuses to go on then, since it would publish other rows under positions that subscribers have seen. What
was committed after the backup is lost to the database, though its events are in Kafka; what was committed since is
saved: see `store.recovery`.
"""

from collections.abc import Callable
from typing import NamedTuple
from uuid import UUID

from org_service.errors import StopError
from org_service.operate.kafka import read_all
from org_service.operate.progress import Published, published
from org_service.settings import Settings
from org_service.store import journal, recovery
from org_service.store.engine import create_engine
from org_service.store.recovery import Advance


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
    """Let the journal go on past what Kafka knows, if `confirm` agrees to what that means.

    The journal is locked from the look to the end, so workers wait meanwhile; stop them all the same, because of what
    they would decide on lost data. May be run again: the second time there is nothing to do.

    Returns:
        What was done; None when `confirm` did not agree, and nothing was changed.

    Raises:
        StopError: There is no need to, or it can't be done. Nothing was changed.
    """
    last = await published(settings)
    if last is None:
        raise StopError("the relay has published nothing yet, so the journal can't be behind it.")
    engine = create_engine(settings.database, "owner", direct=True)
    async with engine.connect() as conn, conn.begin() as transaction:
        _refuse_if_well(last, await journal.head(conn), await journal.command_id_at(conn, last.position))
        planned = await recovery.plan(conn, last.position, last.moment)
        found = Recovery(planned, await _lost_changes(settings, planned))
        if not confirm(found):
            await transaction.rollback()
            return None
        await recovery.carry_out(conn, planned)
    return found


def _refuse_if_well(last: Published, head: int, command_id: UUID | None) -> None:
    if head >= last.position and (last.command_id is None or command_id in (None, last.command_id)):
        raise StopError(
            f"there is no need to: Kafka knows the journal up to position {last.position}, and the journal, which goes "
            f"up to {head}, has the same there."
        )


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
