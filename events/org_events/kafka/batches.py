"""Record batches as they come from a broker, read so that no batch a broker accepts stops its partition.

aiokafka's compiled reader is fast and does nearly all of the work. What it can't cope with is read again by the letter
of the protocol ("Record Batch" and "Record" of Kafka's protocol guide), each seen on a broker, which lets them in:

- header names that are not UTF-8 (written as `\\xff` here);
- attributes of a record with the highest bit set, which aiokafka takes for the first byte of a longer number;
- numbers of five bytes with bits that Java drops;
- offsets that a publisher made up in a batch without compression: aiokafka would skip records silently, or commit
  offsets that don't exist yet. In a batch that compaction has not been at, a record's offset is its place.

A compressed batch is unpacked within bounds (`unpacking`), and the headers of any batch are bounded before they become
objects: 3 KB of zstd can hold 16 million. What of a batch is beyond the bounds, or written so that nobody can read it
though its CRC is right, becomes a single record at the batch's last offset, whose value is an `UnreadBatch`; the
records before that are handed out. A wrong CRC, or a codec nobody knows, raises: that can be repaired.
"""

import struct
from collections.abc import Iterator
from itertools import islice
from operator import attrgetter
from typing import Any, ClassVar, Final, NamedTuple, cast

from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import DefaultRecordBatch

from org_events.kafka.record_reader import RecordReader, signed
from org_events.kafka.unpacking import UNPACKED_BYTES_MAX, TooLarge, unpack

RECORDS_MAX: Final = 100_000
"""In one compressed batch; without compression 1 MiB holds hardly more. Small equal records shrink a thousand times."""
POLL_BYTES_MAX: Final = UNPACKED_BYTES_MAX
"""What one poll may unpack before it hands out what it has."""

HEADERS_MAX: Final = 10_000
"""Of one record; some ten are usual, and each becomes objects of 100 bytes."""
_HEADERS_USUAL: Final = 32
"""A record: a batch may hold so many for each, and `HEADERS_MAX` beside."""
_HEADER_MEMORY: Final = 100
"""Bytes that a header takes, counted against `POLL_BYTES_MAX` where there are unusually many."""
_STEP: Final = 64
"""Records that are read in one go: what is checked in each of them is then checked in all at once."""

_offset: Final = attrgetter("offset")
_headers: Final = attrgetter("headers")

_MAGIC: Final = 2
"""Of the batches that Kafka writes since 0.11; 4.0 and later know no others (KIP-724)."""
_HEADER: Final = struct.Struct(">qiibIhiqqqhii")
BATCH_HEADER_BYTES: Final = _HEADER.size
"""Before the records of a batch."""
_LENGTH_AT: Final = 8
_ATTRIBUTES_AT: Final = 21
_OVERHEAD: Final = 12
"""A batch begins with its base offset (8 bytes) and its length (4), which counts what comes after it."""
_CODEC: Final = 0x07
_APPEND_TIME: Final = 0x08


class UnreadBatch(bytes):
    """A whole batch that isn't read, as it stands in the log, in the place of a record's value.

    Attributes:
        why: It isn't read, as text.
        first_offset: Of its records.
        records: Their number.
    """

    why: str
    first_offset: int
    records: int


class WholeBatch(bytes):
    """A whole batch, no longer compressed, in the place of a record's value: for whoever takes it apart by itself.

    Attributes:
        base_offset: Of its first record, as it was written.
        records: Their number.
    """

    base_offset: int
    records: int


class _TooManyHeaders(Exception):
    """A record, or a batch up to here, has more headers than are read."""


class Budget:
    """How much a consumer has unpacked in this poll."""

    def __init__(self) -> None:
        self.spent = 0


class UnpackedRecord(NamedTuple):
    """What aiokafka's fetcher needs of a record."""

    offset: int
    timestamp: int
    timestamp_type: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]
    checksum: None = None


