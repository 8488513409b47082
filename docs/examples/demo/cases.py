"""What the demo sends, and how it tells what comes back."""

import asyncio
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from aiokafka import AIOKafkaProducer
from rich.console import Console

from org_events import (
    Address,
    Command,
    DeactivateOrganization,
    DeleteOrganization,
    ReactivateOrganization,
    RestoreOrganization,
    Result,
    UpdateOrganization,
    command_headers,
    partition_for,
)
from org_events.publishing import OrganizationClient
from org_service.cli import render, render_parked
from org_service.cli.tail import line
from org_service.kafka.reader import Record
from org_service.operate import organizations_file, progress, tail
from org_service.operate.organizations_file import BadLine, Row
from org_service.settings import KafkaSettings, Settings
from org_service.store import parked_queues
from org_service.store.database import Database
from org_service.store.parked_queues import ParkedFilter

FILE = Path(__file__).with_name("organizations.jsonl")
ARRIVAL_TIMEOUT_S = 20.0
POLL_S = 0.05

console = Console(highlight=False, soft_wrap=True)


def heading(text: str) -> None:
    """What comes next."""
    console.print(f"\n[bold]▸ {text}[/]")


def note(text: str) -> None:
    """An aside."""
    console.print(f"  {text}", style="dim", markup=False)


class Watch:
    """Follows results and events as any subscriber would, and lets others wait for one of them."""

    def __init__(self, kafka: KafkaSettings) -> None:
        self._kafka = kafka
        self._seen: dict[str, dict[str, Record]] = {"results": {}, "events": {}}
        self._arrived = asyncio.Condition()
        self.sample_every: int | None = None
        """Show each n-th result and event by itself, while many come."""

    async def follow(self, what: str) -> None:
        """Read a topic forever."""
        topic = {"results": self._kafka.topics.results, "events": self._kafka.topics.events}[what]
        seen = self._seen[what]
        async for records in tail.watch(self._kafka, topic, tail.View(from_start=True)):
            for record in records:
                seen[(dict(record.headers)["ce_commandid"] or b"").decode()] = record
                if self.sample_every is not None and len(seen) % self.sample_every == 0:
                    console.print(f"  {len(seen):5} {what:<8}", end="")
                    self.show(what, record)
            async with self._arrived:
                self._arrived.notify_all()

    async def arrival(self, what: str, command_id: UUID) -> Record:
        """The result or event of a command, as soon as it is there."""
        async with asyncio.timeout(ARRIVAL_TIMEOUT_S), self._arrived:
            await self._arrived.wait_for(lambda: str(command_id) in self._seen[what])
        return self._seen[what][str(command_id)]

    async def all_events(self, count: int) -> None:
        """Wait until so many events have arrived."""
        async with asyncio.timeout(ARRIVAL_TIMEOUT_S), self._arrived:
            await self._arrived.wait_for(lambda: len(self._seen["events"]) >= count)

    @staticmethod
    def show(what: str, record: Record) -> None:
        """One line about a result or an event."""
        console.print(f"  {what.removesuffix('s'):>7}", line("events" if what == "events" else "results", record))


