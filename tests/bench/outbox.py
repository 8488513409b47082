"""`python -m tests.bench.outbox`: how fast an outbox is drained, and what a look at it costs.

The stand-in of `tests.bench.client` answers, so that the figures are those of the outbox, the client and the
publisher's Postgres:

- rows a second, without and with a hook that writes a row, by one process; and by two at once;
- from the commit to the outcome in the row, for a row that comes alone;
- one organization's rows, one after the other;
- a look while nothing is due, behind a queue of 200,000 rows of one organization.
"""

import argparse
import asyncio
import sys
import time
from collections.abc import Sequence
from statistics import median
from subprocess import PIPE, Popen
from typing import Any, Final
from uuid import UUID, uuid4

import asyncpg
import psutil

import org_local
from org_events import Topics, UpdateOrganization
from org_events.publishing import OrganizationClient
from org_events.publishing.outbox import Outbox
from org_events.publishing.outbox.database import run, transaction
from org_events.publishing.outbox.rows import Statements
from tests.support.draining import BOOKED, book
from tests.support.topics import create
from tests.support.waiting import until

_OUTBOX: Final = Outbox()
_QUEUE: Final = 200_000
_ALONE: Final = 30


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.outbox", description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--organizations", type=int, default=2_000)
    parser.add_argument("--drain", nargs=3, metavar=("KAFKA", "PREFIX", "DATABASE"), help="be the second process")
    arguments = parser.parse_args()
    if arguments.drain:
        asyncio.run(_be_second(*arguments.drain))
        return 0
    topics = Topics("bench-outbox.")
    with org_local.start() as stack:
        asyncio.run(create(stack.bootstrap_servers, topics.specs()))
        where = (stack.bootstrap_servers, topics.prefix)
        service = Popen([sys.executable, "-m", "tests.bench.client_service", *where], stdout=PIPE)
        try:
            assert service.stdout is not None
            service.stdout.readline()
            asyncio.run(_measure(*where, stack.database_url, arguments.rows, arguments.organizations))
        finally:
            service.kill()
            service.wait()
    print(f"load of the machine: {psutil.getloadavg()[0]:.1f}")
    return 0


async def _measure(servers: str, prefix: str, url: str, count: int, organizations: int) -> None:
    client = OrganizationClient(bootstrap_servers=servers, source="/bench", topics=Topics(prefix))
    async with client as orgs, asyncpg.create_pool(url, min_size=1) as pool:
        for statement in (*_OUTBOX.table_statements, BOOKED):
            await pool.execute(statement)
        for hook in (None, book):
            await _enqueue(pool, count, [uuid4() for _ in range(organizations)])
            began, used = time.perf_counter(), time.process_time()
            await _OUTBOX.drain(orgs, pool, on_outcome=hook, once=True)
            took, used = time.perf_counter() - began, time.process_time() - used
            await _check(pool)
            what = "without a hook" if hook is None else "with a hook"
            print(f"{what}: {count / took:,.0f} rows/s, {used / count * 1e6:.0f} us of this process each")
        await _time_two(orgs, pool, (servers, prefix, url), count, organizations)
        await _time_alone(orgs, pool)
        await _time_looks(pool)


async def _enqueue(pool: Any, count: int, org_ids: Sequence[UUID]) -> None:
    began = time.perf_counter()
    async with pool.acquire() as connection, connection.transaction():
        for number in range(count):
            command = UpdateOrganization(org_id=org_ids[number % len(org_ids)], name=str(number))
            await _OUTBOX.enqueue(connection, command)
    print(f"enqueue: {(time.perf_counter() - began) / count * 1e6:.0f} us")


async def _check(pool: Any) -> None:
    assert await _undecided(pool) == 0


async def _undecided(pool: Any) -> int:
    return await pool.fetchval("SELECT count(*) FROM org_outbox WHERE decided_at IS NULL")


async def _time_two(
    orgs: OrganizationClient, pool: Any, where: tuple[str, str, str], count: int, organizations: int
) -> None:
    second = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.bench.outbox", "--drain", *where, stdout=PIPE
    )
    assert second.stdout is not None
    await second.stdout.readline()
    await _enqueue(pool, count, [uuid4() for _ in range(organizations)])
    began = time.perf_counter()
    draining = asyncio.create_task(_OUTBOX.drain(orgs, pool))
    await until(lambda: _undecided(pool), 0, 300)
    print(f"by two processes: {count / (time.perf_counter() - began):,.0f} rows/s")
    second.terminate()
    draining.cancel()
    await asyncio.gather(draining, second.wait(), return_exceptions=True)


async def _be_second(servers: str, prefix: str, url: str) -> None:
    client = OrganizationClient(bootstrap_servers=servers, source="/bench", topics=Topics(prefix))
    async with client as orgs, asyncpg.create_pool(url, min_size=1) as pool:
        print("ready", flush=True)
        await _OUTBOX.drain(orgs, pool)


async def _time_alone(orgs: OrganizationClient, pool: Any) -> None:
    draining = asyncio.create_task(_OUTBOX.drain(orgs, pool))
    found: list[float] = []
    for _ in range(_ALONE):
        await _enqueue_one(pool, uuid4())
        began = time.perf_counter()
        await until(lambda: _undecided(pool), 0)
        found.append((time.perf_counter() - began) * 1000)
    print(f"a row that comes alone: p50 {median(found):.0f} ms, max {max(found):.0f} ms")
    org_id = uuid4()
    for _ in range(_ALONE):
        await _enqueue_one(pool, org_id)
    began = time.perf_counter()
    await until(lambda: _undecided(pool), 0)
    print(f"one organization: {_ALONE / (time.perf_counter() - began):.0f} rows/s")
    draining.cancel()
    await asyncio.gather(draining, return_exceptions=True)


async def _enqueue_one(pool: Any, org_id: UUID) -> None:
    async with pool.acquire() as connection, connection.transaction():
        await _OUTBOX.enqueue(connection, UpdateOrganization(org_id=org_id, name="Acme"))


async def _time_looks(pool: Any) -> None:
    """Of the statement alone."""
    fill = (
        "INSERT INTO org_outbox (id, org_id, type, body, due_at) "
        "SELECT gen_random_uuid(), $1, 'org.update', '{}', now() + interval '1 d' FROM generate_series(1, $2::int)"
    )
    await pool.execute("TRUNCATE org_outbox")
    for queued in (0, _QUEUE):
        await pool.execute(fill, uuid4(), queued)
        await pool.execute("ANALYZE org_outbox")
        took = [await _time_look(pool) for _ in range(_ALONE)]
        print(f"a look that finds nothing, {queued:,} rows of one organization wait: {median(took):.2f} ms")


async def _time_look(pool: Any) -> float:
    began = time.perf_counter()
    async with transaction(pool) as connection:
        bounds = {"first": UUID(int=0), "last": UUID(int=2**128 - 1)}
        await run(connection, Statements("org_outbox").take, **bounds, rows=200, lease_s=1.0)
    return (time.perf_counter() - began) * 1000


if __name__ == "__main__":
    sys.exit(main())
