"""Commands as raw records, good and bad, and a publisher that writes down what it sent.

Built from the wire contract by hand: what any program may send, not what the contract's own models allow.
"""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from confluent_kafka import KafkaError, Message, Producer

from tests.support.observed import LOG_LEVEL, Record
from tests.support.oracle import BODY_BYTES_MAX, DEPTH_MAX
from tests.support.partitioner import partition_of
from tests.support.published import Published

Headers = tuple[tuple[str, bytes | None], ...]

CARRIED = {"ce_actor": "actor", "traceparent": "traceparent"}
"""Headers of binary mode that are attributes of the envelope in structured mode."""

FLUSH_TIMEOUT_S = 60


@dataclass(frozen=True, slots=True)
class Sending:
    """One record to send; `command_id` is null where it can't be read from the record."""

    command_id: str | None
    org_id: str
    type: str
    key: bytes | None
    headers: Headers
    value: bytes | None
    timestamp_ms: int = 0
    """By the publisher's clock; 0 is now."""
    astray: int = 0
    """How many partitions from where its key belongs."""


def binary(command_id: str, command_type: str, org_id: str, **body: Any) -> Sending:
    """A command in binary mode."""
    headers: Headers = (
        ("ce_specversion", b"1.0"),
        ("ce_id", command_id.encode()),
        ("ce_type", command_type.encode()),
        ("ce_source", b"/proof"),
        ("content-type", b"application/json"),
    )
    value = json.dumps({"org_id": org_id, **body}).encode()
    return Sending(command_id, org_id, command_type, org_id.encode(), headers, value)


def structured(sending: Sending) -> Sending:
    """The same command in structured mode."""
    carried = dict(sending.headers)
    envelope = {
        "specversion": "1.0",
        "id": sending.command_id,
        "type": sending.type,
        "source": "/proof",
        "data": json.loads(sending.value or b"null"),
    } | {name: content.decode() for header, name in CARRIED.items() if (content := carried.get(header)) is not None}
    headers: Headers = (("content-type", b"application/cloudevents+json; charset=UTF-8"),)
    return replace(sending, headers=headers, value=json.dumps(envelope).encode())


def spaced(sending: Sending) -> Sending:
    """The same JSON in other bytes."""
    body = json.loads(sending.value or b"null")
    return replace(sending, value=json.dumps(dict(reversed(body.items())), indent=1, ensure_ascii=False).encode())


def with_odd_headers(sending: Sending) -> Sending:
    """The same command with headers that are no text, and one without a value."""
    return replace(sending, headers=(*sending.headers, ("x-trace", b"\xff\xfe"), ("x-null", None)))


SAME: Sequence[Callable[[Sending], Sending]] = (lambda sending: sending, structured, spaced, with_odd_headers)
"""Ways to write the same command."""


def with_id(sending: Sending, command_id: str) -> Sending:
    """The same command under another command id."""
    return replace(_with_header(sending, "ce_id", command_id.encode()), command_id=command_id)


def acting_as(sending: Sending, actor: str) -> Sending:
    """The same command on somebody's behalf."""
    return _with_header(sending, "ce_actor", actor.encode())


def traced(sending: Sending, traceparent: str) -> Sending:
    """The same command as a step of a trace (W3C Trace Context)."""
    return _with_header(sending, "traceparent", traceparent.encode())


def _with_header(sending: Sending, name: str, *contents: bytes | None) -> Sending:
    kept = tuple(header for header in sending.headers if header[0] != name)
    return replace(sending, headers=(*kept, *((name, content) for content in contents)))


def _with_body(sending: Sending, **members: Any) -> Sending:
    return replace(sending, value=json.dumps(json.loads(sending.value or b"{}") | members).encode())


def _with_member(sending: Sending, name: str, content: Any) -> Sending:
    """A structured envelope with another member; null leaves it out."""
    envelope = json.loads(sending.value or b"{}") | {name: content}
    kept = {member: value for member, value in envelope.items() if value is not None}
    return replace(sending, value=json.dumps(kept).encode())


def _deep(sending: Sending) -> Sending:
    deep: list[Any] = []
    for _ in range(DEPTH_MAX * 2):
        deep = [deep]
    return _with_body(sending, deep=deep)


