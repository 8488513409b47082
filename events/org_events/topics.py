"""The topics as data: names, partitions, clean-up, and where a key goes."""

import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

PARTITIONS: Final = 12
"""Of each of the four data topics, so that a subscriber may co-partition them."""

_PREFIX: Final = re.compile(r"[a-zA-Z0-9._-]{0,100}")
"""Kafka's own alphabet for topic names (at most 249 characters in all)."""

DAY_MS: Final = 24 * 60 * 60 * 1000
TOMBSTONES_KEPT_MS: Final = 7 * DAY_MS
"""On compacted topics: a reader that was away for longer may never learn that something was deleted. Kafka's default of
a day is one weekend too short."""
ROLLED_MS: Final = DAY_MS
"""A segment takes records for so long; Kafka removes whole segments, and compacts none that still takes records. With
its default of a week, what a topic should keep for 3 days is there for 10."""
COMPACTED_MS: Final = DAY_MS
"""On compacted topics: what a later record of its key has replaced goes within so long, once its segment is full or
rolled. By default it may stay for ever, so nobody could say when what was erased is gone."""
RECORD_BATCH_BYTES_MAX: Final = 1024 * 1024 + 12
"""What a topic must take in one record batch, all headers included: Kafka's default of `max.message.bytes`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicSpec:
    """One topic as it must be; `config` uses Kafka's own names and string values."""

    name: str
    partitions: int
    holds: str
    config: dict[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class Topics:
    """The names of all topics, under an optional prefix (`staging.` gives `staging.orgs.commands`).

    Raises:
        ValueError: Kafka would reject topics of this prefix.
    """

    prefix: str = ""

    def __post_init__(self) -> None:
        if not _PREFIX.fullmatch(self.prefix):
            raise ValueError(f"a topic prefix is at most 100 of a-z, A-Z, 0-9, '.', '_' and '-', not {self.prefix!r}")

    @property
    def commands(self) -> str:
        """Commands in."""
        return f"{self.prefix}orgs.commands"

    @property
    def results(self) -> str:
        """The outcome of every command."""
        return f"{self.prefix}orgs.results"

    @property
    def events(self) -> str:
        """Every change, before and after."""
        return f"{self.prefix}orgs.events"

    @property
    def state(self) -> str:
        """The whole organization, compacted; a tombstone after delete."""
        return f"{self.prefix}orgs.state"

    @property
    def relay(self) -> str:
        """The last journal position published."""
        return f"{self.prefix}orgs.relay"

    @property
    def memberships(self) -> str:
        """Which users belong to which organizations; fed by another service."""
        return f"{self.prefix}orgs.memberships"

    @property
    def partnerships(self) -> str:
        """Which organizations serve which others; fed by another service."""
        return f"{self.prefix}orgs.partnerships"

    @property
    def staff(self) -> str:
        """Who works for the platform; fed by another service."""
        return f"{self.prefix}orgs.staff"

    @property
    def data(self) -> tuple[str, str, str, str]:
        """The four topics of organizations, which have the same keys and the same number of partitions."""
        return self.commands, self.results, self.events, self.state

    def specs(self, *, partitions: int = PARTITIONS, events_retention_ms: int = 90 * DAY_MS) -> tuple[TopicSpec, ...]:
        """Every topic as it must be.

        Args:
            partitions: Of each data topic; the relay's own topic always has one.
            events_retention_ms: Of `orgs.events`; -1 keeps them forever.
        """
        return (
            _deleted(self.commands, partitions, "commands", 14 * DAY_MS, timestamp="LogAppendTime"),
            _deleted(self.results, partitions, "the outcome of every command", 3 * DAY_MS),
            _deleted(self.events, partitions, "every change, before and after", events_retention_ms),
            _compacted(self.state, partitions, "the whole organization; a tombstone after delete"),
            _compacted(self.relay, 1, "the last journal position published"),
            _compacted(self.memberships, partitions, "which users belong to which organizations"),
            _compacted(self.partnerships, partitions, "which organizations serve which others"),
            _compacted(self.staff, partitions, "who works for the platform"),
        )


_NEVER_UNCLEAN: Final = {"unclean.leader.election.enable": "false"}
"""Kafka's default, but not that of every provider: a replica that lags would lead, and acknowledged records be gone."""

AS_PRODUCED: Final = "producer"
"""A broker keeps batches as publishers compressed them. All readers know all codecs, so another value does no harm; but
a broker that compresses again spends its own time on what publishers chose."""

Timestamp = Literal["CreateTime", "LogAppendTime"]


def _deleted(
    name: str, partitions: int, holds: str, retention_ms: int, *, timestamp: Timestamp = "CreateTime"
) -> TopicSpec:
    config = {
        "cleanup.policy": "delete",
        "retention.ms": str(retention_ms),
        "retention.bytes": "-1",
        "segment.ms": str(ROLLED_MS),
        **_NEVER_UNCLEAN,
        "message.timestamp.type": timestamp,
        "max.message.bytes": str(RECORD_BATCH_BYTES_MAX),
        "compression.type": AS_PRODUCED,
    }
    return TopicSpec(name=name, partitions=partitions, holds=holds, config=config)


def _compacted(name: str, partitions: int, holds: str) -> TopicSpec:
    config = {
        "cleanup.policy": "compact",
        "delete.retention.ms": str(TOMBSTONES_KEPT_MS),
        "max.compaction.lag.ms": str(COMPACTED_MS),
        "segment.ms": str(ROLLED_MS),
        **_NEVER_UNCLEAN,
        "message.timestamp.type": "CreateTime",
        "max.message.bytes": str(RECORD_BATCH_BYTES_MAX),
        "compression.type": AS_PRODUCED,
    }
    return TopicSpec(name=name, partitions=partitions, holds=holds, config=config)


_M: Final = 0x5BD1E995
_MASK: Final = 0xFFFFFFFF
_SEED: Final = 0x9747B28C
_LANE_BYTES: Final = 8
_LANES_MIN: Final = 16
"""Fewer keys of one length are quicker one by one."""


def murmur2(data: bytes) -> int:
    """Kafka's 32-bit murmur2, unsigned (`org.apache.kafka.common.utils.Utils.murmur2`)."""
    length = len(data)
    h = _SEED ^ length
    whole = length & ~3
    for k in struct.unpack_from(f"<{whole >> 2}I", data):
        k = k * _M & _MASK  # noqa: PLW2901
        k = (k ^ k >> 24) * _M & _MASK  # noqa: PLW2901
        h = h * _M & _MASK ^ k
    rest = data[whole:]
    if rest:
        h = (h ^ int.from_bytes(rest, "little")) * _M & _MASK
    h = (h ^ h >> 13) * _M & _MASK
    return h ^ h >> 15


def partition_for(key: bytes, partitions: int) -> int:
    """The partition of `key` under Kafka's default partitioner, the same in every client of the contract.

    librdkafka's default is another one: its clients must set `partitioner=murmur2_random`.
    """
    return (murmur2(key) & 0x7FFFFFFF) % partitions


def partitions_for(keys: Sequence[bytes], partitions: int) -> list[int]:
    """`partition_for` of many keys, in their order, at a tenth of the cost or less where many have the same length.

    Python's integers are as long as they need to be: one of them holds a 64-bit lane a key, and one operation on it
    is one step of murmur2 for all keys. 32 bits times the 31 of the constant fit a lane, so none spills into the next.
    """
    by_length: dict[int, list[int]] = {}
    for index, key in enumerate(keys):
        by_length.setdefault(len(key), []).append(index)
    found = [0] * len(keys)
    for length, indexes in by_length.items():
        if len(indexes) < _LANES_MIN:
            hashes: Sequence[int] = [murmur2(keys[index]) for index in indexes]
        else:
            hashes = _murmur2_lanes(b"".join([keys[index] for index in indexes]), length, len(indexes))
        for index, each in zip(indexes, hashes, strict=True):
            found[index] = (each & 0x7FFFFFFF) % partitions
    return found


def _murmur2_lanes(joined: bytes, length: int, count: int) -> Sequence[int]:
    """The murmur2 of `count` keys of one length, which are given as one."""
    ones = int.from_bytes((b"\1" + bytes(_LANE_BYTES - 1)) * count, "little")
    mask = _MASK * ones

    def word(start: int, end: int) -> int:
        """These bytes of every key, in its lane."""
        lanes = bytearray(_LANE_BYTES * count)
        for at in range(start, end):
            lanes[at - start :: _LANE_BYTES] = joined[at::length]
        return int.from_bytes(lanes, "little")

    h = (_SEED ^ length) * ones
    whole = length & ~3
    for start in range(0, whole, 4):
        k = word(start, start + 4) * _M & mask
        k = (k ^ k >> 24 & 0xFF * ones) * _M & mask
        h = h * _M & mask ^ k
    if whole < length:
        h = (h ^ word(whole, length)) * _M & mask
    h = (h ^ h >> 13 & 0x7FFFF * ones) * _M & mask
    h ^= h >> 15 & 0x1FFFF * ones
    return struct.unpack(f"<{count}Q", h.to_bytes(_LANE_BYTES * count, "little"))
