"""The worker as a process sees it: start, health, drain. It takes commands, and the reference data they are judged by.

Start: read the reference data, and only when they are loaded the commands (while Kafka is away: wait). Drain: stop
taking, finish the batches in flight, commit, acknowledge, leave the groups, close.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping

from org_service.apply.applier import Applier
from org_service.apply.authenticator import Authenticator
from org_service.apply.reference import ReferenceApplier
from org_service.apply.replies import Replies, lacks_write
from org_service.errors import RetryError
from org_service.kafka.client import KafkaError
from org_service.kafka.transactions import TransactionWatch
from org_service.settings import Settings
from org_service.store.database import Database
from org_service.telemetry.logs import get_logger
from org_service.waiting import Heartbeat, Patience, Trouble
from org_service.worker.commands import CommandSubscriber
from org_service.worker.first_load import wait_until_loaded
from org_service.worker.reference import ReferenceSubscriber

log = get_logger(__name__)


class Worker:
    """One worker process. `run` once; the rest may be asked at any time from the same loop."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        worker = settings.worker
        self._starting = Heartbeat()
        self._commands_alive, self._reference_alive = Heartbeat(), Heartbeat()
        """Of each feed: a poll, or a try of the batch in flight, whichever came last."""
        self.heartbeats: Collection[Heartbeat] = (self._starting,)
        """Those of the loops that run now."""
        self._database = Database(settings.database, "worker")
        self._authenticator = Authenticator(settings.auth)
        self._replies = Replies(settings.kafka, worker.retry_waits_s, self._commands_alive)
        self._applier = Applier(
            self._database, self._authenticator, self._replies, worker, heartbeat=self._commands_alive
        )
        self._reference_database = Database(settings.database, "worker")
        self._reference_applier = ReferenceApplier(self._reference_database, settings, self._reference_alive)
        self._subscriber: CommandSubscriber | None = None
        self._reference: ReferenceSubscriber | None = None
        self._transactions = TransactionWatch(settings.kafka, [settings.kafka.topics.commands])
        self._loading = False
        self._lacking: str | None = None
        """What keeps us from taking commands, beside an outage."""

    async def run(self, stop: asyncio.Event) -> None:
        """Take and apply commands until `stop` is set; then the batches in flight are finished and everything closed.

        Raises:
            Exception: A defect ended the work on a batch. It was not acknowledged, and comes again after a restart.
        """
        try:
            joined = await self._join(stop)
            if joined is None:
                return
            self._subscriber = joined[0]
            self.heartbeats = (self._commands_alive, self._reference_alive)
            watching = asyncio.create_task(self._transactions.run())
            stopping = asyncio.create_task(stop.wait())
            failed = [each.failed for each in joined]
            await asyncio.wait((stopping, *failed), return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            watching.cancel()
            log.info("draining: finishing the batches in flight")
            await asyncio.gather(*(each.stop() for each in joined))
            await asyncio.gather(watching, return_exceptions=True)
            for each in failed:
                if each.done():
                    each.result()
        finally:
            await self._authenticator.close()
            await self._replies.stop()
            await self._database.close()
            await self._reference_database.close()

    async def _join(self, stop: asyncio.Event) -> tuple[CommandSubscriber, ReferenceSubscriber] | None:
        """Start consuming, as soon as Kafka and the issuer's keys can be had; None when `stop` came first."""
        worker = self._settings.worker
        patience = Patience(
            "not ready to accept commands",
            worker.retry_waits_s,
            log=log,
            judge=_judge,
            heartbeat=self._starting,
            stop=stop,
        )
        async for attempt in patience:
            with attempt:
                return await self._try_to_join(stop)
        return None

    async def _try_to_join(self, stop: asyncio.Event) -> tuple[CommandSubscriber, ReferenceSubscriber]:
        subscriber = CommandSubscriber(self._settings, self._applier, self._commands_alive)
        reference = ReferenceSubscriber(self._settings, self._reference_applier, self._reference_alive)
        try:
            await self._authenticator.start()
            await reference.start()
            self._reference = reference  # while it loads, it says what is wrong with it
            self._lacking = None
            await self._see_rights(reference)
            if await self._load(reference, stop):
                await subscriber.start()
        except (KafkaError, OSError, RetryError):
            self._reference = None
            await asyncio.gather(subscriber.stop(), reference.stop())
            raise
        return subscriber, reference

    async def _see_rights(self, reference: ReferenceSubscriber) -> None:
        """See that the answers to duplicates can be sent: else the first one would hold its partition up.

        Raises:
            RetryError: They can't, until somebody grants it.
            KafkaError: No broker answers.
        """
        results = self._settings.kafka.topics.results
        if not await reference.may_write(results):
            self._lacking = lacks_write(results)
            raise RetryError(self._lacking)

    async def _load(self, reference: ReferenceSubscriber, stop: asyncio.Event) -> bool:
        """Wait until reference data are loaded, where commands are judged by them; False when their reader failed."""
        if self._settings.auth.commands == "trusted" and not self._settings.auth.issuer:
            return True
        self._loading = True
        self._reference_alive.beat()
        self.heartbeats = (self._starting, self._reference_alive)
        loading = asyncio.create_task(wait_until_loaded(self._settings, stop, self._starting.beat))
        try:
            await asyncio.wait((loading, reference.failed), return_when=asyncio.FIRST_COMPLETED)
            if loading.done():
                loading.result()
                return True
            return False
        finally:
            self._loading = False
            self.heartbeats = (self._starting,)
            loading.cancel()

    def checks(self) -> Mapping[str, Callable[[], Awaitable[str]]]:
        """What /readyz asks, by name; a check returns what it saw, or raises."""
        return {
            "postgres": self._applier.check,
            "kafka": self._check_kafka,
            "consumer": self._check_consumer,
            "log": self._check_log,
            "transactions": self._transactions.check,
            "reference": self._check_reference,
            "parked": self._applier.check_parked,
            **self._authenticator.checks(),
        }

    async def _check_kafka(self) -> str:
        if self._subscriber is None:
            raise RetryError("not connected yet")
        await self._subscriber.ping()
        return "answers"

    async def _check_consumer(self) -> str:
        subscriber = self._subscriber
        if self._lacking is not None:
            raise RetryError(self._lacking)
        if self._loading:
            raise RetryError("commands wait until the reference data are loaded")
        if subscriber is None or subscriber.assigned is None:
            raise RetryError("no partitions assigned yet")
        if self._applier.outage is not None:
            raise RetryError(f"the current batch waits: {self._applier.outage}")
        if subscriber.sick is not None:
            raise RetryError(f"cannot be read: {subscriber.sick}")
        waiting = len(self._authenticator.waiting)
        return f"{subscriber.assigned} partitions" + (f"; waiting for the issuer's keys: {waiting}" if waiting else "")

    async def _check_log(self) -> str:
        if self._subscriber is None:
            raise RetryError("not connected yet")
        return await self._subscriber.check_log()

    async def _check_reference(self) -> str:
        reference = self._reference
        if reference is None or reference.assigned is None:
            raise RetryError("no partitions assigned yet")
        if self._reference_applier.outage is not None:
            raise RetryError(f"reference data wait: {self._reference_applier.outage}")
        if reference.sick is not None:
            raise RetryError(f"cannot be read: {reference.sick}")
        return f"{reference.assigned} partitions"


def _judge(error: Exception) -> Trouble | None:
    if isinstance(error, RetryError):
        return Trouble(str(error))
    return (
        Trouble(f"Kafka is unavailable ({type(error).__name__})") if isinstance(error, (KafkaError, OSError)) else None
    )
