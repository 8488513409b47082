"""Where a subscriber keeps how far it is: beside what it does with changes, so that both are one transaction.

A store has four methods, and whoever has another database writes them: `org_events.subscribing.conformance` tests them.
What is kept belongs to one subscriber, by its name. Keys are organization ids as Kafka has them, 36 characters; known
versions are numbers with a sign (see `org_events.subscribing.folding`).
"""

from collections.abc import Collection, Mapping, MutableMapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final, NamedTuple, Protocol, TypeVar
from uuid import UUID

from org_events.topics import partitions_for

Session = TypeVar("Session")

_HASHES: Final = 1 << 31


class Mark(NamedTuple):
    """Where a subscriber is in one partition."""

    topic_id: UUID
    """Of `orgs.events`: of another topic of the same name the offsets say nothing."""
    offset: int
    """Of `orgs.events`, to continue at."""
    loading: bool
    """Whether `orgs.state` is being loaded: a load that was interrupted begins again."""
    whole: bool
    """Whether all organizations are known, because they were loaded."""
    partitions: int
    """How many there were when this one was first read: of whose keys it has a part, when there are more."""
    epoch: int = -1
    """Of the leader that wrote the last record that was read; -1 where none was."""
    epoch_offset: int = 0
    """Behind that record."""


class Parked(NamedTuple):
    """A change that waits, because the handler raised for it or for one before it of the same organization."""

    key: bytes
    version: int
    content: bytes
    """The change, as `org_events.subscribing.parking` packs it."""
    reason: str
    """What was raised; empty of those that only wait behind."""


class Claim(NamedTuple):
    """What a store says to whoever takes a partition over."""

    fence: int
    """To be given with the next `save`, which raises it by 1. Whoever has an older one can't save any more."""
    marks: Mapping[int, Mark]
    """Of all partitions."""
    parked: Sequence[Parked]
    """Of this partition's organizations, in the order of their versions."""


class Progress(NamedTuple):
    """What is saved in one transaction; of one partition."""

    partition: int
    fence: int
    mark: Mark
    versions: Mapping[bytes, int]
    """By key, as they are known from now on."""
    parked: Sequence[Parked] = ()
    """To be kept behind those that are there."""
    released: Sequence[tuple[bytes, int]] = ()
    """Keys and versions of those that are parked no longer."""


class Store(Protocol[Session]):
    """Keeps what one subscriber knows. Several processes may share one; each partition is written by one of them."""

    async def claim(self, partition: int, partitions: int) -> Claim:
        """Take a partition over: durably raise its fence, so that whoever had it before can't save any more.

        Args:
            partition: Its number.
            partitions: How many there are; a key is of partition `hash_keys([key])[0] % partitions`.
        """
        ...

    async def known(
        self, keys: Collection[bytes] | None, partition: int, partitions: int
    ) -> MutableMapping[bytes, int]:
        """The known versions of organizations; those that were never seen are left out. The caller may change it.

        Args:
            keys: Of which; None means all of the partition.
            partition: As for `claim`.
            partitions: As for `claim`.
        """
        ...

    def transaction(self) -> AbstractAsyncContextManager[Session]:
        """A transaction for the subscriber's own work and one `save`: commits at the end, rolls back on an error."""
        ...

    async def save(self, session: Session, progress: Progress) -> None:
        """Write within a transaction.

        Raises:
            Superseded: The fence isn't the one that is kept. The transaction must not commit.
        """
        ...


def hash_keys(keys: Sequence[bytes]) -> list[int]:
    """What decides on the partitions of keys, whatever their number: each modulo that number."""
    return partitions_for(keys, _HASHES)
