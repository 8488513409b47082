"""`make demo`: the whole main job on real servers, told as it happens, with the accounts proved at the end.

Starts Kafka and Postgres with temporary data, a worker and a relay as processes of their own; sends what publishers
send, well-formed and not; shows outcomes and events as they arrive; then counts and compares everything that is on the
topics and in the tables. Ends with 0 and one line when the accounts balance, else with 1 and what differs.
"""

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import reference_data
from aiokafka import AIOKafkaProducer
from cases import ARRIVAL_TIMEOUT_S, CASES, Demo, Watch, console, heading, idle, note
from pydantic import SecretStr
from roles import Role, role

import org_local
from org_local.server import log_tail
from org_service.kafka import topics
from org_service.operate import publish
from org_service.operate.verifying.verification import verify
from org_service.settings import DatabaseSettings, KafkaSettings, LogSettings, Settings
from org_service.store import migrate, parked_queues
from org_service.store.database import Database
from org_service.store.parked_queues import ParkedFilter
from org_service.telemetry.logs import set_up_logging

DEMO_TIMEOUT_S = 150.0


async def prove(demo: Demo) -> tuple[str, list[str]]:
    """The last line, and what differs."""
    heading("the accounts: `orgs verify`, and what was sent")
    await idle(demo.settings)
    found = await verify(demo.settings)
    differences = [f"{each.kind}: {each.subject} at position {each.position}" for each in found.differences]
    checked = {each.name: each.checked for each in found.comparisons}
    names = demo.settings.kafka.topics
    outcomes, events = checked[f"{names.results} = journal"], checked[f"{names.events} = journal"]
    database = Database(demo.settings.database, "reader", direct=True)
    async with database.connect() as conn:
        parked = sum(each.records for each in await parked_queues.count(conn, ParkedFilter()))
    for what, ours, theirs in (
        ("commands sent = outcomes", len(demo.sent), outcomes),
        ("applied = events", demo.applied, events),
        ("unreadable records = parked", 1, parked),
    ):
        console.print(f"  {'✓' if ours == theirs else '✗'} {what}: {ours} = {theirs}")
        if ours != theirs:
            differences.append(f"{what}: {ours} is not {theirs}")
    for each in found.comparisons:
        console.print(f"  {'✓' if each.verdict == 'equal' else '✗'} {each.name}: {each.verdict} {each.why}")
        if each.verdict != "equal":
            differences.append(f"{each.name}: {each.verdict} {each.why}")
    counts = f"{len(demo.sent)} commands, {outcomes} outcomes, {events} events, {parked} parked"
    return f"demo: {counts}: accounts {'balance' if not differences else 'do NOT balance'}", differences


@asynccontextmanager
async def connected(settings: Settings) -> AsyncGenerator[Demo]:
    """A client, a raw producer and the watch."""
    watch = Watch(settings.kafka)
    producer = AIOKafkaProducer(**settings.kafka.connection())
    async with publish.connect(settings.kafka, actor="demo", timeout_s=ARRIVAL_TIMEOUT_S) as client:
        following = [asyncio.create_task(watch.follow(what)) for what in ("results", "events")]
        try:
            await producer.start()
            yield Demo(settings, client, producer, watch)
        finally:
            await producer.stop()
            for task in following:
                task.cancel()
            await asyncio.gather(*following, return_exceptions=True)


async def tell(settings: Settings, roles: Sequence[Role]) -> tuple[str, list[str]]:
    """Prepare the servers, tell everything, prove the accounts."""
    set_up_logging(LogSettings(level="error"))
    await migrate.upgrade(settings.database)
    await topics.create(settings.kafka, [plan.spec for plan in await topics.plan(settings.kafka)])
    await asyncio.gather(*(each.ready() for each in roles))
    async with asyncio.timeout(DEMO_TIMEOUT_S), connected(settings) as demo:
        for case in (*CASES, reference_data.share):
            await case(demo)
        return await prove(demo)


def main() -> int:
    """Run the demo; the exit status."""
    argparse.ArgumentParser(
        prog="make demo", description="Show what the service does, on its own servers."
    ).parse_args()
    for variable in [name for name in os.environ if name.startswith("ORGS_")]:
        del os.environ[variable]  # servers of its own, whatever the environment names: it fills and throws them away
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="orgs-demo-") as logs, org_local.start() as stack:
        settings = Settings(
            kafka=KafkaSettings(bootstrap_servers=stack.bootstrap_servers),
            database=DatabaseSettings(url=SecretStr(stack.database_url)),
        )
        with role("worker", settings, Path(logs)) as worker, role("relay", settings, Path(logs)) as relay:
            try:
                last_line, differences = asyncio.run(tell(settings, (worker, relay)))
            except Exception as error:  # noqa: BLE001 - whatever it is, it is shown with the logs that explain it
                console.print_exception()
                for each in (worker, relay):
                    log = each.child.program.log
                    console.print(f"--- {each.child.program.name}\n{log_tail(log)}", markup=False)
                last_line, differences = "demo: failed, see above", [repr(error)]
    note(f"{time.monotonic() - started:.1f} s")
    for difference in differences:
        console.print(f"  {difference}", markup=False, style="red")
    sys.stdout.write(last_line + "\n")
    return 1 if differences else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
