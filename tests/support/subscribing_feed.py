"""What the relay does, by another client library: changes on events and state in Kafka transactions, and the position.

Remembers by itself what a subscriber must have in the end. Everything blocks; from async code use `asyncio.to_thread`.
"""

import json
import random
from collections.abc import Sequence
from typing import Any, NamedTuple

from confluent_kafka import Producer

from org_events.topics import Topics
from tests.support.partitioner import partition_of
from tests.support.subscribing import event, key_of, state

TIMEOUT_S = 20


class Step(NamedTuple):
    """A change to publish."""

    number: int
    version: int
    event_type: str
    created: bool = False


class Feed:
    """Publishes under one transactional id, as one relay does.

    Args:
        bootstrap_servers: Of Kafka.
        topics: Where.
        name: The transactional id, whose former owner is fenced.
    """

    def __init__(self, bootstrap_servers: str, topics: Topics, name: str = "relay") -> None:
        self._topics = topics
        self.position = 0
        self.versions: dict[int, int] = {}
        """Of all organizations, deleted ones included."""
        self.present: dict[int, str] = {}
        """Those that are not deleted: their names."""
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap_servers,
                "transactional.id": f"{topics.prefix}{name}",
                "partitioner": "murmur2_random",
                "topic.metadata.refresh.interval.ms": 500,
                "log_level": 2,
            }
        )
        self._producer.init_transactions(TIMEOUT_S)

    def step(self, number: int, event_type: str = "org.updated") -> Step:
        """The next change of an organization; a first one creates it, and one that was deleted comes back."""
        version = self.versions.get(number, 0) + 1
        created = number not in self.present
        if created:
            event_type = "org.created" if version == 1 else "org.restored"
        return Step(number, version, event_type, created)

    def publish(self, *numbers: int, event_type: str = "org.updated") -> None:
        """One change of each organization, in one transaction."""
        self._write([self._remember(self.step(number, event_type)) for number in numbers])

    def abort(self, *numbers: int) -> None:
        """The same, taken back."""
        position = self.position
        self._write([self.step(number) for number in numbers], commit=False)
        self.position = position

    def publish_at_random(self, chance: random.Random, organizations: int) -> None:
        """A few changes, some of which delete; now and then a transaction is aborted before."""
        numbers = chance.sample(range(organizations), chance.randint(1, 8))
        if chance.random() < 0.2:
            self.abort(*numbers)
        self.publish(*numbers, event_type="org.deleted" if chance.random() < 0.15 else "org.updated")

    def open(self, topic: str, records: Sequence[Any]) -> None:
        """Begin a transaction and leave it open; see `commit`."""
        self._producer.begin_transaction()
        for record in records:
            self._send(topic, record)
        assert self._producer.flush(TIMEOUT_S) == 0

    def commit(self) -> None:
        """End what is open."""
        self._producer.commit_transaction(TIMEOUT_S)

    def _remember(self, step: Step) -> Step:
        self.versions[step.number] = step.version
        if step.event_type == "org.deleted":
            self.present.pop(step.number)
        else:
            self.present[step.number] = f"{step.number} at {step.version}"
        return step

    def _write(self, steps: Sequence[Step], *, commit: bool = True) -> None:
        self._producer.begin_transaction()
        for number, version, event_type, created in steps:
            self.position += 1
            change = event(number, version, position=self.position, event_type=event_type, created=created)
            self._send(self._topics.events, change)
            self._send(self._topics.state, state(number, version, deleted=event_type == "org.deleted"))
        self._producer.produce(self._topics.relay, json.dumps({"position": self.position}).encode(), b"relay")
        assert self._producer.flush(TIMEOUT_S) == 0
        (self._producer.commit_transaction if commit else self._producer.abort_transaction)(TIMEOUT_S)

    def _send(self, topic: str, record: Any) -> None:
        self._producer.produce(topic, record.value, record.key, headers=list(record.headers))


def partitioned(partition: int, partitions: int, count: int) -> list[int]:
    """Numbers of organizations that belong on a partition."""
    return [number for number in range(1_000) if partition_of(key_of(number), partitions) == partition][:count]
