"""`python -m tests.bench.subscribe`: how fast the kit's subscriber loads and follows, with each store.

The relay's encoder and producer fill the topics, bodies as large as those of `end_to_end`. Each store then loads all
organizations, follows as many changes as it is behind, and begins again where it was. Nothing is done with a change;
one field of it is read, or none.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import asyncpg
import psutil

import org_local
from org_events.subscribing import MemoryStore, OrganizationSubscriber, Store
from org_events.subscribing.stores.postgres import PostgresStore
from org_events.subscribing.stores.sqlite import SqliteStore
from org_service.domain.outcomes import JournaledOutcome
from org_service.kafka.client import TopicPartition
from org_service.kafka.producer import Producer
from org_service.kafka.record_batches import RecordBatch, TopicBatches
from org_service.settings import LogSettings, Settings
from org_service.telemetry.logs import set_up_logging
from org_service.wire.changes import encode
from org_service.wire.position import PARTITION, Position
from tests.bench.command import say
from tests.bench.site import Site, open_site

_ROWS_A_TRANSACTION: Final = 4_000
_NOW: Final = datetime.now(UTC)
STORES: Final = ("memory", "memory, decoded", "sqlite", "postgres")


def main() -> int:
    """Measure."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.subscribe", description=__doc__)
    parser.add_argument("--organizations", type=int, default=1_000_000)
    parser.add_argument("--changes", type=int, default=200_000, help="that a subscriber is behind")
    arguments = parser.parse_args()
    set_up_logging(LogSettings(level="warning"))
    with (
        tempfile.TemporaryDirectory(prefix="orgs-bench-") as folder,
        org_local.start() as stack,
        open_site(stack, "subscribe", Path(folder)) as site,
    ):
        asyncio.run(_measure(site, arguments.organizations, arguments.changes))
    return 0


async def _measure(site: Site, organizations: int, changes: int) -> None:
    began_s = time.monotonic()
    await _fill(site.settings, organizations, range(1, 2), 0)
    say(f"{organizations:,} organizations published in {time.monotonic() - began_s:.0f} s")
    version, position = 1, organizations
    for name in STORES:
        async with _opened(site, name) as store:
            await _run(site, f"{name}: load", store, None, name)
            version += 1
            await _fill(site.settings, changes, range(version, version + 1), position)
            position += changes
            await _run(site, f"{name}: follow", store, changes, name)
            await _run(site, f"{name}: begin again", store, None, name)


@asynccontextmanager
async def _opened(site: Site, name: str) -> AsyncGenerator[Store[Any]]:
    if name.startswith("memory"):
        yield MemoryStore()
    elif name == "sqlite":
        async with SqliteStore(site.folder / "kept.sqlite", "bench") as store:
            yield store
    else:
        async with asyncpg.create_pool(site.database_url, min_size=2, max_size=4) as pool:
            store = PostgresStore.over_pool(pool, "bench")
            await store.create_tables()
            yield store


async def _run(site: Site, what: str, store: Store[Any], wanted: int | None, name: str) -> None:
    """Hand out so many changes, None until it is ready; in batches, saved each in a transaction."""
    look: Callable[[Any], object] = (lambda change: change.after) if "decoded" in name else (lambda change: change.key)
    process, found = psutil.Process(), 0
    began_s, cpu = time.monotonic(), sum(process.cpu_times()[:2])
    servers, topics = site.bootstrap_servers, site.settings.kafka.topics
    async with OrganizationSubscriber(bootstrap_servers=servers, topics=topics, store=store) as subscriber:
        running = asyncio.create_task(_take(subscriber, look, wanted))
        found = await (_until_ready(subscriber, running) if wanted is None else running)
        seconds = time.monotonic() - began_s
    spent = sum(process.cpu_times()[:2]) - cpu
    rate = f"{found / seconds:,.0f}/s, {spent / found * 1e6:.1f} µs of processor each" if found else ""
    say(f"{what}: {found:,} in {seconds:.2f} s {rate} ({process.memory_info().rss / 2**20:.0f} MB)")


async def _take(subscriber: OrganizationSubscriber[Any], look: Callable[[Any], object], wanted: int | None) -> int:
    found = 0
    async for batch in subscriber.batches():
        async with batch.transaction():
            for change in batch:
                look(change)
        found += len(batch)
        if found == wanted:
            break
    return found


async def _until_ready(subscriber: OrganizationSubscriber[Any], running: asyncio.Task[int]) -> int:
    await subscriber.ready()
    await subscriber.stop()
    return await running


async def _fill(settings: Settings, organizations: int, versions: range, after: int) -> None:
    names = settings.kafka.topics
    topics = (names.events, names.state, names.relay)
    producer = Producer(settings.kafka, f"{settings.kafka.topic_prefix}fill", settings.relay.transaction_timeout_ms)
    partitions = await producer.start(topics)
    for version in versions:
        for start in range(0, organizations, _ROWS_A_TRANSACTION):
            batches: dict[TopicPartition, list[RecordBatch]] = {}
            now_ms = int(time.time() * 1000)
            events, state, relay = (TopicBatches(each, partitions[each], batches, now_ms) for each in topics)
            through = min(start + _ROWS_A_TRANSACTION, organizations)
            for number in range(start, through):
                records = encode(_row(number, version, after + number + 1))
                assert records.event is not None
                assert records.state is not None
                events.append(records.key, records.key_hash, *records.event)
                state.append(records.key, records.key_hash, *records.state)
            said = Position(position=after + through).to_value()
            relay.append(settings.relay.name.encode(), PARTITION, said, [])
            await producer.publish(batches)
    await producer.close()


def _row(number: int, version: int, position: int) -> JournaledOutcome:
    before = None if version == 1 else _body(number, version - 1)
    kind = "org.created" if version == 1 else "org.updated"
    org_id = UUID(int=0x0C000000_0000_4000_8000_000000000000 + number)
    return JournaledOutcome(
        position, UUID(int=position), org_id, version, kind, "applied", 200, "bench", '["domain"]', before,
        _body(number, version), None, None, _NOW,
    )  # fmt: skip


def _body(number: int, version: int) -> str:
    org_id = UUID(int=0x0C000000_0000_4000_8000_000000000000 + number)
    return (
        f'{{"id":"{org_id}","name":"Organization {number}","domain":"d{version}.o{number}.example.com",'
        '"created_at":"2026-01-01T00:00:00Z","updated_at":"2026-01-01T00:00:00Z",'
        '"primary_address":{"line1":"Storgata 1",'
        '"line2":null,"city":"Oslo","region":null,"postal_code":"0155","country":"NO"},"deactivated":false,'
        f'"deactivated_at":null,"version":{version}}}'
    )


if __name__ == "__main__":
    sys.exit(main())
