"""What the helper for faults of a broker's log does is what it says: other tests build on it."""

import secrets
from collections.abc import Sequence

import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

import org_local
from tests.support import log_faults

pytestmark = pytest.mark.integration


@pytest.fixture
def topic(stack: org_local.Stack) -> str:
    name = f"log-faults-{secrets.token_hex(4)}"
    log_faults.create_topic(stack.bootstrap_servers, name, 1, {})
    return name


def publish(servers: str, topic: str, *values: bytes) -> None:
    """Each value in a batch of its own."""
    producer = Producer({"bootstrap.servers": servers})
    for value in values:
        producer.produce(topic, value, partition=0)
        assert producer.flush(20) == 0


def read(servers: str, topic: str) -> Sequence[tuple[int, bytes | None]]:
    config = {"bootstrap.servers": servers, "group.id": "t", "enable.partition.eof": True, "check.crcs": True}
    consumer = Consumer(config | {"isolation.level": "read_committed", "log_level": 2})
    consumer.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
    found: list[Message] = []
    try:
        while True:
            message = consumer.poll(20)
            assert message is not None
            error = message.error()
            if error is None:
                found.append(message)
            elif error.code() == KafkaError._PARTITION_EOF:
                return [(each.offset() or 0, each.value()) for each in found]
            else:
                raise KafkaException(error)
    finally:
        consumer.close()


def test_a_flipped_byte_damages_the_batch_with_the_offset(stack: org_local.Stack, topic: str) -> None:
    servers = stack.bootstrap_servers
    publish(servers, topic, b"one", b"two")
    log_faults.flip_byte(stack, topic, 0, 1, mask=0x01)
    with pytest.raises(KafkaException, match="CRC"):
        read(servers, topic)
    log_faults.flip_byte(stack, topic, 0, 1, mask=0x01)
    assert read(servers, topic) == [(0, b"one"), (1, b"two")]


def test_a_truncated_tail_is_gone_and_its_offsets_are_reused(stack: org_local.Stack, topic: str) -> None:
    servers = stack.bootstrap_servers
    publish(servers, topic, *(b"old %d" % n for n in range(4)))
    with pytest.raises(LookupError, match="no batch"):
        log_faults.cut_tail(stack, topic, 0, 9)
    log_faults.cut_tail(stack, topic, 0, 2)
    publish(servers, topic, b"new 2")
    assert read(servers, topic) == [(0, b"old 0"), (1, b"old 1"), (2, b"new 2")]


def test_deleted_records_move_the_beginning(stack: org_local.Stack, topic: str) -> None:
    servers = stack.bootstrap_servers
    publish(servers, topic, b"one", b"two", b"three")
    log_faults.delete_records(servers, topic, {0: 2})
    assert read(servers, topic) == [(2, b"three")]


def test_a_topic_created_again_is_empty_and_has_another_id(stack: org_local.Stack, topic: str) -> None:
    servers = stack.bootstrap_servers
    publish(servers, topic, b"one")
    before = log_faults.topic_id(servers, topic)
    assert log_faults.recreate_topic(servers, topic, 1, {}) != before
    assert log_faults.ends(servers, topic, [0]) == {0: 0}
    log_faults.add_partitions(servers, topic, 2)
    assert log_faults.ends(servers, topic, [0, 1]) == {0: 0, 1: 0}


def test_an_open_transaction_hides_what_comes_after_it(stack: org_local.Stack, topic: str) -> None:
    servers = stack.bootstrap_servers
    open_one = log_faults.begin_transaction(servers, f"t-{topic}", topic, 0)
    publish(servers, topic, b"after")
    assert read(servers, topic) == []
    open_one.abort_transaction()
    assert read(servers, topic) == [(1, b"after")]
