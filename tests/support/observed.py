"""What is really there: topics read by librdkafka (a client the service doesn't use), tables by plain SQL.

Nothing is judged here. Topics are read `read_committed` up to the last stable offset, so records of a transaction that
is still open are not seen; ask when the relay has nothing left to do.
"""

import asyncio
import gc
import time
from collections.abc import Container, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, cast

import asyncpg
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from org_events.topics import Topics
from tests.support.record_transactions import Place, marker_of, read_spans

LOG_LEVEL = 2
"""librdkafka writes to standard error what is worse than an error (syslog's "critical"); errors are raised anyway."""
CONSUME_S = 0.01
"""librdkafka waits this long for a full chunk of messages: the delay in seeing that the end is reached."""


@dataclass(frozen=True, slots=True)
class Record:
    """A Kafka record as any client would give it."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    timestamp_type: int = 1
    """The broker's time, unless told otherwise."""
    marker: int | None = None
    """Offset of the marker that ended its transaction; None where it was written in none, or nobody looked."""

    def header(self, name: str) -> str | None:
        """The last header of this name as text."""
        content = dict(self.headers).get(name)
        return content.decode() if content is not None else None


@dataclass(frozen=True, slots=True)
class JournaledOutcome:
    """A row of `journal`; JSON columns as text."""

    position: int
    command_id: str
    org_id: str | None
    version: int | None
    event_type: str | None
    outcome: str
    code: int
    command_partition: int
    command_offset: int
    changed: str | None
    before: str | None
    after: str | None
    problem: str | None
    actor: str | None
    traceparent: str | None
    recorded_at: datetime


@dataclass(slots=True)
class Observed:
    """Everything the checker judges, from some point on."""

    commands: list[Record] = field(default_factory=list[Record])
    results: list[Record] = field(default_factory=list[Record])
    events: list[Record] = field(default_factory=list[Record])
    replayed: list[Record] = field(default_factory=list[Record])
    """Events that a run of an operator sent again."""
    state: list[Record] = field(default_factory=list[Record])
    relay: list[Record] = field(default_factory=list[Record])
    """The relay's own positions."""
    journal: list[JournaledOutcome] = field(default_factory=list[JournaledOutcome])
    """In order of position."""
    organizations: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    """Rows of `organization` by id, deleted ones included."""
    parked: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    head: int = 0
    """Of `journal_head`."""
    partitions: int = 1
    """Of each data topic."""
    position_start: int = 0
    """Only what the journal holds after this position was read."""


@dataclass(frozen=True, slots=True)
class Since:
    """Where to begin reading; the default is the beginning of everything."""

    offsets: Mapping[Place, int] = field(default_factory=dict[Place, int])
    position: int = 0


class TopicReader:
    """Reads topics from given offsets to their ends, again and again. Not safe for concurrent use."""

    def __init__(self, bootstrap_servers: str) -> None:
        self._bootstrap_servers = bootstrap_servers
        self.blind: Container[tuple[str, int, int]] = ()
        """Records whose headers it doesn't look at: names that are not UTF-8 crash it."""
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap_servers,
                "group.id": "checker",
                "log_level": LOG_LEVEL,
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "auto.offset.reset": "earliest",
                # The broker holds an empty answer back for this long, and an end is an empty answer.
                "fetch.wait.max.ms": 5,
                "queued.max.messages.kbytes": 65_536,
            }
        )

    def close(self) -> None:
        """Give the connections back."""
        self._consumer.close()

    def read(
        self, topics: Iterable[str], since: Mapping[Place, int], *, timeout_s: float = 60
    ) -> tuple[dict[str, list[Record]], dict[Place, int]]:
        """Read whole topics.

        Returns:
            The records by topic, in offset order within a partition; and where each partition ended.

        Raises:
            TimeoutError: The ends were not reached in time.
            KafkaException: The broker refuses, or a topic doesn't exist.
        """
        found: dict[str, list[Record]] = {topic: [] for topic in topics}
        places = [(topic, partition) for topic in found for partition in self.partitions(topic)]
        self._consumer.assign([TopicPartition(topic, part, since.get((topic, part), 0)) for topic, part in places])
        ends: dict[Place, int] = {}
        deadline = time.monotonic() + timeout_s
        while len(ends) < len(places):
            if time.monotonic() > deadline:
                raise TimeoutError(f"the ends of {sorted(set(places) - set(ends))} were not reached in {timeout_s} s")
            for message in self._consumer.consume(10_000, CONSUME_S):
                error = message.error()
                if error is None:
                    found[message.topic() or ""].append(_record(message, self.blind))
                elif error.code() == KafkaError._PARTITION_EOF:
                    ends[message.topic() or "", message.partition() or 0] = message.offset() or 0
                else:
                    raise KafkaException(error)
        self._consumer.unassign()
        return found, ends

    def marked(self, found: Mapping[str, Sequence[Record]], since: Mapping[Place, int]) -> dict[str, list[Record]]:
        """The same records by topic, each with the marker of its transaction."""
        places = {(record.topic, record.partition) for records in found.values() for record in records}
        spans = read_spans(self._bootstrap_servers, places, since)
        return {
            topic: [
                replace(record, marker=marker_of(spans[topic, record.partition], record.offset)) for record in records
            ]
            for topic, records in found.items()
        }

    def partitions(self, topic: str) -> list[int]:
        """The partitions of a topic.

        Raises:
            KafkaException: There is none of this name.
        """
        described = self._consumer.list_topics(topic, timeout=10).topics[topic]
        if described.error is not None:
            raise KafkaException(described.error)
        return sorted(described.partitions)


