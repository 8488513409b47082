"""How fast the relay is alone: `python -m tests.integration.relay.speed [rows] [turns]`.

Starts Kafka and Postgres (or uses those of the environment), fills a journal with applied rows of 343 bytes before and
after, and lets a relay publish it as `orgs serve` would run it. Each row gives an event, a result and a state record.
Prints rows a second of each turn and of the processor time of the relay's process, and the medians.
"""

import asyncio
import gc
import secrets
import statistics
import sys
import time

import asyncpg
import uvloop
from pydantic import SecretStr

import org_local
from org_service.relay import Relay
from org_service.settings import DatabaseSettings, KafkaSettings, LogSettings, Settings
from org_service.store import migrate
from org_service.telemetry.logs import set_up_logging
from tests.support.database import execute
from tests.support.relaying import org, organization
from tests.support.topics import create_topics, drop_topics

ORGANIZATIONS = 20_000
GC_THRESHOLDS = (50_000, 20, 50)
"""As `runtime.serve` sets them."""
FILL = f"""
INSERT INTO journal (
    position, command_id, org_id, version, command_type, event_type, outcome, code, actor, request_digest,
    command_partition, command_offset, changed, before, after, traceparent, recorded_at
)
SELECT
    n, gen_random_uuid(), ('0a000000-0000-4000-8000-' || lpad(to_hex(n % {ORGANIZATIONS}), 12, '0'))::uuid,
    n / {ORGANIZATIONS} + 1, 'org.update', 'org.updated', 'applied', 200, 'user:' || n % 500, '', 0, n,
    '["name"]', $2, $2, '00-0af7651916cd43dd8448eb211c80319c-' || lpad(to_hex(n), 16, '0') || '-01',
    now() + n / 1000 * interval '1 ms'
FROM generate_series(1, $1) AS n
"""


async def turn(bootstrap_servers: str, server_url: str, rows: int) -> tuple[float, float]:
    """Publish one journal; returns the seconds it took, by the clock and of processor time."""
    name = f"speed{secrets.token_hex(4)}"
    server = await asyncpg.connect(server_url)
    await server.execute(f"CREATE DATABASE {name}")
    settings = Settings(
        kafka=KafkaSettings(bootstrap_servers=bootstrap_servers, topic_prefix=f"{name}."),
        database=DatabaseSettings(url=SecretStr(f"{server_url.rpartition('/')[0]}/{name}")),
    )
    try:
        await migrate.upgrade(settings.database)
        await create_topics(settings)
        await execute(settings, FILL, rows, organization(org(1), 7))
        await execute(settings, "UPDATE journal_head SET position = $1", rows)
        await execute(settings, "VACUUM ANALYZE journal")
        return await publish(settings, rows)
    finally:
        await drop_topics(settings)
        await server.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        await server.close()


async def publish(settings: Settings, rows: int) -> tuple[float, float]:
    """Run a relay from its first position to the last row."""
    relay, stop = Relay(settings), asyncio.Event()
    running = asyncio.create_task(relay.run(stop))
    await relay.wait_until(lambda relay: relay.position is not None)
    began, busy = time.perf_counter(), time.process_time()
    await relay.wait_until(lambda relay: (relay.position or 0) >= rows)
    took, worked = time.perf_counter() - began, time.process_time() - busy
    stop.set()
    await running
    return took, worked


def main() -> None:
    """Measure and print."""
    rows, turns = (int(given) for given in (*sys.argv[1:], "100000", "5")[:2])
    set_up_logging(LogSettings(level="warning"))
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    with org_local.start() as stack:
        server_url = stack.database_url.rpartition("/")[0] + "/postgres"
        figures = [uvloop.run(turn(stack.bootstrap_servers, server_url, rows)) for _ in range(turns)]
    for took, worked in figures:
        print(f"{rows / took:10,.0f} rows/s {rows / worked:10,.0f} rows a second of processor time")
    medians = [statistics.median(seconds) for seconds in zip(*figures, strict=True)]
    print(f"{rows / medians[0]:10,.0f} rows/s {rows / medians[1]:10,.0f} rows a second of processor time (medians)")


if __name__ == "__main__":
    main()
