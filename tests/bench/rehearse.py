"""`python -m tests.bench.rehearse`: how fast recorded commands are rehearsed, and whether memory stays flat.

A worker decides creations and updates of 10,000 organizations; then `orgs replay commands` decides them again, as a
process of its own, whose resident memory is sampled. It must find no difference.
"""

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Final

from confluent_kafka import Producer

import org_local
from org_service.settings import LogSettings, Settings
from org_service.store import migrate
from org_service.telemetry.logs import set_up_logging
from org_service.worker.worker import Worker
from tests.bench import load
from tests.bench.command import run_orgs, say
from tests.bench.site import open_site
from tests.integration.worker.publishing import committed

_PORTION: Final = 50_000


def main() -> int:
    """Measure; the exit status is that of the rehearsal."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.rehearse", description=__doc__)
    parser.add_argument("--commands", type=int, default=100_000, help="updates, beside 10,000 creations")
    parser.add_argument("--runs", type=int, default=3, help="rehearsals of the same commands")
    arguments = parser.parse_args()
    set_up_logging(LogSettings(level="warning"))
    code = 0
    with (
        tempfile.TemporaryDirectory(prefix="orgs-bench-") as folder,
        org_local.start() as stack,
        open_site(stack, "rehearse", Path(folder)) as site,
    ):
        asyncio.run(_decide(site.settings, arguments.commands))
        for _ in range(arguments.runs):
            code = max(code, _rehearse(site.settings))
    return code


async def _decide(settings: Settings, count: int) -> None:
    """Let a worker decide creations, then updates."""
    await migrate.upgrade(settings.database)
    org_ids = load.organization_ids(load.ORGANIZATIONS)
    portions = [load.updates(org_ids, min(_PORTION, count - at), at) for at in range(0, count, _PORTION)]
    worker, stop = Worker(settings), asyncio.Event()
    running = asyncio.create_task(worker.run(stop))
    sent = 0
    for portion in chain([load.creations(org_ids)], portions):
        sent += await asyncio.to_thread(_publish, settings, portion)
        while await committed(settings) < sent:
            await asyncio.sleep(0.1)
    stop.set()
    await running


def _publish(settings: Settings, commands: Iterable[load.Encoded]) -> int:
    producer = Producer(
        {"bootstrap.servers": settings.kafka.bootstrap_servers, "partitioner": "murmur2_random", "linger.ms": 20}
    )
    sent = 0
    for command in commands:
        producer.produce(settings.kafka.topics.commands, command.value, command.key, headers=list(command.headers))
        sent += 1
        if sent % 1_000 == 0:
            producer.poll(0)
            producer.flush()
    producer.flush()
    return sent


def _rehearse(settings: Settings) -> int:
    measured = run_orgs(settings, "replay", "commands", "--json")
    *differences, summary = measured.documents
    say(
        f"{summary['commands']:,} commands in {summary['seconds']} s: {summary['commands'] / summary['seconds']:,.0f}/s"
        f" ({measured.seconds:.1f} s with the start of the process); {len(differences)} differences; "
        f"{measured.memory_text()}"
    )
    return measured.code


if __name__ == "__main__":
    sys.exit(main())
