"""Open transactions that hold a partition up: who reads committed records gets none from behind one, and is told
nothing. It may be a publisher that hangs, or one that was killed and set a long `transaction.timeout.ms`.

A partition is held where its last stable offset stays put while its log continues behind it. Whose transaction that is
Kafka says: DescribeProducers (KIP-664) to the partition's leader gives the producer's id, ListTransactions to every
broker the transactional id of it. aiokafka 0.14 has neither; here is version 0 of both, which any Kafka since 3.0
takes. Without the right to ask (Read on the topic, Describe on transactional ids) the partition is reported all the
same, without a name.
"""

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple, cast

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from aiokafka.protocol.api import RequestStruct
from aiokafka.protocol.types import CompactArray, CompactString, Int16, Int32, Int64, Schema, TaggedFields

from org_events.kafka.epochs import fetch_epoch_ends
from org_events.kafka.requests import BrokerAnswer, all_brokers, ask
from org_events.kafka.topic_ids import describe
from org_service.kafka.reader import groupless_consumer
from org_service.settings import KafkaSettings
from org_service.telemetry.logs import get_logger
from org_service.telemetry.metrics import PARTITIONS_HELD

log = get_logger(__name__)

LOOK_S: Final = 2.0
HELD_AFTER_S: Final = 5.0
"""A transaction takes milliseconds; one of ours that fights with a sick broker some seconds."""


class _Producers(BrokerAnswer):
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "topics",
            CompactArray(
                ("name", CompactString("utf-8")),
                (
                    "partitions",
                    CompactArray(
                        ("partition", Int32),
                        ("error_code", Int16),
                        ("error_message", CompactString("utf-8")),
                        (
                            "producers",
                            CompactArray(
                                ("producer_id", Int64),
                                ("producer_epoch", Int32),
                                ("last_sequence", Int32),
                                ("last_timestamp", Int64),
                                ("coordinator_epoch", Int32),
                                ("transaction_start", Int64),
                                ("tags", TaggedFields),
                            ),
                        ),
                        ("tags", TaggedFields),
                    ),
                ),
                ("tags", TaggedFields),
            ),
        ),
        ("tags", TaggedFields),
    )


class _AskProducers(RequestStruct):
    API_KEY = 61
    API_VERSION = 0
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = _Producers
    SCHEMA = Schema(
        (
            "topics",
            CompactArray(("name", CompactString("utf-8")), ("partitions", CompactArray(Int32)), ("tags", TaggedFields)),
        ),
        ("tags", TaggedFields),
    )


class _Transactions(BrokerAnswer):
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        ("error_code", Int16),
        ("unknown_states", CompactArray(CompactString("utf-8"))),
        (
            "transactions",
            CompactArray(
                ("transactional_id", CompactString("utf-8")),
                ("producer_id", Int64),
                ("state", CompactString("utf-8")),
                ("tags", TaggedFields),
            ),
        ),
        ("tags", TaggedFields),
    )


class _AskTransactions(RequestStruct):
    API_KEY = 66
    API_VERSION = 0
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = _Transactions
    SCHEMA = Schema(
        ("states", CompactArray(CompactString("utf-8"))),
        ("producer_ids", CompactArray(Int64)),
        ("tags", TaggedFields),
    )


class Held(NamedTuple):
    """A partition whose readers wait."""

    at: TopicPartition
    offset: int
    """The last stable one: where the open transaction begins."""
    who: str
    """Whose transaction it is, as far as Kafka tells us."""

    def __str__(self) -> str:
        return f"{self.at.topic}[{self.at.partition}] at offset {self.offset} by {self.who}"


