"""`orgs replay commands --execute`: records of `orgs.commands` go out again, with the same key, value and headers.

Each command that has an outcome is a duplicate then and gets its first outcome again (guarantee 1): no organization, no
version and no outcome changes, so a step that comes twice after a kill does nothing either. What has no outcome, after
a database was restored from a backup, say, is decided. Its token, if it has one, is judged by the moment it comes in.

Records that can't be read are left out: they have no id to be known by, and would be parked once more.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, ClassVar, Final, cast

from pydantic import BaseModel, ConfigDict

from org_events.publishing.publisher import Publisher
from org_service import probes
from org_service.domain.requests import Request, read_broker_time
from org_service.errors import PreconditionError
from org_service.kafka.connection import make_producer
from org_service.kafka.ranges import OffsetRange, open_ranges
from org_service.kafka.reader import Record
from org_service.operate.commands import CommandSelection
from org_service.operate.operation import Execution, Plan, Tally, open_database
from org_service.probes import probe
from org_service.settings import Settings
from org_service.store import recorded
from org_service.store.database import Database
from org_service.wire.commands import read
from org_service.wire.results import format_rfc3339

STEP_RECORDS_MAX: Final = 2_000
"""Published before their acknowledgements are waited for."""

_Found = tuple[Record, Request]


class Parameters(BaseModel):
    """What makes a replay again."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    selection: CommandSelection
    ranges: dict[int, tuple[int, int]]
    """By partition: the end is where the topic ended, so that nothing that is published again is meant."""


class ReplayCommands:
    """A replay of commands."""

    kind: ClassVar[str] = "replay commands"

    def __init__(self, settings: Settings, parameters: Mapping[str, Any]) -> None:
        self._settings = settings
        self._asked = Parameters.model_validate(parameters)
        self._topic = settings.kafka.topics.commands

    @classmethod
    async def make(cls, settings: Settings, selection: CommandSelection) -> "ReplayCommands":
        """Make one whose selection ends where the topic ends now.

        Raises:
            PreconditionError: The topic holds none of them.
        """
        database = Database(settings.database, "operate", direct=True, autocommit=True)
        extent = await selection.find(settings, database)
        if not extent.ranges:
            raise PreconditionError(f"{settings.kafka.topics.commands} holds none of these commands.")
        return cls(settings, Parameters(selection=selection, ranges=dict(extent.ranges)).model_dump(mode="json"))

    @property
    def resource(self) -> str:
        """The topic."""
        return f"topic {self._topic}"

    @property
    def parameters(self) -> Mapping[str, Any]:
        """Selection and offsets."""
        return self._asked.model_dump(mode="json")

    async def plan(self) -> Plan:
        """Count the records, and see which of them would be decided rather than answered again."""
        tally, unread, undecided, by_token = Tally(), 0, 0, 0
        async with open_database(self._settings, autocommit=True) as database:
            async for found, unreadable, _ in self._read({}):
                unread += unreadable
                async with database.connect() as conn:
                    known = await recorded.find_commands(conn, {request.command_id for _, request in found})
                for record, request in found:
                    is_new = request.command_id not in known
                    undecided += is_new
                    by_token += is_new and request.authorization is not None
                    identity = b"%d %d %d" % (record.partition, record.offset, record.timestamp)
                    tally.add(identity, lambda record=record, request=request: _shown(record, request))
        notes = ["each command that has an outcome gets it again; no organization, version or outcome changes"]
        if undecided:
            notes.append(
                f"{undecided:,} of them have no outcome yet and would be decided, unless they are before; "
                f"{by_token:,} of those with a token, which must still be valid then"
            )
        if unread:
            notes.append(f"{unread:,} records that can't be read are left out")
        return tally.plan({"topic": self._topic}, notes)

    async def run(self, execution: Execution) -> None:
        """Publish what was not published yet."""
        noted = cast("dict[str, int]", execution.progress or {})
        progress = {int(partition): offset for partition, offset in noted.items()}
        publisher = Publisher(self._topic, lambda: make_producer(self._settings.kafka, linger_ms=2))
        await publisher.start()
        try:
            async for found, _, read_to in self._read(progress):
                at = 0
                while at < len(found):
                    step = found[at : at + execution.step_max(STEP_RECORDS_MAX)]
                    at += len(step)
                    await self._send(publisher, step)
                    progress |= {record.partition: record.offset + 1 for record, _ in step}
                    noted = {str(partition): offset for partition, offset in progress.items()}
                    await execution.record(noted, {"sent": len(step)})
                progress |= read_to
        finally:
            await publisher.stop()

    async def _send(self, publisher: Publisher, step: Sequence[_Found]) -> None:
        if probes.listeners:
            await probe("operate.before_publish")
        async with asyncio.timeout(self._settings.relay.publish_timeout_s):
            # guarantee 1: under the same command ids. A record may have no key or no value, as it had before.
            sent = [
                await publisher.append(cast("bytes", each.key), cast("bytes", each.value), list(each.headers))
                for each, _ in step
            ]
            await asyncio.gather(*sent)
        if probes.listeners:
            await probe("operate.after_publish")

    async def _read(self, progress: Mapping[int, int]) -> AsyncIterator[tuple[Sequence[_Found], int, dict[int, int]]]:
        """The records that are meant, in steps; how many could not be read; and where the reader stands."""
        ranges = {
            partition: OffsetRange(max(first, progress.get(partition, 0)), end)
            for partition, (first, end) in self._asked.ranges.items()
        }
        means = self._asked.selection.matcher()
        async with open_ranges(self._settings.kafka, self._topic, ranges) as reader:
            while reader.unfinished:
                found: list[_Found] = []
                unreadable = 0
                # Partition by partition: in the same order each time, as a plan is known by the order of its items.
                others = sorted(reader.unfinished)[1:]
                for record in await reader.read(others):
                    request = _read_or_none(record)
                    if not means(record, None if request is None else request.command_id):
                        continue
                    if request is None:
                        unreadable += 1
                    else:
                        found.append((record, request))
                yield found, unreadable, dict(reader.read_to)


def _read_or_none(record: Record) -> Request | None:
    try:
        request = read(record)
    except Exception:  # noqa: BLE001 - it was parked for that, and would be again
        return None
    return request if isinstance(request, Request) else None


def _shown(record: Record, request: Request) -> Mapping[str, Any]:
    return {
        "partition": record.partition,
        "offset": record.offset,
        "command_id": str(request.command_id),
        "org_id": None if request.org_id is None else str(request.org_id),
        "type": request.command.type,
        "taken_at": format_rfc3339(read_broker_time(record)).decode(),
    }
