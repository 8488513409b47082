"""`python -m tests.bench.rebuild`: how fast `orgs rebuild` writes a lost database from the topics, and in what memory.

Commands go to Kafka; what a worker would have decided is copied into the journal, and a relay publishes all of it. Then
the database is lost: `orgs rebuild` writes another one, as a process of its own, which must be equal table by table.
"""

import argparse
import asyncio
import os
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import asyncpg
import orjson
import psutil
from confluent_kafka import Consumer, Message, Producer, TopicPartition

import org_local
from org_events.topics import partition_for
from org_service.domain.organization import StoredOrganization, find_changed_fields, name_key, to_json
from org_service.domain.requests import LOG_APPEND_TIME, Request
from org_service.relay import Relay
from org_service.settings import LogSettings, Settings
from org_service.store import migrate
from org_service.store.journal import COLUMNS
from org_service.telemetry.logs import set_up_logging
from org_service.wire.commands import read
from tests.bench import load
from tests.bench.command import ran_for_s, run_orgs, say
from tests.bench.site import open_site
from tests.support.restoring import replace_by

ORGANIZATIONS: Final = 60_000
CHANGES: Final = 5
PARTITIONS: Final = 12
_PORTION: Final = 20_000
_MOMENT: Final = datetime(2026, 1, 1, tzinfo=UTC)
_DIGESTS: Final = {
    table: f"SELECT count(*), bit_xor(('x' || left(md5(each::text), 16))::bit(64)) FROM {table} AS each"
    for table in ("organization", "journal", "journal_head", "journal_gap", "parked")
}


@dataclass(slots=True)
class Sent:
    """A record of `orgs.commands`, as it will be there."""

    topic: str
    partition: int
    offset: int
    key: bytes
    value: bytes
    headers: list[tuple[str, bytes]]
    timestamp: int = -1
    timestamp_type: int = LOG_APPEND_TIME

    def note_time(self, error: object, message: Message) -> None:
        """Note down when the broker took it, and see that it is where it was meant to be."""
        assert error is None
        assert message.offset() == self.offset
        _, self.timestamp = message.timestamp()


def main() -> int:
    """Measure; the exit status is that of the rebuild, and 1 where the databases differ."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.rebuild", description=__doc__)
    parser.add_argument("--organizations", type=int, default=ORGANIZATIONS)
    parser.add_argument("--changes", type=int, default=CHANGES, help="of each organization, its creation included")
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    set_up_logging(LogSettings(level="warning"))
    total = arguments.organizations * arguments.changes
    code = 0
    with (
        tempfile.TemporaryDirectory(prefix="orgs-bench-") as folder,
        org_local.start() as stack,
        open_site(stack, "rebuild", Path(folder)) as site,
    ):
        settings = site.settings.model_copy(
            update={"operate": site.settings.operate.model_copy(update={"approval_above": total})}
        )
        asyncio.run(_fill(settings, arguments.organizations, arguments.changes))
        asyncio.run(_publish(settings, total))
        lost = asyncio.run(_digests(settings))
        for _ in range(arguments.runs):
            asyncio.run(_lose(settings))
            code = max(code, _rebuild(stack, settings, total, lost))
    return code


async def _fill(settings: Settings, organizations: int, changes: int) -> None:
    await migrate.upgrade(settings.database)
    conn = await asyncpg.connect(settings.database.url.get_secret_value())
    filling = _Filling(settings, organizations)
    for change in range(changes):
        for first in range(0, organizations, _PORTION):
            rows = filling.make(change, range(first, min(first + _PORTION, organizations)))
            await conn.copy_records_to_table("journal", records=rows, columns=COLUMNS)
    kept = [_as_row(each) for each in filling.organizations]
    await conn.copy_records_to_table("organization", records=kept, columns=StoredOrganization._fields)
    await conn.execute("UPDATE journal_head SET position = $1", organizations * changes)
    await conn.execute("VACUUM (ANALYZE) journal, organization")
    await conn.close()
    filling.commit(f"{settings.kafka.topic_prefix}{settings.worker.group_id}")
    say(f"{organizations * changes:,} commands of {organizations:,} organizations")


class _Filling:
    """Commands are sent, and decided as a worker would: each changes the domain, but for the creations."""

    def __init__(self, settings: Settings, organizations: int) -> None:
        self.organizations: list[StoredOrganization] = []
        self._servers = settings.kafka.bootstrap_servers
        self._producer = Producer({"bootstrap.servers": self._servers, "linger.ms": 20})
        self._topic = settings.kafka.topics.commands
        self._ids = load.organization_ids(organizations)
        self._offsets: dict[int, int] = defaultdict(int)
        self._position = 0

    def make(self, change: int, numbers: Sequence[int]) -> list[tuple[Any, ...]]:
        """Send a command each to organizations; returns rows of the journal."""
        ids = [self._ids[number] for number in numbers]
        commands = load.updates(ids, len(ids), self._position) if change else load.creations(ids)
        if not change:
            self.organizations += [_created(self._ids[number], number) for number in numbers]
        places = {str(self._ids[number]).encode(): number for number in numbers}
        sent = [self._send(command) for command in commands]
        self._producer.flush()
        return [self._decide(each, places[each.key]) for each in sent]

    def commit(self, group: str) -> None:
        """Note down as the workers' that all was read."""
        workers = Consumer({"bootstrap.servers": self._servers, "group.id": group})
        at = [TopicPartition(self._topic, number, offset) for number, offset in self._offsets.items()]
        workers.commit(offsets=at, asynchronous=False)
        workers.close()

    def _send(self, command: load.Encoded) -> Sent:
        partition = partition_for(command.key, PARTITIONS)
        sent = Sent(
            self._topic,
            partition,
            self._offsets[partition],
            command.key,
            command.value,
            command.headers,
        )
        self._offsets[partition] += 1
        self._producer.produce(
            self._topic,
            command.value,
            command.key,
            partition,
            headers=list(command.headers),
            on_delivery=sent.note_time,
        )
        self._producer.poll(0)
        return sent

    def _decide(self, sent: Sent, number: int) -> tuple[Any, ...]:
        request = read(sent)
        assert isinstance(request, Request)
        self._position += 1
        now = self.organizations[number]
        body = orjson.loads(sent.value)
        wanted = {name: body[name] for name in ("name", "domain", "primary_address") if body.get(name) is not None}
        before = None if request.command.type == "org.create" else now
        after = now if before is None else now._replace(**wanted, version=now.version + 1)
        after = after._replace(name_key=name_key(after.name))
        self.organizations[number] = after
        return (
            self._position,
            request.command_id,
            now.id,
            after.version,
            request.command.type,
            "org.updated" if before else "org.created",
            "applied",
            200,
            "bench",
            request.digest,
            sent.partition,
            sent.offset,
            orjson.dumps(find_changed_fields(before, after)).decode(),
            None if before is None else to_json(before),
            to_json(after),
            None,
            request.traceparent,
            _MOMENT,
            sent.timestamp,
        )


