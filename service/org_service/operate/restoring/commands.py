"""What becomes of the commands of the topic: kept for the journal, or parked again."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from itertools import groupby
from operator import itemgetter
from typing import Final

from org_events.results import ProblemType
from org_service.apply.authenticator import Authenticator
from org_service.apply.reading import read_each
from org_service.domain import details
from org_service.domain.outcomes import KeptRecord
from org_service.domain.reasons import ParkReason
from org_service.domain.requests import Record, Rejected, Request, SetAside, Unreadable
from org_service.operate.restoring import records as wire
from org_service.store import parked, staged
from org_service.store.database import DatabaseConnection
from org_service.store.staged import CommandRow
from org_service.telemetry.logs import get_logger
from org_service.wire.commands import read
from org_service.wire.parked import keep_record

log = get_logger(__name__)

APART_OFFSETS: Final = 20_000
"""Between two parked commands: to read what lies between them takes as long as to begin again behind it."""
_PARKED: Final = "It was parked before the database was written from the topics, which do not say why"
_identify: Final = partial(read, validate=False)


def decode(records: Iterable[Record], *, trusts: bool) -> list[CommandRow | Unreadable]:
    """Commands as they are kept, and what can't be read."""
    return [
        wire.read_command(each, trusts=trusts) if isinstance(each, Request) else each
        for each in read_each(_identify, records, log)
    ]


async def keep(conn: DatabaseConnection, rows: Sequence[CommandRow | Unreadable], committed: Mapping[int, int]) -> None:
    """Keep commands, and park what can't be read and isn't read again by workers.

    Args:
        conn: In a transaction of its own.
        rows: What `decode` made.
        committed: By partition, where workers go on; less than 0 where nothing is committed.
    """
    await staged.stage_commands(conn, [each for each in rows if isinstance(each, CommandRow)])
    unreadable = [each for each in rows if isinstance(each, Unreadable)]
    await _park(conn, [SetAside(each) for each in unreadable if _is_acknowledged(each.record, committed)])


def _is_acknowledged(record: Record, committed: Mapping[int, int]) -> bool:
    at = committed[record.partition]
    return at < 0 or record.offset < at


async def park_again(conn: DatabaseConnection, records: Iterable[Record], authenticator: Authenticator) -> None:
    """Park commands once more; in the order in which they were sent, where they are of one organization."""
    requests = read_each(read, records, log)
    await _park(
        conn,
        [SetAside(each) if isinstance(each, Unreadable) else _set_aside(each, authenticator) for each in requests],
    )


async def _park(conn: DatabaseConnection, aside: Sequence[SetAside]) -> None:
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


def find_stretches(parked: Sequence[tuple[int, int]]) -> Iterator[tuple[int, list[int]]]:
    """Offsets of a partition that are read in one go."""
    for partition, places in groupby(parked, key=itemgetter(0)):
        stretch = list[int]()
        for _, offset in places:
            if stretch and offset - stretch[-1] > APART_OFFSETS:
                yield partition, stretch
                stretch = []
            stretch.append(offset)
        yield partition, stretch
