"""A transactional producer that retries nothing: each step is sent once, and whatever isn't a plain "yes" ends it.

Why not `AIOKafkaProducer`: it retries by itself, EndTxn too. The first EndTxn may still be on its way then (in a
socket, in the broker's queue), and a broker can't tell which transaction it was meant for: when it arrives during a
*later* transaction of the same producer, it commits half of that (first-generation protocol; Jepsen's report on
Bufstream, 2024; KIP-890). It also continues to commit when a batch was rejected, unless the caller looked at every
future, and its sender leaves futures nobody retrieves. This one has no background task, no queue, no future of its own.

The rule that makes it safe: after a time-out, a disconnect or a rejection the fate of the transaction is unknown. The
caller throws the producer away and starts a new one. Its InitProducerId raises the epoch, so that everything the
former one sent and that comes late is rejected, and finishes the former transaction one way or the other; only then is
the position read. What the broker answers to a step that it did *not* take ("not yet") is no doubt, and is tried
again: there is one such answer, ConcurrentTransactions to AddPartitionsToTxn, while the markers of the transaction
before are being written.

It stands on aiokafka's client (connections, metadata, versions, SASL) and its protocol classes. Cost: three round
trips a transaction, some 6 ms until it's visible.
"""

# The client's internals have types only in part; what comes back is checked by the tests against a real broker.
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false, reportPrivateUsage=false

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import zip_longest
from typing import Any, Final, NamedTuple, TypeVar

from aiokafka import TopicPartition
from aiokafka.client import ConnectionGroup, CoordinationType
from aiokafka.errors import (
    BrokerResponseError,
    ConcurrentTransactions,
    CoordinatorLoadInProgressError,
    CoordinatorNotAvailableError,
    InvalidProducerEpoch,
    KafkaError,
    NotCoordinatorError,
    RequestTimedOutError,
    for_code,
)
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.protocol.transaction import AddPartitionsToTxnRequest, EndTxnRequest, InitProducerIdRequest

from org_events.kafka.brokers import EnduringClient
from org_service.errors import RetryError, TopicsMissingError
from org_service.kafka.logs import Bounds, IsOurs, Logs
from org_service.kafka.record_batches import RecordBatch
from org_service.settings import KafkaSettings

Batches = Mapping[TopicPartition, Sequence[RecordBatch]]
"""By partition; where there is none, the transaction leaves only its marker."""


class Written(NamedTuple):
    """Where a partition's batches of one transaction stand."""

    first: int
    """The offset that the broker gave to the first record."""
    end: int
    """The offset after the last one. Between the two there are only ours where it is `first + records`."""
    records: int


Check = Callable[[Mapping[TopicPartition, Written]], Awaitable[Batches]]
"""Is told where a transaction's records stand, before it is committed: raises, or gives what else belongs into it."""

_ACKS_ALL: Final = -1
_COMMIT: Final = True
_SEQUENCES: Final = 2**31
"""Sequence numbers of a partition wrap to 0 here (KIP-98)."""
REQUEST_BYTES: Final = 1024 * 1024
"""A Produce request is sent when it has this much. The client copies a request six times, which is cheap only where it
stays in the processor's cache; and the broker writes the first while the next is made."""
_NOT_YET_WAIT_S: Final = 0.002
"""Between two tries of a step that the broker can't take yet. Markers are written within a few milliseconds; aiokafka
waits 20, which costs a third of the throughput."""
_NOT_YET_WAIT_MAX_S: Final = 0.1
_CLOSE_TIMEOUT_S: Final = 1.0
"""Connections close at once unless the broker has stopped reading; then they are cut."""

_NOT_YET: Final = (
    ConcurrentTransactions,
    CoordinatorLoadInProgressError,
    CoordinatorNotAvailableError,
    NotCoordinatorError,
)
_T = TypeVar("_T")


