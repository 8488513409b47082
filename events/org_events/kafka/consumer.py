"""A consumer that loses nothing when a partition can't be read, and continues with all others (guarantee 7).

aiokafka drains partition after partition in one poll and moves each one's position at once. Where a later one then
raises (a codec nobody knows, one flipped bit), what was drained is thrown away behind the positions, and the next
commit passes it: records are lost silently (seen: 1,203 of 1,963). Here no poll raises for what a partition holds.
What precedes the bad batch is handed out, the position stays before it, and the partition is *sick*: left alone, tried
again every few seconds, because a disk is repaired or a codec installed, and reported: in the log, and in `sick` for
whoever shows it.

More of the kind, fixed with it:

- a poll that raises or is cancelled counted as one that never ended, and `max.poll.interval` was not enforced any more;
- an error in the task that fetches ended it, and nothing came in forever, silently;
- a record larger than a fetch was stepped over;
- fetches that a broker refuses, and a topic that was deleted, were asked for again without a pause;
- one partition whose offset a broker refuses to tell kept all others from beginning, and nobody asked who leads it now;
- a consumer that was reassigned and then stopped could wait for its own end forever; one that was stopped while Kafka
  was away raised `CancelledError`, which ends whoever awaits it;
- a partition with a large backlog was drained before the next one had its turn.

There is no public way: positions move inside of the fetcher. So this stands on its inner parts, and nothing else of
ours does; the tests of this module tell when they change (aiokafka 0.14). It is per consumer: other consumers of the
process are as they were. Declined: to remember the positions before each poll and to seek back, because a rebalance may
come between, and the same poll would fail again.
"""

# The client comes without types.
# pyright: reportPrivateUsage=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Collection, Generator, Mapping
from functools import partial
from types import FunctionType, MethodType
from typing import Any, Final, cast

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.client import ConnectionGroup
from aiokafka.consumer import fetcher as aiokafka_fetcher
from aiokafka.consumer.fetcher import Fetcher, FetchResult
from aiokafka.consumer.subscription_state import SubscriptionState
from aiokafka.errors import (
    KafkaError,
    NoError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
    for_code,
)
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.protocol.offset import OffsetRequest

from org_events.kafka.batches import POLL_BYTES_MAX, Batches, Budget, WholeBatches
from org_events.kafka.brokers import make_enduring
from org_events.kafka.sick import OnSick, Sick, SickPartitions

_log = logging.getLogger(__name__)

METADATA_RETRY_S: Final = 1.0
"""Between two questions who leads the partitions that nobody leads."""
_END_AGAIN_S: Final = 0.1
"""Between two requests to the task that fetches to end; one that has heard ends at once."""
OPEN_BYTES_MAX: Final = 64 * 1024 * 1024
"""Unpacked batches that are read step by step, in all partitions; what exceeds it waits for its turn."""


