"""Requests that could be read in two ways, at a running edge: alone, and behind a proxy that reuses its connection.

Behind a proxy an attacker and a caller share the connection to the edge. If the two programs disagree where the
attacker's request ends, the caller gets the answer to another request, or the attacker's bytes act with their token.

`make smuggle` runs the same behind a real nginx (`ORGS_TEST_PROXY=nginx`, and `nginx-websocket`).
"""

import asyncio
import os
import secrets
import socket
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from threading import Thread
from urllib.parse import urlsplit

import pytest

from tests.support.edge import Site
from tests.support.nginx import nginx
from tests.support.reverse_proxy import reverse_proxy
from tests.support.waiting import WITHIN_S
from tests.unit.serving.cases import CASES, Case

pytestmark = pytest.mark.integration

NAMES = [case.name for case in CASES]
FILLER = b"x" * 30_000
"""So much of a body comes in a packet of its own."""


def edge_port(site: Site) -> int:
    return urlsplit(site.url).port or 0


@pytest.fixture(scope="module")
def proxy_port(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    kind = os.environ.get("ORGS_TEST_PROXY", "")
    if kind:
        folder: Path = tmp_path_factory.mktemp("nginx")
        with nginx(folder, edge_port(site), for_websocket=kind == "nginx-websocket") as port:
            yield port
        return
    loop, stop, listens = asyncio.new_event_loop(), asyncio.Event(), Future[int]()

    async def serve() -> None:
        async with reverse_proxy("127.0.0.1", edge_port(site)) as port:
            listens.set_result(port)
            await stop.wait()

    thread = Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    yield listens.result(WITHIN_S)
    loop.call_soon_threadsafe(stop.set)
    thread.join()
    loop.close()


class Raw:
    """A connection that bytes are sent on."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self._got = b""

    def send(self, content: bytes) -> None:
        with suppress(ConnectionError):
            self._socket.sendall(content)

    def answer(self) -> tuple[int, bytes, bytes] | None:
        """Status, head and body of one answer; None where the connection ends."""
        while b"\r\n\r\n" not in self._got:
            if not self._more():
                return None
        head, _, rest = self._got.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
        while len(rest) < length and self._more():
            rest = self._got.partition(b"\r\n\r\n")[2]
        self._got = rest[length:]
        return int(head.split(b" ")[1]), head, rest[:length]

    def _more(self) -> bool:
        try:
            got = self._socket.recv(65_536)
        except ConnectionError:
            return False
        self._got += got
        return bool(got)

    def close(self) -> None:
        self._socket.close()


def asks(site: Site, port: int, user: str = "caller") -> None:
    """A caller asks, and must get the answer to just that."""
    mark = secrets.token_hex(8)
    connection = Raw(port)
    connection.send(
        f"GET /v1/orgs?limit=1 HTTP/1.1\r\nhost: 127.0.0.1\r\nx-request-id: {mark}\r\n"
        f"authorization: Bearer {site.people.token(user)}\r\n\r\n".encode()
    )
    answer = connection.answer()
    connection.close()
    assert answer is not None
    assert (answer[0], f"x-request-id: {mark}".encode() in answer[1]) == (200, True), answer[:2]


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_the_edge_answers_unambiguous_requests_and_closes_on_ambiguous_ones(site: Site, case: Case) -> None:
    token = f"authorization: Bearer {site.people.token('caller')}\r\n".encode()
    connection = Raw(edge_port(site))
    sent = case.sent if case.status is not None else case.sent.replace(b"Host: x\r\n", b"Host: x\r\n" + token, 1)
    connection.send(sent + b"GET /v1/orgs HTTP/1.1\r\nhost: x\r\n" + token + b"connection: close\r\n\r\n")
    first, second, third = connection.answer(), connection.answer(), connection.answer()
    connection.close()
    assert first is not None
    in_chunks = b"\r\ntransfer-encoding: chunked\r\n" in sent.lower()
    if case.status is None:
        assert first[0] == 404
        # The end of chunks that nobody wants is not looked for.
        assert in_chunks or second is not None
        assert second is None or (second[0], third) == (200, None)
    else:
        # Who asks is judged before a body is read.
        expected = {400, 501} if case.status == 0 else {case.status}
        assert first[0] in (expected | {401} if in_chunks else expected)
        assert b"content-type: application/problem+json" in first[1]
        assert second is None


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_behind_a_proxy_a_caller_gets_the_answer_to_their_own_request(site: Site, proxy_port: int, case: Case) -> None:
    attacker = Raw(proxy_port)
    attacker.send(case.sent + b"GET /v1/smuggled HTTP/1.1\r\nx-y: z")
    for _ in range(2):
        asks(site, proxy_port)
    attacker.close()
    asks(site, proxy_port)


@pytest.mark.parametrize("upgrade", ["h2c", "websocket", "TLS/1.0"])
@pytest.mark.parametrize("framing", ["length", "chunks"])
def test_behind_a_proxy_no_part_of_a_body_is_run_with_another_callers_token(
    site: Site, proxy_port: int, upgrade: str, framing: str
) -> None:
    org_id = site.create(f"Smuggled {secrets.token_hex(4)}")
    body = FILLER + f"DELETE /v1/orgs/{org_id} HTTP/1.1\r\nHost: x\r\nX-Swallowed: ".encode()
    if framing == "chunks":
        head, sent = "Transfer-Encoding: chunked", b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    else:
        head, sent = f"Content-Length: {len(body)}", body
    attacker = Raw(proxy_port)
    attacker.send(
        f"POST /v1/orgs HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: {upgrade}\r\n{head}\r\n\r\n".encode()
    )
    attacker.send(sent)
    answer = attacker.answer()
    assert answer is not None
    assert answer[0] in {401, 502}
    asks(site, proxy_port, "root")
    asks(site, proxy_port, "root")
    attacker.close()
    with site.client("root") as root:
        assert root.get(f"/v1/orgs/{org_id}").json()["version"] == 1


@pytest.mark.parametrize("upgrade", ["h2c", "websocket", "TLS/1.0"])
def test_a_change_with_an_upgrade_keeps_its_precondition(site: Site, upgrade: str) -> None:
    org_id = site.create(f"Upgraded {secrets.token_hex(4)}")
    site.member("una", org_id, "admin")
    with site.client("una") as una:
        answer = una.request(
            "DELETE",
            f"/v1/orgs/{org_id}",
            json={"expected_version": 7},
            headers={"connection": "Upgrade, HTTP2-Settings", "upgrade": upgrade, "http2-settings": "AAEAAEAA"},
        )
        assert (answer.status_code, answer.json()["type"]) == (409, "urn:orgs:problem:precondition-failed")
        assert una.get(f"/v1/orgs/{org_id}").json()["version"] == 1


def test_a_token_in_a_trailer_is_ignored(site: Site) -> None:
    connection = Raw(edge_port(site))
    connection.send(b"POST /v1/orgs HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n")
    connection.send(b'transfer-encoding: chunked\r\n\r\nf\r\n{"name": "New"}\r\n0\r\n')
    connection.send(f"authorization: Bearer {site.people.token('root')}\r\n\r\n".encode())
    answer = connection.answer()
    connection.close()
    assert answer is not None
    assert answer[0] == 401


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/mcp%0A", 400),
        ("/mcp%0a", 400),
        ("/mcp%0D%0A", 400),
        ("/docs%0A", 400),
        ("/v1/orgs%0A", 400),
        ("/mcp%00", 400),
        ("/mcp%C2%85", 400),
        ("/mcp/", 401),
        ("/mcp//", 401),
        ("//mcp", 401),
        ("/MCP", 401),
        ("/%6dcp", 401),
        ("/docs/", 401),
        ("/docs/../mcp", 401),
        ("/%64ocs", 401),
        ("/docs;x", 401),
        ("/docs/other.js", 401),
        ("/metrics", 401),
        ("/", 401),
    ],
)
def test_only_the_paths_of_the_docs_are_public_exactly_as_they_are_written(site: Site, path: str, status: int) -> None:
    for method in ("GET", "POST"):
        connection = Raw(edge_port(site))
        connection.send(f"{method} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 2\r\n\r\n{{}}".encode())
        answer = connection.answer()
        connection.close()
        assert answer is not None
        assert answer[0] == status, (method, path)
