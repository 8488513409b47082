"""Record batches as a publisher may write them and a broker takes them: read one and all, each record at its offset."""

import struct
import time
from typing import Any

import pytest
from aiokafka.errors import CorruptRecordException, UnsupportedCodecError

from org_events.kafka.batches import POLL_BYTES_MAX, RECORDS_MAX, Batches, Budget, UnreadBatch
from tests.support.raw_batches import CODECS, GZIP, LZ4, NONE, ZSTD, Raw, batch, bomb, framed, packed, record, varint

MIB = 1024 * 1024


def read(*batches: bytes) -> list[Any]:
    """All records, as aiokafka's fetcher goes through them: what is behind its offset it drops."""
    data, at, found = Batches(Budget(), b"".join(batches)), 0, []
    while data.has_next():
        for each in data.next_batch():
            if each.offset >= at:
                found.append(each)
                at = each.offset + 1
    return found


def at_offset(offset: int, content: bytes) -> bytes:
    return struct.pack(">q", offset) + content[8:]


@pytest.mark.parametrize("codec", [NONE, *CODECS.values()], ids=["none", *CODECS])
def test_records_are_read_as_they_were_sent(codec: int) -> None:
    sent = [Raw(b"a", b"k", [(b"ce_id", b"1"), (b"x", None)]), Raw(None), Raw(b"", b"")]
    found = read(at_offset(7, batch(codec, sent, timestamp=1_700_000_000_000)))
    assert [(each.offset, each.key, each.value, list(each.headers)) for each in found] == [
        (7, b"k", b"a", [("ce_id", b"1"), ("x", None)]),
        (8, None, None, []),
        (9, b"", b"", []),
    ]
    assert {(each.timestamp, each.timestamp_type) for each in found} == {(1_700_000_000_000, 0)}


@pytest.mark.parametrize("codec", [NONE, ZSTD], ids=["none", "zstd"])
@pytest.mark.parametrize(
    "odd",
    [
        pytest.param(Raw(b"b", attributes=0xFF), id="attributes nobody uses"),
        pytest.param(Raw(b"b", headers=[(b"\xff\xfe", b"v")]), id="a header name that is not UTF-8"),
    ],
)
def test_records_that_the_fast_reader_cannot_read_are_read_by_the_slow_one(codec: int, odd: Raw) -> None:
    found = read(batch(codec, [Raw(b"a"), odd, Raw(b"c", b"k", [(b"n", b"v")])], timestamp=5))
    assert [(each.offset, each.value) for each in found] == [(0, b"a"), (1, b"b"), (2, b"c")]
    assert (found[2].key, list(found[2].headers), found[2].timestamp) == (b"k", [("n", b"v")], 5)


def test_a_header_name_that_is_not_utf8_is_written_as_it_is() -> None:
    (found,) = read(batch(GZIP, [Raw(b"a", headers=[(b"\xff\xfe", b"v")])]))
    assert list(found.headers) == [("\\xff\\xfe", b"v")]


@pytest.mark.parametrize("deltas", [(0, 0, 0), (1000, 2000, 3000), (0, 5000, 2), (-10, 1, 2)])
def test_forged_offsets_are_ignored(deltas: tuple[int, int, int]) -> None:
    """A broker takes them where nothing is compressed. Believed, records are skipped, or commits pass what comes."""
    sent = [Raw(value, offset_delta=delta) for value, delta in zip((b"a", b"b", b"c"), deltas, strict=True)]
    found = read(at_offset(40, batch(NONE, sent)))
    assert [(each.offset, each.value) for each in found] == [(40, b"a"), (41, b"b"), (42, b"c")]


def test_a_compacted_batch_keeps_its_holes() -> None:
    content = bytearray(batch(NONE, [Raw(b"a", offset_delta=2), Raw(b"b", offset_delta=5)]))
    struct.pack_into(">i", content, 23, 9)  # the last offset it had
    assert [(each.offset, each.value) for each in read(bytes(content))] == [(2, b"a"), (5, b"b")]


@pytest.mark.parametrize("codec", [GZIP, ZSTD, LZ4], ids=["gzip", "zstd", "lz4"])
def test_a_compression_bomb_is_one_record_and_its_neighbours_are_read(codec: int) -> None:
    content = bomb(codec, 100 * MIB)
    before, after, between = batch(codec, [Raw(b"a")]), batch(NONE, [Raw(b"c")]), at_offset(1, content)
    found = read(before, between, at_offset(2, after))
    assert [each.offset for each in found] == [0, 1, 2]
    unread = found[1].value
    assert isinstance(unread, UnreadBatch)
    assert (bytes(unread), unread.first_offset, unread.records) == (between, 1, 1)
    assert unread.why == (
        "a compressed batch of 1 records, offsets 1 to 1: at most 100000 records and 32 MiB unpacked are read"
    )