def is_asked_to_end() -> bool:
    """Whether somebody cancelled the current task; the client lets cancellations of its own tasks out as well."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


class SteadyConsumer(AIOKafkaConsumer):
    """`AIOKafkaConsumer`, whose polls never fail for what a partition holds; it outlives its brokers' addresses, too.

    Args:
        topics: As for `AIOKafkaConsumer`.
        on_sick: Notified of each change of `sick`.
        on_offset_lost: Called where a partition has no record at its offset, or no offset, and `auto_offset_reset` is
            "none": whoever knows where to continue seeks. Called again while nobody does; after 5 s it is sick.
        whole_batches: Hand out batches instead of records: each is the value of one record at its last offset.
        offsets_apart: Ask for offsets on a connection of its own. On the one of the fetches a broker answers only once
            it has answered the fetch under way. Not for members of a group, whose heartbeats have that connection.
        options: As for `AIOKafkaConsumer`.
    """

    def __init__(
        self,
        *topics: str,
        on_sick: OnSick | None = None,
        on_offset_lost: Callable[[], None] | None = None,
        whole_batches: bool = False,
        offsets_apart: bool = False,
        **options: Any,
    ) -> None:
        self._batches = WholeBatches if whole_batches else Batches
        self._sick_partitions = SickPartitions(on_sick)
        self._on_offset_lost = on_offset_lost
        self._offsets_group = ConnectionGroup.COORDINATION if offsets_apart else ConnectionGroup.DEFAULT
        self._steady_fetcher: Any = None
        super().__init__(*topics, **options)
        self._subscription.__class__ = _Subscription
        make_enduring(self)

    @property
    def sick(self) -> Mapping[TopicPartition, Sick]:
        """The partitions that can't be read now."""
        return self._sick_partitions.sick

    def seek_afresh(self, at: TopicPartition, offset: int) -> None:
        """As `seek`; a partition that was sick where it stood is tried at once, and not sick before it is again."""
        self._sick_partitions.forget(at)
        self.seek(at, offset)

    async def stop(self) -> None:
        """As `AIOKafkaConsumer.stop`; where it is cancelled, or fails, no connection stays open either."""
        await asyncio.sleep(0)  # a task of the client's that has not begun yet would let its cancellation out
        try:
            await super().stop()
        except asyncio.CancelledError:
            if is_asked_to_end():
                raise
        finally:
            self._sick_partitions.drop_unassigned(())
            await self._client.close()

    @property
    def _fetcher(self) -> Any:
        return self._steady_fetcher

    @_fetcher.setter
    def _fetcher(self, made: Any) -> None:
        """Take over the fetcher as soon as it is made, before it has fetched anything."""
        self._steady_fetcher = made
        if made is not None:
            made.__class__ = _Fetcher
            made.take_over(self)


class _Fetched(FetchResult):
    """What was fetched of a partition; never raises for what it holds."""

    def __init__(self, fetcher: "_Fetcher", at: TopicPartition, **options: Any) -> None:
        super().__init__(at, **options)
        self._fetcher = fetcher
        self._batches: Batches = options["partition_records"]._records

    @property
    def open_bytes(self) -> int:
        """What the batch that is being read was unpacked to."""
        return self._batches.open_bytes

    def getall(self, max_records: int | None = None) -> list[Any]:
        """Hand out the next records, those before a batch that can't be read included."""
        at, source, fetcher = self._topic_partition, self._partition_records, self._fetcher
        if not self.check_assignment(at) or source is None or not fetcher.may_open(self):
            return []
        records: list[Any] = []
        failure: Exception | None = None
        rest, spent = None, fetcher.budget.spent
        try:
            for record in source:
                records.append(record)
                if max_records is not None and len(records) >= max_records:
                    rest = source
                    break
        except Exception as error:  # noqa: BLE001 - decoders raise whatever they like; the partition waits, and it is said
            failure = error
        if not records:  # what was unpacked is gone again
            fetcher.budget.spent = spent
        self._update_position()
        self._partition_records = rest
        if failure is not None:
            fetcher.sick_partitions.note_unreadable(at, source.next_fetch_offset, failure)
        elif at in fetcher.sick_partitions.cases:
            fetcher.sick_partitions.note_read(at)
        if rest is not None:
            fetcher.move_to_end(at)
        return records

    def getone(self) -> Any:
        """Hand out the next record, None where there is none."""
        return next(iter(self.getall(1)), None)


