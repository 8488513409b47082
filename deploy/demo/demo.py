"""`make demo`: the whole main job on real servers, told as it happens, with the accounts proved at the end.

Starts Kafka and Postgres with temporary data, a worker and a relay as processes of their own; sends what publishers
send, well-formed and not; shows outcomes and events as they arrive; then counts and compares everything that is on the
topics and in the tables. Ends with 0 and one line when the accounts balance, else with 1 and what differs.
"""

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import org_local
from aiokafka import AIOKafkaProducer
from org_events.client import OrganizationClient
from org_events.cloudevents import command_headers
from org_events.commands import (
    Command,
    DeactivateOrganization,
    DeleteOrganization,
    ReactivateOrganization,
    RestoreOrganization,
    UpdateOrganization,
)
from org_events.organization import Address
from org_events.results import Result
from org_events.topics import partition_for
from org_local.server import Child, Program, log_tail
from org_service.cli import render
from org_service.cli.tail import line
from org_service.errors import ServiceError
from org_service.operate import accounts, organizations_file, progress, publish, tail, topics
from org_service.operate.kafka import Record
from org_service.operate.organizations_file import BadLine, Row
from org_service.settings import Database, Kafka, Settings
from org_service.store import migrate, reads
from org_service.store.engine import create_engine
from pydantic import SecretStr
from rich.console import Console

FILE = Path(__file__).with_name("organizations.jsonl")
SAMPLE_EVERY = 250
ARRIVAL_TIMEOUT_S = 20.0
DEMO_TIMEOUT_S = 150.0

console = Console(highlight=False, soft_wrap=True)


def heading(text: str) -> None:
    """What comes next."""
    console.print(f"\n[bold]▸ {text}[/]")


def note(text: str) -> None:
    """An aside."""
    console.print(f"  {text}", style="dim", markup=False)


class Watch:
    """Follows results and events as any subscriber would, and lets others wait for one of them."""

    def __init__(self, kafka: Kafka) -> None:
        self._kafka = kafka
        self._seen: dict[str, dict[str, Record]] = {"results": {}, "events": {}}
        self._arrived = asyncio.Condition()
        self.sampling = False

    async def follow(self, what: str) -> None:
        """Read a topic for ever."""
        topic = {"results": self._kafka.topics.results, "events": self._kafka.topics.events}[what]
        seen = self._seen[what]
        async for records in tail.watch(self._kafka, topic, tail.View(from_start=True)):
            for record in records:
                seen[(dict(record.headers)["ce_commandid"] or b"").decode()] = record
                if self.sampling and len(seen) % SAMPLE_EVERY == 0:
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

    async def execute_many(self, pairs: Iterable[tuple[UUID, Command]]) -> float:
        """Send many commands, show samples; returns how many a second."""
        started, count = time.perf_counter(), 0
        self.watch.sampling = True
        async for result in self.client.execute_many(self._noted(pairs)):
            count += 1
            self.applied += result.outcome == "applied"
        await self.watch.all_events(self.applied)
        self.watch.sampling = False
        return count / (time.perf_counter() - started)

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
    heading(f"{len(demo.rows)} organizations from {FILE.name}: a command each, sent without waiting for one another")
    rate = await demo.execute_many((row.command_id, row.command) for row in demo.rows)
    note(f"{rate:,.0f} commands/s, command sent → outcome read")


async def update_some(demo: Demo) -> None:
    """A change for each fourth organization: domains cleared and set, addresses replaced."""
    moved = Address(line1="Sørkedalsveien 8", city="Oslo", postal_code="0369", country="NO")
    kinds: list[dict[str, Any]] = [{"domain": None}, {"domain": "moved.example"}, {"primary_address": moved}]
    pairs = [
        (uuid4(), UpdateOrganization(org_id=row.command.org_id, **kinds[place % len(kinds)]))
        for place, row in enumerate(demo.rows[::4])
    ]
    heading(f"{len(pairs)} updates: domains cleared (null) or set, addresses replaced")
    note("an update that changes nothing is `unchanged`: no event, no version")
    rate = await demo.execute_many(pairs)
    note(f"{rate:,.0f} commands/s")


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
    heading("deactivated: only reactivate and delete go through")
    await demo.execute(DeactivateOrganization(org_id=org_id))
    await demo.execute(UpdateOrganization(org_id=org_id, domain=None))
    await demo.execute(ReactivateOrganization(org_id=org_id))
    heading("deleted, and brought back")
    await demo.execute(DeleteOrganization(org_id=org_id))
    await demo.execute(RestoreOrganization(org_id=org_id))
    gone = [row.command.org_id for row in demo.rows[20:40]]
    heading(f"{len(gone)} organizations are deleted for good: tombstones on the state topic")
    await demo.execute_many((uuid4(), DeleteOrganization(org_id=each)) for each in gone)


async def refusals(demo: Demo) -> None:
    """What a publisher gets back when something is wrong."""
    one, other = demo.rows[50].command, demo.rows[51].command
    heading("a publisher sends a command twice, not knowing that the first got through: it gets the first outcome")
    command, command_id = UpdateOrganization(org_id=one.org_id, domain="retry.example"), uuid4()
    await demo.execute(command, command_id=command_id)
    await demo.execute(command, command_id=command_id)
    heading("the same command id with another payload: refused, the first outcome stands")
    refused = await demo.client.execute(
        UpdateOrganization(org_id=one.org_id, domain="other.example"), command_id=command_id
    )
    console.print("  ", render.outcome(refused))
    heading("a stale precondition: somebody else was faster")
    await demo.execute(UpdateOrganization(org_id=one.org_id, name="Too Late Ltd", expected_version=1))
    heading("a name that is taken, written another way")
    await demo.execute(UpdateOrganization(org_id=one.org_id, name=other.name.upper()))
    heading("an organization that isn't there")
    await demo.execute(DeleteOrganization(org_id=uuid4()))


