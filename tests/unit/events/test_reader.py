"""The reader of outcomes, with a stand-in for its consumer: brokers that are well do not do what it does."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast
from uuid import UUID

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaTimeoutError, TopicAuthorizationFailedError

from org_events import partition_for
from org_events.kafka.consumer import SteadyConsumer
from org_events.kafka.sick import Sick
from org_events.publishing import NotConnected, reader
from org_events.publishing.outcomes import Expected
from org_events.publishing.reader import OutcomeReader

KEYS = {partition_for(key, 3): (key,) for key in (str(UUID(int=each)).encode() for each in range(50))}


class Consumer:
    """Of three partitions, of which some tell no end."""

    def __init__(self) -> None:
        self.silent: set[int] = set()
        self.denied = False
        self.sick: dict[TopicPartition, Sick] = {}
        self.asked: list[list[int]] = []
        self.told = asyncio.Event()
        self._assigned: list[TopicPartition] = []

    async def end_offsets(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        self.asked.append([at.partition for at in partitions])
        if self.denied:
            raise TopicAuthorizationFailedError
        while any(at.partition in self.silent for at in partitions):
            await self.told.wait()
            self.told.clear()
            raise KafkaTimeoutError
        return dict.fromkeys(partitions, 7)

    def assign(self, partitions: list[TopicPartition]) -> None:
        self._assigned = partitions

    def assignment(self) -> list[TopicPartition]:
        return self._assigned

    def partitions_for_topic(self, _: str) -> set[int]:
        return {0, 1, 2}

    async def getmany(self, **_: object) -> dict[Any, Any]:
        await asyncio.Event().wait()
        raise AssertionError

    async def start(self) -> None: ...
    async def stop(self) -> None: ...
    def seek(self, *_: object) -> None: ...
    def seek_afresh(self, *_: object) -> None: ...
    def resume(self, *_: object) -> None: ...
    def pause(self, *_: object) -> None: ...


class Reading:
    """A reader, and who wants what."""

    def __init__(self) -> None:
        self.consumer = Consumer()
        self.expected = Expected()
        self.reader = OutcomeReader("results", cast("SteadyConsumer", self.consumer), self.expected)

    def want(self, partition: int) -> asyncio.Task[None]:
        self.expected.interest.hold(partition, KEYS[partition])
        return asyncio.create_task(self.reader.watch(partition))


@pytest.fixture
async def reading() -> AsyncIterator[Reading]:
    reading = Reading()
    await reading.reader.start({0, 1, 2})
    reading.consumer.asked.clear()
    yield reading
    await reading.reader.stop()


async def test_a_partition_whose_end_cannot_be_had_keeps_no_other_from_being_read(reading: Reading) -> None:
    reading.consumer.silent = {1}
    late = reading.want(1)
    await asyncio.sleep(0)
    await asyncio.wait_for(reading.want(2), 5)
    assert (reading.reader.awake, late.done()) == ({2}, False)
    reading.consumer.silent.clear()
    reading.consumer.told.set()
    await asyncio.wait_for(late, 5)
    assert reading.reader.awake == {1, 2}


async def test_one_question_serves_all_who_want_a_partition(reading: Reading) -> None:
    await asyncio.gather(*(reading.want(0) for _ in range(10)))
    await reading.want(0)
    assert reading.consumer.asked == [[0]]
    assert reading.reader.reads(KEYS[0])
    assert not reading.reader.reads(KEYS[1])


async def test_an_end_that_nobody_tells_is_said_for_as_long_as_somebody_wants_it(
    reading: Reading, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading.consumer.silent = {1}
    late = reading.want(1)
    await asyncio.sleep(0)
    assert reading.reader.unread == {}
    monkeypatch.setattr(reader, "UNKNOWN_S", 0.0)
    assert reading.reader.unread == {1: "no broker has told its end for 0 s"}
    late.cancel()  # its time is up, and another waits
    other = reading.want(1)
    reading.consumer.told.set()
    await asyncio.sleep(0.01)
    assert list(reading.reader.unread) == [1]
    reading.expected.interest.release(1)
    reading.consumer.told.set()
    with pytest.raises(KafkaTimeoutError):
        await asyncio.wait_for(other, 5)
    assert reading.reader.unread == {}


async def test_only_a_partition_that_is_read_is_said_to_be_sick(reading: Reading) -> None:
    reading.consumer.sick = {TopicPartition("results", each): Sick(5, "CorruptRecord", 0.0) for each in (0, 1)}
    await reading.want(1)
    assert reading.reader.unread == {1: "unreadable from offset 5: CorruptRecord"}


async def test_who_may_not_ask_for_the_end_hears_it_at_once(reading: Reading) -> None:
    reading.consumer.denied = True
    with pytest.raises(TopicAuthorizationFailedError):
        await asyncio.wait_for(reading.want(0), 5)
    reading.consumer.denied = False
    await asyncio.wait_for(reading.want(0), 5)


async def test_who_waits_for_an_end_hears_that_the_client_was_stopped(reading: Reading) -> None:
    reading.consumer.silent = {0}
    late = reading.want(0)
    await asyncio.sleep(0)
    await reading.reader.stop()
    with pytest.raises(NotConnected, match="nothing was sent"):
        await late
