"""What Postgres says of itself: settings, clock, who leads, who may do what. For operators who look."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Final, NamedTuple

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from org_service.store.leader import lock_key


class Leader(NamedTuple):
    """The session that holds a leader's lock."""

    pid: int
    address: str | None
    """None over a socket, or where our login may not see it."""
    since: datetime | None
    """When it connected; None where our login may not see it."""


class Right(NamedTuple):
    """What a role may do to a table."""

    role: str
    table: str
    privilege: str


# A bigint key is shown in halves, with objsubid 1 (manual, "pg_locks").
_FIND_LEADER: Final = text("""
SELECT l.pid, host(a.client_addr), a.backend_start
FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid
WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
AND l.classid = CAST(:high AS bigint)::oid AND l.objid = CAST(:low AS bigint)::oid
""")
_SHOW_SETTINGS: Final = text("""
SELECT name, setting || coalesce(unit, '') FROM pg_settings WHERE name = ANY(CAST(:names AS text[]))
""")
_SHOW_STATE: Final = text("""
SELECT clock_timestamp(), pg_is_in_recovery(), current_setting('server_version'),
    (SELECT rolsuper FROM pg_roles WHERE rolname = session_user)
""")
_COUNT_SYNCHRONOUS: Final = text("""
SELECT count(*) FILTER (WHERE sync_state IN ('sync', 'quorum')), count(*) FILTER (WHERE sync_state IS NULL)
FROM pg_stat_replication
""")
_FIND_RIGHTS: Final = text("""
SELECT r.role, t."table", p.privilege
FROM unnest(CAST(:roles AS text[])) r(role), unnest(CAST(:tables AS text[])) t("table"),
    unnest(CAST(:privileges AS text[])) p(privilege)
WHERE to_regrole(r.role) IS NOT NULL AND to_regclass(t."table") IS NOT NULL
AND has_table_privilege(r.role, t."table", p.privilege)
""")
_FIND_ASSUMABLE: Final = text("""
SELECT r.role FROM unnest(CAST(:roles AS text[])) r(role)
WHERE to_regrole(r.role) IS NOT NULL AND pg_has_role(session_user, r.role, 'SET')
""")


class State(NamedTuple):
    """The server now."""

    clock: datetime
    standby: bool
    version: str
    superuser: bool
    """Whether our login is one: no right of a role means anything to it."""


async def find_leader(conn: AsyncConnection, name: str) -> Leader | None:
    """Who holds the lock of the relays of a name; None where nobody does."""
    key = lock_key(name)
    row = (await conn.execute(_FIND_LEADER, {"high": key >> 32 & 0xFFFFFFFF, "low": key & 0xFFFFFFFF})).first()
    return None if row is None else Leader._make(row)


async def show_settings(conn: AsyncConnection, names: Collection[str]) -> Mapping[str, str]:
    """Settings of the server as this session has them, with their unit; those that it doesn't know are left out."""
    rows = await conn.execute(_SHOW_SETTINGS, {"names": list(names)})
    return {row[0]: row[1] for row in rows}


async def show_state(conn: AsyncConnection) -> State:
    """What the server is, and its clock."""
    return State._make((await conn.execute(_SHOW_STATE)).one())


async def count_synchronous(conn: AsyncConnection) -> int | None:
    """How many standbys are synchronous now; None where our login may not see it."""
    synchronous, hidden = (await conn.execute(_COUNT_SYNCHRONOUS)).one()
    return None if hidden else int(synchronous)


async def find_rights(
    conn: AsyncConnection, roles: Sequence[str], tables: Sequence[str], privileges: Sequence[str]
) -> set[Right]:
    """Which roles may do what to which tables; roles and tables that don't exist may do nothing."""
    asked = {"roles": list(roles), "tables": list(tables), "privileges": list(privileges)}
    return {Right._make(row) for row in await conn.execute(_FIND_RIGHTS, asked)}


async def find_assumable(conn: AsyncConnection, roles: Sequence[str]) -> set[str]:
    """Which roles our login may assume."""
    return {row[0] for row in await conn.execute(_FIND_ASSUMABLE, {"roles": list(roles)})}
