"""The batches in hand: what becomes of them when the worker ends, and when one does not come to its end."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, cast

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaConnectionError

from org_service.apply.authenticator import Wait
from org_service.domain.requests import Record
from org_service.settings import KafkaSettings, Settings
from org_service.telemetry.metrics import CONSUMER_RESTARTS
from org_service.wire.position import Partitioning
from org_service.worker import subscriber as subscriber_module
from org_service.worker.commands import CommandSubscriber
from org_service.worker.subscriber import Subscriber
from tests.support.records import FakeRecord

SETTINGS = Settings(drain_timeout_s=2.2)
PAUSE_S = 0.1


class Stuck:
    """Batches that don't end, and an outage or none."""

    def __init__(self, outage: str | None = None) -> None:
        self.outage = outage
        self.started: list[Any] = []
        self.cancelled: list[Any] = []
        self.tasks: list[asyncio.Task[Any] | None] = []

    async def apply(self, records: Sequence[Record]) -> Sequence[Record]:
        self.started.append(records)
        self.tasks.append(asyncio.current_task())
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.append(records)
            raise
        return records


class Through:
    """Batches that are applied at once."""

    outage = None

    async def apply(self, records: Sequence[Record]) -> Sequence[Record]:
        return records


class Polled:
    """What polling needs of a consumer."""

    def __init__(self, *answers: Any) -> None:
        self._answers = iter(answers)

    async def getmany(self) -> Any:
        answer = next(self._answers)
        if isinstance(answer, BaseException):
            raise answer
        return answer


class Consumer:
    """What acknowledging needs of a consumer: partitions of one topic, and what Kafka answers to a commit."""

    def __init__(self, assigned: Sequence[int], answer: BaseException | asyncio.Event | None = None) -> None:
        self._assigned = {TopicPartition("orgs.commands", partition) for partition in assigned}
        self._answer = answer
        self.commits: list[dict[int, int]] = []

    def assignment(self) -> set[TopicPartition]:
        return self._assigned

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        self.commits.append({place.partition: offset for place, offset in offsets.items()})
        if isinstance(self._answer, BaseException):
            raise self._answer
        if self._answer is not None:
            await self._answer.wait()


class Group:
    """A group without a broker: what it calls, the test calls."""

    assigned = 1

    def __init__(self, consumer: Any, handle: Callable[[Any], Awaitable[None]]) -> None:
        self.consumer = consumer
        self.handle = handle

    async def stop(self) -> None:
        pass


def grouped(consumer: Any, made: list[Group]) -> Any:
    """Makes such a group, for a subscriber, and hands it to the test."""

    def make(*_: Any, handle: Callable[[Any], Awaitable[None]], **__: Any) -> Group:
        made.append(Group(consumer, handle))
        return made[-1]

    return make


async def acknowledge(consumer: Consumer, batch: Any) -> None:
    """Handle a batch to its end."""
    made: list[Group] = []
    settings = Settings(kafka=KafkaSettings(request_timeout_ms=1_000))
    subscriber = Subscriber(settings, Through(), make_group=grouped(consumer, made))
    await made[0].handle(batch)
    await subscriber.stop()
    assert not subscriber.failed.done()


def records(*places: tuple[int, int]) -> Any:
    return tuple(FakeRecord(b"k", b"v", [], partition, offset) for partition, offset in places)


async def in_flight(applier: Stuck, *batches: str) -> tuple[Subscriber, list[asyncio.Task[Any]]]:
    """A subscriber with batches that don't end, and the handling of each."""
    made: list[Group] = []
    subscriber = Subscriber(SETTINGS, applier, make_group=grouped(None, made))
    handling = [asyncio.ensure_future(made[0].handle(batch)) for batch in batches]
    while len(applier.started) < len(batches):
        await asyncio.sleep(0)
    return subscriber, handling


@pytest.mark.parametrize(("outage", "longest_s"), [("away", 0.15), (None, 2.0)])
async def test_batches_that_do_not_end_in_a_drain_are_all_cancelled(outage: str | None, longest_s: float) -> None:
    applier = Stuck(outage)
    subscriber, handling = await in_flight(applier, "one", "two")
    began = asyncio.get_running_loop().time()
    await subscriber.stop()
    await asyncio.wait(handling)
    assert asyncio.get_running_loop().time() - began < longest_s
    assert sorted(applier.cancelled) == sorted(applier.started) == ["one", "two"]
    assert not subscriber.failed.done()


