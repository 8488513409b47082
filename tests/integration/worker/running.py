"""A worker that runs while a test looks at it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from org_service.settings import Settings
from org_service.worker.worker import Worker


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Worker]:
    """A worker, until the block ends, as at SIGTERM; raises what ended it."""
    worker, stop = Worker(settings), asyncio.Event()
    task = asyncio.create_task(worker.run(stop))
    try:
        yield worker
    finally:
        stop.set()
        await task
