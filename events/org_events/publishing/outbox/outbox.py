"""The outbox in a publisher's own database: `enqueue` in its transactions, `drain` in the background."""

import re
from datetime import timedelta
from pathlib import Path
from typing import Final
from uuid import UUID

from org_events.commands import Command, body_to_send
from org_events.ids import uuid7
from org_events.publishing.client import OrganizationClient
from org_events.publishing.outbox.database import Connection, Database, check_transaction, run
from org_events.publishing.outbox.drain import Drain, Options
from org_events.publishing.outbox.metrics import Metrics, usual_metrics
from org_events.publishing.outbox.rows import TABLE, OnOutcome, Statements

_TABLE_NAME: Final = re.compile(r"[a-z_][a-z0-9_]*(\.[a-z_][a-z0-9_]*)?")
KEEP: Final = timedelta(days=7)
"""How long decided rows are kept: over a long weekend, to look at."""
IN_FLIGHT_MAX: Final = 1_000
"""Rows that one drain has sent and waits for; each holds about 3 KB. Full speed needs some hundred."""
POLL_INTERVAL_S: Final = 0.2
"""How long a row may wait until an idle drain finds it. A look that finds nothing costs the database 0.1 ms."""


class Outbox:
    """A table of commands.

    Args:
        table: Its name, with a schema where it is not on the search path; lower-case letters, digits and `_`.
    """

    def __init__(self, table: str = TABLE) -> None:
        if not _TABLE_NAME.fullmatch(table):
            raise ValueError(f"{table!r} is not a plain name of a table, with or without a schema")
        self._statements = Statements(table)

    @property
    def table_statements(self) -> tuple[str, ...]:
        """What makes the table and its indexes, for a migration: `for each in …: op.execute(each)`."""
        text = self._statements.of(Path(__file__).with_name("table.sql").read_text())
        return tuple(each.strip() for each in text.split(";\n") if each.strip())

    async def enqueue(
        self, connection: Connection, command: Command, *, command_id: UUID | None = None, actor: str | None = None
    ) -> UUID:
        """Write a command into the outbox, in the caller's transaction: it is sent if that commits, and only then.

        An organization's commands are sent in the order of these calls, also those of different transactions where one
        begins to write after the other has committed. Two transactions that overlap have no order: change the row that
        stands for the organization first, then enqueue, and the second waits for the first.

        Args:
            connection: Of asyncpg in a transaction, or an `AsyncConnection` or `AsyncSession` of SQLAlchemy.
            command: What to do.
            command_id: None makes one. With one that is derived from the work, enqueueing it twice is an error of the
                database (the id is the table's key).
            actor: On whose behalf, where the service trusts its publishers. Tokens are not kept: those of the drain's
                client count.

        Returns:
            The command id: the key of the row.

        Raises:
            ValueError: The command is larger than the service reads, the id is reserved, or no transaction is open.
        """
        check_transaction(connection)
        command_id = command_id or uuid7()
        body = body_to_send(command, command_id).decode()
        about = {"id": command_id, "org_id": command.org_id, "type": command.type, "body": body, "actor": actor}
        await run(connection, self._statements.enqueue, **about)
        return command_id

    async def drain(
        self,
        client: OrganizationClient,
        database: Database,
        *,
        on_outcome: OnOutcome | None = None,
        keep: timedelta | None = KEEP,
        in_flight_max: int = IN_FLIGHT_MAX,
        poll_interval_s: float = POLL_INTERVAL_S,
        metrics: Metrics | None = None,
        once: bool = False,
    ) -> None:
        """Send what is enqueued and write each outcome into its row, until cancelled. Any number of processes may.

        Each row gets its final outcome once, wherever a process is killed. One organization's rows are sent in order,
        each after the final outcome of the one before. A row without an outcome (Kafka or the service is away, the
        command is parked) is sent again under the same id, after 1 s, then after twice that, up to a minute.

        Args:
            client: Started.
            database: A pool of asyncpg, or an `AsyncEngine` or `async_sessionmaker` of SQLAlchemy.
            on_outcome: Called with a connection of `database`, in the transaction that writes a final outcome, so what
                it writes there happens exactly once; what else it does may be done again after a kill. What it raises
                takes the outcome back: the row is tried again, and the organization's later ones wait.
            keep: How long decided rows are kept; None for ever.
            in_flight_max: Rows that are sent and waited for at a time.
            poll_interval_s: How often to look for rows where there were none.
            metrics: None counts in Prometheus, where its client is installed.
            once: Return as soon as no row is due, instead of waiting for others; for scripts and tests.

        Raises:
            NotConnected: The client was stopped, or can't be used any more. Rows that were not decided are due at once.
            Exception: The database doesn't answer at the start, or there is no table. Later outages are waited out.
        """
        options = Options(on_outcome, keep, in_flight_max, poll_interval_s, metrics or usual_metrics(), once)
        await Drain(client, database, self._statements, options).run()
