"""A relay that reaches Kafka through a proxy."""

from collections.abc import AsyncGenerator, Collection
from contextlib import asynccontextmanager
from typing import Any

from org_service.settings import Settings
from tests.chaos.relay.proxy import KafkaProxy, kafka_proxy
from tests.support.relaying import Running, relay_settings, running


@asynccontextmanager
async def relay_through_proxy(
    settings: Settings,
    *,
    request_timeout_ms: int = 5_000,
    hold: Collection[int] = (),
    mute: Collection[int] = (),
    **relay: Any,
) -> AsyncGenerator[tuple[Running, KafkaProxy]]:
    """Run a relay that is quick to try again.

    Args:
        settings: Of the servers themselves.
        request_timeout_ms: After this a broker that doesn't answer counts as away.
        hold: API keys whose requests the proxy holds back from the beginning.
        mute: API keys whose answers the proxy loses from the beginning.
        relay: Settings of the relay.
    """
    async with kafka_proxy(settings.kafka.bootstrap_servers) as proxy:
        proxy.holding.update(hold)
        proxy.muting.update(mute)
        kafka = settings.kafka.model_copy(
            update={"bootstrap_servers": f"127.0.0.1:{proxy.port}", "request_timeout_ms": request_timeout_ms}
        )
        quick: dict[str, Any] = {"poll_interval_s": 0.2, "retry_wait_s": 0.05, "retry_wait_max_s": 0.2} | relay
        async with running(relay_settings(settings, **quick).model_copy(update={"kafka": kafka})) as started:
            yield started, proxy
