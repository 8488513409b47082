"""Kafka's record batch, format 2, written by joining bytes.

aiokafka's builder encodes one record a call, header by header, into a buffer that grows; with a dozen headers a record
and dozens of batches growing side by side that is a third of the relay's time. Here the headers come encoded, a record
is a handful of references to bytes that exist, and these are joined now and then, while the processor's cache still
has them. The tests compare each byte with the library's builder.

Format: Kafka documentation, "Record Batch"; KIP-98. Numbers in records are zigzag varints, as in Protocol Buffers.
"""

import struct
from typing import Final

from aiokafka.record.util import calc_crc32c

BATCH_BYTES_MAX: Final = 1024 * 1024
"""A broker's `message.max.bytes` is 12 bytes above this by default. A record that is larger by itself gets a batch of
its own, and the broker judges. A command is 64 KiB at most, so no record of ours is larger than a fifth of it."""
SEGMENT_BYTES: Final = 16 * 1024
"""Joined at a time: of some 40 batches growing side by side that stays within a processor's second cache."""

_HEADER: Final = struct.Struct(">qiibIhiqqqhii")
"""Base offset, length after this field, leader epoch, magic, CRC; attributes, last offset delta, first and largest
timestamp, producer id, epoch, first sequence number, number of records."""
_LENGTH_FROM: Final = 12
_CRC_AT: Final = 17
_CRC_FROM: Final = 21
_NO_LEADER_EPOCH: Final = -1
_MAGIC: Final = 2
_TRANSACTIONAL: Final = 0x10
_NO_ATTRIBUTES: Final = b"\0"
_NULL: Final = b"\1"
"""The length of a value that isn't there: -1."""


def _varint(number: int) -> bytes:
    rest = number << 1 ^ number >> 63
    encoded = bytearray()
    while rest > 0x7F:
        encoded.append(rest & 0x7F | 0x80)
        rest >>= 7
    encoded.append(rest)
    return bytes(encoded)


_SMALL: Final = 16_384
_SMALL_VARINTS: Final = tuple(_varint(number) for number in range(_SMALL))
"""The numbers that occur: lengths, places in a batch, milliseconds between the rows of a batch."""


def varint(number: int) -> bytes:
    """A number of at most 64 bits as a zigzag varint."""
    return _SMALL_VARINTS[number] if 0 <= number < _SMALL else _varint(number)


def sized(content: bytes) -> bytes:
    """Bytes with their length before them, as keys, values and the names of headers are written."""
    return varint(len(content)) + content


def header(name: str, value: bytes) -> bytes:
    """A record's header. Several may be joined; their number comes first, as `varint`."""
    return sized(name.encode()) + sized(value)


def header_up_to_value(name: str, value_bytes: int) -> bytes:
    """A header but for its value, which must have just so many bytes."""
    return sized(name.encode()) + varint(value_bytes)


NO_HEADERS: Final = varint(0)


class Batch:
    """A batch for one partition: filled, then built once."""

    __slots__ = ("_first_ms", "_last_ms", "_loose", "_loose_bytes", "_segments", "_size", "records")

    def __init__(self) -> None:
        self.records = 0
        self._loose: list[bytes] = []
        self._loose_bytes = 0
        self._segments: list[bytes] = [b""]  # the batch's own header goes here
        self._size = _HEADER.size
        self._first_ms = self._last_ms = 0

    def append(self, timestamp_ms: int, sized_key: bytes, value: bytes | None, headers: bytes) -> int:
        """Add a record; returns its bytes, or 0 when the batch is full (an empty one takes any record).

        Args:
            timestamp_ms: Since 1970.
            sized_key: The key with its length before it.
            value: None for a tombstone.
            headers: Their number, and the headers one after the other.
        """
        number = self.records
        if number == 0:
            self._first_ms = self._last_ms = timestamp_ms
        later_ms = timestamp_ms - self._first_ms
        place = _SMALL_VARINTS[number] if number < _SMALL else _varint(number)
        later = _SMALL_VARINTS[later_ms] if 0 <= later_ms < _SMALL else _varint(later_ms)
        if value is None:
            length, value = _NULL, b""
        else:
            length = varint(len(value))
        size = 1 + len(later) + len(place) + len(sized_key) + len(length) + len(value) + len(headers)
        whole = _SMALL_VARINTS[size] if size < _SMALL else _varint(size)
        size += len(whole)
        if self._size + size > BATCH_BYTES_MAX and number:
            return 0
        self._loose += (whole, _NO_ATTRIBUTES, later, place, sized_key, length, value, headers)
        self._loose_bytes += size
        if self._loose_bytes >= SEGMENT_BYTES:
            self._segments.append(b"".join(self._loose))
            self._loose.clear()
            self._loose_bytes = 0
        self._size += size
        self.records = number + 1
        self._last_ms = max(self._last_ms, timestamp_ms)
        return size

    def build(self, producer_id: int, epoch: int, first_sequence: int) -> bytearray:
        """The bytes to send, for a transaction of this producer. The batch takes no more records."""
        self._segments[0] = _HEADER.pack(
            0,  # the broker gives the offsets
            self._size - _LENGTH_FROM,
            _NO_LEADER_EPOCH,
            _MAGIC,
            0,
            _TRANSACTIONAL,
            self.records - 1,
            self._first_ms,
            self._last_ms,
            producer_id,
            epoch,
            first_sequence,
            self.records,
        )
        built = bytearray().join(self._segments + self._loose)
        self._segments.clear()
        self._loose.clear()
        with memoryview(built) as view:
            crc = calc_crc32c(view[_CRC_FROM:])  # pyright: ignore[reportArgumentType] (takes any buffer)
        struct.pack_into(">I", built, _CRC_AT, crc)
        return built
