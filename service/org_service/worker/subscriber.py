"""Batches of records from Kafka into an applier: those of `orgs.commands`, if not told otherwise.

A batch is acknowledged after its commit, by the offsets of its own records, and after the batches before it. Two
batches are in flight at most: while the first is written, the second is fetched and read.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol

from org_events.kafka.consumer import SteadyConsumer, is_asked_to_end
from org_events.kafka.topic_ids import may_write
from org_service import probes
from org_service.domain.requests import Record
from org_service.kafka.client import (
    ConsumerStoppedError,
    IllegalStateError,
    KafkaConnectionError,
    KafkaError,
    TopicPartition,
)
from org_service.probes import probe
from org_service.settings import Settings
from org_service.telemetry.logs import get_logger
from org_service.telemetry.metrics import CONSUMER_RESTARTS
from org_service.waiting import Heartbeat
from org_service.worker.feed import Batches, ConsumerGroup, Feed, Records

log = get_logger(__name__)

RESTART_PAUSE_S: Final = 1.0
_DRAINING_PAUSE_S: Final = 0.05
"""Between polls whose records are released; they are not acknowledged, so the next worker finds them."""
_LEAVE_S: Final = 2.0
"""Of the drain time, for leaving the group: a successor waits for whoever vanishes without a word."""


class Applies(Protocol):
    """What batches are for."""

    @property
    def outage(self) -> str | None:
        """What a batch in flight waits for; None when all is well."""
        ...

    async def apply(self, records: Sequence[Record]) -> Sequence[Record]:
        """Apply a batch; may be given the next one before this one is through.

        Returns:
            What may be acknowledged, in order; the rest comes again.
        """
        ...


class Subscriber:
    """The worker's end of Kafka: a member of the consumer group, two batches in flight at most."""

    def __init__(
        self,
        settings: Settings,
        applier: Applies,
        feed: Feed | None = None,
        heartbeat: Heartbeat | None = None,
        *,
        make_group: Callable[..., ConsumerGroup] = ConsumerGroup,
    ) -> None:
        """Declare the subscription, to `orgs.commands` if no `feed` is given; nothing is connected yet."""
        worker = settings.worker
        feed = feed or Feed(
            [settings.kafka.topics.commands], worker.group_id, worker.batch_timeout_ms, worker.fetch_wait_ms
        )
        self._applier = applier
        self.heartbeat = heartbeat or Heartbeat()
        """Beats whenever the loop asks Kafka for records."""
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Has the error that ended the work on a batch; nothing is acknowledged from there on."""
        self._drain_timeout_s = settings.drain_timeout_s
        self._commit_timeout_s = settings.kafka.request_timeout_ms / 1000
        self._draining = False
        self._last: asyncio.Task[None] | None = None
        """The last batch taken on; it ends after the one before it."""
        self._in_flight: set[asyncio.Task[None]] = set()
        self._group = make_group(settings, feed, poll=self.poll, handle=self._handle, lose=self._assigned)

    @property
    def assigned(self) -> int | None:
        """Assigned partitions; None before the group gave an answer (it may give none at all)."""
        return self._group.assigned

    @property
    def sick(self) -> str | None:
        """The assigned partitions that can't be read, as text; None when all is well."""
        consumer = self._group.consumer
        if consumer is None or not consumer.sick:
            return None
        return "; ".join(f"{at.topic}, partition {at.partition}: {sick}" for at, sick in sorted(consumer.sick.items()))

    async def start(self) -> None:
        """Join the group and begin to take batches.

        Raises:
            KafkaError: Kafka can't be reached; nothing was started.
        """
        self.heartbeat.beat()
        await self._group.start()

    async def stop(self) -> None:
        """Stop taking, finish the batches in flight, acknowledge them, leave the group.

        A batch that waits for an outage to end, or isn't finished when it is time to leave the group, is released, not
        acknowledged, and comes again.
        """
        self._draining = True
        deadline = time.monotonic() + self._drain_timeout_s - _LEAVE_S
        while self._in_flight and self._applier.outage is None and time.monotonic() < deadline:
            await asyncio.wait(self._in_flight, timeout=_DRAINING_PAUSE_S)
        for task in self._in_flight:
            task.cancel()
        await self._group.stop()

    async def ping(self) -> None:
        """Ask a broker for its metadata.

        Raises:
            KafkaError: None answers.
        """
        consumer = self._group.consumer
        if consumer is None:
            raise KafkaConnectionError("the consumer is not started")
        await consumer.topics()

    async def may_write(self, topic: str) -> bool:
        """Whether our login may write to a topic; once started.

        Raises:
            KafkaError: No broker answers.
        """
        return await may_write(self._consumer, topic)

    async def poll(self, fetch: Callable[[], Awaitable[Batches]]) -> Batches:
        """Make one poll of the loop, which is FastStream's, and silent when it hangs or starts again."""
        self.heartbeat.beat()
        if probes.listeners:
            await probe("worker.before_poll", self)
        try:
            records = await self._admit(await fetch()) if await self._prepare() else {}
        except (KafkaError, ConsumerStoppedError):
            raise  # FastStream waits 5 s, or ends
        except asyncio.CancelledError as error:
            if is_asked_to_end():
                raise
            # The client lets cancellations of its own tasks out. FastStream would end the loop, and say nothing.
            await self._note_restart()
            raise RuntimeError("a poll was cancelled") from error
        except Exception:
            await self._note_restart()
            raise
        if not self._draining:
            return {} if self._is_astray() else records
        await asyncio.sleep(_DRAINING_PAUSE_S)
        return {}

    async def _note_restart(self) -> None:
        CONSUMER_RESTARTS.inc()
        log.exception("the consume loop failed and is being restarted")
        await asyncio.sleep(RESTART_PAUSE_S)  # FastStream starts it at once: don't spin

    def _assigned(self) -> None:
        """Hear that the group gave partitions out again, or that one has no record at its offset."""

    def _is_astray(self) -> bool:
        """Whether what was polled is released: the offsets were lost meanwhile, and `_prepare` finds them again."""
        return False

    async def _admit(self, records: Batches) -> Batches:
        """What of a poll goes to the applier; whatever doesn't has been put back."""
        return records

    def _commit_of(self, record: Record) -> int | tuple[int, str]:
        """What to commit behind a record: an offset, and metadata where there are any."""
        return record.offset + 1

    def fail(self, error: BaseException) -> None:
        """End the work with an error."""
        if not self.failed.done():
            self.failed.set_exception(error)

    async def _prepare(self) -> bool:
        """Do what must be done before a poll, and say whether to poll; no record is on its way to the applier now."""
        return True

    async def _handle(self, records: Records) -> None:
        """Take on a batch; returns when the one before it is through. FastStream skips a batch that raises."""
        before, self._last = self._last, asyncio.create_task(self._finish(records, self._last))
        self._in_flight.add(self._last)
        self._last.add_done_callback(self._forget_task)
        if before is not None:
            await asyncio.wait((before,))

    async def _finish(self, records: Records, before: asyncio.Task[None] | None) -> None:
        if probes.listeners:
            await probe("worker.before_apply", records)
        applied = await self._applier.apply(records)
        if before is not None:
            await before
        last = {TopicPartition(record.topic, record.partition): record for record in applied}
        consumer = self._consumer
        ours = {at: self._commit_of(record) for at, record in last.items() if at in consumer.assignment()}
        if not ours:  # all of them moved on while the batch was written; aiokafka takes no empty commit
            return
        try:
            async with asyncio.timeout(self._commit_timeout_s):  # the client would wait forever
                await consumer.commit(ours)
        except (KafkaError, IllegalStateError, TimeoutError) as error:
            # The partitions moved on, or Kafka is away: the records come again and the journal knows them.
            log.info("offsets not committed; redelivered records will be skipped", why=type(error).__name__)

    def _forget_task(self, task: asyncio.Task[None]) -> None:
        self._in_flight.discard(task)
        if task.cancelled():
            # Not by us: what comes later may not go first, so nothing would be done any more.
            error = None if self._draining else RuntimeError("a batch was cancelled")
        else:
            error = task.exception()
        if error is not None:
            self.fail(error)

    @property
    def _consumer(self) -> SteadyConsumer:
        consumer = self._group.consumer
        assert consumer is not None
        return consumer
