"""What `make_enduring` does to aiokafka's clients, whose internals it stands on."""

import asyncio
import re
import socket
import struct
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.client import AIOKafkaClient
from aiokafka.conn import AIOKafkaConnection
from aiokafka.errors import KafkaConnectionError
from aiokafka.protocol.metadata import MetadataRequest

import org_events
import org_service
from org_events.kafka.brokers import EnduringClient, make_enduring

pytestmark = pytest.mark.integration


def of(client: Any) -> Any:
    return client.client if isinstance(client, AIOKafkaProducer) else client._client


@pytest.mark.parametrize("make", [AIOKafkaConsumer, AIOKafkaProducer, AIOKafkaAdminClient])
async def test_connections_use_tcp_keep_alive(bootstrap_servers: str, make: Any) -> None:
    client = make_enduring(make(bootstrap_servers=bootstrap_servers))
    await client.start()
    try:
        assert await of(client).force_metadata_update()
        connections = list(of(client)._conns.values())
        assert connections
        for connection in connections:
            option = connection._writer.get_extra_info("socket").getsockopt
            assert option(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert option(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 5
            assert option(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 10_000
    finally:
        await (client.close() if isinstance(client, AIOKafkaAdminClient) else client.stop())


@pytest.mark.parametrize("make", [AIOKafkaConsumer, AIOKafkaProducer, AIOKafkaAdminClient])
async def test_an_abandoned_start_leaves_no_connection_open(
    bootstrap_servers: str, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """aiokafka's own leaves the one on which it asked for the brokers."""
    send, asking = AIOKafkaConnection.send, asyncio.get_running_loop().create_future()

    def sent(self: AIOKafkaConnection, request: Any, *args: Any, **options: Any) -> Any:
        if not isinstance(request, MetadataRequest):
            return send(self, request, *args, **options)
        asking.set_result(self)
        return asyncio.get_running_loop().create_future()  # a broker that says nothing

    monkeypatch.setattr(AIOKafkaConnection, "send", sent)
    client = make_enduring(make(bootstrap_servers=bootstrap_servers))
    starting = asyncio.create_task(client.start())
    connection = await asyncio.wait_for(asking, 10)
    assert connection.connected()
    starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)
    await (client.close() if isinstance(client, AIOKafkaAdminClient) else client.stop())
    assert not connection.connected()


async def test_whoever_asks_for_metadata_hears_that_the_client_was_closed(bootstrap_servers: str) -> None:
    """A probe of readiness would wait for ever otherwise, while the relay replaces its producer."""
    client = EnduringClient(bootstrap_servers=bootstrap_servers)
    await client.bootstrap()
    asking = client.force_metadata_update()
    await client.close()
    async with asyncio.timeout(5):
        assert not await asking
        assert not await client.force_metadata_update()


async def test_a_broker_that_closes_accepted_connections_counts_as_unreachable() -> None:
    """The last step of a login runs in a thread, and the connection may be gone when it comes back."""

    async def let_in(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        versions = struct.pack(">hi9h", 0, 3, 3, 0, 5, 17, 0, 1, 36, 0, 0)  # metadata, SASL's two steps
        mechanisms = struct.pack(">hih", 0, 1, 5) + b"PLAIN"
        for answer in (versions, mechanisms, struct.pack(">hhi", 0, -1, 0)):
            request = await reader.readexactly(int.from_bytes(await reader.readexactly(4)))
            writer.write(struct.pack(">i", 4 + len(answer)) + request[4:8] + answer)
        writer.close()

    async with await asyncio.start_server(let_in, "127.0.0.1", 0) as server:
        client = make_enduring(
            AIOKafkaAdminClient(
                bootstrap_servers=f"127.0.0.1:{server.sockets[0].getsockname()[1]}",
                security_protocol="SASL_PLAINTEXT",
                sasl_mechanism="PLAIN",
                sasl_plain_username="ann",
                sasl_plain_password="secret",
            )
        )
        for _ in range(20):
            with pytest.raises(KafkaConnectionError):
                await client.start()
        await client.close()


async def test_metadata_that_cannot_be_read_are_asked_for_again(
    bootstrap_servers: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing may end the task that keeps them fresh: new leaders would never be found."""
    client = make_enduring(AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers))
    await client.start()
    try:
        with monkeypatch.context() as patched:
            patched.setattr(AIOKafkaClient, "_metadata_update", AsyncMock(side_effect=ValueError("no string")))
            assert await asyncio.wait_for(of(client).force_metadata_update(), 10) is False
        assert await asyncio.wait_for(of(client).force_metadata_update(), 10) is True
    finally:
        await client.close()


async def test_only_the_client_that_was_given_is_changed(bootstrap_servers: str) -> None:
    ours = make_enduring(AIOKafkaConsumer(bootstrap_servers=bootstrap_servers))
    others = AIOKafkaConsumer(bootstrap_servers=bootstrap_servers)
    assert type(of(ours)) is EnduringClient
    assert type(of(others)) is AIOKafkaClient
    await ours.stop()
    await others.stop()


def test_every_client_is_made_enduring() -> None:
    made = 0
    for package in (org_events, org_service):
        for path in Path(package.__path__[0]).rglob("*.py"):
            text = path.read_text()
            for found in re.finditer(r"\bAIOKafka(Consumer|Producer|AdminClient|Client)\(", text):
                assert text[: found.start()].rstrip().endswith("enduring("), path
                made += 1
    assert made > 3
