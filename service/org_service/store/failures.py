"""What to do about an error of the database: wait and retry, fold again, park, or none of these.

Judged by SQLSTATE (manual, appendix A) where Postgres answered, else by the kind of the driver's error. The rule for
what isn't listed: unknown trouble is None, and the caller treats it as an outage, so nothing is parked by mistake.
"""

# asyncpg comes without stubs.
# pyright: reportMissingTypeStubs=false

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Final

import asyncpg
from sqlalchemy import exc

from org_service.errors import DataRefusedError, RefoldError, RetryError, TooSlowError
from org_service.store.tables import COMMAND_ID_CONSTRAINT, NAME_KEY_CONSTRAINT, ORGANIZATION_KEY

UNIQUE_VIOLATION: Final = "23505"

_WITH_RIVALS: Final = frozenset({NAME_KEY_CONSTRAINT, COMMAND_ID_CONSTRAINT, ORGANIZATION_KEY})
"""What the worker looks at before it decides: where these clash, somebody got in between, and the next look tells."""
_REFOLD: Final = frozenset({UNIQUE_VIOLATION, "40001", "40P01"})  # unique, serialization failure, deadlock
_RETRY: Final = frozenset(
    {
        "25006",  # read-only transaction: connected to what is a standby by now
        "25P03",  # idle in transaction for too long
        "40003",  # statement completion unknown
        "55P03",  # lock not available within lock_timeout
        "57P01",  # admin shutdown
        "57P02",  # crash shutdown
        "57P03",  # cannot connect now: starting up, shutting down
        "57P05",  # idle for too long
    }
)
_TOO_SLOW: Final = frozenset(
    {
        "25P04",  # transaction took too long
        # Cancelled: a statement took too long. Or an operator did it, which only the message tells, in the server's
        # language; less at once does no harm then.
        "57014",
    }
)
_RETRY_CLASSES: Final = ("08", "53", "58")  # connection; too many connections, disk, memory; the operating system
_DATA_CLASS: Final = "22"
_ROW_CLASSES: Final = ("23", "54")  # integrity; a value too large for an index, JSON nested too deep for the stack
_CONNECTION_UNUSABLE: Final = ("connection is closed", "another operation")
"""In the driver's own messages, when a connection broke between two calls; its others are about wrong calls."""
_JOURNAL_KEY: Final = "journal_pkey"
"""A position given out twice: journal_head doesn't match the journal. Folding again can't help."""


def classify(error: BaseException) -> RetryError | RefoldError | DataRefusedError | None:
    """Say what to do about an error raised by the driver, by SQLAlchemy or by the network.

    Args:
        error: As caught around a connect, a statement or a commit. One of the three comes back as it is.

    Returns:
        The error to raise `from` it, with a text that holds no data of customers; None when nothing is known about
        it. Nothing was written, but for one case: after a RetryError in COMMIT that is unknown.
    """
    for each in _causes(error):
        if isinstance(each, (RetryError, RefoldError, DataRefusedError)):
            return each
        verdict = _by_sqlstate(each) if isinstance(each, asyncpg.PostgresError) else _by_kind(each)
        if verdict is not None:
            return verdict
    return None


def find_misconfiguration(error: BaseException) -> str | None:
    """What the driver can't do with the URL: its own words, which name parameters and files; None for other errors."""
    return next((str(each) for each in _causes(error) if isinstance(each, asyncpg.ClientConfigurationError)), None)


def describe_sqlstate(error: BaseException) -> str:
    """What the database said, by its code alone: its message may quote the payload."""
    for each in _causes(error):
        state = getattr(each, "sqlstate", None)
        if isinstance(state, str):
            return f"SQLSTATE {state} ({type(each).__name__})"
    return type(error).__name__


@contextmanager
def classify_errors() -> Generator[None]:
    """Raise what `classify` says in place of the error of the body; what it doesn't know passes as it is."""
    try:
        yield
    except Exception as error:
        verdict = classify(error)
        if verdict is None or verdict is error:
            raise
        raise verdict from error


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what it wraps, innermost first: the driver's own error knows most."""
    inner: BaseException | None = None
    if isinstance(error, exc.StatementError):
        inner = error.orig
    elif isinstance(error, exc.EmulatedDBAPIException):
        inner = error.__cause__  # `orig` lacks in that of InvalidCachedStatementError
    elif isinstance(error, asyncpg.ConnectionDoesNotExistError):
        inner = error.__cause__  # what the server said before it ended the session
    if inner is not None:
        yield from _causes(inner)
    yield error


def _by_sqlstate(error: asyncpg.PostgresError) -> RetryError | RefoldError | DataRefusedError | None:
    state: str = getattr(error, "sqlstate", None) or ""
    constraint: str = getattr(error, "constraint_name", None) or ""
    if state.startswith(
        _DATA_CLASS
    ):  # its message quotes the value, and the driver's own rejections have this class too
        return DataRefusedError(f"Postgres or its driver refuses a value: {type(error).__name__} (SQLSTATE {state})")
    said = f"Postgres: {error.args[0]} (SQLSTATE {state})"  # without the detail, which quotes the row
    if state in _TOO_SLOW:
        return TooSlowError(said)
    if state in _RETRY or state.startswith(_RETRY_CLASSES) or isinstance(error, asyncpg.InvalidCachedStatementError):
        return RetryError(said)
    if state in _REFOLD:
        in_data = state == UNIQUE_VIOLATION and constraint not in _WITH_RIVALS
        return None if constraint == _JOURNAL_KEY else RefoldError(said, in_data=in_data)
    return DataRefusedError(said) if state.startswith(_ROW_CLASSES) else None


def _by_kind(error: BaseException) -> RetryError | DataRefusedError | None:
    name = type(error).__name__
    if isinstance(error, (asyncpg.TargetServerAttributeNotMatched, asyncpg.OutdatedSchemaCacheError)):
        return RetryError(f"Postgres is failing over or migrating: {name}")
    if isinstance(error, (asyncpg.InterfaceError, asyncpg.InternalClientError)):
        gone = any(words in str(error) for words in _CONNECTION_UNUSABLE)
        return RetryError(f"The connection to Postgres is no longer usable: {error}") if gone else None
    if isinstance(error, (OSError, TimeoutError, exc.TimeoutError)):
        return RetryError(f"Postgres does not respond in time, or the connection broke: {name}: {error}")
    if isinstance(error, exc.PendingRollbackError):
        return RetryError("The connection to Postgres was lost earlier in this transaction")
    if isinstance(error, exc.StatementError) and isinstance(error.orig, (TypeError, ValueError, OverflowError)):
        return DataRefusedError(f"A value cannot be encoded for its column: {type(error.orig).__name__}")
    return None
