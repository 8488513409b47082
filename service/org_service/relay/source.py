"""Where the relay reads: the journal, and what tells that it isn't the journal Kafka was fed from."""

from datetime import datetime
from uuid import UUID

from org_service import probes
from org_service.domain.outcomes import JournaledOutcome
from org_service.errors import StopError
from org_service.probes import probe
from org_service.relay.chunks import Chunk, Layout, build
from org_service.relay.traced import pick
from org_service.settings import DatabaseSettings
from org_service.store import journal
from org_service.store.database import Database
from org_service.store.failures import classify_errors
from org_service.telemetry.tracing import active

WAY_OUT = (
    "The database was probably restored from an older backup. Stop the workers first: what they journal now "
    "may never be published. Then bring the database forward from the topics with `orgs recover`, and restart. Where "
    "it says that the backup and the topics contradict each other, restore a backup that contains position {position}; "
    "or accept that the commands lost with the old database stay lost, and move the journal past Kafka with `orgs "
    "journal advance`."
)
"""What an operator can do when Kafka and the journal contradict each other."""


class Source:
    """Reads the journal and encodes it. Raises RetryError when Postgres is away; nothing was lost then.

    May be used by several tasks at once.
    """

    def __init__(self, database: DatabaseSettings) -> None:
        # One statement a read: AUTOCOMMIT saves the round trips of BEGIN and ROLLBACK.
        self._database = Database(database, "relay", autocommit=True)
        self.head = 0
        """The journal's last position when it was last looked at."""

    async def close(self) -> None:
        """Close the connections."""
        await self._database.close()

    async def ping(self) -> None:
        """Return if Postgres answers a query."""
        with classify_errors():
            async with self._database.connect() as connection:
                await journal.read_head(connection)

    async def read_next_chunk(self, after: int, layout: Layout, rows_max: int) -> Chunk | None:
        """The next rows, encoded for `layout`; None when there are none.

        Raises:
            RetryError: Postgres is away.
            StopError: The journal has a hole after `after`, or ends before it.
        """
        if probes.listeners:
            await probe("relay.before_read", after)
        with classify_errors():
            async with self._database.connect() as connection:
                rows = await journal.read_after(connection, after, rows_max)
                if not rows or len(rows) >= rows_max:
                    self.head = await journal.read_head(connection)
                else:
                    self.head = rows[-1].position
        if rows:
            chunk = await build(rows, layout, limit=rows_max)
            if active() is not None:
                chunk.sampled = pick(rows[: chunk.rows])
            return chunk
        if self.head < after:
            raise _ahead(after, self.head)
        return None

    async def read(self, after: int, limit: int) -> list[JournaledOutcome]:
        """The next rows, as they are; raises as `read_next_chunk`, but for an end."""
        with classify_errors():
            async with self._database.connect() as connection:
                return await journal.read_after(connection, after, limit)

    async def find_waiting_since(self, after: int) -> datetime | None:
        """When the first row after a position was recorded; None when there is none."""
        with classify_errors():
            async with self._database.connect() as connection:
                rows = await journal.read_after(connection, after, 1)
                self.head = await journal.read_head(connection)
        return rows[0].recorded_at if rows else None

    async def verify(self, position: int, command_id: UUID | None) -> None:
        """See that the last row published, at `position`, is the one which stands there in the journal.

        A row that is missing below the head is fine: only an operator's `orgs journal advance` makes that.

        Raises:
            RetryError: Postgres is away.
            StopError: It isn't, or the journal ends before it.
        """
        with classify_errors():
            async with self._database.connect() as connection:
                journaled = await journal.find_command_id(connection, position)
                self.head = await journal.read_head(connection)
        if self.head < position:
            raise _ahead(position, self.head)
        if None not in (journaled, command_id) and journaled != command_id:
            raise StopError(
                f"Kafka was written from another journal: at position {position} the command "
                f"{command_id} was published, but the journal has {journaled} there. "
                + WAY_OUT.format(position=position)
            )


def _ahead(published: int, head: int) -> StopError:
    return StopError(
        f"Kafka is ahead of the journal: positions up to {published} are published, the journal ends at {head}. "
        + WAY_OUT.format(position=published)
    )
