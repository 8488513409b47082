"""Partitions that can't be read while commands flow, judged by the account checker: all others go on, nothing is lost.

A batch is damaged where the broker stores it, between its acknowledgement and the workers' next fetch: these are frozen
for that moment, in which publishers go on.
"""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import asyncpg
import pytest

from org_local.segments import Batch, batches
from org_local.stack import Stack
from org_service.settings import Settings
from tests.support import log_faults, raw_batches
from tests.support.processes import ServiceProcess
from tests.support.published import Published
from tests.support.random_commands import RandomCommands
from tests.support.record_transactions import Place
from tests.support.sending import Sending
from tests.support.system import System
from tests.support.topics import create_topics, drop_topics
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.chaos, pytest.mark.integration, pytest.mark.timeout(240)]

PARTITIONS, WORKERS = 12, 2
SICK = {0: "a flipped bit", 6: "an unknown codec", 11: "a flipped bit"}
"""The partitions that are sick at the same time, and why."""
STEPPED_OVER = 5
RATE = 400
"""Commands a second."""
MORE = 300
"""Commands that are sent while a partition is sick, and wait for no retry of ours."""
SEED = 20_300_107
TIMEOUT_S = 60
STUCK = "orgs_consumer_partition_stuck"
UNKNOWN_CODEC = 6


class Traffic:
    """Commands, sent without a pause by a thread of its own."""

    def __init__(self, system: System, seed: int) -> None:
        self._publisher = system.publisher
        self._commands = RandomCommands(seed, 300)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.sent: list[Sending] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def wait_for_more(self, number: int) -> None:
        """Until so many more are acknowledged."""
        wanted = len(self._publisher.records) + number
        wait_for(lambda: len(self._publisher.records) >= wanted, "acknowledgements", TIMEOUT_S)

    def end_of(self, partition: int) -> int:
        """As far as it is acknowledged."""
        offsets = [each.offset for each in [*self._publisher.records] if each.partition == partition]
        return max(offsets, default=-1) + 1

    def sending(self, entry: Published) -> Sending:
        """What a publisher's note is about."""
        return [each for each in self.sent if each.org_id == entry.org_id][entry.sequence - 1]

    def _run(self) -> None:
        began = time.monotonic()
        while not self._stop.wait(max(0.0, began + len(self.sent) / RATE - time.monotonic())):
            (command,) = self._commands.commands(1)
            self._publisher.send(command)
            self.sent.append(command)


class Watch:
    """What is answered, and what may be."""

    def __init__(self, system: System) -> None:
        self._system = system
        self._since: dict[Place, int] = {}
        self._answered: set[str] = set()

    def wait_until_answered(self, sick: Sequence[Batch], partitions: Sequence[int]) -> None:
        """Until all commands that are there now have an outcome, but for those in sick batches and behind them."""
        behind = dict(zip(partitions, (each.first for each in sick), strict=True))
        # Of the others nobody knows yet where they are, nor whether they may be answered.
        all_now = [entry for entry in self._system.publisher.published if entry.partition is not None]
        free = {
            entry.command_id
            for entry in all_now
            if entry.partition is not None and (entry.offset or 0) < behind.get(entry.partition, 1 << 62)
        } - {None}
        assert len(free) > MORE
        wait_for(lambda: free <= self._answers(), "outcome of every command that isn't behind", TIMEOUT_S, 0.05)
        stuck = {entry.command_id for entry in all_now} - free - {None}
        assert stuck
        assert not stuck & self._answered

    def _answers(self) -> set[str]:
        topic = self._system.topics.results
        found, self._since = self._system.read_on(topic, self._since)
        self._answered |= {command_id for each in found if (command_id := each.header("ce_commandid"))}
        return self._answered


@contextmanager
def spoiled(
    stack: Stack,
    system: System,
    traffic: Traffic,
    workers: Sequence[ServiceProcess],
    sick: Mapping[int, str],
) -> Iterator[list[Batch]]:
    """The next batches of some partitions can't be read; afterwards they can."""
    topic, partitions = system.topics.commands, list(sick)
    for worker in workers:
        worker.freeze()
    before = ends_of(stack, topic)
    # A record on each partition answers the fetch that each worker has under way.
    wait_for(lambda: all(end > before[each] for each, end in ends_of(stack, topic).items()), "records", TIMEOUT_S)
    now = ends_of(stack, topic)
    ends = [now[partition] for partition in partitions]
    for partition, end in zip(partitions, ends, strict=True):
        wait_for(lambda p=partition, e=end: traffic.end_of(p) > e, "batch to spoil", TIMEOUT_S)
    spoil(stack, topic, sick, ends)
    for worker in workers:
        worker.thaw()
    found = [
        next(each for each in batches(stack.kafka.brokers[0].logs, topic, partition) if each.first <= end <= each.last)
        for partition, end in zip(partitions, ends, strict=True)
    ]
    yield found
    spoil(stack, topic, sick, ends)


def ends_of(stack: Stack, topic: str) -> dict[int, int]:
    """Where the log of each partition ends now, whatever the publisher has heard of."""
    return log_faults.ends(stack.bootstrap_servers, topic, range(PARTITIONS))