class Demo:
    """What the cases share: a client, the watch, and a count of its own of what was sent."""

    def __init__(
        self, settings: Settings, client: OrganizationClient, producer: AIOKafkaProducer, watch: Watch
    ) -> None:
        self.settings = settings
        self.client = client
        self.watch = watch
        self.sent: set[UUID] = set()
        self.applied = 0
        self._producer = producer
        self.rows: list[Row] = []

    async def execute(self, command: Command, *, command_id: UUID | None = None) -> Result:
        """Send a command, show its outcome and its event as they arrive."""
        command_id = command_id or uuid4()
        result = await self.client.execute(command, command_id=command_id)
        await self._told(result, command_id)
        return result

    async def execute_at_once(self, commands: Sequence[Command]) -> list[Result]:
        """Send commands one after the other without waiting in between."""
        pairs = [(uuid4(), command) for command in commands]
        results = [result async for result in self.client.execute_many(pairs)]
        for (command_id, _), result in zip(pairs, results, strict=True):
            await self._told(result, command_id)
        return results

    async def execute_many(self, pairs: Iterable[tuple[UUID, Command]], *, sample_every: int) -> None:
        """Send many commands, show samples of what comes back."""
        started, count = time.perf_counter(), 0
        self.watch.sample_every = sample_every
        async for result in self.client.execute_many(self._noted(pairs)):
            count += 1
            self.applied += result.outcome == "applied"
        await self.watch.all_events(self.applied)
        self.watch.sample_every = None
        note(
            f"{count} commands, {count / (time.perf_counter() - started):,.0f} a second from sending to the last event"
        )

    async def raw(self, key: bytes, headers: list[tuple[str, bytes]], value: bytes) -> None:
        """Send bytes, as a broken publisher would."""
        await self._producer.send_and_wait(self.settings.kafka.topics.commands, value, key=key, headers=headers)

    async def raw_command(self, command_type: str, org_id: UUID, value: bytes) -> None:
        """Send a body that no client would send, and show its outcome."""
        command_id = uuid4()
        self.sent.add(command_id)
        headers = command_headers(command_id=command_id, command_type=command_type, source="/demo/broken")
        await self.raw(str(org_id).encode(), headers, value)
        self.watch.show("results", await self.watch.arrival("results", command_id))

    def _noted(self, pairs: Iterable[tuple[UUID, Command]]) -> Iterator[tuple[UUID, Command]]:
        for command_id, command in pairs:
            self.sent.add(command_id)
            yield command_id, command

    async def _told(self, result: Result, command_id: UUID) -> None:
        first_time = command_id not in self.sent
        self.sent.add(command_id)
        self.watch.show("results", await self.watch.arrival("results", command_id))
        if result.outcome == "applied" and first_time:
            self.applied += 1
            self.watch.show("events", await self.watch.arrival("events", command_id))


async def create_all(demo: Demo) -> None:
    """Every organization of the file."""
    for row in organizations_file.read(FILE, "jsonl"):
        assert not isinstance(row, BadLine), row
        demo.rows.append(row)
    heading(f"{len(demo.rows)} organizations from {FILE.name}: one command each, sent concurrently")
    await demo.execute_many(((row.command_id, row.command) for row in demo.rows), sample_every=250)


async def update_some(demo: Demo) -> None:
    """A change for each fourth organization: domains cleared and set, addresses replaced."""
    moved = Address(line1="Sørkedalsveien 8", city="Oslo", postal_code="0369", country="NO")
    kinds: list[dict[str, Any]] = [{"domain": None}, {"domain": "moved.example"}, {"primary_address": moved}]
    pairs = [
        (uuid4(), UpdateOrganization(org_id=row.command.org_id, **kinds[place % len(kinds)]))
        for place, row in enumerate(demo.rows[::4])
    ]
    heading(f"{len(pairs)} updates: domains cleared (null) or set, addresses replaced")
    note("one that changes nothing is `unchanged`: no event, no new version")
    await demo.execute_many(pairs, sample_every=50)


async def swap_names(demo: Demo) -> None:
    """Two organizations swap names: step by step, and then inside one batch."""
    one, other = demo.rows[1].command, demo.rows[2].command
    heading("two organizations swap names, in three renames")
    for org_id, name in ((one.org_id, f"{one.name} *"), (other.org_id, one.name), (one.org_id, other.name)):
        await demo.execute(UpdateOrganization(org_id=org_id, name=name))
    heading("two others swap names in one batch: the three renames are sent at once")
    one, other = same_partition(demo)
    await demo.execute_at_once(
        [
            UpdateOrganization(org_id=one.org_id, name=f"{one.name} *"),
            UpdateOrganization(org_id=other.org_id, name=one.name),
            UpdateOrganization(org_id=one.org_id, name=other.name),
        ]
    )


