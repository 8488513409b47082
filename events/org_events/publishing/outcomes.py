"""Outcomes on their way in: every result of the topic is checked, those somebody asked for are kept.

The reader is not a member of a group: each client reads all partitions from their end, because any of them may hold the
answer. A partition that can't be read delays the outcomes in it and no others: who waits for one of these waits until
the time is up, because the command is safe and the partition may be repaired any moment.

Looking for one header decides the outcome of a record, so results of other publishers cost little; only the task that
waits parses its JSON. Declined: a results topic a publisher, which the relay would have to know.
"""

import asyncio
import json
import logging
from typing import Any, Final, cast
from uuid import UUID

from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError

from org_events.kafka.consumer import SteadyConsumer
from org_events.publishing.errors import ClientError

_log = logging.getLogger(__name__)

UNCLAIMED_MAX: Final = 10_000
"""Commands sent without waiting whose outcome is kept for a later question; at about 1 KB each."""
_POLL_MS: Final = 1_000
_POLL_RECORDS_MAX: Final = 1_000
"""Records taken at a time, so that a burst of other publishers' results can't keep the event loop for long."""
_RETRY_WAIT_S: Final = 1.0
_COMMAND_ID_HEADER: Final = "ce_commandid"
_NOT_JOURNALED: Final = b'"position":null'
"""In a result that any request under an id may get: parked, or rejected because the id belongs to another one."""


class Expected:
    """The outcomes somebody waits for, and a bounded number of those that may be asked for later. No I/O."""

    def __init__(self, unclaimed_max: int = UNCLAIMED_MAX) -> None:
        self._unclaimed_max = unclaimed_max
        self._futures: dict[bytes, asyncio.Future[bytes]] = {}
        self._requests: dict[bytes, int] = {}
        """What was sent last under the ids of `_futures`."""
        self._others: dict[bytes, bytes] = {}
        """Outcomes of other requests under these ids; there are few."""
        self._unclaimed: dict[bytes, None] = {}
        """In the order in which they were left; the first to go when there are too many."""

    def __len__(self) -> int:
        return len(self._futures)

    async def wait_turn(self, command_id: UUID, request: int, deadline: float) -> bytes | None:
        """Wait until no other request under this id is undecided; its outcome, or None where there was none.

        A result names its command id alone. Of two requests under one id the second is rejected, and which of the two
        results came first would decide who gets which.

        Args:
            command_id: Of both.
            request: The same for the same type and body.
            deadline: By the loop's clock.

        Raises:
            TimeoutError: It is undecided still.
        """
        key = _key(command_id)
        others: bytes | None = None
        while (other := self._futures.get(key)) is not None and self._requests.get(key, request) != request:
            if not other.done():
                others = self._others.get(key) or others
                await asyncio.wait({other}, timeout=max(0.0, deadline - asyncio.get_running_loop().time()))
                if not other.done():
                    raise TimeoutError
            outcome: bytes = b"" if other.exception() else other.result()
            if outcome and _NOT_JOURNALED not in outcome:
                others = outcome
            if self._futures.get(key) is other:
                break
        return others

    def expect(self, command_id: UUID, request: int = 0, others: bytes | None = None) -> asyncio.Future[bytes]:
        """The JSON of the next result of a command that is about to be sent.

        An outcome that came before belongs to an earlier sending, and is dropped.

        Args:
            command_id: Of the command.
            request: As for `wait_turn`, which comes first.
            others: What `wait_turn` gave. Whoever sent that other request again gets a copy of it, byte for byte,
                which is no answer to this one.
        """
        key = _key(command_id)
        self._requests[key] = request
        if others is not None:
            self._others[key] = others
        future = self._futures.get(key)
        if future is not None and future.done():
            del self._futures[key]
        return self.claim(command_id)

    def claim(self, command_id: UUID) -> asyncio.Future[bytes]:
        """The JSON of the result of a command: the one that came already, or else the next."""
        key = _key(command_id)
        self._unclaimed.pop(key, None)
        future = self._futures.get(key)
        if future is None:
            future = self._futures[key] = asyncio.get_running_loop().create_future()
        return future

    def leave(self, command_id: UUID) -> None:
        """Nobody waits any more; remember the outcome for a while."""
        key = _key(command_id)
        if key not in self._futures:
            return
        self._unclaimed.pop(key, None)
        self._unclaimed[key] = None
        if len(self._unclaimed) > self._unclaimed_max:
            oldest = next(iter(self._unclaimed))
            del self._unclaimed[oldest]
            self._futures.pop(oldest, None)
            self._requests.pop(oldest, None)
            self._others.pop(oldest, None)

    def forget(self, command_id: UUID, outcome: asyncio.Future[bytes], *, is_final: bool = True) -> None:
        """This outcome was handed out; the command may have been sent again since, and the next one be waited for.

        Args:
            command_id: Of the command.
            outcome: What was handed out.
            is_final: Whether none follows. One that does is expected from here on, or came already.
        """
        key = _key(command_id)
        future = self._futures.get(key)
        if future is outcome:
            self._unclaimed.pop(key, None)
            del self._futures[key]
            self._requests.pop(key, None)
            self._others.pop(key, None)
            if not is_final:
                self.claim(command_id)
                self.leave(command_id)
        elif not is_final and future is not None and future.done():
            self.leave(command_id)

    def settle(self, key: bytes, value: bytes) -> None:
        """A result came; of several for one command the first counts, until a final one follows a parked one."""
        future = self._futures.get(key)
        if future is None or self._others.get(key) == value:
            return
        if future.done():
            if future.exception() is not None or _is_final(future.result()):
                return
            # Whoever waits has the parked one and may not have run yet; this is for who asks next.
            future = self._futures[key] = asyncio.get_running_loop().create_future()
        future.set_result(value)

    def fail_all(self, why: str) -> None:
        """Results can't be read for now: all waiting callers get a `ClientError`."""
        for future in self._futures.values():
            if not future.done():
                future.set_exception(ClientError(why))
                future.exception()  # marks it as seen: nobody may be waiting
        self._futures.clear()
        self._unclaimed.clear()
        self._requests.clear()
        self._others.clear()


