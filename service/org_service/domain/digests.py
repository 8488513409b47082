"""Digests of what is compared by `orgs verify`: a count and an exclusive or, by bucket. Pure."""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

BUCKETS: Final = 1_024


class Digest(NamedTuple):
    """Of the things in a bucket."""

    things: int = 0
    xor: int = 0

    def __add__(self, other: Any) -> "Digest":
        return Digest(self.things + other.things, self.xor ^ other.xor)


NOTHING: Final = Digest()
Digests = dict[int, Digest]
"""By bucket; those that are missing are empty."""


def add(to: Digests, more: Mapping[int, Digest]) -> None:
    """Add digests of the same kind."""
    for number, digest in more.items():
        to[number] = to.get(number, NOTHING) + digest


def find_dirty(left: Mapping[int, Digest], right: Mapping[int, Digest]) -> set[int]:
    """The buckets that differ."""
    return {each for each in left.keys() | right.keys() if left.get(each, NOTHING) != right.get(each, NOTHING)}
