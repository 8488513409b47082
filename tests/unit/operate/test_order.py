"""Records of several partitions come in the order of the journal, whatever was released late or came again."""

import random
from datetime import UTC, datetime
from uuid import UUID

import pytest

from org_service.domain.fates import Fate
from org_service.domain.outcomes import NewOutcome
from org_service.operate.rehearsing.order import LOOK_AHEAD, Item, Order
from org_service.store.recorded import Recorded
from tests.support.records import FakeRecord

NOW = datetime(2026, 11, 1, tzinfo=UTC)


def row(position: int, partition: int, offset: int) -> Recorded:
    command_id = UUID(int=position)
    return Recorded(
        position,
        NewOutcome(
            command_id, None, None, "org.update", None, "rejected", 404, None, b"", partition, offset, None, None, None,
            None, None, NOW, None,
        ),
    )  # fmt: skip


def own(position: int, partition: int, offset: int) -> Item:
    recorded = row(position, partition, offset)
    return Item(FakeRecord(None, None, (), partition, offset), None, Fate("decided", recorded.row), own=recorded)


def again(first: int, partition: int, offset: int) -> Item:
    return Item(FakeRecord(None, None, (), partition, offset), None, Fate("duplicate"), first=row(first, 0, 0))


def parked(partition: int, offset: int) -> Item:
    return Item(FakeRecord(None, None, (), partition, offset), None, Fate("parked"))


def positions(items: list[Item]) -> list[int]:
    return [item.own.position for item in items if item.own is not None]


def merged(partitions: dict[int, list[Item]], step: int = 7) -> list[Item]:
    unfinished = set(partitions)
    order, taken = Order(unfinished), list[Item]()
    waiting = {partition: list(items) for partition, items in partitions.items()}
    while unfinished or not order.is_empty:
        found = order.take(5)
        taken += found
        if found or not unfinished:
            continue
        for partition in sorted(unfinished):
            order.add(partition, waiting[partition][:step])
            del waiting[partition][:step]
            if not waiting[partition]:
                unfinished.discard(partition)
    return taken


@pytest.mark.parametrize("seed", range(5))
def test_partitions_are_interleaved_as_they_were_decided(seed: int) -> None:
    dice = random.Random(seed)
    partitions: dict[int, list[Item]] = {0: [], 1: [], 2: []}
    for position in range(1, 2_000):
        partition = dice.choices([0, 1, 2], [dice.random(), 1, 2])[0]
        partitions[partition].append(own(position, partition, len(partitions[partition])))
    assert positions(merged(partitions)) == list(range(1, 2_000))


def test_what_was_released_late_comes_late_and_holds_up_nothing() -> None:
    late = own(500, 0, 1)
    rest = [own(position, 0, position) for position in range(2, 300)]
    others = [own(position, 1, position) for position in range(301, 600) if position != 500]
    found = merged({0: [own(1, 0, 0), late, *rest], 1: others})
    assert positions(found) == [1, *range(2, 300), *range(301, 600)]


def test_what_was_released_late_is_found_in_a_later_step_too() -> None:
    items = [own(position, 0, position) for position in range(1, 6)] + [own(900, 0, 6), own(901, 0, 7)]
    items += [own(position, 0, position + 2) for position in range(6, 6 + 2 * LOOK_AHEAD)]
    found = merged({0: items}, step=1)
    assert positions(found) == [*range(1, 6 + 2 * LOOK_AHEAD), 900, 901]


def test_a_command_that_comes_again_never_comes_before_the_first_one() -> None:
    found = merged({0: [again(5, 0, 0), own(3, 0, 1)], 1: [own(1, 1, 0), own(5, 1, 1), own(7, 1, 2)]})
    assert [(item.record.partition, item.record.offset) for item in found] == [(1, 0), (0, 1), (1, 1), (0, 0), (1, 2)]


def test_a_parked_record_comes_behind_the_one_before_it() -> None:
    found = merged({0: [own(2, 0, 0), parked(0, 1), own(9, 0, 2)], 1: [own(1, 1, 0), own(3, 1, 1)]})
    assert [(item.record.partition, item.record.offset) for item in found] == [(1, 0), (0, 0), (0, 1), (1, 1), (0, 2)]


def test_enough_of_a_partition_is_said_to_be_enough() -> None:
    order = Order({0, 1})
    assert order.full == set()
    order.add(0, [own(position, 0, position) for position in range(1, 13_000)])
    assert order.full == {0}
