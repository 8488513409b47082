"""Rows on their way out, and outcomes on their way back.

A row is taken for `LEASE_S`, which is renewed while this process lives, so that after a kill others wait no longer than
that. Everything is safe to do twice: a command that is sent again takes effect once, and a final outcome is written
only where there is none, in one transaction with what `on_outcome` does.
"""

import asyncio
import logging
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple
from uuid import UUID, uuid4

from org_events.commands import UncheckedCommand
from org_events.publishing.client import OrganizationClient
from org_events.publishing.errors import ClientError, NotConnected
from org_events.publishing.outbox.database import Database, run, transaction
from org_events.publishing.outbox.metrics import Metrics
from org_events.publishing.outbox.rows import Entry, OnOutcome, Statements
from org_events.results import Result

_log = logging.getLogger(__name__)

LEASE_S: Final = 15.0
"""How long rows of a process that was killed wait."""
RENEW_S: Final = 5.0
"""Between two renewals: two may fail before a row is taken by somebody else, which costs a duplicate."""
ASK_S: Final = 30.0
"""How long one sending is waited for. Then the row makes room: what is stuck must not hold up everybody's rows."""
RETRY_S: Final = 1.0
"""Before the second sending of a row; each further one waits for twice as long."""
RETRY_MAX_S: Final = 60.0
"""At most: so long after an outage, or a release of a parked command, all is as it should be."""
TAKE_ROWS_MAX: Final = 200
"""In one statement: 10,000 a second with the pause between."""
_TAKE_PAUSE_S: Final = 0.02
"""Between two looks, however much there is to do: each walks over all organizations in flight, 10 microseconds each."""
_WRITERS: Final = 4
"""Outcomes that are written at a time, each in a transaction and on a connection of its own."""
_DATABASE_RETRY_S: Final = 1.0
_STOP_S: Final = 10.0
"""For outcomes that are being written when the drain is stopped."""
_TIDY_EVERY: Final = 6
"""Renewals between two looks at how much waits, and two purges: half a minute."""
_PURGE_ROWS: Final = 1_000
"""Deleted in one transaction."""
_TROUBLE_CHARACTERS: Final = 500
_FIRST: Final = UUID(int=0)
_LAST: Final = UUID(int=2**128 - 1)


class Options(NamedTuple):
    """As `Outbox.drain` describes them."""

    on_outcome: OnOutcome | None
    keep: timedelta | None
    in_flight_max: int
    poll_interval_s: float
    metrics: Metrics
    once: bool


