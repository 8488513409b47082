"""`orgs trace`: what became of a command, hop by hop, with the coordinates and the milliseconds of each.

The tables say which offset a command had and which position its outcome has. From there the records are found without
reading topics through: the command by its offset, the event by halving (`positions`), result and state by the time of
the event's transaction. Only what no table knows yet is looked for in the part of `orgs.commands` that the workers have
not read.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Final, NamedTuple
from uuid import UUID

import orjson

from org_service.domain.outcomes import KnownOutcome, NewOutcome, Undecided
from org_service.domain.requests import Request
from org_service.errors import BadInputError, PreconditionError
from org_service.kafka.client import TopicPartition
from org_service.operate.changes import WINDOW_POSITIONS
from org_service.operate.hops import Trace, is_record_of, record_hop, token_hop
from org_service.operate.trace_topics import Known, TraceTopics
from org_service.settings import Settings
from org_service.store import journal, organizations, outcomes, past, recorded
from org_service.store.database import Database
from org_service.wire.commands import read
from org_service.wire.ids import read_uuid

_POSITION_MAX: Final = 2**63 - 1
"""More Postgres can't have."""


class Line(NamedTuple):
    """One of the last commands of an organization."""

    position: int | None
    """None where it is parked."""
    recorded_at: datetime
    command_id: UUID | None
    command_type: str | None
    outcome: str
    code: int | None
    version: int | None
    actor: str | None
    why: str | None


async def trace(settings: Settings, what: str, last: int, database: Database | None = None) -> Trace | Sequence[Line]:
    """Follow a command; or list the last ones of an organization.

    Args:
        settings: Of the servers.
        what: A command id, a position of the journal, `partition:offset` of `orgs.commands`, or an organization id.
        last: Of an organization at most so many.
        database: For whoever has connections; else each look has one of its own.

    Raises:
        PreconditionError: Nothing is known of it.
        BadInputError: It is none of these.
        KafkaError: Kafka can't be reached, and has to be asked.
    """
    database = database or Database(settings.database, "reader", direct=True, autocommit=True)
    if ":" in what:
        partition, offset = _coordinates(what)
        async with TraceTopics.open(settings) as topics:
            return await _trace_record(database, topics, partition, offset)
    command_id = await _find_id(database, what, settings.kafka.topics.commands)
    known = await _look_up(database, command_id)
    # Kafka is asked only for what it alone knows: the changes of an organization are in the tables.
    if known is None and (lines := await _list_of(database, command_id, last)):
        return lines
    async with TraceTopics.open(settings) as topics:
        found = await (topics.find_unread(command_id) if known is None else topics.follow(known))
    if found is None:
        raise PreconditionError(
            f"nothing is known of {command_id}: it is no command that was decided, parked, answered with 202 or is yet "
            "to be read, and no organization."
        )
    return found


async def _find_id(database: Database, what: str, commands: str) -> UUID:
    """Of a command, or an organization, that is named by its id or by a position."""
    if what.isdecimal():
        position = int(what)
        async with database.connect() as conn:
            command_id = await journal.find_command_id(conn, position) if position <= _POSITION_MAX else None
        if command_id is None:
            raise PreconditionError(f"the journal has no row at position {position:,}.")
    else:
        command_id = read_uuid(what.encode())
        if command_id is None:
            raise BadInputError(f"{what[:100]!r} is no id, no position, and no partition:offset of {commands}.")
    return command_id


def _coordinates(what: str) -> tuple[int, int]:
    partition, _, offset = what.partition(":")
    if not partition.isdecimal() or not offset.isdecimal():
        raise BadInputError(f"{what[:100]!r} is no partition:offset.")
    return int(partition), int(offset)


async def _look_up(database: Database, command_id: UUID) -> Known | None:
    async with database.connect() as conn:
        decided = (await recorded.find_commands(conn, [command_id])).get(command_id)
        parked = (await recorded.find_parked_commands(conn, [command_id])).get(command_id)
        other = None if decided or parked else await outcomes.find(conn, command_id)
    if decided is None and parked is None and other is None:
        return None
    undecided = other if isinstance(other, Undecided) else None
    return Known(command_id, decided, parked, undecided, other if isinstance(other, KnownOutcome) else None)


async def _trace_record(database: Database, topics: "TraceTopics", partition: int, offset: int) -> Trace:
    at = TopicPartition(topics.names.commands, partition)
    record = await topics.read_at(at, offset)
    if record is None:
        raise PreconditionError(f"{at.topic}, partition {partition} has no record at offset {offset} (now).")
    request = read(record)
    if not isinstance(request, Request):
        return Trace(UUID(int=0), None, "unreadable", [record_hop(record)], [request.detail])
    known = await _look_up(database, request.command_id)
    if known is None:
        return await topics.wait_for(record, request)
    if known.decided is not None and not is_record_of(known.decided.row, record):
        row, same = known.decided.row, request.digest == known.decided.row.request_digest
        note = (
            f"a duplicate: this command was decided at position {known.decided.position:,}, from partition "
            f"{row.command_partition}, offset {row.command_offset}, and got that outcome again"
            if same
            else f"rejected (422 command-id-reused): the id belongs to the command decided at position "
            f"{known.decided.position:,}"
        )
        hops = [record_hop(record), *token_hop(record, row)]
        return Trace(request.command_id, request.org_id, "duplicate" if same else "rejected", hops, [note])
    return await topics.follow(known)


async def _list_of(database: Database, org_id: UUID, last: int) -> list[Line]:
    """Changes of any age; rejected and unchanged ones of the last positions, which no index has by organization."""
    async with database.connect() as conn:
        found = await organizations.find_by_id_or_name(conn, str(org_id))
        head = await journal.read_head(conn)
        latest = await past.select_latest_of(conn, org_id, max(0, head - WINDOW_POSITIONS), last)
        waiting = await recorded.find_waiting(conn, [org_id])
        version = found[0].version if found else 0
        changes = await journal.read_history(conn, org_id, last, max(0, version - last))
    lines = {position: _line(position, row) for position, row in latest}
    for each in changes:
        line = Line(
            each.position, each.recorded_at, each.command_id, each.command_type, "applied", 200, each.version,
            each.actor, None,
        )  # fmt: skip
        lines.setdefault(each.position, line)
    decided = [lines[position] for position in sorted(lines)]
    parked = [
        Line(None, each.broker_time, each.command_id, None, "parked", None, None, each.actor, each.reason)
        for each in waiting
    ]
    return [*decided, *parked][-last:]


def _line(position: int, row: NewOutcome) -> Line:
    why = None if row.problem is None else orjson.loads(row.problem)["title"]
    return Line(
        position, row.recorded_at, row.command_id, row.command_type, row.outcome, row.code, row.version, row.actor, why
    )
