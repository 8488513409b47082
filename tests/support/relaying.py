"""For tests of the relay: a journal filled by hand, relays run and stopped, and what subscribers then see."""

import asyncio
import json
import uuid
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NoReturn

from pydantic import SecretStr

from org_service.kafka.client import TopicPartition
from org_service.kafka.producer import Producer
from org_service.operate import runs
from org_service.operate.verifying.repair import Item, Parameters, Repair
from org_service.operate.verifying.report import Kind
from org_service.relay import Relay
from org_service.relay.chunks import Chunk, Layout
from org_service.relay.ends import make_position_batch
from org_service.relay.source import Source
from org_service.settings import Settings
from org_service.wire.position import PARTITION, Partitioning
from tests.support.database import connected
from tests.support.observed import Record, TopicReader

RECORDED_AT = datetime.now(UTC)
"""Of rows that don't say otherwise. Recent, because brokers clean up by it: a segment whose first record is older than
a week is closed at once, and compacted or deleted behind a test's back."""
COLUMNS = (
    "position", "command_id", "org_id", "version", "command_type", "event_type", "outcome", "code", "actor",
    "request_digest", "command_partition", "command_offset", "changed", "before", "after", "problem", "traceparent",
    "recorded_at",
)  # fmt: skip


def org(number: int) -> uuid.UUID:
    """The id of the test organization of this number."""
    return uuid.UUID(int=0x0A000000_0000_4000_8000_000000000000 + number)


def organization(org_id: uuid.UUID, version: int, name: str = "Acme") -> str:
    """The JSON of an organization, about as long as a real one."""
    return json.dumps(
        {
            "id": str(org_id),
            "name": f"{name} {version}",
            "domain": f"acme-{version}.example.com",
            "created_at": "2026-03-01T12:00:00Z",
            "updated_at": "2026-03-01T12:00:00Z",
            "primary_address": {
                "line1": "Karl Johans gate 1",
                "line2": None,
                "city": "Oslo",
                "region": None,
                "postal_code": "0154",
                "country": "NO",
            },
            "deactivated": False,
            "deactivated_at": None,
            "version": version,
        },
        separators=(",", ":"),
    )


def applied(org_id: uuid.UUID, version: int, **others: Any) -> dict[str, Any]:
    """The row of an applied update."""
    return {
        "org_id": org_id,
        "version": version,
        "command_type": "org.update",
        "event_type": "org.updated",
        "outcome": "applied",
        "code": 200,
        "changed": '["name"]',
        "before": organization(org_id, version - 1),
        "after": organization(org_id, version),
        **others,
    }


