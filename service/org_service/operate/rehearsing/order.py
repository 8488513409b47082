"""Records of all partitions in the order in which they were decided, a bounded part at a time. Pure.

The journal's positions say how partitions, each read in the order of its offsets, were interleaved. A command that was
parked and released was decided long after its neighbours; it waits for its position, and holds up nothing. So of a
partition the records behind one must be known before it goes: whoever was decided before all of these was in turn, and
nothing that is read later was decided before it. Records without an outcome of their own come right behind the one in
turn before them; the same command sent again never before the first one.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from heapq import heappop, heappush
from itertools import count
from typing import Final, NamedTuple

from org_service.domain.fates import Fate
from org_service.domain.requests import Record, Request, Unreadable
from org_service.store.recorded import Recorded

LOOK_AHEAD: Final = 100
"""Records of a partition that must be known before one goes: it may have been released later than these."""
BUFFERED_MAX: Final = 12_000
"""Records in memory, in all partitions; some 3 KB each with what was recorded of them."""
_LAST: Final = 1 << 62
"""Behind all positions."""


class Item(NamedTuple):
    """One record and what was recorded of it."""

    record: Record
    request: Request | Unreadable | None
    """What was read of it; None where our code raised."""
    fate: Fate
    own: Recorded | None = None
    """Its own row of the journal."""
    first: Recorded | None = None
    """Of a command that came again: the row of the first one."""
    vouched: str | None = None
    """Whose its token was, where it was accepted."""


class Order:
    """Merges partitions; `add` what was read, `take` what is in order."""

    def __init__(self, unfinished: Collection[int]) -> None:
        """Begin.

        Args:
            unfinished: The partitions that are not read to their end; whoever reads them removes them.
        """
        self._unfinished = unfinished
        self._unsorted: dict[int, list[Item]] = {partition: [] for partition in unfinished}
        """The last records of each partition."""
        self._reached = dict.fromkeys(unfinished, -1)
        """By partition, the position of the last one in turn: none that is not sorted is before it."""
        self._sorted: list[tuple[int, int, bool, Item]] = []
        """A heap: position, number among those of one position, whether it was in turn."""
        self._in_turn = Counter[int]()
        """Of the sorted ones, by partition."""
        self._numbers = count(1)
        self._sorted_max = max(LOOK_AHEAD, BUFFERED_MAX // max(1, len(self._unsorted)))

    @property
    def full(self) -> set[int]:
        """Partitions of which enough is there."""
        return {partition for partition, items in self._in_turn.items() if items >= self._sorted_max}

    @property
    def is_empty(self) -> bool:
        """Whether nothing is waiting."""
        return not self._sorted and not any(self._unsorted.values())

    def add(self, partition: int, items: Sequence[Item]) -> None:
        """Add the next records of a partition, in the order of their offsets."""
        self._unsorted[partition] += items
        self._sort(partition, LOOK_AHEAD)

    def _sort(self, partition: int, but: int) -> None:
        """Sort the records of a partition, but for the last ones."""
        items = self._unsorted[partition]
        first_behind: list[int] = []
        """For each, the first position behind it."""
        first = _LAST
        for item in reversed(items):
            first_behind.append(first)
            if item.own is not None and item.own.position < first:
                first = item.own.position
        first_behind.reverse()
        reached = self._reached[partition]
        if reached < 0:  # what comes before the first outcome goes with it
            reached = first - 1 if first < _LAST else 0
        ready = items[: max(0, len(items) - but)]
        for item, behind in zip(ready, first_behind, strict=False):
            if item.own is None:
                position, number = reached, next(self._numbers)
                if item.first is not None:
                    position = max(reached, item.first.position)
                in_turn = position == reached
            else:
                position, number = item.own.position, 0
                in_turn = position < behind
                if in_turn:
                    reached = position
            self._in_turn[partition] += in_turn
            heappush(self._sorted, (position, number, in_turn, item))
        if ready:
            self._reached[partition] = reached
            del items[: len(ready)]

    def take(self, most: int) -> list[Item]:
        """The next records, as far as nothing that is not read yet can come before them."""
        for partition, items in self._unsorted.items():
            if items and partition not in self._unfinished:
                self._sort(partition, 0)
        reached = min((self._reached[partition] for partition in self._unfinished), default=_LAST)
        waiting, taken = self._sorted, list[Item]()
        while waiting and waiting[0][0] <= reached and len(taken) < most:
            _, _, in_turn, item = heappop(waiting)
            self._in_turn[item.record.partition] -= in_turn
            taken.append(item)
        return taken
