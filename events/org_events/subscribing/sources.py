"""What a subscriber needs of Kafka: the partitions it has, where they begin and end, and what comes."""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple, Protocol

from org_events.subscribing.lane import Fetched
from org_events.subscribing.lives import Log
from org_events.subscribing.stores import Mark

OnRevoked = Callable[[], Awaitable[None]]
"""Awaited before the partitions are given to others."""


class SourceUnavailable(Exception):
    """Kafka can't say now; ask again."""


class Ends(NamedTuple):
    """Of a partition of `orgs.state`."""

    low: int
    high: int
    """The high watermark: records of open transactions included."""


class Source(Protocol):
    """The partitions of `orgs.events` that this process has, and the same ones of `orgs.state`.

    Where Kafka can't be asked, `SourceUnavailable` is raised, and nothing has changed.
    """

    @property
    def assigned(self) -> Collection[int] | None:
        """This process's partitions; None before the first assignment."""
        ...

    @property
    def partitions(self) -> int:
        """How many `orgs.events` has."""
        ...

    @property
    def settled_partitions(self) -> int:
        """How many what is published is spread over; fewer while the topics grow."""
        ...

    async def start(self, on_revoked: OnRevoked) -> None:
        """Connect."""
        ...

    async def stop(self) -> None:
        """Disconnect, and leave the group."""
        ...

    def take_doubt(self) -> bool:
        """Whether an offset was asked for that a log doesn't have, since the last call."""
        ...

    async def refresh(self) -> None:
        """Notice partitions that are new."""
        ...

    async def look(self, marks: Mapping[int, Mark | None]) -> dict[int, Log]:
        """Partitions of `orgs.events` as they are now, each with what was read of it before."""
        ...

    async def look_at_states(self, partitions: Sequence[int]) -> dict[int, Ends]:
        """Partitions of `orgs.state` as they are now."""
        ...

    async def find_time(self, partition: int, time: datetime) -> int | None:
        """The first offset of `orgs.events` of a time or later."""
        ...

    async def find_position(self, partition: int, position: int, log: Log) -> int:
        """The first offset of `orgs.events` behind a position of the journal."""
        ...

    async def find_ends(self, partitions: Sequence[int]) -> dict[int, int]:
        """The high watermarks of `orgs.events`."""
        ...

    async def find_published(self) -> int:
        """Up to which position of the journal all is published."""
        ...

    def load(self, partition: int, offset: int) -> None:
        """Read `orgs.state` from an offset, and nothing of `orgs.events`."""
        ...

    def follow(self, partition: int, offset: int) -> None:
        """Read `orgs.events` from an offset, and nothing of `orgs.state`."""
        ...

    async def poll(self) -> list[Fetched]:
        """What came since, of each partition that is read, also where nothing did. Waits a moment for something."""
        ...

    async def tell(self, offsets: Mapping[int, int]) -> None:
        """Let the group know how far we are, for operators; the store alone counts."""
        ...
