"""A batch of records becomes one Postgres transaction (a large one a few, in parallel), however often it is tried.

Lock and look (`snapshot`), decide (`domain.fold`), write; then the outcomes that nobody else sends (`replies`). What is
done about errors is `settle`'s. Where our code raises on one command, the fold parks it; `breaker` says whether it may.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial

from org_service import probes
from org_service.apply.authenticator import Authenticator
from org_service.apply.breaker import Breaker, Judgement, UnjudgedError
from org_service.apply.canary import Reader, decides_nothing
from org_service.apply.lanes import split_into_lanes
from org_service.apply.reading import read_each
from org_service.apply.replies import Replies
from org_service.apply.settle import Settling
from org_service.apply.snapshot import read_snapshot
from org_service.apply.traced import add_spans
from org_service.apply.writing import write_decided
from org_service.domain.fold import Decider, Fold, Plan, describe_place
from org_service.domain.requests import Record, Request, Unreadable
from org_service.probes import probe
from org_service.settings import WorkerSettings
from org_service.store import parked
from org_service.store.database import Database
from org_service.store.failures import classify
from org_service.telemetry.logs import get_logger, log_defect
from org_service.telemetry.metrics import BATCH_RECORDS, BATCH_SECONDS, COMMANDS, PARKED
from org_service.telemetry.tracing import BatchSpan, active
from org_service.waiting import Heartbeat
from org_service.wire.commands import read
from org_service.wire.parked import keep_record

log = get_logger(__name__)


def _now() -> datetime:
    return datetime.now(UTC)


class Applier:
    """Applies batches of records; several appliers may run in parallel, in any process.

    Whoever makes one gives it what it works with, and closes that when no batch is in flight.
    """

    def __init__(
        self,
        database: Database,
        authenticator: Authenticator,
        replies: Replies | None,
        settings: WorkerSettings,
        *,
        heartbeat: Heartbeat | None = None,
        clock: Callable[[], datetime] = _now,
        breaker: Breaker | None = None,
        decider: Decider | None = None,
        reader: Reader | None = None,
        on_commit: Callable[[Plan], None] | None = None,
    ) -> None:
        """Make one.

        Args:
            database: Where organizations and journal are; with the rights of a worker.
            authenticator: Who may enter, and which partitions wait for the issuer's keys.
            replies: Sends the outcomes that the relay won't; None for nobody to hear of them.
            settings: Lanes, the bound of a queue, and how long outages are waited out.
            heartbeat: Beats at each try of a batch, and while an outage is waited out.
            clock: Tells when a batch is recorded.
            breaker: Says whether what our code raises on may be parked; None for always.
            decider: Decides each command, in place of `domain.decide`.
            reader: Reads each record, in place of `wire.commands`.
            on_commit: Told of each transaction, right after its commit.
        """
        self.authenticator = authenticator
        self._database = database
        self._replies = replies
        self._queued_max = settings.queued_commands_max
        self._clock = clock
        self._breaker = breaker
        self._decider = decider
        self._reader = reader
        self._on_commit = on_commit
        self._lanes: list[asyncio.Task[Mapping[int, int]] | None] = [None] * settings.lanes
        """The last one that entered each lane."""
        self._settling = Settling(
            "the batch",
            classify=classify,
            waits_s=settings.retry_waits_s,
            heartbeat=heartbeat or Heartbeat(),
            log=log,
        )

    @property
    def outage(self) -> str | None:
        """What is being waited for, None when all is well."""
        return self._settling.outage or (None if self._replies is None else self._replies.outage)

    async def apply(self, records: Sequence[Record]) -> Sequence[Record]:
        """Apply records in order; returns when they are committed and duplicates answered.

        The next batch may be given before this one is through: its records wait in their lanes, already read.
        Safe to repeat with the same records, from the start or any part of them, in any process. Outages are waited
        out here: only cancellation, or the breaker, leaves this. Then the batch was committed or not, and comes again.

        Returns:
            The records that were applied. The others are of partitions in `authenticator.waiting`, from the first one
            on that waits: they were released, and come again.

        Raises:
            SystemicError: Our own code fails on too many of them. Of the lanes that failed nothing was written, and
                neither this batch nor a later one may be acknowledged: an applier is done with that.
        """
        started = time.perf_counter()
        BATCH_RECORDS.observe(len(records))
        tracing = active()
        span = None if tracing is None else tracing.begin_commands(started)
        entered: list[asyncio.Task[Mapping[int, int]]] = []
        parts = split_into_lanes(records, len(self._lanes))
        judgement = Judgement(self._breaker, len(parts), self._decides_nothing)
        for number, (places, lane) in enumerate(parts):
            before = {task for place in places if (task := self._lanes[place]) is not None}
            task = asyncio.create_task(self._settle_lane(lane, before, judgement, number, span))
            for place in places:
                self._lanes[place] = task
            entered.append(task)
        settled = await asyncio.gather(*entered, return_exceptions=True)
        exemplar = None if span is None else span.end({"messaging.batch.message_count": len(records)})
        waiting: dict[int, int] = {}
        for outcome in settled:
            if isinstance(outcome, BaseException):
                raise outcome
            waiting |= outcome
        BATCH_SECONDS.observe(time.perf_counter() - started, exemplar)
        if not waiting:
            return records
        return [record for record in records if record.offset < waiting.get(record.partition, record.offset + 1)]

    async def _settle_lane(
        self,
        records: Sequence[Record],
        before: set[asyncio.Task[Mapping[int, int]]],
        judgement: Judgement,
        lane: int,
        span: BatchSpan | None,
    ) -> dict[int, int]:
        """Settle the records of a lane; returns from which offset on partitions wait, where some do."""
        try:
            requests = self.authenticator.admit(read_each(self._reader or read, records, log))
            let_go = len(requests) < len(records)
            waiting = {at: wait.offset for at, wait in self.authenticator.waiting.items()} if let_go else {}
            if before:
                await asyncio.wait(before)
                for task in before:
                    task.result()  # cancelled, or failed: what comes later in its partitions may not go first
            if requests:
                transact, finish = partial(self._transact, judgement, lane), partial(self._finish, span)
                await self._settling.settle(requests, transact, finish)
            return waiting
        finally:
            judgement.leave(lane)

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

    async def _transact(
        self, judgement: Judgement, lane: int, requests: Sequence[Request | Unreadable], refused: str | None
    ) -> tuple[Plan, int]:
        """As `_try`; failures of ours wait for the other lanes outside of it, because these may want our locks."""
        while True:
            try:
                return await self._try(judgement, lane, requests, refused)
            except UnjudgedError:
                await judgement.wait()

    async def _try(
        self, judgement: Judgement, lane: int, requests: Sequence[Request | Unreadable], refused: str | None
    ) -> tuple[Plan, int]:
        """One transaction; returns its plan and the journal position before its first row.

        Args:
            judgement: Of the batch: whether what our code raises on may be parked.
            lane: Of the batch.
            requests: Of the lane, or of a part of it.
            refused: Why the database refuses the one command of this batch, which is then parked undecided.
        """
        if probes.listeners:
            await probe("apply.before_transaction", self, requests, refused)
        # guarantee 3: organizations, outcomes and parked records of a batch are one transaction; what fails leaves
        # nothing.
        async with self._database.begin() as conn:
            readable = [each for each in requests if isinstance(each, Request)]
            snapshot = await read_snapshot(conn, readable, self._queued_max)
            now = self._clock()  # behind the locks, so that an organization's times don't go back
            policy = self.authenticator.policy
            fold = Fold(snapshot, now, policy, refused=refused, queued_max=self._queued_max, decider=self._decider)
            for request in requests:
                fold.add(request)
            plan = fold.plan
            if not judgement.is_allowed(lane, plan):
                raise UnjudgedError
            if plan.parked:
                # Before the head is taken: a rival with the same records is waited for here.
                await parked.park(conn, list(map(keep_record, plan.parked)), now)
            start = await write_decided(conn, plan, now)
        if probes.listeners:
            await probe("apply.after_commit", self)
        return plan, start

    def _decides_nothing(self) -> bool:
        policy = None if self.authenticator.trusts else self.authenticator.policy
        return decides_nothing(self._reader or read, self._decider, policy)

    async def _finish(self, span: BatchSpan | None, committed: tuple[Plan, int]) -> None:
        """Count what was committed, and send the outcomes that the relay won't."""
        plan, start = committed
        if self._on_commit is not None:
            self._on_commit(plan)
        if self._breaker is not None:
            self._breaker.record(plan)
        _count(plan)
        if span is not None:
            add_spans(span, plan, start)
        if probes.listeners:
            await probe("apply.before_replies", plan)
        if self._replies is not None:
            await self._replies.send(plan, start)


def _count(plan: Plan) -> None:
    decided = Counter((row.outcome, row.code) for row in plan.journal)
    for (outcome, code), commands in decided.items():
        COMMANDS.labels(outcome, str(code)).inc(commands)
    for each in plan.parked:
        PARKED.labels(each.unreadable.reason).inc()
    for each in plan.defects:
        if each.command_id is not None:  # of what could not be read that was said when it was read
            event = "command parked: our code raised"
            log_defect(log, event, describe_place(each.error), each.error, command_id=str(each.command_id))
    told = [f"{commands} {outcome} {code}" for (outcome, code), commands in decided.items()]
    log.debug("committed", outcomes=", ".join(told), parked=len(plan.parked), answered=len(plan.replies))
