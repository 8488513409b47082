"""The record on `orgs.relay` that says how far the journal is published.

It names the last row by its command id as well. The number alone would not do: when a backup is restored and new
commands are journaled before the relay looks, the journal grows past the number with other rows, and these would
never be published.

And it says where the relay's last record ends in each partition: a log that ends before that has lost what
Kafka acknowledged (guarantee 11). All ends are in each record, as plain numbers: the topic is compacted, so a record
can't lean on one before it.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple, cast
from uuid import UUID

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

PARTITION: Final = 0
"""`orgs.relay` has one partition, so that its records have one order."""


_JSON: Final = orjson.OPT_NON_STR_KEYS | orjson.OPT_UTC_Z

CLIENTS_KNOW_S: Final = 900.0
"""When every client has heard of a growth: it asks for the partitions every 5 minutes at the latest, unless told
otherwise; three times that."""


def by_topic(offsets: Iterable[tuple[tuple[str, int], int]]) -> dict[str, dict[int, int]] | None:
    """What is known of topics and their partitions, as a position says it; None where that is nothing."""
    told: dict[str, dict[int, int]] = {}
    for (topic, partition), offset in offsets:
        told.setdefault(topic, {})[partition] = offset
    return told or None


class NotAPosition(ValueError):
    """A record's value is not a position; the message says what is wrong with it."""


class Partitioning(NamedTuple):
    """Over how many partitions each of the four data topics spreads its keys."""

    partitions: int
    grown_from: int | None = None
    """How many there were before the last growth: a key that is on partition p now was on p modulo this."""
    grown_at: datetime | None = None
    grown_after: int | None = None
    """The last position that was published over the former number of partitions."""


class TopicEnds(NamedTuple):
    """Where the relay's own transactions left the partitions of one topic."""

    topic_id: UUID
    """Of another topic of the same name the ends say nothing."""
    ends: Sequence[int | None]
    """By partition: the offset after the relay's last record, whose marker follows; None where not known."""


class Position(BaseModel):
    """The last row published. Readers ignore members they don't know."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    position: int = Field(ge=0, description="In the journal")
    command_id: UUID | None = Field(default=None, description="Of the row there; null: do not compare")
    recorded_at: datetime | None = Field(default=None, description="When the row there was journaled")
    partitions: int | None = Field(default=None, ge=1, description="Of each data topic, for all that follows")
    grown_from: int | None = Field(default=None, ge=1, description="How many there were before the last growth")
    grown_at: datetime | None = Field(default=None, description="When they became more")
    grown_after: int | None = Field(default=None, description="The last position before they became more")
    ends: Mapping[str, TopicEnds] | None = Field(default=None, description="Of the partitions, by topic")
    looked: Mapping[str, Mapping[int, int]] | None = Field(
        default=None,
        description="By topic and partition: up to where what others wrote is known, if not the end in `ends`",
    )
    behind: Mapping[str, Mapping[int, int]] | None = Field(
        default=None, description="By topic and partition, where Kafka lost records: up to which position it holds all"
    )

    def to_value(self) -> bytes:
        """The record's value."""
        # Not by pydantic: with the ends of a hundred partitions it takes ten times as long, in each transaction.
        return orjson.dumps({name: value for name, value in self.__dict__.items() if value is not None}, _plain, _JSON)


def _plain(value: object) -> object:
    """A tuple with names, or a driver's own kind of UUID, as JSON knows it."""
    return [*cast("tuple[object, ...]", value)] if isinstance(value, tuple) else str(value)


class Published(NamedTuple):
    """How far the journal is published, as the last record says."""

    position: int
    command_id: UUID | None
    recorded_at: datetime
    """When this row was recorded, by its worker's clock; not before, where the record doesn't say."""
    partitioning: Partitioning | None = None
    """Of the data topics, for all that follows; None where the record doesn't say."""
    ends: Mapping[str, TopicEnds] | None = None
    """By topic; None where the record doesn't say."""
    behind: Mapping[str, Mapping[int, int]] | None = None
    """By topic and partition: those that hold all only up to an earlier position."""
    looked: Mapping[str, Mapping[int, int]] | None = None
    """By topic and partition: up to where what others wrote is known, where that isn't the end in `ends`."""


def read_position(value: bytes) -> Position:
    """Read a record's value.

    Raises:
        NotAPosition: It is none; publishing from a guessed one would lose or repeat events.
    """
    try:
        return Position.model_validate_json(value)
    except ValidationError as error:
        raise NotAPosition(str(error.errors(include_input=False))) from error


def read_published(value: bytes, timestamp_ms: int) -> Published:
    """Read a record; raises as `read_position`.

    Args:
        value: Of the record.
        timestamp_ms: Of the record, by the broker's clock.
    """
    last = read_position(value)
    # The next millisecond: the record's own time is cut, what was published was recorded before.
    at_latest = datetime.fromtimestamp((timestamp_ms + 1) / 1000, UTC)
    spread = (
        None
        if last.partitions is None
        else Partitioning(last.partitions, last.grown_from, last.grown_at, last.grown_after)
    )
    at = last.recorded_at or at_latest
    return Published(last.position, last.command_id, at, spread, last.ends, last.behind, last.looked)
