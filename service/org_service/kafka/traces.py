"""Whose a record is on a topic that the relay writes.

    orgs.results   the relay's, in transactions; and the replies of workers, which are in none
    orgs.events    the relay's; and those of a replay, which have one header more
    orgs.state     the relay's, and what operators' runs put there in its name: transactions, with a position

Anything else is foreign: a program writes there that must not.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple
from uuid import UUID

from org_events.topics import Topics
from org_service.kafka.client import TopicPartition
from org_service.kafka.logs import Batch, Bounds, Logs
from org_service.wire.changes import RUN_HEADER

FOREIGN: Final = (
    "{topic}, partition {partition}, offset {offset}: neither the relay nor a run of an operator wrote this record "
    "(key {key}, written at {time}{more}). Another program writes to a topic that is the relay's alone, and "
    "subscribers get what it writes. Nothing more is published. Find the program and stop it: only the relay's login "
    "should have Write on the topic. Then `orgs topics accept` lets the relay go on behind what is there."
)
"""What an operator can do."""
FOREIGN_MAX: Final = 100
"""Batches of a partition that are named."""
TEXT_MAX: Final = 100
"""Characters of a key, shown."""


class Own(NamedTuple):
    """The relay's own record."""

    position: int
    command_id: UUID | None
    """None where the record doesn't say."""
    end: int
    """The offset after its batch."""


class Foreign(NamedTuple):
    """A record that has no business where it is; the first one of its batch."""

    topic: str
    partition: int
    offset: int
    key: str | None
    written_at: datetime
    source: str | None
    """Its `ce_source`."""

    def explain(self) -> str:
        """What it is, and what an operator can do."""
        more = "" if self.source is None else f", its ce_source is {self.source!r}"
        at = self.written_at.isoformat(timespec="milliseconds")
        key = "null" if self.key is None else repr(self.key)
        return FOREIGN.format(
            topic=self.topic, partition=self.partition, offset=self.offset, key=key, time=at, more=more
        )


class Seen(NamedTuple):
    """What a stretch of a partition holds."""

    end: int
    """How far it could be read: up to an open transaction."""
    newest: Own | None
    foreign: Sequence[Foreign]


def of_the_relay_alone(topics: Topics) -> tuple[str, str]:
    """The topics to which nobody else writes but operators' runs."""
    return topics.events, topics.state


async def look(
    logs: Logs, topics: Topics, at: TopicPartition, span: tuple[int, int], beat: Callable[[], None] | None = None
) -> Seen:
    """Look at what is committed between two offsets of a partition, as far as no open transaction hides it.

    Raises:
        KafkaError: It can't be read.
    """
    bounds = (await logs.find_bounds([at]))[at]
    start, stop = max(span[0], bounds.begin), min(span[1], bounds.stable)
    newest: Own | None = None
    foreign: list[Foreign] = []
    async for batch in logs.read(at, start, stop):
        if beat is not None:
            beat()
        own = find_own(topics, at.topic, batch)
        if own is None and at.topic in of_the_relay_alone(topics) and not _is_of_run(at.topic, topics, batch):
            foreign += [_describe(at, batch)] if len(foreign) < FOREIGN_MAX else []
        newest = own if newest is None or (own is not None and own.position > newest.position) else newest
    return Seen(max(start, stop), newest, foreign)


async def find_last(logs: Logs, topics: Topics, at: TopicPartition, bounds: Bounds) -> Own | None:
    """The relay's last record in a partition; raises as `look`."""
    return await logs.find_last(at, bounds, lambda batch: find_own(topics, at.topic, batch))


def find_own(topics: Topics, topic: str, batch: Batch) -> Own | None:
    """The last record of a batch, if the relay wrote it."""
    if not batch.transactional:
        return None
    end = batch.last + 1
    owns = [
        _read(headers, end) for _, headers in batch.records() if topic != topics.events or RUN_HEADER not in headers
    ]
    return max((own for own in owns if own is not None), default=None, key=lambda own: own.position)


def _read(headers: Mapping[str, bytes], end: int) -> Own | None:
    position, command_id = headers.get("ce_position", b""), headers.get("ce_commandid")
    if not position.isdigit():
        return None
    try:
        return Own(int(position), None if command_id is None else UUID(command_id.decode("ascii", "replace")), end)
    except ValueError:
        return None


def _is_of_run(topic: str, topics: Topics, batch: Batch) -> bool:
    return topic == topics.events and any(RUN_HEADER in headers for _, headers in batch.records())


def _describe(at: TopicPartition, batch: Batch) -> Foreign:
    key, headers = next(batch.records())
    written_at = datetime.fromtimestamp(batch.time_ms / 1000, UTC)
    return Foreign(at.topic, at.partition, batch.first, _text(key), written_at, _text(headers.get("ce_source")))


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("utf-8", "backslashreplace")[:TEXT_MAX]