class Drain:
    """Sends the rows of one outbox, in one process; see `Outbox.drain`."""

    def __init__(
        self, client: OrganizationClient, database: Database, statements: Statements, options: Options
    ) -> None:
        self._client = client
        self._database = database
        self._statements = statements
        self._options = options
        self._running: dict[UUID, asyncio.Task[None]] = {}
        """By command id."""
        self._writing: set[UUID] = set()
        """Those of them that have their outcome; the others may be cancelled without harm."""
        self._ended = asyncio.Event()
        """A row came to its end, so the next one of its organization may be taken."""
        self._next = uuid4()
        """The organization at which the next walk begins; processes that start together begin apart."""
        self._writers = asyncio.Semaphore(_WRITERS)

    async def run(self) -> None:
        """Drain until cancelled, or until nothing is due."""
        begun = await self._begin_rows()  # what is wrong from the start is raised
        keeping = asyncio.create_task(self._keep(), name="org-events outbox keeping")
        try:
            while begun or self._running or self._ended.is_set() or not self._options.once:
                await self._pause(begun)
                if not self._client.is_usable:
                    raise NotConnected("The client was stopped or has died; start a new one, and drain again.")
                begun = await self._begin_rows_in_time()
        finally:
            keeping.cancel()
            await self._stop()

    async def _pause(self, begun: int) -> None:
        await asyncio.sleep(_TAKE_PAUSE_S)
        if not begun:
            try:
                async with asyncio.timeout(self._options.poll_interval_s):
                    await self._ended.wait()
            except TimeoutError:
                return

    async def _begin_rows_in_time(self) -> int:
        """As `_begin_rows`; an outage of the database is waited out."""
        try:
            return await self._begin_rows()
        except Exception as error:
            if self._options.once:
                raise  # nobody knows whether anything is due
            _log.warning("the outbox cannot be read: %r", error)
            await asyncio.sleep(_DATABASE_RETRY_S)
            return 0

    async def _begin_rows(self) -> int:
        """Take what is due, as much as there is room for, and send it; how many rows that were."""
        self._ended.clear()
        room = min(self._options.in_flight_max - len(self._running), TAKE_ROWS_MAX)
        if room <= 0:
            return 0
        entries = await self._take(room)
        for entry in entries:
            if entry.command_id not in self._running:  # its lease ended while this process was frozen
                task = asyncio.create_task(self._settle(entry), name=f"org-events outbox {entry.command_id}")
                self._running[entry.command_id] = task
        return len(entries)

    async def _take(self, room: int) -> list[Entry]:
        """Rows of the organizations that follow those of the last time, and then from the beginning on."""
        async with transaction(self._database) as connection:
            found = await self._walk(connection, self._next, _LAST, room)
            wrapped = await self._walk(connection, _FIRST, self._next, room - len(found)) if len(found) < room else []
        self._next = max((entry.org_id for entry in wrapped or found), default=self._next)
        return found + wrapped

    async def _walk(self, connection: Any, first: UUID, last: UUID, room: int) -> list[Entry]:
        about = {"first": first, "last": last, "rows": room, "lease_s": LEASE_S}
        return [Entry.of(row) for row in await run(connection, self._statements.take, **about)]

    async def _settle(self, entry: Entry) -> None:
        """Send a row and write down what became of it."""
        try:
            await self._settle_or_raise(entry)
        except Exception as error:  # noqa: BLE001 - whatever it is, of the client or of the hook: the row is tried again
            level = logging.INFO if isinstance(error, ClientError) else logging.WARNING  # an outage is each row's
            _log.log(level, "%s %s is tried again: %r", entry.type, entry.command_id, error)
            async with self._writers:
                await self._postpone(entry, type(error).__name__, repr(error))
        finally:
            self._writing.discard(entry.command_id)
            del self._running[entry.command_id]
            self._ended.set()

    async def _settle_or_raise(self, entry: Entry) -> None:
        client = self._client if entry.actor is None else self._client.on_behalf_of(entry.actor)
        command = UncheckedCommand(entry.type, entry.org_id, entry.body)
        result = await client.execute(command, command_id=entry.command_id, timeout_s=ASK_S)
        self._writing.add(entry.command_id)
        async with self._writers:
            if result.final:
                await self._decide(entry, result)
            else:
                detail = result.problem.detail if result.problem else ""
                await self._postpone(entry, "parked", f"parked: {detail}", result)

    async def _decide(self, entry: Entry, result: Result) -> None:
        """Write the outcome, where nobody has, in one transaction with what the hook does."""
        about = {"id": entry.command_id, "outcome": result.outcome.value, "result": result.model_dump_json()}
        async with transaction(self._database) as connection:
            written = await run(connection, self._statements.decide, **about)
            if written and self._options.on_outcome is not None:
                await self._options.on_outcome(connection, entry, result)
        if written:
            waited_s = (datetime.now(UTC) - entry.enqueued_at).total_seconds()
            self._options.metrics.count_decided(result.outcome.value, waited_s)

    async def _postpone(self, entry: Entry, reason: str, trouble: str, result: Result | None = None) -> None:
        """Say why there is no final outcome, and when the row is tried again. Where even that fails, its lease ends."""
        about = {
            "id": entry.command_id,
            "wait_s": min(RETRY_S * 2.0 ** min(entry.tries - 1, 16), RETRY_MAX_S),
            "trouble": trouble[:_TROUBLE_CHARACTERS],
            "outcome": None if result is None else result.outcome.value,
            "result": None if result is None else result.model_dump_json(),
        }
        try:
            async with transaction(self._database) as connection:
                await run(connection, self._statements.postpone, **about)
        except Exception as error:  # noqa: BLE001 - as above
            _log.warning("%s %s is tried again in %s s: %r", entry.type, entry.command_id, LEASE_S, error)
        self._options.metrics.count_postponed(reason)

    async def _keep(self) -> None:
        """Keep the rows that were taken; now and then count what waits, and delete what was decided long ago."""
        number = 0
        while True:
            try:
                await self._lease([*self._running], LEASE_S)
                if number % _TIDY_EVERY == 0:
                    await self._tidy()
            except Exception as error:  # noqa: BLE001 - as above
                _log.warning("the outbox cannot be kept in order: %r", error)
            number += 1
            await asyncio.sleep(RENEW_S)

    async def _lease(self, command_ids: Sequence[UUID], lease_s: float) -> None:
        if command_ids:
            async with transaction(self._database) as connection:
                await run(connection, self._statements.lease, ids=[*command_ids], lease_s=lease_s)

    async def _tidy(self) -> None:
        async with transaction(self._database) as connection:
            [counted] = await run(connection, self._statements.count)
        self._options.metrics.show_waiting(counted["waiting"], counted["oldest_s"], len(self._running))
        keep, deleted = self._options.keep, _PURGE_ROWS
        while keep is not None and deleted == _PURGE_ROWS:
            async with transaction(self._database) as connection:
                about = {"keep_s": keep.total_seconds(), "rows": _PURGE_ROWS}
                deleted = len(await run(connection, self._statements.purge, **about))

    async def _stop(self) -> None:
        """Let what is being written be written; the rest is due at once, for whoever drains next."""
        left = {**self._running}
        for command_id in left.keys() - self._writing:
            left[command_id].cancel()
        if left:
            await asyncio.wait(left.values(), timeout=_STOP_S)
        for task in left.values():
            task.cancel()
        await asyncio.gather(*left.values(), return_exceptions=True)
        try:
            await self._lease([*left], 0.0)
        except Exception as error:  # noqa: BLE001 - their leases end
            _log.warning("rows of the outbox are due in %s s: %r", LEASE_S, error)
