"""What `orgs.events` and `orgs.results` hold, as digests or record by record.

Records say their position, so a topic is taken as of a position exactly, while more is published. What is in order to
be kept is a bit a position: which were seen.
"""

import asyncio
import re
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import md5
from typing import Any, Final, Literal, NamedTuple

from org_events.kafka.batches import UnreadBatch, WholeBatch
from org_events.kafka.whole import BatchRecord, open_batch
from org_service.domain.digests import BUCKETS, NOTHING, Digest, Digests, add, fold, window_of
from org_service.kafka.client import TopicPartition
from org_service.kafka.whole_batches import STALL_S, Bounds, read_batches, read_unopened
from org_service.operate.verifying.usual import count_usual, digest_usual
from org_service.settings import KafkaSettings
from org_service.wire.changes import RUN_HEADER

STRANGE_MAX: Final = 100
REPEATS_MAX: Final = 100_000
"""Records with a position that was there before, such as outcomes of duplicates and replays; some 10 MB."""
_POSITION: Final = b'"position":'
_BODY_AT: Final = 46
"""Before it there is no position, in events and results."""

_POSITION_OF: Final = re.compile(rb'"position":([0-9]+)')

Log = Literal["events", "results"]


class Pace:
    """Leaves the processor to others: a share of one is used, on average."""

    def __init__(self, share: float = 1.0) -> None:
        """Make one that uses at most such a share of a processor."""
        self._share = share
        self._since = time.thread_time()

    async def rest(self, extra_s: float = 0.0) -> None:
        """Wait for what was used since the last rest, and for what others used for us."""
        used_s = time.thread_time() - self._since + extra_s
        await asyncio.sleep(used_s * (1 / self._share - 1) if self._share < 1 else 0)
        self._since = time.thread_time()


class Entry(NamedTuple):
    """A record of a position."""

    digest: bytes
    partition: int
    offset: int
    replayed: bool = False


class Strange(NamedTuple):
    """A record that is none of ours."""

    partition: int
    offset: int
    key: str
    why: str


@dataclass(slots=True)
class LogScan:
    """What part of a topic holds."""

    digests: Digests = field(default_factory=dict[int, Digest])
    """By window of positions."""
    seen: bytearray = field(default_factory=bytearray)
    """A bit a position."""
    records: int = 0
    repeats: dict[int, list[Entry]] = field(default_factory=dict[int, list[Entry]])
    """By position: all but the first, and what was replayed."""
    repeats_left_out: int = 0
    strange: list[Strange] = field(default_factory=list[Strange])
    last: tuple[int, int, int] = (0, 0, 0)
    """The highest position of all, its partition and offset."""
    entries: dict[int, list[Entry]] = field(default_factory=dict[int, list[Entry]])
    """Of the windows that were asked for, by position."""

    def note(self, window: int, digests: Sequence[bytes]) -> None:
        """Add records of a window of positions."""
        if digests:
            self.digests[window] = self.digests.get(window, NOTHING) + fold(digests)

    def merge(self, other: "LogScan") -> None:
        """Add another part."""
        add(self.digests, other.digests)
        ours, theirs = int.from_bytes(self.seen, "little"), int.from_bytes(other.seen, "little")
        self.seen = bytearray((ours | theirs).to_bytes(max(len(self.seen), len(other.seen)), "little"))
        self.records += other.records
        for position, entries in other.repeats.items():
            self.repeats.setdefault(position, []).extend(entries)
        self.repeats_left_out += other.repeats_left_out
        self.strange += other.strange
        self.last = max(self.last, other.last)
        for position, entries in other.entries.items():
            self.entries.setdefault(position, []).extend(entries)


def bucket_of(key: bytes | str) -> int:
    """The bucket of a UUID of 36 characters: its last ten bits."""
    return int(key[33:36], 16) & (BUCKETS - 1)


async def scan_log(
    kafka: KafkaSettings,
    log: Log,
    ranges: Mapping[TopicPartition, Bounds],
    *,
    low: int,
    through: int,
    skip: bytes | bytearray | None = None,
    wanted: Collection[int] = (),
    pace: Pace | None = None,
    stall_s: float = STALL_S,
) -> LogScan:
    """Read partitions of events or results.

    Args:
        kafka: Where.
        log: Which.
        ranges: What to read.
        low: Nothing up to this position is asked for.
        through: Nor behind this one.
        skip: Nor where a bit is set.
        wanted: Keep the records of these windows one by one.
        pace: How much of a processor may be used.
        stall_s: As `read_batches`.
    """
    scan, pace = LogScan(seen=bytearray((through >> 3) + 1)), pace or Pace()
    asked = low, through, skip
    async for at, _, batch in read_unopened(kafka, ranges, stall_s=stall_s):
        done, start = 0, ranges[at].start
        if not wanted and isinstance(batch, WholeBatch) and (records := count_usual(batch, start)):
            done = digest_usual(scan, log, at.partition, batch, records, asked)
            if done == records:
                await pace.rest()
                continue
        scan_rest(scan, log, at.partition, open_batch(batch, start), asked, done, frozenset(wanted))
        await pace.rest()
    return scan


