"""A worker that runs while a test looks at it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from org_service.domain.fold import Decider
from org_service.errors import RetryError
from org_service.settings import Settings
from org_service.worker.worker import Worker

_END_TIMEOUT_S = 10
"""Of a worker whose test has failed: what it waits for may never come."""


@asynccontextmanager
async def running(settings: Settings, *, decider: Decider | None = None) -> AsyncIterator[Worker]:
    """A worker, until the block ends, as at SIGTERM; raises what ended it.

    A test that fails leaves no worker behind to spoil the next one.
    """
    worker, stop = Worker(settings, decider=decider), asyncio.Event()
    task = asyncio.create_task(worker.run(stop))
    try:
        yield worker
    except BaseException as error:
        if task.done() and not task.cancelled():
            error.add_note(f"The worker had ended before: {task.exception()!r}")
        stop.set()
        _, hung = await asyncio.wait({task}, timeout=_END_TIMEOUT_S)
        for each in hung:
            each.cancel()
        await asyncio.gather(task, return_exceptions=True)
        raise
    stop.set()
    await task


async def said(worker: Worker, check: str) -> str:
    """What /readyz shows of a check, also where it keeps the worker from being ready."""
    try:
        return await worker.checks()[check]()
    except RetryError as error:
        return str(error)


async def has_joined(worker: Worker) -> bool:
    """Whether the worker accepts commands, or is about to: it has joined their group."""
    return await said(worker, "kafka") != "not connected yet"
