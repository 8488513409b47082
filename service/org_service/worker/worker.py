"""The worker as a process sees it: start, health, drain. It takes commands, and the reference data they are judged by.

Start: read the reference data, and only when they are loaded the commands (while Kafka is away: wait). Drain: stop
taking, finish the batches in flight, commit, acknowledge, leave the groups, close.

Where the breaker trips (`apply.breaker`), the worker leaves the group of the commands, so that workers of another
release get its partitions within a second, and joins again after a pause to try. Reference data it goes on reading: a
right that was revoked is revoked for the edge as well.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Final

from org_service.apply.applier import Applier
from org_service.apply.authenticator import Authenticator
from org_service.apply.breaker import Breaker
from org_service.apply.reference import ReferenceApplier
from org_service.apply.replies import Replies, explain_missing_write
from org_service.domain.fold import Decider
from org_service.errors import RetryError, SystemicError
from org_service.kafka.client import KafkaError
from org_service.kafka.connection import judge_outage
from org_service.kafka.transactions import TransactionWatch
from org_service.settings import Settings
from org_service.store.database import Database
from org_service.telemetry.logs import get_logger
from org_service.waiting import Heartbeat, Patience, Trouble
from org_service.worker.commands import CommandSubscriber
from org_service.worker.first_load import wait_until_loaded
from org_service.worker.reference import ReferenceSubscriber

log = get_logger(__name__)

_RESTING: Final = "commands are left to other workers"


class Worker:
    """One worker process. `run` once; the rest may be asked at any time from the same loop."""

    def __init__(self, settings: Settings, *, decider: Decider | None = None) -> None:
        """Make one; nothing is connected yet.

        Args:
            settings: All of them.
            decider: Decides each command, in place of `domain.decide`.
        """
        self._settings = settings
        self._decider = decider
        worker = settings.worker
        self._starting = Heartbeat()
        self._commands_alive, self._reference_alive = Heartbeat(), Heartbeat()
        """Of each feed: a poll, or a try of the batch in flight, whichever came last."""
        self.heartbeats: Collection[Heartbeat] = (self._starting,)
        """Those of the loops that run now."""
        self._database = Database(settings.database, "worker")
        self._authenticator = Authenticator(settings.auth)
        self._replies = Replies(settings.kafka, worker.retry_waits_s, self._commands_alive)
        self._breaker = Breaker(worker)
        self._applier = self._make_applier()
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
            self._subscriber, reference = joined
            self.heartbeats = (self._commands_alive, self._reference_alive)
            watching = asyncio.create_task(self._transactions.run())
            await self._take(stop, reference)
            watching.cancel()
            log.info("draining: finishing the batches in flight")
            await self._drain(reference)
            await asyncio.gather(watching, return_exceptions=True)
        finally:
            await self._authenticator.close()
            await self._replies.stop()
            await self._database.close()
            await self._reference_database.close()

    async def _drain(self, reference: ReferenceSubscriber) -> None:
        """Finish the batches in flight and leave the groups; raises the defect that ended the work, if one did."""
        subscribers = [reference] if self._subscriber is None else [self._subscriber, reference]
        await asyncio.gather(*(each.stop() for each in subscribers))
        for each in subscribers:
            if each.failed.done() and not isinstance(each.failed.exception(), SystemicError):
                each.failed.result()

    async def _take(self, stop: asyncio.Event, reference: ReferenceSubscriber) -> None:
        """Take commands until `stop` is set or a defect ends the work; with pauses while the breaker is open."""
        resting = Patience(
            _RESTING,
            self._settings.worker.breaker_waits_s,
            log=log,
            judge=_judge,
            heartbeat=self._commands_alive,
            stop=stop,
        )
        async for attempt in resting:
            with attempt:
                try:
                    await self._take_until_tripped(stop, reference)
                except SystemicError:
                    if self._breaker.trips == 1:  # it was closed before: the pauses begin again
                        attempt.succeed()
                    raise

    async def _take_until_tripped(self, stop: asyncio.Event, reference: ReferenceSubscriber) -> None:
        """Take commands until `stop` is set or a defect ends the work.

        Raises:
            SystemicError: The breaker tripped. Nothing is taken, and the partitions are given back.
            KafkaError: Kafka is away; nothing is taken either.
        """
        if reference.failed.done():
            return
        subscriber = self._subscriber or await self._rejoin()
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait((stopping, subscriber.failed, reference.failed), return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if stop.is_set() or reference.failed.done():
            return
        error = subscriber.failed.exception()
        if isinstance(error, SystemicError):
            # guarantee 10: whoever has a better build gets the partitions, with everything that is not decided.
            self._subscriber = None
            await subscriber.stop()
            raise error

    async def _rejoin(self) -> CommandSubscriber:
        """Take commands again, with nothing kept of those that were given back."""
        self._applier = self._make_applier()
        subscriber = CommandSubscriber(self._settings, self._applier, self._commands_alive)
        try:
            await subscriber.start()
        except (KafkaError, OSError):
            await subscriber.stop()
            raise
        self._subscriber = subscriber
        return subscriber

    def _make_applier(self) -> Applier:
        worker = self._settings.worker
        return Applier(
            self._database,
            self._authenticator,
            self._replies,
            worker,
            heartbeat=self._commands_alive,
            breaker=self._breaker if worker.breaker else None,
            decider=self._decider,
        )

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
            self._lacking = explain_missing_write(results)
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
            "breaker": self._check_breaker,
            "parked": self._applier.check_parked,
            **self._authenticator.checks(),
        }

    async def _check_kafka(self) -> str:
        subscriber = self._subscriber or (None if self._breaker.tripped is None else self._reference)
        if subscriber is None:
            raise RetryError("not connected yet")
        await subscriber.ping()
        return "answers"

    async def _check_breaker(self) -> str:
        if self._breaker.tripped is not None:
            state = _RESTING if self._subscriber is None else "commands are tried again"
            raise RetryError(f"{state}: {self._breaker.tripped}")
        return "closed" if self._settings.worker.breaker else "switched off"

    async def _check_consumer(self) -> str:
        subscriber = self._subscriber
        if self._lacking is not None:
            raise RetryError(self._lacking)
        if self._loading:
            raise RetryError("commands wait until the reference data are loaded")
        if subscriber is None and self._breaker.tripped is not None:
            raise RetryError(_RESTING)
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
            raise RetryError("not connected yet" if self._breaker.tripped is None else _RESTING)
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
    if isinstance(error, (RetryError, SystemicError)):
        return Trouble(str(error))
    return judge_outage(error)