def scan_rest(  # noqa: PLR0917 - as `scan_records`
    scan: LogScan,
    log: Log,
    partition: int,
    records: Sequence[BatchRecord],
    asked: tuple[int, int, bytes | bytearray | None],
    done: int,
    wanted: frozenset[int] = frozenset(),
) -> None:
    """As `scan_records`, but for the first ones, which are `done`; whoever could not read on is not among them."""
    unread = bool(records) and isinstance(records[-1].value, UnreadBatch)
    scan_records(scan, log, partition, records[min(done, len(records) - unread) :], asked, wanted)


def scan_records(  # noqa: PLR0917 - once a batch
    scan: LogScan,
    log: Log,
    partition: int,
    records: Sequence[BatchRecord],
    asked: tuple[int, int, bytes | bytearray | None],
    wanted: frozenset[int] = frozenset(),
) -> None:
    """Digest records one by one; arguments are those of `scan_log`, `asked` being low, through and skip."""
    low, through, skip = asked
    events, seen = log == "events", scan.seen
    digests: dict[int, list[bytes]] = {}
    start = 0
    for record in records:
        value = record.value
        try:
            key = record.key
            assert key is not None
            assert value is not None
            start = value.index(_POSITION, _BODY_AT) + 11
            position = int(value[start : value.index(b",", start)])
            if key != (value[11:47] if events else value[63:99]) and (events or key != value[15:51]):
                raise ValueError("its key is not that of its body")  # noqa: TRY301 - told with the others
        except (AssertionError, ValueError) as error:
            if not events and value is not None and value[start : start + 4] == b"null":
                continue  # an outcome that is not final, or of another payload
            _note_strange(scan, partition, record, error)
            continue
        if position > through:
            scan.last = max(scan.last, (position, partition, record.offset))
            continue
        bit = 1 << (position & 7)
        if position <= low or (skip is not None and skip[position >> 3] & bit):
            continue
        replayed = False
        if events:
            headers = record.headers
            kind, replayed = _kind(headers)
            value = kind + value
        digest = md5(value).digest()  # noqa: S324 - of what is ours; see `store.verification`
        window = window_of(position)
        if window in wanted:
            entry = Entry(digest, partition, record.offset, replayed)
            scan.entries.setdefault(position, []).append(entry)
        if replayed or seen[position >> 3] & bit:
            if len(scan.repeats) < REPEATS_MAX:
                scan.repeats.setdefault(position, []).append(Entry(digest, partition, record.offset, replayed))
            else:
                scan.repeats_left_out += 1
            continue
        seen[position >> 3] |= bit
        digests.setdefault(window, []).append(digest)
    for window, those in digests.items():
        scan.note(window, those)
    scan.records += len(records)


def _kind(headers: Sequence[tuple[str, bytes | None]]) -> tuple[bytes, bool]:
    """The type of an event, and whether a run sent it again. Ours have them where they are looked for first."""
    if len(headers) > 1 and headers[1][0] == "ce_type":
        kind = headers[1][1] or b""
    else:
        kind = dict(headers).get("ce_type") or b""
    return kind, bool(headers) and headers[-1][0] == RUN_HEADER


def _note_strange(scan: LogScan, partition: int, record: BatchRecord, error: Exception) -> None:
    if len(scan.strange) < STRANGE_MAX:
        if isinstance(record.value, UnreadBatch):
            why = f"nobody can read it: {record.value.why}"
        else:
            why = str(error) if str(error).startswith("its key") else "it has no position, organization or body as ours"
        key = (record.key or b"").decode(errors="replace")
        scan.strange.append(Strange(partition, record.offset, key, why))


async def find_record(kafka: KafkaSettings, at: TopicPartition, offset: int, end: int) -> Any:
    """Read one record; None where it is gone.

    Args:
        kafka: Where.
        at: Its partition.
        offset: Its offset.
        end: Of the partition.
    """
    async for _, records in read_batches(kafka, {at: Bounds(offset, end)}):
        return next((record for record in records if record.offset == offset), None)
    return None


async def find_first(kafka: KafkaSettings, at: TopicPartition, bounds: Bounds, otherwise: int) -> int:
    """The first position that a partition of events or results still holds; `otherwise + 1` where it holds none."""
    async for _, records in read_batches(kafka, {at: bounds}):
        for record in records:
            found = _POSITION_OF.search(record.value or b"")
            if found is not None:
                return int(found[1])
    return otherwise + 1
