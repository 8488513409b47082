"""Records on their way out: one idempotent producer at a time, replaced after any failure.

An idempotent producer of aiokafka numbers the batches of a partition and never gives one up by itself. Once a batch
has failed all the same, the numbers of the later ones no longer fit, and every later send to that partition fails or
hangs. A new producer begins a new numbering, so it costs one round trip and fixes all of that. What the old one still
holds is settled first, so that records of one key can't overtake each other.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final, cast

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError, KafkaTimeoutError
from aiokafka.structs import RecordMetadata

from org_events.cloudevents import Headers
from org_events.publishing.errors import NotConnected

_log = logging.getLogger(__name__)

STOP_TIMEOUT_S: Final = 5.0
"""How long a producer may take to get its last batches acknowledged; with Kafka away it would wait forever."""
REPLACE_TIMEOUT_S: Final = 10.0
"""How long a new producer may take to connect, before those who wait for it are told that Kafka is unavailable."""


class Publisher:
    """Appends records to one topic, in the order of the calls.

    Args:
        topic: Where to.
        make_producer: Makes one that is not started, idempotent, with `acks="all"`.
    """

    def __init__(self, topic: str, make_producer: Callable[[], AIOKafkaProducer]) -> None:
        self._topic = topic
        self._make_producer = make_producer
        self._producer: AIOKafkaProducer | None = None
        self._failed = False
        self._stopped = False
        self._replacement: asyncio.Task[AIOKafkaProducer] | None = None

    async def start(self) -> None:
        """Connect.

        Raises:
            KafkaError: No connection; nothing is left open, and it may be tried again.
        """
        self._stopped = False
        self._producer = await self._start_producer()

    async def partitions(self, topic: str) -> set[int]:
        """The partitions of a topic that exists."""
        return await (await self._healthy()).partitions_for(topic)

    def find_leaderless(self, topic: str) -> list[int]:
        """The partitions of a topic that no broker leads, as brokers said last; `can_reach_broker` asks them."""
        if self._producer is None:
            return []
        cluster = self._producer.client.cluster
        return [
            each
            for each in cluster.partitions_for_topic(topic) or ()
            if cluster.leader_for_partition(TopicPartition(topic, each)) in (None, -1)
        ]

    async def can_reach_broker(self) -> bool:
        """Whether one answers."""
        try:
            return await (await self._healthy()).client.force_metadata_update()
        except KafkaError:
            return False

    async def append(self, key: bytes, value: bytes, headers: Headers) -> asyncio.Future[RecordMetadata]:
        """Hand a record over; calls that are awaited one after the other keep their order for each key.

        Returns:
            Done once the record is durable on all in-sync replicas. When it fails, the record may or may not have
            been written, and the next call takes a new producer.

        Raises:
            KafkaError: The record was not handed over (the buffer stayed full, or there is no connection).
            NotConnected: Stopped.
        """
        producer = await self._healthy()
        try:
            future = cast(
                "asyncio.Future[RecordMetadata]", await producer.send(self._topic, value, key, headers=headers)
            )
        except KafkaTimeoutError:
            raise  # the buffer is full, and will be sent when Kafka is back
        except KafkaError:
            self._note_failure(producer)
            raise

        def check(done: asyncio.Future[RecordMetadata]) -> None:
            if not done.cancelled() and done.exception() is not None:
                self._note_failure(producer)

        future.add_done_callback(check)
        return future

    async def stop(self) -> None:
        """Wait for what is on its way, at most `STOP_TIMEOUT_S`, and disconnect. May be called again."""
        self._stopped = True
        if self._replacement is not None:
            await asyncio.wait({self._replacement})
        producer, self._producer = self._producer, None
        if producer is not None:
            await stop_producer(producer)

    def _note_failure(self, producer: AIOKafkaProducer) -> None:
        if producer is self._producer:
            self._failed = True

    async def _healthy(self) -> AIOKafkaProducer:
        if self._producer is not None and not self._failed:
            return self._producer
        if self._stopped:
            raise NotConnected("The client was stopped.")
        if self._replacement is None or self._replacement.done():
            self._replacement = asyncio.create_task(self._replace(), name="org-events new producer")
        # A caller's time may run out before the new producer is there; it is for the next one then.
        return await asyncio.shield(self._replacement)

    async def _replace(self) -> AIOKafkaProducer:
        old, self._producer = self._producer, None
        if old is not None:
            _log.warning("a send failed; continuing with a new producer")
            await stop_producer(old)
        if self._stopped:
            raise NotConnected("The client was stopped.")
        try:
            async with asyncio.timeout(REPLACE_TIMEOUT_S):
                self._producer = await self._start_producer()
        except TimeoutError as error:
            raise KafkaTimeoutError("no connection for a new producer") from error
        return self._producer

    async def _start_producer(self) -> AIOKafkaProducer:
        producer = self._make_producer()
        try:
            await producer.start()
        except BaseException:
            await stop_producer(producer)
            raise
        self._failed = False
        return producer


async def stop_producer(producer: AIOKafkaProducer) -> None:
    """Stop a producer, whatever became of it; what isn't acknowledged in `STOP_TIMEOUT_S` fails with a time-out."""
    stopping = asyncio.ensure_future(producer.stop())
    await asyncio.wait({stopping}, timeout=STOP_TIMEOUT_S)
    if not stopping.done():
        await _abandon(producer)
    try:
        await stopping
    except Exception as error:  # noqa: BLE001 - a broken producer may fail to stop in any way, and is done with
        _log.debug("stopping a producer failed: %r", error)
        await producer.client.close()


async def _abandon(producer: AIOKafkaProducer) -> None:
    """Let `stop()` come to an end: it waits for every batch, and an idempotent producer gives none up.

    aiokafka has no public way. Its sender then fails to put a batch back that is settled by now, which its callback
    can't cope with outside a transaction; nobody is left to be told, so the callback goes. A request that timed out
    waits for metadata before it is sent again, and a client that was closed requests none: so it is closed here.
    """
    inner = cast("Any", producer)
    if inner._sender.sender_task is not None:
        inner._sender.sender_task.remove_done_callback(inner._sender._fail_all)
    inner._message_accumulator.fail_all(KafkaTimeoutError("the producer was stopped"))
    await producer.client.close()
    metadata = inner.client._md_update_fut
    if metadata is not None and not metadata.done():
        metadata.set_result(False)
