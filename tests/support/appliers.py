"""Appliers as a worker makes them, each with what it works with, closed in the end."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from org_service.apply.applier import Applier
from org_service.apply.authenticator import Authenticator
from org_service.apply.breaker import Breaker
from org_service.apply.canary import Reader
from org_service.apply.reference import ReferenceApplier
from org_service.apply.replies import Replies
from org_service.domain.fold import Decider
from org_service.settings import Settings
from org_service.store.database import Database
from org_service.waiting import Heartbeat


def _now() -> datetime:
    return datetime.now(UTC)


@asynccontextmanager
async def applying(
    settings: Settings,
    *,
    clock: Callable[[], datetime] = _now,
    heartbeat: Heartbeat | None = None,
    breaker: Breaker | None = None,
    decider: Decider | None = None,
    reader: Reader | None = None,
) -> AsyncIterator[Applier]:
    """An applier of commands, ready for tokens where these are needed; parks all that our code raises on if no breaker
    says otherwise."""
    heartbeat = heartbeat or Heartbeat()
    database = Database(settings.database, "worker")
    authenticator = Authenticator(settings.auth)
    replies = Replies(settings.kafka, settings.worker.retry_waits_s, heartbeat)
    try:
        await authenticator.start()
        yield Applier(
            database,
            authenticator,
            replies,
            settings.worker,
            heartbeat=heartbeat,
            clock=clock,
            breaker=breaker,
            decider=decider,
            reader=reader,
        )
    finally:
        await authenticator.close()
        await replies.stop()
        await database.close()


@asynccontextmanager
async def applying_facts(settings: Settings, heartbeat: Heartbeat | None = None) -> AsyncIterator[ReferenceApplier]:
    """An applier of reference facts."""
    database = Database(settings.database, "worker")
    try:
        yield ReferenceApplier(database, settings, heartbeat)
    finally:
        await database.close()
