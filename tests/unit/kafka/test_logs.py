"""What a log tells of a transaction that must have ended before an offset, batch by batch."""

import struct
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import OffsetOutOfRangeError
from aiokafka.protocol.fetch import FetchRequest

from org_service.kafka.logs import Bounds, Logs
from tests.support.raw_batches import Raw, framed, record

AT = TopicPartition("orgs.events", 0)
RELAY, FORMER, OTHER, NOBODY = 7, 3, 9, -1
TRANSACTIONAL, CONTROL = 0x10, 0x20

Stored = tuple[int, bytes]
"""Last offset and bytes."""


def data(first: int, count: int, producer_id: int = RELAY) -> Stored:
    """A batch, in a transaction where it has a producer."""
    payload = b"".join(record(Raw(b"value"), place) for place in range(count))
    attributes = 0 if producer_id == NOBODY else TRANSACTIONAL
    return first + count - 1, framed(attributes, payload, count, first=first, producer_id=producer_id)


def marker(first: int, producer_id: int = RELAY, *, commits: bool = True) -> Stored:
    """The end of a transaction."""
    payload = record(Raw(struct.pack(">hi", 0, 0), struct.pack(">hh", 0, commits)), 0)
    return first, framed(TRANSACTIONAL | CONTROL, payload, 1, first=first, producer_id=producer_id)


class FakeClient:
    """A broker with one log, which it gives from the batch on that holds an offset."""

    def __init__(self, log: list[Stored]) -> None:
        self._log = log
        self.cluster = SimpleNamespace(leader_for_partition=lambda _: 0)

    async def send(self, _: int, request: FetchRequest, group: Any) -> Any:
        assert group
        [(topic, [(partition, offset, _)])] = request.topics
        code = OffsetOutOfRangeError.errno if offset > self._log[-1][0] + 1 else 0
        content = b"".join(each for last, each in self._log if last >= offset)
        return SimpleNamespace(topics=[(topic, [(partition, code, 0, 0, [], content)])])


@pytest.mark.parametrize(
    ("log", "broken"),
    [
        pytest.param([data(0, 10), marker(10)], False, id="committed"),
        pytest.param([data(0, 4), data(4, 6), marker(10)], False, id="in two batches"),
        pytest.param([data(0, 10, FORMER), marker(10, FORMER)], False, id="by a former producer of the relay"),
        pytest.param([data(0, 10), data(10, 3, NOBODY), marker(13)], False, id="replies before its marker"),
        pytest.param([data(0, 10), marker(10, OTHER), marker(11)], False, id="another's marker before its own"),
        pytest.param([marker(12)], False, id="compacted away"),
        pytest.param([data(0, 10), marker(10, commits=False)], True, id="taken back"),
        pytest.param([data(0, 10), data(10, 3, NOBODY)], True, id="without a marker"),
        pytest.param([data(0, 10), marker(10, OTHER), data(11, 2, NOBODY)], True, id="with another's marker alone"),
        pytest.param([data(0, 10, NOBODY), marker(10, OTHER)], True, id="replies where it was"),
        pytest.param([data(0, 10, OTHER), marker(10, OTHER)], True, id="another's where it was"),
        pytest.param([data(0, 9), marker(9), data(10, 2), marker(12)], True, id="a marker where it was"),
        pytest.param([data(0, 12), marker(12)], True, id="a longer one where it was"),
        pytest.param([data(0, 8), marker(8), data(9, 3, NOBODY)], True, id="a shorter one before where it was"),
    ],
)
async def test_a_transaction_is_missed_where_no_committed_batch_ends(log: list[Stored], broken: bool) -> None:
    found = await Logs(FakeClient(log)).find_broken({AT: 10}, RELAY, lambda _, each: each.producer_id != OTHER)
    assert found == ({AT} if broken else set())


@pytest.mark.parametrize(
    ("log", "is_open"),
    [
        pytest.param([data(0, 5)], True, id="open"),
        pytest.param([data(0, 5), marker(5, commits=False)], False, id="ended"),
        pytest.param([data(0, 5, OTHER)], False, id="another's"),
        pytest.param([data(0, 5, OTHER), data(5, 5), marker(10)], False, id="ended behind another's"),
        pytest.param([data(0, 5, OTHER), data(5, 5), marker(10, OTHER)], True, id="open behind another's"),
    ],
)
async def test_a_transaction_is_open_until_a_marker_of_its_own_producer(log: list[Stored], is_open: bool) -> None:
    assert await Logs(FakeClient(log)).is_open(AT, Bounds(0, 0, log[-1][0] + 1), RELAY) is is_open