def changes(count: int, *, orgs: int = 7, after: int = 0) -> list[dict[str, Any]]:
    """`count` applied rows over some organizations, versions 1, 2, 3 … of each, going on after `after` rows."""
    return [applied(org(at % orgs), at // orgs + 1) for at in range(after, after + count)]


async def journal(settings: Settings, rows: Iterable[dict[str, Any]], *, notify: bool = True) -> int:
    """Append rows to the journal as the worker would, in one transaction; returns the new head."""
    async with connected(settings) as connection, connection.transaction():
        wanted = list(rows)
        head = await connection.fetchval(
            "UPDATE journal_head SET position = position + $1 RETURNING position", len(wanted)
        )
        assert head is not None
        start = head - len(wanted)
        records = [
            tuple(
                {
                    "position": start + place,
                    "command_id": uuid.UUID(int=(5 << 96) + start + place),
                    "actor": None,
                    "request_digest": b"digest",
                    "command_partition": 0,
                    "command_offset": start + place,
                    "recorded_at": RECORDED_AT,
                    **row,
                }.get(column)
                for column in COLUMNS
            )
            for place, row in enumerate(wanted, 1)
        ]
        await connection.copy_records_to_table("journal", records=records, columns=COLUMNS)
        if notify:
            await connection.execute("NOTIFY orgs_journal")
    return head


def relay_settings(
    settings: Settings, *, bootstrap_servers: str = "", database_url: str = "", **relay: Any
) -> Settings:
    """The settings with some of the relay's, or another way to Kafka or Postgres."""
    update: dict[str, Any] = {"relay": settings.relay.model_copy(update=relay)}
    if bootstrap_servers:
        update["kafka"] = settings.kafka.model_copy(update={"bootstrap_servers": bootstrap_servers})
    if database_url:
        update["database"] = settings.database.model_copy(update={"url": SecretStr(database_url)})
    return settings.model_copy(update=update)


@dataclass
class Running:
    """A relay in a task of its own."""

    relay: Relay
    stop: asyncio.Event
    task: asyncio.Task[None]

    async def published(self, position: int, timeout_s: float = 30) -> None:
        """Wait until everything up to `position` is published, by this relay or before it."""
        await self.until(lambda relay: (relay.position or 0) >= position, timeout_s)

    async def until(self, reached: Callable[[Relay], bool], timeout_s: float = 30) -> None:
        """Wait for a state of the relay; its own error ends the wait."""
        waiting = asyncio.create_task(self.relay.wait_until(reached))
        done, _ = await asyncio.wait({waiting, self.task}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if self.task in done:
            self.task.result()
        assert waiting in done, f"not in {timeout_s} s: {self.relay.state}, position {self.relay.position}"

    async def drained(self) -> None:
        """Stop in good order."""
        self.stop.set()
        await asyncio.wait_for(self.task, 30)

    async def killed(self) -> None:
        """End without a word to anybody but the operating system, as SIGKILL would."""
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


@asynccontextmanager
async def running(settings: Settings) -> AsyncGenerator[Running]:
    """Run a relay; stop it at the end unless that was done."""
    relay, stop = Relay(settings), asyncio.Event()
    run = Running(relay, stop, asyncio.create_task(relay.run(stop)))
    try:
        yield run
    finally:
        stop.set()
        _, late = await asyncio.wait({run.task}, timeout=30)
        if late:
            await run.killed()
    if not run.task.cancelled() and run.task.exception() is not None and not late:
        run.task.result()


class _TakenBackError(Exception):
    pass


async def take_back(settings: Settings, after: int, rows: int) -> None:
    """What a relay leaves behind that comes upon a loss: rows are written, and taken back."""
    async with _chunk(settings, after, rows) as (producer, chunk, layout):

        async def refuse(_: object) -> NoReturn:
            raise _TakenBackError

        own = {TopicPartition(layout.topics.relay, PARTITION): [make_position_batch(layout, chunk.last)]}
        with suppress(_TakenBackError):
            await producer.publish({**chunk.batches, **own}, refuse)
        await producer.begin()


async def publish_without_ends(settings: Settings, after: int, rows: int) -> None:
    """What a relay of an earlier release does: its position says where it is, and of no partition where it ends."""
    async with _chunk(settings, after, rows) as (producer, chunk, layout):
        own = {TopicPartition(layout.topics.relay, PARTITION): [make_position_batch(layout, chunk.last)]}
        await producer.publish({**chunk.batches, **own})


async def send_again(settings: Settings, kind: Kind, positions: Iterable[int]) -> None:
    """A repair of what is said to be missing; the relay's position stays."""
    items = tuple(Item(kind=kind, subject=str(org(0)), position=position) for position in positions)
    tool = Repair(settings, Parameters(verified=0, items=items).model_dump(mode="json"))
    planned, _ = await runs.keep_plan(settings, tool, requested_by="ann", reason="test")
    done = await runs.run(settings, planned.id)
    assert done.counts == {"repaired": len(items)}


@asynccontextmanager
async def _chunk(settings: Settings, after: int, rows: int) -> AsyncGenerator[tuple[Producer, Chunk, Layout]]:
    topics = settings.kafka.topics
    source, producer = Source(settings.database), Producer(settings.kafka, _transactional_id(settings), 10_000)
    try:
        partitions = await producer.start([topics.events, topics.state, topics.results, topics.relay])
        layout = Layout(topics, partitions, settings.relay.name, Partitioning(settings.kafka.partitions))
        chunk = await source.read_next_chunk(after, layout, rows)
        assert chunk is not None
        yield producer, chunk, layout
    finally:
        await producer.close()
        await source.close()


def _transactional_id(settings: Settings) -> str:
    return f"{settings.kafka.topic_prefix}{settings.relay.name}"


@dataclass
class Seen:
    """All that a `read_committed` subscriber finds."""

    events: list[Record]
    results: list[Record]
    state: list[Record]
    relay: list[Record]

    def event_positions(self) -> list[int]:
        """Of every event, sorted."""
        return sorted(int(event.header("ce_position") or 0) for event in self.events)

    def relayed(self) -> list[int]:
        """The positions on `orgs.relay`, in order."""
        return [json.loads(record.value or b"0")["position"] for record in self.relay]


async def seen(settings: Settings, *, settle: bool = True) -> Seen:
    """Read everything that is committed, with a client of another make.

    A commit is certain before its markers are written everywhere, so a subscriber may see it some milliseconds later.
    `settle` waits for that, by a producer that fences the relay's last one: only when no relay runs any more.
    """
    topics = settings.kafka.topics
    if settle:
        fence = Producer(settings.kafka, _transactional_id(settings), 10_000)
        try:
            await fence.start([topics.relay])
        finally:
            await fence.close()

    def read() -> Seen:
        reader = TopicReader(settings.kafka.bootstrap_servers)
        try:
            records, _ = reader.read((topics.events, topics.results, topics.state, topics.relay), {})
            return Seen(*(records[name] for name in (topics.events, topics.results, topics.state, topics.relay)))
        finally:
            reader.close()

    return await asyncio.to_thread(read)


def assert_exactly_once(seen: Seen, positions: Sequence[int]) -> None:
    """Each position has one event, one result and one state record; each organization's stand in order."""
    for name, records in (("events", seen.events), ("results", seen.results), ("state", seen.state)):
        found = Counter(int(record.header("ce_position") or 0) for record in records)
        lost, twice = sorted(set(positions) - set(found)), sorted(at for at, times in found.items() if times > 1)
        assert not lost, f"{name} lack {lost}, the relay's positions are {seen.relayed()}"
        assert not twice, f"{name} have {twice} more than once, the relay's positions are {seen.relayed()}"
        assert sorted(found) == list(positions)
        last: dict[bytes | None, int] = {}
        for record in records:
            position = int(record.header("ce_position") or 0)
            assert last.get(record.key, 0) < position, f"{name} of {record.key!r} are out of order at {position}"
            last[record.key] = position
    assert seen.relayed() == sorted(set(seen.relayed()))
    assert seen.relayed()[-1] == positions[-1]


def only(records: Sequence[Record]) -> Record:
    """The one record there is."""
    [record] = records
    return record
