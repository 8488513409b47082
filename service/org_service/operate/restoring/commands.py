"""What becomes of the commands of the topic: kept for the journal, parked or decided again, or never decided again."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from org_events.results import ProblemType
from org_service.apply.authenticator import Authenticator
from org_service.apply.reading import read_each
from org_service.domain import details
from org_service.domain.outcomes import KeptRecord
from org_service.domain.reasons import ParkReason
from org_service.domain.requests import Record as Command
from org_service.domain.requests import Rejected, Request, SetAside, Unreadable
from org_service.kafka.reader import Record
from org_service.operate.restoring import records as wire
from org_service.store import parked, staged
from org_service.store.database import DatabaseConnection
from org_service.telemetry.logs import get_logger
from org_service.wire.commands import read
from org_service.wire.parked import keep_record

log = get_logger(__name__)

_PARKED: Final = "It was parked before the database was written from the topics, which do not say why"


class Commands:
    """A step of them."""

    def __init__(self, authenticator: Authenticator, again: set[UUID], now: dict[str, Any]) -> None:
        """Begin.

        Args:
            authenticator: Verifies whose commands are parked again.
            again: The commands that are to be parked again; those that were are taken out.
            now: Where the run stands. `back_to` gets, by partition, the first command that is to be decided again.
        """
        self._authenticator = authenticator
        self._again = again
        self._now = now

    async def keep(self, conn: DatabaseConnection, records: Sequence[Record]) -> None:
        """Keep the next records of the topic."""
        trusts, again = self._authenticator.trusts, self._again
        requests = list(read_each(read, records, log))
        readable = [each for each in requests if isinstance(each, Request)]
        undecided = await staged.find_undecided(conn, {each.command_id for each in readable})
        await staged.stage(conn, [wire.read_command(each, trusts=trusts) for each in readable])
        lost: set[UUID] = set()
        aside: list[SetAside] = []
        for request in requests:
            if not self._is_acknowledged(request.record):
                continue
            if isinstance(request, Unreadable):
                aside.append(SetAside(request))
            elif request.command_id in again:
                again.discard(request.command_id)
                aside.append(_set_aside(request, self._authenticator))
                undecided.discard(request.command_id)
            elif request.command_id in undecided:
                self._judge(request, lost)
        await staged.stage_lost(conn, lost)
        await self._park(conn, aside)

    def _is_acknowledged(self, record: Command) -> bool:
        """Whether workers don't read it again anyway."""
        committed = self._now["committed"][str(record.partition)]
        return committed < 0 or record.offset < committed

    def _judge(self, request: Request, lost: set[UUID]) -> None:
        """Whether a command without an outcome was decided behind what Kafka has, or before results begin."""
        record, complete = request.record, self._now["complete_from"]
        since = max(complete.values()) if request.org_id is None else complete[str(record.partition)]
        if record.timestamp >= since or record.timestamp > self._now["decided_ms"]:
            back_to, at = self._now["back_to"], str(record.partition)
            back_to[at] = min(back_to.get(at, record.offset), record.offset)
        else:
            # guarantee 1: nobody knows how it was decided, and it is never decided again.
            lost.add(request.command_id)

    async def _park(self, conn: DatabaseConnection, aside: Iterable[SetAside]) -> None:
        """Park records again; of an organization the first one is what failed, the others wait behind it."""
        rows = [keep_record(each) for each in aside]
        if not rows:
            return
        held, _ = await parked.find(conn, {row.org_id for row in rows if row.org_id is not None}, [], 1)
        queues = set(held)
        kept: list[KeptRecord] = []
        for row in rows:
            behind = row.command_id is not None and row.org_id in queues
            kept.append(row._replace(reason=ParkReason.QUEUED_BEHIND) if behind else row)
            if row.command_id is not None and row.org_id is not None:
                queues.add(row.org_id)
        await parked.park(conn, kept, datetime.now(UTC))


def _set_aside(request: Request, authenticator: Authenticator) -> SetAside:
    """A command that was parked, once more; without an actor where no key verifies its token any more."""
    admitted = authenticator.admit([request])
    authenticator.forget()
    judged = admitted[0] if admitted else request
    assert isinstance(judged, Request)
    if judged.authorization is not None and judged.user_id is None and not isinstance(judged.command, Rejected):
        unverified = Rejected(judged.command.type, details.UNVERIFIED, ProblemType.UNAUTHENTICATED)
        judged = judged._replace(command=unverified, actor=None)
    return SetAside(Unreadable(request.record, _PARKED, ParkReason.HANDLER_RAISED), judged)
