"""A partition's life, as a value, and how it begins; pure.

    loading ──▶ following
    waiting ──▶ following

*Loading* reads `orgs.state` up to an end, then *following* reads `orgs.events` from an offset that was noted before.
Two ends are noted, in this order, and they are two kinds of ends:

1. Of `orgs.events` the last stable offset. A transaction that is open at this moment lies behind it, and will be seen.
   With the high watermark it would be skipped.
2. Of `orgs.state` the high watermark, to be read to as far as that is stable. Event and state are one transaction, but
   Kafka writes its commit to one partition after the other: what is stable on `orgs.events` may still be open on
   `orgs.state`. A load up to what is stable there now would end before it, and the change be lost.

The end is judged by the consumer's position: what is last may be a marker of a transaction, or aborted, or have gone by
compaction, and a partition may be empty. None of these is ever handed out as a record.

*Waiting* is a partition that is new because the topics grew: its organizations were on another one before, its parent,
and what is old there comes before what is new here.
"""

from collections.abc import Mapping
from datetime import datetime
from enum import Enum, auto
from typing import Literal, NamedTuple
from uuid import UUID

from org_events.subscribing.stores import Mark


class Loading(NamedTuple):
    """Offsets of `orgs.state`, and where `orgs.events` follow."""

    low: int
    position: int
    end: int
    follow_from: int

    @property
    def ended(self) -> bool:
        """Whether all of it was read."""
        return self.position >= self.end


class Following(NamedTuple):
    """An offset of `orgs.events`."""

    position: int


Life = Loading | Following


class AtPosition(NamedTuple):
    """Start with the changes behind a position of the service's journal, as far as `orgs.events` still has them."""

    position: int


class AtTime(NamedTuple):
    """Start with the changes that were published at a time or later."""

    time: datetime


Start = Literal["state", "now", "earliest"] | AtPosition | AtTime
"""Where a subscriber begins that its store knows nothing of: with all organizations as they are; with the next change;
with the oldest change that is still there."""


class Log(NamedTuple):
    """A partition of `orgs.events` as the broker has it."""

    topic_id: UUID
    low: int
    """Its first offset."""
    stable: int
    """Its last stable offset: behind all that committed readers may read now."""
    cut: bool = False
    """Whether it lost records that were read."""


class Opening(Enum):
    """How a partition is begun."""

    RESUME = auto()
    LOAD = auto()
    WAIT = auto()
    START = auto()
    """As the subscriber was told to start."""


def decide_opening(partition: int, marks: Mapping[int, Mark], log: Log, start: Start) -> Opening:
    """How to begin a partition that was just taken over.

    What a subscriber knows is worthless where the log no longer has what follows it: retention took it, the topic is
    another one, or Kafka lost records. Then it loads, however it started, because nothing else tells what it missed.
    """
    mark = marks.get(partition)
    if mark is not None:
        return Opening.RESUME if goes_on(mark, log) else Opening.LOAD
    if find_parent(partition, marks) is not None:
        return Opening.WAIT if log.low == 0 else Opening.LOAD
    return Opening.LOAD if start == "state" else Opening.START


def goes_on(mark: Mark, log: Log) -> bool:
    """Whether a log still has all that follows a mark."""
    within = mark.topic_id == log.topic_id and log.low <= mark.offset <= log.stable
    return within and not log.cut and not mark.loading


def find_parent(partition: int, marks: Mapping[int, Mark]) -> int | None:
    """Which partition had the organizations of a new one before the topics grew; None where nothing says so.

    The topics grow to a multiple, so it is this one's number modulo the former number of partitions.
    """
    numbers = {mark.partitions for mark in marks.values() if mark.partitions <= partition}
    parent = partition % max(numbers) if numbers else None
    return parent if parent in marks else None
