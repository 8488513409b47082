"""Records of events and results as the relay writes them, digested where they stand in their batch.

The client's compiled reader makes an object for each of a record's dozen headers; to look only for what a digest needs
takes two thirds of the time. What does not look exactly like ours (a replayed event, a record with other headers, a
batch that compaction has been at) is left to the reader that takes everything apart (`logs`), from the first such
record of a batch on: so both say the same of every record, and a contract test holds them to it.
"""

import re
from collections.abc import Sequence
from hashlib import md5
from typing import Final, Literal, Protocol

from org_events.kafka.batches import BATCH_HEADER_BYTES, WholeBatch
from org_service.domain.digests import WINDOW
from org_service.wire.changes import RUN_HEADER

_VARINT: Final = rb"[\x80-\xff]{0,4}[\x00-\x7f]"
# Length, attributes, timestamp and offset (which don't matter), the key, and the length of a body that names it.
_BEGIN: Final = rb"([\x80-\xff]?[\x00-\x7f])\x00" + _VARINT + _VARINT + rb"H([0-9a-f-]{36})([\x80-\xff]?[\x00-\x7f])"
_EVENT: Final = re.compile(_BEGIN + rb'\{"org_id":"\2","version":[0-9]+,"position":([0-9]+),').match
_RESULT: Final = re.compile(_BEGIN + rb'\{"command_id":"(?:\2"|[0-9a-f-]{36}","org_id":"\2")()').match
_POSITION: Final = b'"position":'
_RESULT_POSITION_AT: Final = 46
"""Before it there is none: the command's id comes first."""
_EVENT_ID: Final = b"\x0ace_idH"
_EVENT_TYPE: Final = b"\x0ece_type"
_RUN: Final = RUN_HEADER.encode()


def _make_lengths() -> dict[bytes, int]:
    """Lengths of one and two bytes as they are written; longer records are not usual."""
    one = {bytes([number << 1]): number for number in range(1 << 6)}
    two = {bytes([number << 1 & 0x7F | 0x80, number >> 6]): number for number in range(1 << 6, 1 << 13)}
    return one | two


_LENGTHS: Final = _make_lengths()


def count_usual(batch: WholeBatch, from_offset: int) -> int:
    """How many records a batch has, where their offsets are their places and all are asked for; else 0."""
    records = int.from_bytes(batch[57:61], "big")
    last = int.from_bytes(batch[23:27], "big")
    return records if records == last + 1 and batch.base_offset >= from_offset else 0


class Scan(Protocol):
    """What is known of a topic: a `LogScan`."""

    seen: bytearray
    records: int
    last: tuple[int, int, int]

    def note(self, window: int, digests: Sequence[bytes]) -> None:
        """Add records of a window of positions."""
        ...


def digest_usual(  # noqa: C901, PLR0912, PLR0917 - the hot loop: once a record, where each call would cost a tenth
    scan: Scan,
    log: Literal["events", "results"],
    partition: int,
    batch: WholeBatch,
    records: int,
    positions: tuple[int, int, bytes | bytearray | None],
) -> int:
    """Digest records from the beginning of a batch on; returns how many.

    Args:
        scan: Of its topic; they are added.
        log: Which topic.
        partition: Of the batch.
        batch: As `count_usual` says.
        records: In the batch.
        positions: As `scan_log`: after, through, and those to skip.
    """
    low, through, skip = positions
    match, events, seen = (_EVENT, True, scan.seen) if log == "events" else (_RESULT, False, scan.seen)
    data, at, end = batch, BATCH_HEADER_BYTES, len(batch)
    window = window_start = window_end = -1
    digests: list[bytes] = []
    for number in range(records):
        found = match(data, at)
        if found is None:
            break
        length, _, size, said = found.groups()
        start = found.end(3)
        try:
            after = found.end(1) + _LENGTHS[length]
            stop = start + _LENGTHS[size]
            if not events:
                place = data.index(_POSITION, start + _RESULT_POSITION_AT, stop) + len(_POSITION)
                said = data[place : data.index(b",", place, stop)]
            position = int(said)
        except (KeyError, ValueError):
            break
        if not stop < after <= end:
            break
        body = data[start:stop]
        if events:
            if data[stop + 1 : stop + 8] != _EVENT_ID or data[stop + 44 : stop + 52] != _EVENT_TYPE:
                break
            if data.find(_RUN, stop, after) >= 0:
                break
            body = data[stop + 53 : stop + 53 + (data[stop + 52] >> 1)] + body
        if not low < position <= through:
            if position > through:
                scan.last = max(scan.last, (position, partition, batch.base_offset + number))
            at = after
            continue
        bit = 1 << (position & 7)
        if seen[position >> 3] & bit or (skip is not None and skip[position >> 3] & bit):
            break
        if not window_start < position <= window_end:
            scan.note(window, digests)
            digests, window = [], (position - 1) // WINDOW
            window_start = window * WINDOW
            window_end = window_start + WINDOW
        seen[position >> 3] |= bit
        digests.append(md5(body).digest())  # noqa: S324 - of what is ours; see `store.verification`
        at = after
    else:
        number = records if at == end else records - 1  # its last length lies, and the batch can't be read
    scan.note(window, digests)
    scan.records += number
    return number
