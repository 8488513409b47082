"""What was recorded of records: the outcome of each, or that it is parked, or came again."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final
from uuid import UUID

from org_events.results import Outcome, ProblemType
from org_service.apply.canary import Reader
from org_service.domain.fates import Fate, problem_type
from org_service.domain.fold import is_redelivery
from org_service.domain.outcomes import NewOutcome
from org_service.domain.reasons import AuthenticatedBy
from org_service.domain.requests import Record, Request, Unreadable, read_broker_time
from org_service.operate.commands import CommandSelection
from org_service.operate.rehearsing.order import Item
from org_service.store import recorded
from org_service.store.database import Database
from org_service.store.recorded import ParkedThen, Recorded
from org_service.wire.ids import read_uuid

_LEFT_OUT: Final[Mapping[str | None, str]] = {
    ProblemType.DISCARDED: "discarded by an operator",
    ProblemType.QUEUE_FULL: "rejected because too many of their organization were parked",
}
"""No rule decided these, but what operators did, or had not done yet."""

_Read = tuple[Record, Request | Unreadable | None, UUID | None]


class Recall:
    """Looks up what was recorded."""

    def __init__(self, database: Database, selection: CommandSelection, reader: Reader) -> None:
        """Make one.

        Args:
            database: Where the journal is.
            selection: Which records are meant.
            reader: Reads each.
        """
        self._database = database
        self._means = selection.matcher()
        self._reader = reader
        self.left_out: Counter[str] = Counter()
        """Records that are not rehearsed, by why."""

    async def find(self, records: Sequence[Record]) -> dict[int, list[Item]]:
        """Items by partition, in the order of the records; those that are not meant are left out."""
        meant = [each for each in map(self._read, records) if self._means(each[0], each[2])]
        if not meant:
            return {}
        async with self._database.connect() as conn:
            rows = await recorded.find_commands(conn, {each for _, _, each in meant if each is not None})
            others = [each for each in meant if each[2] not in rows]
            at = [(record.partition, record.offset) for record, _, _ in others]
            by_place = await recorded.find_parked_records(conn, meant[0][0].topic, at)
            by_command = await recorded.find_parked_commands(conn, {each for _, _, each in others if each is not None})
        found: dict[int, list[Item]] = {}
        for record, request, command_id in meant:
            row = None if command_id is None else rows.get(command_id)
            if row is not None:
                item = _decided(record, request, row)
            else:
                item = _parked(record, request, by_place, None if command_id is None else by_command.get(command_id))
            if item is None:
                self.left_out["without an outcome yet"] += 1
            elif item.own is not None and (why := _LEFT_OUT.get(problem_type(item.own.row))) is not None:
                self.left_out[why] += 1
            else:
                found.setdefault(record.partition, []).append(item)
        return found

    def _read(self, record: Record) -> _Read:
        try:
            request = self._reader(record)
        except Exception:  # noqa: BLE001 - what becomes of it, the rehearsal says
            return record, None, read_uuid(dict(record.headers).get("ce_id"))
        return record, request, request.command_id if isinstance(request, Request) else None


def _decided(record: Record, request: Request | Unreadable | None, row: Recorded) -> Item:
    if is_redelivery(row.row, record):
        return Item(record, request, Fate("decided", row.row), own=row, vouched=_voucher(request, row.row))
    same = isinstance(request, Request) and request.digest == row.row.request_digest
    return Item(record, request, Fate("duplicate" if same else "command_id_reused"), first=row)


def _voucher(request: Request | Unreadable | None, row: NewOutcome) -> str | None:
    """Whose token it was; the journal names nobody whose token was rejected."""
    accepted = isinstance(request, Request) and request.authorization is not None
    return row.actor if accepted and (row.outcome != Outcome.REJECTED or row.code != 401) else None


def _parked(
    record: Record,
    request: Request | Unreadable | None,
    by_place: dict[tuple[int, int], list[ParkedThen]],
    by_command: ParkedThen | None,
) -> Item | None:
    taken, there = read_broker_time(record), by_place.get((record.partition, record.offset), ())
    here = next((each for each in there if each.broker_time == taken), None)
    if here is None and by_command is None:
        return None
    if here is None:
        return Item(record, request, Fate("parked"))
    vouched = here.actor if here.authenticated_by == AuthenticatedBy.TOKEN else None
    return Item(record, request, Fate("parked", reason=here.reason), vouched=vouched)
