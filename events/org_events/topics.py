"""The topics as data: names, partitions, clean-up, and where a key goes."""

import re
import struct
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
        ValueError: Kafka would refuse topics of this prefix.
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

    def specs(self, *, partitions: int = PARTITIONS, events_retention_ms: int = 90 * DAY_MS) -> tuple[TopicSpec, ...]:
        """Every topic as it must be.

        Args:
            partitions: Of each data topic; the relay's own topic always has one.
            events_retention_ms: Of `orgs.events`; -1 keeps them for ever.
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

Timestamp = Literal["CreateTime", "LogAppendTime"]


def _deleted(
    name: str, partitions: int, holds: str, retention_ms: int, *, timestamp: Timestamp = "CreateTime"
) -> TopicSpec:
    config = {
        "cleanup.policy": "delete",
        "retention.ms": str(retention_ms),
        "retention.bytes": "-1",
        **_NEVER_UNCLEAN,
        "message.timestamp.type": timestamp,
        "max.message.bytes": str(RECORD_BATCH_BYTES_MAX),
    }
    return TopicSpec(name=name, partitions=partitions, holds=holds, config=config)


def _compacted(name: str, partitions: int, holds: str) -> TopicSpec:
    config = {
        "cleanup.policy": "compact",
        "delete.retention.ms": str(TOMBSTONES_KEPT_MS),
        **_NEVER_UNCLEAN,
        "message.timestamp.type": "CreateTime",
        "max.message.bytes": str(RECORD_BATCH_BYTES_MAX),
    }
    return TopicSpec(name=name, partitions=partitions, holds=holds, config=config)


_M: Final = 0x5BD1E995
_MASK: Final = 0xFFFFFFFF


def murmur2(data: bytes) -> int:
    """Kafka's 32-bit murmur2, unsigned (`org.apache.kafka.common.utils.Utils.murmur2`)."""
    length = len(data)
    h = 0x9747B28C ^ length
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
