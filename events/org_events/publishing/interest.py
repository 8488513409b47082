"""Which partitions of the results may still hold an outcome that somebody wants. No I/O.

The result of a command is on the partition of its organization. While topics grow, that is the one by the former number
or by the new one, so each number that a client has seen counts for as long as it lives.
"""

from functools import lru_cache
from typing import Final
from uuid import UUID

from org_events.commands import AnyCommand, UncheckedCommand
from org_events.topics import partition_for

find_partition: Final = lru_cache(4_096)(partition_for)
"""`partition_for`, which costs 10 microseconds: for the result and then for the record of a command, and busy
organizations come again."""

Keys = tuple[bytes, ...]
"""Of the records that may hold an outcome."""
ANY: Final[Keys] = ()
"""Nobody knows which: all partitions are of interest."""


def keys_of_result(command: AnyCommand, command_id: UUID) -> Keys:
    """The key of a result is the organization's id, or the command's where the service can't read that."""
    org = str(command.org_id).encode()
    return (org, str(command_id).encode()) if isinstance(command, UncheckedCommand) else (org,)


@lru_cache(4_096)
def _spread(keys: Keys, counts: tuple[int, ...]) -> frozenset[int]:
    if keys == ANY:
        return frozenset(range(max(counts, default=0)))
    return frozenset(find_partition(key, count) for key in keys for count in counts)


class Interest:
    """Who is interested in which partitions; kept by command ids, or by whatever else stands for somebody."""

    def __init__(self) -> None:
        self._counts: tuple[int, ...] = ()
        self._keys: dict[object, Keys] = {}
        self._holders: dict[int, int] = {}
        """By partition: how many are interested."""

    def __contains__(self, who: object) -> bool:
        return who in self._keys

    def learn(self, partitions: int) -> None:
        """The topic of the results, or that of the commands, has so many partitions."""
        if partitions not in self._counts:
            self._counts = (*self._counts, partitions)
            self._holders.clear()
            for keys in self._keys.values():
                self._count(keys, 1)

    def hold(self, who: object, keys: Keys) -> None:
        """Be interested, in what they were interested in before too."""
        before = self._keys.get(who)
        if before is not None:
            if before in (keys, ANY):
                return
            keys = ANY if keys == ANY else tuple({*before, *keys})
            self.release(who)
        self._keys[who] = keys
        self._count(keys, 1)

    def release(self, who: object) -> None:
        """Be interested no more; that may be said again."""
        keys = self._keys.pop(who, None)
        if keys is not None:
            self._count(keys, -1)

    def keys_of(self, who: object) -> Keys:
        """The keys of what they are interested in; all, where they are not."""
        return self._keys.get(who, ANY)

    def find(self, keys: Keys) -> frozenset[int]:
        """The partitions where records with these keys may be."""
        return _spread(keys, self._counts)

    def wants(self, partition: int) -> bool:
        """Whether anybody is interested."""
        return self._holders.get(partition, 0) > 0

    def _count(self, keys: Keys, change: int) -> None:
        for partition in _spread(keys, self._counts):
            self._holders[partition] = self._holders.get(partition, 0) + change