def test_a_batch_of_too_many_records_is_one_record_at_its_last_offset() -> None:
    assert RECORDS_MAX == 100_000
    (found,) = read(framed(ZSTD, packed(ZSTD, [record(Raw(None), 0)]), 100_001))
    assert (found.offset, found.value.records) == (100_000, 100_001)


def test_as_many_records_as_are_allowed_are_read() -> None:
    payload = packed(ZSTD, (record(Raw(None), place) for place in range(100_000)))
    assert [each.offset for each in read(framed(ZSTD, payload, 100_000))] == list(range(100_000))


def test_a_poll_unpacks_up_to_its_bound_and_returns_what_it_has() -> None:
    """A thousand batches of one MiB of zeros are 1 MiB as they come."""
    big = batch(ZSTD, [Raw(bytes(20 * MIB))])
    budget = Budget()
    batches = Batches(budget, big + at_offset(1, big) + at_offset(2, big))
    taken = 0
    while batches.has_next():
        taken += len([*batches.next_batch()])
    assert (taken, budget.spent > POLL_BYTES_MAX) == (2, True)


def test_a_truncated_last_batch_is_left_and_a_truncated_first_batch_is_reported() -> None:
    whole = batch(NONE, [Raw(b"a")])
    assert [each.value for each in read(whole, whole[:30])] == [b"a"]
    assert read() == []
    for part in (whole[:30], whole[:5], b"\xff" * 100):
        batches = Batches(Budget(), part)
        assert batches.has_next()
        with pytest.raises(CorruptRecordException):
            batches.next_batch()


def wide(number: int) -> bytes:
    """A number of five bytes with bits in the last one that 32 bits don't hold; Java drops them."""
    return bytes((number << 1 >> shift & 0x7F) | 0x80 for shift in (0, 7, 14, 21)) + b"\x70"


def sized(body: bytes, more: int = 0) -> bytes:
    """The rest of a record behind its length, which says so much too many."""
    return varint(len(body) + more) + body


FIRST = record(Raw(b"a"), 0)
UNREADABLE: dict[str, tuple[int, bytes]] = {
    "the length of a record is wrong": (ZSTD, sized(record(Raw(b"b"), 1)[1:], more=1) + b"\0"),
    "a record extends beyond its batch": (NONE, record(Raw(b"b"), 1)[:-2]),
    "a number is not terminated": (NONE, b"\x7e" + b"\xff" * 63),
}
"""The second record of a batch, by why it can't be read, and how the batch is compressed."""


@pytest.mark.parametrize("why", UNREADABLE)
def test_the_unreadable_rest_of_a_batch_is_one_record_after_the_readable_ones(why: str) -> None:
    """Seen on a broker: it accepts such batches. Tried again for ever, each would stop its partition."""
    codec, second = UNREADABLE[why]
    content = at_offset(5, framed(codec, packed(codec, [FIRST + second]), 3))
    found = read(content, at_offset(8, batch(NONE, [Raw(b"d")])))
    assert [each.offset for each in found] == [5, 7, 8]
    assert [found[0].value, found[2].value] == [b"a", b"d"]
    unread = found[1].value
    assert isinstance(unread, UnreadBatch)
    assert (bytes(unread), unread.first_offset, unread.records) == (content, 5, 3)
    kind = "a batch" if codec == NONE else "a compressed batch"
    assert unread.why == (
        f"{kind} of 3 records, offsets 5 to 7: it cannot be parsed although its checksum is correct ({why}); "
        "the records before it were read"
    )


@pytest.mark.parametrize("codec", CODECS.values(), ids=list(CODECS))
def test_a_batch_that_cannot_be_unpacked_is_one_record(codec: int) -> None:
    found = read(framed(codec, packed(codec, [FIRST * 10_000])[:-9], 1), at_offset(1, batch(codec, [Raw(b"b")])))
    assert [each.offset for each in found] == [0, 1]
    assert "it cannot be parsed although its checksum is correct (" in found[0].value.why
    assert found[1].value == b"b"


def test_damaged_batches_and_unknown_codecs_are_not_skipped() -> None:
    """A disk is repaired, a codec installed; no record stands for what is there."""
    with pytest.raises(UnsupportedCodecError):
        read(batch(5, [Raw(b"a")]))
    for content in (framed(NONE, FIRST[:-2], 1), framed(ZSTD, b"x" * 40, 1)):
        with pytest.raises(CorruptRecordException):
            read(content[:17] + b"\0\0\0\0" + content[21:])
    with pytest.raises(CorruptRecordException):  # of another version of Kafka
        read(batch(NONE, [Raw(b"a")])[:16] + b"\x01" + batch(NONE, [Raw(b"a")])[17:])


