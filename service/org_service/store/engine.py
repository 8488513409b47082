"""Connections to Postgres: one factory for the pooled engines and for the sessions that hold a lock or listen.

asyncpg reads the URL itself (as libpq would: `host=/socket/dir`, `sslmode`, several hosts, `~/.pgpass`), so nothing
here takes it apart; options it doesn't know become settings of the session. What every session gets, and why, stands
in `_session_settings`.

Every call on a connection ends, whatever the network does: Postgres ends a statement after `statement_timeout`, and
where no answer comes at all the driver gives up `ANSWER_MARGIN_S` later and cuts the connection. That holds for
COMMIT and for a task cancelled in the middle of one too (with asyncpg >= 0.32; before, SQLAlchemy issue 12728).
The outcome of such a transaction is unknown.
"""

# asyncpg comes without stubs, its functions are annotated in part.
# pyright: reportMissingTypeStubs=false, reportArgumentType=false

from collections.abc import Callable
from typing import Any, Final, Literal, cast

import asyncpg
import orjson
from sqlalchemy import ExceptionContext, event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from org_service import probes
from org_service.errors import RetryError, UnreachableError
from org_service.probes import probe
from org_service.settings import DatabaseSettings

Role = Literal["owner", "worker", "relay", "edge", "reader", "operate"]
"""Group role a session assumes: `orgs_owner`, `orgs_worker` …"""
Session = asyncpg.Connection
"""A connection of the driver, outside any pool."""

READ_ONLY: Final = "25006"
"""SQLSTATE of a write to a standby (manual, appendix A)."""
ANSWER_MARGIN_S: Final = 2.0
"""Longer than `statement_timeout`, so that Postgres answers first wherever it can."""
KEEPALIVE_IDLE_S: Final = 10
KEEPALIVE_INTERVAL_S: Final = 5
KEEPALIVE_COUNT: Final = 3
"""Postgres gives up a client that vanished without a word after 10 + 3 * 5 seconds, and frees its locks."""


def _dumps(value: Any) -> str:
    return orjson.dumps(value).decode()


PLAN_AGE_MAX_S: Final = 60
"""After this a connection that keeps plans is closed: as often as Postgres looks whether tables grew (autovacuum)."""

_ONE_PLAN: Final = {
    # The edge's statements are written for one plan each, whatever is asked: by index. Planning one again and again
    # costs three times as much as running it. A plan made while a table was small may read the wrong index from end to
    # end, so none gets older than `PLAN_AGE_MAX_S`.
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    # Nor is any worth a second process.
    "max_parallel_workers_per_gather": "0",
}


_AS_DESIGNED: Final = {
    # The order "lock, then look" (decision 0003) needs each statement to see what was committed before it.
    "default_transaction_isolation": "read committed",
    # What was acknowledged to Kafka, and published, may not be taken back by a crash.
    "synchronous_commit": "on",
}


def _session_settings(database: DatabaseSettings, role: Role | None) -> dict[str, str]:
    settings = {
        "application_name": f"orgs-{role or 'migrate'}",
        # Set-based statements look expensive to the planner and end in milliseconds: compiling them takes longer.
        "jit": "off",
        # A plan that was cached on the empty journal of a new system reads all of it until the first ANALYZE: 200 ms to
        # look up 1,000 command ids among 60,000, against 3 ms. Planning each time costs 0.1 to 0.7 ms.
        "plan_cache_mode": "force_custom_plan",
        "tcp_keepalives_idle": str(KEEPALIVE_IDLE_S),
        "tcp_keepalives_interval": str(KEEPALIVE_INTERVAL_S),
        "tcp_keepalives_count": str(KEEPALIVE_COUNT),
        "tcp_user_timeout": str((KEEPALIVE_IDLE_S + KEEPALIVE_INTERVAL_S * KEEPALIVE_COUNT) * 1000),
    }
    if role == "edge":
        settings |= _ONE_PLAN
    if role is not None:
        # A worker that stops in the middle of a transaction would keep the lock on journal_head, and so every other
        # worker waiting, for as long as its connection lives.
        statement_ms = round(database.statement_timeout_s * 1000)
        settings["statement_timeout"] = settings["idle_in_transaction_session_timeout"] = str(statement_ms)
        if role == "owner":
            settings |= _AS_DESIGNED
        if role == "worker":
            # Neither ends a session whose client stops between preparing a statement and running it: asyncpg sends
            # Flush there and no Sync, so Postgres isn't idle, and waits for a message, so it ignores the cancellation.
            settings |= _AS_DESIGNED | {"transaction_timeout": str(2 * statement_ms)}
        if database.assume_role:
            settings["role"] = f"orgs_{role}"
    return settings


