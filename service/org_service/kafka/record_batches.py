"""A record batch that is filled record by record and built once, without a future or a lock a record."""

from collections.abc import Callable
from typing import Any, Final, cast

from aiokafka import TopicPartition
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


class TopicBatches:
    """The batches of one topic that are being filled, by partition."""

    def __init__(
        self, name: str, partitions: int, batches: dict[TopicPartition, list[RecordBatch]], now_ms: int
    ) -> None:
        """Make one.

        Args:
            name: Of the topic.
            partitions: That it has.
            batches: Where new batches are put, with those of other topics.
            now_ms: The time of its records, milliseconds since 1970.
        """
        self._name = name
        self._now_ms = now_ms
        self._batches = batches
        self._open: list[RecordBatch | None] = [None] * partitions

    def append(self, key: bytes, key_hash: int, value: bytes | None, headers: list[tuple[str, bytes]]) -> int:
        """Add a record to the batch of its partition; returns its bytes."""
        partition = key_hash % len(self._open)
        batch = self._open[partition]
        added = None if batch is None else batch.add(batch.records, self._now_ms, key, value, headers)
        if batch is None or added is None:
            batch = self._open[partition] = RecordBatch()
            self._batches.setdefault(TopicPartition(self._name, partition), []).append(batch)
            added = batch.add(0, self._now_ms, key, value, headers)
            assert added is not None
        batch.records += 1
        return added.size
