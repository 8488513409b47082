"""What the tables say, as digests: for the proof that topics and tables tell the same (`orgs verify`).

A digest is the exclusive or of the MD5 of things, and their number: the same in any order, so that partitions of a
topic are read as they come, in parallel. Of things that are all different, as journal rows are, two sets have the same
digest only by chance (2^-128). What has a position is digested by windows of positions, organizations and facts by
buckets of their keys.

Postgres makes them, over the bytes that the relay sends (`wire.changes`): a row that would go to Python costs twice as
much, and the network. A contract test holds the texts here to those there.
"""

from collections.abc import Collection, Sequence
from typing import Final, NamedTuple
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from org_service.domain.digests import Digest, Digests
from org_service.domain.outcomes import JournaledOutcome
from org_service.store.tables import COMMAND_ID_CONSTRAINT

COMMANDS_UNIQUE: Final = COMMAND_ID_CONSTRAINT
"""The index that proves that no command has two outcomes."""


class WindowDigest(NamedTuple):
    """What a part of the journal comes to."""

    rows: int
    events: Digest
    results: Digest
    chain: Digest
    """As `read_chain`, of all buckets."""


class TableDigests(NamedTuple):
    """What a page of organizations comes to."""

    rows: int
    state: Digests
    chain: Digests
    """Of the last change of each, as `WindowDigests.chain`."""
    differing: list[UUID]
    """Whose row is not what the journal's last change left."""
    last: UUID | None
    """Where the next page begins."""


class BrokenLink(NamedTuple):
    """A change that does not follow the one before it."""

    org_id: UUID
    position: int
    version: int
    version_before: int | None
    fits: bool
    """Whether it found what that one left."""


def bucket(key: str) -> str:
    """The bucket of a UUID, in SQL: its last ten bits, as `verifying.buckets` has them."""
    return f"((get_byte(uuid_send({key}), 14) & 3) << 8 | get_byte(uuid_send({key}), 15))"


def _md5(content: str) -> str:
    return f"('x' || md5({content}))::bit(128)"


_BUCKET: Final = bucket("coalesce(org_id, command_id)")
_MASK: Final = (1 << 64) - 1
"""Of signed numbers as they are in Postgres."""


def _time(column: str) -> str:
    return f"replace(to_char({column} AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US'), '.000000', '') || 'Z'"


_TIME: Final = _time("recorded_at")
EVENT: Final = (
    'concat(event_type, \'{"org_id":"\', org_id, \'","version":\', version, \',"position":\', position, '
    "',\"changed\":', coalesce(changed, '[]'), ',\"before\":', coalesce(before, 'null'), ',\"after\":', "
    "coalesce(after, 'null'), ',\"command_id\":\"', command_id, '\",\"actor\":', "
    f"coalesce(to_json(actor)::text, 'null'), ',\"recorded_at\":\"', {_TIME}, '\"}}')"
)
"""Type and body of a row's event."""
RESULT: Final = (
    "concat('{\"command_id\":\"', command_id, '\",\"org_id\":', coalesce('\"' || org_id || '\"', 'null'), "
    "',\"outcome\":\"', outcome, '\",\"code\":', code, ',\"version\":', coalesce(version::text, 'null'), "
    "',\"organization\":', coalesce(after, 'null'), ',\"position\":', position, ',\"problem\":', "
    "coalesce(problem, 'null'), ',\"final\"\\:true}')"
)
"""Body of a row's result."""


# Of an organization that was erased: what the row said was emptied, and what was published isn't (decision 0043).
_EMPTIED_ROW: Final = "(request_digest = '' AND event_type IS DISTINCT FROM 'org.erased')"


def _link(org_id: str, version: str, organization: str) -> str:
    """What a change left or found. Not the address, whose members stand in any order, but for its length: events say
    more. Of 64 bits: faults have one chance in 2^64 to cancel out, and nobody else picks them."""
    return (
        f"hashtextextended(concat({org_id}, ' ', {version}, ' ', octet_length({organization}), "
        f"split_part({organization}, '\"primary_address\":', 1)), 1)"
    )


