"""Postgres as the rest of the service knows it: connections for the functions of this package.

Nobody else runs a statement, so nobody else needs SQLAlchemy: they open a connection, or begin a transaction, and hand
it to the function that knows the statement.
"""

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from org_service.settings import DatabaseSettings
from org_service.store.engine import Role, create_engine

DatabaseConnection = AsyncConnection
"""What a function of this package needs. Others only hand it on."""


_PING: Final = text("SELECT 1")
_WAIT_FOR_READER: Final = text("SET LOCAL idle_in_transaction_session_timeout = '15min'")
"""A person may look at a page of what is written to a terminal; no longer, because a snapshot keeps dead rows alive."""


class Database:
    """The database with the rights of one role. It connects when first used; close it at the end.

    The errors of its statements never show parameters, because these hold the data of customers;
    `failures.classify` says what to do about them.
    """

    def __init__(
        self, settings: DatabaseSettings, role: Role, *, direct: bool = False, autocommit: bool = False
    ) -> None:
        """Make one.

        Args:
            settings: Where, how many connections at most, and the time-outs.
            role: The group role that its sessions assume.
            direct: No pool: each connection is opened for its block and closed at the end of it.
            autocommit: A transaction for each statement: where one is all, that saves the round trips of BEGIN and
                ROLLBACK. Then `begin` is of no use.
        """
        engine = create_engine(settings, role, direct=direct)
        self._engine = engine.execution_options(isolation_level="AUTOCOMMIT") if autocommit else engine

    def connect(self) -> AbstractAsyncContextManager[DatabaseConnection]:
        """A connection for the length of a block. What was written in it is rolled back, but for `autocommit`."""
        return self._engine.connect()

    def begin(self) -> AbstractAsyncContextManager[DatabaseConnection]:
        """A transaction (READ COMMITTED) for the length of a block: committed at its end, rolled back by an error.

        An error out of the COMMIT itself leaves unknown which of the two it was.
        """
        return self._engine.begin()

    @asynccontextmanager
    async def snapshot(self) -> AsyncGenerator[DatabaseConnection]:
        """A transaction (REPEATABLE READ, READ ONLY) for the length of a block: all of it sees one moment.

        It may be idle for 15 minutes at a time.
        """
        options = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
        async with self._engine.connect() as conn:
            await conn.execution_options(**options)
            async with conn.begin():
                await conn.execute(_WAIT_FOR_READER)
                yield conn

    async def close(self) -> None:
        """Close the connections."""
        await self._engine.dispose()

    async def ping(self) -> None:
        """Return if Postgres answers a statement; raises where it doesn't."""
        async with self.connect() as conn:
            await conn.execute(_PING)
