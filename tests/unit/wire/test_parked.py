"""What is kept of a record that is parked: all of it where it is small, else enough to know it again."""

import json
from collections.abc import Sequence

from org_events.kafka.batches import UnreadBatch
from org_service.wire.parked import explain_unread, keep_headers, keep_key, keep_value
from tests.support.records import FakeRecord


def record(
    value: bytes | None = b"{}", *, key: bytes | None = b"key", headers: Sequence[tuple[str, bytes | None]] = ()
) -> FakeRecord:
    return FakeRecord(key, value, headers)


def test_headers_are_kept_byte_for_byte() -> None:
    assert keep_headers(record(headers=[("a", b"\xff\x00"), ("b", None), ("a", b"")])) == (
        '[["a","/wA="],["b",null],["a",""]]',
        "",
    )


def test_of_too_large_headers_those_of_a_command_are_kept_then_the_small_ones() -> None:
    many = [("x", b"1"), ("big", b"b" * 64 * 1024), ("ce_id", b"i" * 60_000), ("z", b"z" * 6_000), ("y", None)]
    kept, note = keep_headers(record(headers=many))
    assert [name for name, _ in json.loads(kept)] == ["x", "ce_id", "y"]
    assert note == "2 of its 5 headers, 71536 bytes, were too large to store"


def test_of_ten_thousand_small_headers_the_first_thousand_are_kept() -> None:
    kept, note = keep_headers(record(headers=[(f"{number:04}", None) for number in range(10_000)]))
    assert [name for name, _ in json.loads(kept)] == [f"{number:04}" for number in range(1_000)]
    assert note == "its last 9000 headers are not stored"


def test_of_a_thousand_headers_as_many_are_kept_as_there_is_room_for() -> None:
    kept, note = keep_headers(record(headers=[(f"{number:0100}", None) for number in range(1_001)]))
    assert len(json.loads(kept)) == 64 * 1024 // 108
    assert note == "394 of its 1000 headers, 0 bytes, were too large to store; its last 1 headers are not stored"


def test_of_a_long_key_the_beginning_its_length_and_its_digest_are_kept() -> None:
    assert keep_key(record(key=b"k" * 1_024)) == (b"k" * 1_024, "")
    assert keep_key(record(key=b"k" * 1_025)) == (
        b"k" * 1_024,
        "its key has 1025 bytes, SHA-256 011cc8dcade24f43d2d7f95605d8481da1d0b86475def49be02bfc20cee86e65",
    )


def test_a_value_too_long_for_a_command_is_kept_in_part_and_known_by_its_digest() -> None:
    longest = b"x" * 131_072  # of a structured event
    assert keep_value(record(value=longest)) == (longest, None, None)
    assert keep_value(record(value=None)) == (None, None, None)
    assert keep_value(record(value=longest + b"x")) == (
        b"x" * 65_536,
        131_073,
        "0c5c5c759aa8164f9fb53c471ff060903c99edcb520fb7d9cb4bf7a45755f1c2",
    )


def test_a_batch_that_was_not_read_says_why_and_its_header_is_kept_without_a_token() -> None:
    batch = UnreadBatch(b"x" * 61 + b"authorization: Bearer e30")
    batch.why = "a compressed batch of 3 records"
    assert explain_unread(record(value=batch)) == "a compressed batch of 3 records"
    assert keep_value(record(value=batch)) == (
        b"x" * 61,
        86,
        "879114f37f226fdeb8b0e624aedd3047d1126592fe99c8748ab5c95eb217bcc1",
    )
    assert explain_unread(record()) == ""
