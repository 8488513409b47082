"""To wait for what Postgres gives no signal of."""

import asyncio
from collections.abc import Awaitable, Callable

WAIT_S = 10.0


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    """Return when `holds` does; TimeoutError when it doesn't within `WAIT_S`."""
    async with asyncio.timeout(WAIT_S):
        while not await holds():
            await asyncio.sleep(0.01)
