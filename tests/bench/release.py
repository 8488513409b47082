"""`python -m tests.bench.release`: 10,000 parked commands of 1,000 organizations are released while a worker goes on.

A worker whose code raises for these organizations parks what they are sent. Then a worker and a relay run as processes,
a publisher sends new commands all the time, to these organizations and as many others, and `orgs parked release` runs
as a process of its own. In the end every command must have been decided once, those of each organization in the order
in which they were sent, and the accounts must balance.
"""

import argparse
import asyncio
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final
from uuid import UUID, uuid4

from confluent_kafka import Producer

import org_local
from org_service.settings import LogSettings, OperateSettings, Settings
from org_service.store import migrate
from org_service.telemetry.logs import set_up_logging
from org_service.worker.worker import Worker
from tests.bench.command import Measured, ran_for_s, run_orgs, say
from tests.bench.site import open_site
from tests.integration.operate.parking import failing_for
from tests.integration.worker.publishing import send
from tests.support.database import connected
from tests.support.idle import wait_until_idle
from tests.support.processes import ServiceProcess
from tests.support.releasing import find_disorder, live
from tests.support.verified import find_differences
from tests.support.waiting import until

_WITHIN_S: Final = 600.0
_ALONE_S: Final = 5.0
"""Of the new commands without a release, to compare with."""
_DELAYS: Final = (
    "SELECT count(*) AS count, percentile_cont(ARRAY[0.5, 0.99, 1]) WITHIN GROUP "
    "(ORDER BY extract(epoch FROM recorded_at) * 1000 - command_time_ms) AS delays "
    "FROM journal WHERE org_id = any($1) AND command_time_ms BETWEEN $2 AND $3"
)
"""Of commands that Kafka took in a span of time, how many milliseconds later each was decided."""


def main() -> int:
    """Measure; the exit status is 1 where anything is not as it must be."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.release", description=__doc__)
    parser.add_argument("--organizations", type=int, default=1_000, help="with parked commands; as many have none")
    parser.add_argument("--commands-each", type=int, default=10, help="parked, of each organization")
    parser.add_argument("--rate", type=float, default=500, help="new commands a second, half of them for queues")
    arguments = parser.parse_args()
    set_up_logging(LogSettings(level="error"))
    with (
        tempfile.TemporaryDirectory(prefix="orgs-bench-") as folder,
        org_local.start() as stack,
        open_site(stack, "release", Path(folder)) as site,
    ):
        patient = OperateSettings(approval_above=2**31 - 1)
        settings = site.settings.model_copy(update={"operate": patient})
        held, free = ([uuid4() for _ in range(arguments.organizations)] for _ in range(2))
        asyncio.run(_park(settings, held, arguments.commands_each))
        roles = [ServiceProcess(role, settings, site.folder) for role in ("worker", "relay")]
        publisher = _Publisher(settings, held, free, arguments.commands_each, arguments.rate)
        try:
            for role in roles:
                role.start()
            for role in roles:
                role.wait_until_ready()
            publisher.start()
            time.sleep(_ALONE_S)
            began_ms = time.time() * 1000
            ended = run_orgs(settings, "parked", "release", "--all", "--execute", "--reason", "a measurement", "--json")
            spans = {
                "before the release": (began_ms - _ALONE_S * 1000, began_ms),
                "during the release": (began_ms, time.time() * 1000),
            }
            sent = publisher.stop()
            turns = dict.fromkeys(held, sent + int(arguments.commands_each)) | dict.fromkeys(free, sent)
            return asyncio.run(_judge(settings, ended, spans, turns, free))
        finally:
            for role in roles:
                role.close()


async def _park(settings: Settings, held: Sequence[UUID], each: int) -> None:
    await migrate.upgrade(settings.database)
    stop = asyncio.Event()
    # Without the breaker, which would park nothing of a build that fails so often.
    worker = Worker(settings.model_copy(update={"worker": settings.worker.model_copy(update={"breaker": False})}))
    running = asyncio.create_task(worker.run(stop))
    with failing_for(held):
        for turn in range(each):
            await send(settings, *(live(org_id, turn) for org_id in held))
        async with connected(settings) as database:
            parked = "SELECT count(*) FROM parked"
            await until(lambda: database.fetchval(parked), len(held) * each, timeout_s=_WITHIN_S)
    stop.set()
    await running


class _Publisher(threading.Thread):
    """Sends a turn of all organizations after the other, at an even rate, until it is stopped after a whole one."""

    def __init__(self, settings: Settings, held: Sequence[UUID], free: Sequence[UUID], turns: int, rate: float) -> None:
        super().__init__(daemon=True)
        self._topic = settings.kafka.topics.commands
        self._producer = Producer(
            {"bootstrap.servers": settings.kafka.bootstrap_servers, "partitioner": "murmur2_random", "linger.ms": 5}
        )
        self._held, self._free = held, free
        self._first_turn = turns
        self._pause_s = 2 / rate
        self._turns = 0
        self._stopping = False

    def run(self) -> None:
        """Send."""
        due_s = time.monotonic()
        while not self._stopping:
            for held, free in zip(self._held, self._free, strict=True):
                for record in (live(held, self._first_turn + self._turns), live(free, self._turns)):
                    self._producer.produce(self._topic, record.value, record.key, headers=list(record.headers))
                self._producer.poll(0)
                due_s += self._pause_s
                time.sleep(max(0.0, due_s - time.monotonic()))
            self._turns += 1
        self._producer.flush()
        del self._producer  # its connections

    def stop(self) -> int:
        """End with this turn; how many each organization had."""
        self._stopping = True
        self.join()
        return self._turns


async def _judge(
    settings: Settings,
    ended: Measured,
    spans: Mapping[str, tuple[float, float]],
    turns: Mapping[UUID, int],
    others: Sequence[UUID],
) -> int:
    """Wait for the end, say how it was; 1 where something is wrong."""
    (done,) = ended.documents
    seconds, decided = ran_for_s(done), sum(done["counts"].values())
    say(
        f"released: {done['counts']} of {done['items']:,} planned in {seconds:.1f} s, {decided / seconds:,.0f}/s "
        f"({ended.seconds:.1f} s with its process and plan, {ended.cpu_seconds:.1f} s of its processor)"
    )
    commands = sum(turns.values())
    async with connected(settings) as database:
        await until(lambda: database.fetchval("SELECT count(*) FROM journal"), commands, timeout_s=_WITHIN_S)
        for name, span in spans.items():
            (row,) = await database.fetch(_DELAYS, others, *map(int, span))
            p50, p99, most = map(round, row["delays"])
            say(
                f"{name}: {row['count']:,} commands of others, decided after {p50} ms (p50), {p99} (p99), {most} (most)"
            )
        wrong = await find_disorder(database, turns)
        left = "SELECT id, state FROM parked WHERE state <> 'released'"
        wrong += [f"record {row['id']} is {row['state']}" for row in await database.fetch(left)]

    await wait_until_idle(settings, _WITHIN_S)
    if await find_differences(settings):
        return 1
    say(f"{commands:,} commands: each decided once, each outcome published once; the accounts balance")
    say(f"not in order, or not released: {len(wrong)} {wrong[:3]}")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
