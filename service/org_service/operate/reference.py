"""Reference data from operators: facts published as other services do, and how many there are on the topics and in
the tables.
"""

import asyncio
from collections.abc import Awaitable, Iterable, Sequence
from typing import Final, NamedTuple, TypeVar, cast

from org_events.publishing.publisher import stop_producer
from org_events.reference import Membership, Partnership, Reference, Staff
from org_events.topics import Topics
from org_service.errors import TopicsMissingError
from org_service.kafka.client import KafkaTimeoutError, RecordMetadata
from org_service.kafka.connection import admin, make_producer
from org_service.settings import KafkaSettings

T = TypeVar("T")

_IN_HAND_MAX: Final = 1_000
"""Records that wait for their acknowledgement; some hundred KB."""


class FactEntry(NamedTuple):
    """What to publish about a fact: that it is so, or that it is so no more."""

    fact: Reference
    removed: bool = False


class SentFact(NamedTuple):
    """Where a record came to stand."""

    topic: str
    partition: int
    offset: int


def topic_of(topics: Topics, fact: Reference) -> str:
    """The topic of a fact's kind."""
    by_kind: dict[type[Reference], str] = {
        Membership: topics.memberships,
        Partnership: topics.partnerships,
        Staff: topics.staff,
    }
    return by_kind[type(fact)]


async def publish(kafka: KafkaSettings, entries: Iterable[FactEntry]) -> list[SentFact]:
    """Publish facts in order; returns when all are on every in-sync replica. May be run again: the last one counts.

    Raises:
        KafkaError: Kafka can't be reached, or stopped to answer: some may have been published.
        TopicsMissingError: A topic does not exist; nothing was published.
    """
    topics = kafka.topics
    async with admin(kafka) as client:
        there = set(await client.list_topics())
    missing = [name for name in (topics.memberships, topics.partnerships, topics.staff) if name not in there]
    if missing:
        raise TopicsMissingError(
            f"nothing was sent: Kafka at {kafka.bootstrap_servers} lacks {', '.join(missing)}; run `orgs topics apply`."
        )
    sent: list[SentFact] = []
    producer = make_producer(kafka)
    try:
        await _in_time(kafka, producer.start())
        waiting: list[asyncio.Future[RecordMetadata]] = []
        for entry in entries:
            value = None if entry.removed else entry.fact.to_body()
            topic = topic_of(topics, entry.fact)
            waiting.append(
                cast("asyncio.Future[RecordMetadata]", await producer.send(topic, value, key=entry.fact.key()))
            )
            if len(waiting) == _IN_HAND_MAX:
                sent += await _in_time(kafka, _acknowledged(waiting))
                waiting = []
        return sent + await _in_time(kafka, _acknowledged(waiting))
    finally:
        await stop_producer(producer)


async def _in_time(kafka: KafkaSettings, step: Awaitable[T]) -> T:
    """An idempotent producer of aiokafka tries again forever; an operator wants to know."""
    try:
        return await asyncio.wait_for(step, kafka.request_timeout_ms / 1000)
    except TimeoutError as error:
        raise KafkaTimeoutError("no broker responded in time") from error


async def _acknowledged(waiting: Sequence[asyncio.Future[RecordMetadata]]) -> list[SentFact]:
    return [SentFact(each.topic, each.partition, each.offset) for each in await asyncio.gather(*waiting)]
