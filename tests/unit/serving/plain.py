"""Two requests, and a client that reads its answers only when a test wants it."""

import asyncio
import socket

from org_service.serving.server import HttpServer
from tests.unit.serving.serving import WAIT_S

GET = b"GET /a HTTP/1.1\r\nhost: x\r\n\r\n"
KNOWN = b"GET /a HTTP/1.1\r\nhost: x\r\nauthorization: Bearer t\r\n\r\n"


async def start_reading(server: HttpServer, request: bytes) -> socket.socket:
    """A client that asks for what is more than it has room for, and reads no more than the beginning of the answer."""
    loop, client = asyncio.get_running_loop(), socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8_192)
    client.setblocking(False)
    await loop.sock_connect(client, server.address)
    await loop.sock_sendall(client, request)
    assert (await loop.sock_recv(client, 10)) == b"HTTP/1.1 2"
    return client


async def read_on(client: socket.socket) -> bytes:
    """The rest, as far as it comes."""
    received = b""
    async with asyncio.timeout(WAIT_S):
        while part := await asyncio.get_running_loop().sock_recv(client, 1 << 20):
            received += part
    client.close()
    return received