class Batches:
    """What a broker sent of one partition: in the place of aiokafka's `MemoryRecords`, which see."""

    whole: ClassVar[bool] = False
    """Whether each batch is handed out as one record, a `WholeBatch`."""

    def __init__(self, budget: Budget, data: bytes) -> None:
        self._budget = budget
        self._data = data
        self._at = 0
        self.open_bytes = 0
        """What the batch that is being read was unpacked to."""

    def size_in_bytes(self) -> int:
        """Of all that came."""
        return len(self._data)

    def has_next(self) -> bool:
        """Whether another batch is there, whole. A first batch always is: `next_batch` says what is wrong with it."""
        if self._at == 0:
            return bool(self._data)
        return self._budget.spent <= POLL_BYTES_MAX and self._end() is not None

    def next_batch(self) -> "_Batch":
        """The next batch.

        Raises:
            CorruptRecordException: It isn't whole, or not a batch.
        """
        self.open_bytes = 0
        start, end = self._at, self._end()
        if end is None:
            raise CorruptRecordException("the batch is larger than one fetch, or its length is wrong")
        self._at = end
        data = self._slice(start, end)
        if end - start < _HEADER.size or data[16] != _MAGIC:
            raise CorruptRecordException("not a record batch of Kafka 0.11 or later")
        return _Batch(self, data)

    def _slice(self, start: int, end: int) -> bytes:
        return self._data[start:end]

    def note_unpacked(self, size: int) -> None:
        """Note down what was unpacked."""
        self.open_bytes = size
        self._budget.spent += size

    def note_held(self, size: int) -> None:
        """Note down what the objects of unusual records take."""
        self._budget.spent += size

    def _end(self) -> int | None:
        """Where the next batch ends; None where it isn't all there: a broker cuts the last one."""
        if len(self._data) - self._at < _OVERHEAD:
            return None
        (length,) = struct.unpack_from(">i", self._data, self._at + _LENGTH_AT)
        end = self._at + _OVERHEAD + length
        return end if length >= 0 and end <= len(self._data) else None


class WholeBatches(Batches):
    """The same, batch by batch: for readers of hundreds of thousands of records a second."""

    whole = True

    def _slice(self, start: int, end: int) -> bytes:
        return WholeBatch(memoryview(self._data)[start:end])  # copied once, not once more when it is handed out


class _Batch:
    """A record batch; what isn't said here is aiokafka's."""

    def __init__(self, batches: Batches, data: bytes) -> None:
        self._batches = batches
        self._data = data
        self._compiled = cast("Any", DefaultRecordBatch(cast("Any", data)))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._compiled, name)

    def __next__(self) -> Any:
        return next(self._compiled)

    def __iter__(self) -> Iterator[Any]:
        """The records, and where they can't be read an unread batch behind those that can.

        Raises:
            CorruptRecordException: The CRC is wrong.
            UnsupportedCodecError: Nobody knows the codec.
        """
        header = _Header(*_HEADER.unpack_from(self._data))
        try:
            if self._batches.whole:
                yield self._as_one(header)
                return
            yield from self._records(header)
        except TooLarge:
            why = f"at most {RECORDS_MAX} records and {UNPACKED_BYTES_MAX // 1024 // 1024} MiB unpacked are read"
        except _TooManyHeaders:
            why = (
                f"at most {HEADERS_MAX} headers per record are read, and {_HEADERS_USUAL} per record on average; "
                "the records before these were read"
            )
        except CorruptRecordException as error:
            if not DefaultRecordBatch(cast("Any", self._data)).validate_crc():
                raise
            why = (
                f"it cannot be parsed although its checksum is correct ({error.args[0]}); the records before it "
                "were read"
            )
        else:
            return
        yield _unread(header, self._data, why)

    def _records(self, header: "_Header") -> Iterator[Any]:
        if not self._compiled.compression_type:
            return _read(self._compiled, header, self._data, self._batches)
        plain = self._unpack(header)
        return _read(cast("Any", DefaultRecordBatch(cast("Any", plain))), header, plain, self._batches)

    def _as_one(self, header: "_Header") -> UnpackedRecord:
        data = self._unpack(header) if self._compiled.compression_type else self._data
        batch = data if isinstance(data, WholeBatch) else WholeBatch(data)
        batch.base_offset, batch.records = header.base_offset, header.records
        last = header.base_offset + header.last_offset_delta
        return UnpackedRecord(last, header.max_timestamp, 0, None, batch, [])

    def _unpack(self, header: "_Header") -> bytes:
        """A compressed batch without compression.

        Raises:
            TooLarge: It exceeds the bounds.
        """
        if header.records > RECORDS_MAX:
            raise TooLarge
        records = unpack(header.attributes & _CODEC, memoryview(self._data)[_HEADER.size :])
        self._batches.note_unpacked(len(records))
        return header.without_codec(len(records)) + records


class _Header(NamedTuple):
    """The header of a batch, in order."""

    base_offset: int
    length: int
    leader_epoch: int
    magic: int
    crc: int
    attributes: int
    last_offset_delta: int
    first_timestamp: int
    max_timestamp: int
    producer_id: int
    producer_epoch: int
    base_sequence: int
    records: int

    def without_codec(self, payload_bytes: int) -> bytes:
        """Of the same batch, its records no longer compressed; nobody looks at the CRC any more."""
        length = _HEADER.size - _OVERHEAD + payload_bytes
        return _HEADER.pack(*self._replace(length=length, attributes=self.attributes & ~_CODEC))


