"""Faults of a broker's log, made by hand: a flipped byte, a cut tail, deleted records, topics created again, partitions
added, settings changed, a transaction that nobody ends.

What Kafka has a request for is asked for; the rest is done to the segment files of the local stack's first broker (one
with a single broker, so that no replica mends it). Everything here blocks; from async code use `asyncio.to_thread`.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Literal

from confluent_kafka import Consumer, KafkaException, Producer, TopicCollection, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
)

from org_local import segments
from org_local.kafka import Broker
from org_local.segments import Batch, batches
from org_local.stack import Stack
from tests.support.waiting import wait_for

TIMEOUT_S = 20


def flip_byte(stack: Stack, topic: str, partition: int, offset: int, *, mask: int = 0xFF) -> Batch:
    """Flip bits of one byte in the batch that holds `offset`; the broker goes on, and sends it as it is.

    The byte is the last of the batch, so every field before it reads well and only the CRC tells.

    Raises:
        LookupError: No batch holds this offset.
    """
    broker = stack.kafka.brokers[0]
    found = next((each for each in batches(broker.logs, topic, partition) if each.first <= offset <= each.last), None)
    if found is None:
        raise LookupError(f"{topic}-{partition} has no batch with offset {offset}")
    with found.file.open("r+b") as file:
        file.seek(found.at + found.size - 1)
        (byte,) = file.read(1)
        file.seek(found.at + found.size - 1)
        file.write(bytes([byte ^ mask]))
    return found


def cut_tail(stack: Stack, topic: str, partition: int, end: int) -> None:
    """Lose the end of a partition, as a machine does that loses its power: afterwards it ends at `end`.

    As `cut_tails`.
    """
    cut_tails(stack, {(topic, partition): end})


def cut_tails(stack: Stack, cuts: Mapping[tuple[str, int], int]) -> None:
    """Lose the ends of partitions, each from an offset on.

    Stops the broker, cuts the segment files, and starts the broker again (some 3 s). Clients see an outage.

    Raises:
        LookupError: No batch begins at one of the offsets: a batch is lost whole. Publish the records one by one, or
            choose another.
    """
    broker = stack.kafka.brokers[0]
    for (topic, partition), end in cuts.items():
        _batch_at(broker, topic, partition, end)
    stack.kafka.stop()
    try:
        for (topic, partition), end in cuts.items():
            segments.cut(broker.logs, _batch_at(broker, topic, partition, end))
    finally:
        stack.kafka.start()
    for (topic, partition), end in cuts.items():
        assert ends(stack.bootstrap_servers, topic, [partition])[partition] == end


def cut_last(
    stack: Stack, cuts: Mapping[tuple[str, int], int], plain: Collection[str] = ()
) -> dict[tuple[str, int], int]:
    """Lose so many last batches of partitions, whatever is under way; markers are batches, too.

    What was written outside of transactions stays, and what is before that, but on the topics in `plain`: nobody would
    send it again.

    Returns where each partition ended when the broker started again.
    """
    broker = stack.kafka.brokers[0]
    found: dict[tuple[str, int], int] = {}
    stack.kafka.stop()
    try:
        for (topic, partition), number in cuts.items():
            end = segments.cut_last(broker.logs, topic, partition, number, transactional=topic not in plain)
            if end is not None:
                found[topic, partition] = end
    finally:
        stack.kafka.start()
    return found


def _batch_at(broker: Broker, topic: str, partition: int, offset: int) -> Batch:
    found = next((each for each in batches(broker.logs, topic, partition) if each.first == offset), None)
    if found is None:
        raise LookupError(f"no batch of {topic}-{partition} begins at offset {offset}")
    return found


def delete_records(bootstrap_servers: str, topic: str, before: Mapping[int, int]) -> None:
    """Delete what lies before an offset of partitions, as retention does, only at once."""
    wanted = [TopicPartition(topic, partition, offset) for partition, offset in before.items()]
    admin = AdminClient({"bootstrap.servers": bootstrap_servers})  # kept: without it nobody would hear the answer
    for done in admin.delete_records(wanted).values():
        done.result(TIMEOUT_S)


def add_partitions(bootstrap_servers: str, topic: str, total: int) -> None:
    """Let a topic have `total` partitions, as somebody does by hand."""
    admin = AdminClient({"bootstrap.servers": bootstrap_servers})
    admin.create_partitions([NewPartitions(topic, total)])[topic].result(TIMEOUT_S)
    _wait_for_partitions(admin, topic, total)


def count_partitions(bootstrap_servers: str, topic: str) -> int:
    """How many partitions a topic has."""
    return len(
        AdminClient({"bootstrap.servers": bootstrap_servers}).list_topics(topic, TIMEOUT_S).topics[topic].partitions
    )


def configure(bootstrap_servers: str, topic: str, config: Mapping[str, str]) -> None:
    """Set settings of a topic; the others stay."""
    entries = [ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET) for name, value in config.items()]
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=entries)
    admin = AdminClient({"bootstrap.servers": bootstrap_servers})
    admin.incremental_alter_configs([resource])[resource].result(TIMEOUT_S)


def delete_topic(bootstrap_servers: str, topic: str) -> None:
    """Delete a topic, and wait until brokers no longer know it."""
    admin = AdminClient({"bootstrap.servers": bootstrap_servers})
    admin.delete_topics([topic])[topic].result(TIMEOUT_S)
    _wait_for_partitions(admin, topic, 0)


def create_topic(bootstrap_servers: str, topic: str, partitions: int, config: Mapping[str, str]) -> None:
    """Create a topic, and wait until brokers know it and lead its partitions."""
    admin = AdminClient({"bootstrap.servers": bootstrap_servers})
    new = NewTopic(topic, num_partitions=partitions, replication_factor=1, config=dict(config))
    admin.create_topics([new])[topic].result(TIMEOUT_S)
    _wait_for_partitions(admin, topic, partitions)
    ends(bootstrap_servers, topic, range(partitions))


def recreate_topic(bootstrap_servers: str, topic: str, partitions: int, config: Mapping[str, str]) -> str:
    """Delete a topic and create one of the same name; returns the id of the new one, as Kafka writes it."""
    before = topic_id(bootstrap_servers, topic)
    delete_topic(bootstrap_servers, topic)
    create_topic(bootstrap_servers, topic, partitions, config)
    after = topic_id(bootstrap_servers, topic)
    assert after != before
    return after


def topic_id(bootstrap_servers: str, topic: str) -> str:
    """Which topic a name stands for now."""
    admin = AdminClient({"bootstrap.servers": bootstrap_servers})
    return str(admin.describe_topics(TopicCollection([topic]))[topic].result(TIMEOUT_S).topic_id)


def begin_transaction(
    bootstrap_servers: str, transactional_id: str, topic: str, partition: int, timeout_ms: int = 60_000
) -> Producer:
    """Publish one record in a transaction and leave it open: nothing after it is seen by `read_committed` readers.

    End it with `abort_transaction` or `commit_transaction` of the producer that is returned.
    """
    producer = Producer(
        {
            "bootstrap.servers": bootstrap_servers,
            "transactional.id": transactional_id,
            "transaction.timeout.ms": timeout_ms,
            "log_level": 2,
        }
    )
    producer.init_transactions(TIMEOUT_S)
    producer.begin_transaction()
    refused: list[Any] = []
    producer.produce(topic, b"left open", b"left open", partition, on_delivery=lambda error, _: refused.append(error))
    assert producer.flush(TIMEOUT_S) == 0
    assert refused == [None]
    return producer


Transaction = Literal["committed", "aborted"] | None
"""What a writer does it in."""


def write_as_stranger(
    bootstrap_servers: str, topic: str, partitions: Iterable[int], name: str, transaction: Transaction = None
) -> None:
    """Publish a record of a program that we don't know, on each of some partitions."""
    config: dict[str, Any] = {"bootstrap.servers": bootstrap_servers, "log_level": 2}
    if transaction is not None:
        config["transactional.id"] = name
    producer = Producer(config)
    if transaction is not None:
        producer.init_transactions(TIMEOUT_S)
        producer.begin_transaction()
    for partition in partitions:
        producer.produce(topic, b"{}", b"stranger", partition, headers=[("ce_source", b"/elsewhere")])
    assert producer.flush(TIMEOUT_S) == 0
    if transaction is not None:
        (producer.commit_transaction if transaction == "committed" else producer.abort_transaction)(TIMEOUT_S)


def ends(bootstrap_servers: str, topic: str, partitions: Sequence[int]) -> dict[int, int]:
    """The high watermark of partitions, transactions that are still open included."""
    config = {"bootstrap.servers": bootstrap_servers, "group.id": "log-faults", "log_level": 2}
    consumer = Consumer({**config, "isolation.level": "read_uncommitted"})
    found: dict[int, int] = {}

    def finds(partition: int) -> bool:
        with suppress(KafkaException):  # a partition without a leader yet
            _, found[partition] = consumer.get_watermark_offsets(TopicPartition(topic, partition), TIMEOUT_S)
        return partition in found

    try:
        for partition in partitions:
            wait_for(partial(finds, partition), f"end of {topic}, partition {partition}", TIMEOUT_S)
    finally:
        consumer.close()
    return found


def _wait_for_partitions(admin: AdminClient, topic: str, wanted: int) -> None:
    def has_them() -> bool:
        found = admin.list_topics(timeout=TIMEOUT_S).topics.get(topic)
        return (0 if found is None else len(found.partitions)) == wanted

    wait_for(has_them, f"{topic} with {wanted} partitions", TIMEOUT_S)
