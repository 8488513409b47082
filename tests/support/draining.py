"""A program that drains an outbox and dies by SIGKILL at a point: `python -m tests.support.draining POINT …`.

Points: `taken` (before a command is sent), `asked` (its outcome is here, and nowhere else), `hook` (what the hook wrote
is not committed), `decided` (all is); at any other name it lives on.
"""

import asyncio
import os
import signal
import sys
from typing import Any
from uuid import UUID

import asyncpg

from org_events import Result, Topics
from org_events.commands import AnyCommand
from org_events.publishing import OrganizationClient
from org_events.publishing.outbox import Entry, Outbox, drain

BOOKED = "CREATE TABLE booked (command_id uuid, outcome text, code int)"


def shorten_waits(lease_s: float = 1.0) -> None:
    """Lease, renewal and retries in parts of a second, so that nobody waits for what a kill left."""
    drain.LEASE_S, drain.RENEW_S = lease_s, lease_s / 3  # type: ignore[misc]
    drain.RETRY_S = drain.RETRY_MAX_S = 0.1  # type: ignore[misc]


async def book(connection: Any, entry: Entry, result: Result) -> None:
    """A hook that writes into the publisher's own table, which nothing guards against a second row."""
    await connection.execute(
        "INSERT INTO booked VALUES ($1, $2, $3)", entry.command_id, result.outcome.value, result.code
    )


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class _Mortal(OrganizationClient):
    """Dies before or after a command."""

    point = ""

    async def execute(
        self, command: AnyCommand, *, command_id: UUID | None = None, timeout_s: float | None = None
    ) -> Result:
        if self.point == "taken":
            _die()
        result = await super().execute(command, command_id=command_id, timeout_s=timeout_s)
        if self.point == "asked":
            _die()
        return result


class _Deadly:
    """Metrics that end the process at the first outcome that was committed."""

    def __init__(self, point: str) -> None:
        self._point = point

    def count_decided(self, outcome: str, waited_s: float) -> None:
        if self._point == "decided":
            _die()

    def count_postponed(self, reason: str) -> None: ...

    def show_waiting(self, rows: int, oldest_s: float, in_flight: int) -> None: ...


async def _main(point: str, bootstrap_servers: str, prefix: str, url: str) -> None:
    async def book_and_die(connection: Any, entry: Entry, result: Result) -> None:
        await book(connection, entry, result)
        if point == "hook":
            _die()

    shorten_waits()
    drain.ASK_S = 2.0  # type: ignore[misc]
    client = _Mortal(bootstrap_servers=bootstrap_servers, source="/tests", topics=Topics(prefix))
    client.point = point
    async with client, asyncpg.create_pool(url, min_size=1) as pool:
        await Outbox().drain(client, pool, on_outcome=book_and_die, metrics=_Deadly(point))


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