async def test_a_third_batch_is_not_fetched_before_the_first_is_done() -> None:
    """FastStream polls again when a batch is handled, and everything it polled would be held in memory."""
    applier = Stuck("away")
    subscriber, (first, second) = await in_flight(applier, "one", "two")
    await first
    for _ in range(10):
        await asyncio.sleep(0)
    assert not second.done()
    await subscriber.stop()
    await second


async def test_a_batch_cancelled_from_elsewhere_ends_the_worker() -> None:
    applier = Stuck()
    subscriber, (handling,) = await in_flight(applier, "one")
    for task in applier.tasks:
        assert task is not None
        task.cancel()
    with pytest.raises(RuntimeError, match="cancelled"):
        await subscriber.failed
    await handling
    await subscriber.stop()


async def test_a_batch_is_acknowledged_by_its_own_records_and_only_on_assigned_partitions() -> None:
    """A commit that names one partition of somebody else's is refused for all, and everything would come again."""
    consumer = Consumer(assigned=[0, 2, 3])
    await acknowledge(consumer, records((0, 5), (1, 7), (0, 6), (2, 9)))
    assert consumer.commits == [{0: 7, 2: 10}]


async def test_nothing_is_acknowledged_if_all_partitions_moved() -> None:
    consumer = Consumer(assigned=[3])
    await acknowledge(consumer, records((0, 5), (1, 7)))
    assert consumer.commits == []


@pytest.mark.parametrize(
    "answer", [CommitFailedError(), IllegalStateError(), KafkaConnectionError(), TimeoutError(), asyncio.Event()]
)
async def test_an_acknowledgement_that_fails_or_hangs_ends_nothing(answer: BaseException | asyncio.Event) -> None:
    """The batch is committed in Postgres and known when it comes again; aiokafka would wait for ever."""
    consumer = Consumer([0], answer)
    async with asyncio.timeout(5):
        await acknowledge(consumer, records((0, 5)))
    assert consumer.commits == [{0: 6}]


class Waits:
    """An authenticator at which partition 0 waits from offset 5 on."""

    def __init__(self) -> None:
        self.waiting = {0: Wait(5, 0, 5, 0, reads=1)}
        self.read = False

    def may_go_on(self, _: int) -> bool:
        return self.read

    def forget(self) -> None:
        self.waiting.clear()

    def go_on(self, partition: int) -> None:
        del self.waiting[partition]


class Pausing:
    """What leaving partitions alone needs of a consumer."""

    def __init__(self) -> None:
        self.done: list[tuple[str, int]] = []

    def pause(self, at: TopicPartition) -> None:
        self.done.append(("pause", at.partition))

    def seek(self, at: TopicPartition, offset: int) -> None:
        assert at == ("orgs.commands", 0)
        self.done.append(("seek", offset))

    def resume(self, at: TopicPartition) -> None:
        self.done.append(("resume", at.partition))


class OnItsWay:
    """A batch that is applied when the test says so, and of which nothing is to be acknowledged."""

    outage = None

    def __init__(self, authenticator: Waits) -> None:
        self.authenticator = authenticator
        self.through = asyncio.Event()

    async def apply(self, records: Sequence[Record]) -> Sequence[Record]:
        await self.through.wait()
        return ()


class Undisturbed:
    """A log that continues where it was read."""

    lost = False


async def test_a_waiting_partition_continues_only_when_none_of_its_records_is_in_flight() -> None:
    """One polled before the pause would be admitted ahead of those before it."""
    authenticator, consumer, made = Waits(), Pausing(), list[Group]()
    applier = OnItsWay(authenticator)
    subscriber = CommandSubscriber(
        Settings(), cast("Any", applier), continuity=cast("Any", Undisturbed()), make_group=grouped(consumer, made)
    )
    found = {TopicPartition("orgs.commands", 1): records((1, 5))}
    polled = Polled(found, {}, {})
    await made[0].handle(records((0, 5)))
    assert await subscriber.poll(polled.getmany) == found
    assert consumer.done == [("pause", 0), ("seek", 5)]
    authenticator.read = True
    await subscriber.poll(polled.getmany)
    assert len(consumer.done) == 2
    applier.through.set()
    for _ in range(10):
        await asyncio.sleep(0)
    await subscriber.poll(polled.getmany)
    assert consumer.done[2:] == [("resume", 0)]
    assert not authenticator.waiting