async def broken(demo: Demo) -> None:
    """Records that no client of ours would send."""
    org_id = demo.rows[60].command.org_id
    heading("wrong fields: every one is named")
    await demo.raw_command(
        "org.update",
        org_id,
        b'{"org_id":"%b","name":"","domain":"localhost","primary_address":{"line1":"x","city":"y","country":"Norway"}}'
        % str(org_id).encode(),
    )
    heading("no JSON, but a command id: refused with 400")
    await demo.raw_command("org.update", org_id, b'{"org_id": oops')
    heading("bytes that nobody can read, not even their headers: parked for an operator, holding up nobody")
    await demo.raw(b"\x00\x01", [("ce_id", b"\xff\xfe\xfd"), ("ce_type", b"org.\xc3\x28")], b"\x80\x81 not a command")
    await progress.wait_until_idle(demo.settings, ARRIVAL_TIMEOUT_S)
    engine = create_engine(demo.settings.database, "reader", direct=True)
    async with engine.connect() as conn:
        for record in await reads.list_parked(conn, 10):
            console.print("   parked", render.parked(record))


async def prove(demo: Demo) -> tuple[str, list[str]]:
    """The last line, and what differs."""
    heading("the accounts, from the topics (read_committed) and the tables")
    await progress.wait_until_idle(demo.settings, ARRIVAL_TIMEOUT_S)
    found = await accounts.check(demo.settings)
    differences = list(found.differences)
    for what, ours, theirs in (
        ("commands sent = commands on the topic", len(demo.sent), found.commands),
        ("commands sent = outcomes", len(demo.sent), found.outcomes),
        ("applied = events", demo.applied, found.events),
        ("unreadable records = parked", 1, found.parked),
    ):
        console.print(f"  {'✓' if ours == theirs else '✗'} {what}: {ours} = {theirs}")
        if ours != theirs:
            differences.append(f"{what}: {ours} is not {theirs}")
    mark = "✓" if found.balance else "✗"
    for what in (
        "every outcome is published as it was decided, every event once, with what was before and after",
        "the versions of each organization follow each other without a gap",
        "the state topic, folded, is the table of organizations",
    ):
        console.print(f"  {mark} {what}")
    counts = f"{found.commands} commands, {found.outcomes} outcomes, {found.events} events, {found.parked} parked"
    return f"demo: {counts}: accounts {'balance' if not differences else 'do NOT balance'}", differences


@contextmanager
def role(name: str, settings: Settings, folder: Path) -> Iterator[Child]:
    """A worker or relay as a process of its own; ends with this one, however that ends."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("ORGS_")}
    environment |= {
        "ORGS_KAFKA__BOOTSTRAP_SERVERS": settings.kafka.bootstrap_servers,
        "ORGS_DATABASE__URL": settings.database.url.get_secret_value(),
        f"ORGS_{name.upper()}__PORT": "0",
    }
    child = Child(
        Program(
            name=name,
            argv=[sys.executable, "-m", "org_service.cli", "serve", "--role", name],
            log=folder / f"{name}.log",
            env=environment,
            stop=(("SIGTERM", 15.0),),
        )
    )
    try:
        yield child
    finally:
        child.end(orderly=True)


@asynccontextmanager
async def connected(settings: Settings) -> AsyncGenerator[Demo]:
    """A client, a raw producer and the watch."""
    watch = Watch(settings.kafka)
    producer = AIOKafkaProducer(**settings.kafka.connection())
    async with publish.connect(settings.kafka, actor="demo", timeout_s=ARRIVAL_TIMEOUT_S) as client:
        following = [asyncio.create_task(watch.follow(what)) for what in ("results", "events")]
        try:
            await producer.start()
            yield Demo(settings, client, producer, watch)
        finally:
            await producer.stop()
            for task in following:
                task.cancel()
            await asyncio.gather(*following, return_exceptions=True)


async def tell(settings: Settings) -> tuple[str, list[str]]:
    """Prepare the servers, tell everything, prove the accounts."""
    await migrate.upgrade(settings.database)
    await topics.create(settings.kafka, [plan.spec for plan in await topics.plan(settings.kafka)])
    async with asyncio.timeout(DEMO_TIMEOUT_S), connected(settings) as demo:
        for case in (create_all, update_some, swap_names, life_cycle, refusals, broken):
            await case(demo)
        return await prove(demo)


def main() -> int:
    """Run the demo; the exit status."""
    for variable in [name for name in os.environ if name.startswith("ORGS_")]:
        del os.environ[variable]  # servers of its own, whatever the environment names: it fills and throws them away
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="orgs-demo-") as logs, org_local.start() as stack:
        settings = Settings(
            kafka=Kafka(bootstrap_servers=stack.bootstrap_servers),
            database=Database(url=SecretStr(stack.database_url)),
        )
        with role("worker", settings, Path(logs)) as worker, role("relay", settings, Path(logs)) as relay:
            try:
                last_line, differences = asyncio.run(tell(settings))
            except (ServiceError, TimeoutError) as error:
                for child in (worker, relay):
                    console.print(f"--- {child.program.name}\n{log_tail(child.program.log)}", markup=False)
                last_line, differences = f"demo: failed: {error!r}", [repr(error)]
    note(f"{time.monotonic() - started:.1f} s")
    for difference in differences:
        console.print(f"  {difference}", markup=False, style="red")
    sys.stdout.write(last_line + "\n")
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