class TransactionWatch:
    """Watches the partitions of topics for open transactions; `run` until cancelled, the rest may be asked any time."""

    def __init__(self, kafka: KafkaSettings, topics: Sequence[str]) -> None:
        self._kafka = kafka
        self._topics = topics
        self._stuck: dict[TopicPartition, tuple[int, float]] = {}
        """The last stable offset that lies before the end, and since when."""
        self.held: Mapping[TopicPartition, Held] = {}

    async def check(self) -> str:
        """For `/readyz`: who holds what up. Never fails: a restart would not help, and other partitions continue."""
        return "blocked: " + "; ".join(map(str, self.held.values())) if self.held else "none blocks a partition"

    async def run(self) -> None:
        """Look, forever; while Kafka is away, try again."""
        # A period and not a `Patience`: the next look is due whether this one failed, and nothing waits for it.
        while True:
            # First, so that a process that ends at once leaves no connection half made.
            await asyncio.sleep(LOOK_S)
            try:
                async with groupless_consumer(self._kafka) as consumer:
                    while True:
                        await self._look(consumer)
                        await asyncio.sleep(LOOK_S)
            except (KafkaError, OSError) as error:
                log.debug("transactions could not be checked", why=type(error).__name__)
            except Exception:  # a defect must not end the watch
                log.exception("transactions could not be checked: a defect")

    async def _look(self, consumer: AIOKafkaConsumer) -> None:
        topics = await describe(consumer, self._topics)
        at = {
            TopicPartition(name, number): epoch
            for name, each in topics.items()
            for number, epoch in each.epochs.items()
        }
        leaders = {each: topics[each.topic].leaders[each.partition] for each in at}
        stable = cast("dict[TopicPartition, int]", await consumer.end_offsets(list(at)))
        ends = await fetch_epoch_ends(consumer, at, leaders)
        now = time.monotonic()
        stuck = {each: offset for each, offset in stable.items() if offset < ends[each]}
        self._stuck = {each: (offset, self._since(each, offset, now)) for each, offset in stuck.items()}
        held: dict[TopicPartition, Held] = {}
        for each, (offset, since) in sorted(self._stuck.items()):
            if now - since >= HELD_AFTER_S:
                known = self.held.get(each)
                held[each] = (
                    known
                    if known is not None and known.offset == offset
                    else await self._found(consumer, leaders[each], each, offset)
                )
        self._tell(held)

    def _since(self, at: TopicPartition, offset: int, now: float) -> float:
        before = self._stuck.get(at)
        return before[1] if before is not None and before[0] == offset else now

    async def _found(self, consumer: AIOKafkaConsumer, leader: int, at: TopicPartition, offset: int) -> Held:
        who = await _who(consumer, leader, at, offset)
        command = f"abort --topic {at.topic} --partition {at.partition} --start-offset {offset}"
        log.error(
            "an open transaction blocks a partition",
            topic=at.topic,
            partition=at.partition,
            offset=offset,
            who=who,
            advice=f"end that program, or kafka-transactions.sh {command}",
        )
        return Held(at, offset, who)

    def _tell(self, held: Mapping[TopicPartition, Held]) -> None:
        for at in self.held.keys() - held.keys():
            log.info("the partition continues", topic=at.topic, partition=at.partition)
        self.held = held
        for topic in self._topics:
            PARTITIONS_HELD.labels(topic).set(sum(at.topic == topic for at in held))


async def _who(consumer: AIOKafkaConsumer, leader: int, at: TopicPartition, offset: int) -> str:
    """Whose transaction begins at an offset, as text."""
    try:
        answer = await ask(consumer, leader, _AskProducers([(at.topic, [at.partition], {})], {}))
        found = next((each for each in _producers(answer) if each[-2] == offset), None)
        if found is None:
            return "nobody known to Kafka: its replicas may lag"
        producer_id = int(found[0])
        for broker in all_brokers(consumer):
            named = await ask(consumer, broker, _AskTransactions([], [producer_id], {}))
            for transactional_id, *_ in named.transactions:
                return f"the transaction of {transactional_id!r} (producer {producer_id})"
    except KafkaError as error:
        return f"a transaction that we may not describe ({type(error).__name__})"
    else:
        return f"a transaction of producer {producer_id}"


def _producers(answer: Any) -> Iterator[tuple[Any, ...]]:
    for topic in answer.topics:
        for _, code, _, producers, *_ in topic[1]:
            if not code:
                yield from producers