def _record(message: Message, blind: Container[tuple[str, int, int]]) -> Record:
    at = message.topic() or "", message.partition() or 0, message.offset() or 0
    headers = () if at in blind else message.headers() or ()
    return Record(
        *at,
        message.timestamp()[1],
        _bytes(message.key()),
        _bytes(message.value()),
        tuple(cast("list[tuple[str, bytes | None]]", headers)),
    )


def _bytes(content: str | bytes | None) -> bytes | None:
    return content.encode() if isinstance(content, str) else content


JOURNAL_SQL = """
SELECT position, command_id::text, org_id::text, version, event_type, outcome, code, command_partition, command_offset,
       changed, before, after, problem, actor, traceparent, recorded_at
FROM journal WHERE position > $1 ORDER BY position
"""
ORGANIZATIONS_SQL = """
SELECT id::text, name, name_key, domain, primary_address::text, created_at, updated_at, deactivated_at, deleted_at,
       version
FROM organization WHERE $1::text[] IS NULL OR id::text = ANY ($1::text[])
"""
PARKED_SQL = """SELECT topic, partition, "offset", org_id::text, command_id::text, reason, state, detail FROM parked"""


async def read_tables(database_url: str, position: int, org_ids: Iterable[str] | None) -> Observed:
    """Read the tables, in one snapshot.

    Args:
        database_url: As any libpq program takes it; the login must be able to read the tables.
        position: Journal rows after this one only.
        org_ids: Only these organizations; None reads all.
    """
    conn = await asyncpg.connect(database_url)
    try:
        async with conn.transaction(isolation="repeatable_read", readonly=True):
            observed = Observed(position_start=position)
            observed.journal = [JournaledOutcome(*row) for row in await conn.fetch(JOURNAL_SQL, position)]
            wanted = None if org_ids is None else list(org_ids)
            rows = await conn.fetch(ORGANIZATIONS_SQL, wanted)
            observed.organizations = {row["id"]: dict(row) for row in rows}
            observed.parked = [dict(row) for row in await conn.fetch(PARKED_SQL)]
            observed.head = await conn.fetchval("SELECT position FROM journal_head")
            return observed
    finally:
        await conn.close()


def is_of_replay(position: Record) -> bool:
    """Whether a record of the relay's topic says how far a replay is, not the relay."""
    return (position.key or b"").startswith(b"replay ")


@contextmanager
def paused_collector() -> Generator[None]:
    """No garbage collection: of millions of objects that all stay, it would take half of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@paused_collector()
def observe(
    reader: TopicReader,
    database_url: str,
    topics: Topics,
    since: Since | None = None,
    *,
    org_ids: Iterable[str] | None = None,
) -> Observed:
    """Read everything there is after some point. Runs an event loop of its own: call it from a thread without one."""
    since = since or Since()
    records, _ = reader.read(
        (topics.commands, topics.results, topics.events, topics.state, topics.relay), since.offsets
    )
    observed = asyncio.run(read_tables(database_url, since.position, org_ids))
    observed.partitions = len(reader.partitions(topics.commands))
    observed.commands = records.pop(topics.commands)
    published = reader.marked(records, since.offsets)
    observed.results = published[topics.results]
    for record in published[topics.events]:
        (observed.replayed if record.header("ce_replayrun") else observed.events).append(record)
    observed.state = published[topics.state]
    observed.relay = [record for record in published[topics.relay] if not is_of_replay(record)]
    parked_from = since.offsets
    observed.parked = [
        row for row in observed.parked if row["offset"] >= parked_from.get((topics.commands, row["partition"]), 0)
    ]
    return observed