async def wait_until(future: asyncio.Future[Any], deadline: float) -> None:
    """Wait until `future` is done or the time is up; neither cancels it, others may wait for it too."""
    if not future.done():
        await asyncio.wait({future}, timeout=max(0.0, deadline - asyncio.get_running_loop().time()))


def _is_final(result: bytes) -> bool:
    try:
        return json.loads(result).get("final") is not False
    except (ValueError, AttributeError):
        return True


def _key(command_id: UUID) -> bytes:
    return str(command_id).encode()


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

    @property
    def is_reading(self) -> bool:
        """False before the start, after the stop, and should the reader have died of a defect."""
        return self._task is not None and not self._task.done()

    @property
    def unread(self) -> str | None:
        """The partitions that can't be read, as text; None when all is well."""
        if not self._consumer.sick:
            return None
        return "; ".join(
            f"{at.topic}, partition {at.partition}: {sick}" for at, sick in sorted(self._consumer.sick.items())
        )

    async def start(self, partitions: set[int]) -> None:
        """Begin at the end of every partition: what is sent after this returns can't be missed.

        Raises:
            KafkaError: The ends can't be read; call `stop`.
        """
        await self._consumer.start()
        assigned = [TopicPartition(self._topic, partition) for partition in sorted(partitions)]
        self._consumer.assign(assigned)
        ends = cast("dict[TopicPartition, int]", await self._consumer.end_offsets(assigned))
        for partition, end in ends.items():
            self._consumer.seek(partition, end)
        self._task = asyncio.create_task(self._read(), name="org-events outcomes")
        self._task.add_done_callback(self._died)

    async def stop(self) -> None:
        """Stop reading; callers still waiting get an error. May be called again."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        self._expected.fail_all("the client was stopped")
        await self._consumer.stop()

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
            # Available records are returned without a pause: let other tasks run.
            await asyncio.sleep(0)

    def _dispatch(self, record: "ConsumerRecord[Any, Any]") -> None:
        for name, content in record.headers:
            if name == _COMMAND_ID_HEADER:
                self._expected.settle(content, cast("bytes", record.value))
                return

    async def _take_new_partitions(self) -> None:
        """When the topic has grown, read the new partitions too, from their beginning: results may be there already."""
        known = self._consumer.assignment()
        present = self._consumer.partitions_for_topic(self._topic) or set()
        if len(present) <= len(known):
            return
        positions = {partition: await self._consumer.position(partition) for partition in known}
        assigned = [TopicPartition(self._topic, partition) for partition in sorted(present)]
        self._consumer.assign(assigned)
        for partition in assigned:
            self._consumer.seek(partition, positions.get(partition, 0))

    def _died(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            _log.error("the reader of outcomes ended", exc_info=error)
            self._expected.fail_all(f"the reader of outcomes ended: {error!r}")