_LEFT, _FOUND = _link("org_id", "version", "after"), _link("org_id", "version - 1", "before")
_CHAIN_SUMS: Final = (
    "count(*) FILTER (WHERE event_type IS NOT NULL AND version = 1) AS firsts, "
    f"bit_xor({_LEFT} # CASE WHEN version > 1 THEN {_FOUND} ELSE 0 END) FILTER (WHERE event_type IS NOT NULL) AS chain"
)
# Without groups: nothing is hashed or sorted but what is digested.
_WINDOW: Final = text(
    f"""
SELECT count(*) AS rows,
  count(event_type) FILTER (WHERE position > :events_from AND NOT {_EMPTIED_ROW}) AS events,
  bit_xor({_md5(EVENT)}) FILTER (
    WHERE event_type IS NOT NULL AND position > :events_from AND NOT {_EMPTIED_ROW})::text AS event_xor,
  count(*) FILTER (WHERE position > :results_from AND NOT {_EMPTIED_ROW}) AS results,
  bit_xor({_md5(RESULT)}) FILTER (WHERE position > :results_from AND NOT {_EMPTIED_ROW})::text AS result_xor,
  {_CHAIN_SUMS}
FROM journal WHERE position > :after AND position <= :through
"""  # noqa: S608 - parts are constants of this module
)
_CHAIN: Final = text(
    f"""
SELECT {_BUCKET} AS bucket, {_CHAIN_SUMS}
FROM journal WHERE position > :after AND position <= :through AND org_id IS NOT NULL GROUP BY 1
"""  # noqa: S608 - as above
)
_AS_LEFT: Final = (
    "j.after IS NOT NULL AND o.deleted_at IS NULL AND j.after::jsonb = jsonb_build_object("
    "'id', o.id, 'name', o.name, 'domain', o.domain, 'primary_address', o.primary_address, 'version', o.version, "
    "'created_at', j.after::jsonb -> 'created_at', 'updated_at', j.after::jsonb -> 'updated_at', "
    "'deactivated', o.deactivated_at IS NOT NULL, 'deactivated_at', j.after::jsonb -> 'deactivated_at') "
    "AND (j.after::jsonb ->> 'created_at')::timestamptz = o.created_at "
    "AND (j.after::jsonb ->> 'updated_at')::timestamptz = o.updated_at "
    "AND (j.after::jsonb ->> 'deactivated_at')::timestamptz IS NOT DISTINCT FROM o.deactivated_at "
    "AND o.name_key IS NOT NULL"
)
_AS_DELETED: Final = (
    "j.after IS NULL AND o.deleted_at IS NOT NULL AND j.before::jsonb ->> 'name' = o.name "
    "AND j.before::jsonb ->> 'domain' IS NOT DISTINCT FROM o.domain "
    "AND nullif(j.before::jsonb -> 'primary_address', 'null') IS NOT DISTINCT FROM o.primary_address "
    "AND (j.before::jsonb ->> 'created_at')::timestamptz = o.created_at "
    "AND (j.before::jsonb ->> 'deactivated_at')::timestamptz IS NOT DISTINCT FROM o.deactivated_at "
    "AND o.deleted_at = j.recorded_at AND o.updated_at = j.recorded_at AND o.name_key IS NULL"
)
_AS_ERASED: Final = "j.event_type = 'org.erased' AND o.deleted_at IS NOT NULL AND o.updated_at = j.recorded_at"
_ADDRESS: Final = "split_part(split_part(j.after, '\"primary_address\":', 2), ',\"deactivated\":', 1)"
# The row's JSON, but for the order of the address's members, is what the journal has, as text: six times as fast as to
# compare it value by value. What is written otherwise isn't wrong yet.
AS_WRITTEN: Final = (
    'j.after = concat(\'{"id":"\', o.id, \'","name":\', to_json(o.name), \',"domain":\', '
    f"coalesce(to_json(o.domain)::text, 'null'), ',\"created_at\":\"', {_time('o.created_at')}, "
    f'\'","updated_at":"\', {_time("o.updated_at")}, \'","primary_address":\', {_ADDRESS}, \',"deactivated":\', '
    'coalesce(\'true,"deactivated_at":"\' || '
    f"{_time('o.deactivated_at')} || '\"', 'false,\"deactivated_at\"\\:null'), ',\"version\":', o.version, '}}') "
    f"AND nullif({_ADDRESS}::jsonb, 'null') IS NOT DISTINCT FROM o.primary_address AND o.name_key IS NOT NULL"
)
_PAGE: Final = text(
    f"""
WITH page AS MATERIALIZED (
  SELECT o.id AS org_id, after IS NOT NULL AS there,
    CASE WHEN after IS NOT NULL THEN {_md5("concat(o.id, ' ', o.version, ' ', after)")} END AS state,
    {_link("o.id", "o.version", "after")} AS link,
    coalesce(CASE WHEN o.name = '' THEN {_AS_ERASED} WHEN o.deleted_at IS NOT NULL THEN {_AS_DELETED}
      WHEN {AS_WRITTEN} THEN true ELSE {_AS_LEFT} END, false) AS fits
  FROM (SELECT * FROM organization WHERE id > :after ORDER BY id LIMIT :limit) AS o
  LEFT JOIN journal AS j ON j.org_id = o.id AND j.version = o.version AND j.event_type IS NOT NULL
)
SELECT {bucket("org_id")} AS bucket, count(*) AS rows, max(org_id::text COLLATE "C") AS last,
  array_agg(org_id) FILTER (WHERE NOT fits) AS differing,
  count(*) FILTER (WHERE there) AS states, bit_xor(state)::text AS state_xor, bit_xor(link) AS chain
FROM page GROUP BY 1
"""  # noqa: S608 - parts are constants of this module
)
_fact: Final = """
  SELECT 'memberships' AS kind, user_id || ':' || org_id AS key,
    concat_ws(' ', role, (extract(epoch FROM joined_at) * 1000000)::bigint, active) AS content FROM membership
  UNION ALL SELECT 'partnerships', partner_org_id || ':' || org_id, role FROM partnership
  UNION ALL SELECT 'staff', user_id, '' FROM staff
"""
_FACT_BUCKET: Final = "(('x' || substr(md5(key), 1, 3))::bit(12)::int & 1023)"
_REFERENCE: Final = text(
    f"""
SELECT kind, {_FACT_BUCKET} AS bucket, count(*) AS facts, bit_xor({_md5("concat(key, ' ', content)")})::text AS fact_xor
FROM ({_fact}) AS fact GROUP BY 1, 2
"""  # noqa: S608 - parts are constants of this module
)
_REFERENCE_ROWS: Final = text(
    f"SELECT key, content FROM ({_fact}) AS fact WHERE kind = :kind AND {_FACT_BUCKET} = ANY(:buckets)"  # noqa: S608 - as above
)
_ROWS: Final = text(
    f"SELECT {', '.join(JournaledOutcome._fields)} FROM journal "  # noqa: S608 - as above
    f"WHERE position > :after AND position <= :through AND NOT {_EMPTIED_ROW} "
    "ORDER BY position"
)
_EMPTIED: Final = text(
    f"""
SELECT position FROM organization AS o JOIN journal AS j ON j.org_id = o.id
WHERE o.name = '' AND position > :after AND {_EMPTIED_ROW} ORDER BY position LIMIT :limit
"""  # noqa: S608 - as above
)
_EMPTIED_AT: Final = text(f"SELECT position FROM journal WHERE position = ANY(:positions) AND {_EMPTIED_ROW}")  # noqa: S608 - as above
_ROWS_AT: Final = text(
    f"SELECT {', '.join(JournaledOutcome._fields)} FROM journal WHERE position = ANY(:positions)"  # noqa: S608 - as above
)
_STATES: Final = text(
    f"""
SELECT org_id, version, position, after FROM (
  SELECT DISTINCT ON (org_id) org_id, version, position, after FROM journal
  WHERE event_type IS NOT NULL AND position <= :through AND {_BUCKET} = ANY(:buckets)
  ORDER BY org_id, version DESC) AS last
"""  # noqa: S608 - as above
)
_LINKS: Final = text(
    f"""
SELECT org_id, position, version, version_before, fits FROM (
  SELECT org_id, position, version, lag(version) OVER history AS version_before,
    coalesce(before, 'null')::jsonb = coalesce(lag(after) OVER history, 'null')::jsonb AS fits
  FROM journal WHERE event_type IS NOT NULL AND position <= :through AND {_BUCKET} = ANY(:buckets)
  WINDOW history AS (PARTITION BY org_id ORDER BY version)) AS link
WHERE NOT fits OR version <> coalesce(version_before, 0) + 1 ORDER BY org_id, version LIMIT :limit
"""  # noqa: S608 - as above
)
_LOST_ORGANIZATIONS: Final = text(
    f"""
SELECT DISTINCT org_id FROM journal AS j
WHERE event_type IS NOT NULL AND position <= :through AND {_BUCKET} = ANY(:buckets)
  AND NOT EXISTS (SELECT FROM organization AS o WHERE o.id = j.org_id) ORDER BY org_id LIMIT :limit
"""  # noqa: S608 - as above
)
_HOLES: Final = text(
    """
SELECT behind + 1 AS first_position, position - 1 AS last_position FROM (
  SELECT position, lag(position, 1, CAST(:after AS bigint)) OVER (ORDER BY position) AS behind
  FROM (SELECT position FROM journal WHERE position > :after AND position <= :through
        UNION ALL SELECT CAST(:through AS bigint) + 1) AS each) AS pair
WHERE position > behind + 1 ORDER BY 1 LIMIT :limit
"""
)
_DOUBLE_COMMANDS: Final = text(
    """
SELECT command_id, array_agg(position ORDER BY position) AS positions FROM journal WHERE position <= :through
GROUP BY command_id HAVING count(*) > 1 LIMIT :limit
"""
)
_UNIQUE_INDEXES: Final = text(
    """
SELECT relname FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
WHERE indrelid = 'journal'::regclass AND indisunique AND indisvalid
"""
)


