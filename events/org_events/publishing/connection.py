"""A client's connection to Kafka: the producer of commands and the reader of outcomes, started and stopped together."""

import asyncio
from contextlib import suppress
from ssl import SSLContext
from typing import Any, Final, TypedDict, cast
from uuid import UUID

from aiokafka import AIOKafkaProducer
from aiokafka.abc import AbstractTokenProvider
from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    InvalidTopicError,
    KafkaError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    PolicyViolationError,
    RecordListTooLargeError,
    TopicAuthorizationFailedError,
)

from org_events.kafka.brokers import make_enduring
from org_events.kafka.consumer import SteadyConsumer
from org_events.publishing.errors import KafkaRefused, KafkaUnavailable, NotConnected, OutcomeUnknown, TopicMissing
from org_events.publishing.interest import ANY, Interest, Keys, find_partition
from org_events.publishing.outcomes import Expected
from org_events.publishing.publisher import Publisher
from org_events.publishing.reader import FETCH_WAIT_MS, OutcomeReader
from org_events.topics import Topics

_RETRY_WAIT_S: Final = 0.5
TOPIC_WAIT_S: Final = 5.0
"""How long after its creation a topic may be unknown to the broker that is asked."""
_TOPIC_WAIT_MIN_S: Final = 1.0
"""Far more than a broker needs to answer, so that a short time-out doesn't take a slow one for a missing topic."""
_BATCH_BYTES: Final = 256 * 1024
"""Of one partition: some hundred commands a request, well below the broker's limit of 1 MiB."""

REFUSALS: Final = (
    ClusterAuthorizationFailedError,
    InvalidTopicError,
    MessageSizeTooLargeError,
    PolicyViolationError,
    RecordListTooLargeError,
    TopicAuthorizationFailedError,
)
"""What Kafka answers when it has not done something and never will."""


class ConnectionOptions(TypedDict, total=False):
    """Those options of aiokafka's clients that tell how to reach a broker; aiokafka's documentation describes them."""

    client_id: str
    security_protocol: str
    ssl_context: SSLContext | None
    sasl_mechanism: str
    sasl_plain_username: str | None
    sasl_plain_password: str | None
    sasl_oauth_token_provider: AbstractTokenProvider | None
    request_timeout_ms: int
    metadata_max_age_ms: int
    connections_max_idle_ms: int


