"""A record batch that is filled record by record and built once, without a future or a lock a record."""

from collections.abc import Callable
from typing import Any, Final, cast

from aiokafka.record.default_records import DefaultRecordBatchBuilder

from org_events.topics import RECORD_BATCH_BYTES_MAX

BATCH_BYTES_MAX: Final = RECORD_BATCH_BYTES_MAX - 12
"""Topics take 12 bytes more, for the offset and length before a batch. A record that is larger by itself gets a batch
of its own, and the broker judges. A command is 64 KiB at most, so no record of ours is larger than a fifth of it."""
_MAGIC: Final = 2
_UNCOMPRESSED: Final = 0


_Add = Callable[[int, int, bytes | None, bytes | None, list[tuple[str, bytes]]], Any]


class RecordBatch:
    """A record batch (format 2, KIP-98) that is being filled, then built once."""

    __slots__ = ("_builder", "add", "records")

    def __init__(self) -> None:
        self.records = 0
        """Whoever adds one counts it."""
        self._builder = DefaultRecordBatchBuilder(_MAGIC, _UNCOMPRESSED, 1, -1, -1, 0, BATCH_BYTES_MAX)
        self.add = cast("_Add", self._builder.append)
        """Place, timestamp, key, value, headers: None where the batch is full; an empty one takes any record."""

    def build(self, producer_id: int, epoch: int, first_sequence: int) -> bytearray:
        """The bytes to send. Once only; the batch takes no more records."""
        self._builder.set_producer_state(producer_id, epoch, first_sequence)
        return self._builder.build()
