"""`python -m tests.bench.purge`: how fast deleted organizations are erased, and what everybody else notices.

Postgres itself fills the journal: some organizations that were deleted, with eight changes each, among many others. A
worker and a relay run as processes; somebody sends one command after another, before and during `orgs purge`.
"""

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Final
from uuid import uuid4

import asyncpg
import orjson
from confluent_kafka import Producer

import org_local
from org_events.commands import CreateOrganization
from org_service.operate import publish
from org_service.settings import LogSettings, Settings
from org_service.store import migrate
from org_service.telemetry.logs import set_up_logging
from tests.bench.command import Measured, ran_for_s, run_orgs, say
from tests.bench.site import open_site
from tests.support.processes import ServiceProcess

DELETED: Final = 10_000
OTHERS: Final = 100_000
CHANGES: Final = 8
QUIET_S: Final = 10.0

_JOURNAL: Final = f"""
INSERT INTO journal (
    position, command_id, org_id, version, command_type, event_type, outcome, code, actor, request_digest,
    command_partition, command_offset, changed, before, after, traceparent, recorded_at, command_time_ms
)
SELECT
    n, md5('command ' || n)::uuid, md5('org ' || org)::uuid, version, 'org.update', 'org.updated', 'applied', 200,
    'user' || org, sha256(n::text::bytea), n % 12, n / 12, '["domain"]', body(org, version - 1),
    CASE WHEN org > $1::bigint OR version < {CHANGES} THEN body(org, version) END,
    '00-0af7651916cd43dd8448eb211c80319c-' || lpad(to_hex(n), 16, '0') || '-01', now(), 1750000000000 + n
FROM (
    SELECT n, (n - 1) % $2::bigint + 1 AS org, (n - 1) / $2::bigint + 1 AS version
    FROM generate_series(1, {CHANGES} * $2::bigint) AS n
) AS numbered
"""
_ORGANIZATIONS: Final = f"""
INSERT INTO organization (id, name, name_key, domain, primary_address, created_at, updated_at, deleted_at, version)
SELECT md5('org ' || org)::uuid, 'Organization ' || org, CASE WHEN org > $1::bigint THEN 'organization ' || org END,
    'd' || org || '.example.com', NULL, now(), now(),
    CASE WHEN org <= $1::bigint THEN now() - interval '60 days' END, {CHANGES}
FROM generate_series(1, $2::bigint) AS org
"""
_BODY: Final = """
CREATE FUNCTION body(org bigint, version bigint) RETURNS text LANGUAGE sql IMMUTABLE AS $$
SELECT json_build_object(
    'id', md5('org ' || org)::uuid, 'name', 'Organization ' || org, 'domain', 'd' || version || '.example.com',
    'created_at', '2026-01-01T00:00:00Z', 'updated_at', '2026-01-01T00:00:00Z', 'primary_address', json_build_object(
    'city', 'Oslo', 'line1', 'Storgata ' || org, 'line2', null, 'region', null, 'country', 'NO', 'postal_code', '0155'),
    'deactivated', false, 'deactivated_at', null, 'version', version)::text
$$
"""


def main() -> int:
    """Measure; the exit status is that of the purge."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.purge", description=__doc__)
    parser.add_argument("--deleted", type=int, default=DELETED, help="organizations to erase")
    parser.add_argument("--others", type=int, default=OTHERS, help="organizations that stay")
    arguments = parser.parse_args()
    set_up_logging(LogSettings(level="warning"))
    with (
        tempfile.TemporaryDirectory(prefix="orgs-bench-") as folder,
        org_local.start() as stack,
        open_site(stack, "purge", Path(folder)) as site,
    ):
        settings = site.settings.model_copy(
            update={"operate": site.settings.operate.model_copy(update={"approval_above": arguments.deleted})}
        )
        asyncio.run(_fill(settings, arguments.deleted, arguments.deleted + arguments.others))
        processes = [ServiceProcess("worker", settings, Path(folder)), ServiceProcess("relay", settings, Path(folder))]
        try:
            for process in processes:
                process.start()
            for process in processes:
                process.wait_until_ready()
            return asyncio.run(_purge(settings))
        finally:
            for process in processes:
                process.close()


async def _fill(settings: Settings, deleted: int, total: int) -> None:
    await migrate.upgrade(settings.database)
    conn = await asyncpg.connect(settings.database.url.get_secret_value())
    await conn.execute(_BODY)
    await conn.execute(_JOURNAL, deleted, total)
    await conn.execute(_ORGANIZATIONS, deleted, total)
    await conn.execute("UPDATE journal_head SET position = $1", CHANGES * total)
    await conn.execute("DROP FUNCTION body")
    await conn.execute("VACUUM (ANALYZE)")
    await conn.close()
    # Published long ago, as the relay says it.
    kafka = settings.kafka
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
    position = orjson.dumps({"position": CHANGES * total, "command_id": None})
    producer.produce(kafka.topics.relay, position, settings.relay.name.encode(), 0)
    producer.flush()


async def _purge(settings: Settings) -> int:
    [planned] = (await asyncio.to_thread(run_orgs, settings, "purge", "--reason", "a measurement", "--json")).documents
    async with publish.connect(settings.kafka, actor="bench", timeout_s=60) as client:

        async def waits_s(until: "asyncio.Future[Measured] | asyncio.Task[None]") -> list[float]:
            found: list[float] = []
            while not until.done():
                began = time.perf_counter()
                await client.execute(CreateOrganization(org_id=uuid4(), name=f"New {uuid4()}"))
                found.append(time.perf_counter() - began)
            return found

        before = await waits_s(asyncio.create_task(asyncio.sleep(QUIET_S)))
        running = asyncio.ensure_future(asyncio.to_thread(run_orgs, settings, "run", planned["id"], "--json"))
        during = await waits_s(running)
        ran = await running
    [done] = ran.documents
    seconds, erased = ran_for_s(done), done["counts"].get("erased", 0)
    say(
        f"{erased:,} organizations of {CHANGES} changes erased in {seconds:.1f} s, {erased / seconds:,.0f}/s "
        f"({ran.cpu_seconds / max(erased, 1) * 1e6:.0f} µs of its processor each); {ran.memory_text()}"
    )
    say(f"another command, alone: {_describe(before)}; meanwhile: {_describe(during)}")
    return ran.code


def _describe(waits_s: list[float]) -> str:
    p99 = statistics.quantiles(waits_s, n=100)[98]
    return f"p50 {statistics.median(waits_s) * 1000:.0f} ms, p99 {p99 * 1000:.0f} ms, {len(waits_s)} commands"


if __name__ == "__main__":
    sys.exit(main())
