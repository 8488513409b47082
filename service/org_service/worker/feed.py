"""All that we do to FastStream, and stand on of it (decision 0034): a consumer group whose batches come to a handler.

FastStream makes the consumer, joins the group, runs the loop that polls, starts it again when it fails, and stops it in
order. What it would do otherwise than we need:

- its parser decodes every header as UTF-8, and loses the whole batch where one is not: ours hands the records over as
  they are, and the handler reads them one by one;
- its consumer is aiokafka's own, whose poll loses what other partitions gave when one can't be read: its builder makes
  a `SteadyConsumer`;
- its loop is silent when it hangs or starts again: each poll of that consumer goes through a function of ours.

Nothing of it is replaced on an instance but the builder, which is a field of its configuration.
"""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple, cast

from faststream import AckPolicy
from faststream.kafka import KafkaBroker
from faststream.kafka.message import KafkaAckableMessage
from faststream.security import BaseSecurity, SASLPlaintext, SASLScram256, SASLScram512

from org_events.kafka.consumer import SteadyConsumer
from org_service.kafka.client import AIOKafkaConsumer, ConsumerRebalanceListener, ConsumerRecord, TopicPartition
from org_service.settings import KafkaSettings, Settings
from org_service.telemetry.logs import get_logger
from org_service.telemetry.metrics import show_partition

log = get_logger(__name__)

Records = tuple[ConsumerRecord[bytes, bytes], ...]
Batches = dict[TopicPartition, list[Any]]
"""What one poll gives, by partition."""
Poll = Callable[[Callable[[], Awaitable[Batches]]], Awaitable[Batches]]
"""Given the consumer's own poll; decides whether and when it is made, and what becomes of its records."""


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


class WatchedConsumer(SteadyConsumer):
    """A consumer each of whose polls goes through a function."""

    def __init__(self, *topics: str, poll: Poll, **options: Any) -> None:
        """Make one.

        Args:
            topics: As for `SteadyConsumer`.
            poll: Makes each poll.
            options: As for `SteadyConsumer`.
        """
        super().__init__(*topics, **options)
        self._poll = poll

    async def getmany(self, *partitions: TopicPartition, **options: Any) -> Batches:
        """As `SteadyConsumer.getmany`, as far as the function lets it."""
        return await self._poll(
            partial(cast("Callable[..., Awaitable[Batches]]", super().getmany), *partitions, **options)
        )


class ConsumerGroup:
    """A member of a consumer group, run by FastStream: joins at `start`, leaves at `stop`."""

    def __init__(
        self,
        settings: Settings,
        feed: Feed,
        *,
        poll: Poll,
        handle: Callable[[Records], Awaitable[None]],
        lose: Callable[[], None],
    ) -> None:
        """Declare the subscription; nothing is connected yet.

        Args:
            settings: Where, and the bounds of a batch.
            feed: What is subscribed to.
            poll: Makes each poll.
            handle: Takes on a batch; the next one comes when it returns. One that it raises on is skipped.
            lose: Told when the group gave partitions out again, or a partition has no record at its offset.
        """
        worker = settings.worker
        self._poll = poll
        self._lose = lose
        self._assignment = _Assignment(feed.group_id, lose)
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
        self._subscriber(handle)

    @property
    def assigned(self) -> int | None:
        """Assigned partitions; None before the group gave an answer (it may give none at all)."""
        return self._assignment.partitions

    @property
    def consumer(self) -> SteadyConsumer | None:
        """The client; None before the start."""
        return cast("SteadyConsumer | None", self._subscriber.consumer)

    async def start(self) -> None:
        """Join the group and begin to poll.

        Raises:
            KafkaError: Kafka can't be reached; nothing was started.
        """
        await self._broker.connect()
        config = self._broker.config.broker_config
        config.builder = partial(
            WatchedConsumer,
            poll=self._poll,
            on_sick=show_partition,
            on_offset_lost=self._lose,
            **cast("partial[Any]", config.builder).keywords,
        )
        await self._broker.start()

    async def stop(self) -> None:
        """Leave the group and close."""
        await self._broker.stop()

    async def _parse(self, records: Records) -> KafkaAckableMessage:
        """Wrap the records as they are; nothing in them is looked at, so nothing in them can fail."""
        return KafkaAckableMessage(body=b"", raw_message=records, consumer=cast("AIOKafkaConsumer", self.consumer))

    async def _decode(self, message: KafkaAckableMessage) -> Records:
        """The records themselves: the handler reads them one by one, so that one bad record is only one.

        Not the message: it keeps what its decoder gives, and a batch that holds itself waits for the collector.
        """
        return cast("Records", message.raw_message)


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
