"""Where Kafka's default partitioner puts a key, written down from its Java source, byte by byte.

Source: `org.apache.kafka.common.utils.Utils.murmur2` and `BuiltInPartitioner.partitionForKey`.
"""

from functools import lru_cache

SEED = 0x9747B28C
MULTIPLIER = 0x5BD1E995
ROTATION = 24
KEYS_REMEMBERED = 100_000


def _low_32(number: int) -> int:
    return number & 0xFFFFFFFF


def _murmur2(data: bytes) -> int:
    length = len(data)
    digest = _low_32(SEED ^ length)
    for start in range(0, length - length % 4, 4):
        word = data[start] | data[start + 1] << 8 | data[start + 2] << 16 | data[start + 3] << 24
        word = _low_32(word * MULTIPLIER)
        word ^= word >> ROTATION
        digest = _low_32(digest * MULTIPLIER) ^ _low_32(word * MULTIPLIER)
    tail = data[length - length % 4 :]
    for place in reversed(range(len(tail))):
        digest ^= tail[place] << 8 * place
    if tail:
        digest = _low_32(digest * MULTIPLIER)
    digest ^= digest >> 13
    digest = _low_32(digest * MULTIPLIER)
    return digest ^ digest >> 15


@lru_cache(maxsize=KEYS_REMEMBERED)
def partition_of(key: bytes, partitions: int) -> int:
    """The partition of a key among so many."""
    return (_murmur2(key) & 0x7FFFFFFF) % partitions
