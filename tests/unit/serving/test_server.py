"""What a server does with connections: many, slow, silent, greedy ones, and at its end."""

import asyncio
from collections.abc import Iterator

import pytest
from prometheus_client import REGISTRY

from org_service.serving import server as server_module
from org_service.serving.registry import TIMEOUTS_S, ConnectionState
from org_service.telemetry.metrics import HTTP_CONNECTIONS
from tests.support.probing import probing
from tests.support.waiting import until
from tests.unit.serving.plain import GET, KNOWN, read_on, start_reading
from tests.unit.serving.serving import Client, Echo, Run, connected, on_both_loops, serving


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Time limits run out in a fraction of a second."""
    for state in TIMEOUTS_S:
        monkeypatch.setitem(TIMEOUTS_S, state, 0.2)
    monkeypatch.setattr(server_module, "SWEEP_S", 0.05)
    return iter([None])


async def test_requests_of_one_connection_are_answered_in_order_and_none_is_read_ahead_of_its_turn() -> None:
    echo = Echo()
    async with serving(echo) as server, connected(server) as client:
        echo.hold = asyncio.Event()
        client.send(KNOWN.replace(b"/a", b"/1") + KNOWN.replace(b"/a", b"/2"))
        await until(lambda: echo.in_flight)
        assert [path for _, path, _ in echo.seen] == ["/1"]
        echo.hold.set()
        assert (await client.answer()).endswith(b"/1 ")
        assert (await client.answer()).endswith(b"/2 ")


async def test_bytes_after_an_unauthenticated_request_are_not_run_as_a_request() -> None:
    echo = Echo()
    async with serving(echo) as server, connected(server) as client:
        client.send(GET + KNOWN.replace(b"/a", b"/behind"))
        assert b"connection: close\r\n" in await client.answer()
        assert await client.is_closed()
    assert [path for _, path, _ in echo.seen] == ["/a"]


async def test_an_upgrade_is_ignored_and_its_request_has_its_body() -> None:
    echo = Echo()
    async with serving(echo) as server, connected(server) as client:
        for upgrade in (b"h2c", b"websocket", b"TLS/1.0"):
            client.send(
                b"DELETE /a HTTP/1.1\r\nhost: x\r\nconnection: Upgrade, HTTP2-Settings\r\nupgrade: " + upgrade + b"\r\n"
                b"http2-settings: AAEAAEAA\r\nauthorization: Bearer t\r\ncontent-length: 21\r\n\r\n"
            )
            await asyncio.sleep(0)
            client.send(b'{"expected_version":7')
            assert (await client.answer()).endswith(b'/a {"expected_version":7')
    assert [body for _, _, body in echo.seen] == [b'{"expected_version":7'] * 3


async def test_trailers_are_not_headers() -> None:
    echo = Echo()
    async with serving(echo) as server, connected(server) as client:
        client.send(
            b"POST /a HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\ntrailer: authorization\r\n\r\n"
            b'2\r\n{}\r\n0\r\nauthorization: Bearer t\r\nif-match: "v1"\r\n\r\n'
        )
        assert (await client.answer()).endswith(b"/a {}")
    assert not {b"authorization", b"if-match"} & set(echo.headers[0])


async def test_trailers_without_an_end_are_rejected_and_the_application_never_runs() -> None:
    echo = Echo()
    async with serving(echo) as server, connected(server) as client:
        client.send(b"POST /a HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n")
        for _ in range(200):
            client.send(b"x-trailer: 0123456789012345678901234567890123456789\r\n")
        assert (await client.rest()).startswith(b"HTTP/1.1 431 ")
    assert echo.seen == []


async def test_a_malformed_body_is_answered_and_never_reaches_the_application() -> None:
    echo = Echo()
    async with serving(echo) as server, connected(server) as client:
        client.send(b"POST /a HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n")
        await until(lambda: len(server))
        client.send(b"zz\r\n" + KNOWN)
        assert (await client.rest()).startswith(b"HTTP/1.1 400 ")
    assert echo.seen == []


async def test_a_body_that_nobody_reads_ends_its_connection_and_the_answer_arrives() -> None:
    echo = Echo()
    async with serving(echo) as server, connected(server) as client:
        client.send(b"POST /unread HTTP/1.1\r\nhost: x\r\nauthorization: t\r\ncontent-length: 100000\r\n\r\n")
        client.send(b"y" * 50_000)
        answer = await client.answer()
        assert b"connection: close" in answer
        client.send(KNOWN)
        assert await client.is_closed()
    assert [path for _, path, _ in echo.seen] == ["/unread"]


async def test_a_received_but_unread_body_is_dropped_and_the_connection_stays_open() -> None:
    echo = Echo()
    async with serving(echo) as server, connected(server) as client:
        for _ in range(2):
            client.send(b"POST /unread HTTP/1.1\r\nhost: x\r\nauthorization: t\r\ncontent-length: 5\r\n\r\nhello")
            assert b"connection: close" not in await client.answer()


async def test_a_client_that_keeps_sending_after_the_last_answer_is_disconnected_after_a_limit() -> None:
    async with serving(Echo()) as server, connected(server) as client:
        client.send(b"POST /unread HTTP/1.1\r\nhost: x\r\ncontent-length: 90000000\r\n\r\n")
        await client.answer()
        with pytest.raises(ConnectionError):
            await flood(client)


async def flood(client: Client) -> None:
    """Sixteen mebibytes, as fast as they are read."""
    for _ in range(256):
        client.send(b"y" * 65_536)
        await client.writer.drain()


async def test_a_client_gets_100_continue_only_when_its_body_is_read() -> None:
    async with serving(Echo()) as server, connected(server) as client:
        head = b"POST %b HTTP/1.1\r\nhost: x\r\nauthorization: t\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n"
        client.send(head % b"/a")
        assert await client.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.send(b"{}")
        assert (await client.answer()).endswith(b"/a {}")
        client.send(head % b"/unread")
        assert (await client.answer()).startswith(b"HTTP/1.1 200 ")
        assert await client.is_closed()


async def test_an_answer_without_a_length_comes_in_chunks_and_to_an_old_client_until_the_end() -> None:
    async with serving(Echo()) as server:
        async with connected(server) as client:
            client.send(b"GET /streamed HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            whole = await client.rest()
            assert b"transfer-encoding: chunked\r\n" in whole
            assert whole.endswith(b"\r\n\r\n3\r\n/st\r\n7\r\nreamed \r\n0\r\n\r\n")
        async with connected(server) as client:
            client.send(b"GET /streamed HTTP/1.0\r\n\r\n")
            whole = await client.rest()
            assert b"transfer-encoding" not in whole
            assert whole.endswith(b"connection: close\r\n\r\n/streamed ")


async def test_head_has_the_headers_and_no_body() -> None:
    async with serving(Echo()) as server, connected(server) as client:
        client.send(b"HEAD /a HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        whole = await client.rest()
    assert b"content-length: 3\r\n" in whole
    assert whole.endswith(b"\r\n\r\n")


@pytest.mark.parametrize("sent", [b"", b"GET /a HTTP/1.1\r\nhost: x\r\nx-slow: "], ids=["nothing", "a part"])
async def test_a_connection_without_a_whole_request_ends(soon: None, sent: bytes) -> None:
    async with serving(Echo()) as server, connected(server) as client:
        client.send(sent)
        assert await client.is_closed()
        await until(lambda: not len(server))


async def test_a_head_sent_byte_by_byte_gets_no_extra_time(soon: None) -> None:
    async with serving(Echo()) as server, connected(server) as client:

        async def drip() -> None:
            while True:
                client.send(b"x")
                await asyncio.sleep(0.02)

        dripping = asyncio.create_task(drip())
        assert await client.is_closed()
        dripping.cancel()


@pytest.mark.parametrize("sent", [b"", b"GET /a HTTP/1.1\r\nhost: x\r\nx-slow: "], ids=["nothing", "a part"])
async def test_a_connection_is_closed_after_its_answer_unless_a_whole_request_follows(soon: None, sent: bytes) -> None:
    async with serving(Echo()) as server, connected(server) as client:
        client.send(KNOWN)
        await client.answer()
        client.send(sent)
        assert await client.is_closed()
        await until(lambda: not len(server))


async def test_a_client_that_stays_after_its_last_answer_is_disconnected(soon: None) -> None:
    async with serving(Echo()) as server, connected(server) as client:
        client.send(b"POST /unread HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n")
        await client.answer()
        await until(lambda: not len(server))  # though it neither sends the rest nor closes


async def test_bytes_after_a_request_in_flight_are_read_up_to_a_limit() -> None:
    echo = Echo()
    async with serving(echo) as server, connected(server) as client:
        echo.hold = asyncio.Event()
        client.send(KNOWN)
        await until(lambda: echo.in_flight)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(flood(client), 0.3)
        echo.hold.set()


async def test_a_client_that_does_not_read_its_answer_is_disconnected(soon: None) -> None:
    async with serving(Echo()) as server, connected(server) as client:
        client.writer.transport.pause_reading()  # pyright: ignore[reportAttributeAccessIssue]
        client.send(KNOWN.replace(b"/a", b"/large"))
        await until(lambda: not len(server))


LAST = [
    pytest.param(
        KNOWN.replace(b"/a", b"/large").replace(b"host", b"connection: close\r\nhost"), id="the client says so"
    ),
    pytest.param(KNOWN.replace(b"/a", b"/large").replace(b"1.1", b"1.0"), id="an old client"),
    pytest.param(GET.replace(b"/a", b"/large") + KNOWN, id="a stranger with more behind"),
]


@pytest.mark.parametrize("sent", LAST)
@on_both_loops
def test_a_slow_reader_has_the_same_time_for_the_end_of_its_last_answer_as_for_the_rest(
    run: Run, sent: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "SWEEP_S", 0.02)
    monkeypatch.setitem(TIMEOUTS_S, ConnectionState.CLOSING, 0.0)
    monkeypatch.setattr(server_module, "SOCKET_BUFFER_BYTES", 8_192)  # so that an answer's end waits here

    async def main() -> None:
        async with serving(Echo()) as server:
            written = asyncio.Event()
            client, received = await start_reading(server, sent), b""
            with probing("serving.last_answer_written", written.set):
                while not written.is_set():
                    received += await asyncio.get_running_loop().sock_recv(client, 4_096)
                    await asyncio.sleep(0)
            for _ in range(3):  # sweeps
                HTTP_CONNECTIONS.labels(ConnectionState.WRITING).set(0)
                await until(
                    lambda: REGISTRY.get_sample_value("orgs_http_connections", {"state": ConnectionState.WRITING}) == 1
                )
            assert (received + await read_on(client)).endswith(b"\r\n\r\n" + b"x" * 2_000_000)
            await until(lambda: not len(server))

    run(main())


@on_both_loops
def test_a_client_that_does_not_read_the_end_of_its_last_answer_is_disconnected(
    run: Run, soon: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "SOCKET_BUFFER_BYTES", 8_192)

    async def main() -> None:
        async with serving(Echo()) as server:
            client = await start_reading(server, KNOWN.replace(b"/a", b"/large").replace(b"1.1", b"1.0"))
            written = asyncio.Event()
            with probing("serving.last_answer_written", written.set):
                while not written.is_set():
                    await asyncio.get_running_loop().sock_recv(client, 4_096)
                    await asyncio.sleep(0)
            await until(lambda: not len(server))
            client.close()

    run(main())
