"""A large batch is parted into lanes that run side by side."""

from org_service.apply.lanes import split_into_lanes
from tests.support.records import FakeRecord


def records(count: int, partitions: int = 12) -> list[FakeRecord]:
    return [FakeRecord(b"k", b"v", [], partition=n % partitions) for n in range(count)]


def test_a_partition_stays_whole_and_in_order() -> None:
    batch = records(1_000)
    lanes = [lane for _, lane in split_into_lanes(batch, 3)]
    assert sorted(r.offset for lane in lanes for r in lane) == [r.offset for r in batch]
    for partition in range(12):
        holding = [lane for lane in lanes if any(r.partition == partition for r in lane)]
        assert len(holding) == 1
        offsets = [r.offset for r in holding[0] if r.partition == partition]
        assert offsets == sorted(offsets)


def test_a_small_batch_is_one_transaction() -> None:
    ((places, lane),) = split_into_lanes(records(199), 2)
    assert (list(places), len(lane)) == ([0, 1], 199)
    assert len(split_into_lanes(records(200), 2)) == 2
    assert len(split_into_lanes(records(5_000), 1)) == 1


def test_an_empty_lane_is_dropped() -> None:
    assert len(split_into_lanes(records(500, partitions=1), 4)) == 1