class _Fetcher(Fetcher):
    """aiokafka's fetcher, with readers and results of ours; what it does it does by itself."""

    def take_over(self, consumer: SteadyConsumer) -> None:
        """Take over a fetcher that was made and has not run yet."""
        self.sick_partitions = consumer._sick_partitions
        self._on_offset_lost = consumer._on_offset_lost
        self.budget = Budget()
        self._asked_who_leads = 0.0
        self._client = _ConsumerClient(self._client, self.sick_partitions, consumer._offsets_group)
        self._fetch = _rebind(
            self,
            "_proc_fetch_request",
            MemoryRecords=partial(consumer._batches, self.budget),
            FetchResult=partial(_Fetched, self),
        )
        self._take_many = _rebind(self, "fetched_records", FetchResult=_Fetched)
        self._take_one = _rebind(self, "next_record", FetchResult=_Fetched)

    async def fetched_records(self, *args: Any, **options: Any) -> Any:
        """Hand out what was fetched."""
        self.budget.spent = 0
        return await self._take_many(*args, **options)

    async def next_record(self, partitions: Any) -> Any:
        """Hand out one record."""
        self.budget.spent = 0
        return await self._take_one(partitions)

    async def close(self) -> None:
        """As aiokafka's, which waits for ever where its task takes the end for that of a fetch.

        It ends the fetches of a former assignment, and suppresses what it hears meanwhile. And where a fetch that
        failed waits to be tried again, it lets the cancellation out, as if whoever stops the consumer were to end.
        """
        while not self._fetch_task.done():
            self._fetch_task.cancel()
            await asyncio.wait((self._fetch_task,), timeout=_END_AGAIN_S)
        pending = list(self._pending_tasks)
        for each in pending:
            each.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
        self._pending_tasks.clear()
        await super().close()

    def may_open(self, result: _Fetched) -> bool:
        """Whether a partition may continue: those that are being read come first where much is unpacked.

        In one poll no other begins either once so much was unpacked that what was handed out fills the memory.
        """
        if result.open_bytes:
            return True
        if self.budget.spent > POLL_BYTES_MAX:
            return False
        others = (each.open_bytes for each in self._records.values() if isinstance(each, _Fetched))
        return sum(others) <= OPEN_BYTES_MAX

    def move_to_end(self, at: TopicPartition) -> None:
        """The others have their turn first, at the next poll."""
        self._records.move_to_end(at)

    async def _proc_fetch_request(self, assignment: Any, node_id: int, request: Any) -> bool:
        asked = {TopicPartition(topic, at[0]): at[1] for topic, partitions in request.topics for at in partitions}
        return await self._survive_errors(self._fetch(assignment, node_id, request), asked)

    async def _update_fetch_positions(self, assignment: Any, node_id: int, tps: Any) -> bool:
        return await self._survive_errors(
            super()._update_fetch_positions(assignment, node_id, tps), dict.fromkeys(tps, -1)
        )

    async def _survive_errors(self, step: Any, asked: Mapping[TopicPartition, int]) -> bool:
        """Go on after an error that isn't foreseen: aiokafka would end the task that fetches, and say nothing.

        What fails for long makes its partitions sick, as where a broker refuses them.
        """
        try:
            return await step
        except Exception as error:  # noqa: BLE001 - said and tried again; nothing is skipped
            _log.exception("a fetch failed and is retried")
            for at, offset in asked.items():
                self.sick_partitions.note_refused(at, offset, error)
            await asyncio.sleep(self._retry_backoff)
            return False

    def _set_error(self, tp: TopicPartition, error: Exception) -> None:
        """aiokafka would raise it in the next poll, whatever partition that is for."""
        state = self._subscriptions.subscription.assignment.state_value(tp)
        offset = state.position if state.has_valid_position else -1
        if self._on_offset_lost is None or not isinstance(error, OffsetOutOfRangeError | NoOffsetForPartitionError):
            self.sick_partitions.note_unreadable(tp, offset, error)
            return
        self.sick_partitions.note_refused(tp, offset, error)
        self._on_offset_lost()

    def _get_actions_per_node(self, assignment: Any) -> Any:
        sick_partitions = self.sick_partitions
        if not sick_partitions.cases:
            return self._with_patience(assignment, super()._get_actions_per_node(assignment))
        sick_partitions.drop_unassigned(assignment.tps)
        rested = _Rested(assignment, sick_partitions.list_paused())
        return self._with_patience(assignment, super()._get_actions_per_node(rested))

    def _with_patience(self, assignment: Any, actions: Any) -> Any:
        """Where nobody leads a partition, ask for leaders now and then; aiokafka asks again at each answer."""
        fetches, resets, timeout, unled, resumed = actions
        if unled:
            for at in assignment.tps:
                if self._client.cluster.leader_for_partition(at) in (None, -1):
                    state = assignment.state_value(at)
                    self.sick_partitions.note_refused(
                        at,
                        state.position if state.has_valid_position else -1,
                        UnknownTopicOrPartitionError("no leader"),
                    )
            now = time.monotonic()
            unled = now - self._asked_who_leads >= METADATA_RETRY_S
            if unled:
                self._asked_who_leads = now
        return fetches, resets, timeout, unled, resumed