def _created(org_id: UUID, number: int) -> StoredOrganization:
    named = load.fields(number)
    return StoredOrganization(
        org_id,
        named["name"],
        name_key(named["name"]),
        named["domain"],
        named["primary_address"],
        _MOMENT,
        _MOMENT,
        None,
        None,
        1,
    )


def _as_row(organization: StoredOrganization) -> StoredOrganization:
    address: Any = orjson.dumps(organization.primary_address).decode()
    return organization._replace(primary_address=address)


async def _publish(settings: Settings, rows: int) -> None:
    relay, stop = Relay(settings), asyncio.Event()
    running = asyncio.create_task(relay.run(stop))
    await relay.wait_until(lambda each: (each.position or 0) >= rows)
    stop.set()
    await running
    say("published")


async def _digests(settings: Settings) -> dict[str, tuple[Any, ...]]:
    conn = await asyncpg.connect(settings.database.url.get_secret_value())
    try:
        return {table: tuple(await conn.fetchrow(query) or ()) for table, query in _DIGESTS.items()}
    finally:
        await conn.close()


async def _lose(settings: Settings) -> None:
    await replace_by(settings, "template1")
    await migrate.upgrade(settings.database)


def _spent_by_servers_s(stack: org_local.Stack) -> float:
    """Processor time of Kafka and Postgres, with that of connections that were closed."""
    spent_s = 0.0
    for server in (stack.kafka, stack.postgres):
        for pid in server.pids():
            with suppress(psutil.NoSuchProcess):
                times = psutil.Process(pid).cpu_times()
                spent_s += times.user + times.system + times.children_user + times.children_system
    return spent_s


def _rebuild(stack: org_local.Stack, settings: Settings, events: int, lost: dict[str, tuple[Any, ...]]) -> int:
    [planned] = run_orgs(settings, "rebuild", "--reason", "a measurement", "--json").documents
    before_s = _spent_by_servers_s(stack)
    ran = run_orgs(settings, "run", planned["id"], "--json")
    servers_s = _spent_by_servers_s(stack) - before_s
    [done] = ran.documents
    seconds = ran_for_s(done)
    differing = [table for table, digest in asyncio.run(_digests(settings)).items() if digest != lost[table]]
    say(
        f"{events:,} events rebuilt in {seconds:.1f} s, {events / seconds:,.0f}/s "
        f"({ran.cpu_seconds / events * 1e6:.0f} µs of its processor each, {servers_s / events * 1e6:.0f} µs of Kafka's "
        f"and Postgres'; load {os.getloadavg()[0]:.1f}); {ran.memory_text()}; "
        + (f"differing: {', '.join(differing)}" if differing else "equal")
    )
    return ran.code or int(bool(differing))


if __name__ == "__main__":
    sys.exit(main())
