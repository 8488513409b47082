"""Facts for the three reference topics, good ones in odd forms, and records that must not be believed."""

import asyncio
import json
import random
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import asyncpg
from confluent_kafka import KafkaError, Message, Producer

from org_service.settings import Settings
from tests.support import raw_batches
from tests.support.hostile import BIG_BOMB_BYTES, BOMB_BYTES, DEPTH, HEADER_BYTES
from tests.support.observed import LOG_LEVEL
from tests.support.partitioner import partition_of
from tests.support.raw_batches import Raw

ORG = "0190c5f0-7d1c-7b7e-9d57-00000000ac4e"
ROLES = ("admin", "support", "cloud_rep", "user", "restricted_user")
KEYS = 5_000
CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
ROUGH_EVERY = 200
"""Of so many bad commands one, and of good facts one of each kind, is a batch that no client library would send."""
BOMB_EVERY = 10_000
"""Of so many bad commands one, and of bad facts one of each kind, fills the memory of whoever unpacks it."""
AHEAD_MS = 30 * 60 * 1000
"""A publisher's clock that is fast; brokers refuse more than an hour (`message.timestamp.after.max.ms`)."""

Value = dict[str, Any]
Headers = Sequence[tuple[str, str | bytes | None]]


@dataclass(frozen=True, slots=True)
class Kind:
    """What one of the topics holds."""

    topic: str
    """Its name in `Topics`."""
    make: Callable[[int, str], Value]
    """From a number and a role to a fact."""
    key: tuple[str, ...]
    select: str
    """The keys in its table, and the role where there is one."""

    def key_of(self, value: Value) -> bytes:
        """The key of a fact's record."""
        return ":".join(value[name] for name in self.key).encode()


def _membership(number: int, role: str) -> Value:
    return {"user_id": f"user-{number}", "org_id": ORG, "role": role, "joined_at": "2024-05-17T09:30:00Z"}


def _partnership(number: int, role: str) -> Value:
    return {"partner_org_id": str(UUID(int=number + 1, version=4)), "org_id": ORG, "role": role}


KINDS: Sequence[Kind] = (
    Kind(
        "memberships",
        _membership,
        ("user_id", "org_id"),
        "SELECT user_id || ':' || org_id AS key, role FROM membership",
    ),
    Kind(
        "partnerships",
        _partnership,
        ("partner_org_id", "org_id"),
        "SELECT partner_org_id || ':' || org_id AS key, role FROM partnership",
    ),
    Kind(
        "staff",
        lambda number, _: {"user_id": f"user-{number}"},
        ("user_id",),
        "SELECT user_id AS key, '' AS role FROM staff",
    ),
)


@dataclass(frozen=True, slots=True)
class FactRecord:
    """A record for a reference topic."""

    key: bytes | None
    value: bytes | None
    headers: Headers = ()
    partition: int = -1
    timestamp_ms: int = 0
    raw: bytes | None = field(default=None, repr=False)
    """A whole batch, for what no client library would send; to the partition where the key belongs."""


Feint = Callable[[Kind, Value, int], FactRecord]
"""From a good fact and the number of partitions to a bad record."""


def _text(value: Any) -> bytes:
    return json.dumps(value).encode()


def _valued(content: bytes | None) -> Feint:
    return lambda kind, value, _: FactRecord(kind.key_of(value), content)


def _changed(change: Callable[[Kind, Value], Value]) -> Feint:
    return lambda kind, value, _: FactRecord(kind.key_of(value), _text(value | change(kind, value)))


def _astray(kind: Kind, value: Value, partitions: int) -> int:
    return (partition_of(kind.key_of(value), partitions) + 1) % partitions


def _flipped(kind: Kind, value: Value, _: int) -> FactRecord:
    content = bytearray(_text(value))
    at = len(content) % len('{"user_id')  # before the end of the first name: it is no JSON then, or lacks a field
    content[at] ^= 1
    return FactRecord(kind.key_of(value), bytes(content))


def bomb(kind: Kind, value: Value, _: int) -> FactRecord:
    """A good fact, and then zeros: a batch that unpacks to more than is read."""
    key = kind.key_of(value)
    return FactRecord(key, None, raw=raw_batches.bomb(raw_batches.ZSTD, BIG_BOMB_BYTES, Raw(_text(value), key)))


FEINTS: Mapping[str, Feint] = {
    "not JSON": _valued(b"\xff\xfe{"),
    "no bytes": _valued(b""),
    "depth 10,000": _valued(b"[" * DEPTH + b"]" * DEPTH),
    "bomb": _valued(b" " * BOMB_BYTES),
    "a flipped bit": _flipped,
    "NUL": _changed(lambda kind, _: {kind.key[0]: "a\0"}),
    "lone surrogate": _changed(lambda kind, _: {kind.key[0]: "\ud800"}),
    "another's key": _changed(lambda kind, _: {kind.key[0]: "00000000-0000-4000-8000-000000000000"}),
    "a wrong field": _changed(lambda _, value: {"role": "root"} if "role" in value else {"user_id": 7}),
    "a field left out": lambda kind, value, _: FactRecord(
        kind.key_of(value), _text({name: each for name, each in value.items() if name != kind.key[-1]})
    ),
    "an envelope": lambda kind, value, _: FactRecord(
        kind.key_of(value),
        _text({"specversion": "1.0", "id": "1", "type": "fact", "source": "/x", "data": value}),
        (("content-type", b"application/cloudevents+json"),),
    ),
    "64 KiB key": lambda _k, value, _n: FactRecord(b"k" * 65_536, _text(value)),
    "tombstone of nothing": lambda _k, _v, _n: FactRecord(b"\xff\x00", None),
    "wrong partition": lambda kind, value, n: FactRecord(kind.key_of(value), _text(value), (), _astray(kind, value, n)),
    "tombstone on a wrong partition": lambda kind, value, n: FactRecord(
        kind.key_of(value), None, (), _astray(kind, value, n)
    ),
}
"""Ways to make a record that must not be believed, by name. One without a key isn't among them: a compacted topic takes
none."""


