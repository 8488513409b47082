"""Reads the results: the partitions that may hold an outcome somebody wants, and no others.

The reader is not a member of a group. A client that waits for nothing costs nothing, whatever the service does. A
partition is read from its end as it is before the command is sent, so that no outcome can be missed; asking for that
end costs the first command after a silence one round trip. A partition is read on for a while after its last outcome,
so a busy client asks rarely.

A partition that can't be read delays the outcomes in it and no others: who waits for one of these waits until the time
is up, because the command is safe and the partition may be repaired any moment. Nor does one whose end can't be had
keep the others from being woken: each is asked for by itself.
"""

import asyncio
import logging
from collections.abc import Collection, Mapping
from functools import partial
from typing import Any, Final, NamedTuple, cast

from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError, KafkaTimeoutError

from org_events.kafka.consumer import SteadyConsumer
from org_events.publishing.errors import NotConnected
from org_events.publishing.interest import Keys
from org_events.publishing.outcomes import Expected

_log = logging.getLogger(__name__)

FETCH_WAIT_MS: Final = 20
"""How long a broker may hold a fetch back that finds nothing. Another partition is read after the fetch under way, so
it can make an outcome so much later. Empty fetches, only while something is wanted, cost 1 % of a core."""
LINGER_S: Final = 5.0
"""How long a partition is read after its last outcome."""
UNKNOWN_S: Final = 5.0
"""An end that was asked for so long can't be had, which is to be said. As for a partition whose fetches are refused."""
_POLL_MS: Final = 1_000
_POLL_RECORDS_MAX: Final = 1_000
"""Records taken at a time, so that a burst of other publishers' results can't keep the event loop for long."""
_RETRY_WAIT_S: Final = 1.0
_COMMAND_ID_HEADER: Final = "ce_commandid"


class _Waking(NamedTuple):
    """A partition whose end is asked for."""

    task: asyncio.Task[None]
    since: float
    """By the loop's clock."""