def _read(compiled: Any, header: _Header, data: bytes, batches: Batches) -> Iterator[Any]:
    """The records of a batch that isn't compressed, or no longer.

    What was given before something was found wrong is given again; the fetcher drops it by its offset.

    Raises:
        CorruptRecordException: See `_read_strictly`.
        _TooManyHeaders: See `_Headers`.
    """
    whole = header.records == header.last_offset_delta + 1  # else it is compacted
    if _is_usual(data, header.records):
        headers = _Headers(batches)
        expected = header.base_offset
        try:
            source = islice(compiled, None)  # aiokafka's begins once only
            while step := [*islice(source, _STEP)]:
                behind = expected + len(step)
                if whole and [*map(_offset, step)] != [*range(expected, behind)]:
                    break
                expected = behind
                headers.count(len(step), sum(map(len, map(_headers, step))))
                yield from step
            else:
                return
        except _TooManyHeaders:
            raise
        except Exception:  # noqa: BLE001, S110 - it raises whatever comes; what is really wrong is said by the letter
            pass
    yield from _read_strictly(header, data, batches, whole=whole)


def _is_usual(data: bytes, records: int) -> bool:
    """Whether aiokafka's reader may have it: it reads attributes right, and makes no more headers than are allowed.

    This is all that is checked in each record for itself: lengths below 8 KiB, of two bytes, hold few headers.
    """
    at = _HEADER.size
    try:
        for _ in range(records):
            length = data[at]
            at += 1
            if length > 0x7F:
                length = length & 0x7F | data[at] << 7
                at += 1
                if length > 0x3FFF:
                    reader = RecordReader(data, at - 2)
                    length = reader.read_number() << 1
                    at = reader.at
                    if reader.count_headers_ahead() > HEADERS_MAX:
                        return False
            if data[at] > 0x7F:
                return False
            at += length >> 1
    except (IndexError, CorruptRecordException):
        return False
    return True


class _Headers:
    """The headers of a batch, counted.

    Raises:
        _TooManyHeaders: There are more than are read.
    """

    def __init__(self, batches: Batches) -> None:
        self._batches = batches
        self._left = HEADERS_MAX

    def count(self, records: int, headers: int) -> None:
        """Count the headers of so many records."""
        unusual = headers - _HEADERS_USUAL * records
        if unusual > 0:
            self._left -= unusual
            self._batches.note_held(_HEADER_MEMORY * headers)
            if self._left < 0:
                raise _TooManyHeaders


def _read_strictly(header: _Header, data: bytes, batches: Batches, *, whole: bool) -> Iterator[UnpackedRecord]:
    """The records as a broker reads them.

    Raises:
        CorruptRecordException: They can't be read by anybody from here on.
        _TooManyHeaders: See `_Headers`.
    """
    appended = bool(header.attributes & _APPEND_TIME)
    reader, allowed = RecordReader(data, _HEADER.size), _Headers(batches)
    try:
        for place in range(header.records):
            end = reader.read_number()
            end += reader.at
            reader.at += 1  # attributes, none of which is in use
            timestamp = signed(header.first_timestamp + reader.read_number(64))
            delta = reader.read_number()
            key, value = reader.read_content(), reader.read_content()
            number = reader.read_number()
            if number > HEADERS_MAX:
                raise _TooManyHeaders
            allowed.count(1, number)
            headers = [reader.read_header() for _ in range(number)]
            if reader.at != end:
                raise CorruptRecordException("the length of a record is wrong")
            yield UnpackedRecord(
                header.base_offset + (place if whole else delta),
                header.max_timestamp if appended else timestamp,
                int(appended),
                key,
                value,
                headers,
            )
    except IndexError as error:
        raise CorruptRecordException("a record extends beyond its batch") from error


def _unread(header: _Header, data: bytes, why: str) -> UnpackedRecord:
    batch = UnreadBatch(data)
    last = header.base_offset + header.last_offset_delta
    batch.first_offset, batch.records = header.base_offset, header.records
    compressed = "a compressed batch" if header.attributes & _CODEC else "a batch"
    batch.why = f"{compressed} of {header.records} records, offsets {header.base_offset} to {last}: {why}"
    appended = bool(header.attributes & _APPEND_TIME)
    return UnpackedRecord(last, header.max_timestamp, int(appended), None, batch, [])
