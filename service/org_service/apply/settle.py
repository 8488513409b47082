"""A batch is tried until it is committed; commands and reference facts alike.

Whatever goes wrong ends in one of four ways. Somebody got in between: again at once, on fresh data. The database
rejects the data: halve the batch until the culprit is alone, and park it. A statement took too long: halve the batch as
well, but what is alone waits, since a slow database is not a reason to park anything. An outage, or trouble we don't
know: wait with back-off and try again, forever; whether a commit whose answer was lost took place, the transaction
itself finds out the next time.
"""

import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

import structlog

from org_service.domain.reasons import RepeatReason
from org_service.errors import DataRefusedError, RefoldError, ServiceError, TooSlowError
from org_service.store.failures import describe_sqlstate
from org_service.telemetry.metrics import BATCH_REPEATS
from org_service.waiting import Heartbeat, Patience, Trouble

REFOLDS_MAX: Final = 20
"""Rivals are rare and each settles in one more fold; a clash that outlives these is in the data itself."""
_REFOLD_PAUSE_S: Final = 0.002
"""Times the number of refolds, at random down to none: rivals must not march in step."""

ItemT = TypeVar("ItemT")
DoneT = TypeVar("DoneT")


Transact = Callable[[Sequence[ItemT], str | None], Awaitable[DoneT]]
"""Commits a batch or part of one; may be called again with the same after any error. With a text it parks the one item
that is left, and the text says why the database rejects it."""
Done = Callable[[DoneT], Awaitable[None]]
"""Told what each transaction returned, once it is committed."""


class Settling:
    """Settles batches by a given transaction; several at once, if the transaction allows it."""

    def __init__(
        self,
        name: str,
        *,
        classify: Callable[[Exception], ServiceError | None],
        waits_s: tuple[float, float],
        heartbeat: Heartbeat,
        log: structlog.stdlib.BoundLogger,
    ) -> None:
        """Make one.

        Args:
            name: Of what is settled, as the log has it.
            classify: What to do about an error of a transaction; None where nobody knows.
            waits_s: The first and the longest pause of an outage.
            heartbeat: Beats at each try.
            log: Of the caller.
        """
        self._name = name
        self._classify = classify
        self._log = log
        self._patience = Patience(
            f"{name} waits", waits_s, log=log, judge=self._judge, count=count_trouble, heartbeat=heartbeat
        )

    @property
    def outage(self) -> str | None:
        """What is being waited for; None when all is well."""
        return self._patience.outage

    async def settle(
        self,
        batch: Sequence[ItemT],
        transact: Transact[ItemT, DoneT],
        done: Done[DoneT],
        refused: str | None = None,
    ) -> None:
        """Try until committed; only cancellation, an error of `done`, or a `ServiceError` that `classify` doesn't know
        (`SystemicError`, say) leaves this before.

        Args:
            batch: At least one item.
            transact: Commits it, or a part.
            done: Told of each commit.
            refused: Why the database refuses the data of the one item that is left.
        """
        refolds = 0
        tries = aiter(self._patience)
        async for _ in tries:
            try:
                result = await transact(batch, refused)
            except Exception as error:
                trouble = self._classify(error)
                if trouble is None and isinstance(error, ServiceError):
                    raise  # it says what to do, and that is not to try again
                if isinstance(trouble, RefoldError) and refolds < REFOLDS_MAX:
                    refolds += 1
                    BATCH_REPEATS.labels(RepeatReason.REFOLD).inc()
                    tries.try_again(random.uniform(0, _REFOLD_PAUSE_S * refolds))  # noqa: S311 - no secret
                elif refused is None and _is_in_data(trouble):
                    await self._halve_or_park(batch, transact, done, error)
                elif isinstance(trouble, TooSlowError) and len(batch) > 1:
                    await self._halve(batch, transact, done, RepeatReason.TOO_SLOW)
                else:
                    tries.fail(error)  # guarantee 6: what waits for an outage is never parked or dropped
            else:
                tries.succeed()
                await done(result)

    async def _halve_or_park(
        self, batch: Sequence[ItemT], transact: Transact[ItemT, DoneT], done: Done[DoneT], error: Exception
    ) -> None:
        """Split a batch that can't be written; alone, the culprit is parked."""
        if len(batch) > 1:
            await self._halve(batch, transact, done, RepeatReason.HALVED)
            return
        detail = describe_sqlstate(error)
        self._log.error(f"{self._name}: one record is parked, the database rejects its data", sqlstate=detail)
        await self.settle(batch, transact, done, detail)

    async def _halve(
        self, batch: Sequence[ItemT], transact: Transact[ItemT, DoneT], done: Done[DoneT], why: RepeatReason
    ) -> None:
        BATCH_REPEATS.labels(why).inc()
        self._log.warning(f"{self._name} is being halved", why=why, records=len(batch))
        middle = len(batch) // 2
        await self.settle(batch[:middle], transact, done)
        await self.settle(batch[middle:], transact, done)

    def _judge(self, error: Exception) -> Trouble:
        trouble = self._classify(error)
        return Trouble(wait_reason(trouble, error), foreseen=trouble is not None)


def wait_reason(trouble: ServiceError | None, error: Exception) -> str:
    """What a batch waits for, as text; of what isn't known the kind alone."""
    if isinstance(trouble, TooSlowError):
        return (
            f"a single record takes too long. {trouble}. See what it waits for (pg_stat_activity), or raise "
            "ORGS_DATABASE__STATEMENT_TIMEOUT_S"
        )
    return str(trouble or type(error).__name__)


def count_trouble(trouble: Trouble) -> None:
    """Count a batch that is tried again because of an outage, or of trouble nobody knows."""
    BATCH_REPEATS.labels(RepeatReason.OUTAGE if trouble.foreseen else RepeatReason.UNKNOWN).inc()


def _is_in_data(trouble: ServiceError | None) -> bool:
    """Whether halving a batch leads to whatever can't be written."""
    return isinstance(trouble, DataRefusedError) or (isinstance(trouble, RefoldError) and trouble.in_data)
