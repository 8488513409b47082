"""Time to loss as metrics: the role `operate` looks each minute how far consumer groups are behind.

A look costs a connection to Kafka, a request or two for each group, a small fetch for each partition in which one is
behind, and one statement. Declined: the relay's leader, which has enough to do, and every worker, each of which would
ask the same.
"""

import asyncio
from collections.abc import Sequence
from typing import Final

from prometheus_client import Gauge

from org_service.kafka.client import KafkaError
from org_service.operate import groups
from org_service.operate.groups import Look
from org_service.settings import Settings
from org_service.store import parked_queues
from org_service.store.database import Database
from org_service.store.failures import classify
from org_service.store.parked_queues import ParkedGroup
from org_service.telemetry.logs import get_logger
from org_service.telemetry.metrics import GROUP_LAG_SECONDS, GROUP_LOSS_SECONDS, PARKED_LOSS_SECONDS
from org_service.waiting import pause

log = get_logger(__name__)

LOOK_S: Final = 60.0
"""Between two looks; alerts on hours need no more."""
LOOK_MAX_S: Final = 30.0
"""For one look; a server that is silent for longer is away."""


async def watch_groups(settings: Settings, database: Database, stop: asyncio.Event) -> None:
    """Keep the metrics up until `stop`. In an outage they are absent: old figures would say that all is well."""
    while not stop.is_set():
        try:
            async with asyncio.timeout(LOOK_MAX_S):
                look = await groups.look(settings.kafka)
                async with database.connect() as conn:
                    parked = await parked_queues.group(conn)
        except Exception as error:
            if not isinstance(error, (KafkaError, OSError, TimeoutError)) and classify(error) is None:
                raise
            show(None, ())
            log.info("consumer groups could not be looked at", why=type(error).__name__)
        else:
            show(look, parked)
        await pause(LOOK_S, stop)


def show(look: Look | None, parked: Sequence[ParkedGroup]) -> None:
    """Set the metrics to what was seen."""
    for gauge in (GROUP_LAG_SECONDS, GROUP_LOSS_SECONDS, PARKED_LOSS_SECONDS):
        gauge.clear()
    if look is None:
        return
    for group in look.groups:
        for topic in {each.topic for each in group.partitions}:
            of_topic = [each for each in group.partitions if each.topic == topic]
            GROUP_LAG_SECONDS.labels(group.name, topic).set(max(each.lag_s for each in of_topic))
            _set(GROUP_LOSS_SECONDS, [each.loss_s for each in of_topic], group.name, topic)
    for topic in {each.topic for each in parked}:
        losses = [look.loss_of(topic, each.oldest_sent) for each in parked if each.topic == topic]
        _set(PARKED_LOSS_SECONDS, losses, topic)


def _set(gauge: Gauge, seconds: Sequence[float | None], *labels: str) -> None:
    known = [each for each in seconds if each is not None]
    if known:
        gauge.labels(*labels).set(min(known))
