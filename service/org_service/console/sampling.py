"""What the overview shows, looked at once for everybody: while somebody has it open, and no longer.

A look asks Postgres, Kafka and the health pages, which takes some tenths of a second; a page must not wait for it, nor
ten operators ask ten times.
"""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Sequence
from typing import Final, NamedTuple

from org_service.operate import status
from org_service.operate.status import Status
from org_service.settings import Settings
from org_service.telemetry.logs import get_logger

log = get_logger(__name__)

HISTORY_S: Final = 300.0
"""What the charts show."""
_FORGOTTEN_S: Final = 30.0
"""After nobody has asked for so long, nobody looks."""


class Sample(NamedTuple):
    """One look."""

    at_s: float
    """By the monotonic clock."""
    status: Status
    per_second: float | None
    """Commands decided since the look before; None at the first one."""
    undecided: int | None
    """Records of `orgs.commands` that the workers have yet to read."""
    unpublished: int | None
    parked: int | None


class Sampler:
    """Looks at the servers while somebody wants to know."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._every_s = settings.console.sample_interval_s
        self._group = settings.worker_group
        self._samples: deque[Sample] = deque(maxlen=max(2, int(HISTORY_S / self._every_s)))
        self._asked_s = 0.0
        self._looking: asyncio.Task[None] | None = None

    def samples(self) -> Sequence[Sample]:
        """The looks of the last minutes, oldest first; none where nobody asked for a while, and then soon.

        What was seen before that while is not shown as what is: a run that is over by now, an organization that was
        erased since.
        """
        self._asked_s = time.monotonic()
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look())
        seen = [each for each in self._samples if each.at_s > self._asked_s - HISTORY_S]
        return seen if seen and seen[-1].at_s > self._asked_s - _FORGOTTEN_S else []

    async def close(self) -> None:
        """Stop looking."""
        if self._looking is not None:
            self._looking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._looking

    async def _look(self) -> None:
        try:
            while time.monotonic() - self._asked_s < _FORGOTTEN_S:
                began_s = time.monotonic()
                self._samples.append(self._sample(await status.see(self._settings)))
                await asyncio.sleep(max(0.0, began_s + self._every_s - time.monotonic()))
        except Exception:
            log.exception("the overview could not be made: our code raised")
            raise

    def _sample(self, seen: Status) -> Sample:
        now_s, stored, look, relay = time.monotonic(), seen.stored.found, seen.look.found, seen.relay.found
        groups = () if look is None else look.groups
        undecided = next((each.lag for each in groups if each.name == self._group), None)
        return Sample(
            now_s,
            seen,
            self._rate(now_s, seen),
            undecided,
            None if relay is None else relay.positions,
            None if stored is None else sum(each.records + each.waiting for each in stored.parked.values()),
        )

    def _rate(self, now_s: float, seen: Status) -> float | None:
        last = self._samples[-1] if self._samples else None
        if last is None or last.status.stored.found is None or seen.stored.found is None:
            return None
        if now_s - last.at_s > 10 * self._every_s:
            return None
        return max(0, seen.stored.found.head - last.status.stored.found.head) / max(0.001, now_s - last.at_s)
