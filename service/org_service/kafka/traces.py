"""Whose a record is on a topic that the relay writes.

    orgs.results   the relay's, in transactions; and the replies of workers, which are in none
    orgs.events    the relay's; and those of a replay, which have one header more
    orgs.state     the relay's, and what operators' runs put there in its name: transactions, with a position

Anything else is foreign: a program writes there that must not.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
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
CLOCKS_DIFFER: Final = timedelta(minutes=1)
"""Between a worker, which says when a row was recorded, and who says when it was published."""
FindFollowing = Callable[[int], Awaitable[datetime | None]]


class Own(NamedTuple):
    """The relay's own record; of several, that of the highest position."""

    position: int
    command_id: UUID | None
    """None where the record doesn't say."""
    end: int
    """The offset after its batch, or after the last one of several."""


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
    logs: Logs,
    topics: Topics,
    at: TopicPartition,
    span: tuple[int, int],
    beat: Callable[[], None] | None = None,
    *,
    looked: int = 0,
) -> Seen:
    """Look at what is committed between two offsets of a partition, as far as no open transaction hides it.

    Args:
        logs: To read.
        topics: The names.
        at: Where.
        span: The offsets.
        beat: Called now and then.
        looked: What is foreign before this offset is known, and not told again.

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
        is_new = batch.first >= looked and at.topic in of_the_relay_alone(topics)
        if own is None and is_new and not _is_of_run(at.topic, topics, batch):
            foreign += [_describe(at, batch)] if len(foreign) < FOREIGN_MAX else []
        newest = _newest(newest, own)
    return Seen(max(start, stop), newest, foreign)


def _newest(before: Own | None, own: Own | None) -> Own | None:
    """Of two that follow each other, the one of the higher position: a repair sends old records again, at the end."""
    if before is None or own is None:
        return own or before
    return max(before, own, key=lambda each: each.position)._replace(end=own.end)


async def find_last(
    logs: Logs, topics: Topics, at: TopicPartition, bounds: Bounds, find_following: FindFollowing
) -> Own | None:
    """The newest of the relay's records in a partition, and where the last one ends; raises as `look`.

    A repair sends old records again, at the end. So what is before the last record is looked at, too, as far back as
    something newer may have been written: what is recorded later is published later.

    Args:
        logs: To read.
        topics: The names.
        at: Where.
        bounds: Of the partition.
        find_following: Says when the row after a position was recorded; None where there is none.
    """
    newest: Own | None = None
    async for batches in logs.read_back(at, bounds):
        found: Own | None = None
        for batch in batches:
            found = _newest(found, find_own(topics, at.topic, batch))
        newest = _newest(found, newest)
        if newest is not None and batches:
            following = await find_following(newest.position)
            if following is None or batches[0].time_ms < (following - CLOCKS_DIFFER).timestamp() * 1000:
                break
    return newest


def find_own(topics: Topics, topic: str, batch: Batch) -> Own | None:
    """The last record of a batch, if the relay wrote it."""
    if not batch.transactional:
        return None
    end = batch.last + 1
    owns = [
        _read(headers, end) for _, headers in batch.records() if topic != topics.events or RUN_HEADER not in headers
    ]
    return max((own for own in owns if own is not None), default=None, key=lambda own: own.position)


def is_of_relay(topics: Topics, topic: str, batch: Batch) -> bool:
    """Whether a batch in a transaction is the relay's, or a run's in its name; of its own topic that isn't asked.

    A replay in place may fill just what was lost, with the same number of records.
    """
    return topic == topics.relay or find_own(topics, topic, batch) is not None


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
