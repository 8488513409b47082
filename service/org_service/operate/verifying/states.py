"""What `orgs.state` folds to, as digests or key by key.

The last record of each key counts. A partition's keys are in memory at a time, each with its digest: 20 MB for 80,000.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import md5
from typing import NamedTuple

from org_events.kafka.whole import BatchRecord
from org_service.domain.digests import NOTHING, Digest, Digests, add, fold
from org_service.kafka.client import TopicPartition
from org_service.kafka.whole_batches import STALL_S, Bounds, group, read_batches
from org_service.operate.verifying.logs import STRANGE_MAX, Pace, Strange, bucket_of
from org_service.settings import KafkaSettings
from org_service.wire.changes import hash_key


class StateEntry(NamedTuple):
    """The last record of a key."""

    digest: bytes
    """Empty for a tombstone."""
    partition: int
    offset: int


@dataclass(slots=True)
class StateScan:
    """What part of `orgs.state` folds to."""

    digests: Digests = field(default_factory=dict[int, Digest])
    keys: int = 0
    records: int = 0
    moved: list[str] = field(default_factory=list[str])
    """Organizations that changed since, and of which compaction took what was before."""
    entries: dict[str, StateEntry] = field(default_factory=dict[str, StateEntry])
    strange: list[Strange] = field(default_factory=list[Strange])

    def merge(self, other: "StateScan") -> None:
        """Add another part."""
        add(self.digests, other.digests)
        self.keys += other.keys
        self.records += other.records
        self.moved += other.moved
        self.entries |= other.entries
        self.strange += other.strange


async def scan_state(
    kafka: KafkaSettings,
    ranges: Mapping[TopicPartition, Bounds],
    *,
    through: int,
    partitions: int | None,
    wanted: Collection[int] = (),
    pace: Pace | None = None,
    stall_s: float = STALL_S,
) -> StateScan:
    """Fold partitions of `orgs.state`, large ones one after the other.

    Args:
        kafka: Where.
        ranges: What to read.
        through: Records behind this position are left out.
        partitions: How many there are, where the topic grew: records that were left behind don't count.
        wanted: Keep the last records of these buckets one by one.
        pace: How much of a processor may be used.
        stall_s: As `read_batches`.
    """
    scan, pace = StateScan(), pace or Pace()
    for together in group(ranges):
        folds = {at: _Fold({}, {}, set()) for at in together}
        async for at, records in read_batches(kafka, together, stall_s=stall_s):
            _fold(scan, at.partition, records, through, folds[at], wanted)
            await pace.rest()
        for at, of in folds.items():
            _add_fold(scan, at.partition, of, partitions, wanted)
    return scan


def _add_fold(scan: StateScan, partition: int, of: "_Fold", partitions: int | None, wanted: Collection[int]) -> None:
    """Add what a partition folds to."""
    digests: dict[int, list[bytes]] = {}
    for key, digest in of.last.items():
        if partitions is not None and hash_key(key) % partitions != partition:
            continue
        bucket = bucket_of(key)
        if bucket in wanted:
            scan.entries[key.decode()] = StateEntry(digest, partition, of.offsets[key])
        if digest:
            digests.setdefault(bucket, []).append(digest)
    for bucket, those in digests.items():
        scan.keys += len(those)
        scan.digests[bucket] = scan.digests.get(bucket, NOTHING) + fold(those)
    scan.moved += [key.decode() for key in of.behind - of.last.keys()]


class _Fold(NamedTuple):
    """Of a partition."""

    last: dict[bytes, bytes]
    """By key its digest, empty for a tombstone."""
    offsets: dict[bytes, int]
    """By key, of the buckets that are asked for."""
    behind: set[bytes]
    """Keys with a later record than is asked for."""


def _fold(  # noqa: PLR0917 - once a batch
    scan: StateScan,
    partition: int,
    records: Sequence[BatchRecord],
    through: int,
    of: _Fold,
    wanted: Collection[int],
) -> None:
    last, offsets, behind = of
    for record in records:
        key, value, headers = record.key, record.value, record.headers
        try:
            version, position = headers[0][1], headers[1][1]
            if headers[0][0] != "ce_orgversion" or headers[1][0] != "ce_position" or position is None:
                raise IndexError  # noqa: TRY301
            assert key is not None
            int(key[33:36], 16)
            if len(key) == 36 and int(position) > through:
                behind.add(key)
                continue
        except (AssertionError, IndexError, ValueError):
            # Not ours; and yet it is what a reader of the topic takes for the last word.
            version = b"?"
            if key is None or len(key) != 36 or not _is_hex(key[33:]):
                if len(scan.strange) < STRANGE_MAX:
                    name = (key or b"").decode(errors="replace")
                    scan.strange.append(Strange(partition, record.offset, name, "its key is no organization"))
                continue
        said: bytes = version or b""
        digest = b"" if value is None else md5(b"%b %b %b" % (key, said, value)).digest()  # noqa: S324 - as above
        last[key] = digest
        if wanted and bucket_of(key) in wanted:
            offsets[key] = record.offset
    scan.records += len(records)


def _is_hex(digits: bytes) -> bool:
    try:
        int(digits, 16)
    except ValueError:
        return False
    return True
