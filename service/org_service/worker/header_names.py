"""Header *names* that are not UTF-8, read all the same.

Kafka's protocol says that a header's name is UTF-8; clients that keep names as bytes can write any. aiokafka 0.14
decodes the name while it parses the record, and what it raises leaves `getmany` before anything is handed over: the
partition stands still, for every worker, for ever (seen). There is no option and no hook, so `install` puts a reader
of ours in the place of the fetcher's. It is aiokafka's own compiled one, at its own speed; a batch that it can't decode
is read again by aiokafka's Python one, with such names written as `\\xff`. Nothing else differs.
"""

import struct
from collections.abc import Iterator
from typing import Any, Final, SupportsIndex, cast

from aiokafka.consumer import fetcher
from aiokafka.record.default_records import _DefaultRecordBatchPy  # pyright: ignore[reportPrivateUsage]
from aiokafka.record.memory_records import MemoryRecords

_LENGTH_AT: Final = 8
"""A record batch begins with its base offset (8 bytes) and its length (4), which counts what comes after it."""
_OVERHEAD: Final = 12


def install() -> None:
    """Make every consumer of this process read such records. May be called again."""
    fetcher.MemoryRecords = _Records  # pyright: ignore[reportAttributeAccessIssue]


class _Records:
    """`MemoryRecords`, which also knows where each batch's bytes are."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._start = 0
        self._compiled = cast("Any", MemoryRecords(data))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._compiled, name)

    def next_batch(self) -> "_Batch":
        start = self._start
        (length,) = struct.unpack_from(">i", self._data, start + _LENGTH_AT)
        self._start = start + _OVERHEAD + length
        return _Batch(self._compiled.next_batch(), memoryview(self._data)[start : self._start])


class _Batch:
    """A record batch; decoded at once when it is iterated, so that a failure comes before its first record."""

    def __init__(self, compiled: Any, data: memoryview) -> None:
        self._compiled = compiled
        self._data = data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._compiled, name)

    def __next__(self) -> Any:
        return next(self._compiled)

    def __iter__(self) -> Iterator[Any]:
        try:
            return iter(list(self._compiled))
        except UnicodeDecodeError:
            batch = cast("Any", _DefaultRecordBatchPy(self._data))
            iter(batch)  # decompresses
            batch._buffer = _Bytes(batch._buffer)
            return batch


class _Bytes(bytearray):
    """Bytes whose slices decode whatever they hold."""

    def __getitem__(self, at: SupportsIndex | slice) -> Any:
        found = super().__getitem__(at)
        return _Text(found) if isinstance(found, bytearray) else found


class _Text(bytearray):
    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:  # noqa: ARG002 - the caller's is too strict
        return super().decode(encoding, "backslashreplace")
