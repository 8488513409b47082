"""The steps of a rebuild or a recovery.

    begin          journal_head loses its row: nobody writes from here on, whatever happens to the run
    results        what each topic says goes into a table of its own
    events
    state
    commands       also: who was parked is parked again, and where workers have to go on is found
    journal        the rows of these positions, joined from events, results and commands
    names          organizations that change give up their names, so that they may exchange them
    organizations  as their last change, or `orgs.state`, has them
    erased         topics may still have what was erased: those rows are emptied again
    gaps           positions about which nothing is known
    offsets        the worker group goes back to the first command that has no outcome
    end            reference data are cleared, journal_head gets its row

Each step is a transaction of its effect and of how far the run is, so a run that was killed goes on as if it had not
been. Memory doesn't grow with the topics, but for the ids of commands that are parked.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final
from uuid import UUID

from org_events.results import ProblemType
from org_service import probes
from org_service.apply.authenticator import Authenticator
from org_service.domain import details
from org_service.domain.decide import reject
from org_service.errors import PreconditionError, RetryError
from org_service.kafka.client import TopicPartition
from org_service.kafka.offsets import commit, read_committed
from org_service.kafka.ranges import OffsetRange, RangeReader, find_extent, find_first_times, open_ranges
from org_service.kafka.reader import Record
from org_service.operate.operation import Execution
from org_service.operate.progress import published
from org_service.operate.restoring import records as wire
from org_service.operate.restoring.commands import Commands
from org_service.probes import probe
from org_service.settings import Settings
from org_service.store import erasing, operations, restoring, staged
from org_service.store.database import Database, DatabaseConnection
from org_service.telemetry.logs import get_logger
from org_service.wire.position import Published

log = get_logger(__name__)

STEP_RECORDS: Final = 8_000
"""Of a topic in one transaction."""
STEP_POSITIONS: Final = 5_000
STEP_ORGANIZATIONS: Final = 5_000
STEP_ERASED: Final = 500
GAP_POSITIONS: Final = 50_000
MARGIN_MS: Final = 3_600_000
"""Before the backup's last row: what was published of later positions is not older than that, whatever clocks say."""
_NIL: Final = UUID(int=0)
_LAST: Final = UUID(int=2**128 - 1)
"""Behind all organizations: no id of one is this."""
_EVER: Final = 2**62
"""Milliseconds: of a partition that holds nothing any more."""

Progress = dict[str, Any]