class OutcomeReader:
    """Reads the results topic and settles what is expected.

    Args:
        topic: The results.
        consumer: Not started, without a group, `read_committed`.
        expected: What to look for.
    """

    def __init__(self, topic: str, consumer: SteadyConsumer, expected: Expected) -> None:
        self._topic = topic
        self._consumer = consumer
        self._expected = expected
        self._task: asyncio.Task[None] | None = None
        self._awake: dict[int, float] = {}
        """The partitions that are read, and when somebody last wanted something of them, by the loop's clock."""
        self._waking: dict[int, _Waking] = {}
        """To be read as soon as their ends are known."""

    @property
    def is_reading(self) -> bool:
        """False before the start, after the stop, and should the reader have died of a defect."""
        return self._task is not None and not self._task.done()

    @property
    def awake(self) -> set[int]:
        """The partitions that are read."""
        return {*self._awake}

    @property
    def unread(self) -> dict[int, str]:
        """Why partitions can't be read in which something is wanted; those in which nothing is may be as bad."""
        unread = {at.partition: str(sick) for at, sick in self._consumer.sick.items() if at.partition in self._awake}
        now = asyncio.get_running_loop().time()
        for partition, (_, since) in self._waking.items():
            if now - since >= UNKNOWN_S:
                unread[partition] = f"no broker has told its end for {now - since:.0f} s"
        return unread

    async def start(self, partitions: set[int]) -> None:
        """Connect; nothing is read before somebody wants something.

        Raises:
            KafkaError: The ends can't be read; call `stop`.
        """
        await self._consumer.start()
        self._expected.interest.learn(len(partitions))
        self._assign(partitions, {})
        await self._consumer.end_offsets(self._consumer.assignment())
        self._task = asyncio.create_task(self._read(), name="org-events outcomes")
        self._task.add_done_callback(self._died)

    async def watch(self, who: object) -> None:
        """Return when each partition that `who` is interested in is read: what is sent from then on can't be missed.

        Raises:
            KafkaError: The ends can't be read.
            NotConnected: The client was stopped.
        """
        interest = self._expected.interest
        while asleep := self._touch(interest.find(interest.keys_of(who))):
            waking = {self._wake(each) for each in asleep}
            done, _ = await asyncio.wait(waking, return_when=asyncio.FIRST_EXCEPTION)
            if self._task is None:
                raise NotConnected("The client was stopped; nothing was sent.")
            for each in done:
                each.result()

    def reads(self, keys: Keys) -> bool:
        """Whether each partition where records with these keys may be is read, and will be for a while."""
        return not self._touch(self._expected.interest.find(keys))

    async def stop(self) -> None:
        """Stop reading; callers still waiting get an error. May be called again."""
        tasks = [waking.task for waking in self._waking.values()]
        if self._task is not None:
            tasks.append(self._task)
        self._task = None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._expected.fail_all("the client was stopped")
        await self._consumer.stop()

    def _wake(self, partition: int) -> asyncio.Task[None]:
        """Read a partition from its end on; one task does it for all who want that."""
        if partition not in self._waking:
            at = TopicPartition(self._topic, partition)
            task = asyncio.create_task(self._read_from_end(at), name="org-events end of results")
            self._waking[partition] = _Waking(task, asyncio.get_running_loop().time())
            task.add_done_callback(partial(self._woken, partition))
        return self._waking[partition].task

    async def _read_from_end(self, at: TopicPartition) -> None:
        end = await self._find_end(at)
        if at.partition not in self._awake:  # a new partition is read from its beginning
            self._awake[at.partition] = asyncio.get_running_loop().time()
            self._consumer.seek_afresh(at, end)
            self._consumer.resume(at)

    async def _find_end(self, at: TopicPartition) -> int:
        """Ask for as long as somebody wants to know, so that `unread` is true whoever has given up."""
        while True:
            try:
                ends = cast("dict[TopicPartition, int]", await self._consumer.end_offsets([at]))
                return ends[at]
            except KafkaTimeoutError:
                if not self._expected.interest.wants(at.partition):
                    raise

    def _woken(self, partition: int, task: asyncio.Task[None]) -> None:
        del self._waking[partition]
        if not task.cancelled():
            task.exception()  # marks it as seen: nobody may be waiting

    def _touch(self, partitions: Collection[int]) -> set[int]:
        """Something is wanted of them; those that aren't read."""
        now = asyncio.get_running_loop().time()
        asleep: set[int] = set()
        for each in partitions:
            if each in self._awake:
                self._awake[each] = now
            else:
                asleep.add(each)
        return asleep

    def _let_sleep(self) -> None:
        """Read on where somebody wants something, or did a moment ago."""
        now = asyncio.get_running_loop().time()
        for partition, wanted_at in list(self._awake.items()):
            if self._expected.interest.wants(partition):
                self._awake[partition] = now
            elif now - wanted_at > LINGER_S:
                del self._awake[partition]
                self._consumer.pause(TopicPartition(self._topic, partition))

    def _assign(self, partitions: Collection[int], positions: Mapping[int, int]) -> None:
        """Take these partitions, and read those that are awake, from their beginning where no position is given."""
        assigned = [TopicPartition(self._topic, partition) for partition in sorted(partitions)]
        self._consumer.assign(assigned)
        for at in assigned:
            self._consumer.seek(at, positions.get(at.partition, 0))
            if at.partition not in self._awake:
                self._consumer.pause(at)

    async def _read(self) -> None:
        while True:
            try:
                batches = cast(
                    "dict[TopicPartition, list[ConsumerRecord[Any, Any]]]",
                    await self._consumer.getmany(timeout_ms=_POLL_MS, max_records=_POLL_RECORDS_MAX),
                )
            except KafkaError as error:
                # The consumer continues by itself where that can help; what reaches us is for those who wait.
                _log.warning("reading %s: %r", self._topic, error)
                self._expected.fail_all(f"{self._topic} cannot be read: {error!r}")
                await asyncio.sleep(_RETRY_WAIT_S)
                continue
            for records in batches.values():
                for record in records:
                    self._dispatch(record)
            await self._take_new_partitions()
            self._let_sleep()
            # Available records are returned without a pause: let other tasks run.
            await asyncio.sleep(0)

    def _dispatch(self, record: "ConsumerRecord[Any, Any]") -> None:
        for name, content in record.headers:
            if name == _COMMAND_ID_HEADER:
                self._expected.settle(content, cast("bytes", record.value))
                return

    async def _take_new_partitions(self) -> None:
        """When the topic has grown, read the new partitions too, from their beginning: results may be there already."""
        known = {at.partition for at in self._consumer.assignment()}
        present = self._consumer.partitions_for_topic(self._topic) or set()
        if len(present) <= len(known):
            return
        positions: dict[int, int] = {}
        while unasked := self._awake.keys() - positions.keys():
            each = unasked.pop()
            positions[each] = await self._consumer.position(TopicPartition(self._topic, each))
        # From here on without a pause: what is wanted of a new partition from now on finds it assigned.
        self._expected.interest.learn(len(present))
        now = asyncio.get_running_loop().time()
        self._awake |= {each: now for each in present - known if self._expected.interest.wants(each)}
        self._assign(present, positions)

    def _died(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            _log.error("the reader of outcomes ended", exc_info=error)
            self._expected.fail_all(f"the reader of outcomes ended: {error!r}")
