"""Kafka's record batch, format 2, written by joining bytes.

aiokafka's builder encodes one record a call, header by header, into a buffer that grows; with a dozen headers a record
and a hundred partitions' batches growing side by side that is half of the relay's time. Here the records module
hands over headers that are encoded already, a record is a handful of references to bytes that exist, and everything
is copied once, when the batch is built. The tests compare each byte with the library's builder.

Format: Kafka documentation, "Record Batch"; KIP-98. Numbers in records are zigzag varints, as in Protocol Buffers.
"""

import struct
from typing import Final

from aiokafka.record.util import calc_crc32c

BATCH_BYTES_MAX: Final = 1024 * 1024
"""A broker's `message.max.bytes` is 12 bytes above this by default. A record that is larger by itself gets a batch of
its own, and the broker judges. A command is 64 KiB at most, so no record of ours is larger than a fifth of it."""

SEGMENT_BYTES: Final = 16 * 1024
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


_SMALL: Final = tuple(_varint(number) for number in range(16_384))
"""The numbers that occur: lengths, offsets within a batch, milliseconds within a batch of rows."""


def varint(number: int) -> bytes:
    """A number of at most 64 bits as a zigzag varint."""
    return _SMALL[number] if 0 <= number < 16_384 else _varint(number)


NO_HEADERS: Final = varint(0)


def header(name: str, value: bytes) -> bytes:
    """A record's header. Several may be joined; their number comes first, as `varint`."""
    return header_name(name, len(value)) + value


def header_name(name: str, value_bytes: int) -> bytes:
    """A header up to its value, for values that all have the same length."""
    encoded = name.encode()
    return varint(len(encoded)) + encoded + varint(value_bytes)


class Batch:
    """A batch for one partition: filled, then built once."""

    __slots__ = ("_first_ms", "_last_ms", "_loose", "_parts", "_segments", "_size", "records")

    def __init__(self) -> None:
        self.records = 0
        self._parts: list[bytes] = []
        self._segments: list[bytes] = [b""]  # the batch's own header goes here
        self._loose = 0
        self._size = _HEADER.size
        self._first_ms = self._last_ms = 0

    def append(self, timestamp_ms: int, key: bytes, value: bytes | None, headers: bytes) -> int:
        """Add a record; returns its bytes, or 0 when the batch is full (an empty one takes any record).

        Args:
            timestamp_ms: Since 1970.
            key: May be empty.
            value: None for a tombstone.
            headers: Their number, and the headers one after the other.
        """
        number = self.records
        if number == 0:
            self._first_ms = self._last_ms = timestamp_ms
        offset, later, key_length = varint(number), varint(timestamp_ms - self._first_ms), varint(len(key))
        size = 1 + len(later) + len(offset) + len(key_length) + len(key) + len(headers)
        if value is None:
            value_length, value = _NULL, b""
        else:
            value_length = varint(len(value))
        size += len(value_length) + len(value)
        length = varint(size)
        size += len(length)
        if self._size + size > BATCH_BYTES_MAX and number:
            return 0
        self._parts += (length, _NO_ATTRIBUTES, later, offset, key_length, key, value_length, value, headers)
        self._size += size
        self._loose += size
        if self._loose >= SEGMENT_BYTES:
            self._segments.append(b"".join(self._parts))
            self._parts.clear()
            self._loose = 0
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
        built = bytearray().join(self._segments + self._parts)
        self._segments.clear()
        self._parts.clear()
        struct.pack_into(">I", built, _CRC_AT, calc_crc32c(memoryview(built)[_CRC_FROM:]))
        return built
