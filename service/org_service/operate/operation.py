"""What operators do is a plan first, and a run does exactly that plan or stops (guarantee 9).

A tool says what it would touch (`plan`) and does it in steps (`run`). Whatever changes something takes an `Execution`,
which only `runs` gives, and only for a plan that still holds: without one it can't be called. A step's effect and how
far the run is are one transaction where the effect is in Postgres; where it is in Kafka a step may come twice after a
kill, with the same ids.
"""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from hashlib import blake2b
from typing import Any, ClassVar, Final, Literal, NamedTuple, Protocol, runtime_checkable
from uuid import UUID

import orjson

from org_service.apply.release import FAILED, WAITING
from org_service.domain.reasons import OperationState
from org_service.errors import PreconditionError, RetryError, ServiceError
from org_service.kafka.connection import judge_outage
from org_service.settings import Settings
from org_service.store import operations
from org_service.store.database import Database, DatabaseConnection
from org_service.store.failures import classify
from org_service.store.operations import Lease, Operation, Wishes
from org_service.waiting import Trouble

SAMPLE_MAX: Final = 20
"""Items that a plan shows."""
LEFT_OUT_SHOWN_MAX: Final = 100
"""What a plan can't do of what was asked for, by line."""
DIGEST_BYTES: Final = 16
NOT_DONE: Final = frozenset({"conflict", "rejected", "parked", FAILED, WAITING})
"""Names in `Execution.counts` of items that were not done; a command ends with exit code 1 where there are any."""
LOOK_INTERVAL_S: Final = 0.5
"""Between looks at what others ask of a run: pause, cancel, another rate."""


@asynccontextmanager
async def open_database(
    settings: Settings, role: Literal["operate", "reader", "owner"] = "operate", *, autocommit: bool = False
) -> AsyncGenerator[Database]:
    """The database with an operator's rights, closed at the end. `autocommit` as of `Database`."""
    database = Database(settings.database, role, autocommit=autocommit)
    try:
        yield database
    finally:
        await database.close()


class PlanMovedError(PreconditionError):
    """What a plan stands on is something else by now; nothing was done."""


class NotRunnableError(PreconditionError):
    """An operation can't be run now: it is over, expired, not approved, or another one is in its way."""


class LeaseLostError(ServiceError):
    """Another process has this run by now. The step in flight was rolled back."""


class Interrupted(Exception):
    """Somebody asked for a pause or the end; the step before is noted."""

    def __init__(self, state: OperationState) -> None:
        super().__init__(state)
        self.state = state


class Plan(NamedTuple):
    """What a tool would do."""

    items: int
    """The exact number of things that it would touch."""
    digest: str
    """Of all of them, in order, in hex."""
    sample: Sequence[Mapping[str, Any]]
    """The first of them, as operators see them."""
    facts: Mapping[str, Any]
    """What it stands on, by name: JSON. A run stops where one is something else by now."""
    notes: Sequence[str] = ()
    """What an operator should know before; a line each."""


def explain_left_out(said: str, lines: Sequence[str], total: int | None = None) -> list[str]:
    """Notes on what a plan leaves out: how many, and the first of them.

    Args:
        said: What they are.
        lines: The first of them, or all.
        total: How many there are, if `lines` has not all.
    """
    total = len(lines) if total is None else total
    if not total:
        return []
    shown = [f"  {line}" for line in lines[:LEFT_OUT_SHOWN_MAX]]
    return [f"{said}: {total:,}", *shown, *(["  …"] if total > len(shown) else [])]


class Tally:
    """Counts, digests and samples what a plan would touch, item by item; memory doesn't grow."""

    def __init__(self) -> None:
        self.items = 0
        self._digest = blake2b(digest_size=DIGEST_BYTES)
        self._sample: list[Mapping[str, Any]] = []

    def add(self, identity: bytes, shown: Callable[[], Mapping[str, Any]]) -> None:
        """Add an item.

        Args:
            identity: What it is and what is done to it; the same again means the same plan.
            shown: Makes what operators see of it.
        """
        self.items += 1
        self._digest.update(len(identity).to_bytes(4, "big"))
        self._digest.update(identity)
        if len(self._sample) < SAMPLE_MAX:
            self._sample.append(shown())

    def plan(self, facts: Mapping[str, Any], notes: Sequence[str] = ()) -> Plan:
        """The plan of what was added."""
        return Plan(self.items, self._digest.hexdigest(), self._sample, facts, notes)


