"""The schema's versions: up, down, and which program can run on which. Run as one job, never by every replica.

One migration is one transaction. Jobs started at once wait for each other on an advisory lock, which is tried again
and again rather than waited for: a waiting statement holds a snapshot, and `CREATE INDEX CONCURRENTLY` of the job
that has the lock would wait for that snapshot forever.

A program runs on the schema it was made for and on every later one that says so. Each migration declares
`oldest_code`, the oldest revision whose program still runs on what it leaves; one that only adds declares what the
migration before it does, one that declares nothing breaks all programs before it. The database keeps the result beside
its revision (`schema_version`), because an older program can't read migrations that it doesn't have. It knows all
revisions up to its own, so it may run exactly where it knows `oldest_code`. Programs up to `LAST_EXACT` ask for their
own revision in `alembic_version` and for nothing else; there it stays for as long as they can run. So the way back is
to start the last release again, and no migration has to be undone. Decision 0018 has the reasons.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Collection
from contextlib import asynccontextmanager
from typing import Any, Final, NamedTuple

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncConnection

from org_service.errors import PreconditionError, RetryError, StopError
from org_service.settings import DatabaseSettings
from org_service.store import roles
from org_service.store.engine import Role, create_engine
from org_service.telemetry.logs import get_logger

Report = Callable[[str], None]
"""Is told of each migration that was applied or taken back, just before its transaction ends."""

LOCK_KEY: Final = 0x6F726773_6D696772
"""Advisory lock of a database's migrations: "orgsmigr" in ASCII."""
LOCK_WAIT_S: Final = 600.0
"""For another job to end: building an index over a long journal takes minutes."""
LOCK_TRY_INTERVAL_S: Final = 0.2
TABLE_LOCK_TIMEOUT_MS: Final = 5_000
"""While a migration waits for a table, everybody else waits behind it: better to fail, and to be run again."""

VERSION_MIN: Final = 17
"""Of PostgreSQL: the first that has `transaction_timeout`."""

SCRIPTS: Final = "org_service.store:migrations"
"""Where the migrations are, as alembic names a folder of a package."""
VERSION_TABLE: Final = "schema_version"
LAST_EXACT: Final = "0004"
"""Programs up to this revision know nothing of `schema_version`."""

_ASSUME: Final = text("SELECT set_config('role', :role, true) WHERE to_regrole(:role) IS NOT NULL")

_TABLES: Final = text(f"SELECT to_regclass('{VERSION_TABLE}') IS NOT NULL, to_regclass('alembic_version') IS NOT NULL")
_SCHEMA: Final = text(f"SELECT version_num, oldest_code FROM {VERSION_TABLE}")  # noqa: S608 - a constant
_EXACT: Final = text("SELECT version_num, version_num FROM alembic_version")
# In the shape that alembic expects; the column it doesn't know it leaves alone.
_MAKE_TABLES: Final = text(f"""
DO $$
BEGIN
    IF to_regclass('alembic_version') IS NULL THEN
        CREATE TABLE alembic_version (version_num varchar(32) CONSTRAINT alembic_version_pkc PRIMARY KEY);
    END IF;
    IF to_regclass('{VERSION_TABLE}') IS NULL THEN
        CREATE TABLE {VERSION_TABLE} (
            version_num varchar(32) CONSTRAINT {VERSION_TABLE}_pkc PRIMARY KEY, oldest_code varchar(32)
        );
        GRANT SELECT ON {VERSION_TABLE} TO orgs_worker, orgs_relay, orgs_edge, orgs_reader;
        INSERT INTO {VERSION_TABLE} SELECT version_num, version_num FROM alembic_version;
    END IF;
END $$
""")  # noqa: S608 - constants
_NOTE_OLDEST: Final = text(f"UPDATE {VERSION_TABLE} SET oldest_code = :oldest")  # noqa: S608 - a constant
_CLEAR_EXACT: Final = text("DELETE FROM alembic_version")
_NOTE_EXACT: Final = text("INSERT INTO alembic_version VALUES (:exact)")
_SET_OWNER: Final = text("SET ROLE orgs_owner")
_SET_LOCK_TIMEOUT: Final = text(f"SET lock_timeout = {TABLE_LOCK_TIMEOUT_MS}")
_SHOW_VERSION: Final = text("SHOW server_version_num")
_SHOW_ENCODING: Final = text("SHOW server_encoding")
_TRY_LOCK: Final = text("SELECT pg_try_advisory_lock(:key)")

