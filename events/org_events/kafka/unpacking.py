"""Compressed record batches, unpacked within a bound.

300 KB of gzip, or 30 KB of zstd, can stand for a gigabyte. aiokafka's decoders unpack whatever comes and fill the
memory of the process; these stop at a bound, before more than that is held.

They also read whatever a broker accepts, because a batch that can't be read stops its partition for everybody. A broker
looks at records only, through Java's streams, and these are more tolerant than Python's libraries: they ignore what
follows a gzip member or an LZ4 frame, and Snappy streams may follow each other (each was tried on a broker). What
can't be unpacked all the same is parked, not waited for (`batches`).
"""

import mmap
import struct
import zlib
from collections.abc import Callable, Mapping
from typing import Final, cast

import cramjam
from aiokafka.errors import CorruptRecordException, UnsupportedCodecError

UNPACKED_BYTES_MAX: Final = 32 * 1024 * 1024
"""Of one batch. A batch has 1 MiB at most as it is sent, and JSON shrinks 10 to 20 times."""

NONE, GZIP, SNAPPY, LZ4, ZSTD = range(5)
"""As the attributes of a batch name them."""

_PIECE: Final = 16 * 1024
"""Fed to gzip at a time: what is left behind a member is copied, and a batch may have thousands of empty ones."""
_GZIP_MAGIC: Final = b"\x1f\x8b"
_XERIAL_MAGIC: Final = b"\x82SNAPPY\x00"
_XERIAL_NEXT: Final = _XERIAL_MAGIC[:4]
"""Java looks at no more of the streams that follow; as a length it would be negative."""
_XERIAL_HEADER: Final = 16
_LZ4_MAGIC: Final = 0x184D2204
_LZ4_BLOCK_BYTES: Final = {4: 64 * 1024, 5: 256 * 1024, 6: 1024 * 1024, 7: 4 * 1024 * 1024}
"""By the code in the frame's descriptor."""


class TooLarge(Exception):
    """A batch unpacks to more than the bound; nothing of it is kept."""


def unpack(codec: int, data: memoryview, bytes_max: int = UNPACKED_BYTES_MAX) -> bytes:
    """What is compressed in a batch.

    Args:
        codec: 1 to 4.
        data: All that stands behind the header of the batch.
        bytes_max: What it may unpack to. Twice of it is held for a moment.

    Raises:
        TooLarge: It unpacks to more.
        UnsupportedCodecError: Nobody knows this codec.
        CorruptRecordException: It can't be unpacked.
    """
    decoder = _DECODERS.get(codec)
    if decoder is None:
        raise UnsupportedCodecError(f"codec {codec} is unknown")
    try:
        return decoder(data, bytes_max)
    except (cramjam.DecompressionError, zlib.error, struct.error, IndexError, OSError, ValueError) as error:
        raise CorruptRecordException(f"codec {codec}: {error}") from error


def _unpack_gzip(data: memoryview, bytes_max: int) -> bytes:
    parts: list[bytes] = []
    left = bytes_max
    inflater = zlib.decompressobj(wbits=31)
    ended = False
    for at in range(0, len(data), _PIECE):
        end = at + _PIECE
        piece: bytes | memoryview = data[at:end]
        while piece:
            try:
                part = inflater.decompress(piece, left + 1)
            except zlib.error:
                if ended:  # no member follows, though it looks like one
                    return b"".join(parts)
                raise
            left -= len(part)
            if left < 0:
                raise TooLarge
            parts.append(part)
            if not inflater.eof:
                break
            ended = True
            piece = inflater.unused_data
            behind = min(end, len(data)) - len(piece)
            if bytes(data[behind : behind + 2]) != _GZIP_MAGIC:
                return b"".join(parts)
            inflater = zlib.decompressobj(wbits=31)
    if not inflater.eof and not ended:
        raise CorruptRecordException("gzip: truncated")
    return b"".join(parts)


