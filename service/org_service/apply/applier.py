"""A batch of records becomes one Postgres transaction (a large one a few, in parallel), however often it is tried.

The order inside the transaction (READ COMMITTED) is the heart of it: first lock the organizations, then look for
commands that were decided already. A worker that lost its partitions in a rebalance may still be writing a batch
that its successor has read again: the successor waits at the locks, and its next statement sees the first one's
journal. The other order finds nothing, waits, and fails at the unique command id, at every rebalance. What has no row
to lock yet is checked after the last look (`is_torn`), and by the unique indexes.

Whatever goes wrong ends in one of five ways. Somebody got in between: fold again on fresh data. The database rejects
the data: halve the batch until the culprit is alone, park it. A statement took too long: halve the batch as well, but
what is alone waits, since a slow database is not a reason to park anything. An outage, or trouble we don't know: wait
with back-off and try again, forever; the journal tells whether a commit whose answer was lost took place. Our code
raised on one command: the fold has parked it already.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

from org_service.apply.authenticator import Gate
from org_service.apply.replies import Replies
from org_service.domain.fold import Fold, Plan, where
from org_service.domain.reasons import ParkReason, RepeatReason
from org_service.domain.requests import Record, Refused, Request, Unreadable
from org_service.domain.snapshot import Snapshot, deleted, is_torn, names_wanted, pairs_asked, restored
from org_service.errors import DataRefusedError, RefoldError, ServiceError, TooSlowError
from org_service.settings import Settings
from org_service.store import journal, organizations, outcomes, parked, relations
from org_service.store.database import Database, DatabaseConnection
from org_service.store.failures import classify, sqlstate
from org_service.telemetry.logs import get_logger, log_defect
from org_service.telemetry.metrics import BATCH_RECORDS, BATCH_REPEATS, BATCH_SECONDS, COMMANDS, PARKED
from org_service.waiting import Backoff
from org_service.wire.commands import read
from org_service.wire.parked import keep

log = get_logger(__name__)

REFOLDS_MAX: Final = 20
"""Rivals are rare and each settles in one more fold; a clash that outlives these is in the data itself."""

_LANE_RECORDS_MIN: Final = 100
"""Fewer don't pay for a transaction of their own."""


def _now() -> datetime:
    return datetime.now(UTC)


