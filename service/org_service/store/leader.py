"""What the relay needs a session of its own for: to be woken by the worker's NOTIFY, and to be the only leader.

Both belong to one connection from beginning to end, so they go to Postgres itself and never through a pooler in
transaction mode. A connection that is gone is an outage like any other (RetryError): the holder drops what it was
doing and begins again with a new one. Neither is what keeps publishing exact: a missed NOTIFY costs one poll interval,
and two leaders at once are told apart by Kafka, which fences the older one.
"""

# asyncpg comes without stubs, its functions are annotated in part.
# pyright: reportMissingTypeStubs=false

import asyncio
from hashlib import blake2b
from types import TracebackType
from typing import Any, Final, Self, cast

import asyncpg

from org_service.errors import RetryError
from org_service.settings import DatabaseSettings
from org_service.store.engine import Role, Session, connect
from org_service.store.failures import classify_errors
from org_service.store.tables import JOURNAL_CHANNEL

SIGN_OF_LIFE_S: Final = 5.0
"""For Postgres to answer on an open connection; far more than it needs, far less than TCP takes to give up."""
SILENCE_MAX_S: Final = 10.0
"""A leader that asks Postgres nothing for so long has lost the lock: its process hangs or was frozen."""


def lock_key(name: str) -> int:
    """The key of the advisory lock that the leader of a name holds."""
    return int.from_bytes(blake2b(b"orgs leader:" + name.encode(), digest_size=8).digest(), signed=True)


class _OwnSession:
    """A connection that is opened with the block and closed with it, and is never replaced in between."""

    def __init__(self, database: DatabaseSettings, role: Role = "relay") -> None:
        self._database = database
        self._role: Role = role
        self._session: Session | None = None

    async def __aenter__(self) -> Self:
        with classify_errors():
            self._session = await connect(self._database, self._role)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        session, self._session = self._session, None
        if session is None or session.is_closed():
            return
        try:
            await session.close(timeout=SIGN_OF_LIFE_S)
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            session.terminate()

    async def _ask(self, query: str, *args: Any) -> Any:
        """One value, within `SIGN_OF_LIFE_S`."""
        if self._session is None:
            raise RetryError("The session is closed: enter it again")
        with classify_errors():
            return cast("Any", await self._session.fetchval(query, *args, timeout=SIGN_OF_LIFE_S))


class JournalSignal(_OwnSession):
    """Tells that the journal has grown: `async with JournalSignal(database) as signal: await signal.wait(1)`.

    Notifications that come while nobody waits are kept as one: so wait, then read until nothing is left. One task
    may wait at a time. Entering raises RetryError when Postgres can't be reached.
    """

    def __init__(self, database: DatabaseSettings, role: Role = "relay") -> None:
        super().__init__(database, role)
        self._woken = asyncio.Event()

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        assert self._session is not None
        try:
            self._session.add_termination_listener(self._wake)
            with classify_errors():
                await self._session.add_listener(JOURNAL_CHANNEL, self._wake)
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        # What was committed before LISTEN took effect gave no signal here.
        self._woken.set()
        return self

    async def wait(self, timeout_s: float) -> bool:
        """Wait until the journal has grown since the last call, at most `timeout_s` seconds.

        The first call returns at once. Returns False when the time was up; then Postgres has responded.

        Raises:
            RetryError: The connection is gone; no more signals will come.
        """
        try:
            async with asyncio.timeout(timeout_s):
                await self._woken.wait()
        except TimeoutError:
            await self._ask(_PING)
        if self._session is None or self._session.is_closed():
            raise RetryError("The connection that listens to the journal was lost")
        woken = self._woken.is_set()
        self._woken.clear()
        return woken

    def _wake(self, *_: object) -> None:
        self._woken.set()


class LeaderLock(_OwnSession):
    """At most one holder a name: `async with LeaderLock(database, name) as lock: await lock.acquire(1)`.

    An advisory lock of the session: Postgres frees it when the connection ends, when the holder's machine vanished
    (`engine.KEEPALIVE_IDLE_S`), and when the holder was silent for `SILENCE_MAX_S`: so `check` more often. Followers
    try again and again rather than wait in the server, where a waiting statement would hold back vacuum for as long as
    the leader lives. Entering raises RetryError when Postgres can't be reached.
    """

    def __init__(self, database: DatabaseSettings, name: str, role: Role = "relay") -> None:
        super().__init__(database, role)
        self._name = name
        self._key = lock_key(name)

    async def try_acquire(self) -> bool:
        """Become the leader unless there is one; True also when this is the leader already.

        Raises:
            RetryError: The connection is gone; this isn't the leader.
        """
        return await self._holds() or await self._ask(_ACQUIRE, self._key, str(round(SILENCE_MAX_S * 1000)))

    async def acquire(self, interval_s: float) -> None:
        """Become the leader, however long that takes, trying every `interval_s` seconds.

        Raises:
            RetryError: The connection is gone; this isn't the leader.
        """
        while not await self.try_acquire():  # noqa: ASYNC110 - Postgres tells nobody that a lock is free
            await asyncio.sleep(interval_s)

    async def check(self) -> None:
        """Return if this is the leader still. One round trip: call it before each thing only a leader may do.

        Raises:
            RetryError: It isn't: the connection is gone, or a pooler gave the session to somebody else.
        """
        if not await self._holds():
            raise RetryError(f"The leader's lock of {self._name!r} is not held: connect to Postgres without a pooler")

    async def _holds(self) -> bool:
        high, low = (self._key >> 32) & 0xFFFFFFFF, self._key & 0xFFFFFFFF
        return await self._ask(_HOLDS, high, low)


_PING: Final = "SELECT 1"
# The same statement that gets the lock makes silence end it.
_ACQUIRE: Final = """
SELECT CASE WHEN pg_try_advisory_lock($1) THEN set_config('idle_session_timeout', $2, false) IS NOT NULL ELSE false END
"""
# A bigint key is shown in halves, with objsubid 1 (manual, "pg_locks").
_HOLDS: Final = """
SELECT EXISTS (
    SELECT FROM pg_locks
    WHERE locktype = 'advisory' AND pid = pg_backend_pid() AND granted
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND classid = $1::bigint::oid AND objid = $2::bigint::oid AND objsubid = 1
)
"""