class Connection:
    """Producer and reader of one client."""

    def __init__(self, bootstrap_servers: str, topics: Topics, options: ConnectionOptions) -> None:
        self._bootstrap_servers = bootstrap_servers
        self._topics = topics
        self._options: dict[str, Any] = {"request_timeout_ms": 20_000, **options}
        self.expected = Expected()
        """The outcomes somebody waits for."""
        self._publisher: Publisher | None = None
        self._reader: OutcomeReader | None = None
        self._stopping: asyncio.Task[None] | None = None

    @property
    def is_usable(self) -> bool:
        """Whether `publisher` gives one."""
        return self._publisher is not None and self._reader is not None and self._reader.is_reading

    @property
    def unread(self) -> str | None:
        """The partitions of the results that can't be read, as text; None when all is well.

        Those in which nothing is wanted are not read: of them only is known that they have no leader, by what brokers
        said last (`ping` asks them).
        """
        if self._reader is None or self._publisher is None:
            return None
        topic = self._topics.results
        leaderless = dict.fromkeys(self._publisher.find_leaderless(topic), "no broker leads it")
        unread = leaderless | self._reader.unread
        return "; ".join(f"{topic}, partition {each}: {unread[each]}" for each in sorted(unread)) or None

    def publisher(self) -> Publisher:
        """Sends commands; given only while their outcomes can be read.

        Raises:
            NotConnected: Not started, stopped, or the reader of outcomes has died.
        """
        if self._publisher is None or self._reader is None:
            raise NotConnected("The client is not started: use `async with OrganizationClient(…)`, or await start().")
        if not self._reader.is_reading:
            raise NotConnected("The reader of outcomes has ended, see the log; start a new client.")
        return self._publisher

    async def expect(self, command_id: UUID, request: int, keys: Keys, deadline: float) -> asyncio.Future[bytes]:
        """The JSON of the result of a command that is to be sent next: from here on it can't be missed.

        Args:
            command_id: Of the command.
            request: As for `Expected.wait_turn`.
            keys: Of its result.
            deadline: By the loop's clock.

        Raises:
            KafkaUnavailable, KafkaRefused: The ends of the results can't be read, or the id belongs to another command
                that is undecided; nothing was sent.
            NotConnected: The client was stopped.
        """
        self.publisher()
        assert self._reader is not None
        if self._reader.reads(keys) and not self.expected.must_wait(command_id, request):
            return self.expected.expect(command_id, request, keys=keys)  # as nearly always, for a few microseconds
        who = object()
        self.expected.interest.hold(who, keys)
        try:
            await self._watch(who, deadline)
            others = await self.expected.wait_turn(command_id, request, deadline)
            return self.expected.expect(command_id, request, others, keys)
        except TimeoutError as error:
            raise KafkaUnavailable(f"{command_id} was not sent: its id belongs to another command") from error
        finally:
            self.expected.interest.release(who)

    async def claim(self, command_id: UUID, deadline: float) -> asyncio.Future[bytes]:
        """The JSON of the result of a command that is expected, or that may come from now on.

        Raises:
            OutcomeUnknown: The results can't be read.
            KafkaRefused, NotConnected: As `expect`.
        """
        self.publisher()
        if self.expected.knows(command_id):
            return self.expected.claim(command_id)
        who = object()
        self.expected.interest.hold(who, ANY)
        try:
            await self._watch(who, deadline)
            return self.expected.claim(command_id)
        except KafkaUnavailable as error:
            raise OutcomeUnknown("the results cannot be read", command_id) from error
        finally:
            self.expected.interest.release(who)

    async def _watch(self, who: object, deadline: float) -> None:
        """Return when what `who` is interested in is read, and will be for as long as `who` is."""
        assert self._reader is not None
        try:
            async with asyncio.timeout_at(deadline):
                await self._reader.watch(who)
        except REFUSALS as error:
            raise KafkaRefused(f"Kafka denies access to the results: {error!r}; nothing was sent") from error
        except (KafkaError, TimeoutError) as error:
            raise KafkaUnavailable("Kafka is unavailable: its results cannot be read; nothing was sent") from error

    async def start(self, timeout_s: float) -> None:
        """Connect; tries again until the time is up.

        Raises:
            KafkaUnavailable, TopicMissing, KafkaRefused: Nothing is left open.
        """
        if self._publisher is not None:
            raise NotConnected("The client is already started.")
        failure: KafkaError | None = None
        # A missing topic is reported before the time is up, but never because a broker was slow.
        topic_wait_s = min(TOPIC_WAIT_S, max(_TOPIC_WAIT_MIN_S, timeout_s / 2))
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    try:
                        return await self._connect(topic_wait_s)
                    except REFUSALS as error:
                        raise KafkaRefused(f"Kafka denies access to this user: {error!r}") from error
                    except KafkaError as error:
                        failure = error
                    await asyncio.sleep(_RETRY_WAIT_S)
        except TimeoutError as error:
            raise KafkaUnavailable(
                f"No connection to Kafka at {self._bootstrap_servers} within {timeout_s:g} s; nothing was sent. "
                f"It is unreachable, or rejects the credentials ({failure or 'no answer'!r})"
            ) from error

    async def stop(self) -> None:
        """Disconnect; that comes to its end though the caller may be cancelled. May be called again."""
        publisher, self._publisher = self._publisher, None
        reader, self._reader = self._reader, None
        if publisher is not None and reader is not None:
            self._stopping = asyncio.create_task(_disconnect(publisher, reader), name="org-events stop")
        if self._stopping is not None:
            await asyncio.shield(self._stopping)

    async def _connect(self, topic_wait_s: float) -> None:
        publisher = Publisher(self._topics.commands, self._make_producer)
        reader = OutcomeReader(self._topics.results, self._make_consumer(), self.expected)
        try:
            await publisher.start()
            commands = await _partitions(publisher, self._topics.commands, topic_wait_s)
            results = await _partitions(publisher, self._topics.results, topic_wait_s)
            self.expected.interest = Interest()
            self.expected.interest.learn(min(len(commands), len(results)))  # they differ while the topics grow
            await reader.start(results)
        except BaseException:
            await _disconnect(publisher, reader)
            raise
        self._publisher, self._reader = publisher, reader

    def _make_producer(self) -> AIOKafkaProducer:
        return make_enduring(
            AIOKafkaProducer(
                bootstrap_servers=self._bootstrap_servers,
                enable_idempotence=True,
                acks="all",
                max_batch_size=_BATCH_BYTES,
                partitioner=cast("Any", _choose_partition),  # typed as the class of the default one
                **self._options,
            )
        )

    def _make_consumer(self) -> SteadyConsumer:
        return SteadyConsumer(
            bootstrap_servers=self._bootstrap_servers,
            group_id=None,
            enable_auto_commit=False,
            isolation_level="read_committed",
            fetch_max_wait_ms=FETCH_WAIT_MS,
            offsets_apart=True,
            **self._options,
        )


def _choose_partition(key: bytes, partitions: list[int], _: list[int]) -> int:
    """As Kafka's default partitioner; where this key's result will be was asked a moment ago, so it costs nothing."""
    return partitions[find_partition(key, len(partitions))]


async def _disconnect(publisher: Publisher, reader: OutcomeReader) -> None:
    await publisher.stop()
    await reader.stop()


async def _partitions(publisher: Publisher, topic: str, wait_s: float) -> set[int]:
    for each_s in (wait_s, 0):
        with suppress(TimeoutError):
            async with asyncio.timeout(each_s):
                return await publisher.partitions(topic)
        # Only a broker that answers can say that a topic is missing; the one that was asked first may be dead.
        if not await publisher.can_reach_broker():
            raise KafkaTimeoutError(f"no broker says whether {topic} exists")
    raise TopicMissing(topic)
