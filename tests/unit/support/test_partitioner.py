"""The checker's own partitioner, against values that were not made by it."""

import pytest
from aiokafka.partitioner import murmur2

from tests.support.partitioner import _murmur2, partition_of


@pytest.mark.parametrize(
    ("key", "signed"),
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_murmur2_gives_what_kafka_gives(key: bytes, signed: int) -> None:
    """The values of Kafka's own UtilsTest.testMurmur2."""
    assert _murmur2(key) == signed % 2**32


def test_murmur2_agrees_with_a_client_for_every_length() -> None:
    for length in range(70):
        key = bytes(range(200, 200 - length, -1))
        assert _murmur2(key) == murmur2(key) % 2**32


@pytest.mark.parametrize(("key", "partitions", "partition"), [(b"abc", 12, 3), (b"21", 12, 0), (b"foobar", 12, 6)])
def test_a_key_goes_to_the_positive_part_modulo_the_partitions(key: bytes, partitions: int, partition: int) -> None:
    assert partition_of(key, partitions) == partition
