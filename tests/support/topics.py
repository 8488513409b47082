"""Topics of one test: made before it, dropped after it."""

import asyncio
from collections.abc import Sequence
from typing import Any

import orjson
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from org_events.topics import TopicSpec
from org_service.settings import Settings

ANSWER_S = 90
"""A broker that was paused asks its controller again after 30 s, where an answer was lost meanwhile."""


async def create_topics(settings: Settings) -> None:
    """Create every topic of the contract under the settings' prefix, and wait until they exist."""
    specs = settings.kafka.topics.specs(partitions=settings.kafka.partitions)
    await create(settings.kafka.bootstrap_servers, specs)


async def create(bootstrap_servers: str, specs: Sequence[TopicSpec]) -> None:
    """Create topics, and wait until they exist."""
    topics = [
        NewTopic(spec.name, num_partitions=spec.partitions, replication_factor=1, config=spec.config) for spec in specs
    ]
    admin = AdminClient({"bootstrap.servers": bootstrap_servers})
    await _wait(admin.create_topics(topics))
    # The controller has them; the broker that clients ask may hear of them a moment later.
    while not {spec.name for spec in specs} <= (await asyncio.to_thread(admin.list_topics, timeout=20)).topics.keys():
        pass


async def drop_topics(settings: Settings) -> None:
    """Drop what `create_topics` made."""
    await drop(settings.kafka.bootstrap_servers, settings.kafka.topics.specs())


async def drop(bootstrap_servers: str, specs: Sequence[TopicSpec]) -> None:
    """Drop topics."""
    admin = AdminClient({"bootstrap.servers": bootstrap_servers})
    await _wait(admin.delete_topics([spec.name for spec in specs]))


async def read_topic(settings: Settings, topic: str) -> list[Message]:
    """Everything committed on a topic, in order within each partition."""
    return await asyncio.to_thread(_read, settings.kafka.bootstrap_servers, topic)


async def read_results(settings: Settings) -> list[dict[str, Any]]:
    """The bodies on `orgs.results`."""
    return [orjson.loads(m.value() or b"") for m in await read_topic(settings, settings.kafka.topics.results)]


def _read(bootstrap_servers: str, topic: str) -> list[Message]:
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap_servers,
            "group.id": "tests",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
        }
    )
    partitions = consumer.list_topics(topic, 20).topics[topic].partitions
    consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in partitions])
    messages: list[Message] = []
    ended: set[int] = set()
    while len(ended) < len(partitions):
        message = consumer.poll(20)
        assert message is not None, f"{topic} cannot be read to its end"
        error = message.error()
        if error is None:
            messages.append(message)
        elif error.code() == KafkaError._PARTITION_EOF:
            ended.add(message.partition() or 0)
        else:
            raise KafkaException(error)
    consumer.close()
    return sorted(messages, key=lambda m: (m.partition(), m.offset()))


async def _wait(futures: dict) -> None:
    for future in futures.values():
        await asyncio.to_thread(future.result, ANSWER_S)