def good(numbers: random.Random, kind: Kind, now_ms: int) -> tuple[str, str | None, FactRecord]:
    """A good record in some odd form: the fact's key, its role (None where it is taken back), and the record."""
    role = numbers.choice(ROLES)
    value = kind.make(numbers.randrange(KEYS), role)
    key = kind.key_of(value)
    odd: Headers = (
        ("x-odd", b"\xff\xfe"),
        ("x-odd", b"again"),
        ("x-null", None),
        ("x-big", b"\xfe" * numbers.choice((0, 0, 0, HEADER_BYTES))),
    )
    gone = numbers.random() < 0.2
    content = None if gone else _text(value)
    record = FactRecord(key, content, odd, timestamp_ms=now_ms + AHEAD_MS if numbers.random() < 0.1 else 0)
    return key.decode(), None if gone else role if "role" in value else "", record


def good_raw(number: int, kind: Kind) -> tuple[str, str, FactRecord]:
    """A good record as no client library would send it. Its fact is its own: nothing says what overtakes what."""
    value = kind.make(KEYS + number, "user")
    key = kind.key_of(value)
    odd = Raw(_text(value), key, [(b"\xff\xfe", b"v"), (b"\xff\xfe", None)], attributes=0xFF)
    codec = number % 5
    record = FactRecord(key, _text(value), raw=raw_batches.batch(codec, [odd], timestamp=1_700_000_000_000))
    return key.decode(), "user" if "role" in value else "", record


class Facts:
    """Good and bad records for the reference topics, and what must have become of them."""

    def __init__(self, settings: Settings, seed: int, without: Sequence[str]) -> None:
        self._servers = settings.kafka.bootstrap_servers
        common: dict[str, Any] = {
            "bootstrap.servers": self._servers, "log_level": LOG_LEVEL, "partitioner": "murmur2_random", "linger.ms": 2
        }  # fmt: skip
        self._producers = [Producer(common | {"compression.type": codec}) for codec in CODECS]
        self._aborting = Producer(common | {"transactional.id": f"{settings.kafka.topic_prefix}poison"})
        self._aborting.init_transactions(30)
        self._topics = {kind.topic: getattr(settings.kafka.topics, kind.topic) for kind in KINDS}
        self._partitions = settings.kafka.partitions
        self._random = random.Random(seed)
        self._feints = [feint for name, feint in FEINTS.items() if name not in without]
        self.facts: dict[str, dict[str, str]] = {kind.topic: {} for kind in KINDS}
        """What each table must hold."""
        self.parked: set[tuple[str, int, int]] = set()
        """The coordinates of bad ones."""
        self.refused: list[str] = []

    def send(self, number: int) -> None:
        """One good record and a bad one."""
        kind = KINDS[number % len(KINDS)]
        if number % ROUGH_EVERY < len(KINDS):
            key, role, record = good_raw(number, kind)
        else:
            key, role, record = good(self._random, kind, time.time_ns() // 1_000_000)
        self.facts[kind.topic].pop(key, None)
        if role is not None:
            self.facts[kind.topic][key] = role
        self._produce(kind, record, key, bad=False)
        feint = self._random.choice(self._feints)
        if number % BOMB_EVERY < len(KINDS):
            feint = bomb
        self._produce(
            kind, feint(kind, kind.make(self._random.randrange(KEYS), "admin"), self._partitions), key, bad=True
        )

    def abort(self) -> None:
        """Make everybody an admin, and take it back."""
        self._aborting.begin_transaction()
        for kind in KINDS:
            for number in range(20):
                value = kind.make(number, "admin")
                self._aborting.produce(self._topics[kind.topic], json.dumps(value).encode(), kind.key_of(value))
        self._aborting.flush(30)
        self._aborting.abort_transaction(30)

    def flush(self) -> None:
        """Wait for all answers."""
        for each in self._producers:
            assert each.flush(60) == 0

    def _produce(self, kind: Kind, record: FactRecord, key: str, *, bad: bool) -> None:
        topic = self._topics[kind.topic]
        if record.raw is not None:
            partition = partition_of(record.key or b"", self._partitions)
            code, offset = asyncio.run(raw_batches.append(self._servers, topic, partition, record.raw))
            assert code == 0
            if bad:
                self.parked.add((kind.topic, partition, offset))
            return

        def answered(error: KafkaError | None, message: Message) -> None:
            if error is not None:
                self.refused.append(str(error))
            elif bad:
                self.parked.add((kind.topic, message.partition() or 0, message.offset() or 0))

        producer = self._producers[zlib.crc32(key.encode()) % len(CODECS)]  # one a key: the last one counts
        headers, at = list(record.headers), record.timestamp_ms
        producer.produce(topic, record.value, record.key, record.partition, answered, timestamp=at, headers=headers)
        producer.poll(0)

    async def read(self, database_url: str) -> tuple[dict[str, dict[str, str]], set[tuple[str, int, int]]]:
        """What the tables hold, and which records are parked, with a reason each."""
        conn = await asyncpg.connect(database_url)
        try:
            facts = {kind.topic: dict(await conn.fetch(kind.select)) for kind in KINDS}
            rows = await conn.fetch("SELECT topic, partition, \"offset\" FROM parked WHERE detail <> ''")
        finally:
            await conn.close()
        names = {topic: name for name, topic in self._topics.items()}
        return facts, {(names[row["topic"]], row["partition"], row["offset"]) for row in rows if row["topic"] in names}
