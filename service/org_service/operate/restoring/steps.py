"""The steps of a rebuild or a recovery.

    begin          journal_head loses its row: nobody writes from here on, whatever happens to the run
    commands       kept, to be joined to their outcomes; what can't be read is parked again
    events         the journal's rows of changes
    results        those of all other outcomes, and which commands were parked
    state          of organizations whose last events are gone
    parked         who was parked, and has no outcome since, is parked again
    undecided      where workers have to go on is found, and whose outcome is lost
    changed        what organizations were after their last change
    names          organizations that change give up their names, so that they may exchange them
    organizations  as their last change, or `orgs.state`, has them
    erased         topics may still have what was erased: those rows are emptied again
    gaps           positions about which nothing is known
    offsets        the worker group goes back to the first command that has no outcome
    end            reference data are cleared, journal_head gets its row

Each step is a transaction of its effect and of how far the run is, so a run that was killed goes on as if it had not
been. Memory doesn't grow with the topics, but for where the commands are that are parked.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence, Sized
from itertools import chain
from typing import Any, Final
from uuid import UUID

from org_events.kafka.whole import open_batch
from org_events.results import ProblemType
from org_service import probes
from org_service.apply.authenticator import Authenticator
from org_service.domain import details
from org_service.domain.decide import reject
from org_service.errors import PreconditionError, RetryError
from org_service.kafka.client import TopicPartition
from org_service.kafka.offsets import commit
from org_service.kafka.ranges import OffsetRange, find_extent
from org_service.kafka.whole_batches import Unopened
from org_service.operate.operation import Execution
from org_service.operate.progress import published
from org_service.operate.restoring import commands, keeping, reading
from org_service.operate.restoring import records as wire
from org_service.operate.restoring.beginning import EVER, Progress, begin
from org_service.operate.restoring.reading import Step
from org_service.probes import probe
from org_service.settings import Settings
from org_service.store import erasing, operations, restoring, staged
from org_service.store.database import Database, DatabaseConnection
from org_service.store.staged import Partitions
from org_service.telemetry.logs import get_logger
from org_service.wire.position import Published

log = get_logger(__name__)

STEP_COMMANDS: Final = 20_000
"""That are judged in one transaction."""
STEP_ORGANIZATIONS: Final = 5_000
STEP_ERASED: Final = 500
GAP_POSITIONS: Final = 50_000
_NIL: Final = UUID(int=0)
_LAST: Final = UUID(int=2**128 - 1)
"""Behind all organizations: no id of one is this."""


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
            for phase, work in (
                ("commands", self._read_commands),
                ("events", self._read_events),
                ("results", self._read_results),
                ("state", self._read_states),
                ("parked", self._park_again),
                ("undecided", self._judge),
                ("changed", self._stage_changed),
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
        restored, moment = self._restored, None
        if restored:
            async with self._database.connect() as conn:
                moment = await restoring.find_last_moment(conn)
            assert moment is not None
        started = await begin(self._settings, moment, last)

        async def work(conn: DatabaseConnection) -> None:
            if await restoring.lock_head(conn) != restored:
                raise PreconditionError("workers decided commands since the plan, so nothing was done: stop them.")
            await restoring.begin(conn)

        await self._step(work, lambda: started)

    async def _read_commands(self) -> None:
        kafka, trusts = self._settings.kafka, self._settings.auth.commands == "trusted"
        topic, committed = kafka.topics.commands, self._committed
        await self._read(
            topic,
            reading.read_commands(
                kafka, topic, self._ranges(topic), lambda records: commands.decode(records, trusts=trusts)
            ),
            lambda conn, rows: commands.keep(conn, rows, committed),
        )

    async def _read_events(self) -> None:
        async with self._database.begin() as conn:
            await staged.analyze(conn)
        topic, window = self._settings.kafka.topics.events, self._window
        await self._read(
            topic,
            self._own(topic, lambda batch: [*wire.read_events(batch.at, open_batch(batch.content), window)]),
            lambda conn, batches: keeping.write(conn, [*chain.from_iterable(batches)]),
        )

    async def _read_results(self) -> None:
        topic, window = self._settings.kafka.topics.results, self._window
        await self._read(
            topic,
            self._own(topic, wire.glimpse_results),
            lambda conn, batches: keeping.keep_results(conn, batches, window),
        )

    async def _read_states(self) -> None:
        topic, through = self._settings.kafka.topics.state, self._last
        await self._read(
            topic,
            self._own(topic, wire.glimpse_states),
            lambda conn, batches: keeping.keep_states(conn, batches, through),
        )

    @property
    def _window(self) -> wire.Window:
        return wire.Window(self._restored, self._last)

    @property
    def _committed(self) -> dict[int, int]:
        return {int(partition): offset for partition, offset in self._now["committed"].items()}

    def _ranges(self, topic: str) -> dict[int, OffsetRange]:
        return {int(partition): OffsetRange(*each) for partition, each in self._now["ranges"][topic].items()}

    def _own(self, topic: str, decode: Callable[[Unopened], Sized]) -> AsyncGenerator[Step]:
        return reading.read_own(self._settings.kafka, topic, self._ranges(topic), decode)

    async def _read(
        self,
        topic: str,
        steps: AsyncGenerator[Step],
        keep: Callable[[DatabaseConnection, Sequence[Any]], Awaitable[Mapping[str, int] | None]],
    ) -> None:
        """Read a topic to the end it had, step by step."""
        async for rows, rest in reading.ahead(steps):
            ranges = self._now["ranges"] | {topic: {str(partition): tuple(each) for partition, each in rest.items()}}
            await self._step(
                lambda conn, rows=rows: keep(conn, rows), lambda ranges=ranges: self._now | {"ranges": ranges}
            )
        self._now = self._enter(_FOLLOWING[self._now["phase"]])

    async def _park_again(self) -> None:
        """One stretch of a partition after the other, in order: so that those of one organization come in theirs."""
        async with self._database.connect() as conn:
            parked = sorted(await staged.find_parked(conn, self._partitions))
        authenticator = Authenticator(self._settings.auth)
        try:
            if parked:
                await authenticator.start()
            for partition, offsets in commands.find_stretches(parked):
                await self._park_stretch(partition, offsets, authenticator)
        finally:
            await authenticator.close()
        self._now = self._enter("undecided")

    async def _park_stretch(self, partition: int, offsets: Sequence[int], authenticator: Authenticator) -> None:
        kafka, wanted = self._settings.kafka, frozenset(offsets)
        stretch = {partition: OffsetRange(offsets[0], offsets[-1] + 1)}
        steps = reading.read_commands(
            kafka,
            kafka.topics.commands,
            stretch,
            lambda records: [record for record in records if record.offset in wanted],
        )
        async for records, _ in reading.ahead(steps):
            await self._step(
                lambda conn, records=records: commands.park_again(conn, records, authenticator), lambda: self._now
            )

    @property
    def _partitions(self) -> Partitions:
        committed, complete = self._now["committed"], self._now["complete_from"]
        return Partitions(
            [int(each) for each in committed], [*committed.values()], [complete[each] for each in committed]
        )

    async def _judge(self) -> None:
        """Find the commands without an outcome."""
        at: str | None = self._now.get("at", "")
        back_to: dict[str, int] = self._now["back_to"]

        async def page(conn: DatabaseConnection) -> None:
            nonlocal at, back_to
            after_id, decided_ms = UUID(at) if at else None, self._now["decided_ms"]
            found = await staged.judge(conn, after_id, STEP_COMMANDS, decided_ms, self._partitions)
            at = None if found.last_id is None else str(found.last_id)
            either = {*back_to, *found.back_to}
            back_to = {each: min(back_to.get(each, EVER), found.back_to.get(each, EVER)) for each in either}

        while at is not None:
            await self._step(page, lambda: self._enter("undecided", at=at, back_to=back_to))
        self._now = self._enter("changed")

    async def _stage_changed(self) -> None:
        """Keep what organizations were after their last change."""

        async def work(conn: DatabaseConnection, after_id: UUID, limit: int) -> UUID | None:
            changed = await staged.read_changed(conn, after_id, limit)
            await staged.stage_organizations(conn, [wire.read_changed(each) for each in changed])
            return changed[-1].org_id if changed else None

        await self._page(work)

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

            async def work(conn: DatabaseConnection, after: int = after, through: int = through) -> Mapping[str, int]:
                empty = await restoring.count_empty(conn, after, through)
                filled = await restoring.fill(conn, after, through, text) if empty else 0
                if filled:
                    log.warning("outcomes are lost; their commands are never decided again", commands=filled)
                return {"not on the topics any more": empty}

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
                await commit(self._settings.kafka, self._settings.worker_group, offsets)
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


_FOLLOWING: Final[Mapping[str, str]] = {
    "commands": "events",
    "events": "results",
    "results": "state",
    "state": "parked",
    "changed": "names",
    "names": "organizations",
    "organizations": "erased",
}
