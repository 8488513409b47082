"""What the plans of `docs/sql` are made on: the organizations of `edge_data`, their journal, and what else piles up.

The journal and all that follows it are made by Postgres itself from the organizations: a million rows a minute.
"""

from collections.abc import Mapping
from hashlib import md5
from typing import Final
from uuid import UUID

import asyncpg

from tests.bench.edge_data import EdgeData

TOPICS: Final = ("orgs.ref.memberships", "orgs.ref.partnerships", "orgs.ref.staff")
PARTITIONS: Final = 12
QUEUE: Final = 100
"""Parked commands of an organization that has some."""
_UPDATED_EVERY: Final = 5
"""One organization in so many was updated once, after all were created."""
_ACCEPTED_EVERY: Final = 12
"""One command in so many was answered with 202; of a million, half are older than a fortnight."""
_PARKED_EVERY: Final = 1_000
"""One organization in so many has parked commands."""

_NUMBERED: Final = """
CREATE TEMPORARY TABLE numbered AS
SELECT row_number() OVER (ORDER BY created_at) AS number, id, json_build_object(
    'id', id, 'name', name, 'domain', domain, 'primary_address', json_build_object(
        'line1', 'Storgata 7', 'postal_code', '0184', 'city', 'Oslo', 'country', 'NO'
    ), 'created_at', created_at, 'updated_at', updated_at, 'deactivated_at', null, 'version', version
)::text AS body FROM organization
"""
_JOURNAL: Final = f"""
INSERT INTO journal (
    position, command_id, org_id, version, command_type, event_type, outcome, code, actor, request_digest,
    command_partition, command_offset, changed, before, after, traceparent, recorded_at, command_time_ms
)
SELECT
    position, md5('command ' || position)::uuid, id, version, type, type || 'd', 'applied', 200, 'user:user' || id,
    sha256(id::text::bytea), position % {PARTITIONS}, position / {PARTITIONS}, '["domain"]',
    CASE WHEN version > 1 THEN body END, body,
    '00-0af7651916cd43dd8448eb211c80319c-' || lpad(to_hex(position), 16, '0') || '-01', now(), 1750000000000 + position
FROM (
    SELECT number AS position, id, 1 AS version, 'org.create' AS type, body FROM numbered
    UNION ALL
    SELECT (SELECT count(*) FROM numbered) + number / {_UPDATED_EVERY}, id, 2, 'org.update', body FROM numbered
    WHERE number % {_UPDATED_EVERY} = 0
) AS decided ORDER BY position
"""
_HEAD: Final = "UPDATE journal_head SET position = (SELECT max(position) FROM journal)"
_ACCEPTED: Final = f"""
INSERT INTO accepted_command (command_id, actor, org_id, accepted_at, partition, "offset")
SELECT command_id, actor, org_id, now() - position * interval '2 s', command_partition, command_offset FROM journal
WHERE position % {_ACCEPTED_EVERY} = 0
"""
_PARKED: Final = f"""
INSERT INTO parked (
    topic, partition, "offset", broker_time, key, value, headers, org_id, command_id, request_digest, reason, detail,
    attempts, state, recorded_at, actor, authenticated_by
)
SELECT
    'orgs.commands', number % {PARTITIONS}, number * {QUEUE} + place, now(), id::text::bytea, body::bytea, '[]', id,
    md5('parked ' || number || ' ' || place)::uuid, sha256(id::text::bytea),
    CASE place WHEN 0 THEN 'handler_raised' ELSE 'queued_behind' END, 'ZeroDivisionError', 1,
    CASE WHEN number % {2 * _PARKED_EVERY} = 0 THEN 'open' ELSE 'released' END, now(), 'user:user' || id, 'token'
FROM numbered, generate_series(0, {QUEUE - 1}) AS place WHERE number % {_PARKED_EVERY} = 0 ORDER BY number, place
"""
_PROGRESS: Final = f"""
INSERT INTO reference_progress (topic, partition, topic_id, next_offset, confirmed_at)
SELECT topic, partition, md5(topic)::uuid, 100000, now()
FROM unnest($1::text[]) AS topic, generate_series(0, {PARTITIONS - 1}) AS partition
"""
_LOST: Final = f"""
INSERT INTO lost_range (topic, topic_id, partition, from_offset, to_offset, why, noticed_at)
SELECT 'orgs.commands', md5('orgs.commands')::uuid, partition, -100, -1, 'expired', now()
FROM generate_series(0, {PARTITIONS - 1}) AS partition
"""
_COUNTED: Final = (
    "organization",
    "membership",
    "partnership",
    "staff",
    "journal",
    "accepted_command",
    "parked",
    "reference_progress",
    "lost_range",
)


class PlanData(EdgeData):
    """Everything that the hot statements read, the same for the same numbers but for the time."""

    async def load(self, url: str) -> None:
        """Fill the tables of a migrated database, and let Postgres know them."""
        await super().load(url)
        session = await asyncpg.connect(url)
        for statement in (_NUMBERED, _JOURNAL, _HEAD, _ACCEPTED, _PARKED, _LOST):
            await session.execute(statement)
        await session.execute(_PROGRESS, TOPICS)
        await session.execute("VACUUM (ANALYZE)")
        await session.close()

    def command_id(self, position: int) -> UUID:
        """Of the row at a position of the journal."""
        return UUID(md5(f"command {position}".encode(), usedforsecurity=False).hexdigest())

    @property
    def with_parked(self) -> list[UUID]:
        """The organizations that have a queue, in order of creation."""
        return [self.ids[number - 1] for number in range(2 * _PARKED_EVERY, len(self.ids) + 1, 2 * _PARKED_EVERY)]

    async def count(self, url: str) -> Mapping[str, int]:
        """Rows by table."""
        session = await asyncpg.connect(url)
        counted = {name: await session.fetchval(f"SELECT count(*) FROM {name}") for name in _COUNTED}
        await session.close()
        return counted
