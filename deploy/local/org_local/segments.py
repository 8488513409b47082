"""A broker's segment files, read and cut by hand: what a machine leaves that lost its power. For a stopped broker.

Kafka acknowledges a record before it is on the disk. What `cut` leaves is what such a machine finds: a log that ends
earlier, and nothing derived from it that knows more.
"""

import struct
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from typing import Final, NamedTuple

_HEADER: Final = struct.Struct(">qi")
"""Base offset and the length of what follows: the beginning of every record batch."""
_ATTRIBUTES_AT: Final = 21
"""And then the last offset's delta."""
_TRANSACTIONAL: Final = 0x10
_CONTROL: Final = 0x20
_RECORDS_AT: Final = 61
"""Where the records begin in a batch of format 2; attributes, times and the CRC are before it."""
_MARKER_TYPE_AT: Final = _RECORDS_AT + 8
"""The low byte of what a marker's key says after its version; each varint before it has one byte."""
_ABORT: Final = 0


class Batch(NamedTuple):
    """A record batch in a segment file."""

    file: Path
    at: int
    """Its first byte in the file."""
    size: int
    first: int
    """The offset of its first record."""
    last: int
    transactional: bool
    aborts: bool
    """It is the marker of a transaction that was taken back."""


def batches(logs: Path, topic: str, partition: int) -> Iterator[Batch]:
    """Every batch of a partition as it is on disk, in order.

    Args:
        logs: The broker's folder, with one for each partition.
        topic: Its name.
        partition: Its number.
    """
    for file in sorted((logs / f"{topic}-{partition}").glob("*.log")):
        content, at = file.read_bytes(), 0
        while at + _RECORDS_AT <= len(content):
            first, length = _HEADER.unpack_from(content, at)
            if length <= 0:  # preallocated, or still being written
                break
            attributes, delta = struct.unpack_from(">hi", content, at + _ATTRIBUTES_AT)
            transactional = bool(attributes & _TRANSACTIONAL)
            aborts = bool(attributes & _CONTROL) and content[at + _MARKER_TYPE_AT] == _ABORT
            yield Batch(file, at, _HEADER.size + length, first, first + delta, transactional, aborts)
            at += _HEADER.size + length


def cut_last(logs: Path, topic: str, partition: int, number: int, *, transactional: bool = True) -> int | None:
    """Cut the last batches off a partition, markers among them; returns where it ends now.

    None where there is nothing to cut.

    Args:
        logs: As in `batches`.
        topic: Its name.
        partition: Its number.
        number: How many batches at most.
        transactional: What was written outside of transactions stays, and what is before that: of a topic on which
            nobody would send it again.
    """
    written = list(batches(logs, topic, partition))
    last = list(takewhile(lambda each: each.transactional or not transactional, reversed(written[-number:])))
    if not last:
        return None
    cut(logs, last[-1])
    return last[-1].first


def cut(logs: Path, batch: Batch) -> None:
    """Cut a partition before a batch."""
    folder = batch.file.parent
    with batch.file.open("r+b") as file:
        file.truncate(batch.at)
    for later in folder.glob("*.log"):
        if later.name > batch.file.name:
            later.unlink()
    # What is derived from the segments is made again, as after a crash: nothing may know more than they do.
    for pattern in ("*.index", "*.timeindex", "*.txnindex", "*.snapshot"):
        for derived in folder.glob(pattern):
            derived.unlink()
    for name in (".kafka_cleanshutdown", "recovery-point-offset-checkpoint"):
        (logs / name).unlink(missing_ok=True)