def spoil(stack: Stack, topic: str, sick: Mapping[int, str], offsets: Sequence[int]) -> None:
    """Damage batches, or repair damaged ones."""
    for (partition, what), offset in zip(sick.items(), offsets, strict=True):
        if what == "a flipped bit":
            log_faults.flip_byte(stack, topic, partition, offset, mask=1)
        elif raw_batches.set_codec(stack, topic, partition, offset, UNKNOWN_CODEC) == UNKNOWN_CODEC:
            raw_batches.set_codec(stack, topic, partition, offset, raw_batches.NONE)


def stuck(workers: Sequence[ServiceProcess], topic: str) -> set[int]:
    """The partitions that workers show as stuck."""
    series = {f"{STUCK}{{partition={number},topic={topic}}}": number for number in range(PARTITIONS)}
    return {number for worker in workers for name, number in series.items() if name in worker.metrics()}


def complaints(workers: Sequence[ServiceProcess]) -> list[str]:
    """What workers have logged of partitions that can't be read."""
    lines = (line["event"] for worker in workers for line in worker.errors())
    return sorted(line.partition(" on (")[0] for line in lines if "cannot be read" in line)


def sick_round(stack: Stack, system: System, traffic: Traffic, workers: Sequence[ServiceProcess]) -> None:
    """Let partitions be sick for a while, and see that nobody else is."""
    topic, partitions = system.topics.commands, list(SICK)
    with spoiled(stack, system, traffic, workers, SICK) as bad:
        traffic.wait_for_more(MORE)
        Watch(system).wait_until_answered(bad, partitions)
        wait_for(lambda: stuck(workers, topic) == set(partitions), "word of each sick partition", TIMEOUT_S)
        assert not all(worker.ready() for worker in workers)
        told = complaints(workers)
        for partition, batch in zip(partitions, bad, strict=True):
            assert told.count(f"{topic}, partition {partition} cannot be read from offset {batch.first}") == 1
    wait_for(lambda: not stuck(workers, topic), "cure", TIMEOUT_S)
    for worker in workers:
        worker.wait_until_ready()


def step_over(stack: Stack, system: System, traffic: Traffic, workers: Sequence[ServiceProcess]) -> Batch:
    """Give a batch up as docs/operating.md says: delete it, and send its commands again under the same ids."""
    topic, partition = system.topics.commands, STEPPED_OVER
    with spoiled(stack, system, traffic, workers, {partition: "a flipped bit"}) as bad:
        (batch,) = bad
        wait_for(lambda: stuck(workers, topic) == {partition}, "word of the sick partition", TIMEOUT_S)
        log_faults.delete_records(stack.bootstrap_servers, topic, {partition: batch.last + 1})
        wait_for(lambda: not stuck(workers, topic), "step over the batch", TIMEOUT_S)
    return batch


@pytest.fixture
async def wide(settings: Settings) -> AsyncIterator[Settings]:
    """Topics of twelve partitions."""
    kafka = settings.kafka.model_copy(
        update={"partitions": PARTITIONS, "topic_prefix": f"{settings.kafka.topic_prefix}wide."}
    )
    made = settings.model_copy(update={"kafka": kafka})
    await create_topics(made)
    yield made
    await drop_topics(made)


def test_an_unreadable_batch_does_not_affect_other_partitions(wide: Settings, stack: Stack, tmp_path: Path) -> None:
    """One flipped bit lost 1,203 of 1,963 commands in silence."""
    with System(wide, tmp_path) as system:
        workers = [system.add("worker", f"worker-{number}") for number in range(WORKERS)]
        relay = system.add("relay")
        for process in system.processes:
            process.wait_until_ready()
        with Traffic(system, SEED) as traffic:
            traffic.wait_for_more(MORE)
            sick_round(stack, system, traffic, workers)
            batch = step_over(stack, system, traffic, workers)
            given_up = range(batch.first, batch.last + 1)
            traffic.wait_for_more(MORE)
        publisher = system.publisher
        publisher.flush()
        lost = [each for each in publisher.published if each.partition == STEPPED_OVER and each.offset in given_up]
        for entry in lost:
            publisher.send(traffic.sending(entry))
        system.settle(TIMEOUT_S)
        observed = system.observe()
        gone = [each for each in publisher.records if each.partition == STEPPED_OVER and each.offset <= batch.last]
        observed.commands += [each for each in gone if each.offset < batch.first]  # decided before they were deleted
        publisher.published[:] = [each for each in publisher.published if each not in lost]
        findings = system.check(observed)
        ranges = asyncio.run(lost_ranges(system.database_url))
        statuses = [process.terminate() for process in system.processes]
        unexpected = relay.errors()
    print(f"seed {SEED}, {len(traffic.sent)} commands\n{findings.text()}")
    assert findings.ok, findings.text()
    assert ranges == [(STEPPED_OVER, batch.first, batch.last + 1, "expired")]
    assert statuses == [0] * (WORKERS + 1)
    assert not unexpected


async def lost_ranges(database_url: str) -> list[tuple[int, int, int, str]]:
    """What the worker noted down as gone unread."""
    conn = await asyncpg.connect(database_url)
    try:
        rows = await conn.fetch("SELECT partition, from_offset, to_offset, why FROM lost_range")
    finally:
        await conn.close()
    return [tuple(row) for row in rows]