log = get_logger(__name__)


class Schema(NamedTuple):
    """What a database says of its tables."""

    revision: str | None
    """The last migration; None before the first one."""
    oldest_code: str | None = None
    """The oldest program that runs on them, by its own last migration."""


def _config(**attributes: Any) -> Config:
    config = Config(attributes=attributes)
    config.set_main_option("script_location", SCRIPTS)
    config.set_main_option("path_separator", "os")
    return config


def head() -> str:
    """The version this program needs.

    Raises:
        StopError: The package holds no migration, so it wasn't built whole.
    """
    revision = ScriptDirectory.from_config(_config()).get_current_head()
    if revision is None:
        raise StopError("The package org_service contains no migrations: reinstall it.")
    return revision


def oldest_code(revision: str) -> str:
    """The oldest program that can run on the schema of a revision: of all that led to it, the latest demand counts."""
    lineage = find_lineage(revision)
    return max(lineage.values(), key=list(lineage).index)


def find_lineage(revision: str) -> dict[str, str]:
    """The migrations up to one, the first one first, and what each declares as `oldest_code`."""
    scripts = list(ScriptDirectory.from_config(_config()).iterate_revisions(revision, "base"))
    return {each.revision: getattr(each.module, "oldest_code", each.revision) for each in reversed(scripts)}


async def schema_of(conn: AsyncConnection) -> Schema:
    """What a connection's database says of its tables. Any role may ask."""
    versioned, exact = (await conn.execute(_TABLES)).one()
    if not versioned and not exact:
        return Schema(None)
    row = (await conn.execute(_SCHEMA if versioned else _EXACT)).one_or_none()
    return Schema(None) if row is None else Schema(*row)


def find_lacking(schema: Schema) -> str | None:
    """What must be done before this program can run on a schema; None where it can.

    Raises:
        StopError: Only another release can run on it.
    """
    needed = head()
    if schema.revision == needed:
        return None
    if schema.revision is None or schema.revision in find_lineage(needed):
        return f"the database is at version {schema.revision}, not {needed}: run `orgs migrate`"
    if schema.oldest_code in find_lineage(needed):
        log.info("the database is ahead of this release, which can run on it", version=schema.revision, needed=needed)
        return None
    raise StopError(
        f"The database is at version {schema.revision}, which needs a release that knows version "
        f"{schema.oldest_code}; this one knows versions up to {needed}. Start a newer release."
    )


async def current(database: DatabaseSettings, role: Role | None = None) -> str | None:
    """The version a database stands at; None before the first migration. As `find_schema`, which tells more."""
    return (await find_schema(database, role)).revision


async def find_schema(database: DatabaseSettings, role: Role | None = None) -> Schema:
    """Ask a database what it says of its tables.

    Args:
        database: Which.
        role: Asks as this one (if `database.assume_role`), once it is there: a login need not inherit its rights.
            None asks as the login.

    Raises:
        TimeoutError: No answer within the time for a connection and a statement, which a login's session doesn't bound.
        Exception: As the driver has it; `store.failures.classify` says what to do.
    """
    engine = create_engine(database, None, direct=True)
    async with asyncio.timeout(database.connect_timeout_s + database.statement_timeout_s), engine.connect() as conn:
        if role is not None and database.assume_role:
            await conn.execute(_ASSUME, {"role": f"orgs_{role}"})
        return await schema_of(conn)


async def upgrade(database: DatabaseSettings, revision: str = "head", *, report: Report | None = None) -> str:
    """Bring a database up to a version. May be run again, and by several at once: the later ones find nothing to do.

    A database that is ahead of this program is left as it is, where this program can run on it.

    Args:
        database: Its login makes the roles where they are missing, then acts as `orgs_owner`.
        revision: The target; "head" is the version this program needs.
        report: Told of each migration.

    Returns:
        The version the database is at: of a newer release, if it was ahead.

    Raises:
        RetryError: Another job held the lock for too long. Nothing was changed.
        DeniedError: The login lacks rights.
        PreconditionError: The server or the database won't do. Nothing was changed.
        StopError: Only a newer release can run on the database. Nothing was changed.
        sqlalchemy.exc.DBAPIError: A migration failed: those before it hold, it and those after it left nothing.
    """
    async with _prepared(database) as (conn, schema):
        if _is_ahead(schema):
            find_lacking(schema)
            return str(schema.revision)
        await _run(conn, report, lambda config: command.upgrade(config, revision))
        return str((await schema_of(conn)).revision)