class Grown:
    """A log whose topic has grown, and that is found again as often as it is lost."""

    lost = True
    partitioning = Partitioning(6, 3)

    async def settle(self, _: Any) -> bool:
        self.lost = False
        return True

    def mark_lost(self) -> None:
        self.lost = True


class Defective:
    """A consumer that fails in a way nobody thinks of, whatever it is asked about other partitions."""

    def resume(self, *_: TopicPartition) -> None:
        pass

    def paused(self) -> Sequence[TopicPartition]:
        return ()


async def test_records_that_a_defect_kept_back_are_polled_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop starts again, and the consumer stands behind what it gave."""
    monkeypatch.setattr(subscriber_module, "RESTART_PAUSE_S", 0)
    applier, log, made = OnItsWay(Waits()), Grown(), list[Group]()
    subscriber = CommandSubscriber(
        Settings(), cast("Any", applier), continuity=cast("Any", log), make_group=grouped(Defective(), made)
    )
    polled = Polled({}, {TopicPartition("orgs.commands", 4): records((4, 0))})
    await subscriber.poll(polled.getmany)
    assert not log.lost
    with pytest.raises(AttributeError):
        await subscriber.poll(polled.getmany)
    assert log.lost


async def test_records_polled_in_a_drain_are_dropped() -> None:
    """It isn't acknowledged, so the next worker finds it; taken, it would have to be finished as well."""
    subscriber, found = Subscriber(SETTINGS, Through()), {TopicPartition("orgs.commands", 0): records((0, 5))}
    consumer = Polled(found, found)
    assert await subscriber.poll(consumer.getmany) == found
    await subscriber.stop()
    assert await subscriber.poll(consumer.getmany) == {}


async def test_every_poll_is_a_heartbeat_even_a_failed_one() -> None:
    subscriber, consumer = Subscriber(SETTINGS, Through()), Polled({}, KafkaConnectionError())
    before = subscriber.heartbeat.at_s
    await subscriber.poll(consumer.getmany)
    between = subscriber.heartbeat.at_s
    with pytest.raises(KafkaConnectionError):
        await subscriber.poll(consumer.getmany)
    assert before < between < subscriber.heartbeat.at_s


async def test_a_restarted_loop_is_counted_and_does_not_spin(monkeypatch: pytest.MonkeyPatch) -> None:
    """FastStream starts it at once, and logs once an hour. An outage is another matter: there FastStream waits."""
    monkeypatch.setattr(subscriber_module, "RESTART_PAUSE_S", PAUSE_S)
    subscriber, consumer = Subscriber(SETTINGS, Through()), Polled(ZeroDivisionError(), KafkaConnectionError())
    restarts, began = CONSUMER_RESTARTS._value.get(), time.monotonic()
    with pytest.raises(ZeroDivisionError):
        await subscriber.poll(consumer.getmany)
    assert time.monotonic() - began >= PAUSE_S
    with pytest.raises(KafkaConnectionError):
        await subscriber.poll(consumer.getmany)
    assert CONSUMER_RESTARTS._value.get() == restarts + 1


async def test_a_cancellation_that_nobody_asked_for_does_not_end_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """FastStream starts a loop again that failed, but not one that was cancelled: nothing would be read any more."""
    monkeypatch.setattr(subscriber_module, "RESTART_PAUSE_S", 0)
    subscriber, consumer = Subscriber(SETTINGS, Through()), Polled(asyncio.CancelledError())
    with pytest.raises(RuntimeError, match="cancelled"):
        await subscriber.poll(consumer.getmany)


async def test_a_loop_that_is_cancelled_ends() -> None:
    polling = asyncio.create_task(Subscriber(SETTINGS, Through()).poll(asyncio.Event().wait))  # type: ignore[arg-type] - what it would give doesn't matter
    await asyncio.sleep(0)
    polling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await polling
