"""All brokers that a program knows are gone at once, while the bootstrap address leads to others; and connections that
something on the way dropped without a message."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, cast
from uuid import uuid4

import httpx2
import pytest
from confluent_kafka.admin import AdminClient
from pydantic import BaseModel

from org_events.kafka import brokers
from org_events.publishing.client import OrganizationClient
from org_events.publishing.errors import KafkaUnavailable
from org_service.edge.edge import Edge
from org_service.settings import Settings
from tests.chaos.relay.proxy import KafkaProxy, kafka_proxy
from tests.support import plain_http
from tests.support.edge import People, add_staff, running, with_edge
from tests.support.waiting import until

pytestmark = [pytest.mark.chaos, pytest.mark.integration]

FOUND_WITHIN_S: Final = 10
"""Where the old addresses refuse connections it is a fraction of a second, on an idle machine."""


class Moving(BaseModel, arbitrary_types_allowed=True):
    """A bootstrap address, that of the only broker, and another one to which the broker can move."""

    bootstrap: KafkaProxy
    old: KafkaProxy
    new: KafkaProxy

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.bootstrap.port}"

    async def move(self, *, silently: bool = False) -> None:
        """Move the broker; its old address refuses connections, or says nothing any more."""
        self.bootstrap.advertised_port = self.new.port
        if silently:
            self.old.freeze()
        else:
            await self.old.down()


@asynccontextmanager
async def moving(bootstrap_servers: str) -> AsyncGenerator[Moving]:
    async with (
        kafka_proxy(bootstrap_servers) as bootstrap,
        kafka_proxy(bootstrap_servers) as old,
        kafka_proxy(bootstrap_servers) as new,
    ):
        bootstrap.advertised_port = old.port
        yield Moving(bootstrap=bootstrap, old=old, new=new)


def through(settings: Settings, people: People, address: str, **kafka: Any) -> Settings:
    """The settings of a service that reaches Kafka at another address."""
    changed = settings.kafka.model_copy(update={"bootstrap_servers": address, **kafka})
    return with_edge(settings.model_copy(update={"kafka": changed}), people)


@asynccontextmanager
async def serving(settings: Settings, people: People) -> AsyncGenerator[tuple[Edge, httpx2.AsyncClient]]:
    """The edge with worker and relay, and a client of staff."""
    await add_staff(settings, "root")
    async with (
        running(settings) as edge,
        plain_http.async_client(
            base_url=f"http://127.0.0.1:{edge.port}", headers=people.headers("root"), timeout=60
        ) as root,
    ):
        assert (await create(root)).status_code == 201
        yield edge, root


async def create(root: httpx2.AsyncClient) -> httpx2.Response:
    return await root.post("/v1/orgs", json={"name": f"Acme {uuid4()}"})


async def create_at_last(root: httpx2.AsyncClient) -> float:
    """Create an organization, trying again until it was decided at once; returns how many seconds that took."""

    async def status() -> int:
        return (await create(root)).status_code

    began = time.monotonic()
    await until(status, 201, 60)
    return time.monotonic() - began


async def test_the_service_finds_brokers_that_all_moved(settings: Settings, tmp_path: Path) -> None:
    people = People(tmp_path)
    async with (
        moving(settings.kafka.bootstrap_servers) as kafka,
        serving(through(settings, people, kafka.address), people) as (edge, root),
    ):
        await kafka.move()
        took_s = await create_at_last(root)
        print(f"found in {took_s:.1f} s")
        assert took_s < FOUND_WITHIN_S
        assert await edge.checks()["kafka"]() == "answers"


async def test_the_service_finds_brokers_whose_old_addresses_are_silent(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(brokers, "SILENCE_S", 0.5)
    monkeypatch.setattr(brokers, "CONNECT_TIMEOUT_S", 1)
    people = People(tmp_path)
    async with (
        moving(settings.kafka.bootstrap_servers) as kafka,
        serving(through(settings, people, kafka.address, request_timeout_ms=1_500), people) as (_, root),
    ):
        await kafka.move(silently=True)
        took_s = await create_at_last(root)
        print(f"found in {took_s:.1f} s")
        assert took_s < FOUND_WITHIN_S


async def test_connections_dropped_while_idle_cause_no_time_out(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(brokers, "IDLE_S", 0.3)
    monkeypatch.setattr(brokers, "PROBE_TIMEOUT_S", 0.3)
    people = People(tmp_path)
    async with (
        kafka_proxy(settings.kafka.bootstrap_servers) as proxy,
        serving(through(settings, people, f"127.0.0.1:{proxy.port}"), people) as (_, root),
    ):
        # The edge's producer, the relay's two, and two that only send heartbeats.
        await until(lambda: len(proxy.idle(0.4)) >= 5)
        proxy.forget(proxy.idle(0.4))
        began = time.monotonic()
        assert (await create(root)).status_code == 201
        took_s = time.monotonic() - began
        print(f"decided in {took_s:.1f} s")
        assert took_s < 5  # a request has 20 s


async def test_connections_dropped_in_use_cause_a_bounded_silence(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(brokers, "SILENCE_S", 0.5)
    people = People(tmp_path)
    async with (
        kafka_proxy(settings.kafka.bootstrap_servers) as proxy,
        serving(through(settings, people, f"127.0.0.1:{proxy.port}"), people) as (_, root),
    ):
        await until(lambda: len(proxy.idle(0)) >= 5)
        idle = set(proxy.idle(0))
        proxy.forget([link for link in proxy.links if link not in idle])  # all that read: worker's two, and the edge's
        began = time.monotonic()
        assert (await create(root)).status_code == 201
        took_s = time.monotonic() - began
        print(f"decided in {took_s:.1f} s")
        assert took_s < 5  # a request has 20 s


async def test_a_cluster_with_another_id_is_recognized_as_another(settings: Settings) -> None:
    admin = AdminClient({"bootstrap.servers": settings.kafka.bootstrap_servers})
    ours = cast("str", (await asyncio.to_thread(admin.list_topics, timeout=20)).cluster_id)
    async with kafka_proxy(settings.kafka.bootstrap_servers) as proxy:
        servers, other = f"127.0.0.1:{proxy.port}", ours.swapcase()
        inner = brokers.EnduringClient(bootstrap_servers=servers)
        await inner.bootstrap()
        async with OrganizationClient(bootstrap_servers=servers, source="/t", topics=settings.kafka.topics) as client:
            await client.ping()
            proxy.cluster_ids = ours.encode(), other.encode()
            with pytest.raises(KafkaUnavailable):
                await client.ping()
            with pytest.raises(brokers.OtherClusterError, match=f"now leads to cluster {other}, before to {ours}"):
                await inner.fetch_all_metadata()
            proxy.cluster_ids = b"", b""
            await client.ping()
        await inner.close()
