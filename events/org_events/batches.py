"""Record batches as they come from a broker, read so that no batch a broker accepts stops its partition.

aiokafka's compiled reader is fast and does nearly all of the work. What it can't cope with is read again by the letter
of the protocol ("Record Batch" and "Record" of Kafka's protocol guide), each seen on a broker, which lets them in:

- header names that are not UTF-8 (written as `\\xff` here);
- attributes of a record with the highest bit set, which aiokafka takes for the first byte of a longer number;
- offsets that a publisher made up in a batch without compression: aiokafka would skip records in silence, or commit
  offsets that don't exist yet. In a batch that compaction has not been at, a record's offset is its place.

A compressed batch is unpacked within bounds (`unpacking`). One that is beyond them is not read: it becomes a single
record at its last offset, whose value is an `UnreadBatch`.
"""

import struct
from collections.abc import Iterator
from typing import Any, Final, NamedTuple, cast

from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import DefaultRecordBatch

from org_events.unpacking import UNPACKED_BYTES_MAX, TooLarge, unpack

RECORDS_MAX: Final = 100_000
"""In one compressed batch; without compression 1 MiB holds hardly more. Small equal records shrink a thousand times."""
POLL_BYTES_MAX: Final = UNPACKED_BYTES_MAX
"""What one poll may unpack before it hands out what it has."""

_MAGIC: Final = 2
"""Of the batches that Kafka writes since 0.11; 4.0 and later know no others (KIP-724)."""
_HEADER: Final = struct.Struct(">qiibIhiqqqhii")
_LENGTH_AT: Final = 8
_ATTRIBUTES_AT: Final = 21
_OVERHEAD: Final = 12
"""A batch begins with its base offset (8 bytes) and its length (4), which counts what comes after it."""
_CODEC: Final = 0x07
_APPEND_TIME: Final = 0x08


class UnreadBatch(bytes):
    """A whole batch that isn't read, as it stands in the log, in the place of a record's value.

    Attributes:
        why: It isn't read, in words.
        first_offset: Of its records.
        records: Their number.
    """

    why: str
    first_offset: int
    records: int


class Budget:
    """How much a consumer has unpacked in this poll."""

    def __init__(self) -> None:
        self.spent = 0


class Record(NamedTuple):
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
            raise CorruptRecordException("the batch is larger than what is fetched at a time, or its length is wrong")
        self._at = end
        data = memoryview(self._data)[start:end]
        if end - start < _HEADER.size or data[16] != _MAGIC:
            raise CorruptRecordException("not a record batch of Kafka 0.11 or later")
        return _Batch(self, data)

    def unpacked(self, size: int) -> None:
        """Note down what was unpacked."""
        self.open_bytes = size
        self._budget.spent += size

    def _end(self) -> int | None:
        """Where the next batch ends; None where it isn't all there: a broker cuts the last one."""
        if len(self._data) - self._at < _OVERHEAD:
            return None
        (length,) = struct.unpack_from(">i", self._data, self._at + _LENGTH_AT)
        end = self._at + _OVERHEAD + length
        return end if length >= 0 and end <= len(self._data) else None


class _Batch:
    """A record batch; what isn't said here is aiokafka's."""

    def __init__(self, batches: Batches, data: memoryview) -> None:
        self._batches = batches
        self._data = data
        self._compiled = cast("Any", DefaultRecordBatch(cast("Any", data)))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._compiled, name)

    def __next__(self) -> Any:
        return next(self._compiled)

    def __iter__(self) -> Iterator[Any]:
        compiled, data = self._compiled, self._data
        if not compiled.compression_type:
            yield from _read(compiled, data)
            return
        header = _Header(*_HEADER.unpack_from(data))
        records = _unpacked(header, data)
        if records is None:
            yield _unread(header, data)
            return
        self._batches.unpacked(len(records))
        plain = memoryview(header.without_codec(len(records)) + records)
        yield from _read(cast("Any", DefaultRecordBatch(cast("Any", plain))), plain)


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


def _unpacked(header: _Header, data: memoryview) -> bytes | None:
    """The records of a compressed batch; None where they are beyond the bounds."""
    if header.records > RECORDS_MAX:
        return None
    try:
        return unpack(header.attributes & _CODEC, data[_HEADER.size :])
    except TooLarge:
        return None


def _read(compiled: Any, data: memoryview) -> Iterator[Any]:
    """The records of a batch that isn't compressed, or no longer.

    What was given before something was found wrong is given again; the fetcher drops it by its offset.
    """
    header = _Header(*_HEADER.unpack_from(data))
    whole = header.records == header.last_offset_delta + 1
    expected = header.base_offset
    try:
        if not whole:  # compacted
            yield from compiled
            return
        for record in compiled:
            if record.offset != expected:
                break
            expected += 1
            yield record
        else:
            return
    except Exception:  # noqa: BLE001, S110 - it raises whatever comes; what is really wrong is said by the letter
        pass
    yield from _by_the_letter(header, data, whole=whole)


def _by_the_letter(header: _Header, data: memoryview, *, whole: bool) -> Iterator[Record]:
    """The records as a broker reads them.

    Raises:
        CorruptRecordException: They can't be read by anybody.
    """
    appended = bool(header.attributes & _APPEND_TIME)
    reader = _Reader(data, _HEADER.size)
    try:
        for place in range(header.records):
            end = reader.number()
            end += reader.at
            reader.at += 1  # attributes, none of which is in use
            timestamp = header.first_timestamp + reader.number()
            delta = reader.number()
            key, value = reader.content(), reader.content()
            headers = [reader.header() for _ in range(reader.number())]
            if reader.at != end:
                raise CorruptRecordException("a record is not as long as it says")
            yield Record(
                header.base_offset + (place if whole else delta),
                header.max_timestamp if appended else timestamp,
                int(appended),
                key,
                value,
                headers,
            )
    except IndexError as error:
        raise CorruptRecordException("a record ends behind its batch") from error


class _Reader:
    """Reads numbers and bytes from where it stands."""

    def __init__(self, data: memoryview, at: int) -> None:
        self._data = data
        self.at = at

    def number(self) -> int:
        """A signed number: zigzag, seven bits a byte."""
        raw = shift = 0
        while True:
            byte = self._data[self.at]
            self.at += 1
            raw |= (byte & 0x7F) << shift
            if not byte & 0x80:
                return (raw >> 1) ^ -(raw & 1)
            shift += 7
            if shift > 63:
                raise CorruptRecordException("a number has no end")

    def content(self) -> bytes | None:
        """Bytes behind their length, None where that is negative."""
        length = self.number()
        if length < 0:
            return None
        start, self.at = self.at, self.at + length
        if self.at > len(self._data):
            raise IndexError
        return bytes(self._data[start : self.at])

    def header(self) -> tuple[str, bytes | None]:
        """A header; its name as it is, or written as `\\xff` where it isn't UTF-8."""
        return (self.content() or b"").decode(errors="backslashreplace"), self.content()


def _unread(header: _Header, data: memoryview) -> Record:
    batch = UnreadBatch(data)
    last = header.base_offset + header.last_offset_delta
    batch.first_offset, batch.records = header.base_offset, header.records
    batch.why = (
        f"a compressed batch of {header.records} records, offsets {header.base_offset} to {last}: at most "
        f"{RECORDS_MAX} records, and {UNPACKED_BYTES_MAX // 1024 // 1024} MiB when unpacked, are read"
    )
    appended = bool(header.attributes & _APPEND_TIME)
    return Record(last, header.max_timestamp, int(appended), None, batch, [])
