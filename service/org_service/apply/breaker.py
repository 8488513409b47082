"""Whether the commands that our code raises on are poison, or our code is broken (a circuit breaker).

Poison is one command, or one organization, that we fail on: it is parked, the rest goes on (guarantee 7). A bad release
fails on many, and would park them all: work for operators, and for every publisher a `parked` in place of an outcome.
So the failures of a whole batch, in all its lanes, are judged before any of them is parked:

    our code raises on known-good commands too (`canary`)                             broken
    failures in the window: few, or of few organizations, or a small share            poison
    else                                                                              broken

The window is the batch and what came before it, up to a number of commands that our code tried to decide; those that
were known already, or wait behind a parked one, say nothing about it. What counts is what was committed, once.

Broken trips the breaker: nothing of the lane is written, and the worker leaves its commands to others. After a pause it
tries again (half-open). Then few failures are no excuse: the share of them alone decides, until a batch shows that our
code works. So a defect that passes (memory, say) stops no worker for good.

Declined: holding a batch back for a while because nothing has succeeded in this process yet. It is no news by waiting,
and where the first command of a quiet morning is poison it would hold up everybody behind it.
"""

import asyncio
from collections.abc import Callable, Collection, Sequence
from itertools import chain
from typing import Final, NamedTuple

from org_service.domain.fold import Defect, Plan, describe_place
from org_service.domain.reasons import TripReason
from org_service.domain.requests import Record
from org_service.errors import SystemicError
from org_service.settings import WorkerSettings
from org_service.telemetry.logs import get_logger, log_defect
from org_service.telemetry.metrics import BREAKER_FAILURES, BREAKER_OPEN, BREAKER_TRIPS

log = get_logger(__name__)

_WHAT_TO_DO: Final = (
    "Nothing of the batch was parked. Roll the release back, or start one that is fixed: it continues with the same "
    "commands (docs/operating.md, a bad release went out)"
)


_RecordKey = tuple[str, int, int, int]


class _Failure(NamedTuple):
    """One in the window."""

    number: int
    """Of the command, among all that were tried."""
    organization: str


class _Evidence(NamedTuple):
    """What became of the commands of a lane."""

    tried: int
    defects: Sequence[Defect]


class Breaker:
    """What our code failed on lately, in one process; all of its batches share one."""

    def __init__(self, settings: WorkerSettings) -> None:
        """Make one, closed."""
        self._window = settings.breaker_window_commands
        self._failures_min = settings.breaker_failures_min
        self._organizations_min = settings.breaker_organizations_min
        self._percent_max = settings.breaker_failures_percent_max
        self._tried = 0
        self._failures: dict[_RecordKey, _Failure] = {}
        """By record, so that one that comes again counts once."""
        self.tripped: str | None = None
        """Why it tripped, until a batch shows that our code works again; None while all is well."""
        self.trips = 0
        """Since then, how often in a row."""

    def judge(self, evidence: Collection[_Evidence], decides_nothing: Callable[[], bool]) -> None:
        """Let failures be parked, or trip.

        Args:
            evidence: Of one batch.
            decides_nothing: Whether our code raises on known-good commands as well.

        Raises:
            SystemicError: Our code is broken; the text says how, and what to do.
        """
        defects = [defect for lane in evidence for defect in lane.defects if _key(defect.record) not in self._failures]
        if not defects:
            return
        tried = sum(lane.tried for lane in evidence)
        if decides_nothing():
            self._trip(TripReason.NOTHING_DECIDED, defects, "even on a command that is known to be good")
        earlier_max = 0 if self.tripped is not None else max(0, self._window - tried)
        earlier = [each for each in self._failures.values() if each.number > self._tried - earlier_max]
        failures, tried = len(defects) + len(earlier), tried + min(self._tried, earlier_max)
        if failures * 100 <= tried * self._percent_max:
            return
        organizations = len({each.organization for each in chain(defects, earlier)})
        counted = f"on {failures} of the last {tried} commands, of {organizations} organizations"
        if self.tripped is not None:
            self._trip(TripReason.STILL_FAILING, defects, counted)
        if failures >= self._failures_min and organizations >= self._organizations_min:
            self._trip(TripReason.MANY_FAILURES, defects, counted)

    def record(self, plan: Plan) -> None:
        """Count what was committed; closes the breaker where our code decided something."""
        before, failures = self._tried, self._failures
        self._tried += plan.tried
        for defect in plan.defects:
            failures[_key(defect.record)] = _Failure(before + defect.tried + 1, defect.organization)
        if failures:
            for key in [key for key, each in failures.items() if each.number <= self._tried - self._window]:
                del failures[key]
            BREAKER_FAILURES.set(len(failures))
        if self.tripped is not None and plan.tried > len(plan.defects):
            self.tripped, self.trips = None, 0
            BREAKER_OPEN.set(0)
            log.info("our code decides commands again: the breaker is closed")

    def _trip(self, why: TripReason, defects: Collection[Defect], said: str) -> None:
        first = next(iter(defects))
        place = describe_place(first.error)
        self.tripped = f"our own code raised {said} ({place}). {_WHAT_TO_DO}"
        self.trips += 1
        BREAKER_OPEN.set(1)
        BREAKER_TRIPS.labels(why).inc()
        log_defect(log, "no commands are accepted: our code raised", place, first.error, failures=len(defects))
        raise SystemicError(self.tripped)


class UnjudgedError(Exception):
    """Our code raised on commands of a lane, and other lanes of the batch are still to tell what it did there."""


class Judgement:
    """The failures of one batch, whose lanes are decided apart and judged together. One for each time it comes."""

    def __init__(self, breaker: Breaker | None, lanes: int, decides_nothing: Callable[[], bool]) -> None:
        """Make one.

        Args:
            breaker: Judges; None to let everything be parked.
            lanes: How many the batch has.
            decides_nothing: As for `Breaker.judge`.
        """
        self._breaker = breaker
        self._decides_nothing = decides_nothing
        self._evidence: dict[int, _Evidence] = {}
        self._left = set(range(lanes))
        self._all_in = asyncio.Event()
        self._allowed: set[_RecordKey] = set()
        """Whose failures may be parked."""
        self._error: SystemicError | None = None

    def leave(self, lane: int) -> None:
        """Hear that nothing comes of a lane any more; nobody waits for it."""
        self._left.discard(lane)
        if not self._left:
            self._all_in.set()

    def is_allowed(self, lane: int, plan: Plan) -> bool:
        """Whether what our code failed on may be parked; False where other lanes may still tell.

        Args:
            lane: Whose plan it is, or the plan of a part of it.
            plan: Before any of it is written.

        Raises:
            SystemicError: It may not: our code is broken.
        """
        failures = {_key(defect.record) for defect in plan.defects}
        if self._breaker is None or (lane not in self._left and failures <= self._allowed):
            return True
        self._evidence[lane] = _Evidence(plan.tried, plan.defects)
        self.leave(lane)
        if failures and not self._left:
            self._judge(self._breaker)
        return not failures or not self._left

    async def wait(self) -> None:
        """Wait until each lane was decided once, or left."""
        await self._all_in.wait()

    def _judge(self, breaker: Breaker) -> None:
        if self._error is None:
            try:
                # guarantee 10: what a bad release fails on is not parked: the batch as a whole is judged before.
                breaker.judge(self._evidence.values(), self._decides_nothing)
            except SystemicError as error:
                self._error = error
        if self._error is not None:
            raise self._error
        self._allowed.update(_key(defect.record) for each in self._evidence.values() for defect in each.defects)


def _key(record: Record) -> _RecordKey:
    return record.topic, record.partition, record.offset, record.timestamp
