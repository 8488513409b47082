"""Reference facts at random, each in a batch of its own, and what the tables must hold in the end.

Who publishes them publishes again what its topic lost: nobody else knows it.
"""

import json
import random
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple
from uuid import UUID

from confluent_kafka import KafkaError, Message, Producer

from org_events.topics import Topics
from tests.support.observed import LOG_LEVEL

Place = tuple[str, int]
"""Topic and partition."""
ROLES: Final = ("admin", "support", "user")
USERS: Final = 30
ORGANIZATIONS: Final = 8
TAKEN_BACK: Final = 0.2
"""Of the facts."""
TIMEOUT_S: Final = 20
FACTS_SQL: Final = """
SELECT 'memberships', concat(user_id, ':', org_id), role FROM membership
UNION ALL SELECT 'partnerships', concat(partner_org_id, ':', org_id), role FROM partnership
UNION ALL SELECT 'staff', user_id, '' FROM staff
"""
"""Topic, key and role, of each fact in the tables."""
Facts = dict[tuple[str, str], str]
"""Role by topic (without its prefix) and key."""


class _Kept(NamedTuple):
    place: Place
    offset: int
    key: str
    role: str | None
    """None where the fact was taken back."""


class FactFlow:
    """A publisher of all three topics."""

    def __init__(self, bootstrap_servers: str, topics: Topics, seed: int) -> None:
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap_servers,
                "acks": "all",
                "partitioner": "murmur2_random",
                "linger.ms": 0,
                "reconnect.backoff.max.ms": 500,
                "log_level": LOG_LEVEL,
            }
        )
        self._topics = {"memberships": topics.memberships, "partnerships": topics.partnerships, "staff": topics.staff}
        self._random = random.Random(seed)
        self._kept: list[_Kept] = []

    def publish(self, number: int) -> None:
        """So many facts of each kind."""
        for _ in range(number):
            for kind in self._topics:
                role = None if self._random.random() < TAKEN_BACK else self._random.choice(ROLES)
                self._send(kind, self._key(kind), role)

    def publish_again(self, ends: Mapping[Place, int]) -> None:
        """Publish what topics lost, in order.

        Args:
            ends: Where partitions end now.
        """
        lost = [each for each in self._kept if each.offset >= ends.get(each.place, each.offset + 1)]
        self._kept = [each for each in self._kept if each not in lost]
        kinds = {topic: kind for kind, topic in self._topics.items()}
        for each in lost:
            self._send(kinds[each.place[0]], each.key, each.role)

    def facts(self) -> Facts:
        """What was published last under each key."""
        kinds = {topic: kind for kind, topic in self._topics.items()}
        last = {(kinds[each.place[0]], each.key): each.role for each in self._kept}
        return {at: "" if at[0] == "staff" else role for at, role in last.items() if role is not None}

    def _key(self, kind: str) -> str:
        user = f"user-{self._random.randrange(USERS)}"
        one, other = (str(UUID(int=1 + self._random.randrange(ORGANIZATIONS))) for _ in range(2))
        return {"memberships": f"{user}:{one}", "partnerships": f"{one}:{other}", "staff": user}[kind]

    def _send(self, kind: str, key: str, role: str | None) -> None:
        value = None if role is None else json.dumps(_body(kind, key, role))
        answers: list[tuple[KafkaError | None, Message]] = []
        self._producer.produce(
            self._topics[kind], value, key, on_delivery=lambda error, message: answers.append((error, message))
        )
        assert self._producer.flush(TIMEOUT_S) == 0
        [(error, message)] = answers
        assert error is None, error
        place = (message.topic() or "", message.partition() or 0)
        self._kept.append(_Kept(place, message.offset() or 0, key, role))


def _body(kind: str, key: str, role: str) -> dict[str, Any]:
    first, _, org_id = key.partition(":")
    if kind == "staff":
        return {"user_id": key}
    if kind == "partnerships":
        return {"partner_org_id": first, "org_id": org_id, "role": role}
    return {"user_id": first, "org_id": org_id, "role": role, "joined_at": "2024-05-17T09:30:00Z"}


def read_facts(rows: Iterable[tuple[Any, ...]]) -> Facts:
    """What `FACTS_SQL` gives."""
    return {(kind, key): role for kind, key, role in rows}
