"""Record batches that were handed through a consumer whole (`SteadyConsumer(whole_batches=True)`), taken apart.

A client's object for each record costs 3 µs, the compiled reader's own 1 µs. And only a whole batch says in which
leader's epoch it was written, by which a reader tells that a log lost its end (`epochs`).
"""

import struct
from collections.abc import Sequence
from typing import Any, Final, NamedTuple, Protocol, cast

from aiokafka.record.default_records import DefaultRecordBatch

from org_events.kafka.batches import Batches, Budget, UnreadBatch, WholeBatch

_EPOCH_AT: Final = 12
"""Behind base offset and length."""


class BatchRecord(Protocol):
    """A record of a batch, as the compiled reader gives it."""

    @property
    def offset(self) -> int: ...  # noqa: D102
    @property
    def timestamp(self) -> int: ...  # noqa: D102 - milliseconds since 1970
    @property
    def key(self) -> bytes | None: ...  # noqa: D102
    @property
    def value(self) -> bytes | None: ...  # noqa: D102
    @property
    def headers(self) -> Sequence[tuple[str, bytes | None]]: ...  # noqa: D102


def open_batch(batch: WholeBatch | UnreadBatch, start: int = 0) -> Sequence[BatchRecord]:
    """The records of a batch from an offset on; of one that can't be taken apart itself, as the only record."""
    return [record for record in _open(batch) if record.offset >= start]


def read_epoch(batch: WholeBatch) -> int:
    """In which epoch of its partition's leader a batch was written."""
    (epoch,) = struct.unpack_from(">i", batch, _EPOCH_AT)
    return epoch


def _open(batch: WholeBatch | UnreadBatch) -> Sequence[BatchRecord]:
    if isinstance(batch, UnreadBatch):
        return [_Unreadable(batch.first_offset, batch)]
    try:
        return cast("Sequence[BatchRecord]", [*cast("Any", DefaultRecordBatch(cast("Any", batch)))])
    except Exception:  # noqa: BLE001 - it raises whatever comes; the careful reader says what is really wrong
        return cast("Sequence[BatchRecord]", [*Batches(Budget(), batch).next_batch()])


class _Unreadable(NamedTuple):
    offset: int
    value: UnreadBatch
    timestamp: int = 0
    key: None = None
    headers: tuple[()] = ()