async def read_window(
    conn: AsyncConnection, after: int, through: int, *, events_from: int, results_from: int
) -> WindowDigest:
    """Digest a part of the journal.

    Args:
        conn: Any: rows of the journal never change.
        after: The position before the first row.
        through: The last position.
        events_from: No events up to this position: the topic has not all of them any more.
        results_from: As `events_from`.
    """
    bounds = {"after": after, "through": through, "events_from": events_from, "results_from": results_from}
    row = (await conn.execute(_WINDOW, bounds)).one()
    events, results = Digest(row.events, _number(row.event_xor)), Digest(row.results, _number(row.result_xor))
    return WindowDigest(row.rows, events, results, Digest(row.firsts, (row.chain or 0) & _MASK))


async def read_chain(conn: AsyncConnection, after: int, through: int) -> Digests:
    """Of each change what it left and, taken back, what the one after it found, by bucket: what remains of the whole
    journal is the last of each organization. Counts are those of first versions.

    Args:
        conn: Any.
        after: The position before the first row.
        through: The last position.
    """
    rows = await conn.execute(_CHAIN, {"after": after, "through": through})
    return {row.bucket: Digest(row.firsts, (row.chain or 0) & _MASK) for row in rows}


async def read_page(conn: AsyncConnection, after: UUID | None, limit: int) -> TableDigests:
    """Digest the next organizations, in order of id, and compare each with its last change.

    Args:
        conn: In the snapshot whose journal ends at the position that is proved.
        after: The last id of the page before.
        limit: Organizations at most.
    """
    found, rows, last = TableDigests(0, {}, {}, [], None), 0, ""
    for row in await conn.execute(_PAGE, {"after": after or UUID(int=0), "limit": limit}):
        rows += row.rows
        last = max(last, row.last)
        found.differing.extend(row.differing or ())
        found.state[row.bucket] = Digest(row.states, _number(row.state_xor))
        found.chain[row.bucket] = Digest(row.rows, row.chain & _MASK)
    return found._replace(rows=rows, last=UUID(last) if last else None)