def _unpack_snappy(data: memoryview, bytes_max: int) -> bytes:
    if bytes(data[: len(_XERIAL_MAGIC)]) != _XERIAL_MAGIC:
        return _snappy_block(data, bytes_max)
    parts: list[bytes] = []
    left = bytes_max
    at = _XERIAL_HEADER
    while at + 4 <= len(data):
        if bytes(data[at : at + len(_XERIAL_NEXT)]) == _XERIAL_NEXT:  # another stream follows
            at += _XERIAL_HEADER
            continue
        (length,) = struct.unpack_from(">i", data, at)
        if not 0 <= length <= len(data) - at - 4:
            raise CorruptRecordException("snappy: a block extends beyond the batch")
        part = _snappy_block(data[at + 4 : at + 4 + length], left)
        parts.append(part)
        left -= len(part)
        at += 4 + length
    return b"".join(parts)


def _snappy_block(data: memoryview, bytes_max: int) -> bytes:
    if cramjam.snappy.decompress_raw_len(data) > bytes_max:
        raise TooLarge
    return bytes(cramjam.snappy.decompress_raw(data))


def _unpack_lz4(data: memoryview, bytes_max: int) -> bytes:
    """One frame, block by block, as Kafka's own reader does: a checksum of the content isn't checked.

    Blocks don't depend on each other: brokers refuse frames in which they do (KIP-57).
    """
    magic, flags, descriptor = struct.unpack_from("<IBB", data)
    if magic != _LZ4_MAGIC or flags >> 6 != 1 or not flags & 0x20:
        raise CorruptRecordException("lz4: not a frame of independent blocks")
    block_bytes = _LZ4_BLOCK_BYTES.get(descriptor >> 4 & 7, 0)
    at = 7 + (8 if flags & 0x08 else 0)  # the size of the content, where it is given
    checksum = 4 if flags & 0x10 else 0
    block = bytearray(block_bytes)
    parts: list[bytes] = []
    left = bytes_max
    while True:
        (length,) = struct.unpack_from("<I", data, at)
        at += 4
        stored, length = length >> 31, length & 0x7FFFFFFF
        if length == 0:
            return b"".join(parts)
        if length > len(data) - at:
            raise CorruptRecordException("lz4: a block extends beyond the batch")
        packed = data[at : at + length]
        part = bytes(packed) if stored else _lz4_block(packed, block)
        left -= len(part)
        if left < 0:
            raise TooLarge
        parts.append(part)
        at += length + checksum


def _lz4_block(packed: memoryview, block: bytearray) -> bytes:
    length = cramjam.lz4.decompress_block_into(packed, block, output_len=len(block))
    return bytes(memoryview(block)[:length])


def _unpack_zstd(data: memoryview, bytes_max: int) -> bytes:
    small = bytearray(min(bytes_max, _ZSTD_RATIO * len(data)))
    length = _zstd_into(data, small)
    if length is not None:
        return bytes(memoryview(small)[:length])
    with mmap.mmap(-1, bytes_max) as room:  # only what is written to is ever in memory
        length = _zstd_into(data, cast("bytearray", room))
        if length is None:
            raise TooLarge
        return room[:length]


def _zstd_into(data: memoryview, room: bytearray) -> int | None:
    """Unpack into a room; None where that is too small."""
    try:
        return cramjam.zstd.decompress_into(data, room)
    except cramjam.DecompressionError as error:
        if str(error) == _FULL:
            return None
        raise


_ZSTD_RATIO: Final = 16
"""Most batches unpack to no more than that many times, and small ones, which are many, shrink less."""
_FULL: Final = "failed to write whole buffer"
"""How cramjam says that the room was too small; Rust's `Write::write_all` words it."""

_DECODERS: Final[Mapping[int, Callable[[memoryview, int], bytes]]] = {
    GZIP: _unpack_gzip,
    SNAPPY: _unpack_snappy,
    LZ4: _unpack_lz4,
    ZSTD: _unpack_zstd,
}
