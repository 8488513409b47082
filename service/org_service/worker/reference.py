"""Reference records from Kafka into their applier: memberships, partnerships and staff, in batches of thousands."""

import asyncio
from collections.abc import Mapping
from typing import Final

from org_service.apply.reference import ReferenceApplier
from org_service.settings import Settings
from org_service.store.reference_progress import ReferencePartition
from org_service.telemetry.logs import get_logger
from org_service.waiting import Heartbeat
from org_service.wire.facts import map_kinds
from org_service.worker.feed import Feed
from org_service.worker.subscriber import Subscriber

log = get_logger(__name__)

GROUP_SUFFIX: Final = "-reference"
"""After the worker's group id: a group of its own, so that a rebalance here leaves commands alone."""
_BATCH_TIMEOUT_MS: Final = 50
_FETCH_WAIT_MS: Final = 500
"""Kafka answers as soon as there is a record; an idle subscriber asks seldom, and costs the commands nothing."""

METADATA_MAX_AGE_MS: Final = 10_000
"""A topic that was deleted and created again is joined after this at the latest; of use to first aid, and cheap."""


class ReferenceSubscriber(Subscriber):
    """Subscribes to the three reference topics, in a consumer group of its own."""

    def __init__(self, settings: Settings, applier: ReferenceApplier, heartbeat: Heartbeat | None = None) -> None:
        """Declare the subscription; nothing is connected yet."""
        feed = Feed(
            sorted(map_kinds(settings.kafka.topics)),
            f"{settings.worker.group_id}{GROUP_SUFFIX}",
            _BATCH_TIMEOUT_MS,
            _FETCH_WAIT_MS,
            METADATA_MAX_AGE_MS,
        )
        super().__init__(settings, applier, feed, heartbeat)
        self._reference = applier
        applier.mark_place_lost()

    def _assigned(self) -> None:
        self._reference.mark_place_lost()

    async def _prepare(self) -> bool:
        reference, consumer = self._reference, self._consumer
        if self._draining:
            return True
        passed: Mapping[ReferencePartition, float] = {} if reference.lost else await reference.take_passed(consumer)
        if not (reference.lost or passed):
            return True
        if self._last is not None:
            await asyncio.wait((self._last,))
        if reference.lost:
            return await reference.find_position(consumer)
        await reference.confirm(consumer, passed)
        return not reference.lost