async def read_facts(conn: AsyncConnection) -> dict[str, Digests]:
    """Digest the reference tables, by kind."""
    found: dict[str, Digests] = {"memberships": {}, "partnerships": {}, "staff": {}}
    for row in await conn.execute(_REFERENCE):
        found[row.kind][row.bucket] = Digest(row.facts, _number(row.fact_xor))
    return found


async def read_fact_rows(conn: AsyncConnection, kind: str, buckets: Collection[int]) -> dict[str, str]:
    """The facts of some buckets: what a key says, as text."""
    rows = await conn.execute(_REFERENCE_ROWS, {"kind": kind, "buckets": list(buckets)})
    return {row.key: row.content for row in rows}


async def read_rows(conn: AsyncConnection, after: int, through: int) -> list[JournaledOutcome]:
    """The rows of a part of the journal, in order; without those that were emptied."""
    rows = await conn.execute(_ROWS, {"after": after, "through": through})
    return [JournaledOutcome._make(row) for row in rows]


async def read_emptied(conn: AsyncConnection, after: int, limit: int) -> list[int]:
    """The next positions whose rows were emptied with their organizations."""
    return [row.position for row in await conn.execute(_EMPTIED, {"after": after, "limit": limit})]


async def find_emptied(conn: AsyncConnection, positions: Collection[int]) -> set[int]:
    """Which of these rows were emptied with their organizations."""
    return {row.position for row in await conn.execute(_EMPTIED_AT, {"positions": list(positions)})}


