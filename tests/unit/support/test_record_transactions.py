"""Batches' headers, made by hand, and the transactions that are read from them."""

from tests.support.record_transactions import BYTES_BEFORE_LENGTH, CONTROL, HEADER, TRANSACTIONAL, Span, _Log, marker_of

PLAIN = 0
MARKER = TRANSACTIONAL | CONTROL
RECORDS = b"?" * 40
"""What follows the header isn't looked at."""


def batch(first: int, last: int, attributes: int, producer: int = 1) -> bytes:
    length = HEADER.size - BYTES_BEFORE_LENGTH + len(RECORDS)
    return HEADER.pack(first, length, 0, 2, 0, attributes, last - first, 0, 0, producer, 0) + RECORDS


def test_records_have_the_marker_of_their_own_producers_transaction() -> None:
    log = _Log(0)
    log.add(batch(0, 2, TRANSACTIONAL) + batch(3, 3, PLAIN) + batch(4, 5, TRANSACTIONAL, producer=2))
    log.add(batch(6, 9, TRANSACTIONAL) + batch(10, 10, MARKER) + batch(11, 11, MARKER, producer=2))
    log.add(batch(12, 12, TRANSACTIONAL) + batch(13, 13, MARKER))
    log.spans.sort()
    assert log.spans == [Span(0, 2, 10), Span(4, 5, 11), Span(6, 9, 10), Span(12, 12, 13)]
    assert [marker_of(log.spans, offset) for offset in (0, 2, 3, 4, 9, 12)] == [10, 10, None, 11, 10, 13]
    assert log.offset == 14


def test_a_batch_that_was_cut_short_is_read_again() -> None:
    log = _Log(0)
    log.add(batch(0, 2, TRANSACTIONAL) + batch(3, 3, MARKER)[:-1])
    assert (log.offset, log.spans) == (3, [])
    log.add(batch(3, 3, MARKER)[: HEADER.size - 1])
    log.add(batch(3, 3, MARKER))
    assert (log.offset, log.spans) == (4, [Span(0, 2, 3)])
