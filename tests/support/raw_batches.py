"""Record batches as bytes, by the letter of Kafka's protocol ("Record Batch", magic 2), and into a broker as they are.

Whatever a client library would refuse to build can be built here: any codec, any attributes, sizes that lie, batches
that unpack to a thousand times of what is sent. `set_codec` changes what a broker has stored.
"""

import asyncio
import struct
import zlib
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

import cramjam
from aiokafka.record.util import calc_crc32c

from org_local.segments import batches
from org_local.stack import Stack
from tests.support.waiting import until

NONE, GZIP, SNAPPY, LZ4, ZSTD = range(5)
CODECS: Final = {"gzip": GZIP, "snappy": SNAPPY, "lz4": LZ4, "zstd": ZSTD}
_HEADER: Final = struct.Struct(">qiibIhiqqqhii")
_CRC_AT: Final = 17
_ATTRIBUTES_AT: Final = 21
_PRODUCE: Final = 0
_PRODUCE_VERSION: Final = 7
"""The last one without tagged fields that every broker still speaks, and the first one with zstd."""
_NOT_YET: Final = (3, 5, 6)
"""Nobody leads a partition for a moment after its topic was created."""
_XERIAL: Final = b"\x82SNAPPY\x00" + struct.pack(">ii", 1, 1)
_XERIAL_BLOCK: Final = 32 * 1024


class Raw(NamedTuple):
    """One record, its header names as bytes."""

    value: bytes | None
    key: bytes | None = None
    headers: Sequence[tuple[bytes, bytes | None]] = ()
    attributes: int = 0
    offset_delta: int | None = None
    """None is its place in the batch, as it must be."""


def varint(number: int) -> bytes:
    """A signed number, zigzag encoded."""
    left = (number << 1) ^ (number >> 63)
    encoded = bytearray()
    while left > 0x7F:
        encoded.append(0x80 | left & 0x7F)
        left >>= 7
    encoded.append(left)
    return bytes(encoded)


def record(raw: Raw, place: int) -> bytes:
    """One record as it stands in a batch."""
    parts = [
        bytes((raw.attributes,)),
        varint(0),
        varint(place if raw.offset_delta is None else raw.offset_delta),
        _sized(raw.key),
        _sized(raw.value),
        varint(len(raw.headers)),
        *(_sized(name) + _sized(content) for name, content in raw.headers),
    ]
    body = b"".join(parts)
    return varint(len(body)) + body


def _sized(content: bytes | None) -> bytes:
    return varint(-1) if content is None else varint(len(content)) + content


def packed(codec: int, chunks: Iterable[bytes]) -> bytes:
    """Chunks, compressed one by one: what they unpack to is never in memory as a whole."""
    if codec == NONE:
        return b"".join(chunks)
    if codec == SNAPPY:
        return _XERIAL + b"".join(
            struct.pack(">i", len(block)) + block
            for chunk in chunks
            for at in range(0, len(chunk), _XERIAL_BLOCK)
            for block in (bytes(cramjam.snappy.compress_raw(chunk[at : at + _XERIAL_BLOCK])),)
        )
    if codec == GZIP:
        gzip = zlib.compressobj(9, wbits=31)
        return b"".join([*map(gzip.compress, chunks), gzip.flush()])
    compressor = cramjam.zstd.Compressor() if codec == ZSTD else cramjam.lz4.Compressor(block_linked=False)
    for chunk in chunks:
        compressor.compress(chunk)
    return bytes(compressor.finish())


def batch(
    codec: int, records: Sequence[Raw], *, payload: bytes | None = None, count: int | None = None, timestamp: int = 0
) -> bytes:
    """A record batch.

    Args:
        codec: What its attributes say.
        records: What is in it.
        payload: Stands where the compressed records would.
        count: Of its records, as it claims.
        timestamp: Of all of them, in milliseconds.
    """
    if payload is None:
        payload = packed(codec, [b"".join(record(each, place) for place, each in enumerate(records))])
    return framed(codec, payload, len(records) if count is None else count, timestamp)


def framed(
    attributes: int, payload: bytes, count: int, timestamp: int = 0, *, first: int = 0, producer_id: int = -1
) -> bytes:
    """A payload with the header of a batch before it, and a CRC that is right."""
    length = _HEADER.size - 12 + len(payload)
    times = timestamp, timestamp
    header = _HEADER.pack(first, length, -1, 2, 0, attributes, count - 1, *times, producer_id, -1, -1, count)
    return _with_crc(bytearray(header + payload))


