"""`python -m tests.bench.console`: how long each page of the operators' page takes, with a million organizations.

The tables are those of `docs/sql`'s plans: a million organizations, 1,200,000 rows of the journal, 500 queues of 100
parked commands. Each page is asked for over HTTP, one request after the other, as one operator does, from the first
byte sent to the last one read; what htmx fetches into a page is a page of its own here. Chromium then opens each, too:
from the navigation to `load`.
"""

import argparse
import asyncio
import os
import secrets
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

import asyncpg
import httpx2
import psutil

import org_local
from org_events.ids import uuid7
from org_service.console.console import Console
from org_service.edge.edge import Edge
from org_service.operate.parked_selection import name_group
from org_service.settings import ConsoleSettings, LogSettings, Settings
from org_service.store import migrate, operations, parked_queues
from org_service.store.database import Database
from org_service.store.operations import NewOperation
from org_service.telemetry.logs import set_up_logging
from tests.bench.command import say
from tests.bench.plan_data import PlanData
from tests.bench.site import open_site
from tests.support.browser import browsing, find_chromium, keep_session
from tests.support.edge import People, add_staff, with_edge

ORGANIZATIONS: Final = 1_000_000
TARGET_MS: Final = 300
_WARM_UP: Final = 3


class Timed(NamedTuple):
    """What a page takes, in ms."""

    least: float
    """What it takes where nothing else wants the processors."""
    p50: float
    p95: float
    processor: float
    """Of the edge, of Postgres and of whoever asks together, on average: nearly what it takes on an idle machine."""
    loaded: float | None
    """In the browser, the median; None for a part of a page."""


def main() -> int:
    """Measure, and print a line a page; the exit status is 1 where one takes longer than the target."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.console", description=__doc__)
    parser.add_argument("--organizations", type=int, default=ORGANIZATIONS)
    parser.add_argument("--requests", type=int, default=50, help="of each page")
    arguments = parser.parse_args()
    set_up_logging(LogSettings(level="warning"))
    with (
        tempfile.TemporaryDirectory(prefix="orgs-bench-") as folder,
        org_local.start() as stack,
        open_site(stack, "console", Path(folder)) as site,
    ):
        timed = asyncio.run(measure(site.settings, Path(folder), arguments.organizations, arguments.requests))
    for name, each in timed.items():
        loaded = "" if each.loaded is None else f", {each.loaded:5.0f} in the browser"
        at_times = f"least {each.least:6.1f}  p50 {each.p50:6.1f}  p95 {each.p95:6.1f}"
        say(f"{name:22} {at_times}  processor {each.processor:6.1f} ms{loaded}")
    say(f"load of the machine meanwhile: {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")
    return int(any(each.p50 > TARGET_MS or (each.loaded or 0) > TARGET_MS for each in timed.values()))


async def measure(settings: Settings, folder: Path, organizations: int, requests: int) -> Mapping[str, Timed]:
    """Fill the tables, serve the pages, and ask for each of them."""
    await migrate.upgrade(settings.database)
    data = PlanData(organizations, memberships=2 * organizations)
    await data.load(settings.database.url.get_secret_value())
    say(f"{organizations:,} organizations")
    await add_staff(settings, "root")
    console = ConsoleSettings(enabled=True)
    served = with_edge(settings, People(folder)).model_copy(update={"console": console})
    stop = asyncio.Event()
    async with Edge(served, Console(served)) as edge:
        running = asyncio.create_task(edge.run(stop))
        try:
            return await _ask_all(served, f"http://127.0.0.1:{edge.port}", data, requests)
        finally:
            stop.set()
            await running


async def _ask_all(settings: Settings, url: str, data: PlanData, requests: int) -> Mapping[str, Timed]:
    secret = secrets.token_urlsafe()
    await keep_session(settings, "root", secret)
    pages = await _pages(settings, data)
    async with httpx2.AsyncClient(
        base_url=url, cookies={"orgs-console": secret}, trust_env=False, timeout=30
    ) as client:
        while (await client.get("/console")).status_code != 200:
            await asyncio.sleep(0.1)
        found = {name: await _time(client, path, requests) for name, path in pages.items()}
    loaded = await _load(url, secret, {name: path for name, path in pages.items() if not name.startswith("part: ")})
    return {name: Timed(*each, loaded.get(name)) for name, each in found.items()}


async def _pages(settings: Settings, data: PlanData) -> Mapping[str, str]:
    """Of each page, by name; the organization that is looked at has changes, the search finds a thousand."""
    async with Database(settings.database, "operate", direct=True).begin() as conn:
        group = next(name_group(each) for each in await parked_queues.group(conn))
        new = NewOperation(uuid7(), "parked release", {}, "parked", 100, "", {}, [], [], "bench", "root", None)
        await operations.add(conn, new, 900)
    session = await asyncpg.connect(settings.database.url.get_secret_value())
    org_id = await session.fetchval("SELECT org_id FROM journal WHERE version = 2 LIMIT 1")
    name = await session.fetchval("SELECT name FROM organization WHERE id = $1", org_id)
    parked = await session.fetchval("SELECT max(id) FROM parked WHERE state = 'open'")
    await session.close()
    return {
        "overview": "/console",
        "part: live": "/console/live",
        "organizations": "/console/organizations",
        "organizations, found": f"/console/organizations?q={name[:3]}",
        "organizations, none": "/console/organizations?q=zzzzzz",
        "organization": f"/console/organizations/{org_id}",
        "part: state": f"/console/organizations/{org_id}/state?version=1",
        "trace": f"/console/trace?what={org_id}",
        "part: last commands": f"/console/trace/found?what={org_id}",
        "parked": "/console/parked",
        "parked group": f"/console/parked/groups/{group}",
        "parked record": f"/console/parked/records/{parked}",
        "runs": "/console/runs",
        "run": f"/console/runs/{new.id}",
    }


def _processor_s() -> float:
    """Used so far by this process, which is the edge too, and by Postgres."""
    servers = [each for each in psutil.Process().children(recursive=True) if each.name() == "postgres"]
    times = [each.cpu_times() for each in (psutil.Process(), *servers)]
    return sum(each.user + each.system for each in times)


async def _time(client: httpx2.AsyncClient, path: str, requests: int) -> tuple[float, float, float, float]:
    taken: list[float] = []
    for _ in range(_WARM_UP):
        await client.get(path)
    used_s = _processor_s()
    for _ in range(requests):
        began = time.perf_counter()
        answer = await client.get(path)
        assert answer.status_code == 200, f"{path}: {answer.status_code} {answer.text}"
        taken.append((time.perf_counter() - began) * 1000)
    used = (_processor_s() - used_s) * 1000 / requests
    return min(taken), statistics.median(taken), statistics.quantiles(taken, n=20, method="inclusive")[-1], used


async def _load(url: str, secret: str, pages: Mapping[str, str]) -> Mapping[str, float]:
    """Open each page in the browser, five times; the median from navigation to `load`."""
    path = find_chromium()
    if path is None:
        return {}
    loaded: dict[str, float] = {}
    async with browsing(path) as browser:
        context = await browser.new_context()
        await context.add_cookies(
            [{"name": "orgs-console", "value": secret, "domain": "127.0.0.1", "path": "/console"}]
        )
        window = await context.new_page()
        for name, address in pages.items():
            times: list[float] = []
            for _ in range(5):
                await window.goto(f"{url}{address}")
                times.append(await window.evaluate("performance.getEntriesByType('navigation')[0].loadEventStart"))
            loaded[name] = statistics.median(times)
    return loaded


if __name__ == "__main__":
    sys.exit(main())
