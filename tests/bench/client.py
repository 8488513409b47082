"""`python -m tests.bench.client`: what `OrganizationClient` costs, and how long it keeps its callers.

A stand-in for the service answers from a process of its own, each batch in one Kafka transaction, so that the figures
are the client's alone:

- what a partition's waking costs, which comes before the sending;
- the first command after a silence, one to a partition that is not read while another is, and one of a busy client;
- 20,000 commands with 1,000 in flight, at most: outcomes a second, and processor time a command;
- an idle client while others get as many results as the machine gives.
"""

import argparse
import asyncio
import itertools
import sys
import time
from collections.abc import Iterator, Sequence
from statistics import median
from subprocess import PIPE, Popen
from typing import Final
from uuid import UUID, uuid4

import psutil

import org_local
from org_events import Topics, UpdateOrganization, partition_for
from org_events.kafka.brokers import IDLE_S
from org_events.kafka.consumer import SteadyConsumer
from org_events.publishing import OrganizationClient, reader
from org_events.publishing.outcomes import Expected
from tests.support.topics import create

_PARTITIONS: Final = 12
_IN_FLIGHT: Final = 1_000
_FLOOD_S: Final = 10.0


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.client", description=__doc__)
    parser.add_argument("--commands", type=int, default=20_000, help="with 1,000 in flight")
    parser.add_argument("--silences", type=int, default=30, help="after each of which a first command is sent")
    parser.add_argument("--runs", type=int, default=3, help="of the commands in flight")
    arguments = parser.parse_args()
    topics = Topics("bench-client.")
    with org_local.start() as stack:
        asyncio.run(create(stack.bootstrap_servers, topics.specs(partitions=_PARTITIONS)))
        service = Popen(
            [sys.executable, "-m", "tests.bench.client_service", stack.bootstrap_servers, topics.prefix], stdout=PIPE
        )
        try:
            assert service.stdout is not None
            service.stdout.readline()
            asyncio.run(_measure(stack.bootstrap_servers, topics, arguments))
        finally:
            service.kill()
            service.wait()
    print(f"load of the machine: {psutil.getloadavg()[0]:.1f}")
    return 0


async def _measure(bootstrap_servers: str, topics: Topics, arguments: argparse.Namespace) -> None:
    await _time_wakings(bootstrap_servers, topics, arguments.silences)
    async with OrganizationClient(bootstrap_servers=bootstrap_servers, source="/bench", topics=topics) as orgs:
        await _time_latencies(orgs, arguments.silences)
        for _ in range(arguments.runs):
            await _time_many(orgs, arguments.commands)
        await asyncio.sleep(reader.LINGER_S + 1.5)
        await _time_idle(bootstrap_servers, topics)


def _one_of_each_partition() -> dict[int, UUID]:
    return {partition_for(str(each).encode(), _PARTITIONS): each for each in (uuid4() for _ in range(500))}


async def _time_wakings(bootstrap_servers: str, topics: Topics, times: int) -> None:
    """What a first command waits for before it is sent: one end, on connections that were idle."""
    consumer = SteadyConsumer(
        bootstrap_servers=bootstrap_servers, group_id=None, enable_auto_commit=False, offsets_apart=True
    )
    expected, found = Expected(), list[float]()
    reading = reader.OutcomeReader(topics.results, consumer, expected)
    await reading.start({*range(_PARTITIONS)})
    by_partition = _one_of_each_partition()
    for each in range(times):
        await asyncio.sleep(0.5 if each % 5 else IDLE_S + 0.5)
        expected.interest.hold(each, (str(by_partition[each % _PARTITIONS]).encode(),))
        began = time.perf_counter()
        await reading.watch(each)
        found.append((time.perf_counter() - began) * 1000)
        expected.interest.release(each)
    await reading.stop()
    _print_ms("to wake a partition", found)


async def _time_latencies(orgs: OrganizationClient, times: int) -> None:
    """Of the first command after a silence, of one beside a partition that is read, and of one that follows."""
    by_partition = _one_of_each_partition()
    lingers, reader.LINGER_S = reader.LINGER_S, 0.3  # type: ignore[misc] - or a silence would take six seconds
    first, beside, next_one = list[float](), list[float](), list[float]()
    for number in range(times):
        one, other = by_partition[number % _PARTITIONS], by_partition[(number + 1) % _PARTITIONS]
        await asyncio.sleep(1.5)  # longer than a poll
        first.append(await _time_one(orgs, one))
        next_one.append(await _time_one(orgs, one))
        await asyncio.sleep(0.02 * (number % 5))
        beside.append(await _time_one(orgs, other))
    reader.LINGER_S = lingers  # type: ignore[misc]
    _print_ms("first command after a silence", first)
    _print_ms("one that follows", next_one)
    _print_ms("one to another partition", beside)


async def _time_one(orgs: OrganizationClient, org_id: UUID) -> float:
    began = time.perf_counter()
    await orgs.execute(UpdateOrganization(org_id=org_id, name="Acme"))
    return (time.perf_counter() - began) * 1000


def _print_ms(what: str, found: Sequence[float]) -> None:
    ordered = sorted(found)
    print(
        f"{what}: p50 {median(ordered):.1f} ms, p90 {ordered[len(ordered) * 9 // 10]:.1f} ms, max {ordered[-1]:.1f} ms"
    )


async def _time_many(orgs: OrganizationClient, commands: int) -> None:
    org_ids = [uuid4() for _ in range(2_000)]

    def updates() -> Iterator[UpdateOrganization]:
        for number, org_id in zip(range(commands), itertools.cycle(org_ids), strict=False):
            yield UpdateOrganization(org_id=org_id, name=str(number))

    began, used = time.perf_counter(), time.process_time()
    count = 0
    async for result in orgs.execute_many(updates(), in_flight_max=_IN_FLIGHT):
        count += result.code == 200
    took, used = time.perf_counter() - began, time.process_time() - used
    assert count == commands
    print(
        f"{_IN_FLIGHT} in flight: {commands / took:,.0f} outcomes/s, {used / commands * 1e6:.0f} us of the client each"
    )


async def _time_idle(bootstrap_servers: str, topics: Topics) -> None:
    """Of this process, which sends nothing; the results come from another one."""
    arguments = ["-m", "tests.bench.client_service", bootstrap_servers, topics.prefix, str(_FLOOD_S)]
    flood = await asyncio.create_subprocess_exec(sys.executable, *arguments)
    await asyncio.sleep(2)  # until it sends
    before, began = time.process_time(), time.monotonic()
    await asyncio.sleep(_FLOOD_S - 4)
    share = (time.process_time() - before) / (time.monotonic() - began)
    await flood.wait()
    print(f"idle: {share * 100:.2f} % of a core")


if __name__ == "__main__":
    sys.exit(main())
