"""`python -m tests.bench.replay`: how fast events are replayed to a fresh topic, and whether memory stays flat.

The journal is filled by Postgres itself: updates of 10,000 organizations, each with its bodies before and after, as
large as those of `end_to_end`. `orgs replay events` plans, then sends them, as processes of their own.
"""

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path
from typing import Final

import asyncpg

import org_local
from org_service.settings import LogSettings, Settings
from org_service.store import migrate
from org_service.telemetry.logs import set_up_logging
from tests.bench import load
from tests.bench.command import ran_for_s, run_orgs, say
from tests.bench.site import open_site

EVENTS: Final = 1_000_000

_FILL: Final = f"""
INSERT INTO journal (
    position, command_id, org_id, version, command_type, event_type, outcome, code, actor, request_digest,
    command_partition, command_offset, changed, before, after, traceparent, recorded_at, command_time_ms
)
SELECT
    n, md5('command ' || n)::uuid, org, version, 'org.update', 'org.updated', 'applied', 200, 'bench',
    sha256(n::text::bytea), n % 12, n / 12, '["domain"]',
    body(org, n - {load.ORGANIZATIONS}, version - 1), body(org, n, version),
    '00-0af7651916cd43dd8448eb211c80319c-' || lpad(to_hex(n), 16, '0') || '-01', now(), 1750000000000 + n
FROM (
    SELECT n, md5('org ' || n % {load.ORGANIZATIONS})::uuid AS org, n / {load.ORGANIZATIONS} + 1 AS version
    FROM generate_series(1, $1::bigint) AS n
) AS numbered
"""
_BODY: Final = """
CREATE FUNCTION body(org uuid, n bigint, version bigint) RETURNS text LANGUAGE sql IMMUTABLE AS $$
SELECT json_build_object(
    'id', org, 'name', 'Organization ' || n, 'domain', 'd' || n || '.example.com', 'created_at', '2026-01-01T00:00:00Z',
    'updated_at', '2026-01-01T00:00:00Z', 'primary_address', json_build_object('city', 'Oslo', 'line1', 'Storgata 1',
    'line2', null, 'region', null, 'country', 'NO', 'postal_code', '0155'), 'deactivated', false, 'deactivated_at',
    null, 'version', version)::text
$$
"""


def main() -> int:
    """Measure; the exit status is that of the worst run."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.replay", description=__doc__)
    parser.add_argument("--events", type=int, default=EVENTS)
    parser.add_argument("--runs", type=int, default=3, help="replays of the same events, each to a fresh topic")
    arguments = parser.parse_args()
    set_up_logging(LogSettings(level="warning"))
    code = 0
    with (
        tempfile.TemporaryDirectory(prefix="orgs-bench-") as folder,
        org_local.start() as stack,
        open_site(stack, "replay", Path(folder)) as site,
    ):
        settings = site.settings
        settings = settings.model_copy(
            update={"operate": settings.operate.model_copy(update={"approval_above": arguments.events})}
        )
        asyncio.run(_fill(settings, arguments.events))
        for _ in range(arguments.runs):
            code = max(code, _replay(settings))
    return code


async def _fill(settings: Settings, events: int) -> None:
    await migrate.upgrade(settings.database)
    conn = await asyncpg.connect(settings.database.url.get_secret_value())
    await conn.execute(_BODY)
    await conn.execute(_FILL, events)
    await conn.execute("UPDATE journal_head SET position = $1", events)
    await conn.execute("DROP FUNCTION body")
    await conn.execute("VACUUM (ANALYZE) journal")
    await conn.close()


def _replay(settings: Settings) -> int:
    planned = run_orgs(settings, "replay", "events", "--reason", "a measurement", "--json")
    [operation] = planned.documents
    ran = run_orgs(settings, "run", operation["id"], "--json")
    [done] = ran.documents
    sent = done["counts"].get("sent", 0)
    seconds = ran_for_s(done)
    say(
        f"{operation['items']:,} events: planned in {planned.seconds:.1f} s, sent in {seconds:.1f} s, "
        f"{sent / seconds:,.0f}/s ({ran.seconds:.1f} s with a second plan, {ran.cpu_seconds:.1f} s of its processor); "
        f"{ran.memory_text()}"
    )
    return max(planned.code, ran.code)


if __name__ == "__main__":
    sys.exit(main())
