"""Digests of what is compared by `orgs verify`: a count and an exclusive or. Pure.

Of organizations and facts by bucket, which their keys decide; of what has a position by window of positions.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

BUCKETS: Final = 1_024
WINDOW: Final = 10_000
"""Positions in one digest: where one differs, so many are compared one by one."""
BITS: Final = 128
"""Of the digest of one thing."""


class Digest(NamedTuple):
    """Of the things in a bucket."""

    things: int = 0
    xor: int = 0

    def __add__(self, other: Any) -> "Digest":
        return Digest(self.things + other.things, self.xor ^ other.xor)


NOTHING: Final = Digest()
Digests = dict[int, Digest]
"""By bucket, or by window; those that are missing are empty."""


def add(to: Digests, more: Mapping[int, Digest]) -> None:
    """Add digests of the same kind."""
    for number, digest in more.items():
        to[number] = to.get(number, NOTHING) + digest


def find_dirty(left: Mapping[int, Digest], right: Mapping[int, Digest]) -> set[int]:
    """The buckets, or windows, that differ."""
    return {each for each in left.keys() | right.keys() if left.get(each, NOTHING) != right.get(each, NOTHING)}


def window_of(position: int) -> int:
    """The window of a position: 1 to 10,000 are the first one, 0."""
    return (position - 1) // WINDOW


def fold(digests: Sequence[bytes]) -> Digest:
    """The digest of things that have these digests.

    Half of them on the other half, as one long number: a fiftieth of what one by one takes.
    """
    left, number = len(digests), int.from_bytes(b"".join(digests), "big")
    odd = 0
    while left > 1:
        if left & 1:
            odd ^= number & (1 << BITS) - 1
            number >>= BITS
        left >>= 1
        number = number >> left * BITS ^ number & (1 << left * BITS) - 1
    return Digest(len(digests), number ^ odd)
