"""Waiting an outage out: the pauses grow, no two processes march in step, whoever waits shows that it lives, and nobody
waits past a stop.

One object holds all that belongs to it, and a loop reads as what it does:

    async for attempt in patience:
        with attempt:
            await step()

The loop tries again, with a pause before, whatever fails that is worth waiting for; other errors leave it. Where a step
can't stand in a loop of its own, because somebody else's calls it, `Tries` are kept from one call to the next.
"""

import asyncio
import random
import time
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Final, NamedTuple, Self, TypeVar

import structlog

from org_service.errors import RetryError

T = TypeVar("T")

BEAT_INTERVAL_S: Final = 1.0
"""Longest silence while waiting, however long the wait."""


class Heartbeat:
    """When a loop last gave a heartbeat, by which `/livez` judges it. Several that stand for one may share it."""

    def __init__(self) -> None:
        self.at_s = time.monotonic()
        """By the monotonic clock."""

    def beat(self) -> None:
        """Give one."""
        self.at_s = time.monotonic()


class Trouble(NamedTuple):
    """Why a try failed, and that it is worth another one."""

    why: str
    """For the log and for `/readyz`."""
    foreseen: bool = True
    """Else nobody knows what it is, and the log shows where it came from."""


def _judge(error: Exception) -> Trouble | None:
    return Trouble(str(error)) if isinstance(error, RetryError) else None


class Patience:
    """How a step that fails is waited out: how long, who hears of it, and what ends it.

    Pauses double from `first_s` to at most `longest_s`, each shortened at random by up to half. Several loops may wait
    by the same patience at once: each has its own pauses, and the first one that gets through ends the outage.
    """

    def __init__(
        self,
        said: str,
        waits_s: tuple[float, float],
        *,
        log: structlog.stdlib.BoundLogger,
        judge: Callable[[Exception], Trouble | None] = _judge,
        count: Callable[[Trouble], None] | None = None,
        heartbeat: Heartbeat | None = None,
        stop: asyncio.Event | None = None,
    ) -> None:
        """Make one.

        Args:
            said: The line of the log for each try that failed.
            waits_s: The first and the longest pause.
            log: Of the caller.
            judge: What an error is; None for one that must not be waited out. If not told otherwise a `RetryError` is
                waited out.
            count: Told each failure, for a metric.
            heartbeat: Beats at each try and during each pause.
            stop: Ends the loop and any pause.
        """
        self._said = said
        self._waits_s = waits_s
        self._log = log
        self._judge = judge
        self._count = count
        self._heartbeat = heartbeat
        self._stop = stop
        self.outage: str | None = None
        """What is being waited for; None when all is well."""

    def __aiter__(self) -> "Tries":
        return Tries(self)

    def judge(self, error: Exception) -> Trouble | None:
        """What an error is; None for one that must not be waited out."""
        return self._judge(error)

    @property
    def stopped(self) -> bool:
        """Whether nothing is to be tried any more."""
        return self._stop is not None and self._stop.is_set()

    def beat(self) -> None:
        """Give a heartbeat."""
        if self._heartbeat is not None:
            self._heartbeat.beat()

    def fail(self, trouble: Trouble, error: Exception, pause_s: float) -> None:
        """Say that a try failed."""
        self.outage = trouble.why
        if self._count is not None:
            self._count(trouble)
        retry_in_s = round(pause_s, 2)
        if trouble.foreseen:
            self._log.warning(self._said, why=trouble.why, retry_in_s=retry_in_s)
        else:
            self._log.error(f"unknown error, {self._said}", retry_in_s=retry_in_s, exc_info=error)

    def pause_s(self, failures: int) -> float:
        """The pause after so many tries that failed before this one."""
        first_s, longest_s = self._waits_s
        return min(longest_s, first_s * 2 ** min(failures, 16)) * random.uniform(0.5, 1)  # noqa: S311 - no secret

    async def pause(self, seconds: float) -> None:
        """Sleep with heartbeats, but no longer than until the stop."""
        await pause(seconds, self._stop, self._heartbeat)


class Tries:
    """The tries of one loop, each of which is entered by `with`; or of a step that is called from elsewhere."""

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self._failures = 0
        self._due_s: float | None = 0.0
        """The pause before the next try; None when the step is done."""

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Self:
        if self._due_s:
            await self._patience.pause(self._due_s)
        if self._due_s is None or self._patience.stopped:
            raise StopAsyncIteration
        self._due_s = None
        self._patience.beat()
        return self

    def __enter__(self) -> None:
        """Try."""

    def __exit__(self, _: object, error: BaseException | None, __: TracebackType | None) -> bool:
        if error is None:
            self.succeed()
        return isinstance(error, Exception) and self.fail(error)

    def succeed(self) -> None:
        """Hear that all is well again: nothing is waited for, and the next pause is a short one."""
        self._failures = 0
        self._patience.outage = None

    def fail(self, error: Exception) -> bool:
        """Hear of an error, and say whether it is waited out: before the next try of the loop."""
        trouble = self._patience.judge(error)
        if trouble is not None:
            self._due_s = self._next_s()
            self._patience.fail(trouble, error, self._due_s)
        return trouble is not None

    def try_again(self, pause_s: float) -> None:
        """Let the loop try again after a pause that is no outage's."""
        self._due_s = pause_s

    async def wait(self, error: Exception) -> bool:
        """As `fail`, and wait here."""
        waited_out = self.fail(error)
        if waited_out:
            await self._patience.pause(self._due_s or 0)
        return waited_out

    async def pause(self) -> None:
        """Wait after a failure that was reported already."""
        await self._patience.pause(self._next_s())

    def _next_s(self) -> float:
        self._failures += 1
        return self._patience.pause_s(self._failures - 1)


async def pause(seconds: float, stop: asyncio.Event | None, heartbeat: Heartbeat | None = None) -> None:
    """Sleep, but no longer than until `stop` is set; beating all the while."""
    deadline = time.monotonic() + seconds
    while (left_s := deadline - time.monotonic()) > 0 and not (stop is not None and stop.is_set()):
        if heartbeat is not None:
            heartbeat.beat()
            left_s = min(left_s, BEAT_INTERVAL_S)
        if stop is None:
            await asyncio.sleep(left_s)
            continue
        try:
            await asyncio.wait_for(stop.wait(), left_s)
        except TimeoutError:
            continue


async def run_unless(stop: asyncio.Event, step: Coroutine[Any, Any, T]) -> T | None:
    """The result of `step`; None when `stop` is set before, then `step` is cancelled."""
    task = asyncio.create_task(step)
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait((task, stopping), return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else None
    finally:
        task.cancel()
        stopping.cancel()
        await asyncio.gather(task, stopping, return_exceptions=True)
