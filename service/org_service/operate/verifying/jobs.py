"""Topics read by several processes, because taking records apart is what a verification spends its time with.

Each job is some partitions of one topic; what comes back is small. Short topics are read here: a process takes half a
second to begin.
"""

import asyncio
import gc
import multiprocessing
import os
from collections.abc import Collection, Coroutine, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal

from org_service.kafka.client import TopicPartition
from org_service.kafka.whole_batches import Bounds
from org_service.operate.verifying.logs import LogScan, Pace, scan_log
from org_service.operate.verifying.states import StateScan, scan_state
from org_service.settings import KafkaSettings

if TYPE_CHECKING:
    from multiprocessing.pool import Pool

OWN_OFFSETS_MAX: Final = 300_000
"""Of a topic: fewer are read in this process, in a second or two."""
PROCESSES_MAX: Final = 4
"""Kafka and Postgres want processors, too; and each process takes some 60 MB."""
GARBAGE_OBJECTS: Final = 50_000
"""New ones before those in circles are looked for: some MB."""

Topic = Literal["events", "results", "state"]
Ranges = Mapping[TopicPartition, Bounds]


class Readers:
    """Reads topics, here or in processes of its own. Close it, however it ends."""

    def __init__(self, kafka: KafkaSettings, pace: Pace, processes: int, stall_s: float) -> None:
        """Make one.

        Args:
            kafka: Where.
            pace: Of what is read here.
            processes: At most so many besides this one; 0 for none.
            stall_s: How long a partition may stand still.
        """
        self._kafka = kafka
        self._pace = pace
        self._processes = min(processes, os.cpu_count() or 1, PROCESSES_MAX)
        self._stall_s = stall_s
        self._pool: Pool | None = None

    def close(self) -> None:
        """End the processes, whatever they do."""
        if self._pool is not None:
            self._pool.terminate()

    async def read_log(
        self, topic: Literal["events", "results"], ranges: Ranges, wanted: Collection[int] = (), **bounds: Any
    ) -> LogScan:
        """Read events or results; as `scan_log`."""
        return await self._read(topic, ranges, wanted, bounds)

    async def read_state(self, ranges: Ranges, wanted: Collection[int] = (), **bounds: Any) -> StateScan:
        """Fold `orgs.state`; as `scan_state`."""
        return await self._read("state", ranges, wanted, bounds)

    async def gather(
        self, first: Coroutine[Any, Any, LogScan], second: Coroutine[Any, Any, LogScan]
    ) -> tuple[LogScan, LogScan]:
        """Two topics: processes that are done with one begin the other; here one after the other."""
        if self._processes:
            return await asyncio.gather(first, second)
        return await first, await second

    async def _read(self, topic: Topic, ranges: Ranges, wanted: Collection[int], bounds: dict[str, Any]) -> Any:
        bounds |= {"stall_s": self._stall_s}
        offsets = sum(each.end - each.start for each in ranges.values())
        if not self._processes or offsets <= OWN_OFFSETS_MAX:
            return await _scan(self._kafka, topic, ranges, wanted, bounds, self._pace)
        parts = [dict(list(ranges.items())[number :: self._processes]) for number in range(self._processes)]
        found = await asyncio.gather(*(self._submit(topic, part, wanted, bounds) for part in parts if part))
        for other in found[1:]:
            found[0].merge(other)
        return found[0]

    async def _submit(self, topic: Topic, ranges: Ranges, wanted: Collection[int], bounds: dict[str, Any]) -> Any:
        # Not forked: this process has threads and connections.
        self._pool = self._pool or multiprocessing.get_context("spawn").Pool(self._processes)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()

        def end(ending: Any) -> None:
            if not future.done():
                (future.set_exception if isinstance(ending, BaseException) else future.set_result)(ending)

        told = partial(loop.call_soon_threadsafe, end)
        given = (self._kafka, topic, ranges, tuple(wanted), bounds)
        self._pool.apply_async(_run, given, callback=told, error_callback=told)
        return await future


def _run(kafka: KafkaSettings, topic: Topic, ranges: Ranges, wanted: Collection[int], bounds: dict[str, Any]) -> Any:
    # What was imported stays, and records are in no circles: to look for some took a tenth of the time.
    gc.freeze()
    gc.set_threshold(GARBAGE_OBJECTS)
    return asyncio.run(_scan(kafka, topic, ranges, wanted, bounds, Pace()))


def _scan(  # noqa: PLR0917 - what a job is
    kafka: KafkaSettings, topic: Topic, ranges: Ranges, wanted: Collection[int], bounds: dict[str, Any], pace: Pace
) -> Coroutine[Any, Any, LogScan | StateScan]:
    if topic == "state":
        return scan_state(kafka, ranges, wanted=wanted, pace=pace, **bounds)
    return scan_log(kafka, topic, ranges, wanted=wanted, pace=pace, **bounds)
