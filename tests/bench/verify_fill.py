"""Fills a database and topics for `tests.bench.verify`, as a worker, a relay and compaction of `orgs.state` leave them.

Postgres makes the rows itself, without the indexes, which are built afterwards; the relay's encoder and producer send
the records, in processes of their own. Of `orgs.state` each organization's last
record is sent.
"""

import asyncio
import itertools
import multiprocessing
import time
from typing import Any, Final

import asyncpg

from org_service.domain.outcomes import JournaledOutcome
from org_service.kafka.client import TopicPartition
from org_service.kafka.producer import Producer
from org_service.kafka.record_batches import RecordBatch, TopicBatches
from org_service.settings import Settings
from org_service.store import migrate
from org_service.wire.changes import encode
from org_service.wire.position import PARTITION, Position
from tests.bench.command import say

SESSIONS: Final = 2
"""That fill in parallel, as there are cores."""
_ROWS_A_TRANSACTION: Final = 4_000
"""As a relay that is behind has them: a batch of 330 records in each of 12 partitions."""
_BODY: Final = """
CREATE FUNCTION body(org uuid, n bigint, version bigint) RETURNS text LANGUAGE sql IMMUTABLE AS $$
SELECT '{"id":"' || org || '","name":"Organization ' || n || '","domain":"d' || version || '.o' || n || '.example.com",'
    '"created_at":"2026-01-01T00:00:00Z","updated_at":"2026-01-01T00:00:00Z","primary_address":{"line1":"Storgata 1",'
    '"line2":null,"city":"Oslo","region":null,"postal_code":"0155","country":"NO"},"deactivated":false,'
    '"deactivated_at":null,"version":' || version || '}'
$$
"""
_JOURNAL: Final = """
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
    FROM generate_series($2::bigint + 1, $3::bigint) AS place
) AS numbered
"""
_ORGANIZATIONS: Final = """
INSERT INTO organization
SELECT md5('org ' || n)::uuid, 'Organization ' || n, 'organization ' || n,
    'd' || $2::bigint || '.o' || n || '.example.com',
    body(md5('org ' || n)::uuid, n, $2::bigint)::jsonb -> 'primary_address',
    '2026-01-01T00:00:00Z', '2026-01-01T00:00:00Z',
    NULL, NULL, $2::bigint
FROM generate_series(0, $1::bigint - 1) AS n
"""
_INDEXES: Final = """
SELECT indexrelid::regclass::text AS name, pg_get_indexdef(indexrelid) AS made, conname,
  pg_get_constraintdef(c.oid) AS c
FROM pg_index LEFT JOIN pg_constraint AS c ON conindid = indexrelid AND conrelid = indrelid
WHERE indrelid = 'journal'::regclass AND NOT indisprimary
"""
_COLUMNS: Final = ", ".join(JournaledOutcome._fields)
_ROWS: Final = f"SELECT {_COLUMNS} FROM journal WHERE position > $1 AND position <= $2 ORDER BY position"


async def fill(settings: Settings, organizations: int, changes: int) -> None:
    """Fill an empty database, and its topics."""
    began_s, rows = time.monotonic(), organizations * changes
    await migrate.upgrade(settings.database)
    await _fill_tables(settings, organizations, changes)
    say(f"{rows:,} rows of {organizations:,} organizations in {time.monotonic() - began_s:.0f} s")
    began_s = time.monotonic()
    parts = [rows * number // SESSIONS for number in range(SESSIONS + 1)]
    with multiprocessing.get_context("spawn").Pool(SESSIONS) as pool:
        pool.starmap(
            publish, [(settings, after, through, changes) for after, through in itertools.pairwise(parts)], chunksize=1
        )
    await _publish_position(settings, rows)
    say(f"published in {time.monotonic() - began_s:.0f} s")


async def _fill_tables(settings: Settings, organizations: int, changes: int) -> None:
    conn, rows = await _connect(settings), organizations * changes
    await conn.execute(_BODY)
    indexes = await conn.fetch(_INDEXES)
    for each in indexes:
        await conn.execute(
            f"ALTER TABLE journal DROP CONSTRAINT {each['conname']}"
            if each["conname"]
            else f"DROP INDEX {each['name']}"
        )
    parts = [rows * number // SESSIONS for number in range(SESSIONS + 1)]
    await asyncio.gather(
        *(_insert(settings, _JOURNAL, organizations, *part) for part in itertools.pairwise(parts)),
    )
    await asyncio.gather(
        _insert(settings, _ORGANIZATIONS, organizations, changes),
        *(
            _insert(settings, f"ALTER TABLE journal ADD CONSTRAINT {each['conname']} {each['c']}")
            if each["conname"]
            else _insert(settings, each["made"])
            for each in indexes
        ),
    )
    await conn.execute("UPDATE journal_head SET position = $1", rows)
    await conn.execute("DROP FUNCTION body")
    await conn.execute("VACUUM (ANALYZE) journal, organization")
    await conn.close()


async def _connect(settings: Settings) -> Any:
    return await asyncpg.connect(
        settings.database.url.get_secret_value(),
        server_settings={"synchronous_commit": "off", "maintenance_work_mem": "256MB", "jit": "off"},
    )


async def _insert(settings: Settings, statement: str, *given: int) -> None:
    conn = await _connect(settings)
    await conn.execute(statement, *given)
    await conn.close()


def publish(settings: Settings, after: int, through: int, changes: int) -> None:
    """Publish a part of the journal, in a process of its own."""
    asyncio.run(_publish(settings, after, through, changes))


async def _publish(settings: Settings, after: int, through: int, changes: int) -> None:
    names = settings.kafka.topics
    topics = (names.events, names.results, names.state)
    conn, producer = await _connect(settings), _producer(settings, f"fill-{after}")
    partitions = await producer.start(topics)
    for start in range(after, through, _ROWS_A_TRANSACTION):
        rows = await conn.fetch(_ROWS, start, min(start + _ROWS_A_TRANSACTION, through))
        batches: dict[TopicPartition, list[RecordBatch]] = {}
        now_ms = int(time.time() * 1000)
        events, results, state = (TopicBatches(each, partitions[each], batches, now_ms) for each in topics)
        for row in rows:
            records = encode(JournaledOutcome._make(row))
            assert records.event is not None
            assert records.state is not None
            events.append(records.key, records.key_hash, *records.event)
            results.append(records.key, records.key_hash, *records.result)
            if row["version"] == changes:
                state.append(records.key, records.key_hash, *records.state)
        await producer.publish(batches)
    await producer.close()
    await conn.close()


async def _publish_position(settings: Settings, rows: int) -> None:
    relay, producer = settings.kafka.topics.relay, _producer(settings, settings.relay.name)
    partitions = await producer.start((relay,))
    batches: dict[TopicPartition, list[RecordBatch]] = {}
    said = TopicBatches(relay, partitions[relay], batches, int(time.time() * 1000))
    said.append(settings.relay.name.encode(), PARTITION, Position(position=rows).to_value(), [])
    await producer.publish(batches)
    await producer.close()


def _producer(settings: Settings, name: str) -> Producer:
    return Producer(settings.kafka, f"{settings.kafka.topic_prefix}{name}", settings.relay.transaction_timeout_ms)