class Tool(Protocol):
    """One kind of operation with its parameters."""

    kind: ClassVar[str]

    @property
    def resource(self) -> str:
        """What it works on: of the operations on the same one is under way at a time."""
        ...

    @property
    def parameters(self) -> Mapping[str, Any]:
        """What makes it again, as JSON. What "now" meant when it was planned is in here as a number."""
        ...

    async def plan(self) -> Plan:
        """See what it would do; changes nothing.

        Raises:
            PreconditionError: There is nothing to do, or it can't be done; the message says why.
        """
        ...

    async def run(self, execution: "Execution") -> None:
        """Do it, from `execution.progress` on. May be called again after any failure."""
        ...


@runtime_checkable
class LocalTool(Tool, Protocol):
    """A tool that works with something of this machine, such as a file; it can't be left to other processes."""

    async def see_here(self) -> None:
        """See that it is here, as it was planned; asked before a run begins or is resumed.

        Raises:
            PreconditionError: It isn't; the message says what is missing.
        """
        ...


class Execution:
    """The leave to do what was planned, and the account of it. Made by `runs` alone.

    Attributes:
        run_id: Of the operation; what goes out names it.
        requested_by: Who asked for it.
        reason: Why.
        progress: How far the run is, as the tool noted it; None at the beginning.
        counts: What became of the items so far.
    """

    def __init__(
        self,
        operation: Operation,
        database: Database,
        lease: Lease,
        *,
        on_progress: Callable[["Execution"], None] | None,
    ) -> None:
        self.run_id: UUID = operation.id
        self.items = operation.items
        self.requested_by = operation.requested_by
        self.reason = operation.reason
        self.progress: Any = operation.progress
        self.counts: Counter[str] = Counter(operation.counts)
        self._database = database
        self._lease = lease
        self._on_progress = on_progress
        self._lost = False
        self._asked_for: OperationState | None = None
        self._rate: float | None = operation.rate_per_second_max
        self._paced_from_s = time.monotonic()
        self._paced = 0

    @property
    def done(self) -> int:
        """Items that are done."""
        return self.counts.total()

    def step_max(self, most: int) -> int:
        """How many items the next step may have: at most a second's worth, where the rate is bounded."""
        return most if self._rate is None else max(1, min(most, int(self._rate)))

    async def advance(self, conn: DatabaseConnection, progress: Any, counts: Mapping[str, int]) -> None:
        """Note a step in the transaction of its effect; call `pace` after the commit.

        Args:
            conn: In that transaction.
            progress: From where the next step continues; JSON.
            counts: What became of the items of this step.

        Raises:
            LeaseLostError: Another process has the run: the transaction must be rolled back.
        """
        now = self.counts + Counter(counts)
        self._hear(await operations.advance(conn, self._lease, progress, now))
        self._see_ours()
        self.progress, self.counts = progress, now

    async def record(self, progress: Any, counts: Mapping[str, int]) -> None:
        """Note a step whose effect is outside Postgres, after it; then wait as `pace` does."""
        async with self._database.begin() as conn:
            await self.advance(conn, progress, counts)
        await self.pace(sum(counts.values()))

    async def pace(self, items: int) -> None:
        """Wait until so many more items are within the rate.

        Raises:
            Interrupted: Somebody asked for a pause or the end.
            LeaseLostError: Another process has the run.
        """
        if self._on_progress is not None:
            self._on_progress(self)
        self._paced += items
        while True:
            self._see_ours()
            if self._asked_for is not None:
                raise Interrupted(self._asked_for)
            rate = self._rate
            due_s = 0.0 if rate is None else self._paced_from_s + self._paced / rate - time.monotonic()
            if due_s <= 0:
                return
            await asyncio.sleep(min(due_s, LOOK_INTERVAL_S / 2))

    async def keep_lease(self) -> None:
        """Renew the lease and hear what others ask for, until cancelled; an outage is waited out by the next look."""
        while not self._lost:
            await asyncio.sleep(min(LOOK_INTERVAL_S, self._lease.lease_s / 4))
            async with self._database.begin() as conn:
                self._hear(await operations.renew(conn, self._lease))

    def _hear(self, wishes: Wishes | None) -> None:
        if wishes is None:
            self._lost = True
            return
        self._asked_for = wishes.asked_for
        if wishes.rate_per_second_max != self._rate:
            self._rate = wishes.rate_per_second_max
            self._paced_from_s, self._paced = time.monotonic(), 0

    def _see_ours(self) -> None:
        if self._lost:
            raise LeaseLostError(
                f"another process has the run {self.run_id} by now (or cancelled it); this one did nothing more."
            )


def as_json(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters or facts as JSON knows them: what comes back from the database equals what was kept."""
    return orjson.loads(orjson.dumps(parameters))


def judge(error: Exception) -> Trouble | None:
    """Whether an error is an outage, which a run waits out."""
    if isinstance(error, ServiceError) and not isinstance(error, RetryError):
        return None
    trouble = classify(error)
    if isinstance(trouble, RetryError):
        return Trouble(str(trouble))
    return judge_outage(error)
