"""When a partition is called sick: what can't be read at once, what is refused only after a while."""

from types import SimpleNamespace

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import CorruptRecordException, NotLeaderForPartitionError

from org_events.kafka import sick
from org_events.kafka.sick import Sick, SickPartitions

AT = TopicPartition("orgs.commands", 3)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    now = SimpleNamespace(s=100.0)
    monkeypatch.setattr(sick, "time", SimpleNamespace(monotonic=lambda: now.s))
    return now


def test_a_partition_that_cannot_be_read_is_sick_at_once(clock: SimpleNamespace) -> None:
    told: list[Sick | None] = []
    SickPartitions(lambda _, each: told.append(each)).note_unreadable(AT, 7, CorruptRecordException())
    assert [each.offset for each in told if each] == [7]


def test_a_partition_whose_fetches_are_refused_for_long_is_sick(clock: SimpleNamespace) -> None:
    told: list[Sick | None] = []
    sick = SickPartitions(lambda _, each: told.append(each))
    for _ in range(12):
        sick.note_refused(AT, 7, NotLeaderForPartitionError())
        clock.s += 0.45
    assert told == []
    clock.s += 0.5
    sick.note_refused(AT, 7, NotLeaderForPartitionError())
    assert [each.offset for each in told if each] == [7]
    sick.note_read(AT)
    assert told[-1] is None


def test_a_partition_with_slow_refusals_is_sick_too(clock: SimpleNamespace) -> None:
    told: list[Sick | None] = []
    sick = SickPartitions(lambda _, each: told.append(each))
    for _ in range(6):
        assert told == []
        sick.note_refused(AT, 7, NotLeaderForPartitionError())
        clock.s += 20
    assert [each.offset for each in told if each] == [7]


@pytest.mark.parametrize("before", range(1, 6))
def test_time_in_which_a_process_was_frozen_does_not_count_between_refusals(
    clock: SimpleNamespace, before: int
) -> None:
    told: list[Sick | None] = []
    sick = SickPartitions(lambda _, each: told.append(each))
    for _ in range(before):
        clock.s += 0.5
        sick.note_refused(AT, 7, NotLeaderForPartitionError())
    clock.s += 60
    for _ in range(4):
        sick.note_refused(AT, 7, NotLeaderForPartitionError())
        clock.s += 0.2
    assert told == []
    sick.note_read(AT)
    assert told == []


def test_what_was_wrong_with_a_partition_is_forgotten_where_it_is_read_from_elsewhere(clock: SimpleNamespace) -> None:
    told: list[Sick | None] = []
    sick = SickPartitions(lambda _, each: told.append(each))
    sick.note_unreadable(AT, 7, CorruptRecordException())
    assert sick.list_paused() == {AT}
    sick.forget(AT)
    assert (told[-1], sick.list_paused(), dict(sick.sick)) == (None, set(), {})