async def read_rows_at(conn: AsyncConnection, positions: Collection[int]) -> dict[int, JournaledOutcome]:
    """Rows by their positions; those that are not there are left out."""
    rows = await conn.execute(_ROWS_AT, {"positions": list(positions)})
    return {row.position: JournaledOutcome._make(row) for row in rows}


async def read_states(
    conn: AsyncConnection, through: int, buckets: Collection[int]
) -> dict[UUID, tuple[int, int, str | None]]:
    """What the journal leaves of the organizations of some buckets: version, position and JSON."""
    rows = await conn.execute(_STATES, {"through": through, "buckets": list(buckets)})
    return {row.org_id: (row.version, row.position, row.after) for row in rows}


async def find_broken_links(
    conn: AsyncConnection, through: int, buckets: Collection[int], limit: int
) -> list[BrokenLink]:
    """Changes that do not follow the ones before them, in some buckets."""
    rows = await conn.execute(_LINKS, {"through": through, "buckets": list(buckets), "limit": limit})
    return [BrokenLink._make(row) for row in rows]


async def find_lost_organizations(
    conn: AsyncConnection, through: int, buckets: Collection[int], limit: int
) -> list[UUID]:
    """Organizations of some buckets that the journal has and the table has not."""
    given = {"through": through, "buckets": list(buckets), "limit": limit}
    return [row.org_id for row in await conn.execute(_LOST_ORGANIZATIONS, given)]


async def find_holes(conn: AsyncConnection, after: int, through: int, limit: int) -> list[tuple[int, int]]:
    """Positions without a row in a part of the journal: first and last of each hole."""
    rows = await conn.execute(_HOLES, {"after": after, "through": through, "limit": limit})
    return [(row.first_position, row.last_position) for row in rows]


async def find_double_commands(conn: AsyncConnection, through: int, limit: int) -> dict[UUID, Sequence[int]]:
    """Commands with more than one outcome. Sorts the journal: only where no unique index proves that there is none."""
    rows = await conn.execute(_DOUBLE_COMMANDS, {"through": through, "limit": limit})
    return {row.command_id: row.positions for row in rows}


async def read_unique_indexes(conn: AsyncConnection) -> frozenset[str]:
    """The journal's unique indexes that are in force."""
    return frozenset(row.relname for row in await conn.execute(_UNIQUE_INDEXES))


def _number(bits: str | None) -> int:
    return int(bits, 2) if bits else 0