@pytest.mark.parametrize("length", [2**62, 2**63 - 1])
def test_lengths_that_would_overflow_are_not_trusted(length: int) -> None:
    """aiokafka finds no error, or another one; Java knows no such lengths."""
    (found,) = read(framed(NONE, sized(b"\0" + varint(0) + varint(0) + varint(-1) + varint(length) + varint(0)), 1))
    assert found.value.why.endswith("(a number is not terminated); the records before it were read")


@pytest.mark.parametrize("codec", [NONE, ZSTD], ids=["none", "zstd"])
def test_bits_that_java_ignores_are_ignored(codec: int) -> None:
    far = b"\xfe" + b"\xff" * 8 + b"\x7f"  # 70 bits, of which 64 are an odd number's zigzag
    body = b"\0" + far + wide(1) + wide(1) + b"k" + wide(1) + b"b" + wide(1) + wide(1) + b"n" + wide(1) + b"v"
    payload = FIRST + wide(len(body)) + body + record(Raw(b"c"), 2)
    found = read(framed(codec, packed(codec, [payload]), 3, timestamp=2**63 - 1))
    assert [(each.offset, each.value) for each in found] == [(0, b"a"), (1, b"b"), (2, b"c")]
    assert (found[1].key, found[1].headers) == (b"k", [("n", b"v")])
    assert -(2**63) <= found[1].timestamp < 2**63


def test_attributes_with_the_highest_bit_never_shift_the_fields() -> None:
    """Read by aiokafka, this second record has another key and value, and nothing is found wrong."""
    body = b"\x80" + varint(0) + varint(1) + varint(1) + b"%" + varint(2) + b"{}" + varint(0)
    found = read(framed(NONE, FIRST + sized(body), 2))
    assert [(each.key, each.value) for each in found] == [(None, b"a"), (b"%", b"{}")]


EMPTY = (b"", None)


@pytest.mark.parametrize("codec", [NONE, ZSTD], ids=["none", "zstd"])
def test_a_record_of_too_many_headers_is_never_made(codec: int) -> None:
    """16 million of them in 3 KB took 4 GB, and held the process up for 40 s."""
    usual = Raw(b"a", headers=[(b"n", b"v")] * 8)
    sent = [usual, Raw(b"b", headers=[EMPTY] * 10_000), Raw(b"c", headers=[EMPTY] * 10_001), Raw(b"d")]
    found = read(batch(codec, sent), at_offset(4, batch(codec, [usual])))
    assert [each.offset for each in found] == [0, 1, 3, 4]
    assert len(found[1].headers) == 10_000
    assert found[2].value.why.endswith(
        "records, offsets 0 to 3: at most 10000 headers per record are read, and 32 per record on "
        "average; the records before these were read"
    )


@pytest.mark.parametrize("attributes", [0, 0x80], ids=["fast", "by the letter"])
def test_the_headers_of_a_batch_are_bounded_too(attributes: int) -> None:
    sent = [Raw(b"a", headers=[EMPTY] * 4_000, attributes=attributes)] * 100
    found = read(batch(ZSTD, sent))
    assert len(found) <= 4  # as many as are read in one step, and the unread batch
    assert isinstance(found[-1].value, UnreadBatch)


def test_the_size_of_headers_counts_towards_the_poll() -> None:
    budget, content = Budget(), batch(NONE, [Raw(b"a", headers=[EMPTY] * 10_000)])
    batches = Batches(budget, content * 100)
    taken = 0
    while batches.has_next():
        taken += len([*batches.next_batch()])
    assert taken == 34  # of 1 MB each


def test_a_bomb_of_headers_does_not_delay_others() -> None:
    """1 MiB of them without compression, 3 KB with it."""
    for codec, number in ((NONE, 500_000), (ZSTD, 16_000_000)):
        body = b"\0" + varint(0) + varint(0) + varint(-1) + varint(-1) + varint(number) + b"\0\1" * number
        content = framed(codec, packed(codec, [sized(body)]), 1)
        before = time.process_time()
        (found,) = read(content)
        assert isinstance(found.value, UnreadBatch)
        assert time.process_time() - before < 0.5


def test_a_wrong_checksum_is_found_before_anything_is_unpacked() -> None:
    content = bytearray(batch(ZSTD, [Raw(b"a")]))
    assert Batches(Budget(), bytes(content)).next_batch().validate_crc()
    content[-1] ^= 1
    assert not Batches(Budget(), bytes(content)).next_batch().validate_crc()
