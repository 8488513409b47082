"""Partitions that can't be read: where, why, since when, and when each is tried again.

Asks Kafka for nothing; it reads the monotonic clock and writes to the log.
"""

import logging
import time
from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

_log = logging.getLogger(__name__)

RETRY_S: Final = 3.0
"""Between two tries of a partition whose records can't be read."""
REFUSED_RETRY_S: Final = 0.2
"""Between two fetches that a broker refuses, as it does for a moment when leaders change."""
PATIENCE_S: Final = 5.0
"""A partition whose fetches are refused for so long is sick."""
_BETWEEN_TRIES_S: Final = 1.0
"""More between two refusals doesn't count: a process that was frozen has not tried for all of that time."""


class Sick(NamedTuple):
    """A partition that can't be read, and where."""

    offset: int
    """The first one that isn't read; whatever comes before it was handed out."""
    reason: str
    since: float
    """By the monotonic clock."""

    def __str__(self) -> str:
        return f"unreadable from offset {self.offset}: {self.reason}"


OnSick = Callable[[TopicPartition, Sick | None], None]
"""Called when a partition becomes sick, and None when it is well again or no longer ours."""


class _Case(NamedTuple):
    """A partition that something is wrong with."""

    sick: Sick
    told: bool
    """Whether it lasted long enough to be said."""
    noted_at: float
    retry_at: float
    unread: bool
    """What came can't be read; else nothing comes."""
    tried_s: float
    """How long it was tried, in a row."""


class SickPartitions:
    """The partitions that can't be read, and when each is tried again."""

    def __init__(self, on_sick: OnSick | None) -> None:
        self._on_sick = on_sick
        self._said: dict[TopicPartition, tuple[int, str]] = {}
        """The last thing that was logged of each: said once, also where the partition comes and goes."""
        self.cases: dict[TopicPartition, _Case] = {}
        self.sick: Mapping[TopicPartition, Sick] = MappingProxyType({})

    def note_unreadable(self, at: TopicPartition, offset: int, error: Exception) -> None:
        """What a broker sent from this offset on can't be read."""
        self._note(at, offset, error, RETRY_S, patience_s=0.0, unread=True)

    def note_refused(self, at: TopicPartition, offset: int, error: Exception) -> None:
        """Nothing comes."""
        self._note(at, offset, error, REFUSED_RETRY_S, patience_s=PATIENCE_S, unread=False)

    def note_read(self, at: TopicPartition) -> None:
        """It was read."""
        case = self.cases.pop(at, None)
        if case is not None and case.told:
            self._said.pop(at, None)
            _log.warning("%s, partition %d can be read again, from offset %d on", *at, case.sick.offset)
            self._tell(at, None)

    def forget(self, at: TopicPartition) -> None:
        """It is read from elsewhere, or not by us any more: what was wrong with it tells nothing."""
        case = self.cases.pop(at, None)
        if case is not None and case.told:
            self._tell(at, None)

    def drop_unassigned(self, assigned: Collection[TopicPartition]) -> None:
        """Only these are ours."""
        for at in [at for at in self.cases if at not in assigned]:
            self.forget(at)

    def list_paused(self) -> set[TopicPartition]:
        """Those that are not to be asked for now."""
        now = time.monotonic()
        return {at for at, case in self.cases.items() if case.retry_at > now}

    def _note(
        self, at: TopicPartition, offset: int, error: Exception, retry_s: float, *, patience_s: float, unread: bool
    ) -> None:
        now = time.monotonic()
        before = self.cases.get(at)
        reason = _reason(error)
        same = before is not None and before.sick.offset == offset and before.unread == unread
        since, tried_s = now, 0.0
        if before is not None and same:
            since, tried_s = before.sick.since, before.tried_s + min(now - before.noted_at, _BETWEEN_TRIES_S)
        told = tried_s >= patience_s or (before is not None and before.told)
        case = _Case(Sick(offset, reason, since), told, now, now + retry_s, unread, tried_s)
        self.cases[at] = case
        if told and (before is None or before.sick != case.sick or not before.told):
            self._tell(at, case.sick)
            if self._said.get(at) != (offset, reason):
                self._said[at] = (offset, reason)
                _log.error(
                    "%s, partition %d cannot be read from offset %d on (%s): it waits and is retried, all "
                    "others continue; see 'A partition cannot be read' in docs/operating.md",
                    *at,
                    offset,
                    reason,
                )

    def _tell(self, at: TopicPartition, sick: Sick | None) -> None:
        self.sick = MappingProxyType({each: case.sick for each, case in self.cases.items() if case.told})
        if self._on_sick is not None:
            self._on_sick(at, sick)


def _reason(error: Exception) -> str:
    """What is wrong, without a byte of what the records hold."""
    name = type(error).__name__
    return f"{name}: {error.args[0]}" if isinstance(error, KafkaError) and error.args else name