def bomb(codec: int, unpacked_bytes: int, raw: Raw | None = None) -> bytes:
    """A batch of one record whose value is `raw.value` and then zeros, so many bytes in all."""
    raw = raw or Raw(None)
    value = raw.value or b""
    head = bytes((0,)) + varint(0) + varint(0) + _sized(raw.key) + varint(unpacked_bytes) + value
    tail = varint(len(raw.headers)) + b"".join(_sized(name) + _sized(content) for name, content in raw.headers)
    zeros = unpacked_bytes - len(value)
    length = varint(len(head) + zeros + len(tail))
    chunk = bytes(1024 * 1024)

    def chunks() -> Iterable[bytes]:
        yield length + head
        for at in range(0, zeros, len(chunk)):
            yield chunk[: min(len(chunk), zeros - at)]
        yield tail

    return framed(codec, packed(codec, chunks()), 1)


def unreadable(*before: Raw) -> bytes:
    """A batch that a broker accepts: good records, and one that says it has a byte more than it has."""
    records = [record(each, place) for place, each in enumerate((*before, Raw(b"secret", b"key")))]
    records[-1] = varint(len(records[-1])) + records[-1][1:]
    return framed(ZSTD, packed(ZSTD, records), len(records))


def _with_crc(content: bytearray) -> bytes:
    struct.pack_into(">I", content, _CRC_AT, calc_crc32c(bytes(content[_ATTRIBUTES_AT:])))
    return bytes(content)


async def produce(bootstrap_servers: str, topic: str, partition: int, content: bytes) -> int:
    """Send a batch to a broker that leads the partition, or is about to; returns its error code, 0 where it took it."""
    return (await append(bootstrap_servers, topic, partition, content))[0]


async def append(bootstrap_servers: str, topic: str, partition: int, content: bytes) -> tuple[int, int]:
    """As `produce`; returns the error code and the offset that the batch got."""
    answer = 0, 0

    async def is_answered() -> bool:
        nonlocal answer
        answer = await _append(bootstrap_servers, topic, partition, content)
        return answer[0] not in _NOT_YET

    await until(is_answered)
    return answer


async def _append(bootstrap_servers: str, topic: str, partition: int, content: bytes) -> tuple[int, int]:
    host, _, port = bootstrap_servers.partition(",")[0].rpartition(":")
    name = topic.encode()
    body = (
        struct.pack(">hhih4s", _PRODUCE, _PRODUCE_VERSION, 1, 4, b"test")
        + struct.pack(">hhii", -1, -1, 20_000, 1)
        + struct.pack(">h", len(name))
        + name
        + struct.pack(">iii", 1, partition, len(content))
        + content
    )
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(struct.pack(">i", len(body)) + body)
        (length,) = struct.unpack(">i", await reader.readexactly(4))
        answer = await reader.readexactly(length)
    finally:
        writer.close()
        await writer.wait_closed()
    code, offset = struct.unpack_from(">hq", answer, 4 + 4 + 2 + len(name) + 4 + 4)
    return code, offset


def stored_codecs(stack: Stack, topic: str, partitions: int) -> set[int]:
    """The codecs of all batches that a broker has of a topic."""
    return {
        each.file.read_bytes()[each.at + _ATTRIBUTES_AT + 1] & 7
        for partition in range(partitions)
        for each in batches(stack.kafka.brokers[0].logs, topic, partition)
    }


def set_codec(stack: Stack, topic: str, partition: int, offset: int, codec: int) -> int:
    """Change the codec that a stored batch names, and its CRC with it; returns the codec it named before.

    Brokers refuse a batch with a codec they don't know; one that was written by a later version they store and send.
    """
    found = next(
        each for each in batches(stack.kafka.brokers[0].logs, topic, partition) if each.first <= offset <= each.last
    )
    with found.file.open("r+b") as file:
        file.seek(found.at)
        content = bytearray(file.read(found.size))
        (attributes,) = struct.unpack_from(">h", content, _ATTRIBUTES_AT)
        struct.pack_into(">h", content, _ATTRIBUTES_AT, attributes & ~7 | codec)
        file.seek(found.at)
        file.write(_with_crc(content))
    return attributes & 7