async def downgrade(database: DatabaseSettings, revision: str, *, report: Report | None = None) -> None:
    """Take migrations back, down to a version. "base" drops every table **and all data** in them.

    For tests, and for whoever develops a migration: in operation the way back is an older release on the newer schema.
    The roles stay: other databases of the cluster may use them. Raises as `upgrade` does.
    """
    async with _prepared(database) as (conn, schema):
        if _is_ahead(schema):
            raise PreconditionError(f"Only the release that migrated the database to {schema.revision} can undo that.")
        await _run(conn, report, lambda config: command.downgrade(config, revision))


def _is_ahead(schema: Schema) -> bool:
    return schema.revision is not None and schema.revision not in find_lineage(head())


@asynccontextmanager
async def _prepared(database: DatabaseSettings) -> AsyncGenerator[tuple[AsyncConnection, Schema]]:
    """A connection of the owner that is alone with its migrations, and the schema it finds."""
    async with _alone(database) as conn:
        await _check(conn)
        await roles.prepare(conn)
        await conn.execute(_SET_OWNER)
        await conn.execute(_SET_LOCK_TIMEOUT)
        await conn.execute(_MAKE_TABLES)
        schema = await schema_of(conn)
        await conn.commit()
        yield conn, schema


async def _run(conn: AsyncConnection, report: Report | None, action: Callable[[Config], None]) -> None:
    started = time.monotonic()

    def applied(*, ctx: MigrationContext, step: Any, heads: Collection[str], **_: Any) -> None:
        assert ctx.connection is not None
        _note(ctx.connection, next(iter(heads), None))
        direction = "up" if step.is_upgrade else "down"
        seconds = round(time.monotonic() - started, 3)
        log.info("migration applied", revision=step.up_revision_id, direction=direction, seconds=seconds)
        if report is not None:
            report(f"{direction} {step.up_revision_id}: {step.up_revision.doc}")

    def act(sync_conn: Connection) -> None:
        action(_config(connection=sync_conn, on_version_apply=applied, version_table=VERSION_TABLE))

    await conn.run_sync(act)


def _note(conn: Connection, revision: str | None) -> None:
    """Write down, in the transaction of a migration, which programs can run on what it leaves."""
    conn.execute(_CLEAR_EXACT)
    if revision is None:
        return
    lineage, oldest = list(find_lineage(revision)), oldest_code(revision)
    conn.execute(_NOTE_OLDEST, {"oldest": oldest})
    bears_exact = LAST_EXACT in lineage and lineage.index(oldest) <= lineage.index(LAST_EXACT)
    conn.execute(_NOTE_EXACT, {"exact": LAST_EXACT if bears_exact else revision})


async def _check(conn: AsyncConnection) -> None:
    version = int(await conn.scalar(_SHOW_VERSION)) // 10_000
    if version < VERSION_MIN:
        raise PreconditionError(f"This is PostgreSQL {version}: the service needs {VERSION_MIN} or newer.")
    encoding = await conn.scalar(_SHOW_ENCODING)
    if encoding != "UTF8":
        raise PreconditionError(
            f"The database is encoded in {encoding}, which cannot represent every name: recreate it with "
            "ENCODING 'UTF8' TEMPLATE template0."
        )


@asynccontextmanager
async def _alone(database: DatabaseSettings) -> AsyncGenerator[AsyncConnection]:
    """A connection that holds the lock of this database's migrations until it is closed."""
    engine = create_engine(database, None, direct=True)
    deadline = time.monotonic() + LOCK_WAIT_S
    async with engine.connect() as conn:
        while not await conn.scalar(_TRY_LOCK, {"key": LOCK_KEY}):
            await conn.rollback()
            if time.monotonic() > deadline:
                raise RetryError(
                    f"Another migration has been running for {LOCK_WAIT_S:.0f} s: check it, then run this again."
                )
            await asyncio.sleep(LOCK_TRY_INTERVAL_S)
        await conn.commit()
        yield conn
