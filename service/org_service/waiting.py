"""Waiting an outage out: the pauses grow, no two processes march in step, and nobody waits past a stop."""

import asyncio
import random
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Backoff:
    """Pauses between tries: doubling from `first_s` to at most `longest_s`, each shortened at random by up to half."""

    def __init__(self, first_s: float, longest_s: float) -> None:
        self._first_s = first_s
        self._longest_s = longest_s
        self._tries = 0

    def next_s(self) -> float:
        """The next pause, in seconds; counts it."""
        pause = min(self._longest_s, self._first_s * 2 ** min(self._tries, 16))
        self._tries += 1
        return pause * random.uniform(0.5, 1)  # noqa: S311 - jitter, no secret

    def reset(self) -> None:
        """All is well again: the next pause is a short one."""
        self._tries = 0


async def pause(seconds: float, stop: asyncio.Event) -> None:
    """Sleep, but no longer than until `stop` is set."""
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return


async def unless(stop: asyncio.Event, step: Coroutine[Any, Any, T]) -> T | None:
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
