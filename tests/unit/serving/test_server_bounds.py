"""How many connections a server holds, whose, and what it does with them at its end."""

import asyncio
import resource
from contextlib import AsyncExitStack

import pytest
from prometheus_client import REGISTRY

from org_service.serving import server as server_module
from org_service.serving.registry import ConnectionState
from org_service.serving.server import raise_file_limit
from tests.support.probing import probing
from tests.support.waiting import until
from tests.unit.serving.plain import GET, KNOWN, read_on, start_reading
from tests.unit.serving.serving import Client, Echo, connected, serving


async def test_when_all_connections_are_used_the_oldest_idle_unauthenticated_one_is_closed() -> None:
    async with serving(Echo(), connections_max=3) as server, AsyncExitStack() as stack:
        caller = await stack.enter_async_context(connected(server))
        caller.send(KNOWN)
        await caller.answer()
        strangers = []
        for number in (1, 2):
            strangers.append(await stack.enter_async_context(connected(server)))
            await until(lambda number=number: len(server) == number + 1)
        newcomer = await stack.enter_async_context(connected(server))
        newcomer.send(KNOWN)
        await newcomer.answer()
        assert await strangers[0].is_closed()
        caller.send(KNOWN)
        assert (await caller.answer()).startswith(b"HTTP/1.1 200 ")
        assert len(server) == 3


async def test_when_every_connection_has_a_request_in_flight_a_new_one_is_turned_away() -> None:
    echo = Echo()
    async with serving(echo, connections_max=1) as server, connected(server) as client:
        echo.hold = asyncio.Event()
        client.send(KNOWN)
        await until(lambda: echo.in_flight)
        async with connected(server) as newcomer:
            assert await newcomer.is_closed()
        echo.hold.set()
        await client.answer()


async def test_connections_per_address_are_bounded() -> None:
    async with serving(Echo(), address_connections_max=1) as server:
        async with connected(server) as client:
            client.send(KNOWN)
            await client.answer()
            async with connected(server) as another:
                assert await another.is_closed()
        await until(lambda: not len(server))
        async with connected(server) as client:
            client.send(KNOWN)
            await client.answer()


async def test_the_number_of_unauthenticated_clients_that_do_not_read_is_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("org_service.serving.registry.SLOW_UNKNOWN_MAX", 2)
    async with serving(Echo()) as server, AsyncExitStack() as stack:
        for _ in range(4):
            client: Client = await stack.enter_async_context(connected(server))
            client.writer.transport.pause_reading()  # pyright: ignore[reportAttributeAccessIssue]
            client.send(GET.replace(b"/a", b"/large"))
        await until(lambda: len(server) == 2)


async def test_an_application_that_fails_breaks_the_connection() -> None:
    async def failing(scope: object, receive: object, send: object) -> None:
        raise ZeroDivisionError

    async with serving(failing) as server, connected(server) as client:
        client.send(GET)
        assert await client.is_closed()


async def test_a_drain_accepts_nothing_new_and_answers_requests_in_flight() -> None:
    echo = Echo()
    async with serving(echo) as server, connected(server) as client, connected(server) as idle:
        idle.send(KNOWN)
        await idle.answer()
        echo.hold = asyncio.Event()
        client.send(KNOWN)
        await until(lambda: echo.in_flight)
        ending = asyncio.create_task(server.__aexit__())
        assert await idle.is_closed()
        with pytest.raises(ConnectionError):
            await asyncio.open_connection(*server.address)
        echo.hold.set()
        assert b"connection: close\r\n" in await client.answer()
        await ending


async def test_an_answer_begun_before_the_drain_is_the_last_one_of_its_connection() -> None:
    echo = Echo()
    async with serving(echo) as server:
        client = await start_reading(server, KNOWN.replace(b"/a", b"/large") + KNOWN.replace(b"/a", b"/behind"))
        ending = asyncio.create_task(server.__aexit__())
        await until(lambda: server.draining)
        answer = await read_on(client)
        assert answer.endswith(b"\r\n\r\n" + b"x" * 2_000_000)
        await ending
    assert [path for _, path, _ in echo.seen] == ["/large"]


async def test_bytes_after_an_unauthenticated_request_during_its_answer_are_not_run_as_a_request() -> None:
    echo = Echo()
    async with serving(echo) as server:
        client = await start_reading(server, GET.replace(b"/a", b"/large"))
        came = asyncio.Event()
        with probing("serving.read_ahead", came.set):
            await asyncio.get_running_loop().sock_sendall(client, KNOWN.replace(b"/a", b"/behind"))
            await asyncio.wait_for(came.wait(), 10)
        answer = await read_on(client)
        assert b"\r\nconnection: close\r\n" not in answer[:300]  # nobody knew as it began
        assert answer.endswith(b"\r\n\r\n" + b"x" * 2_000_000)
    assert [path for _, path, _ in echo.seen] == ["/large"]


async def test_a_connection_during_the_drain_is_turned_away() -> None:
    async with serving(Echo()) as server:
        server.draining = True  # a moment before it stops listening
        async with connected(server) as client:
            assert await client.is_closed()


async def test_connections_are_counted_by_state(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "SWEEP_S", 0.02)
    async with serving(Echo()) as server, connected(server) as client:
        client.send(KNOWN)
        await client.answer()
        await until(lambda: REGISTRY.get_sample_value("orgs_http_connections", {"state": ConnectionState.IDLE}) == 1)


def test_connections_are_no_more_than_open_files_allow(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = {"now": (1_024, 4_096)}
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits["now"])
    monkeypatch.setattr(resource, "setrlimit", lambda _, pair: limits.update(now=pair))
    assert raise_file_limit(2_000) == 2_000
    assert limits["now"] == (2_256, 4_096)
    assert raise_file_limit(10_000) == 3_840
    assert limits["now"] == (4_096, 4_096)
