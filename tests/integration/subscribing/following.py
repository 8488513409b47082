"""A subscriber that runs in a test, and what it makes of changes."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from org_events import Topics
from org_events.subscribing import Change, Kind, MemoryStore, OrganizationSubscriber
from tests.support.subscribing import number_of

WITHIN_S = 60


class View:
    """What a subscriber makes of changes."""

    def __init__(self) -> None:
        self.names: dict[int, str] = {}
        self.seen: list[tuple[int, int, Kind]] = []

    async def take(self, change: Change[Any]) -> None:
        self.seen.append((number_of(change), change.version, change.kind))
        if change.after is None:
            self.names.pop(number_of(change), None)
        else:
            self.names[number_of(change)] = change.after.name


@asynccontextmanager
async def subscribing(
    bootstrap_servers: str, topics: Topics, view: View, **options: Any
) -> AsyncGenerator[OrganizationSubscriber[Any]]:
    """A subscriber that runs."""
    options = {"bootstrap_servers": bootstrap_servers, "topics": topics, "store": MemoryStore()} | options
    async with asyncio.timeout(WITHIN_S), OrganizationSubscriber(**options) as subscriber:
        running = asyncio.create_task(subscriber.run(view.take))
        yield subscriber
        await subscriber.stop()
        await running
