"""The role `operate`: carries out what operators left to it (`--detach`), one operation at a time, and looks how far
consumer groups are behind.

Several processes may have it; each run is one process's by its lease. At SIGTERM the run in flight is given up after
the step that was noted last, and any other process of the role continues it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from uuid import UUID

from org_service.errors import RetryError, ServiceError
from org_service.operate import runs
from org_service.operate.operation import LeaseLostError, judge
from org_service.operate.verifying.continuous import ContinuousVerification
from org_service.operate.watching import watch_groups
from org_service.settings import Settings
from org_service.store import operations
from org_service.store.database import Database
from org_service.telemetry.logs import get_logger
from org_service.waiting import Heartbeat, Patience, pause, run_unless

log = get_logger(__name__)


class Operator:
    """One process of the role. `run` once; the rest may be asked at any time from the same loop."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._database = Database(settings.database, "operate")
        self._heartbeat = Heartbeat()
        self._running: UUID | None = None
        self._patience: Patience | None = None
        self._verification = ContinuousVerification(settings)

    @property
    def heartbeats(self) -> Collection[Heartbeat]:
        """That of the loop."""
        return (self._heartbeat,)

    async def run(self, stop: asyncio.Event) -> None:
        """Carry out what is left to the role until `stop` is set."""
        patience = self._patience = Patience(
            "looking for operations",
            self._settings.operate.retry_waits_s,
            log=log,
            judge=judge,
            heartbeat=self._heartbeat,
            stop=stop,
        )
        beside = [
            asyncio.create_task(self._verification.run(stop)),
            asyncio.create_task(watch_groups(self._settings, self._database, stop)),
        ]
        try:
            async for attempt in patience:
                with attempt:
                    await self._work(stop)
        finally:
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)
            await self._database.close()

    async def _work(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            self._heartbeat.beat()
            async with self._database.connect() as conn:
                found = await operations.find_detached(conn, self._settings.operate.approval_above)
            if found is None:
                await pause(self._settings.operate.poll_interval_s, stop, self._heartbeat)
                continue
            self._running = found
            beating = asyncio.create_task(self._beat())
            try:
                await run_unless(stop, self._carry_out(found))
            finally:
                self._running = None
                beating.cancel()

    async def _carry_out(self, operation_id: UUID) -> None:
        try:
            ended = await runs.run(self._settings, operation_id, on_cancel="release")
            log.info("a run ended", run=str(operation_id), state=ended.state, counts=ended.counts, why=ended.error)
        except LeaseLostError as error:
            log.warning("a run was taken over", run=str(operation_id), why=str(error))
        except ServiceError as error:
            if isinstance(error, RetryError):
                raise
            # It can't begin: else it would be tried each second.
            async with self._database.begin() as conn:
                rejected = await operations.reject(conn, operation_id, str(error))
            log.warning("an operation was not begun", run=str(operation_id), why=str(error), ended=rejected)
            if not rejected:  # begun by a newer release, say: it stays, and must not be tried without a pause
                await asyncio.sleep(self._settings.operate.poll_interval_s)
        except Exception:
            log.exception("a run failed: our code raised", run=str(operation_id))

    async def _beat(self) -> None:
        """A plan may be read for minutes; each statement and each request has its own time-out."""
        while True:
            self._heartbeat.beat()
            await asyncio.sleep(1)

    def checks(self) -> Mapping[str, Callable[[], Awaitable[str]]]:
        """What /readyz asks, by name; a check returns what it saw, or raises."""
        return {
            "postgres": self._check_postgres,
            "operations": self._check_operations,
            "verified": self._check_verified,
        }

    async def _check_verified(self) -> str:
        last = self._verification.last
        return "not verified yet" if last is None else f"{last.verdict} as of position {last.position}"

    async def _check_postgres(self) -> str:
        await self._database.ping()
        return "answers"

    async def _check_operations(self) -> str:
        if self._patience is not None and self._patience.outage is not None:
            raise RetryError(self._patience.outage)
        return "none running" if self._running is None else f"{self._running} is running"
