"""A worker that runs while a test looks at it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from org_service.settings import Settings
from org_service.worker.worker import Worker

_END_TIMEOUT_S = 10
"""Of a worker whose test has failed: what it waits for may never come."""


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Worker]:
    """A worker, until the block ends, as at SIGTERM; raises what ended it.

    A test that fails leaves no worker behind to spoil the next one.
    """
    worker, stop = Worker(settings), asyncio.Event()
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
