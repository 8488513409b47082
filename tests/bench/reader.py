"""A `read_committed` reader of librdkafka that looks at nothing while the clock runs but how many records came."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Self

from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

from tests.bench.load import Encoded

_TAKEN_MAX: Final = 10_000
"""Records in one call; far more than a transaction of the relay has in a topic."""
_POLL_S: Final = 1.0
SILENCE_MAX_S: Final = 60.0
"""No record for so long means that none will come."""


class MismatchError(Exception):
    """What came isn't what was sent: the figures of this run mean nothing."""


@dataclass(frozen=True, slots=True)
class Seen:
    """The records of one read, in the order in which they came."""

    command_ids: list[bytes]
    seen_s: list[float]
    """Monotonic clock."""


class TopicReader:
    """Reads all of a topic from its beginning, in turns. A context manager.

    Args:
        bootstrap_servers: Where Kafka is.
        topic: Which.
        partitions: How many the topic has.
        id_header: Which header names the command.
    """

    def __init__(self, bootstrap_servers: str, topic: str, partitions: int, *, id_header: str = "ce_commandid") -> None:
        self._topic = topic
        self._id_header = id_header
        self._positions: set[bytes] = set()
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap_servers,
                "group.id": "bench-reader",
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "fetch.queue.backoff.ms": 5,
            }
        )
        self._consumer.assign([TopicPartition(topic, partition, 0) for partition in range(partitions)])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._consumer.close()

    def read(self, count: int, *, check: Callable[[], None]) -> Seen:
        """Take the next `count` records.

        Args:
            count: More than these are an error.
            check: Called in each quiet second; raises when whoever should publish is gone.

        Raises:
            TimeoutError: No record came for a minute.
            MismatchError: More records came, or a journal position came twice.
        """
        taken: list[tuple[float, Sequence[Message]]] = []
        missing, last_s = count, time.monotonic()
        while missing > 0:
            first = self._consumer.poll(_POLL_S)
            now = time.monotonic()
            if first is None:
                check()
                if now - last_s > SILENCE_MAX_S:
                    raise TimeoutError(
                        f"{self._topic}: {count - missing} of {count} records, then none for {SILENCE_MAX_S:.0f} s"
                    )
                continue
            messages = [first, *self._consumer.consume(_TAKEN_MAX, 0)]
            last_s = time.monotonic()
            taken.append((last_s, messages))
            missing -= len(messages)
        return self._seen(taken, missing)

    def _seen(self, taken: list[tuple[float, Sequence[Message]]], missing: int) -> Seen:
        """Look into the records, now that time doesn't matter any more."""
        if missing < 0:
            raise MismatchError(f"{self._topic}: {-missing} records too many")
        seen = Seen([], [])
        for seen_s, messages in taken:
            for message in messages:
                if (error := message.error()) is not None:
                    raise KafkaException(error)
                headers = dict(message.headers() or [])
                position = headers.get("ce_position")
                if isinstance(position, bytes):
                    if position in self._positions:
                        raise MismatchError(f"{self._topic}: position {position.decode()} came twice")
                    self._positions.add(position)
                command_id = headers[self._id_header]
                assert isinstance(command_id, bytes)
                seen.command_ids.append(command_id)
                seen.seen_s.append(seen_s)
        return seen


def compare(seen: Seen, commands: Sequence[Encoded]) -> None:
    """See that there is one record for each command.

    Raises:
        MismatchError: One is missing, doubled or strange.
    """
    if sorted(seen.command_ids) != sorted(command.command_id for command in commands):
        raise MismatchError("the records that came are not one for each command that was sent")