UNANSWERABLE_BODY: Sequence[Callable[[Sending], Sending]] = (
    lambda sending: replace(sending, value=None),
    lambda sending: replace(sending, value=b""),
    lambda sending: replace(sending, value=b"not JSON"),
    lambda sending: replace(sending, value=b"\xff\xfe{}"),
    lambda sending: replace(sending, value=b"[]"),
    lambda sending: replace(sending, value=b'{"name": "x"}'),
    lambda sending: replace(sending, value=b'{"org_id": 5}'),
    lambda sending: replace(sending, value=(sending.value or b"{}")[:-1] + b', "n": NaN}'),
    lambda sending: replace(sending, key=None),
    lambda sending: replace(sending, key=b"another key"),
    lambda sending: _with_header(sending, "ce_type"),
    lambda sending: _with_header(sending, "ce_type", b"org.explode"),
    lambda sending: _with_header(sending, "ce_type", b"\xff"),
    lambda sending: _with_body(sending, big="x" * BODY_BYTES_MAX),
    _deep,
    lambda sending: _with_member(structured(sending), "type", None),
    lambda sending: _with_member(structured(sending), "type", "org.explode"),
    lambda sending: _with_member(structured(sending), "data", "text"),
    lambda sending: _with_member(structured(sending), "data", None),
)
"""Ways to spoil a command so that it can't be read, though its id can: 400."""

UNREADABLE: Sequence[Callable[[Sending], Sending]] = (
    lambda sending: _with_header(sending, "ce_id"),
    lambda sending: _with_header(sending, "ce_id", None),
    lambda sending: _with_header(sending, "ce_id", b"\xff\xfe"),
    lambda sending: _with_header(sending, "ce_id", b"not-a-uuid"),
    lambda sending: replace(structured(sending), value=b"not JSON"),
    lambda sending: replace(structured(sending), value=b"[]"),
)
"""Ways to spoil a command so that not even its id can be read: parked."""


def unreadable(sending: Sending, how: int) -> Sending:
    """`sending` so that nobody could be answered."""
    return replace(UNREADABLE[how](sending), command_id=None)


class Publisher:
    """An idempotent producer of librdkafka that remembers what it sent and what the broker answered."""

    def __init__(self, bootstrap_servers: str, topic: str, *, partitions: int = 0, **config: Any) -> None:
        self._topic = topic
        self._partitions = partitions
        """Needed for what goes astray."""
        self._config = {
            "bootstrap.servers": bootstrap_servers,
            "log_level": LOG_LEVEL,
            "enable.idempotence": True,
            "partitioner": "murmur2_random",
            "linger.ms": 2,
            "queue.buffering.max.messages": 1_000_000,
            **config,
        }
        self._producer = Producer(self._config)
        self._sequences: Counter[str] = Counter()
        self.published: list[Published] = []
        """In the order of the broker's answers."""
        self.records: list[Record] = []
        """What the broker has, in the order of its answers."""
        self.sent = 0

    def send(self, sending: Sending) -> None:
        """Hand one record over; it goes out in the background."""
        self._sequences[sending.org_id] += 1
        sequence = self._sequences[sending.org_id]

        def answered(error: KafkaError | None, message: Message) -> None:
            acknowledged = error is None
            partition = message.partition() if acknowledged else None
            offset = message.offset() if acknowledged else None
            body = (sending.value or b"").decode("latin-1")
            self.published.append(
                Published(sending.command_id, sending.org_id, sending.type, sequence, body, partition, offset)
            )
            if partition is not None and offset is not None:
                time = message.timestamp()[1]
                self.records.append(
                    Record(self._topic, partition, offset, time, sending.key, sending.value, sending.headers)
                )

        partition = -1
        if sending.astray:
            partition = (partition_of(sending.key or b"", self._partitions) + sending.astray) % self._partitions
        self._producer.produce(
            self._topic,
            sending.value,
            sending.key,
            partition,
            answered,
            timestamp=sending.timestamp_ms,
            headers=list(sending.headers),
        )
        self._producer.poll(0)
        self.sent += 1

    def flush(self) -> None:
        """Wait until the broker answered for everything.

        Raises:
            TimeoutError: It did not.
        """
        if self._producer.flush(FLUSH_TIMEOUT_S):
            raise TimeoutError(f"the broker did not answer in {FLUSH_TIMEOUT_S} s")

    def renew(self) -> None:
        """Go on as another producer: a broker that lost the last records of one refuses its next."""
        self.close()
        self._producer = Producer(self._config)

    def close(self) -> None:
        """Give the connections back."""
        self.flush()
        self._producer.close()
