"""An account of commands of which Kafka lost some, told as if it had lost none.

A log that lost its end gives the same offsets out again, so a place in the journal may stand for either of two records.
Here what was lost keeps its offsets, and what came after it gets later ones: one log without an end that was lost, as
the checker knows it. What was lost before a worker had decided it never was, for anybody but its publisher.
"""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from tests.support.ledger import command_id_of
from tests.support.observed import JournaledOutcome, Observed, Record
from tests.support.published import Published
from tests.support.sending import Publisher, Sending


class _Lost(NamedTuple):
    record: Record
    offset: int
    """In the one log."""


class LostCommands:
    """What `orgs.commands` lost, one loss after the other."""

    def __init__(self) -> None:
        self._shifts: dict[int, list[tuple[int, int]]] = defaultdict(lambda: [(0, 0)])
        """By partition: from which offset on today's log is how far behind the one log."""
        self._lost: dict[tuple[int, int, str | None], list[_Lost]] = defaultdict(list)
        """By place and command id, in order."""
        self._entries: list[Published] = []

    def take(self, publisher: Publisher, ends: Mapping[int, int]) -> list[Sending]:
        """Take what was lost out of a publisher's notes; returns it in order, to be sent again.

        Args:
            publisher: Of everything. All that it sent was acknowledged.
            ends: Where partitions end now.
        """

        def is_lost(partition: int | None, offset: int | None) -> bool:
            return partition is not None and offset is not None and offset >= ends.get(partition, offset + 1)

        records = [each for each in publisher.records if is_lost(each.partition, each.offset)]
        entries = {
            (each.partition, each.offset): each for each in publisher.published if is_lost(each.partition, each.offset)
        }
        publisher.records[:] = [each for each in publisher.records if not is_lost(each.partition, each.offset)]
        publisher.published[:] = [each for each in publisher.published if not is_lost(each.partition, each.offset)]
        for record in records:
            lost = _Lost(record, self._place(record.partition, record.offset))
            self._lost[record.partition, record.offset, command_id_of(record)].append(lost)
            entry = entries[record.partition, record.offset]
            self._entries.append(replace(entry, offset=lost.offset))
        for partition, end in ends.items():
            self._go_on(
                partition, end, max((each.offset for each in records if each.partition == partition), default=-1)
            )
        return [_sending(record, entries[record.partition, record.offset]) for record in records]

    def tell(self, observed: Observed, published: Sequence[Published]) -> tuple[Observed, list[Published]]:
        """What was observed, and what publishers wrote down, of the one log."""
        now = {(each.partition, each.offset): each for each in observed.commands}
        commands = [replace(each, offset=self._place(each.partition, each.offset)) for each in observed.commands]
        journal: list[JournaledOutcome] = []
        decided: set[tuple[int, int]] = set()
        for row in observed.journal:
            lost = self._find(row, now.get((row.command_partition, row.command_offset)))
            if lost is None:
                offset = self._place(row.command_partition, row.command_offset)
            else:
                offset = lost.offset
                decided.add((row.command_partition, offset))
                commands.append(replace(lost.record, offset=offset))
            journal.append(replace(row, command_offset=offset))
        entries = [each for each in self._entries if (each.partition, each.offset) in decided]
        entries += [
            each
            if each.partition is None or each.offset is None
            else replace(each, offset=self._place(each.partition, each.offset))
            for each in published
        ]
        commands.sort(key=lambda each: (each.partition, each.offset))
        return replace(observed, commands=commands, journal=journal), entries

    def _find(self, row: JournaledOutcome, now: Record | None) -> _Lost | None:
        """The record of a row, where it is one of those that were lost: the last that was there at the time."""
        lost = self._lost.get((row.command_partition, row.command_offset, row.command_id), [])
        if not lost or (now is not None and command_id_of(now) == row.command_id and _was_there(now, row)):
            return None
        return next((each for each in reversed(lost) if _was_there(each.record, row)), None)

    def _place(self, partition: int, offset: int) -> int:
        """In the one log, of an offset of today's."""
        shifts = self._shifts[partition]
        return offset + shifts[bisect_right(shifts, (offset, 1 << 62)) - 1][1]

    def _go_on(self, partition: int, end: int, last: int) -> None:
        if last < end:
            return
        behind = self._place(partition, last) + 1 - end
        self._shifts[partition] = [each for each in self._shifts[partition] if each[0] < end] + [(end, behind)]


def _was_there(record: Record, row: JournaledOutcome) -> bool:
    return record.timestamp <= row.recorded_at.timestamp() * 1000


def _sending(record: Record, entry: Published) -> Sending:
    return Sending(entry.command_id, entry.org_id, entry.type, record.key, record.headers, record.value)