class _Rested:
    """An assignment without the partitions that are not to be asked for now."""

    def __init__(self, assignment: Any, resting: Collection[TopicPartition]) -> None:
        self.tps = [at for at in assignment.tps if at not in resting]
        self.state_value = assignment.state_value


class _ConsumerClient:
    """The fetcher's client; sees what brokers answer to its fetches, and when asked where partitions begin or end."""

    def __init__(self, client: Any, sick_partitions: SickPartitions, offsets_group: ConnectionGroup) -> None:
        self._client = client
        self._sick_partitions = sick_partitions
        self._offsets_group = offsets_group

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    async def send(self, node_id: int, request: Any) -> Any:
        """Send a request."""
        group = ConnectionGroup.DEFAULT if isinstance(request, FetchRequest) else self._offsets_group
        response = await self._client.send(node_id, request, group=group)
        if isinstance(request, FetchRequest):
            self._look_at(request, response)
        elif isinstance(request, OffsetRequest):
            self._look_at_offsets(response)
        return response

    def _look_at_offsets(self, response: Any) -> None:
        """Let those rest that a broker refuses: aiokafka would ask again for all, and set none of them."""
        for topic, partitions in response.topics:
            for number, code, *_ in partitions:
                if (error := for_code(code)) is not NoError:
                    self._note_refused(TopicPartition(topic, number), -1, error())

    def _look_at(self, request: Any, response: Any) -> None:
        cases = self._sick_partitions.cases
        for topic, partitions in response.topics:
            for number, code, *_ in partitions:
                error = for_code(code)
                if error is NoError:
                    if not cases:
                        continue
                    at = TopicPartition(topic, number)
                    case = cases.get(at)
                    # A bad batch that is gone by now was stepped over by a reset; nothing need come behind it.
                    if case and (not case.unread or case.sick.offset != _find_asked_offset(request, topic, number)):
                        self._sick_partitions.note_read(at)
                elif error not in (OffsetOutOfRangeError, TopicAuthorizationFailedError):  # the fetcher's own
                    self._note_refused(
                        TopicPartition(topic, number), _find_asked_offset(request, topic, number), error()
                    )

    def _note_refused(self, at: TopicPartition, offset: int, error: KafkaError) -> None:
        self._sick_partitions.note_refused(at, offset, error)
        if error.invalid_metadata:
            self._client.force_metadata_update()


def _find_asked_offset(request: Any, topic: str, number: int) -> int:
    return next(
        offset
        for name, partitions in request.topics
        for partition, offset, _ in partitions
        if (name, partition) == (topic, number)
    )


class _Subscription(SubscriptionState):
    @contextlib.contextmanager
    def fetch_context(self) -> Generator[None]:
        """Count the polls under way; also one that raises or is cancelled comes to its end."""
        self._fetch_count += 1
        try:
            yield
        finally:
            self._fetch_count -= 1
            if self._fetch_count == 0:
                self._last_fetch_ended = time.monotonic()


def _rebind(fetcher: Fetcher, name: str, **ours: Any) -> Any:
    """A method of aiokafka's fetcher in which some names of its module stand for things of ours."""
    method = cast("FunctionType", getattr(Fetcher, name))
    namespace = {**vars(aiokafka_fetcher), **ours}
    bound = FunctionType(method.__code__, namespace, name, method.__defaults__, method.__closure__)
    return MethodType(bound, fetcher)
