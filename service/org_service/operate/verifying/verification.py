"""`orgs verify`: do the tables and the topics tell the same, as of one position?

A REPEATABLE READ snapshot gives a position P and every table as of P. The journal to P never changes, so the snapshot
is open only while the organizations and the reference tables are digested, and holds back vacuum no longer. The journal
and the topics are read beside it. Records say their position, so topics are taken to P exactly, however much is
published meanwhile: there is never a false alarm. Where the relay is not at P yet, or a transaction is open, the
verdict is `inconclusive`.

What is proved, by digests (`store.verification`):

- each organization is what its last change left, and each change follows the one before it, from version 1 on;
- positions have no holes, and a command has one outcome;
- `orgs.events` and `orgs.results` hold what the journal says, byte for byte, each event once: so their folds are equal;
- `orgs.state` folds to the last changes;
- memberships, partnerships and staff are what their topics say up to where they are applied.

What differs is compared row by row (`comparing`), with what the relay itself would send.
"""

import asyncio
import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final, NamedTuple

from org_service import probes
from org_service.domain import digests
from org_service.errors import PreconditionError, RetryError, ServiceError
from org_service.kafka.whole_batches import STALL_S, find_bounds
from org_service.operate import progress
from org_service.operate.operation import judge
from org_service.operate.verifying import logs
from org_service.operate.verifying.comparing import Comparing
from org_service.operate.verifying.found import Found
from org_service.operate.verifying.jobs import Readers
from org_service.operate.verifying.logs import Pace
from org_service.operate.verifying.report import Report, Verdict
from org_service.probes import probe
from org_service.settings import Settings
from org_service.store import journal, reference_progress, verification
from org_service.store.database import Database, DatabaseConnection

PAGE_ORGANIZATIONS: Final = 20_000
EMPTIED_AT_ONCE: Final = 10_000
SESSIONS: Final = 2
"""That digest the journal in parallel."""
RELAY_WAIT_S: Final = 30.0
"""For the relay to reach P; it is there within a second, unless something is wrong."""
_LOOK_S: Final = 0.2

OnStep = Callable[[str, int, int], None]
"""Told what is being read, how much of it is done, and how much there is."""


class Asked(NamedTuple):
    """How to verify."""

    at: int | None = None
    """As of which position; None for now, which takes in the tables."""
    share: float = 1.0
    """Of a processor that may be used, here and in Postgres."""
    processes: int = 4
    """Besides this one, at most."""
    relay_wait_s: float = RELAY_WAIT_S
    stall_s: float = STALL_S


async def verify(settings: Settings, asked: Asked = Asked(), on_step: OnStep | None = None) -> Report:  # noqa: B008 - frozen
    """Verify once. An outage is a verdict, not an error.

    Raises:
        PreconditionError: The position does not exist yet.
    """
    began_s, used_s = time.monotonic(), _processor_s()
    verifier = _Verification(settings, asked, on_step or _say_nothing)
    try:
        await verifier.run()
    except PreconditionError:
        raise
    except Exception as error:
        outage = judge(error)
        if outage is None and not isinstance(error, ServiceError):
            raise
        verdict = Verdict.ERROR if outage is None else Verdict.INCONCLUSIVE
        why = str(error) if isinstance(error, ServiceError) or outage is None else outage.why
        verifier.report.comparison("what was asked").lower_to(verdict, why)
    finally:
        await verifier.close()
    verifier.report.seconds = time.monotonic() - began_s
    verifier.report.processor_seconds = _processor_s() - used_s
    return verifier.report


def _say_nothing(_what: str, _done: int, _of: int) -> None:
    pass


def _processor_s() -> float:
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