class UnknownFateError(RetryError):
    """A step was not answered with a plain yes: nothing is known about the transaction, if there was one.

    Close the producer and begin again with a new one, from the position in Kafka.

    Attributes:
        why: `timeout`, `disconnected`, `refused`, `partitions`, `lost`, `foreign`, `held` or `fenced`; the label of a
            metric.
    """

    def __init__(self, message: str, why: str) -> None:
        super().__init__(message)
        self.why = why


class FencedError(UnknownFateError):
    """Another producer has begun with our transactional id, or the broker gave this one's transaction up.

    Nothing this producer sends is taken any more. The other one is probably the new leader: don't fence it back.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message, "fenced")


@asynccontextmanager
async def unknown_fate(step: str) -> AsyncGenerator[None]:
    """Turn what the client raises in `step` into `UnknownFateError`."""
    try:
        yield
    except BrokerResponseError as error:
        if isinstance(error, InvalidProducerEpoch):
            raise FencedError(f"{step}: another producer now has our transactional id") from error
        why = "timeout" if isinstance(error, RequestTimedOutError) else "refused"
        raise UnknownFateError(f"{step}: Kafka returned {error}", why) from error
    except TimeoutError as error:
        raise UnknownFateError(f"{step}: Kafka does not respond", "timeout") from error
    except (KafkaError, OSError) as error:
        raise UnknownFateError(f"{step}: no connection to Kafka: {error}", "disconnected") from error


class _ProduceRequest:
    """The batches of one Produce request."""

    def __init__(self) -> None:
        self.size = 0
        self.topics: defaultdict[str, list[tuple[int, Any]]] = defaultdict(list)

    def add(self, at: TopicPartition, data: bytearray) -> None:
        self.size += len(data)
        self.topics[at.topic].append((at.partition, data))


class Producer:
    """One life of a transactional producer: `start`, then transactions one after the other, `close`.

    Not for concurrent use. Every error of `start`, `find_end` and `publish` is final: close it.
    """

    def __init__(self, kafka: KafkaSettings, transactional_id: str, transaction_timeout_ms: int) -> None:
        self._client = EnduringClient(**kafka.connection(), client_id=f"orgs-relay-{transactional_id}")
        self._request_timeout_ms = kafka.request_timeout_ms
        self._transactional_id = transactional_id
        self._transaction_timeout_ms = transaction_timeout_ms
        self._coordinator = -1
        self._producer_id, self._epoch = -1, -1
        self._sequences: defaultdict[TopicPartition, int] = defaultdict(int)
        self._connections: dict[TopicPartition, Any] = {}
        self.moved: set[TopicPartition] = set()
        """Partitions that the transaction wrote to over another connection than the one before it: only while there is
        none, or another broker leads, can a log lose its end."""
        self.logs = Logs(self._client)
        """Of the topics it is connected for."""

    async def start(self, topics: Collection[str]) -> dict[str, int]:
        """`connect`, then `begin`."""
        counts = await self.connect(topics)
        await self.begin()
        return counts

    async def connect(self, topics: Collection[str]) -> dict[str, int]:
        """Connect; nobody is fenced yet.

        Returns:
            The number of partitions of each of `topics`.

        Raises:
            TopicsMissingError: Some don't exist.
            UnknownFateError: Close this producer.
        """
        async with unknown_fate("connecting"):
            await self._client.bootstrap()
        async with unknown_fate("reading the topics"):
            if not await self._client.set_topics(topics):
                raise RequestTimedOutError
        counts = {topic: len(self._client.cluster.partitions_for_topic(topic) or ()) for topic in topics}
        if missing := [topic for topic, count in counts.items() if not count]:
            raise TopicsMissingError(
                f"Kafka has no topic {', '.join(sorted(missing))}; create it with `orgs topics apply`"
            )
        return counts

    async def begin(self) -> None:
        """Fence every former producer of the transactional id, and finish its transaction.

        Waits for as long as the broker says "not yet": set a time limit around it.

        Raises:
            UnknownFateError: Close this producer; a former one may have been fenced.
        """
        async with unknown_fate("InitProducerId"):
            await _once_ready(self._init_producer_id)

    async def find_end(self, at: TopicPartition) -> int:
        """The high watermark of a partition: the offset after all that is written, committed or not."""
        async with unknown_fate("ListOffsets"):
            return (await self.logs.find_ends([at]))[at]

    async def find_broken(self, ends: Mapping[TopicPartition, int], is_ours: IsOurs) -> set[TopicPartition]:
        """As `Logs.find_broken`, of what this transactional id wrote."""
        async with unknown_fate("reading the log"):
            return await self.logs.find_broken(ends, self._producer_id, is_ours)

    async def find_open(self, bounds: Mapping[TopicPartition, Bounds]) -> set[TopicPartition]:
        """In which partitions this transactional id left a transaction open, by what they hold."""
        held = {at: each for at, each in bounds.items() if each.stable < each.end}
        async with unknown_fate("reading the log"):
            return {at for at, each in held.items() if await self.logs.is_open(at, each, self._producer_id)}

    async def take_back(self, places: Collection[TopicPartition]) -> None:
        """End what is left open in partitions, as aborted; returns when that is written. Raises as `begin`."""
        async with unknown_fate("AddPartitionsToTxn"):
            await self._add_partitions(dict.fromkeys(places, ()))
        await self.begin()

    async def ping(self) -> bool:
        """Whether a broker answers; between, during and after transactions."""
        return bool(await self._client.force_metadata_update())

    async def count_partitions(self, topics: Collection[str]) -> dict[str, int]:
        """Ask how many partitions topics have now; those that nobody knows are left out. At any time, as `ping`."""
        await self._client.force_metadata_update()
        counts = {topic: len(self._client.cluster.partitions_for_topic(topic) or ()) for topic in topics}
        return {topic: count for topic, count in counts.items() if count}

    async def publish(self, batches: Batches, check: Check | None = None) -> None:
        """Publish all batches in one transaction. They can't be sent again.

        Args:
            batches: What.
            check: Asked when the brokers have it all. What it raises goes out as it is, and nothing was committed.

        Raises:
            UnknownFateError: The transaction was committed, or will be aborted; close this producer.
        """
        self.moved.clear()
        async with unknown_fate("AddPartitionsToTxn"):
            await self._add_partitions(batches)
        async with unknown_fate("Produce"):
            written = await self._write(batches)
        if check is not None and (more := await check(written)):
            async with unknown_fate("Produce"):
                await self._write(more)
        # guarantee 4: EndTxn is sent once; a late copy could commit half of a later transaction.
        async with unknown_fate("EndTxn"):
            request = EndTxnRequest(self._transactional_id, self._producer_id, self._epoch, _COMMIT)
            _check((await self._coordinate(request)).error_code)

    async def _write(self, batches: Batches) -> dict[TopicPartition, Written]:
        written: dict[TopicPartition, Written] = {}
        for turn in zip_longest(*batches.values()):
            sent = {at: batch for at, batch in zip(batches, turn, strict=True) if batch is not None}
            for at, base in (await self._produce(sent)).items():
                before, records = written.get(at), sent[at].records
                first, counted = (base, 0) if before is None else (before.first, before.records)
                written[at] = Written(first, base + records, counted + records)
        return written

    async def close(self) -> None:
        """Close the connections, at once and without a word to the broker. May be called in any state, and again."""
        writers = [connection._writer for connection in self._client._conns.values()]
        try:
            async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                await self._client.close()
        except TimeoutError:
            # What a paused broker hasn't read yet would otherwise be kept, with its connection, for TCP's own time-out.
            for writer in writers:
                if writer is not None:
                    writer.transport.abort()

    async def _init_producer_id(self) -> None:
        self._coordinator = await self._client.coordinator_lookup(CoordinationType.TRANSACTION, self._transactional_id)
        response = await self._coordinate(InitProducerIdRequest(self._transactional_id, self._transaction_timeout_ms))
        _check(response.error_code)
        self._producer_id, self._epoch = response.producer_id, response.producer_epoch
        self._sequences.clear()

    async def _add_partitions(self, batches: Batches) -> None:
        partitions: defaultdict[str, list[int]] = defaultdict(list)
        for topic, partition in batches:
            partitions[topic].append(partition)
        request = AddPartitionsToTxnRequest(
            self._transactional_id, self._producer_id, self._epoch, list(partitions.items())
        )

        async def add() -> None:
            response = await self._coordinate(request)
            for _, results in response.errors:
                for _, error in results:
                    _check(error)

        await _once_ready(add, not_yet=(ConcurrentTransactions,))

    async def _produce(self, batches: Mapping[TopicPartition, RecordBatch]) -> dict[TopicPartition, int]:
        """Send at most one batch a partition, and wait until the brokers have them all; returns their first offsets."""
        sending: list[asyncio.Task[dict[TopicPartition, int]]] = []
        requests: dict[int, _ProduceRequest] = {}
        try:
            for at, batch in batches.items():
                leader = self._leader(at)
                request = requests.setdefault(leader, _ProduceRequest())
                request.add(at, self._build(at, batch))
                if request.size >= REQUEST_BYTES:
                    sending.append(asyncio.create_task(self._send_batches(leader, requests.pop(leader))))
                    await asyncio.sleep(0)
            sending += [
                asyncio.create_task(self._send_batches(leader, request)) for leader, request in requests.items()
            ]
            return {at: base for answered in await asyncio.gather(*sending) for at, base in answered.items()}
        finally:
            for task in sending:
                task.cancel()
            await asyncio.gather(*sending, return_exceptions=True)

    def _build(self, at: TopicPartition, batch: RecordBatch) -> bytearray:
        first = self._sequences[at]
        self._sequences[at] = (first + batch.records) % _SEQUENCES
        return batch.build(self._producer_id, self._epoch, first)

    async def _send_batches(self, leader: int, request: "_ProduceRequest") -> dict[TopicPartition, int]:
        response = await self._client.send(
            leader,
            ProduceRequest(
                transactional_id=self._transactional_id,
                required_acks=_ACKS_ALL,
                timeout=self._request_timeout_ms,
                topics=list(request.topics.items()),
            ),
        )
        bases: dict[TopicPartition, int] = {}
        for topic, results in response.topics:
            for partition, error, base, *_ in results:
                _check(error, f"to {topic}, partition {partition}")
                bases[TopicPartition(topic, partition)] = base
        self._note_connection(leader, bases)
        return bases

    def _note_connection(self, leader: int, places: Collection[TopicPartition]) -> None:
        now = self._client._conns.get((leader, ConnectionGroup.DEFAULT))
        self.moved |= {at for at in places if now is None or self._connections.get(at) is not now}
        self._connections |= dict.fromkeys(places, now)

    async def _coordinate(self, request: Any) -> Any:
        return await self._client.send(self._coordinator, request, group=ConnectionGroup.COORDINATION)

    def _leader(self, at: TopicPartition) -> int:
        leader = self._client.cluster.leader_for_partition(at)
        if leader is None or leader < 0:
            raise CoordinatorNotAvailableError(f"{at.topic}, partition {at.partition} has no leader now")
        return int(leader)


def _check(error_code: int, where: str = "") -> None:
    if error_code:
        error = for_code(error_code)
        raise error(where) if where else error()


async def _once_ready(step: Callable[[], Awaitable[_T]], *, not_yet: tuple[type[BaseException], ...] = _NOT_YET) -> _T:
    """Take a step again until the broker no longer answers "not yet", which says that it did nothing."""
    wait_s = _NOT_YET_WAIT_S
    while True:
        try:
            return await step()
        except not_yet:
            await asyncio.sleep(wait_s)
            wait_s = min(_NOT_YET_WAIT_MAX_S, wait_s * 1.5)
