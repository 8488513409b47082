"""Which topic a name stands for now: Kafka gives each topic an id of its own (KIP-516), and a topic that was deleted
and created again has another one. Offsets can't tell: the new topic may be longer than the old one was.

The same request says what our login may do with a topic (KIP-430).

aiokafka 0.14 speaks version 5 of the Metadata request; ids came with version 10. Here is version 12 (any Kafka since
3.0), for topics by name alone.
"""

from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any, Final, NamedTuple
from uuid import UUID

from aiokafka.errors import TopicAuthorizationFailedError, UnknownTopicOrPartitionError
from aiokafka.protocol.api import RequestStruct
from aiokafka.protocol.types import (
    AbstractType,
    Boolean,
    CompactArray,
    CompactString,
    Int16,
    Int32,
    Schema,
    TaggedFields,
)

from org_events.kafka.requests import BrokerAnswer, HasClient, any_broker, ask

_UUID_BYTES: Final = 16
OPERATIONS: Final[Mapping[str, int]] = {
    "READ": 3,
    "WRITE": 4,
    "DELETE": 6,
    "ALTER": 7,
    "DESCRIBE": 8,
    "DESCRIBE_CONFIGS": 10,
    "ALTER_CONFIGS": 11,
}
"""On a topic, and the bit of each (`AclOperation` of Kafka)."""
_NOT_TOLD: Final = -(1 << 31)
_NONE: Final = UUID(int=0)
"""In a request: the topic is meant by its name."""


class _Uuid(AbstractType[UUID]):
    @classmethod
    def encode(cls, value: UUID) -> bytes:
        return value.bytes

    @classmethod
    def decode(cls, data: BytesIO) -> UUID:
        return UUID(bytes=data.read(_UUID_BYTES))


_PARTITION: Final = (
    ("error_code", Int16),
    ("partition", Int32),
    ("leader", Int32),
    ("leader_epoch", Int32),
    ("replicas", CompactArray(Int32)),
    ("isr", CompactArray(Int32)),
    ("offline_replicas", CompactArray(Int32)),
    ("tags", TaggedFields),
)


class _Metadata(BrokerAnswer):
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "brokers",
            CompactArray(
                ("node_id", Int32),
                ("host", CompactString("utf-8")),
                ("port", Int32),
                ("rack", CompactString("utf-8")),
                ("tags", TaggedFields),
            ),
        ),
        ("cluster_id", CompactString("utf-8")),
        ("controller_id", Int32),
        (
            "topics",
            CompactArray(
                ("error_code", Int16),
                ("name", CompactString("utf-8")),
                ("topic_id", _Uuid),
                ("is_internal", Boolean),
                ("partitions", CompactArray(*_PARTITION)),
                ("authorized_operations", Int32),
                ("tags", TaggedFields),
            ),
        ),
        ("tags", TaggedFields),
    )


class _AskMetadata(RequestStruct):
    API_KEY = 3
    API_VERSION = 12
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = _Metadata
    SCHEMA = Schema(
        (
            "topics",
            CompactArray(("topic_id", _Uuid), ("name", CompactString("utf-8")), ("tags", TaggedFields)),
        ),
        ("allow_auto_topic_creation", Boolean),
        ("include_topic_authorized_operations", Boolean),
        ("tags", TaggedFields),
    )


class Topic(NamedTuple):
    """A topic as brokers know it now."""

    topic_id: UUID
    epochs: Mapping[int, int]
    """Of each partition, how often it was given a leader. A log loses its end only where that grows (KIP-101)."""
    leaders: Mapping[int, int]
    """Of each partition the broker that leads it; -1 where none does."""


async def describe(consumer: HasClient, topics: Sequence[str]) -> Mapping[str, Topic]:
    """Ask a broker what it knows of topics.

    Raises:
        UnknownTopicOrPartitionError: One of them does not exist (now).
        KafkaError: No broker answers, or it is older than Kafka 3.0.
    """
    found = await describe_present(consumer, topics)
    missing = [name for name in topics if name not in found]
    if missing:
        raise UnknownTopicOrPartitionError(f"not on the broker: {', '.join(missing)}")
    return found


async def describe_present(consumer: HasClient, topics: Sequence[str]) -> Mapping[str, Topic]:
    """As `describe`, but a topic that does not exist is left out."""
    answer = await _ask(consumer, topics)
    found: dict[str, Topic] = {}
    for code, name, topic_id, _, partitions, *_ in answer.topics:
        if not code:
            numbered = {number: (leader, epoch) for _, number, leader, epoch, *_ in partitions}
            leaders = {number: leader for number, (leader, _) in numbered.items()}
            found[name] = Topic(topic_id, {number: epoch for number, (_, epoch) in numbered.items()}, leaders)
    return found


async def fetch_topic_ids(consumer: HasClient, topics: Sequence[str]) -> Mapping[str, UUID]:
    """Ask a broker for the ids of topics; raises as `describe`."""
    return {name: topic.topic_id for name, topic in (await describe(consumer, topics)).items()}


async def may_write(consumer: HasClient, topic: str) -> bool:
    """Ask a broker whether our login may write to a topic; also where it has no rules at all.

    Raises:
        KafkaError: No broker answers, or it is older than Kafka 3.0.
    """
    return "WRITE" in (await fetch_operations(consumer, [topic])).get(topic, {"WRITE"})  # missing: reported elsewhere


async def fetch_operations(consumer: HasClient, topics: Sequence[str]) -> dict[str, frozenset[str]]:
    """Ask a broker what our login may do with topics: names of `OPERATIONS`; topics that don't exist are left out.

    Raises:
        KafkaError: No broker answers, or it is older than Kafka 3.0.
    """
    answer = await _ask(consumer, topics, rights=True)
    found: dict[str, frozenset[str]] = {}
    for code, name, _, _, _, operations, _ in answer.topics:
        if code == TopicAuthorizationFailedError.errno:
            found[name] = frozenset()
        elif not code:
            told = operations != _NOT_TOLD
            found[name] = frozenset(each for each, bit in OPERATIONS.items() if not told or operations & 1 << bit)
    return found


class Replicas(NamedTuple):
    """Who has a partition."""

    copies: int
    in_sync: int


async def fetch_replicas(consumer: HasClient, topics: Sequence[str]) -> dict[str, list[Replicas]]:
    """Ask a broker how many have each partition of topics; topics that we can't see are left out."""
    answer = await _ask(consumer, topics)
    return {
        name: [Replicas(len(replicas), len(in_sync)) for _, _, _, _, replicas, in_sync, *_ in partitions]
        for code, name, _, _, partitions, *_ in answer.topics
        if not code
    }


async def _ask(consumer: HasClient, topics: Sequence[str], *, rights: bool = False) -> Any:
    request = _AskMetadata([(_NONE, name, {}) for name in topics], False, rights, {})
    return await ask(consumer, any_broker(consumer), request)
