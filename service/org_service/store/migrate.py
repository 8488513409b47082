"""The schema's versions: up, down, and where a database stands. Run as one job, never by every replica.

One migration is one transaction. Jobs started at once wait for each other on an advisory lock, which is tried again
and again rather than waited for: a waiting statement holds a snapshot, and `CREATE INDEX CONCURRENTLY` of the job
that has the lock would wait for that snapshot for ever.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncConnection

from org_service.errors import RetryError, StopError
from org_service.settings import Database
from org_service.store import roles
from org_service.store.engine import Role, create_engine
from org_service.telemetry import get_logger

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

_ASSUME: Final = text("SELECT set_config('role', :role, true) WHERE to_regrole(:role) IS NOT NULL")

log = get_logger(__name__)


def _config(**attributes: Any) -> Config:
    config = Config(attributes=attributes)
    config.set_main_option("script_location", "org_service.store:migrations")
    config.set_main_option("path_separator", "os")
    return config


def head() -> str:
    """The version this program needs.

    Raises:
        StopError: The package holds no migration, so it wasn't built whole.
    """
    revision = ScriptDirectory.from_config(_config()).get_current_head()
    if revision is None:
        raise StopError("The package org_service holds no migrations: install it again.")
    return revision


async def revision_of(conn: AsyncConnection) -> str | None:
    """The version a connection's database stands at; None before the first migration. Any role may ask."""

    def read(sync_conn: Connection) -> str | None:
        return MigrationContext.configure(sync_conn).get_current_revision()

    return await conn.run_sync(read)


async def current(database: Database, role: Role | None = None) -> str | None:
    """The version a database stands at; None before the first migration.

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
        return await revision_of(conn)


async def upgrade(database: Database, revision: str = "head", *, report: Report | None = None) -> None:
    """Bring a database up to a version. May be run again, and by several at once: the later ones find nothing to do.

    Args:
        database: Its login makes the roles where they are missing, then acts as `orgs_owner`.
        revision: The target; "head" is the version this program needs.
        report: Told of each migration.

    Raises:
        RetryError: Another job held the lock for too long. Nothing was changed.
        StopError: The login lacks rights, or the server or the database won't do. Nothing was changed.
        sqlalchemy.exc.DBAPIError: A migration failed: those before it hold, it and those after it left nothing.
    """
    await _run(database, report, lambda config: command.upgrade(config, revision))


async def downgrade(database: Database, revision: str, *, report: Report | None = None) -> None:
    """Take migrations back, down to a version. "base" drops every table **and all data** in them.

    The roles stay: other databases of the cluster may use them. Raises as `upgrade` does.
    """
    await _run(database, report, lambda config: command.downgrade(config, revision))


async def _run(database: Database, report: Report | None, action: Callable[[Config], None]) -> None:
    started = time.monotonic()

    def applied(*, step: Any, **_: Any) -> None:
        direction = "up" if step.is_upgrade else "down"
        seconds = round(time.monotonic() - started, 3)
        log.info("migration applied", revision=step.up_revision_id, direction=direction, seconds=seconds)
        if report is not None:
            report(f"{direction} {step.up_revision_id}: {step.up_revision.doc}")

    def act(sync_conn: Connection) -> None:
        action(_config(connection=sync_conn, on_version_apply=applied))

    async with _alone(database) as conn:
        await _check(conn)
        await roles.prepare(conn)
        await conn.execute(text("SET ROLE orgs_owner"))
        await conn.execute(text(f"SET lock_timeout = {TABLE_LOCK_TIMEOUT_MS}"))
        await conn.commit()
        await conn.run_sync(act)


async def _check(conn: AsyncConnection) -> None:
    version = int(await conn.scalar(text("SHOW server_version_num"))) // 10_000
    if version < VERSION_MIN:
        raise StopError(f"This is PostgreSQL {version}: the service needs {VERSION_MIN} or newer.")
    encoding = await conn.scalar(text("SHOW server_encoding"))
    if encoding != "UTF8":
        raise StopError(
            f"The database is encoded in {encoding}, where not every name can be written: create it anew with "
            "ENCODING 'UTF8' TEMPLATE template0."
        )


@asynccontextmanager
async def _alone(database: Database) -> AsyncGenerator[AsyncConnection]:
    """A connection that holds the lock of this database's migrations until it is closed."""
    engine = create_engine(database, None, direct=True)
    deadline = time.monotonic() + LOCK_WAIT_S
    async with engine.connect() as conn:
        while not await conn.scalar(text("SELECT pg_try_advisory_lock(:key)"), {"key": LOCK_KEY}):
            await conn.rollback()
            if time.monotonic() > deadline:
                raise RetryError(
                    f"Another migration has been running for {LOCK_WAIT_S:.0f} s: see to it, then run this again."
                )
            await asyncio.sleep(LOCK_TRY_INTERVAL_S)
        await conn.commit()
        yield conn
