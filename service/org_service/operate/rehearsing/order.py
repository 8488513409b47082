"""Records of all partitions in the order in which they were decided, a bounded part at a time. Pure.

Partitions are read side by side, and each is a queue in the order of its offsets; the journal's positions say how they
were interleaved. A command that was parked and released was decided long after its neighbours: it waits apart for its
position, so that it doesn't hold up its partition. Records that have no outcome of their own come right behind the one
before them; the same command sent again never before the first one.
"""

import heapq
from collections import deque
from collections.abc import Collection, Sequence
from itertools import count
from typing import Final, NamedTuple

from org_service.domain.fates import Fate
from org_service.domain.requests import Record, Request, Unreadable
from org_service.store.recorded import Recorded

LOOK_AHEAD: Final = 100
"""Records of a partition that must be there before its first one goes: it may have been released later than these."""
BUFFERED_MAX: Final = 24_000
"""Records in memory, in all partitions; some 3 KB each with what was recorded of them."""

_Key = tuple[int, int]


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
    position: int = 0
    """Where it stands in the order."""


class Order:
    """Merges partitions; `add` what was read, `take` what is in order."""

    def __init__(self, unfinished: Collection[int]) -> None:
        """Begin.

        Args:
            unfinished: The partitions that are not read to their end; whoever reads them removes them.
        """
        self._unfinished = unfinished
        self._queues: dict[int, deque[tuple[_Key, Item]]] = {partition: deque() for partition in unfinished}
        self._last: dict[int, int] = {}
        """By partition, the position of the last one in its order."""
        self._apart: list[tuple[_Key, Item]] = []
        self._numbers = count(1)
        self._queued_max = max(2 * LOOK_AHEAD, BUFFERED_MAX // max(1, len(self._queues)))

    @property
    def full(self) -> set[int]:
        """Partitions of which enough is there."""
        return {partition for partition, queue in self._queues.items() if len(queue) >= self._queued_max}

    @property
    def is_empty(self) -> bool:
        """Whether nothing is waiting."""
        return not self._apart and not any(self._queues.values())

    def add(self, partition: int, items: Sequence[Item]) -> None:
        """Add the next records of a partition, in the order of their offsets."""
        queue = self._queues[partition]
        lowest = min((item.own.position for item in items if item.own is not None), default=None)
        if lowest is not None and queue and queue[-1][0][0] > lowest:
            while queue and queue[-1][0][0] > lowest:
                heapq.heappush(self._apart, queue.pop())
            self._last[partition] = queue[-1][0][0] if queue else lowest - 1
        last = self._last.get(partition)
        if last is None:  # what comes before the first outcome goes with it
            last = next((item.own.position for item in items if item.own is not None), 1) - 1
        for item, in_turn in zip(items, _in_turn(items), strict=True):
            key, item_in_turn = self._key(item, last), in_turn
            if item.first is not None:
                item_in_turn = key[0] == last
            entry = (key, item._replace(position=key[0]))
            if item_in_turn:
                queue.append(entry)
                last = key[0]
            else:
                heapq.heappush(self._apart, entry)
        self._last[partition] = last

    def _key(self, item: Item, last: int) -> _Key:
        if item.own is not None:
            return item.own.position, 0
        return last if item.first is None else max(last, item.first.position), next(self._numbers)

    def take(self, most: int) -> list[Item]:
        """The next records, as far as nothing that is not read yet can come before them."""
        queues, apart, unfinished = self._queues, self._apart, self._unfinished
        if any(len(queues[partition]) < LOOK_AHEAD for partition in unfinished):
            return []
        heads = [(queue[0][0], partition) for partition, queue in queues.items() if queue]
        heapq.heapify(heads)
        taken: list[Item] = []
        while len(taken) < most:
            if apart and (not heads or apart[0][0] < heads[0][0]):
                taken.append(heapq.heappop(apart)[1])
                continue
            if not heads:
                break
            partition = heads[0][1]
            queue = queues[partition]
            taken.append(queue.popleft()[1])
            if queue:
                heapq.heapreplace(heads, (queue[0][0], partition))
            else:
                heapq.heappop(heads)
            if partition in unfinished and len(queue) < LOOK_AHEAD:
                break
        return taken


def _in_turn(items: Sequence[Item]) -> list[bool]:
    """Which of the next records of a partition were decided before all those behind them."""
    smallest: int | None = None
    found: list[bool] = []
    for item in reversed(items):
        if item.own is None:
            found.append(True)
            continue
        found.append(smallest is None or item.own.position <= smallest)
        smallest = item.own.position if smallest is None else min(smallest, item.own.position)
    found.reverse()
    return found
