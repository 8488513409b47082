"""Batches that can't be read for a while, in a run that has other things to do."""

import time
from collections import Counter
from collections.abc import Sequence
from typing import Protocol

import org_local
from tests.support import log_faults
from tests.support.observed import Record
from tests.support.processes import ServiceProcess

CORRUPT_EVERY, CORRUPT_AT, SICK_FOR = 4_000, 321, 240
"""Commands between two corruptions, from there to the first one, and while a partition can't be read."""
HEAL_MS = 5_000
"""What was repaired is tried again after 3 s."""


class Publishers(Protocol):
    """Whoever fills the topic."""

    @property
    def records(self) -> Sequence[Record]:
        """What the broker has."""
        ...

    def flush(self) -> None:
        """Wait for all answers."""
        ...


class LogCorruption:
    """Now and then flips a bit of what the broker has stored, before the worker reads it, and later flips it back.

    The worker is frozen for that moment; one that waits for records would have them before anybody.
    """

    def __init__(self, stack: org_local.Stack, worker: ServiceProcess, publishers: Publishers, topic: str) -> None:
        self._stack, self._worker, self._publishers, self._topic = stack, worker, publishers, topic
        self.frozen = False
        self.frozen_ms: list[tuple[int, int]] = []
        """From when to when the worker was: no time of its own."""
        self._ends: dict[int, int] = {}
        self._bad: tuple[int, int] | None = None
        self._since_ms = self._frozen_at = 0
        self.sick: list[tuple[int, int, int]] = []
        """Partition, and from when to when it could not be read."""

    def step(self, number: int) -> None:
        """Go on; call it at each pair of records."""
        place = number % CORRUPT_EVERY
        if place == CORRUPT_AT:
            self._frozen_at = _now_ms()
            self._worker.freeze()
            self.frozen = True
        elif place == CORRUPT_AT + 30:  # these answer the fetch that the worker has under way
            self._ends = self._found()
        elif place == CORRUPT_AT + 60:
            self._corrupt()
        elif place == CORRUPT_AT + SICK_FOR and self._bad is not None:
            self.repair()

    def repair(self) -> None:
        """Flip the bit back."""
        if self._bad is not None:
            log_faults.flip_byte(self._stack, self._topic, *self._bad, mask=1)
            self.sick.append((self._bad[0], self._since_ms, _now_ms() + HEAL_MS))
            self._bad = None

    def _found(self) -> dict[int, int]:
        self._publishers.flush()
        ends: Counter[int] = Counter()
        for record in self._publishers.records:
            ends[record.partition] = max(ends[record.partition], record.offset + 1)
        return dict(ends)

    def _corrupt(self) -> None:
        before, self._ends = self._ends, {}
        grown = [
            (partition, before[partition])
            for partition, end in self._found().items()
            if end > before.get(partition, end)
        ]
        if grown:
            self._bad = grown[len(self.sick) % len(grown)]
            log_faults.flip_byte(self._stack, self._topic, *self._bad, mask=1)
            self._since_ms = _now_ms() - HEAL_MS
        self._worker.thaw()
        self.frozen = False
        self.frozen_ms.append((self._frozen_at, _now_ms()))


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
