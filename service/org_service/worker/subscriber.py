"""Batches of records from Kafka into an applier, through FastStream: those of `orgs.commands`, if not told otherwise.

FastStream's own parser decodes every header as UTF-8 and loses the whole batch where one is not, so ours hands the
records over as they are. A batch is acknowledged after its commit, by the offsets of its own records, and after the
batches before it. Two batches are in flight at most: while the first is written, the second is fetched and read.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Final, Literal, NamedTuple, Protocol, cast

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, ConsumerRecord, TopicPartition
from aiokafka.errors import ConsumerStoppedError, IllegalStateError, KafkaConnectionError, KafkaError
from faststream import AckPolicy
from faststream.kafka import KafkaBroker
from faststream.kafka.message import KafkaAckableMessage
from faststream.security import BaseSecurity, SASLPlaintext, SASLScram256, SASLScram512

from org_events.kafka.consumer import SteadyConsumer
from org_service.domain.requests import Record
from org_service.kafka.topic_ids import may_write
from org_service.settings import KafkaSettings, Settings
from org_service.telemetry.logs import get_logger
from org_service.telemetry.metrics import CONSUMER_RESTARTS, show_partition

log = get_logger(__name__)

_RESTART_PAUSE_S: Final = 1.0
_DRAINING_PAUSE_S: Final = 0.05
"""Between polls whose records are released; they are not acknowledged, so the next worker finds them."""
_LEAVE_S: Final = 2.0
"""Of the drain time, for leaving the group: a successor waits for whoever vanishes without a word."""
_Records = tuple[ConsumerRecord[bytes, bytes], ...]


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


class Feed(NamedTuple):
    """What is subscribed to, and how."""

    topics: Sequence[str]
    group_id: str
    batch_timeout_ms: int
    fetch_wait_ms: int
    metadata_max_age_ms: int = 300_000
    """How long a topic that was created again may go unnoticed."""
    offset_reset: Literal["earliest", "none"] = "earliest"
    """Where to begin without a committed offset, or at one that does not exist; `none` asks `_prepare` again."""


class Subscriber:
    """The worker's end of Kafka: a member of the consumer group, two batches in flight at most."""

    def __init__(self, settings: Settings, applier: Applies, feed: Feed | None = None) -> None:
        """Declare the subscription, to `orgs.commands` if no `feed` is given; nothing is connected yet."""
        worker = settings.worker
        feed = feed or Feed(
            [settings.kafka.topics.commands], worker.group_id, worker.batch_timeout_ms, worker.fetch_wait_ms
        )
        self._applier = applier
        self.polled = time.monotonic()
        """When the loop last asked Kafka for records."""
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Has the error that ended the work on a batch; nothing is acknowledged from there on."""
        self._drain_timeout_s = settings.drain_timeout_s
        self._commit_timeout_s = settings.kafka.request_timeout_ms / 1000
        self._draining = False
        self._last: asyncio.Task[None] | None = None
        """The last batch taken on; it ends after the one before it."""
        self._in_hand: set[asyncio.Task[None]] = set()
        self._assignment = _Assignment(feed.group_id, self._assigned)
        self._broker = KafkaBroker(
            settings.kafka.bootstrap_servers.split(","),  # FastStream takes a string for one server
            security=_security(settings.kafka),
            request_timeout_ms=settings.kafka.request_timeout_ms,
            consumer_only=True,
            allow_auto_create_topics=False,
            metadata_max_age_ms=feed.metadata_max_age_ms,
            graceful_timeout=settings.drain_timeout_s,
            apply_types=False,
            logger=None,
        )
        self._subscriber = self._broker.subscriber(
            *feed.topics,
            batch=True,
            group_id=f"{settings.kafka.topic_prefix}{feed.group_id}",
            ack_policy=AckPolicy.MANUAL,
            auto_offset_reset=feed.offset_reset,
            isolation_level="read_committed",
            max_records=worker.batch_records_max,
            batch_timeout_ms=feed.batch_timeout_ms,
            fetch_max_wait_ms=feed.fetch_wait_ms,
            max_partition_fetch_bytes=worker.partition_fetch_bytes_max,
            session_timeout_ms=worker.session_timeout_ms,
            heartbeat_interval_ms=worker.session_timeout_ms // 3,
            max_poll_interval_ms=worker.poll_interval_max_ms,
            rebalance_timeout_ms=worker.poll_interval_max_ms,
            listener=self._assignment,
            parser=self._parse,
            decoder=self._decode,
        )
        self._subscriber(self._handle)

    @property
    def assigned(self) -> int | None:
        """Assigned partitions; None before the group gave an answer (it may give none at all)."""
        return self._assignment.partitions

    @property
    def sick(self) -> str | None:
        """The assigned partitions that can't be read, as text; None when all is well."""
        consumer = cast("SteadyConsumer | None", self._subscriber.consumer)
        if consumer is None or not consumer.sick:
            return None
        return "; ".join(f"{at.topic}, partition {at.partition}: {sick}" for at, sick in sorted(consumer.sick.items()))

    async def start(self) -> None:
        """Join the group and begin to take batches.

        Raises:
            KafkaError: Kafka can't be reached; nothing was started.
        """
        await self._broker.connect()
        # FastStream makes aiokafka's own consumer, whose poll loses what other partitions gave when one can't be read.
        config = self._broker.config.broker_config
        config.builder = partial(
            SteadyConsumer,
            on_sick=show_partition,
            on_offset_lost=self._assigned,
            **cast("partial[Any]", config.builder).keywords,
        )
        await self._broker.start()
        self._watch(self._consumer)

    async def stop(self) -> None:
        """Stop taking, finish the batches in flight, acknowledge them, leave the group.

        A batch that waits for an outage to end, or isn't finished when it is time to leave the group, is released, not
        acknowledged, and comes again.
        """
        self._draining = True
        deadline = time.monotonic() + self._drain_timeout_s - _LEAVE_S
        while self._in_hand and self._applier.outage is None and time.monotonic() < deadline:
            await asyncio.wait(self._in_hand, timeout=_DRAINING_PAUSE_S)
        for task in self._in_hand:
            task.cancel()
        await self._broker.stop()

    async def ping(self) -> None:
        """Ask a broker for its metadata.

        Raises:
            KafkaError: None answers.
        """
        consumer = self._subscriber.consumer
        if consumer is None:
            raise KafkaConnectionError("the consumer is not started")
        await consumer.topics()

    async def may_write(self, topic: str) -> bool:
        """Whether our login may write to a topic; once started.

        Raises:
            KafkaError: No broker answers.
        """
        return await may_write(self._consumer, topic)

    def _watch(self, consumer: AIOKafkaConsumer) -> None:
        """See every poll: the loop is FastStream's, and silent when it hangs or starts again."""
        getmany = cast("Callable[..., Awaitable[dict[TopicPartition, list[Any]]]]", consumer.getmany)

        async def watched(*partitions: TopicPartition, **options: Any) -> dict[TopicPartition, list[Any]]:
            self.polled = time.monotonic()
            try:
                records = await getmany(*partitions, **options) if await self._prepare() else {}
            except (KafkaError, ConsumerStoppedError):
                raise  # FastStream waits 5 s, or ends
            except Exception:
                CONSUMER_RESTARTS.inc()
                log.exception("the consume loop failed and is being restarted")
                await asyncio.sleep(_RESTART_PAUSE_S)  # FastStream starts it at once: don't spin
                raise
            if not self._draining:
                return {} if self._is_astray() else records
            await asyncio.sleep(_DRAINING_PAUSE_S)
            return {}

        consumer.getmany = watched

    def _assigned(self) -> None:
        """Hear that the group gave partitions out again, or that one has no record at its offset."""

    def _is_astray(self) -> bool:
        """Whether what was polled is released: the offsets were lost meanwhile, and `_prepare` finds them again."""
        return False

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

    async def _parse(self, records: _Records) -> KafkaAckableMessage:
        """Wrap the records as they are; nothing in them is looked at, so nothing in them can fail."""
        return KafkaAckableMessage(body=b"", raw_message=records, consumer=self._consumer)

    async def _decode(self, message: KafkaAckableMessage) -> _Records:
        """The records themselves: the handler reads them one by one, so that one bad record is only one.

        Not the message: it keeps what its decoder gives, and a batch that holds itself waits for the collector.
        """
        return cast("_Records", message.raw_message)

    async def _handle(self, records: _Records) -> None:
        """Take on a batch; returns when the one before it is through. FastStream skips a batch that raises."""
        before, self._last = self._last, asyncio.create_task(self._finish(records, self._last))
        self._in_hand.add(self._last)
        self._last.add_done_callback(self._out_of_hand)
        if before is not None:
            await asyncio.wait((before,))

    async def _finish(self, records: _Records, before: asyncio.Task[None] | None) -> None:
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

    def _out_of_hand(self, task: asyncio.Task[None]) -> None:
        self._in_hand.discard(task)
        if task.cancelled():
            # Not by us: what comes later may not go first, so nothing would be done any more.
            error = None if self._draining else RuntimeError("a batch was cancelled")
        else:
            error = task.exception()
        if error is not None:
            self.fail(error)

    @property
    def _consumer(self) -> AIOKafkaConsumer:
        consumer = self._subscriber.consumer
        assert consumer is not None
        return consumer


class _Assignment(ConsumerRebalanceListener):
    """Counts the assigned partitions."""

    def __init__(self, group: str, tell: Callable[[], None]) -> None:
        self.partitions: int | None = None
        self._group = group
        self._tell = tell

    def on_partitions_revoked(self, revoked: Sequence[TopicPartition]) -> None:
        if revoked:
            log.info("partitions revoked", group=self._group, partitions=len(revoked))

    def on_partitions_assigned(self, assigned: Sequence[TopicPartition]) -> None:
        self.partitions = len(assigned)
        self._tell()
        log.info("partitions assigned", group=self._group, partitions=len(assigned))


def _security(kafka: KafkaSettings) -> BaseSecurity:
    """`Kafka.connection()` in FastStream's words."""
    context = kafka.ssl_context()
    if not kafka.security_protocol.startswith("SASL"):
        return BaseSecurity(ssl_context=context, use_ssl=context is not None)
    mechanism = {"PLAIN": SASLPlaintext, "SCRAM-SHA-256": SASLScram256, "SCRAM-SHA-512": SASLScram512}
    return mechanism[kafka.sasl_mechanism](
        kafka.sasl_username,
        kafka.sasl_password.get_secret_value(),
        ssl_context=context,
        use_ssl=context is not None,
    )
