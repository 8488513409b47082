"""Compressed batches are unpacked within a bound, and as tolerantly as a broker reads them."""

import struct
import subprocess
import sys
import zlib

import cramjam
import pytest
from aiokafka.errors import CorruptRecordException, UnsupportedCodecError

from org_events.kafka.unpacking import TooLarge, unpack
from tests.support.raw_batches import CODECS, GZIP, LZ4, SNAPPY, ZSTD, packed

TEXT = b"Acme " * 40_000
"""200,000 bytes: several blocks of Snappy and of LZ4."""


@pytest.mark.parametrize("codec", CODECS.values(), ids=list(CODECS))
def test_compressed_data_are_unpacked(codec: int) -> None:
    assert unpack(codec, memoryview(packed(codec, [TEXT]))) == TEXT
    assert unpack(codec, memoryview(packed(codec, [b"x"]))) == b"x"


@pytest.mark.parametrize("codec", CODECS.values(), ids=list(CODECS))
def test_data_are_unpacked_up_to_the_bound_and_not_a_byte_more(codec: int) -> None:
    data = memoryview(packed(codec, [TEXT]))
    assert unpack(codec, data, bytes_max=200_000) == TEXT
    with pytest.raises(TooLarge):
        unpack(codec, data, bytes_max=199_999)


@pytest.mark.parametrize(
    ("codec", "data"),
    [
        pytest.param(GZIP, packed(GZIP, [b"a"]) + b"garbage!", id="gzip, then something else"),
        pytest.param(LZ4, packed(LZ4, [b"a"]) + b"garbage!", id="lz4, then something else"),
        pytest.param(SNAPPY, packed(SNAPPY, [b"a"]) + b"ga!", id="snappy, then less than a length"),
        pytest.param(GZIP, packed(GZIP, [b"a"]) + b"\x1f\x8b", id="gzip, then half a header"),
        pytest.param(GZIP, packed(GZIP, [b"a"]) + b"\x1f\x8b" + bytes(40), id="gzip, then a wrong header"),
        pytest.param(LZ4, packed(LZ4, [b"a"])[:-8] + b"\0\0\0\x80", id="lz4 that ends with an empty stored block"),
        pytest.param(SNAPPY, packed(SNAPPY, [b"a"]) + b"\x82SNAwhatever!", id="snappy, then a header with a wrong end"),
        pytest.param(SNAPPY, bytes(cramjam.snappy.compress_raw(b"a")), id="snappy without frames"),
        pytest.param(LZ4, packed(LZ4, [b"a"])[:-4] + struct.pack("<I", 7), id="lz4 with a wrong checksum behind it"),
    ],
)
def test_frames_that_brokers_accept_are_read(codec: int, data: bytes) -> None:
    """Each was tried: a broker takes it, and Python's own decoders reject it, at every try."""
    assert unpack(codec, memoryview(data)) == b"a"


@pytest.mark.parametrize("codec", [GZIP, SNAPPY, ZSTD], ids=["gzip", "snappy", "zstd"])
def test_streams_may_follow_each_other(codec: int) -> None:
    assert unpack(codec, memoryview(packed(codec, [b"a"]) + packed(codec, [b"b"]))) == b"ab"


def test_thousands_of_empty_gzip_members_cost_no_more_than_their_bytes() -> None:
    """1 MB of them; to copy the rest for each took seconds."""
    empty = zlib.compress(b"", wbits=31)
    assert unpack(GZIP, memoryview(empty * 50_000)) == b""


@pytest.mark.parametrize(
    ("codec", "data", "raised"),
    [
        pytest.param(5, b"x", UnsupportedCodecError, id="a codec that nobody knows"),
        pytest.param(GZIP, b"x" * 40, CorruptRecordException, id="no gzip"),
        pytest.param(GZIP, packed(GZIP, [TEXT])[:-9], CorruptRecordException, id="half a gzip"),
        pytest.param(SNAPPY, packed(SNAPPY, [TEXT])[:-1], CorruptRecordException, id="half a snappy"),
        pytest.param(SNAPPY, b"\xff\xff\xff\xff\x0fabc", TooLarge, id="snappy that claims 4 GiB"),
        pytest.param(LZ4, packed(LZ4, [TEXT])[:-9], CorruptRecordException, id="half an lz4"),
        pytest.param(LZ4, b"x" * 40, CorruptRecordException, id="no lz4"),
        pytest.param(LZ4, b"", CorruptRecordException, id="nothing"),
        pytest.param(ZSTD, packed(ZSTD, [TEXT])[:-1], CorruptRecordException, id="half a zstd"),
        pytest.param(ZSTD, b"x" * 40, CorruptRecordException, id="no zstd"),
    ],
)
def test_unreadable_frames_are_reported(codec: int, data: bytes, raised: type[Exception]) -> None:
    with pytest.raises(raised):
        unpack(codec, memoryview(data))


@pytest.mark.parametrize(("codec", "mib"), [(GZIP, 200), (ZSTD, 900), (LZ4, 200), (SNAPPY, 200)])
def test_a_bomb_takes_no_more_memory_than_the_bound_allows(codec: int, mib: int) -> None:
    program = f"""
import resource
from org_events.kafka.unpacking import TooLarge, unpack
from tests.support.raw_batches import packed
data = packed({codec}, (bytes(1024 * 1024) for _ in range({mib})))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    unpack({codec}, memoryview(data))
except TooLarge:
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert int(done.stdout) <= 80