class _Verification:
    """One verification under way."""

    def __init__(self, settings: Settings, asked: Asked, on_step: OnStep) -> None:
        self._settings = settings
        self._kafka = settings.kafka
        self._asked = asked
        self._on_step = on_step
        self._pace = Pace(asked.share)
        self._database = Database(settings.database, "reader")
        self._readers = Readers(settings.kafka, self._pace, asked.processes, asked.stall_s)
        self._found = Found()
        self.report = Report(asked.at or 0)

    async def close(self) -> None:
        """Close connections and processes."""
        self._readers.close()
        await self._database.close()

    async def run(self) -> None:
        """Read everything, then compare."""
        reading: asyncio.Task[None] | None = None
        try:
            async with self._database.snapshot() as conn:
                head = await journal.read_head(conn)
                if self._asked.at is not None and self._asked.at > head:
                    raise PreconditionError(f"the journal ends at position {head:,}, before {self._asked.at:,}.")
                self.report.position = head if self._asked.at is None else self._asked.at
                self._found.gaps = await journal.read_gaps(conn)
                await self._read_emptied(conn)
                if probes.listeners:
                    await probe("verify.after_snapshot", self.report.position)
                reading = asyncio.create_task(self._read_rest())
                if self._asked.at is None:
                    await self._read_tables(conn)
            await reading
        finally:
            if reading is not None:
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)
        compare = Comparing(self.report, self._found, self._readers, self._settings, self._database)
        await compare.run(tables=self._asked.at is None)

    async def _read_emptied(self, conn: DatabaseConnection) -> None:
        """What was published of organizations that were erased is not compared: nobody knows any more what it was."""
        after = 0
        while positions := await verification.read_emptied(conn, after, EMPTIED_AT_ONCE):
            bits = self._found.emptied = self._found.emptied or bytearray((self.report.position >> 3) + 1)
            for position in positions:
                if position <= self.report.position:
                    bits[position >> 3] |= 1 << (position & 7)
            after = positions[-1]

    async def _read_tables(self, conn: DatabaseConnection) -> None:
        found, last = self._found, None
        found.facts = await verification.read_facts(conn)
        found.facts_as_of = await reference_progress.read(conn)
        while True:
            began_s = time.monotonic()
            page = await verification.read_page(conn, last, PAGE_ORGANIZATIONS)
            found.organizations += page.rows
            found.differing += page.differing
            digests.add(found.state, page.state)
            digests.add(found.last_links, page.chain)
            self._on_step("organizations", found.organizations, 0)
            if page.rows < PAGE_ORGANIZATIONS:
                return
            last = page.last
            await self._pace.rest(time.monotonic() - began_s)

    async def _read_rest(self) -> None:
        """The journal and the topics."""
        found, through, names = self._found, self.report.position, self._kafka.topics
        await self._wait_for_relay()
        found.bounds = await find_bounds(self._kafka, (names.events, names.results, names.state))
        found.events_low = await self._find_low(names.events)
        found.results_low = await self._find_low(names.results)
        windows = iter(range(0, through, digests.WINDOW))
        await asyncio.gather(
            *(self._read_windows(windows) for _ in range(SESSIONS if self._asked.share >= 1 else 1)),
            self._read_topics(),
        )

    async def _read_windows(self, windows: Iterator[int]) -> None:
        found, through = self._found, self.report.position
        for after in windows:
            began_s, last = time.monotonic(), min(after + digests.WINDOW, through)
            async with self._database.connect() as conn:
                window = await verification.read_window(
                    conn, after, last, events_from=found.events_low, results_from=found.results_low
                )
            found.rows += window.rows
            if window.rows < last - after:
                found.short.append((after, last))
            number = digests.window_of(last)
            found.events[number], found.results[number] = window.events, window.results
            found.chain += window.chain
            self._on_step("journal rows", found.rows, through)
            await self._pace.rest(time.monotonic() - began_s)

    async def _read_topics(self) -> None:
        found, through, names = self._found, self.report.position, self._kafka.topics
        read = partial(self._readers.read_log, through=through, skip=found.emptied)
        events = read("events", found.of(names.events), low=found.events_low)
        results = read("results", found.of(names.results), low=found.results_low)
        found.events_scan, found.results_scan = await self._readers.gather(events, results)
        if self._asked.at is None:
            found.state_scan = await self._readers.read_state(
                found.of(names.state), through=through, partitions=found.grown_to
            )
        last = await progress.published(self._settings)
        found.published = 0 if last is None else last.position

    async def _wait_for_relay(self) -> None:
        """See that everything up to the position is published.

        Raises:
            RetryError: It isn't, in time.
        """
        until_s, through = time.monotonic() + self._asked.relay_wait_s, self.report.position
        while True:
            last = await progress.published(self._settings)
            if (at := 0 if last is None else last.position) >= through:
                break
            if time.monotonic() >= until_s:
                raise RetryError(
                    f"the relay has published up to position {at:,}, and not {through:,}, for "
                    f"{self._asked.relay_wait_s:.0f} s: is it running, and what does its /readyz say?"
                )
            await asyncio.sleep(_LOOK_S)
        if last is not None and last.partitioning is not None and last.partitioning.grown_from is not None:
            self._found.grown_to = last.partitioning.partitions

    async def _find_low(self, topic: str) -> int:
        """Up to which position retention took records of a topic, or some of them."""
        low = 0
        for at, bounds in self._found.of(topic).items():
            if bounds.start > 0:
                low = max(low, await logs.find_first(self._kafka, at, bounds, self.report.position) - 1)
        return low