class Applier:
    """Applies batches of records; several appliers may run in parallel, in any process."""

    def __init__(self, settings: Settings, *, clock: Callable[[], datetime] = _now) -> None:
        """Make one.

        Raises:
            StopError: The policy has mistakes.
        """
        self._settings = settings
        self.gate = Gate(settings.auth)
        """Who may enter, and which partitions wait for the issuer's keys."""
        self._clock = clock
        self._database = Database(settings.database, "worker")
        self._replies = Replies(settings, self._live)
        self._lanes: list[asyncio.Task[Mapping[int, int]] | None] = [None] * settings.worker.lanes
        """The last one that entered each lane."""
        self.beat = time.monotonic()
        """When it last sent a heartbeat, waits of an outage included."""
        self._outage: str | None = None

    @property
    def outage(self) -> str | None:
        """What is being waited for, None when all is well."""
        return self._outage or self._replies.outage

    async def start(self) -> None:
        """Get ready for tokens, where these are taken; raises as `Gate.start`."""
        await self.gate.start()

    async def stop(self) -> None:
        """Close; call when no batch is in flight."""
        await self.gate.close()
        await self._replies.stop()
        await self._database.close()

    async def apply(self, records: Sequence[Record]) -> Sequence[Record]:
        """Apply records in order; returns when they are committed and duplicates answered.

        The next batch may be given before this one is through: its records wait in their lanes, already read.
        Safe to repeat with the same records, from the start or any part of them, in any process. Outages are waited
        out here, so only cancellation leaves this; then the batch was committed or not, and comes again.

        Returns:
            The records that were applied. The others are of partitions in `gate.waiting`, from the first one on that
            waits: they were released, and come again.
        """
        started = time.perf_counter()
        BATCH_RECORDS.observe(len(records))
        entered: list[asyncio.Task[Mapping[int, int]]] = []
        for places, lane in _part(records, len(self._lanes)):
            before = {task for place in places if (task := self._lanes[place]) is not None}
            task = asyncio.create_task(self._settle_lane(lane, before))
            for place in places:
                self._lanes[place] = task
            entered.append(task)
        settled = await asyncio.gather(*entered, return_exceptions=True)
        waiting: dict[int, int] = {}
        for outcome in settled:
            if isinstance(outcome, BaseException):
                raise outcome
            waiting |= outcome
        BATCH_SECONDS.observe(time.perf_counter() - started)
        if not waiting:
            return records
        return [record for record in records if record.offset < waiting.get(record.partition, record.offset + 1)]

    async def _settle_lane(
        self, records: Sequence[Record], before: set[asyncio.Task[Mapping[int, int]]]
    ) -> dict[int, int]:
        """Settle the records of a lane; returns from which offset on partitions wait, where some do."""
        requests = self.gate.admit(map(_read, records))
        let_go = len(requests) < len(records)
        waiting = {partition: wait.offset for partition, wait in self.gate.waiting.items()} if let_go else {}
        if before:
            await asyncio.wait(before)
            for task in before:
                task.result()  # cancelled: what comes later in its partitions may not go first
        if requests:
            await self._settle(requests)
        return waiting

    async def _settle(self, requests: Sequence[Request | Unreadable], refused: str | None = None) -> None:
        """Try until committed; halve what takes too long, or has data that the database rejects, and park that culprit.

        Args:
            refused: Why the database rejects the one command that is left.
        """
        refolds, backoff = 0, self._backoff()
        while True:
            self._live()
            try:
                plan, start = await self._transact(requests, refused)
            except Exception as error:  # noqa: BLE001 - classified below; nothing is swallowed
                trouble = classify(error)
                if isinstance(trouble, RefoldError) and refolds < REFOLDS_MAX:
                    refolds += 1
                    BATCH_REPEATS.labels(RepeatReason.REFOLD).inc()
                    await asyncio.sleep(random.uniform(0, 0.002 * refolds))  # noqa: S311 - rivals must not march in step
                elif refused is None and _is_in_data(trouble):
                    await self._halve_or_park(requests, error)
                    return
                elif isinstance(trouble, TooSlowError) and len(requests) > 1:
                    await self._halve(requests, RepeatReason.TOO_SLOW)
                    return
                else:
                    await self._wait(backoff, trouble, error)
            else:
                self._outage = None
                _count(plan)
                await self._replies.send(plan, start)
                return

    async def _halve_or_park(self, requests: Sequence[Request | Unreadable], error: Exception) -> None:
        """Part a batch that can't be written; alone, the culprit is parked."""
        if len(requests) > 1:
            await self._halve(requests, RepeatReason.HALVED)
            return
        detail = sqlstate(error)
        log.error("command parked: the database rejects its data", sqlstate=detail)
        await self._settle(requests, detail)

    async def _halve(self, requests: Sequence[Request | Unreadable], why: RepeatReason) -> None:
        BATCH_REPEATS.labels(why).inc()
        log.warning("the batch is being halved", why=why, records=len(requests))
        middle = len(requests) // 2
        await self._settle(requests[:middle])
        await self._settle(requests[middle:])

    def _live(self) -> None:
        self.beat = time.monotonic()

    def _backoff(self) -> Backoff:
        return Backoff(self._settings.worker.retry_wait_s, self._settings.worker.retry_wait_max_s)

    async def _wait(self, backoff: Backoff, trouble: ServiceError | None, error: Exception) -> None:
        """Sit an outage out, sending heartbeats (guarantee 6): a batch that waits is never parked or dropped."""
        BATCH_REPEATS.labels(RepeatReason.OUTAGE if trouble is not None else RepeatReason.UNKNOWN).inc()
        self._outage = waits_for(trouble, error)
        pause_s = backoff.next_s()
        if trouble is not None:
            log.warning("the batch waits", why=self.outage, retry_in_s=round(pause_s, 2))
        else:
            log.error("unknown error, the batch waits", retry_in_s=round(pause_s, 2), exc_info=error)
        await asyncio.sleep(pause_s)

    async def check_parked(self) -> str:
        """How many records wait because our own code raised on them, as text.

        Never an error: what is parked stays parked, and would keep the very release from being ready that fixes it.
        """
        async with self._database.connect() as conn:
            defects = await parked.count_defects(conn)
        if not defects:
            return "none because of a defect of ours"
        counted = f"{defects}" if defects < parked.DEFECTS_COUNTED_MAX else f"{defects} or more"
        return f"{counted} because of a defect of ours: run `orgs parked`, and report it"

    async def check(self) -> str:
        """See that Postgres responds, on a connection of the pool; raises where it does not."""
        await self._database.ping()
        return "answers"

    async def _transact(self, requests: Sequence[Request | Unreadable], refused: str | None) -> tuple[Plan, int]:
        """One transaction; returns its plan and the journal position before its first row.

        Args:
            refused: Why the database rejects the one command of this batch, which is then parked undecided.
        """
        queued_max = self._settings.worker.queued_commands_max
        # guarantee 3: organizations, outcomes and parked records of a batch are one transaction; what fails leaves
        # nothing.
        async with self._database.begin() as conn:
            snapshot = await _snapshot(conn, requests, queued_max)
            now = self._clock()  # behind the locks, so that an organization's times don't go back
            fold = Fold(snapshot, now, self.gate.policy, refused=refused, queued_max=queued_max)
            for request in requests:
                fold.add(request)
            plan = fold.plan
            if plan.parked:
                # Before the head is taken: a rival with the same records is waited for here.
                await parked.park(conn, list(map(keep, plan.parked)), now)
            start = await journal.take_positions(conn, len(plan.journal)) if plan.names else 0
            if plan.created or plan.updated:
                await organizations.write(
                    conn,
                    created=list(plan.created.values()),
                    updated=list(plan.updated.values()),
                    names=plan.names,
                    moment=now,
                )
            if plan.journal:
                if not plan.names:
                    start = await journal.take_positions(conn, len(plan.journal))
                # guarantee 2: the outcome of each command, in the transaction of its change; a second one fails at the
                # unique id.
                await journal.append(conn, start, plan.journal)
            # The head is ours from here on: whatever has an earlier position is committed, and can be seen.
            if await organizations.find_holders(conn, plan.passing_names()):
                raise RefoldError("another transaction took a name that this batch held temporarily")
        return plan, start