def same_partition(demo: Demo) -> tuple[Any, Any]:
    """Two organizations whose commands keep their order among each other."""
    first = demo.rows[5].command
    partitions = demo.settings.kafka.partitions

    def partition(org_id: UUID) -> int:
        return partition_for(str(org_id).encode(), partitions)

    return first, next(r.command for r in demo.rows[6:] if partition(r.command.org_id) == partition(first.org_id))


async def life_cycle(demo: Demo) -> None:
    """Deactivate, reactivate, delete, restore."""
    org_id = demo.rows[10].command.org_id
    heading("deactivated: only reactivate and delete are accepted")
    await demo.execute(DeactivateOrganization(org_id=org_id))
    await demo.execute(UpdateOrganization(org_id=org_id, domain=None))
    await demo.execute(ReactivateOrganization(org_id=org_id))
    heading("deleted and restored")
    await demo.execute(DeleteOrganization(org_id=org_id))
    await demo.execute(RestoreOrganization(org_id=org_id))
    gone = [row.command.org_id for row in demo.rows[20:40]]
    heading(f"{len(gone)} organizations are deleted permanently: tombstones on the state topic")
    await demo.execute_many(((uuid4(), DeleteOrganization(org_id=each)) for each in gone), sample_every=10)


async def rejections(demo: Demo) -> None:
    """What a publisher gets back when something is wrong."""
    one, other = demo.rows[50].command, demo.rows[51].command
    heading("a publisher sends a command twice, not knowing that the first one arrived: it gets the first outcome")
    command, command_id = UpdateOrganization(org_id=one.org_id, domain="retry.example"), uuid4()
    await demo.execute(command, command_id=command_id)
    await demo.execute(command, command_id=command_id)
    heading("the same command id with another payload: rejected, the first outcome stands")
    rejected = await demo.client.execute(
        UpdateOrganization(org_id=one.org_id, domain="other.example"), command_id=command_id
    )
    console.print("  ", render.outcome(rejected))
    heading("a stale precondition: somebody else was faster")
    await demo.execute(UpdateOrganization(org_id=one.org_id, name="Too Late Ltd", expected_version=1))
    heading("a taken name in another spelling")
    await demo.execute(UpdateOrganization(org_id=one.org_id, name=other.name.upper()))
    heading("an organization that does not exist")
    await demo.execute(DeleteOrganization(org_id=uuid4()))


async def broken(demo: Demo) -> None:
    """Records that no client of ours would send."""
    org_id = demo.rows[60].command.org_id
    heading("invalid fields: each one is listed")
    await demo.raw_command(
        "org.update",
        org_id,
        b'{"org_id":"%b","name":"","domain":"localhost","primary_address":{"line1":"x","city":"y","country":"Norway"}}'
        % str(org_id).encode(),
    )
    heading("not JSON, but with a command id: rejected with 400")
    await demo.raw_command("org.update", org_id, b'{"org_id": oops')
    heading("unreadable bytes and headers: parked for an operator, blocking nothing")
    await demo.raw(b"\x00\x01", [("ce_id", b"\xff\xfe\xfd"), ("ce_type", b"org.\xc3\x28")], b"\x80\x81 not a command")
    await idle(demo.settings)
    database = Database(demo.settings.database, "reader", direct=True)
    async with database.connect() as conn:
        for record in await parked_queues.list_records(conn, ParkedFilter(), 0, 10):
            console.print("   parked", render_parked.record_line(record))


async def idle(settings: Settings) -> None:
    """Wait until everything that was sent is decided and published."""
    async with asyncio.timeout(ARRIVAL_TIMEOUT_S):
        while True:
            left = await progress.behind(settings)
            if left.idle:
                return
            await asyncio.sleep(POLL_S)


CASES = (create_all, update_some, swap_names, life_cycle, rejections, broken)
