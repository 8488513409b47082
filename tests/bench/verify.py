"""`python -m tests.bench.verify`: how long `orgs verify` takes, and whether its memory stays flat.

Postgres fills the journal and the table itself: each organization has `--changes` changes, bodies as large as those of
`end_to_end`. A relay publishes all of it; then `orgs verify` runs as a process of its own.
"""

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path
from typing import Final

import asyncpg

import org_local
from org_service.relay import Relay
from org_service.settings import LogSettings, Settings
from org_service.store import migrate
from org_service.telemetry.logs import set_up_logging
from tests.bench.command import run_orgs, say
from tests.bench.site import open_site

ORGANIZATIONS: Final = 1_000_000
CHANGES: Final = 5
_BODY: Final = """
CREATE FUNCTION body(org uuid, n bigint, version bigint) RETURNS text LANGUAGE sql IMMUTABLE AS $$
SELECT '{"id":"' || org || '","name":"Organization ' || n || '","domain":"d' || version || '.o' || n || '.example.com",'
    '"created_at":"2026-01-01T00:00:00Z","updated_at":"2026-01-01T00:00:00Z","primary_address":{"line1":"Storgata 1",'
    '"line2":null,"city":"Oslo","region":null,"postal_code":"0155","country":"NO"},"deactivated":false,'
    '"deactivated_at":null,"version":' || version || '}'
$$
"""
_FILL: Final = """
INSERT INTO journal (
    position, command_id, org_id, version, command_type, event_type, outcome, code, actor, request_digest,
    command_partition, command_offset, changed, before, after, traceparent, recorded_at, command_time_ms
)
SELECT
    place, md5('command ' || place)::uuid, org, version, 'org.update',
    CASE version WHEN 1 THEN 'org.created' ELSE 'org.updated' END, 'applied', 200, 'bench',
    sha256(place::text::bytea), place % 12, place / 12, '["domain"]',
    CASE WHEN version > 1 THEN body(org, n, version - 1) END, body(org, n, version),
    '00-0af7651916cd43dd8448eb211c80319c-' || lpad(to_hex(place), 16, '0') || '-01', now(), 1750000000000 + place
FROM (
    SELECT place, (place - 1) % $1 AS n, md5('org ' || (place - 1) % $1)::uuid AS org, (place - 1) / $1 + 1 AS version
    FROM generate_series(1, $1 * $2::bigint) AS place
) AS numbered
"""
_TABLE: Final = """
INSERT INTO organization
SELECT md5('org ' || n)::uuid, 'Organization ' || n, 'organization ' || n,
    'd' || $2::bigint || '.o' || n || '.example.com',
    body(md5('org ' || n)::uuid, n, $2::bigint)::jsonb -> 'primary_address',
    '2026-01-01T00:00:00Z', '2026-01-01T00:00:00Z',
    NULL, NULL, $2::bigint
FROM generate_series(0, $1::bigint - 1) AS n
"""


def main() -> int:
    """Measure; the exit status is that of the last verification."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.verify", description=__doc__)
    parser.add_argument("--organizations", type=int, default=ORGANIZATIONS)
    parser.add_argument("--changes", type=int, default=CHANGES, help="of each organization")
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    set_up_logging(LogSettings(level="warning"))
    code = 0
    with (
        tempfile.TemporaryDirectory(prefix="orgs-bench-") as folder,
        org_local.start() as stack,
        open_site(stack, "verify", Path(folder)) as site,
    ):
        asyncio.run(_fill(site.settings, arguments.organizations, arguments.changes))
        asyncio.run(_publish(site.settings, arguments.organizations * arguments.changes))
        for _ in range(arguments.runs):
            ran = run_orgs(site.settings, "verify", "--json")
            [report] = ran.documents
            say(
                f"{report['verdict']} as of {report['position']:,}: {report['seconds']:.1f} s, "
                f"{report['processor_seconds']:.1f} s of processor here and in its children; {ran.memory_text()}"
            )
            for each in report["comparisons"]:
                say(f"  {each['name']}: {each['verdict']}, {each['checked']:,} {each['why'] or ''}")
            code = ran.code
    return code


async def _fill(settings: Settings, organizations: int, changes: int) -> None:
    await migrate.upgrade(settings.database)
    conn = await asyncpg.connect(settings.database.url.get_secret_value())
    await conn.execute(_BODY)
    await conn.execute(_FILL, organizations, changes)
    await conn.execute(_TABLE, organizations, changes)
    await conn.execute("UPDATE journal_head SET position = $1", organizations * changes)
    await conn.execute("DROP FUNCTION body")
    await conn.execute("VACUUM (ANALYZE) journal, organization")
    await conn.close()
    say(f"{organizations * changes:,} rows of {organizations:,} organizations")


async def _publish(settings: Settings, rows: int) -> None:
    relay, stop = Relay(settings), asyncio.Event()
    running = asyncio.create_task(relay.run(stop))
    await relay.wait_until(lambda each: (each.position or 0) >= rows)
    stop.set()
    await running
    say("published")


if __name__ == "__main__":
    sys.exit(main())