async def connect(database: DatabaseSettings, role: Role | None) -> Session:
    """Open a connection of the driver, outside any pool.

    Args:
        database: Where, and within which time.
        role: The group role to assume (if `database.assume_role`). None stays the login and sets no limit to a
            statement, for migrations.

    Raises:
        OSError, asyncpg.PostgresError: There is no connection; `failures.classify` says what to do.
        UnreachableError: Nobody answers there, or not in time.
        RetryError: Postgres refuses a setting of the session, such as a role that does not exist (yet); or this is a
            standby, and the role needs what is true now.
    """
    settings = _session_settings(database, role)
    if probes.listeners:
        await probe("store.before_connect", settings)
    try:
        session = cast(
            "Session",
            await asyncpg.connect(
                database.url.get_secret_value(),
                timeout=database.connect_timeout_s,
                command_timeout=None if role is None else database.statement_timeout_s + ANSWER_MARGIN_S,
                server_settings=settings,
                # Behind the journal a relay would take what Kafka has for another database's, and an edge would show
                # what was before a change that it has just confirmed.
                target_session_attrs="primary" if role in {"worker", "relay", "edge"} else None,
            ),
        )
    except asyncpg.TargetServerAttributeNotMatched as error:
        raise RetryError(f"Postgres at {database.address} is a standby: waiting for the primary") from error
    except OSError as error:  # TimeoutError is one
        if error.filename is not None:  # a certificate, say: not the server's matter
            raise
        raise UnreachableError(
            f"Postgres at {database.address} cannot be reached: {type(error).__name__}: {error}"
        ) from error
    except asyncpg.DataError as error:  # its class would blame, and park, the command in flight
        raise RetryError(f"Postgres refuses the session: {error.args[0]} (SQLSTATE {error.sqlstate})") from error
    if probes.listeners:
        await probe("store.after_connect", session)
    return session


def create_engine(database: DatabaseSettings, role: Role | None, *, direct: bool = False) -> AsyncEngine:
    """Make an engine whose connections have the rights of one role. It connects when first used.

    Args:
        database: Where, how many connections at most, and the time-outs.
        role: As for `connect`.
        direct: No pool: each `connect()` opens a connection and closes it at the end.

    The errors of its statements never show parameters, because these hold the data of customers.
    """
    pool: dict[str, Any] = (
        {"poolclass": NullPool}
        if direct
        else {"pool_size": database.pool_size, "max_overflow": 0, "pool_timeout": database.connect_timeout_s}
    )
    if role == "edge" and not direct:
        pool["pool_recycle"] = PLAN_AGE_MAX_S
    engine = create_async_engine(
        "postgresql+asyncpg://",
        async_creator=lambda: connect(database, role),
        json_serializer=_dumps,
        json_deserializer=orjson.loads,
        hide_parameters=True,
        **pool,
    )
    event.listen(engine.sync_engine, "handle_error", _leave_standby)
    event.listen(engine.sync_engine, "handle_error", _say_where(database.address))
    return engine


def _leave_standby(context: ExceptionContext) -> None:
    """Take a server that became read-only for one that is gone, with every connection of the pool.

    After a fail-over the address may lead to the former primary for a while. That one stays up, so the connections
    made then would never break, and everything written on them would fail until the process ends.
    """
    if getattr(context.original_exception, "sqlstate", None) == READ_ONLY:
        context.is_disconnect = True


def _say_where(address: str) -> Callable[[ExceptionContext], UnreachableError | None]:
    """Makes what says where a connection led to that broke or is silent: the driver's own error doesn't."""

    def say(context: ExceptionContext) -> UnreachableError | None:
        error = context.original_exception
        if not isinstance(error, OSError):
            return None
        why = type(error).__name__ + (f": {error}" if str(error) else "")
        return UnreachableError(f"Postgres at {address} does not respond in time, or the connection broke: {why}")

    return say