class Steps:
    """One run."""

    def __init__(self, settings: Settings, execution: Execution, restored: int, last: int) -> None:
        """Begin, or go on.

        Args:
            settings: Of the servers.
            execution: The leave to do it.
            restored: The last position that the database has.
            last: The last one that it is to have.
        """
        self._settings = settings
        self._execution = execution
        self._restored = restored
        self._last = last
        self._database = Database(settings.database, "owner")
        self._now: Progress = {}

    async def run(self, see: Callable[[], Awaitable[Published]]) -> None:
        """Make all steps that are to be made.

        Args:
            see: Raises where the run may not begin.
        """
        try:
            await self._load()
            if not self._now:
                last = await see()
                await self._begin(last)
            topics = self._settings.kafka.topics
            for phase, work in (
                ("results", lambda: self._read(topics.results, self._keep_results)),
                ("events", lambda: self._read(topics.events, self._keep_events)),
                ("state", lambda: self._read(topics.state, self._keep_states)),
                ("commands", self._read_commands),
                ("journal", self._join),
                ("names", lambda: self._page(restoring.let_go_of_names)),
                ("organizations", lambda: self._page(restoring.write_organizations)),
                ("erased", self._empty_erased),
                ("gaps", self._note_gaps),
                ("offsets", self._put_back),
                ("end", self._end),
            ):
                if phase == self._now["phase"]:
                    await work()
        finally:
            await self._database.close()

    async def _load(self) -> None:
        """Where the run stands, as it was committed: an answer to the last commit may have been lost."""
        async with self._database.connect() as conn:
            row = await operations.find(conn, self._execution.run_id)
        assert row is not None
        self._execution.progress, self._now = row.progress, dict(row.progress or {})
        self._execution.counts.clear()
        self._execution.counts.update(row.counts)

    async def _step(
        self,
        work: Callable[[DatabaseConnection], Awaitable[Mapping[str, int] | None]],
        following: Callable[[], Progress],
    ) -> None:
        """One transaction.

        Args:
            work: Its effect; returns what became of positions.
            following: Where the run stands afterwards; asked after the work.
        """
        async with self._database.begin() as conn:
            counts = await work(conn) or {}
            after = following()
            await self._execution.advance(conn, after, {name: items for name, items in counts.items() if items})
            if probes.listeners:
                await probe("operate.before_commit")
        self._now = after
        if probes.listeners:
            await probe("operate.after_commit")
        await self._execution.pace(sum(counts.values()))

    def _enter(self, phase: str, **more: Any) -> Progress:
        return {name: each for name, each in self._now.items() if name != "at"} | {"phase": phase} | more

    async def _begin(self, last: Published) -> None:
        kafka, restored = self._settings.kafka, self._restored
        topics = kafka.topics
        since_ms: int | None = None
        if restored:
            async with self._database.connect() as conn:
                moment = await restoring.find_last_moment(conn)
            assert moment is not None
            since_ms = int(moment.timestamp() * 1000) - MARGIN_MS
        ranges: dict[str, dict[str, tuple[int, int]]] = {}
        for topic, from_ms in (
            (topics.results, since_ms),
            (topics.events, since_ms),
            (topics.state, None),
            (topics.commands, None),
        ):
            extent = await find_extent(
                kafka, topic, from_offsets={}, end_offsets={}, from_ms=from_ms, to_ms=None, keys=()
            )
            ranges[topic] = {str(partition): (each.first, each.end) for partition, each in extent.ranges.items()}
            partitions = extent.partitions
        at = [TopicPartition(topics.commands, number) for number in range(partitions)]
        committed = await read_committed(kafka, self._group, at, or_none=True)
        complete = await self._find_complete(last)
        started: Progress = {
            "phase": "results",
            "ranges": ranges,
            "committed": {str(each.partition): committed[each].offset for each in at},
            "complete_from": complete,
            "decided_ms": int(last.recorded_at.timestamp() * 1000),
            "back_to": {},
        }

        async def work(conn: DatabaseConnection) -> None:
            if await restoring.lock_head(conn) != restored:
                raise PreconditionError("workers decided commands since the plan, so nothing was done: stop them.")
            await restoring.begin(conn)

        await self._step(work, lambda: started)

    @property
    def _group(self) -> str:
        return f"{self._settings.kafka.topic_prefix}{self._settings.worker.group_id}"

    async def _find_complete(self, last: Published) -> dict[str, int]:
        """Since when `orgs.results` has every outcome, by partition; where topics grew, of its parent too."""
        times = await find_first_times(self._settings.kafka, self._settings.kafka.topics.results)
        known = {partition: _EVER if time is None else time for partition, time in times.items()}
        parents = None if last.partitioning is None else last.partitioning.grown_from
        return {
            str(partition): max(time, known[partition % parents] if parents else time)
            for partition, time in known.items()
        }

    async def _read(self, topic: str, keep: Callable[[DatabaseConnection, Sequence[Record]], Awaitable[None]]) -> None:
        """Read a topic to the end it had, step by step."""
        following = _FOLLOWING[self._now["phase"]]
        ranges = {int(partition): OffsetRange(*each) for partition, each in self._now["ranges"][topic].items()}
        if ranges:
            async with open_ranges(self._settings.kafka, topic, ranges) as reader:
                while reader.unfinished:
                    records = await _take(reader)

                    async def work(conn: DatabaseConnection, records: Sequence[Record] = records) -> None:
                        await keep(conn, records)

                    await self._step(work, lambda: self._read_to(topic, reader, ranges))
        self._now = self._enter(following)

    def _read_to(self, topic: str, reader: RangeReader, ranges: Mapping[int, OffsetRange]) -> Progress:
        rest = {
            str(partition): (reader.read_to[partition], each.end)
            for partition, each in ranges.items()
            if partition in reader.unfinished
        }
        return self._now | {"ranges": self._now["ranges"] | {topic: rest}}

    async def _keep_results(self, conn: DatabaseConnection, records: Sequence[Record]) -> None:
        found = wire.read_results(records, self._restored, self._last)
        await staged.stage_parked(conn, found.parked)
        await staged.stage(conn, found.results)

    async def _keep_events(self, conn: DatabaseConnection, records: Sequence[Record]) -> None:
        found = wire.read_events(records, self._restored, self._last)
        await staged.stage_organizations(conn, found.organizations)
        await staged.stage(conn, found.events)

    async def _keep_states(self, conn: DatabaseConnection, records: Sequence[Record]) -> None:
        found = wire.read_states(records, self._last)
        await staged.stage_organizations(conn, found.organizations)
        unknown = await staged.find_unknown(conn, [each.id for each in found.deleted])
        await staged.stage_organizations(conn, [each for each in found.deleted if each.id in unknown])

    async def _read_commands(self) -> None:
        async with self._database.connect() as conn:
            again = await staged.find_parked(conn)
        authenticator = Authenticator(self._settings.auth)
        try:
            if again:
                await authenticator.start()
            await self._read(
                self._settings.kafka.topics.commands,
                # `_now` is another one after each step.
                lambda conn, records: Commands(authenticator, again, self._now).keep(conn, records),
            )
        finally:
            await authenticator.close()

    async def _join(self) -> None:
        """Write the journal, a window of positions at a time."""
        after = self._now.get("at", self._restored)
        while after < self._last:
            through = min(after + STEP_POSITIONS, self._last)

            async def work(conn: DatabaseConnection, after: int = after, through: int = through) -> Mapping[str, int]:
                joined = await restoring.join(conn, after, through)
                return {
                    "changes": joined.changed,
                    "other outcomes": joined.decided,
                    "not on the topics any more": through - after - sum(joined),
                }

            await self._step(work, lambda through=through: self._enter("journal", at=through))
            after = through
        self._now = self._enter("names")

    async def _page(self, work: Callable[[DatabaseConnection, UUID, int], Awaitable[UUID | None]]) -> None:
        """Go through the organizations that changed, in order of id."""
        phase = self._now["phase"]
        at = UUID(self._now.get("at", str(_NIL)))

        async def page(conn: DatabaseConnection) -> None:
            nonlocal at
            at = await work(conn, at, STEP_ORGANIZATIONS) or _LAST

        while at != _LAST:
            await self._step(page, lambda: self._enter(phase, at=str(at)))
        self._now = self._enter(_FOLLOWING[phase])

    async def _empty_erased(self) -> None:
        """Let nothing come back of organizations that were erased since."""
        async with self._database.connect() as conn:
            erased = sorted(await staged.find_erased(conn))
        for first in range(0, len(erased), STEP_ERASED):
            await self._step(
                lambda conn, first=first: erasing.empty_others(conn, erased[first : first + STEP_ERASED]),
                lambda: self._now,
            )
        self._now = self._enter("gaps")

    async def _note_gaps(self) -> None:
        """Backwards, because of outcomes that are gone the latest are known best."""
        through = self._now.get("at", self._last)
        problem = reject(ProblemType.DISCARDED, details.LOST).problem
        assert problem is not None
        text = problem.model_dump_json()
        while through > self._restored:
            after = max(through - GAP_POSITIONS, self._restored)

            async def work(conn: DatabaseConnection, after: int = after, through: int = through) -> None:
                filled = await restoring.fill(conn, after, through, text)
                if filled:
                    log.warning("outcomes are lost; their commands are never decided again", commands=filled)

            await self._step(work, lambda after=after: self._enter("gaps", at=after))
            through = after
        self._now = self._enter("offsets")

    async def _put_back(self) -> None:
        """Let workers go on with the first command that has no outcome."""
        topic, committed, back_to = self._settings.kafka.topics.commands, self._now["committed"], self._now["back_to"]
        extent = await find_extent(
            self._settings.kafka, topic, from_offsets={}, end_offsets={}, from_ms=None, to_ms=None, keys=()
        )
        offsets: dict[TopicPartition, int] = {}
        for partition, offset in committed.items():
            read = extent.ranges.get(int(partition))
            wanted = back_to.get(partition, read.end if offset < 0 and read is not None else offset)
            if wanted != offset:
                offsets[TopicPartition(topic, int(partition))] = wanted
        if offsets:
            try:
                await commit(self._settings.kafka, self._group, offsets)
            except PreconditionError as error:
                raise RetryError(f"{error} Stop all workers: the run waits.") from error
        if probes.listeners:
            await probe("operate.after_publish")

        async def work(_: DatabaseConnection) -> None:
            return

        await self._step(work, lambda: self._enter("end"))

    async def _end(self) -> None:
        """Give the journal its head again."""
        last = await published(self._settings)
        if last is None or last.position != self._last:
            raise PreconditionError(
                f"a relay of another database published meanwhile: Kafka does not end at position {self._last} any "
                "more. Stop it, and begin again with an empty database or the backup."
            )

        async def work(conn: DatabaseConnection) -> None:
            await restoring.end_parked(conn, self._restored)
            await restoring.end(conn, self._last)

        await self._step(work, lambda: {"phase": "done"})


async def _take(reader: RangeReader) -> list[Record]:
    """The records of a step."""
    records: list[Record] = []
    while reader.unfinished and len(records) < STEP_RECORDS:
        records += await reader.read()
    return records


_FOLLOWING: Final[Mapping[str, str]] = {
    "results": "events",
    "events": "state",
    "state": "commands",
    "commands": "journal",
    "names": "organizations",
    "organizations": "erased",
}