def waits_for(trouble: ServiceError | None, error: Exception) -> str:
    """What a batch waits for, as text; of what isn't known the kind alone."""
    if isinstance(trouble, TooSlowError):
        return (
            f"a single record takes too long. {trouble}. See what it waits for (pg_stat_activity), or raise "
            "ORGS_DATABASE__STATEMENT_TIMEOUT_S"
        )
    return str(trouble or type(error).__name__)


def _is_in_data(trouble: ServiceError | None) -> bool:
    """Whether halving a batch leads to whatever can't be written."""
    return isinstance(trouble, DataRefusedError) or (isinstance(trouble, RefoldError) and trouble.in_data)


def _part(records: Sequence[Record], lanes: int) -> Sequence[tuple[Sequence[int], Sequence[Record]]]:
    """Part a batch by partition: what has an order keeps it, and one lane decides while Postgres works for another.

    Returns:
        Records, and the numbers of the lanes they enter: a small batch is one, and enters all.
    """
    if lanes == 1 or len(records) < _LANE_RECORDS_MIN * lanes:
        return [(range(lanes), records)]
    parted: list[list[Record]] = [[] for _ in range(lanes)]
    for record in records:
        parted[record.partition % lanes].append(record)
    return [((place,), lane) for place, lane in enumerate(parted) if lane]


def _read(record: Record) -> Request | Unreadable:
    try:
        return read(record)
    except Exception as error:  # noqa: BLE001 - a defect of ours must not hold up the other records
        defect, place = where(error), {"partition": record.partition, "offset": record.offset}
        log_defect(log, "record parked: our code raised", defect, error, **place)
        return Unreadable(record, defect, ParkReason.HANDLER_RAISED)


async def _snapshot(conn: DatabaseConnection, requests: Sequence[Request | Unreadable], queued_max: int) -> Snapshot:
    """Lock first, look second: see the module's text."""
    readable = [request for request in requests if isinstance(request, Request)]
    org_ids = {
        request.org_id
        for request in readable
        if request.org_id is not None and not isinstance(request.command, Refused)
    }
    command_ids = [request.command_id for request in readable]
    names = await organizations.find_names(conn, restored(readable))
    wanted = names_wanted(readable, names)
    snapshot = Snapshot(
        await organizations.lock(conn, org_ids, wanted),
        # guarantee 1: a statement of its own after the locks, so that it sees what a rival with the same records
        # decided.
        await outcomes.find_journaled(conn, command_ids),
        *await parked.find(conn, org_ids, command_ids, queued_max),
        await organizations.find_holders(conn, wanted),
        await relations.find_relations(conn, pairs_asked(readable)),
        await relations.find_clients(conn, deleted(readable)),
    )
    if is_torn(snapshot, org_ids, names):
        raise RefoldError("another transaction committed between the statements of the snapshot")
    return snapshot


def _count(plan: Plan) -> None:
    decided = Counter((row.outcome, row.code) for row in plan.journal)
    for (outcome, code), commands in decided.items():
        COMMANDS.labels(outcome, str(code)).inc(commands)
    for each in plan.parked:
        PARKED.labels(each.unreadable.reason).inc()
    for command_id, error in plan.defects:
        log_defect(log, "command parked: our code raised", where(error), error, command_id=str(command_id))
    told = [f"{commands} {outcome} {code}" for (outcome, code), commands in decided.items()]
    log.debug("committed", outcomes=", ".join(told), parked=len(plan.parked), answered=len(plan.replies))
