"""When a reader was away for too long, how much is read again in one go, and what it may confirm meanwhile."""

from typing import cast
from uuid import UUID

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from org_service.apply import reconcile
from org_service.apply.reconcile import Marks
from org_service.store.reference_progress import ReferencePartition


def test_partitions_are_reconciled_in_groups_of_a_bounded_number_of_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconcile, "KEYS_MAX", 10)
    ids = {"a": UUID(int=1), "b": UUID(int=2)}
    ends = {("a", 0): 4, ("a", 1): 6, ("a", 2): 1, ("a", 3): 50, ("b", 0): 0}
    groups = reconcile.make_groups(ids, {ReferencePartition(*at): end for at, end in ends.items()})
    assert [(group.topic, group.topic_id, group.partitions) for group in groups] == [
        ("a", UUID(int=1), [0, 1]),
        ("a", UUID(int=1), [2]),
        ("a", UUID(int=1), [3]),
        ("b", UUID(int=2), [0]),
    ]


@pytest.mark.parametrize(("age_s", "too_long"), [(None, True), (0, False), (99, False), (101, True), (-101, True)])
def test_which_absences_are_too_long(age_s: float | None, too_long: bool) -> None:
    assert reconcile.is_too_long(age_s, 100) is too_long


async def test_a_partition_is_confirmed_as_of_when_it_ended_where_the_reader_is_now(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One that is read on and on never gets to its end; and one that isn't read holds the others up for nothing."""
    ends, positions = {0: 5, 1: 7}, {0: 5, 1: 6}
    here = {number: TopicPartition("t", number) for number in ends}

    class Consumer:
        def assignment(self) -> set[TopicPartition]:
            return set(here.values())

        async def end_offsets(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
            return {each: ends[each.partition] for each in partitions}

        async def position(self, partition: TopicPartition) -> int:
            return positions[partition.partition]

    moments = iter([0, 100, 200, 300, 400, 430])
    marks, consumer = Marks(clock=lambda: next(moments)), cast("AIOKafkaConsumer", Consumer())
    assert await marks.take_passed(consumer) == {ReferencePartition("t", 0): 100}
    ends |= {0: 9, 1: 9}
    assert await marks.take_passed(consumer) == {}
    positions |= {0: 8, 1: 8}
    assert await marks.take_passed(consumer) == {ReferencePartition("t", 1): 100}
    positions[0] = 9
    assert await marks.take_passed(consumer) == {ReferencePartition("t", 0): 200}
    marks.clear()
    assert await marks.take_passed(consumer) == {}  # not yet time for new ones
